"""An id that was seen within the window is not appended again; one whose append failed was not seen."""

from __future__ import annotations

import errno
import fcntl
import os
import signal
import tempfile
import threading
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest
from hypothesis import settings
from hypothesis import strategies as st
from hypothesis.stateful import RuleBasedStateMachine, initialize, invariant, rule

from collector.admission import dedupe as dedupe_
from collector.admission.baton import Baton, Intent
from collector.admission.dedupe import Claim, Dedupe, place_of
from collector.admission.seen import BUCKET_BYTES, LEAST_BYTES, ROWS, TICKS_PER_S, Place, SeenIds
from collector.buffer.room import Bounds
from collector.buffer.spool import Spool
from collector.clock import SystemClock
from collector.errors import SpoolBroken, SpoolFull
from collector.event import Event
from tests.fakes import FakeClock, RecordingSignals

BOUNDS = Bounds(task_bytes=1 << 30, worker_bytes=1 << 30, segment_bytes=1 << 20)
WINDOW_S = 60.0
PLACE = Place(1, 2)


class One:
    """One worker's spool and its part of dedupe."""

    def __init__(self, root: Path, name: str, clock: FakeClock, *, size_bytes: int = LEAST_BYTES) -> None:
        self.clock = clock
        self.signals = RecordingSignals()
        self.spool = Spool(root, name, BOUNDS, clock=clock, signals=self.signals)
        self.spool.start()
        self.dedupe = Dedupe(self.spool, size_bytes=size_bytes, clock=clock, signals=self.signals)
        self.spool.may_adopt = self.dedupe.may_adopt

    def append(self, events: list[Event], tenant_id: str = "dev") -> list[bytes]:
        lines = b"".join(b'{"id":' + event.id + b',"event":{}}\n' for event in events)
        self.spool.append("default", tenant_id, lines, events=len(events), received_us=self.clock.now_us())
        return [event.id for event in events]

    def claim(
        self,
        *tokens: str,
        tenant_id: str = "dev",
        window_s: float = WINDOW_S,
        append: Callable[[list[Event]], list[bytes]] | None = None,
        named: bool = True,
    ) -> Claim[list[bytes]] | None:
        events = [Event(n, f'"{token}"'.encode(), b"{}", named) for n, token in enumerate(tokens)]
        how = append or (lambda new: self.append(new, tenant_id))
        return self.dedupe.claim(tenant_id, "default", window_s, events, how)

    def taken(self, *tokens: str, tenant_id: str = "dev", window_s: float = WINDOW_S) -> list[str]:
        """Claim, and return what was new."""
        claim = self.claim(*tokens, tenant_id=tenant_id, window_s=window_s)
        assert claim is not None
        assert len(claim.new) + claim.duplicates == len(tokens)
        return [event.id.decode().strip('"') for event in claim.new]

    def close(self) -> None:
        self.dedupe.close()
        self.spool.close()


@pytest.fixture(name="one")
def _one(root: Path, clock: FakeClock) -> Iterator[One]:
    made = One(root, "w1", clock)
    yield made
    made.close()


def test_an_id_is_new_once_in_its_window_and_again_after_it(one: One) -> None:
    """The window is what the tenant says, to the tick."""
    assert ["a", "b"] == one.taken("a", "b")
    assert [] == one.taken("a")

    one.clock.advance(WINDOW_S)
    assert ["c"] == one.taken("b", "c")

    one.clock.advance(WINDOW_S + 1 / TICKS_PER_S)
    assert ["a", "c"] == one.taken("a", "c")
    assert [] == one.taken("a", "c")


def test_a_copy_counts_as_seen(one: One) -> None:
    """A device that goes on sending must not get through once a window."""
    one.taken("a")
    for _ in range(5):
        one.clock.advance(WINDOW_S * 0.9)
        assert [] == one.taken("a")


def test_a_window_that_is_changed_holds_for_what_came_before(one: One) -> None:
    """An operator who shortens it wants fewer events taken for copies at once."""
    one.taken("a")
    one.clock.advance(50.0)

    assert ["a"] == one.taken("a", window_s=10.0)
    one.clock.advance(90.0)
    assert [] == one.taken("a", window_s=3600.0)


def test_copies_within_an_upload_are_found(one: One) -> None:
    """A device's own queue may hold an event twice."""
    assert ["a", "b"] == one.taken("a", "b", "a", "a")
    claim = one.claim("b", "b", "c", "c")

    assert claim is not None
    assert [2] == [event.index for event in claim.new]
    assert 3 == claim.duplicates


