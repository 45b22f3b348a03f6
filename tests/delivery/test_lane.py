"""The rescue sink: who goes there, when, and who comes back to their own."""

from __future__ import annotations

from pathlib import Path

import pytest

from collector.buffer.room import Bounds
from collector.delivery.lane import SILENT_S
from collector.outcome import Reason
from collector.sinks.base import Limits
from tests.delivery.test_flusher import World
from tests.fakes import FakeClock, RecordingSignals, ScriptedSink

AFTER_S = 60.0


@pytest.fixture(name="sink")
def _sink() -> ScriptedSink:
    return ScriptedSink()


@pytest.fixture(name="rescue")
def _rescue() -> ScriptedSink:
    return ScriptedSink()


@pytest.fixture(name="world")
def _world(root: Path, clock: FakeClock, signals: RecordingSignals, sink: ScriptedSink, rescue: ScriptedSink) -> World:
    return World(root, clock, signals, rescue=rescue, rescue_after_s=AFTER_S, default=sink)


def upload_for(world: World, seconds: int, *, first: int = 0) -> list[bytes]:
    """Let an event come each second."""
    lines = [b"%d" % n for n in range(first, first + seconds)]
    for line in lines:
        world.put(line)
        world.tick(1.0)
    return lines


def settle(world: World, seconds: int = 40) -> None:
    for _ in range(seconds):
        world.tick(1.0)


# -- while it serves --------------------------------------------------------------------------------------------


def test_a_sink_that_fails_for_less_than_that_keeps_its_batches(
    world: World, sink: ScriptedSink, rescue: ScriptedSink
) -> None:
    """A rescue costs a second way for every event: a hiccup is no reason."""
    sink.fail(4)
    lines = upload_for(world, 30)
    settle(world)

    assert sorted(lines) == sorted(sink.lines)
    assert not rescue.written


def test_batches_go_to_the_rescue_sink_once_their_own_has_failed_for_so_long(
    world: World, sink: ScriptedSink, rescue: ScriptedSink
) -> None:
    """The spool is memory, and bounded: an outage must not turn into refusals."""
    sink.fail(10_000)
    lines = upload_for(world, 120)
    settle(world)

    assert sorted(lines) == sorted(rescue.lines)
    assert (120, 0, 0) == (world.total["rescued"], world.total["delivered"], world.total["pending"])
    assert {"unavailable"} == {one["cause"] for one in world.signals.named("batch_rescued")}
    assert 120 == sum(one["count"] for one in world.signals.named("batch_rescued"))
    assert world.spool.books.totals().balanced
    assert world.spool.is_empty


def test_a_rescued_batch_has_the_name_that_it_had_at_its_own_sink(
    world: World, sink: ScriptedSink, rescue: ScriptedSink
) -> None:
    """An object store that kept it after all, and said nothing, gets it again later and must find it there."""
    sink.fail(10_000)
    upload_for(world, 120)
    settle(world)

    assert {one.name for one in rescue.written} <= {one.name for one in sink.written} | set(rescue.objects)
    tried = {one.name: one.payload for one in sink.written}
    again = [one for one in rescue.written if one.name in tried]
    assert again
    assert all(one.payload == tried[one.name] for one in again)


def test_a_sink_that_recovers_gets_its_batches_again(world: World, sink: ScriptedSink, rescue: ScriptedSink) -> None:
    """One batch tries it now and then; nobody has to tell us that it is back."""
    sink.fail(10_000)
    upload_for(world, 90)
    sink._script.clear()
    upload_for(world, 40, first=1000)
    rescued = len(rescue.written)
    late = upload_for(world, 40, first=2000)
    settle(world)

    assert rescued == len(rescue.written)
    assert set(late) <= set(sink.lines)
    assert 170 == world.total["delivered"] + world.total["rescued"]


def test_while_it_is_down_a_sink_is_tried_by_one_batch_now_and_then(
    world: World, sink: ScriptedSink, rescue: ScriptedSink
) -> None:
    """Not by each: a batch that waits for a timeout first would be late for nothing."""
    sink.fail(10_000)
    upload_for(world, 70)
    before = len(sink.written)
    upload_for(world, 200, first=1000)

    # The backoff of these tests is capped at 8 s, and drawn evenly: one try in 4 s on average.
    assert 10 < len(sink.written) - before < 120


