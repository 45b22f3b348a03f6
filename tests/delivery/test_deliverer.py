"""What a sink says beside "taken": too fast, perhaps, never; and what becomes of the events then."""

from __future__ import annotations

from pathlib import Path

import msgspec
import pytest

from collector.delivery.aside import Parking
from collector.errors import AmbiguousSinkError, ThrottledSinkError
from collector.event import Batch
from collector.outcome import Reason, Receipt
from collector.sinks.base import Limits, Sink, at_once
from tests.delivery.test_flusher import World
from tests.fakes import FakeClock, RecordingSignals, ScriptedSink, batch


@pytest.fixture(name="sink")
def _sink() -> ScriptedSink:
    return ScriptedSink()


class Places:
    """Where refused events are kept: a sink in memory for each route and reason."""

    def __init__(self) -> None:
        self.sinks: dict[tuple[str, Reason], ScriptedSink] = {}
        self.failures = 0

    def open(self, route: str, reason: Reason) -> Sink:
        made = self.sinks[route, reason] = ScriptedSink()
        made.fail(self.failures)
        return made

    def kept(self) -> dict[tuple[str, Reason], list[bytes]]:
        return {place: sink.lines for place, sink in self.sinks.items()}


@pytest.fixture(name="places")
def _places() -> Places:
    return Places()


@pytest.fixture(name="world")
def _world(root: Path, clock: FakeClock, signals: RecordingSignals, sink: ScriptedSink, places: Places) -> World:
    return World(root, clock, signals, parking=Parking(places.open, offload=at_once), concurrency=4, default=sink)


# -- never -----------------------------------------------------------------------------------------------------


def test_what_a_sink_refuses_for_good_is_parked_whole_and_then_settled(
    world: World, sink: ScriptedSink, places: Places, signals: RecordingSignals
) -> None:
    """It was answered as taken: a person can still look at it, and send it again."""
    sink.answer(Receipt(2, rejected=((1, Reason.SINK_INVALID),), trouble="InvalidMessageContents: no text"))
    world.put(b"0", b"1", b"2")
    world.tick(1.0)
    told = [(one["reason"], one["cause"], one["count"], one["parked"]) for one in signals.named("events_refused")]

    assert {("default", Reason.SINK_INVALID): [b"1"]} == places.kept()
    assert (2, 1, 0) == tuple(world.total[name] for name in ("delivered", "rejected_by_sink:sink_invalid", "pending"))
    assert [(Reason.SINK_INVALID, "InvalidMessageContents: no text", 1, True)] == told
    assert world.spool.is_empty


def test_parked_events_of_several_tenants_lie_apart(
    root: Path, clock: FakeClock, signals: RecordingSignals, places: Places
) -> None:
    """A stream's batch holds many tenants, and a place that is read back has one a file."""
    sink = ScriptedSink(limits=Limits(max_events=100, max_bytes=1000, max_event_bytes=1000, partitioned=False))
    world = World(root, clock, signals, parking=Parking(places.open, offload=at_once), default=sink)
    sink.reject(0, 1, 3)
    world.put(b"0", b"1", tenant="a")
    world.put(b"2", b"3", tenant="b")
    world.tick(1.0)
    (kept,) = places.sinks.values()

    assert [("a", [b"0", b"1"]), ("b", [b"3"])] == [(one.spans[0].tenant_id, one.lines()) for one in kept.written]
    assert (1, 3) == (world.total["delivered"], world.total["rejected_by_sink:sink_invalid"])
    assert world.spool.books.totals().balanced


def test_what_can_not_be_parked_stays_in_the_spool(
    world: World, sink: ScriptedSink, places: Places, signals: RecordingSignals
) -> None:
    """Two places refuse at once, and neither may be the end of an event."""
    places.failures = 1
    sink.reject(1)
    sink.reject(0)
    world.put(b"0", b"1", b"2")
    world.tick(1.0)

    assert (2, 0, 1) == tuple(world.total[name] for name in ("delivered", "rejected_by_sink:sink_invalid", "pending"))
    assert not signals.named("events_refused")
    assert "can't be parked" in signals.named("batch_failed")[0]["error"]

    world.tick(8.0)

    assert {("default", Reason.SINK_INVALID): [b"1"]} == places.kept()
    assert 1 == world.total["rejected_by_sink:sink_invalid"]
    assert world.spool.is_empty


def test_without_a_place_what_is_refused_is_counted_and_said_to_be_gone(
    root: Path, clock: FakeClock, signals: RecordingSignals, sink: ScriptedSink
) -> None:
    """Nobody may take it for parked."""
    world = World(root, clock, signals, default=sink)
    sink.reject(0)
    world.put(b"0")
    world.tick(1.0)

    assert [False] == [one["parked"] for one in signals.named("events_refused")]
    assert 1 == world.total["rejected_by_sink:sink_invalid"]


