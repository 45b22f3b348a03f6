"""
Whether every acknowledged event is in the sink, once: told by the answers, by the ledger, and by the sink's files.
"""

from __future__ import annotations

import re
from collections import Counter
from collections.abc import Callable
from pathlib import Path
from time import monotonic, sleep

import msgspec
import zstandard

#: A receipt names an upload, and stands in each of its lines.
_RECEIPT = re.compile(rb'"receipt":"([^"]+)"')
#: How long nobody reads, in seconds, and at least in readings.
_POLL_S, _POLL_PART = 0.05, 20.0


class Ledger(msgspec.Struct, frozen=True):
    """What `GET /ledger` says of all tenants together, in events."""

    balanced: bool
    accepted: int
    delivered: int
    pending: int


class Account(msgspec.Struct, frozen=True):
    """
    The books of one measurement, in events and in uploads.

    `acknowledged` is what the answers with 200 said. `accepted`, `delivered` and `pending` are the ledger's, since
    the measurement began. `stored` is lines in the sink, `uploads_stored` the uploads they came in, and
    `uploads_torn` those of them with too few lines or too many.
    """

    acknowledged: int
    uploads_acknowledged: int
    accepted: int
    delivered: int
    pending: int
    balanced: bool
    stored: int
    uploads_stored: int
    uploads_torn: int

    @property
    def problems(self) -> list[str]:
        """Say what does not fit; nothing if no event was lost and none came twice."""
        found = []
        if not self.balanced:
            found.append("the ledger does not balance")
        if self.accepted != self.acknowledged:
            found.append(f"{self.acknowledged} events were acknowledged, and the ledger accepted {self.accepted}")
        if self.accepted != self.delivered + self.pending:
            found.append(f"of {self.accepted} accepted events {self.delivered} were delivered, {self.pending} pend")
        if self.pending:
            found.append(f"{self.pending} events are still pending")
        if self.stored != self.delivered:
            found.append(f"the ledger says {self.delivered} events are delivered, and the sink holds {self.stored}")
        if self.uploads_stored != self.uploads_acknowledged:
            found.append(f"{self.uploads_acknowledged} uploads were acknowledged; the sink has {self.uploads_stored}")
        if self.uploads_torn:
            found.append(f"{self.uploads_torn} uploads are in the sink with events missing or twice")
        return found


def await_delivery(read: Callable[[], Ledger], patience_s: float) -> Ledger:
    """Read the ledger until nothing is pending, or the patience is at its end; return the last reading."""
    asked = monotonic()
    deadline = asked + patience_s
    while (ledger := read()).pending and (now := monotonic()) < deadline:
        # With ten thousand tenants a reading is work for the server, which must not be all that is measured.
        sleep(max(_POLL_S, _POLL_PART * (now - asked)))
        asked = monotonic()
    return ledger


def take_stock(sink: Path) -> Counter[bytes]:
    """Count the lines in the sink's files by their receipts, and remove the files."""
    lines: Counter[bytes] = Counter()
    for file in sink.rglob("*.ndjson.zst"):
        text = zstandard.ZstdDecompressor().decompress(file.read_bytes())
        lines.update(receipts_in(text))
        file.unlink()
    return lines


def receipts_in(text: bytes) -> list[bytes]:
    """Return the receipt of each line: an event has none in it, so that there is one."""
    return _RECEIPT.findall(text)


class Stock:
    """
    Counts the sink's files as they come, for a load whose files would not fit into memory, nor their receipts.

    Only uploads of which some lines are still to come are remembered.
    """

    def __init__(self, sink: Path, *, events: int) -> None:
        self._sink = sink
        self._events = events
        self._whole = self._stored = 0
        self._torn: Counter[bytes] = Counter()

    def take(self) -> None:
        """Count what is there, and remove it."""
        lines = take_stock(self._sink)
        self._stored += lines.total()
        self._torn.update(lines)
        whole = [receipt for receipt in lines if self._torn[receipt] == self._events]
        self._whole += len(whole)
        for receipt in whole:
            del self._torn[receipt]

    def settle(self, before: Ledger, after: Ledger, *, uploads: int) -> Account:
        """Bring the witnesses together; so many uploads were acknowledged."""
        account = settle(before, after, self._torn, uploads=uploads, events=self._events)
        return msgspec.structs.replace(
            account, stored=self._stored, uploads_stored=account.uploads_stored + self._whole
        )


def settle(before: Ledger, after: Ledger, lines: Counter[bytes], *, uploads: int, events: int) -> Account:
    """Bring the witnesses together; `uploads` of `events` each were acknowledged."""
    return Account(
        acknowledged=uploads * events,
        uploads_acknowledged=uploads,
        accepted=after.accepted - before.accepted,
        delivered=after.delivered - before.delivered,
        pending=after.pending,
        balanced=after.balanced,
        stored=lines.total(),
        uploads_stored=len(lines),
        uploads_torn=sum(count != events for count in lines.values()),
    )
