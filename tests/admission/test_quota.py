"""The meters of rates: what they let through, what they forgive, and what two processes make of them at once."""

from __future__ import annotations

import errno
import itertools
import math
import mmap
import os
import resource
import struct
import subprocess
import sys
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from collector.admission.quota import HORIZON_S, MAX_SLOTS, ROUNDING_S, SLOT_BYTES, SLOTS_STEP, Quota, retry_after_s
from collector.errors import SpoolBroken, SpoolFull
from collector.tenant import Tenant
from tests.fakes import FakeClock

ROOT = Path(__file__).resolve().parents[2]
#: What a wait may be off by, in seconds.
NEARLY = 2 * ROUNDING_S


def tenant(*, events_per_s: float = 0.0, bytes_per_s: float = 0.0, burst_s: float = 5.0) -> Tenant:
    return Tenant(id="dev", keys=(), events_per_s=events_per_s, bytes_per_s=bytes_per_s, burst_s=burst_s)


@pytest.fixture
def clock() -> FakeClock:
    return FakeClock()


@pytest.fixture
def quota(tmp_path: Path, clock: FakeClock) -> Quota:
    return started(tmp_path / "quota", clock)


def started(path: Path, clock: FakeClock) -> Quota:
    made = Quota(path, clock)
    made.start()
    return made


rates = st.floats(min_value=0.5, max_value=100_000)
bursts = st.floats(min_value=0, max_value=60)
#: Uploads: seconds since the one before, events, bytes an event.
uploads = st.lists(
    st.tuples(
        st.sampled_from([0.0, 0.0, 1e-6, 0.001, 0.01, 0.1, 1.0, 7.3, 100.0]),
        st.integers(min_value=1, max_value=10_000),
        st.integers(min_value=2, max_value=1600),
    ),
    max_size=60,
)


