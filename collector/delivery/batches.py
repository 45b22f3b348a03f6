"""
Cuts a segment into batches within a sink's limits.

The same segment is cut the same way each time: what is settled already is left out afterwards, so that a batch
which is read again after a crash has the name and the lines it had before.
"""

from __future__ import annotations

from collections.abc import Iterator

import msgspec
from xxhash import xxh32_hexdigest

from collector.buffer.segment import Contents, Piece, Segment
from collector.event import Batch, Span
from collector.intervals import Intervals
from collector.sinks.base import Limits


class Cut(msgspec.Struct, frozen=True):
    """A batch, and whether the sink may have it; one that does not fit holds events too large for the sink."""

    batch: Batch
    fits: bool = True


class _Pile:
    """Lines on their way into one batch."""

    def __init__(self, segment: Segment) -> None:
        self._segment = segment
        self.spans: list[Span] = []
        self.parts: list[bytes | memoryview] = []
        self.events = 0
        self.size = 0

    def add(self, span: Span, lines: bytes | memoryview) -> None:
        self.events += len(span)
        self.size += len(lines)
        self.parts.append(lines)
        if self.spans and self.spans[-1].last == span.first and _same_partition(self.spans[-1], span):
            span = Span(span.tenant_id, span.hour, self.spans.pop().first, span.last)
        self.spans.append(span)

    def takes(self, events: int, size: int, limits: Limits) -> bool:
        return self.events + events <= limits.max_events and self.size + size <= limits.max_bytes

    def batch(self) -> Batch:
        return Batch(
            name=_name(self._segment, self.spans[0]),
            segment=self._segment.name,
            spans=tuple(self.spans),
            payload=b"".join(self.parts),
        )


def _same_partition(one: Span, other: Span) -> bool:
    return (one.tenant_id, one.hour) == (other.tenant_id, other.hour)


def _name(segment: Segment, span: Span) -> str:
    partition = xxh32_hexdigest(f"{span.tenant_id}/{span.hour}".encode())
    return f"{segment.name}-{partition}-{span.first:08d}"


def cut(segment: Segment, contents: Contents, limits: Limits) -> Iterator[Cut]:
    """Yield the batches of what is not settled in a segment, partition by partition."""
    pile = _Pile(segment)
    for (tenant_id, hour), pieces in sorted(contents.pieces.items(), key=lambda item: item[0]):
        settled = segment.settled.get((tenant_id, hour), Intervals())
        for piece in sorted(pieces, key=lambda one: one.first):
            for first, last, lines in _fitting(piece, settled, limits):
                span = Span(tenant_id, hour, first, last)
                if len(lines) > limits.max_event_bytes and len(span) == 1:
                    large = _Pile(segment)
                    large.add(span, lines)
                    yield Cut(large.batch(), fits=False)
                    continue
                if pile.spans and not pile.takes(len(span), len(lines), limits):
                    yield Cut(pile.batch())
                    pile = _Pile(segment)
                pile.add(span, lines)
        if pile.spans and limits.partitioned:
            yield Cut(pile.batch())
            pile = _Pile(segment)
    if pile.spans:
        yield Cut(pile.batch())


def _fitting(piece: Piece, settled: Intervals, limits: Limits) -> Iterator[tuple[int, int, bytes | memoryview]]:
    """Yield (first, last, lines) of the unsettled events of a piece: whole where that fits, else line by line."""
    end = piece.first + piece.events
    small = piece.events <= limits.max_events and len(piece.payload) <= min(limits.max_bytes, limits.max_event_bytes)
    gaps = settled.gaps(piece.first, end)
    if small and gaps == [(piece.first, end)]:
        yield piece.first, end, piece.payload
    elif gaps:
        lines = bytes(piece.payload).split(b"\n")
        for first, last in gaps:
            for n in range(first, last):
                yield n, n + 1, lines[n - piece.first] + b"\n"
