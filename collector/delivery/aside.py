"""
What does not go the usual way: events that a sink refuses for good are parked, those too large for it are claimed.

Parked is kept whole, beside the rescued batches, for a person to look at and to send again. A claim is a small event in
the place of a large one, which lies whole in an object store; it says where.
"""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Callable
from hashlib import sha256
from typing import Any

import msgspec

from collector.delivery.batches import picked
from collector.errors import TransientSinkError
from collector.event import Batch
from collector.outcome import Reason, Receipt
from collector.sinks.base import ObjectSink, Offload, Sink


class Parking:
    """Keeps refused events, by route and reason; `open_place` makes the sink of both when it is first needed."""

    def __init__(self, open_place: Callable[[str, Reason], Sink], *, offload: Offload) -> None:
        self._open_place = open_place
        self._offload = offload
        self._places: dict[tuple[str, Reason], Sink] = {}

    def start(self) -> None:
        """Do nothing: a place is opened when it is needed, which is seldom."""

    def keep(self, route: str, batch: Batch, receipt: Receipt) -> Receipt:
        """
        Keep what a receipt says is rejected; return the receipt, in which what could not be kept is to be tried again.
        """
        by_reason: defaultdict[Reason, list[int]] = defaultdict(list)
        for place, reason in receipt.rejected:
            by_reason[reason].append(place)
        lost: list[int] = []
        trouble = receipt.trouble
        for reason, places in by_reason.items():
            try:
                for one in picked(batch, places):
                    self._write(route, reason, one)
            except TransientSinkError as error:
                lost += places
                trouble = f"what its sink refuses for good can't be parked: {error}"
        if not lost:
            return receipt
        return msgspec.structs.replace(
            receipt,
            retryable=tuple(sorted((*receipt.retryable, *lost))),
            rejected=tuple((place, reason) for place, reason in receipt.rejected if place not in set(lost)),
            trouble=trouble,
        )

    def close(self) -> None:
        """Let the places go. Safe to call twice."""
        for sink in self._places.values():
            sink.close()
        self._places.clear()

    def _write(self, route: str, reason: Reason, batch: Batch) -> None:
        sink = self._places.get((route, reason))
        if sink is None:
            sink = self._places[route, reason] = self._open_place(route, reason)
        write_there(sink, batch, self._offload)


class Claims:
    """Puts large events into an object store, and their claims into their sinks."""

    def __init__(self, store: ObjectSink, *, offload: Offload) -> None:
        self._store = store
        self._offload = offload

    def write(self, sink: Sink, batch: Batch) -> Receipt:
        """
        Store a batch of one event, and write its claim to its sink, under the same id.

        A sink for which the claim itself is too large refuses the event; raises `TransientSinkError` as sinks do.
        """
        line = batch.payload
        claim = self._claim(batch, line)
        if claim is None or len(claim) > sink.limits.max_event_bytes:
            return Receipt(0, rejected=((0, Reason.SINK_TOO_LARGE),))
        # Before its claim: whoever reads that finds it.
        write_there(self._store, batch, self._offload)
        return sink.write(Batch(batch.name, batch.segment, batch.spans, (claim,)))

    def _claim(self, batch: Batch, line: bytes) -> bytes | None:
        try:
            fields: dict[str, Any] = msgspec.json.decode(line, type=dict[str, msgspec.Raw])
        except msgspec.MsgspecError:
            return None
        fields.pop("event", None)
        fields["claim"] = {
            "url": self._store.url_of(batch),
            "bytes": len(line),
            "sha256": sha256(line).hexdigest(),
        }
        return msgspec.json.encode(fields) + b"\n"


def write_there(sink: Sink, batch: Batch, offload: Offload) -> Receipt:
    """Write a batch from the hub, off it if the sink blocks."""
    return offload(lambda: sink.write(batch)) if sink.blocking else sink.write(batch)
