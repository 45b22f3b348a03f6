"""The spool: kept before the answer, bounded, owned by a lock, adopted from the dead, exact in its books."""

from __future__ import annotations

import errno
import fcntl
import os
from pathlib import Path

import pytest

from collector.buffer.room import Bounds
from collector.buffer.segment import Segment
from collector.buffer.spool import Spool
from collector.errors import SpoolBroken, SpoolFull
from collector.event import Span
from collector.outcome import Outcome, Reason, Receipt
from collector.telemetry.ledger import Verdicts
from tests.fakes import FakeClock, RecordingSignals

BOUNDS = Bounds(task_bytes=1 << 20, worker_bytes=1 << 20, segment_bytes=4096)
LINE = b'{"id":"1"}\n'


def spool(root: Path, owner: str, clock: FakeClock, signals: RecordingSignals, bounds: Bounds = BOUNDS) -> Spool:
    made = Spool(root, owner, bounds, clock=clock, signals=signals)
    made.start()
    return made


def put(into: Spool, clock: FakeClock, events: int = 1, tenant: str = "dev") -> tuple[Segment, Span]:
    return into.append("default", tenant, LINE * events, events=events, received_us=clock.now_us())


def full(one: Spool) -> bool:
    return one.is_full


def die(one: Spool) -> None:
    """Let the kernel do what it does when a process is killed: close its files, which frees its lock."""
    assert one._own is not None
    one._own.close()


def segments(root: Path) -> list[Path]:
    return sorted(root.glob("owners/*/*.seg"))


def test_what_was_appended_is_in_the_file_before_append_returns(
    root: Path, clock: FakeClock, signals: RecordingSignals
) -> None:
    """The answer goes out when append returns; the process may be killed right then."""
    put(spool(root, "w1", clock, signals), clock, events=3)
    (path,) = segments(root)

    assert LINE * 3 in path.read_bytes()


