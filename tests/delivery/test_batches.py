"""Cutting: within the sink's limits, each pending event once, the same way each time."""

from __future__ import annotations

import tempfile
from pathlib import Path

from hypothesis import example, given, settings
from hypothesis import strategies as st

from collector.buffer.frame import Frame, frames
from collector.buffer.segment import Segment
from collector.delivery.batches import cut
from collector.event import Batch, Lines, Span
from collector.sinks.base import Limits

HOUR_US = 3_600_000_000

UPLOADS = st.lists(
    st.tuples(
        st.sampled_from("abc"), st.integers(0, 1), st.lists(st.binary(min_size=1, max_size=80), min_size=1, max_size=6)
    ),
    min_size=1,
    max_size=10,
)
LIMITS = st.builds(
    Limits,
    max_events=st.integers(1, 8),
    max_bytes=st.integers(100, 400),
    max_event_bytes=st.integers(20, 100),
    partitioned=st.booleans(),
    hourly=st.booleans(),
)
SETTLED = st.sets(st.tuples(st.sampled_from("abc"), st.integers(0, 1), st.integers(0, 20)))
#: Which frames are damaged, and whether in the head, which leaves no frame, or in the lines.
DAMAGE = st.dictionaries(st.integers(0, 9), st.booleans(), max_size=4)
WIDE = Limits(max_events=100, max_bytes=1000, max_event_bytes=100, partitioned=True)


def filled(
    folder: str, uploads: list[tuple[str, int, list[bytes]]]
) -> tuple[Segment, dict[tuple[str, int, int], bytes]]:
    """Return a sealed segment and every line in it by tenant, hour and number."""
    segment = Segment.create(Path(folder), "default", 1, opened_at=0.0)
    there: dict[tuple[str, int, int], bytes] = {}
    for tenant, hour, texts in uploads:
        lines = [text.hex().encode()[:79] + b"\n" for text in texts]
        (span,), _ = segment.append([Lines(tenant, b"".join(lines), len(lines), hour * HOUR_US)], [0])
        there.update(((tenant, hour, span.first + n), line) for n, line in enumerate(lines))
    segment.seal()
    return segment, there


def damage(segment: Segment, hits: dict[int, bool]) -> set[tuple[str, int, int]]:
    """Flip a bit in some frames of a segment; return the tenant, hour and number of every line that was in them."""
    data = segment.path.read_bytes()
    hit, lost = bytearray(data), set()
    for n, one in enumerate(frames(data)):
        assert isinstance(one, Frame)
        if n in hits:
            hit[one.offset if hits[n] else one.end - 1] ^= 1
            lost |= {(*one.partition, one.first + at) for at in range(one.events)}
    segment.path.write_bytes(hit)
    return lost


def told(batch: Batch) -> dict[tuple[str, int, int], bytes]:
    numbers = [(span.tenant_id, span.hour, n) for span in batch.spans for n in range(span.first, span.last)]
    return dict(zip(numbers, (line + b"\n" for line in batch.lines()), strict=True))


@settings(max_examples=150)
@given(
    uploads=UPLOADS,
    limits=LIMITS,
    settled=SETTLED,
)
def test_each_pending_event_is_in_one_batch_within_the_limits(
    uploads: list[tuple[str, int, list[bytes]]], limits: Limits, settled: set[tuple[str, int, int]]
) -> None:
    """Not in two, not in none; and no sink is asked for more than it said it takes."""
    with tempfile.TemporaryDirectory(dir="/dev/shm") as folder:
        segment, there = filled(folder, uploads)
        for tenant, hour, n in settled & there.keys():
            segment.settle(Span(tenant, hour, n, n + 1), {})
        cuts = list(cut(segment, segment.load(), limits))
    found: dict[tuple[str, int, int], bytes] = {}
    for one in cuts:
        lines = told(one.batch)
        assert not found.keys() & lines.keys()
        found |= lines
        if one.fits:
            assert len(one.batch) <= limits.max_events
            assert len(one.batch.payload) <= limits.max_bytes or len(one.batch) == 1
            assert max(map(len, lines.values())) <= limits.max_event_bytes
            if limits.partitioned:
                assert 1 == len({(span.tenant_id, span.hour) for span in one.batch.spans})
            if limits.hourly:
                assert 1 == len({span.hour for span in one.batch.spans})
        else:
            assert all(len(line) > limits.max_event_bytes for line in lines.values())

    assert {key: line for key, line in there.items() if key not in settled} == found


