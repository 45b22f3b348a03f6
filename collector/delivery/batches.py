"""
Cuts a segment into batches within a sink's limits.

The same segment is cut the same way each time: what is settled already is left out afterwards, so that a batch
which is read again after a crash has the name and the lines it had before. A name stands for one range of events,
whatever the limits were: whoever writes it later writes nothing else over it.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from operator import attrgetter, itemgetter

import msgspec
from xxhash import xxh3_64_hexdigest, xxh32_hexdigest

from collector.buffer.segment import Contents, Partition, Piece, Segment
from collector.event import Batch, Span
from collector.intervals import Intervals
from collector.sinks.base import Limits

_FIRST = attrgetter("first")
#: Partitions by hour and then by tenant.
_HOUR_FIRST = itemgetter(1, 0)
_NOTHING = Intervals()


class Cut(msgspec.Struct, frozen=True):
    """A batch, and whether the sink may have it; one that does not fit holds events too large for the sink."""

    batch: Batch
    fits: bool = True


class _Unit(msgspec.Struct, frozen=True):
    """What is not parted: a whole upload, or one line of it. `span` is all of it, `pending` what is not settled."""

    span: Span
    size: int
    pending: tuple[Span, ...]
    lines: bytes | memoryview


class _Pile:
    """Events on their way into one batch; those that are settled count, and are left out."""

    def __init__(self, segment: Segment, *units: _Unit) -> None:
        self._segment = segment
        self._first: Span | None = None
        self._last: Span | None = None
        self._events = 0
        self._size = 0
        self._spans: list[Span] = []
        self._parts: list[bytes | memoryview] = []
        for unit in units:
            self.add(unit)

    def add(self, unit: _Unit) -> None:
        self._first, self._last = self._first or unit.span, unit.span
        self._events += len(unit.span)
        self._size += unit.size
        if unit.pending:
            self._parts.append(unit.lines)
        for span in unit.pending:
            self._extend(span)

    def add_run(self, span: Span, size: int, parts: list[memoryview]) -> None:
        """Add uploads that follow each other, of which nothing is settled."""
        self._first, self._last = self._first or span, span
        self._events += len(span)
        self._size += size
        self._parts += parts
        self._extend(span)

    def _extend(self, span: Span) -> None:
        if self._spans and self._spans[-1].last == span.first and _same_partition(self._spans[-1], span):
            span = Span(span.tenant_id, span.hour, self._spans.pop().first, span.last)
        self._spans.append(span)

    def room(self, limits: Limits) -> tuple[int, int]:
        """Return how many events and bytes may still come in; a pile with nothing in it takes a whole unit anyhow."""
        return limits.max_events - self._events, limits.max_bytes - self._size

    def takes(self, unit: _Unit, limits: Limits) -> bool:
        events, size = self.room(limits)
        return (len(unit.span) <= events and unit.size <= size) or self._first is None

    def cuts(self, *, fits: bool = True) -> Iterator[Cut]:
        """Yield the batch, if anything in it is pending."""
        if self._spans and self._first and self._last:
            name = _name(self._segment, self._first, self._last)
            yield Cut(Batch(name, self._segment.name, tuple(self._spans), tuple(self._parts)), fits)


def _same_partition(one: Span, other: Span) -> bool:
    return (one.tenant_id, one.hour) == (other.tenant_id, other.hour)


def _name(segment: Segment, first: Span, last: Span) -> str:
    partitions = f"{first.tenant_id}/{first.hour}"
    if not _same_partition(first, last):
        partitions += f" {last.tenant_id}/{last.hour}"
    return f"{segment.name}-{xxh32_hexdigest(partitions.encode())}-{first.first:08d}-{last.last:08d}"


def cut(segment: Segment, contents: Contents, limits: Limits) -> Iterator[Cut]:
    """Yield the batches of what is not settled in a segment, partition by partition."""
    pile = _Pile(segment)
    hour = -1
    for partition in sorted(contents.pieces, key=_HOUR_FIRST if limits.hourly else None):
        pieces = contents.pieces[partition]
        if limits.hourly and partition[1] != hour:
            yield from pile.cuts()
            pile, hour = _Pile(segment), partition[1]
        settled = segment.settled.get(partition, _NOTHING)
        pieces.sort(key=_FIRST)
        at = 0
        while at < len(pieces):
            if not settled:
                run, at = _run(partition, pieces, at, pile.room(limits), limits)
                if run is not None:
                    pile.add_run(*run)
                    continue
            for unit in _units(partition, pieces[at], settled, limits):
                if unit.size > limits.max_event_bytes and len(unit.span) == 1:
                    # What a name stands for has no holes: the batch before ends here.
                    yield from pile.cuts()
                    pile = _Pile(segment)
                    yield from _Pile(segment, unit).cuts(fits=False)
                    continue
                if not pile.takes(unit, limits):
                    yield from pile.cuts()
                    pile = _Pile(segment)
                pile.add(unit)
            at += 1
        if limits.partitioned:
            yield from pile.cuts()
            pile = _Pile(segment)
    yield from pile.cuts()


def _run(
    partition: Partition, pieces: Sequence[Piece], at: int, room: tuple[int, int], limits: Limits
) -> tuple[tuple[Span, int, list[memoryview]] | None, int]:
    """
    Gather whole pieces that follow each other, from `at` on, as far as there is room; return where it ends.

    A pile of many small uploads is made so, at a tenth of the work of a unit each.
    """
    most_events, most_bytes = room
    largest = min(limits.max_bytes, limits.max_event_bytes)
    first = following = pieces[at].first
    size, parts = 0, []
    for piece in pieces[at:]:
        more = len(piece.payload)
        end = following + piece.events
        if piece.first != following or more > largest or size + more > most_bytes or end - first > most_events:
            break
        following, size = end, size + more
        parts.append(piece.payload)
    if not parts:
        return None, at
    return (Span(*partition, first, following), size, parts), at + len(parts)


def _units(partition: Partition, piece: Piece, settled: Intervals, limits: Limits) -> Iterator[_Unit]:
    """Yield a piece whole where that fits, else line by line."""
    span = Span(*partition, piece.first, piece.first + piece.events)
    gaps = settled.gaps(span.first, span.last)
    pending = tuple(Span(*partition, first, last) for first, last in gaps)
    size = len(piece.payload)
    if piece.events <= limits.max_events and size <= min(limits.max_bytes, limits.max_event_bytes):
        whole = gaps == [(span.first, span.last)]
        yield _Unit(span, size, pending, piece.payload if whole else _picked(piece, pending))
        return
    for n, line in enumerate(_lines(piece.payload), piece.first):
        one = Span(*partition, n, n + 1)
        is_pending = any(gap.first <= n < gap.last for gap in pending)
        yield _Unit(one, len(line), (one,) if is_pending else (), line)


def _picked(piece: Piece, spans: Sequence[Span]) -> bytes:
    """Return the lines of a piece that lie in some spans."""
    lines = _lines(piece.payload) if spans else []
    return b"".join(b"".join(lines[span.first - piece.first : span.last - piece.first]) for span in spans)


def _lines(payload: bytes | memoryview) -> list[bytes]:
    """Split lines, each with its newline."""
    return [line + b"\n" for line in bytes(payload).split(b"\n")[:-1]]


def meet(one: Limits, other: Limits) -> Limits:
    """Return limits that hold for both sinks."""
    return Limits(
        max_events=min(one.max_events, other.max_events),
        max_bytes=min(one.max_bytes, other.max_bytes),
        max_event_bytes=min(one.max_event_bytes, other.max_event_bytes),
        partitioned=one.partitioned or other.partitioned,
        hourly=one.hourly or other.hourly,
    )


def split(batch: Batch, limits: Limits) -> Iterator[tuple[int, Cut]]:
    """
    Yield a batch of one partition within other limits than it was cut to, each part with the place of its first line.

    A batch that fits goes whole, under its own name; the name of a part tells what is in it.
    """
    payload = batch.payload
    lines = _lines(payload)
    if len(lines) <= limits.max_events and len(payload) <= min(limits.max_bytes, limits.max_event_bytes):
        yield 0, Cut(batch)
        return
    first, size = 0, 0
    for n, line in enumerate(lines):
        too_large = len(line) > limits.max_event_bytes
        if first < n and (too_large or n - first >= limits.max_events or size + len(line) > limits.max_bytes):
            yield first, Cut(_part(batch, lines, range(first, n)))
            first, size = n, 0
        size += len(line)
        if too_large:
            yield n, Cut(_part(batch, lines, range(n, n + 1)), fits=False)
            first, size = n + 1, 0
    if first < len(lines):
        yield first, Cut(_part(batch, lines, range(first, len(lines))))


def _part(batch: Batch, lines: Sequence[bytes], numbers: Sequence[int]) -> Batch:
    """Return some lines of a batch of one partition, under their own name unless they are all of it."""
    payload = b"".join(lines[n] for n in numbers)
    name = batch.name if len(numbers) == len(lines) else f"{batch.name}.{xxh3_64_hexdigest(payload)}"
    span = batch.spans[0]
    return Batch(name, batch.segment, (Span(span.tenant_id, span.hour, 0, len(numbers)),), (payload,))


def selected(batch: Batch, numbers: Sequence[int]) -> Batch:
    """Return the events of a batch of one partition that have these places in it."""
    return _part(batch, _lines(batch.payload), numbers)


def picked(batch: Batch, places: Sequence[int]) -> Iterator[Batch]:
    """Yield the events of any batch that have these places in it, those of each partition for themselves."""
    lines = _lines(batch.payload)
    wanted = sorted(places)
    at = 0
    for span in batch.spans:
        inside = [place for place in wanted if at <= place < at + len(span)]
        at += len(span)
        if inside:
            payload = b"".join(lines[place] for place in inside)
            name = f"{batch.name}.{xxh3_64_hexdigest(payload)}"
            yield Batch(name, batch.segment, (Span(span.tenant_id, span.hour, 0, len(inside)),), (payload,))