def test_tenants_do_not_share_ids(one: One) -> None:
    """Two that count from 1 have nothing to do with each other."""
    assert ["1"] == one.taken("1", tenant_id="a")
    assert ["1"] == one.taken("1", tenant_id="b")
    assert [] == one.taken("1", tenant_id="a")


def test_ids_of_collectors_own_take_no_room(one: One, root: Path) -> None:
    """They never come again."""
    assert one.claim("a", named=False) is not None
    assert not (root / "dedupe").exists()


def test_what_one_worker_saw_another_has_seen(one: One, root: Path, clock: FakeClock) -> None:
    """A device comes back over another connection, and that is another worker's."""
    other = One(root, "w2", clock)

    assert ["a"] == one.taken("a")
    assert ["b"] == other.taken("a", "b")
    assert [] == one.taken("b")
    other.close()


@pytest.mark.parametrize(
    "error", [SpoolFull("full"), SpoolBroken("broken"), RuntimeError("defect"), KeyboardInterrupt()]
)
def test_an_append_that_fails_has_seen_nothing(one: One, error: BaseException) -> None:
    """Its upload is refused, and will be tried again."""

    def fail(_: list[Event]) -> list[bytes]:
        raise error

    with pytest.raises(type(error)):
        one.claim("a", "b", append=fail)

    assert ["a", "b"] == one.taken("a", "b")
    assert one.dedupe._baton.intent is None


def test_what_is_kept_in_spite_of_an_error_is_seen(one: One) -> None:
    """Else its next copy comes twice."""

    def keep_and_fail(events: list[Event]) -> list[bytes]:
        one.append(events)
        raise RuntimeError("a defect behind the write")

    with pytest.raises(RuntimeError):
        one.claim("a", append=keep_and_fail)

    assert [] == one.taken("a")


def test_a_copy_tells_where_its_first_lies_and_when_that_is_gone(one: One) -> None:
    """An answer that promises the sink waits for that."""
    one.taken("a")
    (segment,) = one.spool.open_segments()
    claim = one.claim("a", "b", "b")

    assert claim is not None
    assert {place_of(segment.path)} == claim.places
    assert not one.dedupe.wait_for(claim.places, 0.0)

    segment.path.unlink()

    assert one.dedupe.wait_for(claim.places, 0.0)
    assert one.dedupe.wait_for([Place(1, 1)], 0.0)


def test_a_wait_for_a_first_copy_ends_by_the_clock_however_long_a_look_takes(
    one: One, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A busy worker looks seldom, and its device has no more patience for that."""
    one.taken("a")
    (segment,) = one.spool.open_segments()
    looks = 0

    def look(_: Place) -> bool:
        nonlocal looks
        looks += 1
        one.clock.advance(1.0)
        return True

    monkeypatch.setattr(one.dedupe, "_is_pending", look)

    assert not one.dedupe.wait_for([place_of(segment.path)], 3.0)
    assert 3 == looks


def test_a_full_table_forgets_its_oldest_ids_and_says_so(one: One) -> None:
    """It never grows; a window that is shorter than asked is told."""
    many = LEAST_BYTES // BUCKET_BYTES * ROWS
    for n in range(0, 4 * many, 100):
        assert 100 == len(one.taken(*(str(k) for k in range(n, n + 100))))

    forgotten = sum(told["count"] for told in one.signals.named("dedupe_shortened"))
    assert 3 * many <= forgotten <= 4 * many
    # The last ones are all there: a bucket would have to get 15 of 200.
    assert [] == one.taken(*(str(k) for k in range(4 * many - 200, 4 * many)))


def test_what_is_forgotten_after_its_window_is_not_told(one: One) -> None:
    """That is what the table is for."""
    many = LEAST_BYTES // BUCKET_BYTES * ROWS
    for turn in range(3):
        one.taken(*(f"{turn}-{n}" for n in range(many // 4)))
        one.clock.advance(2 * WINDOW_S)

    assert [] == one.signals.named("dedupe_shortened")


def test_a_table_of_another_size_is_another_table(one: One, root: Path, clock: FakeClock) -> None:
    """A deploy may change the size while the old workers live; the old file goes, and they keep what they mapped."""
    one.taken("a")
    other = One(root, "w2", clock, size_bytes=4 * LEAST_BYTES)

    assert ["a"] == other.taken("a")
    assert [] == one.taken("a")
    assert [f"ids-1-{4 * LEAST_BYTES // BUCKET_BYTES}"] == [path.name for path in (root / "dedupe").glob("ids-*")]
    other.close()


def test_a_store_that_can_not_be_had_lets_all_events_pass_and_is_tried_again(
    one: One, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Twice is better than never; and when there is room again, it is once again."""

    def full(*_: object) -> None:
        raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))

    with monkeypatch.context() as patch:
        patch.setattr("collector.admission.seen.os.posix_fallocate", full)
        assert ["a"] == one.taken("a")
        assert ["a"] == one.taken("a")

    assert ["a"] == one.taken("a")
    one.clock.advance(2.0)
    assert ["a"] == one.taken("a")
    assert [] == one.taken("a")
    assert {("dev", "No space left on device", 1)} == {
        (told["tenant_id"], told["cause"], told["count"]) for told in one.signals.named("dedupe_unchecked")
    }


