"""Who may come in when the spool fills: shares, lending, and when to come back."""

from __future__ import annotations

import random
import tempfile
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from collector.admission.gate import LEAST_RETRY_S, MOST_RETRY_S, SHARE_FACTOR, Gate
from collector.admission.memory import Memory
from collector.admission.quota import Quota
from collector.buffer.room import HIGH_WATERMARK, Bounds
from collector.buffer.spool import Spool
from collector.outcome import ADMITTED, Reason, Verdict
from collector.tenant import Tenant
from tests.fakes import FakeClock, RecordingSignals

SPOOL_BYTES = 1_000_000
LIMIT = int(SPOOL_BYTES * HIGH_WATERMARK)
NAMES = ("a", "b", "c", "d")


def tenant(tenant_id: str, **fields: Any) -> Tenant:
    return Tenant(id=tenant_id, keys=(), **fields)


class World:
    """A gate before a spool whose room a test fills and frees as uploads and deliveries would."""

    def __init__(self, root: Path, *, sole: bool = False, seed: int = 1) -> None:
        self.clock = FakeClock()
        bounds = Bounds(task_bytes=SPOOL_BYTES, worker_bytes=SPOOL_BYTES, segment_bytes=SPOOL_BYTES)
        self.spool = Spool(root, "w1", bounds, clock=self.clock, signals=RecordingSignals())
        self.spool.start()
        self.quota = Quota(root / "quota", self.clock)
        self.quota.start()
        self.memory = Memory(held=int, workers=1, clock=self.clock, signals=RecordingSignals())
        self.gate = Gate(
            self.spool,
            self.quota,
            memory=self.memory,
            slot_of=NAMES.index,
            is_sole=lambda: sole,
            max_lag_s=0.25,
            clock=self.clock,
            rng=random.Random(seed),
        )

    def close(self) -> None:
        self.spool.close()
        self.quota.close()

    def admit(self, who: Tenant, size: int = 1000, events: int = 1) -> Verdict:
        return self.gate.admit(who, events=events, size_bytes=size, sent_bytes=size)

    def upload(self, who: Tenant, size: int = 1000) -> bool:
        """Upload, and hold the bytes if they were admitted."""
        admitted = self.admit(who, size).admitted
        if admitted:
            self.spool.used_bytes += size
            self.spool.used_by[who.id] = self.held(who) + size
        return admitted

    def fill(self, who: Tenant, size: int = 1000) -> int:
        """Upload until it is refused; return what is held then."""
        for _ in range(10 * SPOOL_BYTES // size):
            if not self.upload(who, size):
                return self.held(who)
        raise AssertionError(f"{who.id} was never refused")

    def deliver(self, who: Tenant, size: int) -> None:
        """Let bytes leave."""
        self.spool.used_bytes -= size
        self.spool.used_by[who.id] -= size
        self.spool.freed_by[who.id] = self.spool.freed_by.get(who.id, 0) + size

    def churn(self, who: list[Tenant], chance: random.Random, *, size: int) -> None:
        """Let everyone offer more than leaves, until five times the spool has left, each tenant as much as another."""
        for _ in range(5 * SPOOL_BYTES // size // len(who)):
            for one in who:
                if self.held(one) >= size:
                    self.deliver(one, size)
            for one in chance.sample(who, len(who)):
                self.upload(one, size)
                self.upload(one, size)

    def held(self, who: Tenant) -> int:
        return self.spool.used_by.get(who.id, 0)


@pytest.fixture
def world(root: Path) -> Iterator[World]:
    made = World(root)
    yield made
    made.close()


A, B, C, D = (tenant(name) for name in NAMES)


# -- shares ------------------------------------------------------------------------------------------------


def test_a_hot_tenant_is_refused_first_and_a_newcomer_is_admitted(world: World) -> None:
    """One tenant's outage must not close the door to those who have none."""
    held = world.fill(A)
    verdict = world.admit(A)

    assert Reason.BACKPRESSURE is verdict.reason
    assert "tenant a" in verdict.message
    assert abs(held - LIMIT * SHARE_FACTOR / (1 + SHARE_FACTOR)) <= 2000
    assert ADMITTED == world.admit(B)
    assert ADMITTED == world.admit(B, LIMIT // 10)
    assert world.gate.open().admitted


def test_a_single_tenant_may_use_all(root: Path) -> None:
    """Room kept for others who do not exist is lost."""
    world = World(root, sole=True)
    held = world.fill(A)
    world.close()

    assert LIMIT * 0.99 - 1000 <= held <= LIMIT


def test_who_comes_later_reaches_the_same_part(world: World) -> None:
    """What was lent comes back as the hot tenant's bytes leave: it gets nothing new until both hold the same."""
    world.fill(A)
    assert world.held(B) == 0
    world.churn([A, B], random.Random(1), size=1000)

    assert abs(world.held(A) - world.held(B)) <= 20_000
    assert abs(world.held(A) - LIMIT * SHARE_FACTOR / (1 + 2 * SHARE_FACTOR)) <= 20_000


@settings(max_examples=20)
@given(
    count=st.integers(2, 4),
    shares=st.lists(st.sampled_from([0.5, 1.0, 2.0, 4.0]), min_size=4, max_size=4),
    size=st.sampled_from([500, 1000, 3000]),
    seed=st.integers(0, 1000),
)
def test_hot_tenants_hold_parts_as_their_shares(count: int, shares: list[float], size: int, seed: int) -> None:
    """A share is what an operator writes down: twice the share, twice the room, whoever came first."""
    chance = random.Random(seed)
    who = [tenant(name, share=share) for name, share in zip(NAMES[:count], shares, strict=False)]
    with tempfile.TemporaryDirectory(dir="/dev/shm") as folder:
        world = World(Path(folder))
        world.fill(who[0], size)
        world.churn(who, chance, size=size)
        held = [world.held(one) for one in who]
        world.close()
    whole = LIMIT * SHARE_FACTOR / (1 + SHARE_FACTOR * sum(one.share for one in who))

    for one, bytes_ in zip(who, held, strict=True):
        assert abs(bytes_ - whole * one.share) <= 0.05 * whole * one.share + 3 * SHARE_FACTOR * one.share * size


@given(
    hot=st.lists(st.tuples(st.sampled_from([B, C, D]), st.integers(1, 60_000)), max_size=60),
    rate=st.sampled_from([0.0, 10.0]),
    own=st.integers(0, 5),
)
def test_a_tenant_at_its_limit_changes_nothing_for_another(
    hot: list[tuple[Tenant, int]], rate: float, own: int
) -> None:
    """Refused uploads of one tenant, however many, move no verdict of another's: neither of share nor of rate."""
    me = tenant("a", events_per_s=rate, burst_s=1.0)
    verdicts: list[list[Verdict]] = []
    for hammering in (0, 40):
        with tempfile.TemporaryDirectory(dir="/dev/shm") as folder:
            world = World(Path(folder))
            seen: list[Verdict] = []
            for n, (other, size) in enumerate(hot):
                world.upload(other, size)
                limited = tenant(other.id, events_per_s=1.0, burst_s=1.0)
                for _ in range(hammering):
                    # Over its share or over its rate, it is refused; what it would hold is never held.
                    refused = world.admit(limited, LIMIT * 2)
                    assert not refused.admitted
                if n % 10 == own:
                    seen.append(world.admit(me, 500, events=4))
            world.close()
        verdicts.append(seen)

    assert [one.reason for one in verdicts[0]] == [one.reason for one in verdicts[1]]


def test_a_tenant_over_its_rate_takes_no_room_and_no_rate_of_another(world: World) -> None:
    """The meters are the tenants' own."""
    slow, other = tenant("a", events_per_s=1.0, burst_s=1.0), tenant("b", events_per_s=1.0, burst_s=1.0)
    first = world.admit(slow, events=5)
    refused = [world.admit(slow) for _ in range(100)]

    assert first.admitted
    assert {Reason.OVER_QUOTA} == {verdict.reason for verdict in refused}
    assert {4} == {verdict.retry_after_s for verdict in refused}
    assert world.admit(other).admitted


def test_whether_a_tenant_is_over_its_rate_is_foreseen_and_not_charged(world: World) -> None:
    """Asking costs the tenant nothing, however often."""
    slow = tenant("a", events_per_s=1.0, burst_s=1.0)
    before = [world.gate.foresee(slow).reason for _ in range(100)]
    world.admit(slow, events=5)
    after = [world.gate.foresee(slow) for _ in range(100)]

    assert [None] * 100 == before
    assert {(Reason.OVER_QUOTA, 4)} == {(verdict.reason, verdict.retry_after_s) for verdict in after}
    assert world.gate.foresee(tenant("b")).admitted


def test_a_refusal_for_room_is_not_charged_to_the_rate(world: World) -> None:
    """The device sends the same upload again: it would pay twice for being kept once."""
    slow = tenant("a", events_per_s=1.0, burst_s=1.0)
    for _ in range(50):
        assert Reason.BACKPRESSURE is world.admit(slow, LIMIT * 2, events=100).reason

    assert world.admit(slow).admitted


def test_an_upload_larger_than_all_room_is_refused_and_the_next_one_is_not(world: World) -> None:
    """It never fits; nobody else is to wait for it."""
    assert Reason.BACKPRESSURE is world.admit(A, LIMIT + 1).reason
    assert world.admit(A).admitted


# -- when to come back -------------------------------------------------------------------------------------


def measured(world: World, who: Tenant, bytes_per_s: int) -> None:
    """Let a tenant's bytes leave at a rate until the gate has measured it."""
    for _ in range(60):
        world.clock.advance(1.0)
        world.spool.freed_by[who.id] = bytes_per_s
        world.gate.tick()


@pytest.mark.parametrize(("bytes_per_s", "least", "most"), [(100_000, 1, 1), (500, 2, 3), (10, 5, 5)])
def test_retry_after_follows_from_the_tenants_own_drain(world: World, bytes_per_s: int, least: int, most: int) -> None:
    """Come back when there is room: sooner is another refusal, later is a full device."""
    measured(world, A, bytes_per_s)
    measured(world, B, 10_000_000)
    # B's measurements took a minute in which nothing of A's left.
    measured(world, A, bytes_per_s)
    world.fill(A)
    free = world.spool.limit_bytes - world.spool.used_bytes
    room = int(SHARE_FACTOR * free) - world.held(A)
    verdicts = [world.admit(A, room + 1000) for _ in range(100)]

    assert {Reason.BACKPRESSURE} == {verdict.reason for verdict in verdicts}
    assert {verdict.retry_after_s for verdict in verdicts} <= set(range(least, most + 1))


@given(
    freed=st.lists(st.tuples(st.sampled_from(NAMES), st.integers(0, 10**9), st.floats(0.0, 100.0)), max_size=20),
    size=st.integers(LIMIT + 1, 10**9),
    seed=st.integers(0, 100),
)
def test_retry_after_is_always_one_to_five_seconds(freed: list[tuple[str, int, float]], size: int, seed: int) -> None:
    """Longer ones make some SDKs drop what they have."""
    with tempfile.TemporaryDirectory(dir="/dev/shm") as folder:
        world = World(Path(folder), seed=seed)
        for name, bytes_, seconds in freed:
            world.spool.freed_by[name] = bytes_
            world.clock.advance(seconds)
            world.gate.tick()
        waits = [world.admit(who, size).retry_after_s for who in (A, B, C, D)]
        waits += [world.gate.no_room("ENOSPC").retry_after_s, world.gate.unconfirmed().retry_after_s]
        world.close()

    assert all(wait is not None and LEAST_RETRY_S <= wait <= MOST_RETRY_S for wait in waits)


def test_devices_refused_together_do_not_come_back_together(world: World) -> None:
    """A herd that leaves in step arrives in step."""
    measured(world, A, 400)
    world.fill(A)
    free = world.spool.limit_bytes - world.spool.used_bytes
    room = int(SHARE_FACTOR * free) - world.held(A)
    waits = {world.admit(A, room + 1000).retry_after_s for _ in range(200)}

    assert len(waits) > 1


def test_a_drain_that_stopped_is_forgotten(world: World) -> None:
    """Who delivered fast an hour ago is not told to come back in a second; nor is his name kept for ever."""
    measured(world, A, 1_000_000)
    for _ in range(200):
        world.clock.advance(1.0)
        world.gate.tick()
    world.fill(A)

    assert MOST_RETRY_S == world.admit(A).retry_after_s
    assert {} == world.gate._drain_bytes_s


# -- the whole worker --------------------------------------------------------------------------------------


def test_a_draining_worker_takes_nothing_and_one_that_leaves_takes_all(world: World) -> None:
    """First the traffic is turned away, while uploads are still taken; only then are they refused."""
    world.gate.leaving = True

    assert world.gate.open().admitted
    assert world.admit(A).admitted

    world.gate.draining = True
    for verdict in (world.gate.open(), world.admit(A)):
        assert Reason.DRAINING is verdict.reason
        assert verdict.retry_after_s == 1


def test_above_the_watermark_nobody_gets_in(world: World) -> None:
    """The last tenth is for what is under way."""
    world.spool.used_bytes = LIMIT

    for verdict in (world.gate.open(), world.admit(B, 1)):
        assert Reason.BACKPRESSURE is verdict.reason
        assert LEAST_RETRY_S <= (verdict.retry_after_s or 0) <= MOST_RETRY_S


def test_a_task_that_is_short_of_memory_takes_nothing(world: World) -> None:
    """What the kernel kills loses its answers, and perhaps its spool; what is refused the devices keep."""
    world.memory.is_short = True

    for verdict in (world.gate.open(), world.admit(B, 1)):
        assert (Reason.BACKPRESSURE, "the task is short of memory: send again later") == (
            verdict.reason,
            verdict.message,
        )
        assert LEAST_RETRY_S <= (verdict.retry_after_s or 0) <= MOST_RETRY_S
    world.memory.is_short = False
    assert ADMITTED == world.gate.open()


def test_the_gates_tick_looks_at_the_memory(world: World) -> None:
    """A guard that nobody asks guards nothing."""
    world.gate.tick()

    assert 0 < world.memory.use.used_bytes


def test_a_spool_that_no_tenant_can_use_any_more_is_full(root: Path) -> None:
    """A worker that refuses whatever comes must be unready, or traffic goes on coming to it."""
    world = World(root, sole=True)
    for size in (10_007, 1009, 331):  # the last is about what the smallest upload takes
        world.fill(A, size)
    world.close()

    assert world.spool.is_full