def test_a_sink_that_hangs_is_as_bad_as_one_that_fails(
    root: Path, clock: FakeClock, signals: RecordingSignals, sink: ScriptedSink, rescue: ScriptedSink
) -> None:
    """It never says no; but what it holds is under way, and may arrive: that alone is not rescued."""
    world = World(root, clock, signals, rescue=rescue, rescue_after_s=AFTER_S, default=sink)
    world.held_back()
    upload_for(world, 3)
    hung = world.spawned[:]
    world.spawned.clear()
    world.is_held_back = False
    upload_for(world, 120, first=1000)
    settle(world)
    assert (2, 0) == (len(hung), world.total["delivered"])
    under_way = world.total["pending"]
    assert 123 - under_way == world.total["rescued"]
    for run in hung:
        run()
    settle(world)

    assert (under_way, 0) == (world.total["delivered"], world.total["pending"])
    assert not set(sink.lines) & set(rescue.lines)


def test_a_sink_that_is_only_busy_loses_nothing_to_the_rescue_sink(
    root: Path, clock: FakeClock, signals: RecordingSignals, sink: ScriptedSink, rescue: ScriptedSink
) -> None:
    """Even when a rescue is wanted at the first failure, a write that takes its time is none."""
    world = World(root, clock, signals, rescue=rescue, rescue_after_s=0.0, default=sink)
    world.held_back()
    for n in range(20):
        world.put(b"%d" % n)
        world.tick(1.0)
        for run in world.spawned[:1] if n % int(SILENT_S - 2) == 0 else []:
            world.spawned.remove(run)
            run()
    while world.spawned:
        world.spawned.pop()()
        world.tick(1.0)

    assert not rescue.written
    assert 20 == len(sink.lines)


def test_one_routes_outage_sends_no_other_routes_batches_there(
    root: Path, clock: FakeClock, signals: RecordingSignals, sink: ScriptedSink
) -> None:
    """Each route has its own lane to the rescue sink, too."""
    down, rescue = ScriptedSink(), ScriptedSink()
    down.fail(10_000)
    world = World(root, clock, signals, rescue=rescue, default=sink, down=down)
    for n in range(100):
        world.put(b"good %d" % n)
        world.put(b"down %d" % n, route="down")
        world.tick(1.0)
    settle(world)

    assert {b"down"} == {line.split()[0] for line in rescue.lines}
    assert 100 == len(sink.lines)


def test_an_event_that_its_sink_rejects_is_not_rescued(world: World, sink: ScriptedSink, rescue: ScriptedSink) -> None:
    """It would be rejected again, for ever, by every replay."""
    sink.reject(0, reason=Reason.SINK_INVALID)
    world.put(b"bad", b"good")
    settle(world, 100)

    assert not rescue.written
    assert (1, 1) == (world.total["delivered"], world.total["rejected_by_sink:sink_invalid"])


def test_what_the_rescue_sink_will_never_take_waits_for_its_own_and_holds_up_nothing(
    root: Path, clock: FakeClock, signals: RecordingSignals, sink: ScriptedSink
) -> None:
    """Its limits are not those of the sink that the event was accepted for."""
    rescue = ScriptedSink(limits=Limits(max_events=100, max_bytes=1000, max_event_bytes=50, partitioned=True))
    world = World(root, clock, signals, rescue=rescue, default=sink)
    sink.fail(10_000)
    rescue.reject(0)
    world.put(b"refused once", b"small", b"x" * 100, b"small too")
    lines = upload_for(world, 100)
    settle(world)
    assert sorted([*lines, b"refused once", b"small", b"small too"]) == sorted(rescue.lines)
    assert (1, 103) == (world.total["pending"], world.total["rescued"])
    sink._script.clear()
    settle(world, 60)

    assert [b"x" * 100] == sink.lines
    assert world.spool.is_empty


def test_an_event_too_large_for_its_own_sink_is_rejected_by_the_way_of_the_rescue_too(
    root: Path, clock: FakeClock, signals: RecordingSignals
) -> None:
    """No replay could ever deliver it."""
    sink = ScriptedSink(limits=Limits(max_events=100, max_bytes=1000, max_event_bytes=50, partitioned=True))
    rescue = ScriptedSink()
    world = World(root, clock, signals, rescue=rescue, default=sink)
    sink.fail(10_000)
    upload_for(world, 70)
    for n in range(20):
        world.put(b"%d" % n, b"x" * 100)
        world.tick(1.0)
    settle(world)

    assert 20 == world.total["rejected_by_sink:sink_too_large"]
    assert b"x" * 100 not in rescue.lines
    assert world.spool.is_empty