def test_who_is_alone_charges_the_same_without_a_lock(
    quota: Quota, clock: FakeClock, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The one worker of a small task has nobody to keep out, and pays no system call for it."""
    alone = Quota(tmp_path / "alone", clock, is_alone=True)
    alone.start()
    limited = tenant(events_per_s=10, bytes_per_s=1000, burst_s=1)
    waits = [quota.take(0, limited, events=3, bytes_=200) for _ in range(20)]

    monkeypatch.setattr("collector.admission.quota.lockf", None)

    assert waits == [alone.take(0, limited, events=3, bytes_=200) for _ in range(20)]
    assert max(waits) > 0
    alone.close()


def test_a_burst_comes_at_once_and_then_the_rate(quota: Quota, clock: FakeClock) -> None:
    """That is what `events_per_s` and `burst_s` mean to whoever writes them."""
    limited = tenant(events_per_s=10, burst_s=5)

    at_once = sum(quota.take(0, limited, events=1, bytes_=1) == 0.0 for _ in range(1000))
    later = 0
    for _ in range(100):
        clock.advance(1.0)
        later += sum(quota.take(0, limited, events=1, bytes_=1) == 0.0 for _ in range(1000))

    # The burst, and the one that takes the tenant into debt.
    assert 51 == at_once
    assert 1000 == pytest.approx(later, abs=1)


@given(rate=rates, burst_s=bursts, schedule=uploads)
def test_no_stretch_of_time_sees_more_than_rate_and_burst_and_one_upload(
    rate: float, burst_s: float, schedule: list[tuple[float, int, int]], tmp_path_factory: pytest.TempPathFactory
) -> None:
    """The bound is what the sink behind is sized by, whatever the devices do."""
    clock = FakeClock()
    quota = started(tmp_path_factory.mktemp("q") / "quota", clock)
    limited = tenant(events_per_s=rate, bytes_per_s=rate * 100, burst_s=burst_s)
    admitted = []
    for gap_s, events, size in schedule:
        clock.advance(gap_s)
        if quota.take(0, limited, events=events, bytes_=events * size) == 0.0:
            admitted.append((clock.monotonic(), events, events * size))
    quota.close()

    for first, last in itertools.combinations(range(len(admitted)), 2):
        allowed_s = admitted[last][0] - admitted[first][0] + burst_s + NEARLY
        # All but the last, which may take the tenant into debt.
        assert sum(events for _, events, _ in admitted[first:last]) <= rate * allowed_s
        assert sum(size for _, _, size in admitted[first:last]) <= rate * 100 * allowed_s


@given(rate=rates, burst_s=bursts, schedule=uploads)
def test_a_tenant_under_its_rate_is_never_refused(
    rate: float, burst_s: float, schedule: list[tuple[float, int, int]], tmp_path_factory: pytest.TempPathFactory
) -> None:
    """Who keeps to what was agreed must not lose an upload to the arithmetic."""
    clock = FakeClock()
    quota = started(tmp_path_factory.mktemp("q") / "quota", clock)
    limited = tenant(events_per_s=rate, bytes_per_s=rate * 2000, burst_s=burst_s)
    sent: list[tuple[float, int]] = []
    for gap_s, events, size in schedule:
        clock.advance(gap_s)
        now = clock.monotonic()
        # Under its rate: in every stretch of time up to now there is no more than rate and burst allow.
        sums = itertools.accumulate(count for _, count in reversed(sent))
        starts = (at for at, _ in reversed(sent))
        if all(total <= rate * (now - at + burst_s) for total, at in zip(sums, starts, strict=True)):
            sent.append((now, events))

            assert 0.0 == quota.take(0, limited, events=events, bytes_=events * size)
    quota.close()


@given(
    schedule=st.lists(st.tuples(st.booleans(), st.sampled_from([0.0, 0.1, 5.0]), st.integers(1, 10_000)), max_size=60)
)
def test_tenants_do_not_know_of_each_other(
    schedule: list[tuple[bool, float, int]], tmp_path_factory: pytest.TempPathFactory
) -> None:
    """A tenant at its limit changes nothing for another: each is answered as if it were alone."""
    clock, directory = FakeClock(), tmp_path_factory.mktemp("q")
    together = started(directory / "together", clock)
    alone = started(directory / "alone-a", clock), started(directory / "alone-b", clock)
    tenants = tenant(events_per_s=100, bytes_per_s=3000), tenant(events_per_s=7, bytes_per_s=1000)
    for of_b, gap_s, events in schedule:
        clock.advance(gap_s)
        answers = [
            one.take(1 + of_b, tenants[of_b], events=events, bytes_=events * 10) for one in (together, alone[of_b])
        ]

        assert answers[0] == answers[1]
    for one in (together, *alone):
        one.close()


def test_an_upload_larger_than_the_burst_passes_and_is_paid_off(quota: Quota, clock: FakeClock) -> None:
    """Else a tenant of 10 events/s could never send the 10,000 that a phone brings home from a journey."""
    limited = tenant(events_per_s=10, burst_s=5)

    assert 0.0 == quota.take(0, limited, events=10_000, bytes_=1)
    assert quota.take(0, limited, events=1, bytes_=1) == pytest.approx(995, abs=NEARLY)

    clock.advance(994.9)
    assert quota.take(0, limited, events=1, bytes_=1) == pytest.approx(0.1, abs=NEARLY)

    clock.advance(0.1000001)
    assert 0.0 == quota.take(0, limited, events=10_000, bytes_=1)


@pytest.mark.parametrize(("events", "bytes_", "wait"), [(1000, 10, 95.0), (10, 1000, 95.0), (1000, 2000, 195.0)])
def test_the_longer_wait_is_told(events: int, bytes_: int, wait: float, quota: Quota) -> None:
    """A device that comes back when only one rate admits it is refused once more for nothing."""
    limited = tenant(events_per_s=10, bytes_per_s=10)
    quota.take(0, limited, events=events, bytes_=bytes_)

    assert quota.take(0, limited, events=1, bytes_=1) == pytest.approx(wait, abs=NEARLY)
    assert quota.peek(0, limited) == pytest.approx(wait, abs=NEARLY)


@pytest.mark.parametrize(("in_debt", "other"), [("events_per_s", "bytes_per_s"), ("bytes_per_s", "events_per_s")])
def test_both_rates_admit_or_neither_is_charged(in_debt: str, other: str, quota: Quota) -> None:
    """A tenant over its events would else also run out of bytes, by uploads that nobody took."""
    quota.take(0, tenant(**{in_debt: 10.0}), events=1000, bytes_=1000)
    both = tenant(events_per_s=10, bytes_per_s=10)

    refusals = [quota.take(0, both, events=1000, bytes_=1000) for _ in range(5)]

    assert refusals == pytest.approx([95.0] * 5, abs=NEARLY)
    assert 0.0 == quota.peek(0, tenant(**{other: 10.0}))


def test_a_look_charges_nothing(quota: Quota) -> None:
    """Uploads are looked at before they are parsed, and charged after."""
    limited = tenant(events_per_s=1, burst_s=0)

    looks = [quota.peek(0, limited) for _ in range(100)]

    assert [0.0] * 100 == looks
    assert 0.0 == quota.take(0, limited, events=3, bytes_=1)
    assert [quota.peek(0, limited) for _ in range(100)] == pytest.approx([3.0] * 100, abs=NEARLY)


def test_a_tenant_without_rates_has_no_limit_and_no_meter(tmp_path: Path, clock: FakeClock) -> None:
    """0 is no limit, and costs nothing: not even an open file."""
    quota = Quota(tmp_path / "quota", clock)

    assert [0.0] * 100 == [quota.take(-1, tenant(), events=10_000, bytes_=2**40) for _ in range(100)]
    assert 0.0 == quota.peek(-1, tenant())


@pytest.mark.parametrize("rate", ["events_per_s", "bytes_per_s"])
def test_a_single_rate_leaves_the_other_without_limit(rate: str, quota: Quota) -> None:
    """Most tenants are given one of the two."""
    limited = tenant(**{rate: 10.0})
    free = {"events_per_s": "bytes_", "bytes_per_s": "events"}[rate]
    tight = {"bytes_": "events", "events": "bytes_"}[free]

    assert [0.0] * 50 == [quota.take(0, limited, **{tight: 1, free: 10**9}) for _ in range(50)]


def test_a_raised_rate_helps_at_once(quota: Quota, clock: FakeClock) -> None:
    """An operator raises it because the tenant is shut out; to wait for the old debt would look like a defect."""
    quota.take(0, tenant(events_per_s=1), events=10_000, bytes_=1)
    raised = tenant(events_per_s=1000)

    waits = quota.peek(0, tenant(events_per_s=1)), quota.take(0, raised, events=1, bytes_=1)
    clock.advance(10.001)

    # What the largest upload there can be would take at the new rate, less what the burst pays.
    assert waits == pytest.approx((9995.0, 10.0), abs=NEARLY)
    assert 0.0 == quota.take(0, raised, events=1, bytes_=1)


def test_a_lowered_rate_holds_from_then_on(quota: Quota, clock: FakeClock) -> None:
    """A reload takes effect without a restart, in this direction too."""
    quota.take(0, tenant(events_per_s=1000), events=100, bytes_=1)
    lowered = tenant(events_per_s=1, burst_s=1)

    admitted = 0
    for _ in range(100):
        clock.advance(1.0)
        admitted += sum(quota.take(0, lowered, events=1, bytes_=1) == 0.0 for _ in range(10))

    assert 101 == pytest.approx(admitted, abs=1)


@pytest.mark.parametrize(
    ("stale", "waits"),
    [(1e18, 1000.0), (math.inf, 1000.0), (math.nan, 0.0), (-math.inf, 0.0), (-5.0, 0.0), (1999.0, 994.0)],
)
def test_a_meter_that_can_not_be_is_put_right(stale: float, waits: float, tmp_path: Path, clock: FakeClock) -> None:
    """A file of before a reboot is days ahead of the clock; the tenant must not be shut out for days."""
    path = tmp_path / "quota"
    path.write_bytes(struct.pack("=d", stale))
    quota = started(path, clock)
    limited = tenant(events_per_s=10)

    # No more than the largest upload, of 10,000 events, could have brought about.
    assert quota.take(0, limited, events=1, bytes_=1) == pytest.approx(waits, abs=NEARLY)

    clock.advance(waits + 0.001)
    assert 0.0 == quota.take(0, limited, events=1, bytes_=1)
    clock.advance(1000.0)
    assert 0.0 == quota.peek(0, limited)


@given(content=st.binary(max_size=4096), rate=st.floats(min_value=1e-300, max_value=1e300), burst_s=st.floats(0, 1e300))
def test_any_file_and_any_rate_give_an_answer(
    content: bytes, rate: float, burst_s: float, tmp_path_factory: pytest.TempPathFactory
) -> None:
    """What lies in the file is not ours alone, and rates are what somebody typed."""
    path = tmp_path_factory.mktemp("q") / "quota"
    path.write_bytes(content)
    quota = started(path, FakeClock())
    limited = tenant(events_per_s=rate, bytes_per_s=rate, burst_s=burst_s)

    waits = [quota.take(slot, limited, events=10_000, bytes_=2**24) for slot in (0, 1, 100) for _ in range(3)]
    quota.close()

    assert all(0.0 <= wait <= HORIZON_S for wait in waits)
    assert all(1 <= retry_after_s(wait) for wait in waits)


def test_a_worker_that_comes_later_sees_what_was_taken(tmp_path: Path, clock: FakeClock) -> None:
    """The rates are of the task: neither a second worker nor a restarted one is a second helping."""
    limited = tenant(events_per_s=10)
    first, second = started(tmp_path / "quota", clock), started(tmp_path / "quota", clock)

    first.take(3, limited, events=100, bytes_=1)
    first.close()
    third = started(tmp_path / "quota", clock)

    assert [second.peek(3, limited), third.peek(3, limited)] == pytest.approx([5.0, 5.0], abs=NEARLY)
    assert 0.0 == second.peek(4, limited)


def test_the_file_grows_by_slot_under_all_who_have_it_open(tmp_path: Path, clock: FakeClock) -> None:
    """Tenants are added by a reload, and the workers come to it one by one."""
    path, limited = tmp_path / "quota", tenant(events_per_s=10)
    first, second = started(path, clock), started(path, clock)
    first.take(0, limited, events=100, bytes_=1)

    first.take(5 * SLOTS_STEP, limited, events=200, bytes_=1)
    size = path.stat().st_size
    # Behind the first one, but not as far: it must not cut off what the first one has mapped.
    second.take(2 * SLOTS_STEP, limited, events=300, bytes_=1)
    third = started(path, clock)

    assert 6 * SLOTS_STEP * SLOT_BYTES == size == path.stat().st_size
    for one in (first, second, third):
        waits = [one.peek(slot, limited) for slot in (0, 5 * SLOTS_STEP, 2 * SLOTS_STEP, 1)]
        assert waits == pytest.approx([5.0, 15.0, 25.0, 0.0], abs=NEARLY)


@pytest.mark.parametrize("slot", [-1, -1000, MAX_SLOTS])
def test_a_slot_that_is_none_is_a_defect(slot: int, quota: Quota) -> None:
    """A negative one would be somebody else's meter, counted from the end."""
    with pytest.raises(ValueError, match="slot"):
        quota.take(slot, tenant(events_per_s=1), events=1, bytes_=1)
    with pytest.raises(ValueError, match="slot"):
        quota.peek(slot, tenant(events_per_s=1))


def test_a_full_tmpfs_is_no_room(quota: Quota, monkeypatch: pytest.MonkeyPatch) -> None:
    """Gate and answer treat it as any full spool: 503, and again later."""

    def refuse(*_: object) -> None:
        raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))

    limited = tenant(events_per_s=1)
    with monkeypatch.context() as patched:
        patched.setattr(os, "posix_fallocate", refuse)

        assert 0.0 == quota.take(0, limited, events=1, bytes_=1)
        with pytest.raises(SpoolFull, match="No space left"):
            quota.take(SLOTS_STEP, limited, events=1, bytes_=1)

    assert 0.0 == quota.take(SLOTS_STEP, limited, events=1, bytes_=1)


