"""Uploads that are appended together: one write, fewer frames, and in all else as if one after the other."""

from __future__ import annotations

import errno
import os
import tempfile
from itertools import pairwise
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from collector.buffer.frame import US_PER_HOUR, Frame, frames
from collector.buffer.room import Bounds
from collector.buffer.segment import Contents, Segment
from collector.buffer.spool import Spool
from collector.errors import SpoolError
from collector.event import Lines
from tests.fakes import HOUR, FakeClock, RecordingSignals

BOUNDS = Bounds(task_bytes=1 << 24, worker_bytes=1 << 24, segment_bytes=1 << 23)
#: What uploads may share: an upload that is larger has a frame to itself.
FRAME_BYTES = 64 * 1024


def upload(tenant_id: str, number: int, size: int, events: int, hour: int) -> Lines:
    """Build lines of about `size` bytes that no other upload has."""
    line = b'{"upload":%d,"x":"%s"}\n' % (number, b"y" * (size // events))
    return Lines(tenant_id, line * events, events, (HOUR + hour) * US_PER_HOUR + number)


#: Tenant, size, events and hour of each.
Plan = list[tuple[str, int, int, int]]
plans = st.lists(
    st.tuples(
        st.sampled_from("aaabc"),
        st.sampled_from([10, 300, 20_000, 32_700, 65_480, 65_600, 100_000]),
        st.integers(1, 5),
        st.sampled_from([0, 0, 0, 1]),
    ),
    min_size=1,
    max_size=12,
)


def made(plan: Plan) -> list[Lines]:
    return [upload(tenant_id, n, size, events, hour) for n, (tenant_id, size, events, hour) in enumerate(plan)]


def spool(root: Path, owner: str = "w1", signals: RecordingSignals | None = None) -> Spool:
    one = Spool(root, owner, BOUNDS, clock=FakeClock(), signals=signals or RecordingSignals())
    one.start()
    return one


def die(one: Spool) -> None:
    """Let the kernel do what it does when a process is killed: close its files, which frees its lock."""
    assert one._own is not None
    one._own.close()


class Read:
    """What can be known of a spool's only segment, whatever its frames are."""

    def __init__(self, one: Spool, segment: Segment) -> None:
        contents = segment.load()
        self.payloads = {
            partition: b"".join(bytes(piece.payload) for piece in pieces)
            for partition, pieces in contents.pieces.items()
        }
        self.ends, self.accepted = contents.ends, contents.accepted
        self.counts, self.pending = segment.counts, segment.pending
        self.books = one.books.totals().tenants
        self.is_sound = not contents.corrupt and contents.tail is None and not contents.missing(segment.counts)
        self.are_in_a_row = all(_are_in_a_row(contents, partition) for partition in contents.pieces)


def _are_in_a_row(contents: Contents, partition: tuple[str, int]) -> bool:
    pieces = contents.pieces[partition]
    begins_at_0 = pieces[0].first == 0
    ends = pieces[-1].first + pieces[-1].events == contents.ends[partition]
    return begins_at_0 and ends and all(one.first + one.events == other.first for one, other in pairwise(pieces))


@given(plan=plans, cut=st.integers(0, 12))
def test_together_is_as_one_after_the_other(plan: Plan, cut: int) -> None:
    """Whoever reads them back must find each where it would have been, and the books know no difference."""
    uploads = made(plan)
    with tempfile.TemporaryDirectory(dir="/dev/shm") as ours, tempfile.TemporaryDirectory(dir="/dev/shm") as theirs:
        group, each = spool(Path(ours)), spool(Path(theirs))
        for some in (uploads[:cut], uploads[cut:]):
            if some:
                segment, spans = group.append_all("default", some)
        for one in uploads:
            other, _ = each.append(
                "default", one.tenant_id, one.payload, events=one.events, received_us=one.received_us
            )
        together, apart = Read(group, segment), Read(each, other)
        sizes, by_tenant, used = segment.sizes, group.used_by, group.used_bytes
        file_bytes = segment.path.stat().st_size
        group.close()
        each.close()

    assert vars(apart) == vars(together)
    assert together.is_sound
    assert together.are_in_a_row
    assert file_bytes == segment.size == used == sum(sizes.values()) <= other.size
    assert sizes == by_tenant
    # Whoever waits for one of them is told of its own events.
    last = uploads[cut:] or uploads
    assert [(one.tenant_id, one.events) for one in last] == [(span.tenant_id, len(span)) for span in spans]
    assert all(
        one.last == other.first
        for one, other in pairwise(sorted(spans))
        if (one.tenant_id, one.hour) == (other.tenant_id, other.hour)
    )


@given(plan=plans)
def test_uploads_of_a_partition_share_frames_up_to_their_bound(plan: Plan) -> None:
    """Too few in each cost time when they are read; too many are lost together when a byte goes bad."""
    with tempfile.TemporaryDirectory(dir="/dev/shm") as folder:
        one = spool(Path(folder))
        segment, _ = one.append_all("default", made(sorted(plan, key=lambda one: one[-1])))
        found = segment.load().pieces
        one.close()

    for pieces in found.values():
        sizes = [len(piece.payload) for piece in pieces]
        firsts = [len(bytes(piece.payload).partition(b"}\n")[0]) for piece in pieces]
        uploads = [len({line.partition(b",")[0] for line in bytes(piece.payload).splitlines()}) for piece in pieces]
        assert all(size <= FRAME_BYTES or number == 1 for size, number in zip(sizes, uploads, strict=True))
        # The first upload of a frame did not fit into the one before; it has at least its first line.
        assert all(size + 5 * (first + 2) > FRAME_BYTES for size, first in zip(sizes, firsts[1:], strict=False))


def test_small_uploads_of_a_partition_are_one_frame() -> None:
    """A worker that took a thousand small ones a second would else read a thousand frames for them."""
    with tempfile.TemporaryDirectory(dir="/dev/shm") as folder:
        one = spool(Path(folder))
        segment, _ = one.append_all("default", made([("a", 300, 2, 0), ("b", 300, 1, 0)] * 16))
        found = segment.load().pieces
        one.close()

    assert {("a", HOUR): [(0, 32)], ("b", HOUR): [(0, 16)]} == {
        partition: [(piece.first, piece.events) for piece in pieces] for partition, pieces in found.items()
    }


@given(plan=plans, data=st.data())
def test_a_write_that_a_kill_cut_short_is_adopted_up_to_its_last_whole_frame(plan: Plan, data: st.DataObject) -> None:
    """Each frame says what was accepted up to it: told wrong, the adopter would count what never was, or alarm."""
    signals = RecordingSignals()
    uploads = made(plan)
    with tempfile.TemporaryDirectory(dir="/dev/shm") as folder:
        root = Path(folder)
        first = spool(root)
        first.append("default", "a", b"{}\n", events=1, received_us=HOUR * US_PER_HOUR)
        counters = root / "owners" / "w1" / "counters"
        counted = counters.read_bytes()
        segment, _ = first.append_all("default", uploads)
        whole = segment.path.read_bytes()
        die(first)
        # The counters come after the write.
        counters.write_bytes(counted.ljust(counters.stat().st_size, b"\0"))
        begin = next(iter(frames(whole))).end  # type: ignore[union-attr]  # the first is a frame
        cut = data.draw(st.integers(begin, len(whole)))
        segment.path.write_bytes(whole[:cut])
        left = [one for one in frames(whole[:cut]) if isinstance(one, Frame)]
        second = spool(root, "w2", signals)
        total, is_balanced = second.books.totals().total, second.books.totals().balanced
        second.close()

    assert sum(one.events for one in left) == total["accepted"] == total["pending"]
    assert is_balanced
    assert not signals.named("events_lost")
    assert not signals.named("ledger_imbalance")


def test_a_clock_that_is_set_back_over_the_hour_makes_no_frame_tell_of_what_lies_behind_it() -> None:
    """Cut off there, its count would hold events that are nowhere, and an adopter call them lost."""
    with tempfile.TemporaryDirectory(dir="/dev/shm") as folder:
        one = spool(Path(folder))
        segment, spans = one.append_all("default", made([("a", 10, 2, 0), ("a", 10, 3, 1), ("a", 10, 4, 0)]))
        found = [frame for frame in frames(segment.path.read_bytes()) if isinstance(frame, Frame)]
        is_sound = Read(one, segment).is_sound
        one.close()

    assert [(0, 2, 2), (0, 3, 5), (2, 4, 9)] == [(frame.first, frame.events, frame.accepted) for frame in found]
    assert [2, 3, 4] == [len(span) for span in spans]
    assert is_sound


@pytest.mark.parametrize("part", [0, 1, 40, -1])
def test_of_several_that_are_refused_none_is_kept(root: Path, monkeypatch: pytest.MonkeyPatch, part: int) -> None:
    """All of them are told so: one that stayed would arrive twice, and one that is half there ends the segment."""
    one = spool(root)
    segment, _ = one.append_all("default", made([("a", 100, 2, 0), ("b", 100, 1, 0)]))
    before = Read(one, segment)
    sizes, used = dict(segment.sizes), one.used_bytes
    data = segment.path.read_bytes()
    more = made([("a", 200, 3, 0), ("new", 200, 1, 0), ("b", 200, 2, 1)])
    real = os.write

    def write(fd: int, data: bytes) -> int:
        if part:
            return real(fd, data[:part])
        raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))

    with monkeypatch.context() as patched:
        patched.setattr(os, "write", write)
        with pytest.raises(SpoolError):
            one.append_all("default", more)
    after = Read(one, segment)

    assert data == segment.path.read_bytes()
    assert (sizes, used) == (segment.sizes, one.used_bytes)
    assert {**vars(before), "books": {**before.books, "new": after.books["new"]}} == vars(after)
    assert 0 == after.books["new"]["accepted"]
    one._clock.advance(1.0)  # type: ignore[attr-defined]  # it is a FakeClock
    one.append_all("default", more)
    assert Read(one, segment).is_sound
    assert 9 == one.books.totals().total["accepted"]
    one.close()
