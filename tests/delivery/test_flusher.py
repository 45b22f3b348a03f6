"""The flusher: what leaves when, what comes back, and that nothing else waits for it."""

from __future__ import annotations

import errno
import os
import random
import threading
from collections.abc import Callable
from functools import partial
from pathlib import Path

import pytest

from collector.buffer.room import Bounds
from collector.buffer.spool import Spool
from collector.delivery.aside import Claims, Parking
from collector.delivery.deliverer import Write
from collector.delivery.flusher import Flusher
from collector.delivery.job import Answer
from collector.delivery.retry import Backoff
from collector.outcome import Outcome
from collector.sinks.base import Limits, Sink
from tests.fakes import FakeClock, RecordingSignals, ScriptedSink

BOUNDS = Bounds(task_bytes=1 << 20, worker_bytes=1 << 20, segment_bytes=4096)


class World:
    """A spool, a flusher and their sinks; `spawned` holds what the flusher started, unless it runs at once."""

    def __init__(
        self,
        root: Path,
        clock: FakeClock,
        signals: RecordingSignals,
        *,
        bounds: Bounds = BOUNDS,
        concurrency: int = 2,
        rescue: Sink | None = None,
        rescue_after_s: float = 60.0,
        parking: Parking | None = None,
        claims: Claims | None = None,
        **sinks: Sink,
    ) -> None:
        self.clock = clock
        self.signals = signals
        self.spool = Spool(root, "w1", bounds, clock=clock, signals=signals)
        self.spool.start()
        self.spawned: list[Callable[[], None]] = []
        self.sinks = sinks
        self.is_held_back = False
        #: How each job of a sink that blocks left the hub.
        self.offloaded: list[str] = []
        self.flusher = Flusher(
            self.spool,
            self.sinks,
            backoff=Backoff(rng=random.Random(1), base_s=1.0, cap_s=8.0),
            clock=self.clock,
            signals=self.signals,
            max_age_s=1.0,
            concurrency=concurrency,
            rescues=dict.fromkeys(sinks, rescue) if rescue else {},
            rescue_after_s=rescue_after_s,
            spawn=self.spawn,
            offload=partial(self.offload, "at once"),
            offload_quietly=partial(self.offload, "quietly"),
            breathe=self.breathe,
            parking=parking,
            claims=claims,
        )

    def breathe(self) -> None:
        """Let the other greenlet, the one that drains, have its turn in the middle of a read."""
        self.flusher.tick()

    def offload(self, how: str, write: Write) -> list[Answer]:
        """Take note, and write here."""
        self.offloaded.append(how)
        return write()

    def spawn(self, run: Callable[[], None]) -> None:
        if self.is_held_back:
            self.spawned.append(run)
        else:
            run()

    def held_back(self) -> None:
        """Let started batches wait in `spawned` until the test runs them."""
        self.is_held_back = True

    def put(self, *lines: bytes, route: str = "default", tenant: str = "dev", wanted: bool = False) -> None:
        payload = b"".join(line + b"\n" for line in lines)
        self.spool.append(route, tenant, payload, events=len(lines), received_us=self.clock.now_us(), wanted=wanted)

    def tick(self, seconds: float = 0.0) -> None:
        self.clock.advance(seconds)
        self.flusher.tick()

    def wait_moves_the_clock(self) -> list[float]:
        """Let time pass while the drain waits, and then only; return its waits, as they come."""
        waited: list[float] = []
        clock = self.clock

        class Wake(threading.Event):
            def wait(self, timeout: float | None = None) -> bool:
                waited.append(timeout or 0.0)
                clock.advance(timeout or 0.0)
                return False

        self.flusher._wake = Wake()
        return waited

    @property
    def total(self) -> dict[str, int]:
        return self.spool.books.totals().total


@pytest.fixture(name="sink")
def _sink() -> ScriptedSink:
    return ScriptedSink()


