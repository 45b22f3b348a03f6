"""Small batches that go together: what is saved by it, and that nothing else is shared."""

from __future__ import annotations

import errno
import os
from collections.abc import Callable
from pathlib import Path

import pytest

from collector.buffer.room import Bounds
from collector.delivery import job as jobs
from collector.delivery.lane import PATIENCE_S
from collector.event import Batch
from collector.outcome import Receipt
from collector.sinks.base import Limits
from collector.telemetry.journal import Journal, Settlement
from tests.delivery.test_flusher import World
from tests.fakes import FakeClock, RecordingSignals, ScriptedSink

BOUNDS = Bounds(task_bytes=1 << 30, worker_bytes=1 << 30, segment_bytes=1 << 26)
Answers = list[jobs.Answer]


class Blocking(ScriptedSink):
    """A sink that blocks: each write takes `seconds`."""

    blocking = True

    def __init__(self, clock: FakeClock, *, limits: Limits | None = None) -> None:
        super().__init__(limits=limits)
        self._clock = clock
        self.seconds = 0.0

    def write(self, batch: Batch) -> Receipt:
        self._clock.advance(self.seconds)
        return super().write(batch)


@pytest.fixture(name="sink")
def _sink(clock: FakeClock) -> Blocking:
    return Blocking(clock)


@pytest.fixture(name="world")
def _world(root: Path, clock: FakeClock, signals: RecordingSignals, sink: Blocking) -> World:
    return World(root, clock, signals, bounds=BOUNDS, default=sink)


@pytest.fixture(name="handed")
def _handed(world: World) -> list[int]:
    """Note how many batches each job brings back."""
    handed: list[int] = []

    def offload(run: Callable[[], Answers]) -> Answers:
        answers = run()
        handed.append(len(answers))
        return answers

    deliverer = world.flusher._deliverer
    deliverer._offload = deliverer._offload_quietly = offload
    return handed


def put(world: World, tenants: int, *, size: int = 10) -> None:
    """Let so many tenants send an event each."""
    for n in range(tenants):
        world.put(b"%04d" % n + b"x" * (size - 4), tenant=f"t{n:04d}")


# -- what is saved ---------------------------------------------------------------------------------------------


def test_a_thousand_tenants_are_not_a_thousand_jobs(world: World, sink: Blocking, handed: list[int]) -> None:
    """To hand a small batch to a thread costs more than to write it: the cost of an upload grew with the tenants."""
    put(world, 1000)
    world.tick(1.0)
    world.tick()

    assert 1000 == len(sink.written)
    assert 1000 == sum(handed)
    assert len(handed) <= 1000 / jobs.MAX_BATCHES + 1
    assert world.spool.is_empty


def test_what_was_written_together_is_settled_by_one_line_of_the_journal(
    world: World, handed: list[int], monkeypatch: pytest.MonkeyPatch
) -> None:
    """A line a batch was a system call and a compaction's share for each tenant."""
    lines: list[int] = []
    real = Journal.write

    def write(self: Journal, settlement: Settlement) -> None:
        lines.append(len(settlement.spans))
        real(self, settlement)

    monkeypatch.setattr(Journal, "write", write)
    put(world, 100)
    world.tick(1.0)

    assert handed == lines
    assert 100 == world.total["delivered"]
    assert world.spool.books.totals().balanced


def test_each_batch_is_the_one_it_would_be_alone(world: World, sink: Blocking) -> None:
    """A name stands for one partition of a segment: a repeat, by whoever, writes over the first."""
    put(world, 50)
    world.put(b"more of it", tenant="t0007")
    world.tick(1.0)

    assert 50 == len({batch.name for batch in sink.written})
    assert all(1 == len(batch.spans) for batch in sink.written)
    assert [b"0007xxxxxx", b"more of it"] == sink.written[7].lines()


def test_large_batches_go_alone(world: World, handed: list[int]) -> None:
    """Threads write them beside each other, and what a lane has in memory stays what it was."""
    put(world, 6, size=jobs.MAX_BYTES)
    world.tick(1.0)
    world.tick()

    assert [1] * 6 == handed