def test_a_file_system_that_refuses_leaves_nothing_open(tmp_path: Path, clock: FakeClock) -> None:
    """A start that failed is tried again, and must then begin at the beginning."""
    quota = Quota(tmp_path / "quota", clock)
    before = os.listdir("/proc/self/fd")
    soft, hard = resource.getrlimit(resource.RLIMIT_FSIZE)
    resource.setrlimit(resource.RLIMIT_FSIZE, (100, hard))
    try:
        with pytest.raises(SpoolBroken, match="File too large"):
            quota.start()
    finally:
        resource.setrlimit(resource.RLIMIT_FSIZE, (soft, hard))

    assert before == os.listdir("/proc/self/fd")

    quota.start()
    assert 0.0 == quota.take(0, tenant(events_per_s=1), events=1, bytes_=1)


def test_a_path_that_is_no_file_is_named(tmp_path: Path, clock: FakeClock) -> None:
    """The message is all that an operator has."""
    with pytest.raises(SpoolBroken, match=str(tmp_path)):
        Quota(tmp_path, clock).start()


def test_it_closes_before_its_start_and_twice(tmp_path: Path, clock: FakeClock) -> None:
    """A start that failed half-way closes everything."""
    quota = Quota(tmp_path / "deep/down/quota", clock)
    quota.close()
    quota.start()
    quota.start()
    quota.close()
    quota.close()

    with pytest.raises(SpoolBroken, match="start comes first"):
        quota.take(0, tenant(events_per_s=1), events=1, bytes_=1)