@example(
    uploads=[("a", 0, [b"1", b"2"]), ("a", 0, [b"3"]), ("a", 0, [b"4"])], hits={1: False}, limits=WIDE, settled=set()
)
@example(
    uploads=[("a", 0, [b"1", b"2"]), ("a", 0, [b"3"]), ("a", 0, [b"4"])], hits={1: True}, limits=WIDE, settled=set()
)
@given(uploads=UPLOADS, hits=DAMAGE, limits=LIMITS, settled=SETTLED)
def test_damaged_frames_leave_holes_and_every_other_line_keeps_its_number(
    uploads: list[tuple[str, int, list[bytes]]],
    hits: dict[int, bool],
    limits: Limits,
    settled: set[tuple[str, int, int]],
) -> None:
    """A line under another's number would settle that one, which the sink never had, and would itself stay pending."""
    with tempfile.TemporaryDirectory(dir="/dev/shm") as folder:
        segment, there = filled(folder, uploads)
        lost = damage(segment, hits)
        for tenant, hour, n in settled & there.keys():
            segment.settle(Span(tenant, hour, n, n + 1), {})
        found = [told(one.batch) for one in cut(segment, segment.load(), limits)]
    rows = [row for lines in found for row in lines.items()]

    assert sorted((key, line) for key, line in there.items() if key not in settled | lost) == sorted(rows)


@given(uploads=UPLOADS, limits=LIMITS)
def test_batches_have_names_of_their_own_and_the_same_each_time(
    uploads: list[tuple[str, int, list[bytes]]], limits: Limits
) -> None:
    """A sink that names its objects so writes a repeat over the first, and nothing over anything else."""
    with tempfile.TemporaryDirectory(dir="/dev/shm") as folder:
        segment, _ = filled(folder, uploads)
        once = [one.batch for one in cut(segment, segment.load(), limits)]
        again = [one.batch for one in cut(segment, segment.load(), limits)]

    assert once == again
    assert len(once) == len({batch.name for batch in once})


@given(uploads=UPLOADS, one=LIMITS, other=LIMITS, settled=SETTLED)
def test_a_name_stands_for_the_same_events_whatever_the_limits_and_what_is_settled(
    uploads: list[tuple[str, int, list[bytes]]], one: Limits, other: Limits, settled: set[tuple[str, int, int]]
) -> None:
    """A rescued batch comes to its sink late: what was written there under its name must be the same, or be gone."""
    with tempfile.TemporaryDirectory(dir="/dev/shm") as folder:
        segment, there = filled(folder, uploads)
        first = {cut_.batch.name: told(cut_.batch) for cut_ in cut(segment, segment.load(), one)}
        for tenant, hour, n in settled & there.keys():
            segment.settle(Span(tenant, hour, n, n + 1), {})
        later = {cut_.batch.name: told(cut_.batch) for cut_ in cut(segment, segment.load(), one)}
        elsewhere = {cut_.batch.name: told(cut_.batch) for cut_ in cut(segment, segment.load(), other)}

    assert later.keys() <= first.keys()
    for name, lines in later.items():
        assert {key: line for key, line in first[name].items() if key not in settled} == lines
    if one.hourly == other.hourly or one.partitioned or other.partitioned:
        for name in first.keys() & elsewhere.keys():
            assert elsewhere[name].items() <= first[name].items()