@pytest.fixture(name="world")
def _world(root: Path, clock: FakeClock, signals: RecordingSignals, sink: ScriptedSink) -> World:
    return World(root, clock, signals, default=sink)


def test_a_segment_leaves_when_its_age_is_due(world: World, sink: ScriptedSink) -> None:
    """A trickle must arrive too, within the interval, and not as an object an event."""
    world.put(b"1")
    world.tick()
    world.put(b"2")
    assert not sink.written
    world.tick(1.0)

    assert [[b"1", b"2"]] == [batch.lines() for batch in sink.written]
    assert world.spool.is_empty


def test_a_full_segment_leaves_before_its_age_is_due(world: World, sink: ScriptedSink) -> None:
    """Size wins over age, or a burst would wait out the interval."""
    world.put(*[b"x" * 100] * 50)
    world.tick()

    assert 1 == len(sink.written)


def test_a_segment_that_an_upload_waits_for_leaves_at_once(world: World, sink: ScriptedSink) -> None:
    """The device holds its connection open meanwhile."""
    world.put(b"1", wanted=True)
    world.tick()

    assert [[b"1"]] == [batch.lines() for batch in sink.written]


def test_uploads_that_wait_while_a_group_is_on_its_way_are_written_together(world: World, sink: ScriptedSink) -> None:
    """Group commit: a write an upload would make the sink's latency the limit of the rate."""
    world.held_back()
    world.put(b"1", wanted=True)
    world.tick()
    for n in range(2, 40):
        world.put(b"%d" % n, wanted=True)
        world.tick()
    assert 1 == len(world.spawned)
    world.spawned.pop()()
    world.tick()
    world.spawned.pop()()

    assert [1, 38] == [len(batch) for batch in sink.written]


def test_a_batch_that_failed_is_tried_again_when_its_time_has_come_with_the_same_name(
    world: World, sink: ScriptedSink
) -> None:
    """The name lets a sink know a repeat; the time keeps a sink that is down from being hammered."""
    sink.fail(2)
    world.put(b"1")
    world.tick(1.0)
    world.tick()
    assert 1 == len(sink.written)
    for _ in range(4):
        world.tick(10.0)

    assert 3 == len(sink.written)
    assert 1 == len({batch.name for batch in sink.written})
    assert [b"1"] == sink.lines
    assert [1, 2] == [failed["attempts"] for failed in world.signals.named("batch_failed")]
    assert (1, 0) == (world.total["delivered"], world.total["pending"])


def test_only_the_events_that_were_not_taken_go_again(world: World, sink: ScriptedSink) -> None:
    """A stream takes some records of a batch and throttles others: the others alone may be sent again."""
    sink.retry(1, 3)
    world.put(b"0", b"1", b"2", b"3", b"4")
    world.tick(1.0)
    assert (3, 2) == (world.total["delivered"], world.total["pending"])
    world.tick(10.0)

    assert [b"0", b"2", b"4", b"1", b"3"] == sink.lines
    assert world.spool.is_empty


def test_an_event_too_large_for_the_sink_is_refused_alone_and_never_written(
    root: Path, clock: FakeClock, signals: RecordingSignals
) -> None:
    """Its size is known before: asking the sink would cost the batch that it is in."""
    sink = ScriptedSink(limits=Limits(max_events=10, max_bytes=100, max_event_bytes=20, partitioned=True))
    world = World(root, clock, signals, default=sink)
    world.put(b"small", b"x" * 50, b"small too")
    world.tick(1.0)

    assert [b"small", b"small too"] == sorted(sink.lines)
    assert (2, 1) == (world.total["delivered"], world.total["rejected_by_sink:sink_too_large"])
    assert [(Outcome.REJECTED_BY_SINK, 1)] == [
        (lost["outcome"], lost["count"]) for lost in signals.named("events_lost")
    ]
    assert world.spool.books.totals().balanced