def test_a_worker_that_holds_the_baton_and_does_not_go_on_costs_a_refusal(
    one: One, root: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A stopped process must not stop the others, and an event must not come twice for it."""
    monkeypatch.setattr(dedupe_, "BATON_WAIT_S", 0.05)
    one.taken("a")
    pid = os.fork()
    if not pid:
        fd = os.open(root / "dedupe" / "baton", os.O_RDWR)
        fcntl.flock(fd, fcntl.LOCK_EX)
        os.kill(os.getpid(), signal.SIGSTOP)
        os._exit(0)
    os.waitpid(pid, os.WUNTRACED)

    assert one.claim("b") is None

    os.kill(pid, signal.SIGKILL)
    os.waitpid(pid, 0)

    assert ["b"] == one.taken("a", "b")


def test_a_rest_for_the_baton_ends_when_it_is_given_back(root: Path) -> None:
    """It is held for microseconds: whoever finds it held waits that long and no longer."""
    holder, waiter = Baton(root / "baton", SystemClock()), Baton(root / "baton", SystemClock())
    taken: list[bool] = []
    for one in (holder, waiter):
        one.open()
        one.open()
    assert holder.take(0.0)
    assert not waiter.take(0.005)
    thread = threading.Thread(target=lambda: taken.append(waiter.take(30.0)))
    thread.start()
    holder.give_back()
    thread.join(30.0)

    assert [True] == taken
    assert not holder.take(0.0)

    # As when its holder dies: the kernel gives it back.
    waiter.close()
    assert holder.take(0.0)
    holder.give_back()
    holder.close()
    holder.close()


def test_a_dead_workers_append_is_remembered_before_its_directory_is_adopted(root: Path, clock: FakeClock) -> None:
    """It may be delivered and gone before the device comes again."""
    dead = One(root, "w1", clock)
    dead.taken("a")

    def die_in_between(events: list[Event]) -> list[bytes]:
        dead.append(events)
        raise SystemExit

    dead.dedupe._catch_up = lambda: None  # type: ignore[method-assign]
    with pytest.raises(SystemExit):
        dead.claim("b", "c", append=die_in_between)
    assert dead.dedupe._baton.intent is not None
    dead.dedupe.close()
    for holding in list(dead.spool._holdings()):
        holding.close()
    other = One(root, "w2", clock)

    assert other.dedupe._baton.intent is None
    assert ["d"] == other.taken("a", "b", "c", "d")
    other.close()


def test_a_dead_workers_directory_waits_while_another_has_the_baton(root: Path, clock: FakeClock) -> None:
    """What it appended is not to be delivered before its ids are remembered."""
    dead = One(root, "w1", clock)
    dead.taken("a")
    other = One(root, "w2", clock)
    other.taken("z")
    (segment,) = dead.spool.open_segments()
    dead.dedupe._baton.intend(Intent(f"w1/{segment.path.name}", 0, 0))
    for holding in list(dead.spool._holdings()):
        holding.close()
    assert dead.dedupe._baton.take(0.0)
    other.spool.adopt()

    assert [] == other.signals.named("segment_adopted")

    dead.dedupe._baton.give_back()
    other.spool.adopt()

    assert ["w1"] == [told["owner"] for told in other.signals.named("segment_adopted")]
    assert [] == other.signals.named("internal_error")
    other.close()


def test_an_intent_whose_segment_is_gone_is_struck_out(one: One) -> None:
    """Its events were delivered: nothing is left to learn from."""
    one.taken("a")
    one.dedupe._baton.intend(Intent("w0/00000001.default.seg", 0, 1))

    assert ["b"] == one.taken("b")
    assert one.dedupe._baton.intent is None


def test_bytes_that_look_like_a_key_are_none(root: Path) -> None:
    """The end of one row and the start of the next can spell any key."""
    ids = SeenIds(root, LEAST_BYTES)
    ids.open()
    key = bytes(12) + b"4567"
    ids.remember([key], seen=7, until=9, place=Place(0x30303030, 7))
    across = bytes(4) + b"4567" + b"\x07\0\0\0" + b"0000"
    assert across in bytes(ids._table()[:BUCKET_BYTES])

    assert [None, 7] == [row and row.seen for row in ids.find([across, key], after=0, now=9)]
    ids.close()
    ids.close()


def test_the_newest_row_of_an_id_counts(root: Path) -> None:
    """One that came back after its window has two for a while, and a row of a dead writer may be half a row."""
    ids = SeenIds(root, LEAST_BYTES)
    ids.open()
    key = bytes(16)
    for seen in (5, 30, 20):
        ids.remember([key], seen=seen, until=seen, place=Place(seen, seen))

    assert [30, 30, None] == [
        row and row.place.segment for row in ids.find([key], after=0, now=40) + ids.find([key], after=30, now=30)
        + ids.find([key], after=31, now=40)
    ]  # fmt: skip
    ids.close()


def test_a_table_that_is_not_open_says_so(root: Path) -> None:
    """It is opened in the worker, never by an import or a constructor."""
    with pytest.raises(SpoolBroken):
        SeenIds(root, LEAST_BYTES).find([bytes(16)], after=0, now=1)


class Model(RuleBasedStateMachine):
    """Workers share the ids; a dictionary of when each was seen says what is new. The table is large enough."""

    @initialize()
    def begin(self) -> None:
        self.folder = tempfile.TemporaryDirectory(dir="/dev/shm")
        self.root = Path(self.folder.name)
        self.clock = FakeClock()
        self.workers = [One(self.root, f"w{n}", self.clock) for n in range(3)]
        self.seen: dict[tuple[str, str], int] = {}
        self.born = 3

    def teardown(self) -> None:
        if hasattr(self, "workers"):
            for one in self.workers:
                one.close()
            self.folder.cleanup()

    uploads = st.lists(st.sampled_from("abcdefgh"), min_size=1, max_size=6)
    tenants = st.sampled_from(["t1", "t2"])
    windows = st.sampled_from([0.05, 1.0, 10.0, 60.0, 3600.0])

    def expected(self, tenant_id: str, window_s: float, tokens: list[str]) -> list[str]:
        now = int(self.clock.monotonic() * TICKS_PER_S)
        new: list[str] = []
        for token in tokens:
            seen = self.seen.get((tenant_id, token))
            if token not in new and (seen is None or now - seen > max(1, window_s * TICKS_PER_S)):
                new.append(token)
        return new

    @rule(worker=st.integers(0, 2), tenant_id=tenants, window_s=windows, tokens=uploads)
    def upload(self, worker: int, tenant_id: str, window_s: float, tokens: list[str]) -> None:
        expected = self.expected(tenant_id, window_s, tokens)

        assert expected == self.workers[worker].taken(*tokens, tenant_id=tenant_id, window_s=window_s)
        now = int(self.clock.monotonic() * TICKS_PER_S)
        self.seen |= {(tenant_id, token): now for token in tokens}

    @rule(worker=st.integers(0, 2), tenant_id=tenants, tokens=uploads)
    def upload_fails(self, worker: int, tenant_id: str, tokens: list[str]) -> None:
        def fail(_: list[Event]) -> list[bytes]:
            raise SpoolFull("full")

        new = self.expected(tenant_id, WINDOW_S, tokens)
        if new:
            with pytest.raises(SpoolFull):
                self.workers[worker].claim(*tokens, tenant_id=tenant_id, append=fail)
            now = int(self.clock.monotonic() * TICKS_PER_S)
            self.seen |= {(tenant_id, token): now for token in tokens if token not in new}

    @rule(seconds=st.sampled_from([0.1, 0.9, 5.0, 59.9, 60.0, 3600.0]))
    def time_passes(self, seconds: float) -> None:
        self.clock.advance(seconds)

    @rule(seconds=st.integers(-(10**6), 10**6))
    def the_clock_on_the_wall_is_set(self, seconds: int) -> None:
        self.clock._now_us += seconds * 1_000_000

    @rule(worker=st.integers(0, 2))
    def a_worker_is_replaced(self, worker: int) -> None:
        self.workers[worker].close()
        self.workers[worker] = One(self.root, f"w{self.born}", self.clock)
        self.born += 1

    @invariant()
    def no_intent_is_left(self) -> None:
        assert all(one.dedupe._baton.intent is None for one in getattr(self, "workers", ()))


Model.TestCase.settings = settings(max_examples=60, stateful_step_count=30, deadline=None)
test_dedupe_does_what_a_dictionary_would = Model.TestCase