@pytest.mark.parametrize(("wait", "seconds"), [(0.0, 1), (1e-9, 1), (1.0, 1), (1.0001, 2), (59.5, 60)])
def test_a_wait_is_told_in_whole_seconds_and_never_as_0(wait: float, seconds: int) -> None:
    """Retry-After has no fractions, and 0 would bring the device back at once."""
    assert seconds == retry_after_s(wait)


TAKER = """
import os, sys
from pathlib import Path
from collector.admission.quota import Quota
from tests.admission.test_quota import STOP, shared, tenant

me, now = int(sys.argv[2]), shared(Path(sys.argv[1]) / "shared")
class Clock:
    def now_us(self): return 0
    def monotonic(self): return now[0]
quota = Quota(Path(sys.argv[1]) / "quota", Clock())
quota.start()
limited = tenant(events_per_s=10_000, burst_s=0.05)
admitted, seen = 0, -1.0
while seen != STOP:
    seen = now[0]
    while quota.take(0, limited, events=1, bytes_=1) == 0.0:
        admitted += 1
    now[2 + me] = admitted  # before the time seen, which says that it is there
    now[me] = seen
"""
STOP = 3.0


def shared(path: Path) -> memoryview[float]:
    """Map the time that processes share, the time that each has seen, and what each was admitted."""
    with path.open("r+b") as file:
        return memoryview(mmap.mmap(file.fileno(), 64)).cast("d")


def test_two_processes_at_once_get_the_rate_and_hardly_more(tmp_path: Path) -> None:
    """
    A charge may be lost only where a holder of the lock is stopped. It must stay rare, and never cost a refusal.

    Time is stepped by hand, and goes on when both have taken all that there was; so they run into each other at
    every step, far more than uploads do, and no clock of this machine decides the result.
    """
    (tmp_path / "shared").write_bytes(bytes(64))
    words = shared(tmp_path / "shared")
    takers = [subprocess.Popen([sys.executable, "-c", TAKER, str(tmp_path), str(me)], cwd=ROOT) for me in (1, 2)]
    steps = 60
    for step in range(1, steps + 1):
        words[0] = STOP * step / steps
        while words[1] != words[0] or words[2] != words[0]:
            assert [None, None] == [taker.poll() for taker in takers] or step == steps
            os.sched_yield()
    codes = [taker.wait() for taker in takers]

    admitted = words[3] + words[4]
    assert [0, 0] == codes
    assert 10_000 * STOP <= admitted <= 1.02 * 10_000 * (STOP + 0.05)