def test_a_route_that_fails_or_hangs_holds_up_no_other(
    root: Path, clock: FakeClock, signals: RecordingSignals, sink: ScriptedSink
) -> None:
    """One dead destination is one tenant's trouble, not everybody's."""
    down = ScriptedSink()
    down.fail(1_000)
    world = World(root, clock, signals, default=sink, down=down)
    for n in range(10):
        world.put(b"%d" % n)
        world.put(b"lost?", route="down")
        world.tick(1.0)

    assert [b"%d" % n for n in range(10)] == sink.lines
    assert (10, 10) == (world.total["delivered"], world.total["pending"])


def test_a_sink_that_hangs_has_no_more_than_its_places(world: World, sink: ScriptedSink) -> None:
    """What is loaded for a sink is memory: an outage must not fill it."""
    world.held_back()
    for _ in range(20):
        world.put(*[b"x" * 100] * 50)
        world.tick(1.0)

    assert 2 == len(world.spawned)
    assert 18 == len(list(world.spool.sealed()))


def test_a_route_that_is_behind_gathers_more_in_a_segment(world: World, sink: ScriptedSink) -> None:
    """A thousand tenants a second are a thousand objects a second: a sink that can't keep up gets larger ones."""
    world.held_back()
    for n in range(10):
        world.put(b"%d" % n)
        world.tick(1.0)
    while world.spawned:
        world.spawned.pop(0)()
        world.tick(1.0)

    assert [1, 1, 1, 7] == [len(batch) for batch in sink.written]
    assert world.spool.is_empty


def test_after_a_failure_one_batch_tries_the_sink_and_the_others_wait(world: World, sink: ScriptedSink) -> None:
    """A sink that just came up again is not met by everything at once."""
    for _ in range(6):
        world.put(*[b"x" * 100] * 50)
    sink.fail()
    world.tick(1.0)
    world.held_back()
    world.tick(10.0)
    assert 1 == len(world.spawned)
    world.spawned.pop()()
    world.tick()

    assert 2 == len(world.spawned)


def test_a_defect_of_a_sink_loses_nothing_and_is_told(world: World, sink: ScriptedSink) -> None:
    """An exception that nobody thought of is not a reason to forget events."""

    def broken(_: object) -> None:
        raise RuntimeError("a defect")

    world.put(b"1")
    real, sink.write = sink.write, broken  # type: ignore[method-assign,assignment]
    world.tick(1.0)
    assert 1 == world.total["pending"]
    assert 1 == len(world.signals.named("internal_error"))
    sink.write = real  # type: ignore[method-assign]
    world.tick(20.0)

    assert [b"1"] == sink.lines