def test_one_append_is_one_write(
    root: Path, clock: FakeClock, signals: RecordingSignals, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Two writes could be parted by a kill, and cost twice."""
    one = spool(root, "w1", clock, signals)
    put(one, clock)
    writes: list[int] = []
    real = os.write

    def counted(fd: int, data: bytes) -> int:
        writes.append(len(data))
        return real(fd, data)

    monkeypatch.setattr(os, "write", counted)
    put(one, clock, events=100)

    assert 1 == len(writes)


@pytest.mark.parametrize(
    ("number", "error"), [(errno.ENOSPC, SpoolFull), (errno.EROFS, SpoolBroken), (errno.EIO, SpoolBroken)]
)
def test_a_refused_write_keeps_nothing_and_the_next_one_goes_on(
    root: Path,
    clock: FakeClock,
    signals: RecordingSignals,
    monkeypatch: pytest.MonkeyPatch,
    number: int,
    error: type[Exception],
) -> None:
    """A full tmpfs is an answer of 503, not the end: what is in the file stays whole and more can follow."""
    one = spool(root, "w1", clock, signals)
    put(one, clock)
    (path,) = segments(root)
    before = path.read_bytes()

    def refuse(fd: int, data: bytes) -> int:
        raise OSError(number, os.strerror(number))

    with monkeypatch.context() as patched:
        patched.setattr(os, "write", refuse)
        with pytest.raises(error):
            put(one, clock)
    assert before == path.read_bytes()
    assert full(one)

    clock.advance(1.0)
    put(one, clock, events=2)

    assert not full(one)
    assert 3 == one.books.totals().total["accepted"]
    assert ["spool_refusing", "spool_recovered"] == [name for name, _ in signals.calls if name.startswith("spool")]


def test_a_write_taken_in_part_is_taken_back(
    root: Path, clock: FakeClock, signals: RecordingSignals, monkeypatch: pytest.MonkeyPatch
) -> None:
    """tmpfs can take the first pages of a write and have no room for the rest."""
    one = spool(root, "w1", clock, signals)
    put(one, clock)
    real = os.write
    with monkeypatch.context() as patched:
        patched.setattr(os, "write", lambda fd, data: real(fd, data[: len(data) // 2]))
        with pytest.raises(SpoolFull):
            put(one, clock, events=50)
    clock.advance(1.0)
    put(one, clock)
    one.seal_all()
    ((_, segment),) = one.sealed()
    contents = segment.load()

    assert not contents.corrupt
    assert contents.tail is None
    assert {("dev", clock.now_us() // 3_600_000_000): 2} == contents.ends


def test_while_the_file_system_refuses_appends_are_refused_without_asking_it_each_time(
    root: Path, clock: FakeClock, signals: RecordingSignals, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Overload must cost little: a full disk is asked a few times a second, not once an upload."""
    one = spool(root, "w1", clock, signals)
    put(one, clock)
    asked: list[int] = []

    def refuse(fd: int, data: bytes) -> int:
        asked.append(fd)
        raise OSError(errno.ENOSPC, "full")

    monkeypatch.setattr(os, "write", refuse)
    for _ in range(10):
        with pytest.raises((SpoolFull, SpoolBroken)):
            put(one, clock)

    assert 1 == len(asked)


def test_a_spool_that_can_not_be_made_refuses_and_comes_up_by_itself(
    root: Path, clock: FakeClock, signals: RecordingSignals
) -> None:
    """A worker that can't have its spool must live and say 503, or the whole task would flap."""
    (root / "owners").write_text("in the way")
    one = spool(root, "w1", clock, signals)
    assert full(one)
    with pytest.raises(SpoolBroken):
        put(one, clock)

    (root / "owners").unlink()
    clock.advance(1.0)
    one.tick()
    put(one, clock)

    assert not full(one)
    assert 1 == len(signals.named("spool_recovered"))


def test_the_lock_keeps_a_living_owner_s_directory_from_adoption(
    root: Path, clock: FakeClock, signals: RecordingSignals
) -> None:
    """Two readers of one segment would deliver it twice."""
    first = spool(root, "w1", clock, signals)
    put(first, clock)
    second = spool(root, "w2", clock, signals)

    assert not signals.named("segment_adopted")
    assert second.is_empty
    die(first)
    clock.advance(2.0)
    second.tick()

    assert [{"owner": "w1", "segments": 1, "events": 1}] == signals.named("segment_adopted")
    assert not second.is_empty


def test_a_directory_that_is_not_yet_locked_can_not_be_seen(
    root: Path, clock: FakeClock, signals: RecordingSignals
) -> None:
    """Between mkdir and flock a sibling would take it for a dead one's."""
    one = spool(root, "w1", clock, signals)
    abandoned = root / "owners" / ".w0"
    abandoned.mkdir()
    locked = root / "owners" / ".w9"
    locked.mkdir()
    fd = os.open(locked, os.O_RDONLY)
    fcntl.flock(fd, fcntl.LOCK_EX)
    one.adopt()

    assert not signals.named("segment_adopted")
    assert not abandoned.exists(), "what a killed process left half made is swept"
    assert locked.exists()
    os.close(fd)


def test_a_torn_tail_is_cut_and_what_was_acknowledged_before_it_stays(
    root: Path, clock: FakeClock, signals: RecordingSignals
) -> None:
    """The last write of a killed worker may be in the file in part; its device has no answer and sends again."""
    first = spool(root, "w1", clock, signals)
    put(first, clock, events=2)
    die(first)
    (path,) = segments(root)
    whole = path.read_bytes()
    path.write_bytes(whole + whole[: len(whole) // 2])
    second = spool(root, "w2", clock, signals)
    totals = second.books.totals()

    assert whole == path.read_bytes()
    assert 1 == len(signals.named("tail_cut"))
    assert (2, 2, True) == (totals.total["accepted"], totals.total["pending"], totals.balanced)
    assert not signals.named("events_lost")


def test_a_frame_that_was_written_but_not_yet_counted_is_counted_by_its_adopter(
    root: Path, clock: FakeClock, signals: RecordingSignals
) -> None:
    """`kill -9` can come between the write and the counter; the frame itself says what the count was to be."""
    first = spool(root, "w1", clock, signals)
    put(first, clock, events=2)
    counted = (root / "owners" / "w1" / "counters").read_bytes()
    put(first, clock, events=5)
    die(first)
    (root / "owners" / "w1" / "counters").write_bytes(counted)
    second = spool(root, "w2", clock, signals)
    totals = second.books.totals()

    assert (7, 7, True) == (totals.total["accepted"], totals.total["pending"], totals.balanced)


@pytest.mark.parametrize("at", [-3, 10])
def test_a_corrupt_frame_is_counted_as_lost_for_its_tenant_and_the_rest_goes_on(
    root: Path, clock: FakeClock, signals: RecordingSignals, at: int
) -> None:
    """Silence would be a lie of the ledger. Damage in the payload and in the head end the same."""
    first = spool(root, "w1", clock, signals)
    put(first, clock, events=2, tenant="a")
    (path,) = segments(root)
    start = path.stat().st_size
    put(first, clock, events=3, tenant="b")
    end = path.stat().st_size
    put(first, clock, events=4, tenant="b")
    die(first)
    data = bytearray(path.read_bytes())
    data[(end if at < 0 else start) + at] ^= 0xFF
    path.write_bytes(data)
    second = spool(root, "w2", clock, signals)
    totals = second.books.totals()

    assert 3 == totals.tenants["b"]["dropped:corrupt_frame"]
    assert (4, 2) == (totals.tenants["b"]["pending"], totals.tenants["a"]["pending"])
    assert totals.balanced
    assert 1 == len(signals.named("frame_corrupt"))
    lost = signals.named("events_lost")
    assert [("b", Outcome.DROPPED, Reason.CORRUPT_FRAME, 3)] == [
        (one["tenant_id"], one["outcome"], one["reason"], one["count"]) for one in lost
    ]


def test_an_acknowledged_frame_at_the_end_that_is_destroyed_is_known_by_its_counter(
    root: Path, clock: FakeClock, signals: RecordingSignals
) -> None:
    """Nothing follows the last frame that could tell of it; the counters do."""
    first = spool(root, "w1", clock, signals)
    put(first, clock, events=2)
    (path,) = segments(root)
    kept = path.stat().st_size
    put(first, clock, events=5)
    die(first)
    os.truncate(path, kept + 7)
    second = spool(root, "w2", clock, signals)
    total = second.books.totals().total

    assert (7, 2, 5) == (total["accepted"], total["pending"], total["dropped:corrupt_frame"])


def test_a_segment_that_vanished_unbalances_the_ledger_and_alarms(
    root: Path, clock: FakeClock, signals: RecordingSignals
) -> None:
    """Nothing explains it, so the ledger must not be made to balance."""
    first = spool(root, "w1", clock, signals)
    put(first, clock, events=5)
    die(first)
    segments(root)[0].unlink()
    second = spool(root, "w2", clock, signals)

    assert not second.books.totals().balanced
    assert ["dev"] == second.books.totals().unbalanced()
    assert [{"tenant_id": "dev", "accepted": 5, "accounted": 0}] == signals.named("ledger_imbalance")


def test_an_audit_that_finds_a_difference_alarms_once_and_shows_it_to_every_reader(
    root: Path, clock: FakeClock, signals: RecordingSignals
) -> None:
    """The program checks itself; a defect of ours must not wait for someone to add up by hand."""
    one = spool(root, "w1", clock, signals)
    put(one, clock, events=5)
    one.audit()
    assert not signals.named("ledger_imbalance")
    assert one._own is not None
    one._own.pending["dev"] -= 1
    one.audit()
    one.audit()

    assert [{"tenant_id": "dev", "accepted": 5, "accounted": 4}] == signals.named("ledger_imbalance")
    assert not one.books.totals().balanced


def test_an_empty_directory_is_folded_into_the_books_and_removed(
    root: Path, clock: FakeClock, signals: RecordingSignals
) -> None:
    """A worker that crashes each second would else leave a directory each second, for ever."""
    keeper = spool(root, "w0", clock, signals)
    for n in range(1, 6):
        one = spool(root, f"w{n}", clock, signals)
        segment, _ = put(one, clock, events=n)
        one.seal_all()
        assert one._own is not None
        from collector.delivery.batches import cut
        from collector.sinks.base import Limits

        limits = Limits(max_events=100, max_bytes=1 << 20, max_event_bytes=1 << 20, partitioned=True)
        for piece in cut(segment, segment.load(), limits):
            one._own.settle(segment, [Verdicts(piece.batch, Receipt(len(piece.batch)))])
        one.discard_if_settled(one._own, segment)
        if n % 2:
            one.close()
        else:
            die(one)
        clock.advance(2.0)
        keeper.tick()
    totals = keeper.books.totals()

    assert ["w0"] == [path.name for path in (root / "owners").iterdir()]
    assert (15, 15, True) == (totals.total["accepted"], totals.total["delivered"], totals.balanced)


def test_the_spool_is_full_at_its_high_watermark_and_not_when_it_is_too_late(
    root: Path, clock: FakeClock, signals: RecordingSignals
) -> None:
    """Room must be left for what is on its way, and for the journal that empties it."""
    one = spool(root, "w1", clock, signals, Bounds(task_bytes=10_000, worker_bytes=10_000, segment_bytes=2_000))
    while not one.is_full:
        put(one, clock, events=20)

    assert 8_900 <= one.used_bytes <= 9_500
    assert sum(path.stat().st_size for path in segments(root)) == one.used_bytes


def test_the_budget_is_the_task_s_whoever_uses_it(root: Path, clock: FakeClock, signals: RecordingSignals) -> None:
    """In a reload two generations share one tmpfs: both may not have all of it."""
    bounds = Bounds(task_bytes=10_000, worker_bytes=8_000, segment_bytes=2_000)
    one = spool(root, "w1", clock, signals, bounds)
    other = spool(root, "w2", clock, signals, bounds)
    while not one.is_full:
        put(one, clock, events=20)
    other.tick()
    while not other.is_full:
        put(other, clock, events=20)

    assert one.used_bytes + other.used_bytes <= 10_000


def test_what_it_adopted_does_not_take_a_worker_s_own_part(
    root: Path, clock: FakeClock, signals: RecordingSignals
) -> None:
    """Else the worker that is so kind as to adopt a backlog would refuse its own devices."""
    bounds = Bounds(task_bytes=40_000, worker_bytes=10_000, segment_bytes=2_000)
    first = spool(root, "w1", clock, signals, bounds)
    while not first.is_full:
        put(first, clock, events=20)
    die(first)
    second = spool(root, "w2", clock, signals, bounds)

    assert second.used_bytes >= 8_900
    assert not second.is_full