def test_no_job_has_many_more_bytes_than_it_may(world: World, sink: Blocking, handed: list[int]) -> None:
    """The batch that goes over the limit is the last one in."""
    put(world, 30, size=jobs.MAX_BYTES // 10)
    world.tick(1.0)
    world.tick()

    assert [10, 10, 10] == handed


def test_a_sink_that_does_not_block_gets_each_batch_by_itself(
    root: Path, clock: FakeClock, signals: RecordingSignals
) -> None:
    """Its writes wait on sockets, beside each other; one after the other they would be slower."""
    world = World(root, clock, signals, concurrency=8, default=ScriptedSink())
    world.held_back()
    put(world, 20)
    world.tick(1.0)

    assert 8 == len(world.spawned)


def test_a_slow_sink_gets_few_batches_in_a_job_and_several_jobs_at_once(
    world: World, sink: Blocking, handed: list[int]
) -> None:
    """Where a file takes 10 ms to sync, a job of many would make everybody wait for the last one."""
    sink.seconds = 0.01
    put(world, 100)
    world.tick(1.0)
    handed.clear()
    put(world, 100)
    world.tick(1.0)
    world.tick()

    assert 5 == max(handed)
    assert 100 == sum(handed)

    world.held_back()
    put(world, 100)
    world.tick(1.0)

    assert 2 == len(world.spawned)


# -- what is not shared ----------------------------------------------------------------------------------------


@pytest.mark.parametrize("tenant_id", ["t0000", "t0003", "t0019"])
def test_a_batch_that_fails_fails_alone(world: World, sink: Blocking, tenant_id: str) -> None:
    """A directory of one tenant that can't be written to is that tenant's trouble."""
    real = sink.write

    def write(batch: Batch) -> Receipt:
        if batch.spans[0].tenant_id == tenant_id:
            sink.fail()
        return real(batch)

    sink.write = write  # type: ignore[method-assign]
    put(world, 20)
    world.tick(1.0)

    assert (19, 1) == (world.total["delivered"], world.total["pending"])
    sink.write = real  # type: ignore[method-assign]
    world.tick(20.0)

    assert 21 == len(sink.written)
    assert 20 == len(sink.objects)
    assert (20, 0) == (world.total["delivered"], world.total["pending"])


def test_a_sink_that_is_down_is_not_tried_by_each_batch_of_a_job(world: World, sink: Blocking) -> None:
    """Each try may take a timeout: a job of them would hold its thread for minutes."""
    sink.fail(1000)
    put(world, 20)
    world.tick(1.0)

    assert jobs.MOST_FAILURES == len(sink.written)
    assert 20 == world.total["pending"]
    assert 1 == len(world.signals.named("batch_failed"))
    sink._script.clear()
    world.tick(20.0)

    assert 20 == world.total["delivered"]


def test_a_receipt_that_does_not_add_up_costs_its_neighbours_nothing(world: World, sink: Blocking) -> None:
    """The defect is told, its events stay; what was delivered beside it is settled."""
    sink.answer(Receipt(7))
    put(world, 5)
    world.tick(1.0)

    assert (4, 1) == (world.total["delivered"], world.total["pending"])
    assert 1 == len(world.signals.named("internal_error"))
    assert world.spool.books.totals().balanced


def test_a_journal_that_refuses_makes_all_of_a_job_go_again_under_the_same_names(
    world: World, sink: Blocking, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Delivered and not recorded is not delivered: twice is possible, never is not."""

    def refuse(*_: object) -> int:
        raise OSError(errno.EIO, "broken")

    put(world, 10)
    with monkeypatch.context() as patched:
        patched.setattr(os, "pwrite", refuse)
        world.tick(1.0)
    assert (0, 10) == (world.total["delivered"], world.total["pending"])
    world.tick(20.0)

    assert (20, 10) == (len(sink.written), len(sink.objects))
    assert (10, 0) == (world.total["delivered"], world.total["pending"])
    assert world.spool.is_empty


def test_an_upload_that_waits_hears_of_its_own_batch(world: World, sink: Blocking) -> None:
    """Its answer says `sink`; what failed beside it is none of its business."""
    sink.fail()
    tickets = []
    for tenant in ("a", "b"):
        segment, span = world.spool.append(
            "default", tenant, b"1\n", events=1, received_us=world.clock.now_us(), wanted=True
        )
        tickets.append(segment.ticket(span))
    world.tick()

    assert [False, True] == [ticket.wait(0) for ticket in tickets]


# -- how many at once ------------------------------------------------------------------------------------------


def test_a_quick_sink_has_one_job_at_a_time(world: World, handed: list[int]) -> None:
    """Threads that compute take turns with uploads; four of them would take four turns of five."""
    put(world, 1)
    world.tick(1.0)
    world.held_back()
    put(world, 500)
    world.tick(1.0)

    assert 1 == len(world.spawned)


def test_a_job_that_hangs_holds_up_neither_the_next_ones_nor_other_segments(world: World, sink: Blocking) -> None:
    """A lane has more places than one, though a quick sink needs one."""
    put(world, 1)
    world.tick(1.0)
    world.held_back()
    put(world, jobs.MAX_BATCHES + 10)
    world.tick(1.0)
    hung = world.spawned.pop()
    world.is_held_back = False
    put(world, 5)
    world.tick(PATIENCE_S)
    for _ in range(20):
        world.tick(1.0)

    assert jobs.MAX_BATCHES == world.total["pending"]
    hung()
    world.tick()
    world.tick(1.0)

    assert world.spool.is_empty


def test_jobs_that_hang_have_no_more_than_the_lanes_places(world: World, sink: Blocking) -> None:
    """Each holds a thread of the pool."""
    put(world, 1)
    world.tick(1.0)
    world.held_back()
    put(world, 500)
    for _ in range(20):
        world.tick(1.0)

    assert 2 == len(world.spawned)