def test_a_rescue_sink_that_fails_too_leaves_everything_in_the_spool(
    world: World, sink: ScriptedSink, rescue: ScriptedSink
) -> None:
    """It is a second chance, and no place to lose things."""
    sink.fail(10_000)
    rescue.fail(10_000)
    lines = upload_for(world, 100)
    assert 100 == world.total["pending"]
    assert [one for one in world.signals.named("batch_failed") if one["error"].startswith("rescue: ")]
    rescue._script.clear()
    settle(world, 60)

    assert sorted(lines) == sorted(rescue.lines)
    assert 100 == world.total["rescued"]


def test_an_upload_that_waits_for_its_sink_is_confirmed_by_a_rescue(
    world: World, sink: ScriptedSink, rescue: ScriptedSink
) -> None:
    """What the rescue sink has confirmed is out of the task, and that is what the answer promises."""
    sink.fail(10_000)
    upload_for(world, 90)
    tickets = []
    for n in range(10):
        segment, span = world.spool.append(
            "default", "dev", b"%d\n" % n, events=1, received_us=world.clock.now_us(), wanted=True
        )
        tickets.append(segment.ticket(span))
        world.tick()
        world.tick(1.0)
    rescue.fail(10_000)
    segment, span = world.spool.append(
        "default", "dev", b"last\n", events=1, received_us=world.clock.now_us(), wanted=True
    )
    last = segment.ticket(span)
    settle(world)

    assert [True] * 10 == [ticket.wait(0) for ticket in tickets]
    assert not last.wait(0)


# -- the drain ----------------------------------------------------------------------------------------------------


def test_a_drain_whose_sinks_are_well_never_touches_the_rescue_sink(
    world: World, sink: ScriptedSink, rescue: ScriptedSink
) -> None:
    """It is for trouble, and a deploy is none."""
    world.wait_moves_the_clock()
    for n in range(50):
        world.put(*[b"%d" % n + b"x" * 100] * 20)

    assert world.flusher.drain(5.0)
    assert 1000 == len(sink.lines)
    assert not rescue.written


def test_near_its_deadline_a_drain_sends_the_remainder_to_the_rescue_sink(
    world: World, sink: ScriptedSink, rescue: ScriptedSink
) -> None:
    """Its own sink had half of the time; what is in the task after the end of it may be gone with the task."""
    waited = world.wait_moves_the_clock()
    sink.fail(10_000)
    for n in range(50):
        world.put(*[b"%d" % n + b"x" * 100] * 20)

    assert world.flusher.drain(10.0)
    assert 5.0 <= sum(waited) < 10.0
    assert 2 < len(sink.written)
    assert (1000, 0) == (world.total["rescued"], world.total["pending"])
    assert {"drain"} == {one["cause"] for one in world.signals.named("batch_rescued")}


def test_what_failed_a_moment_before_the_end_of_a_drain_is_rescued_without_waiting_for_its_turn(
    root: Path, clock: FakeClock, signals: RecordingSignals, sink: ScriptedSink, rescue: ScriptedSink
) -> None:
    """A backoff of 15 s outlives the drain."""
    world = World(root, clock, signals, rescue=rescue, default=sink)
    world.put(b"1")
    sink.fail(10_000)
    settle(world, 50)
    for _, segment in world.spool.sealed():
        segment.not_before = clock.monotonic() + 15.0
    world.flusher._lanes["default"].not_before = clock.monotonic() + 15.0
    world.wait_moves_the_clock()

    assert world.flusher.drain(2.0)
    assert [b"1"] == rescue.lines