def test_a_journal_that_can_not_be_written_makes_the_batch_go_again(
    world: World, sink: ScriptedSink, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Delivered but not recorded is not delivered: twice is allowed, never is not."""
    world.put(b"1")

    def refuse(*_: object) -> int:
        raise OSError(errno.EIO, "broken")

    with monkeypatch.context() as patched:
        patched.setattr(os, "pwrite", refuse)
        world.tick(1.0)
    assert 1 == world.total["pending"]
    world.tick(20.0)

    assert [b"1", b"1"] == sink.lines
    assert 1 == len(sink.objects)
    assert (1, 0) == (world.total["delivered"], world.total["pending"])


def test_a_frame_that_went_bad_in_the_spool_is_counted_and_its_neighbours_arrive(
    world: World, sink: ScriptedSink, root: Path
) -> None:
    """A living worker checks what it reads, too."""
    world.put(b"before")
    (path,) = root.glob("owners/w1/*.seg")
    world.put(b"hit-1", b"hit-2")
    at = path.read_bytes().index(b"hit-2")
    world.put(b"after")
    with path.open("r+b") as file:
        file.seek(at)
        file.write(b"#")
    world.tick(1.0)

    assert [b"before", b"after"] == sink.lines
    assert (2, 2) == (world.total["delivered"], world.total["dropped:corrupt_frame"])
    assert world.spool.books.totals().balanced
    assert world.spool.is_empty


def test_a_segment_whose_file_is_gone_is_counted_as_lost(world: World, root: Path) -> None:
    """Somebody removed it; the ledger says so and does not wait for it for ever."""
    world.put(b"1", b"2")
    (path,) = root.glob("owners/w1/*.seg")
    path.unlink()
    world.tick(1.0)

    assert 2 == world.total["dropped:corrupt_frame"]
    assert world.spool.is_empty


def test_a_segment_of_a_route_that_is_no_more_leaves_by_the_default_one(world: World, sink: ScriptedSink) -> None:
    """A reload took the route away; what was taken for it must not lie there for ever."""
    world.put(b"1", route="gone")
    world.tick(1.0)

    assert [b"1"] == sink.lines


def test_two_ticks_that_cross_read_no_segment_twice(
    root: Path, clock: FakeClock, signals: RecordingSignals, sink: ScriptedSink
) -> None:
    """A tick breathes while it reads; a drain ticks beside the loop. Twice read is twice delivered."""
    bounds = Bounds(1 << 20, 1 << 20, segment_bytes=1 << 16)
    world = World(root, clock, signals, bounds=bounds, concurrency=8, default=sink)
    for _ in range(3):
        for n in range(300):
            world.put(b"%d" % n)
        world.spool.seal_all()
    world.held_back()
    world.tick(1.0)
    while world.spawned:
        world.spawned.pop(0)()
        world.tick(1.0)

    assert 900 == len(sink.lines)
    assert world.spool.is_empty


def test_a_drain_sends_everything_on_and_ends_in_time_if_it_can_not(world: World, sink: ScriptedSink) -> None:
    """The stop of a task has a deadline that nobody may pass."""
    waited = world.wait_moves_the_clock()
    world.put(b"1")

    assert world.flusher.drain(5.0)
    sink.fail(1_000)
    world.put(b"2")
    assert not world.flusher.drain(5.0)
    assert sum(waited) < 6.0
    assert 1 == world.total["pending"]


# -- how a job leaves the hub ------------------------------------------------------------------------------


@pytest.fixture(name="blocking")
def _blocking(root: Path, clock: FakeClock, signals: RecordingSignals, sink: ScriptedSink) -> World:
    sink.blocking = True
    return World(root, clock, signals, default=sink)


def test_a_segment_that_nobody_waits_for_lets_uploads_go_first(blocking: World) -> None:
    """On one core a batch would take it from an upload that somebody does wait for."""
    for n in range(3):
        blocking.put(b"%d" % n)
        blocking.tick(1.0)

    assert ["quietly"] * 3 == blocking.offloaded


def test_a_segment_that_an_upload_waits_for_lets_nobody_go_first(blocking: World) -> None:
    """Its device has no answer before the sink has it."""
    blocking.put(b"1", wanted=True)
    blocking.tick()
    blocking.put(b"2")
    blocking.tick(1.0)

    assert ["at once", "quietly"] == blocking.offloaded


def test_while_others_wait_behind_it_no_segment_lets_uploads_go_first(blocking: World) -> None:
    """A sink that is behind would fall behind for good, and the spool fill up."""
    for n in range(4):
        blocking.put(b"%d" % n)
        blocking.spool.seal_all()
    blocking.tick(1.0)

    assert ["at once"] * 3 + ["quietly"] == blocking.offloaded


def test_a_sink_that_does_not_block_is_written_to_where_it_is(world: World, sink: ScriptedSink) -> None:
    """A thread's round trip would cost more than its write."""
    world.put(b"1", wanted=True)
    world.tick(1.0)

    assert ([[b"1"]], []) == ([batch.lines() for batch in sink.written], world.offloaded)


def test_in_a_drain_no_segment_lets_others_go_first(blocking: World) -> None:
    """The end is waited for, and has a deadline: on a busy core the last segment would be left behind."""
    blocking.wait_moves_the_clock()
    blocking.put(b"1")

    assert blocking.flusher.drain(5.0)
    assert ["at once"] == blocking.offloaded