def test_a_place_is_opened_when_it_is_needed_and_let_go_of_at_the_end(places: Places) -> None:
    """Most workers refuse nothing all their lives; those that do must not leave a client's connections open."""
    parking = Parking(places.open, offload=at_once)
    parking.start()
    assert not places.sinks

    for _ in range(2):
        parking.keep("default", batch(b"0"), Receipt(0, rejected=((0, Reason.SINK_INVALID),)))
    parking.close()
    parking.close()
    (place,) = places.sinks.values()

    assert 2 == len(place.written)
    assert 1 == place.closed


# -- perhaps ---------------------------------------------------------------------------------------------------


def test_an_answer_that_did_not_come_is_counted_as_so_many_possible_duplicates(
    world: World, sink: ScriptedSink, signals: RecordingSignals
) -> None:
    """Whoever finds an event twice wants to know whether it was us."""
    sink.crash(AmbiguousSinkError("read timeout"))
    world.put(b"0", b"1")
    world.tick(1.0)
    world.tick(8.0)

    assert [{"route": "default", "count": 2}] == signals.named("batch_in_doubt")
    assert [b"0", b"1"] == sink.lines


def test_of_a_batch_in_parts_only_what_is_in_doubt_is_counted(
    world: World, sink: ScriptedSink, signals: RecordingSignals
) -> None:
    """What was turned away at the door is no duplicate."""
    sink.answer(Receipt(1, retryable=(1, 2), in_doubt=1, trouble="InternalFailure: no message"))
    world.put(b"0", b"1", b"2")
    world.tick(1.0)
    (failed,) = signals.named("batch_failed")

    assert [{"route": "default", "count": 1}] == signals.named("batch_in_doubt")
    assert "2 of 3 events were not taken: InternalFailure: no message" == failed["error"]


# -- too fast --------------------------------------------------------------------------------------------------


def fill(world: World, segments: int) -> None:
    for number in range(segments):
        world.put(b"%d" % number)
        world.spool.seal_all()


def test_a_sink_that_is_asked_too_much_has_half_as_many_batches_under_way(world: World, sink: ScriptedSink) -> None:
    """More at once only makes more refusals."""
    assert {"default": 4} == world.flusher.widths()
    sink.crash(ThrottledSinkError("slow down"))
    fill(world, 1)
    world.tick()

    assert {"default": 2} == world.flusher.widths()

    world.tick(8.0)
    sink.crash(ThrottledSinkError("slow down"))
    fill(world, 1)
    world.tick()

    assert {"default": 1} == world.flusher.widths()

    world.tick(8.0)
    sink.crash(ThrottledSinkError("slow down"))
    fill(world, 1)
    world.tick()

    assert {"default": 1} == world.flusher.widths()


def test_batches_that_were_under_way_together_halve_it_once(world: World, sink: ScriptedSink) -> None:
    """They all met the same moment: each halving for itself would leave one at the first hiccup."""
    world.held_back()
    for _ in range(4):
        sink.answer(Receipt(0, retryable=(0,), throttled=True))
    fill(world, 4)
    world.tick()
    for run in world.spawned:
        run()

    assert 4 == len(world.spawned)
    assert {"default": 2} == world.flusher.widths()


def test_what_is_taken_again_brings_the_batches_back_one_by_one(
    world: World, sink: ScriptedSink, signals: RecordingSignals
) -> None:
    """Doubling back would meet the limit again at once."""
    sink.crash(ThrottledSinkError("slow down"))
    fill(world, 1)
    world.tick()
    widths = []
    for _ in range(8):
        world.tick(8.0)
        fill(world, 1)
        widths.append(world.flusher.widths()["default"])

    assert [2, 2, 3, 3, 3, 4, 4, 4] == widths
    assert [{"route": "default"}] == signals.named("batch_throttled")


def test_a_sink_that_takes_a_part_each_time_is_not_left_alone_for_longer_and_longer(
    root: Path, clock: FakeClock, signals: RecordingSignals
) -> None:
    """A stream at its limit works at its limit: with a growing delay it would be asked for nothing at all."""

    class AtItsLimit(ScriptedSink):
        def write(self, batch: Batch) -> Receipt:
            self.retry(*range(1, len(batch)))
            return msgspec.structs.replace(super().write(batch), throttled=True)

    world = World(root, clock, signals, default=AtItsLimit())
    world.put(*[b"%d" % n for n in range(6)])
    for _ in range(6):
        world.tick(8.0)

    assert [1] * 5 == [failed["attempts"] for failed in signals.named("batch_failed")]
    assert 6 == world.total["delivered"]


# -- the batch that is parked keeps what it was -----------------------------------------------------------------


def test_a_parked_batch_has_a_name_of_its_own_that_comes_back() -> None:
    """After a crash between parking and settling it is parked again, and must lie there once."""
    names: list[str] = []

    class Note(ScriptedSink):
        def write(self, batch: Batch) -> Receipt:
            names.append(batch.name)
            return super().write(batch)

    parking = Parking(lambda *_: Note(), offload=at_once)
    one = batch(b"0", b"1", name="w1-1-0-2")
    for _ in range(2):
        parking.keep("default", one, Receipt(1, rejected=((1, Reason.SINK_INVALID),)))

    assert 1 == len(set(names))
    assert names[0].startswith("w1-1-0-2.")