def test_what_is_under_way_at_its_own_sink_is_not_rescued_as_well(
    root: Path, clock: FakeClock, signals: RecordingSignals, sink: ScriptedSink, rescue: ScriptedSink
) -> None:
    """A hung write may have arrived: it is waited for, and left in the spool if it never ends."""
    bounds = Bounds(1 << 20, 1 << 20, segment_bytes=1 << 16)
    limits = Limits(max_events=1, max_bytes=1000, max_event_bytes=1000, partitioned=True)
    sink, rescue = ScriptedSink(limits=limits), ScriptedSink(limits=limits)
    world = World(root, clock, signals, bounds=bounds, rescue=rescue, default=sink)
    world.put(b"hangs", b"hangs too", b"same segment, not sent")
    world.held_back()
    world.tick(1.0)
    hung, world.is_held_back = world.spawned[:], False
    world.spawned.clear()
    world.put(b"another segment")
    world.wait_moves_the_clock()

    assert not world.flusher.drain(4.0)
    assert [b"another segment"] == rescue.lines
    assert 3 == world.total["pending"]
    hung[0]()
    assert (1, 2) == (world.total["delivered"], world.total["pending"])


@pytest.mark.parametrize("is_well", [False, True])
def test_a_batch_that_comes_back_during_the_end_of_a_drain_frees_the_rest_of_its_segment(
    root: Path, clock: FakeClock, signals: RecordingSignals, *, is_well: bool
) -> None:
    """It was waited for; what its sink says was not taken, or was never sent, goes to the rescue sink then."""
    limits = Limits(max_events=1, max_bytes=1000, max_event_bytes=1000, partitioned=True)
    sink, rescue = ScriptedSink(limits=limits), ScriptedSink(limits=limits)
    world = World(root, clock, signals, rescue=rescue, default=sink)
    world.put(b"0", b"1", b"2", b"3")
    world.held_back()
    world.tick(1.0)
    hung, world.is_held_back = world.spawned[:], False
    world.spawned.clear()
    waited = world.wait_moves_the_clock()
    if not is_well:
        sink.fail()
    ends = world.flusher._wake.wait

    def wait(timeout: float | None = None) -> bool:
        if sum(waited) > 3.0 and hung:
            hung.pop(0)()
        return ends(timeout)

    world.flusher._wake.wait = wait  # type: ignore[method-assign]

    assert world.flusher.drain(4.0)
    assert ([b"0", b"1"] if is_well else [b"1"]) == sink.lines
    assert ({b"2", b"3"} if is_well else {b"0", b"2", b"3"}) == set(rescue.lines)
    assert world.total["rescued"] == len(rescue.lines)


def test_what_the_rescue_sink_does_not_take_is_left_at_the_end_of_a_drain(
    world: World, sink: ScriptedSink, rescue: ScriptedSink
) -> None:
    """For the next start; a drain ends in time, whatever hangs or fails."""
    waited = world.wait_moves_the_clock()
    sink.fail(10_000)
    rescue.retry(0)
    rescue.fail(10_000)
    world.put(b"1", b"2")

    assert not world.flusher.drain(4.0)
    assert sum(waited) < 4.2
    assert (1, 1) == (world.total["rescued"], world.total["pending"])


def test_a_drain_leaves_nothing_that_no_sink_will_ever_take(
    root: Path, clock: FakeClock, signals: RecordingSignals, rescue: ScriptedSink
) -> None:
    """An event too large for its own sink is rejected even when nobody can ask that."""
    sink = ScriptedSink(limits=Limits(max_events=100, max_bytes=1000, max_event_bytes=50, partitioned=True))
    world = World(root, clock, signals, rescue=rescue, default=sink)
    world.wait_moves_the_clock()
    sink.fail(10_000)
    world.put(b"1", b"x" * 100)

    assert world.flusher.drain(4.0)
    assert (1, 1) == (world.total["rescued"], world.total["rejected_by_sink:sink_too_large"])


def test_a_drain_may_be_told_to_leave_the_rest_to_others(
    world: World, sink: ScriptedSink, rescue: ScriptedSink
) -> None:
    """At a reload the next generation goes on with the spool: nothing has to leave the task."""
    world.wait_moves_the_clock()
    sink.fail(10_000)
    world.put(b"1")

    assert not world.flusher.drain(4.0, to_rescue=lambda: False)
    assert not rescue.written

    # The task is told to stop in the middle of it.
    until = world.clock.monotonic() + 3.0

    assert world.flusher.drain(4.0, to_rescue=lambda: world.clock.monotonic() >= until)
    assert [b"1"] == rescue.lines
