"""
Batches as records of AWS's streams and queues, and what is said of each.

A record holds lines of one tenant, as many as fit, or one.
"""

from __future__ import annotations

import re
from bisect import bisect_right
from collections.abc import Iterator, Mapping, Sequence
from enum import Enum
from itertools import accumulate
from typing import Protocol

import msgspec

from collector import aws
from collector.aws.words import THROTTLES
from collector.event import Batch
from collector.sinks.url import SinkUrl

#: What one call carries, and so one record of several lines, unless one line is larger. A call holds the loop for
#: 1.7 ms and 5 ms more for each MiB (measured), so this is 4 ms; half as much costs a third more for each event. Two
#: hold a batch of a MiB with room to spare: with less, what does not fit is a third call, of a few lines.
CALL_BYTES = 540 * 1024


class Record(msgspec.Struct, frozen=True):
    """Lines of one tenant of a batch, without their newlines; the first is at this place in it."""

    batch: Batch
    tenant_id: str
    first: int
    lines: tuple[bytes, ...]

    @property
    def places(self) -> range:
        """Say where its lines are in the batch."""
        return range(self.first, self.first + len(self.lines))

    @property
    def name(self) -> str:
        """Name it by its batch and its first event; it has the same name when it is sent again."""
        at = self.first
        for span in self.batch.spans:
            if at < len(span):
                return f"{self.batch.name}/{span.tenant_id}/{span.hour}/{span.first + at}"
            at -= len(span)
        raise IndexError(self.first)

    @property
    def data(self) -> bytes:
        """Join the lines, with newlines between them."""
        return self.lines[0] if len(self.lines) == 1 else b"\n".join(self.lines)

    @property
    def size(self) -> int:
        """Count the bytes, a newline for each line."""
        return sum(map(len, self.lines)) + len(self.lines)

    def halves(self) -> tuple[Record, Record]:
        """Part it in two."""
        middle = len(self.lines) // 2
        return self._part(0, middle), self._part(middle, len(self.lines))

    def _part(self, first: int, last: int) -> Record:
        return Record(self.batch, self.tenant_id, self.first + first, self.lines[first:last])


class Fate(Enum):
    """What becomes of a record that was not taken."""

    AGAIN = "it was not taken, and may be later"
    SLOWER = "it came too fast"
    IN_DOUBT = "it may have been taken"
    NEVER = "it is refused for good"


class Refusal(msgspec.Struct, frozen=True):
    """Why a record was not taken: its fate, and the destination's own code and words."""

    fate: Fate
    code: str
    message: str = ""


class Destination(Protocol):
    """A stream or a queue: how many records a call takes there, how long a line may be, and the call."""

    most_records: int
    max_event_bytes: int

    def send(self, client: aws.Client, records: Sequence[Record]) -> Sequence[Refusal | None]:
        """Send records in one call, and say of each whether it was taken; raises as `aws.call` does."""


def name_of(url: SinkUrl, pattern: re.Pattern[str], what: str) -> str:
    """Return the name of the stream or queue that a URL names, and nothing more; raises `ValueError`."""
    if not pattern.fullmatch(url.host) or url.path.strip("/"):
        named = f"{url.host}{url.path}"
        raise ValueError(f"sink {url.text!r}: {named!r} is no name of a {what}; write {url.scheme}://{what}")
    return url.host


def refusal_of(code: str, message: str) -> Refusal:
    """Read what a stream says of a record: what it names no passing cause for, it will never take."""
    if code == "InternalFailure":
        return Refusal(Fate.IN_DOUBT, code, message)
    return Refusal(Fate.SLOWER if code in THROTTLES else Fate.NEVER, code, message)


def fates_of(rows: Sequence[Mapping[str, str]]) -> list[Refusal | None]:
    """Read a stream's answer, row by row."""
    return [refusal_of(row["ErrorCode"], row.get("ErrorMessage", "")) if row.get("ErrorCode") else None for row in rows]


def records_of(batch: Batch, most_bytes: int) -> list[Record]:
    """Part a batch into records: the lines of a tenant that follow each other, as many as fit."""
    lines = batch.lines()
    # Where each line begins, and the last one ends, its newline counted.
    begins = list(accumulate((len(line) + 1 for line in lines), initial=0))
    records: list[Record] = []
    at = 0
    for tenant_id, end in _runs(batch):
        while at < end:
            first = at
            at = max(first + 1, bisect_right(begins, begins[first] + most_bytes, first, end + 1) - 1)
            records.append(Record(batch, tenant_id, first, tuple(lines[first:at])))
    return records


def _runs(batch: Batch) -> Iterator[tuple[str, int]]:
    """Yield each tenant of a batch with the place where its lines end."""
    end = 0
    for number, span in enumerate(batch.spans):
        end += len(span)
        is_last = number + 1 == len(batch.spans)
        if is_last or batch.spans[number + 1].tenant_id != span.tenant_id:
            yield span.tenant_id, end
