"""Events too large for their sink: whole in a store of objects, and a claim of them where they were to be."""

from __future__ import annotations

import json
from hashlib import sha256
from pathlib import Path
from typing import Any

import pytest

from collector.delivery.aside import Claims
from collector.delivery.rescue import replay
from collector.errors import AmbiguousSinkError, TransientSinkError
from collector.event import Batch
from collector.outcome import Receipt
from collector.sinks.base import Limits, Source, at_once
from collector.sinks.registry import open_rescue_sink, open_source
from tests.delivery.test_flusher import World
from tests.fakes import FakeClock, RecordingSignals, ScriptedSink, batch


class Store(ScriptedSink):
    """A store of objects in memory."""

    def url_of(self, batch: Batch) -> str:
        return f"s3://store/{batch.name}"


def line(event_id: str, size: int = 0) -> bytes:
    whole = {
        "id": event_id, "tenant": "dev", "received_at": "2026-01-02T03:04:05.678901Z", "protocol": "native",
        "receipt": "r1", "remote_ip": "127.0.0.1", "event": {"id": event_id, "noise": "x" * size},
    }  # fmt: skip
    return json.dumps(whole, separators=(",", ":")).encode()


@pytest.fixture(name="sink")
def _sink() -> ScriptedSink:
    return ScriptedSink(limits=Limits(max_events=100, max_bytes=4000, max_event_bytes=600, partitioned=True))


@pytest.fixture(name="store")
def _store() -> Store:
    return Store()


@pytest.fixture(name="world")
def _world(root: Path, clock: FakeClock, signals: RecordingSignals, sink: ScriptedSink, store: Store) -> World:
    return World(root, clock, signals, claims=Claims(store, offload=at_once), default=sink)


def claim_in(sink: ScriptedSink, event_id: str) -> dict[str, Any]:
    (found,) = [one for one in map(json.loads, sink.lines) if one["id"] == event_id]
    return dict(found)


def test_an_event_too_large_lies_whole_in_the_store_and_its_claim_says_where(
    world: World, sink: ScriptedSink, store: Store, signals: RecordingSignals
) -> None:
    """Whoever reads the stream finds it by the claim, and can tell that it is the one."""
    large = line("large", 1000)
    world.put(line("a"), large, line("b"))
    world.tick(1.0)
    claim = claim_in(sink, "large")
    told = claim.pop("claim")
    ((name, kept),) = store.objects.items()

    assert {"a", "b", "large"} == {json.loads(one)["id"] for one in sink.lines}
    assert [large] == kept
    assert f"s3://store/{name}" == told["url"]
    assert (len(large) + 1, sha256(large + b"\n").hexdigest()) == (told["bytes"], told["sha256"])
    # All that is said of an event, but the event.
    assert {key: value for key, value in json.loads(large).items() if key != "event"} == claim
    assert 3 == world.total["delivered"]
    assert [{"route": "default"}] == signals.named("event_claimed")
    assert not signals.named("events_lost")


def test_no_claim_goes_out_before_what_it_points_to(world: World, sink: ScriptedSink, store: Store) -> None:
    """A reader that is quick would find nothing there."""
    store.fail()
    world.put(line("large", 1000))
    world.tick(1.0)

    assert not sink.lines
    assert 1 == world.total["pending"]

    world.tick(8.0)

    assert "claim" in claim_in(sink, "large")
    assert 1 == world.total["delivered"]


def test_a_claim_that_did_not_arrive_is_written_again_and_the_event_is_there_once(
    world: World, sink: ScriptedSink, store: Store
) -> None:
    """The name of the object is the batch's, which comes back."""
    sink.fail()
    world.put(line("large", 1000))
    world.tick(1.0)
    world.tick(8.0)

    assert 2 == len(store.written)
    assert 1 == len(store.objects)
    assert 1 == len(sink.lines)
    assert world.total["delivered"] == 1


@pytest.mark.parametrize("odd", [b"x" * 700, json.dumps({"id": "y" * 700, "event": {}}).encode()])
def test_what_no_claim_can_be_made_of_is_refused(world: World, sink: ScriptedSink, store: Store, odd: bytes) -> None:
    """A line that is none of ours, or whose claim would be too large as well, must not be tried for ever."""
    world.put(odd)
    world.tick(1.0)

    assert 1 == world.total["rejected_by_sink:sink_too_large"]
    assert not sink.written
    assert not store.written


def test_what_goes_to_a_rescue_sink_that_blocks_is_rescued_whole(
    root: Path, clock: FakeClock, signals: RecordingSignals, sink: ScriptedSink, store: Store
) -> None:
    """It is claimed when it is sent on: the store may not be written to from a thread of the rescue sink's."""
    rescue = ScriptedSink()
    rescue.blocking = True
    world = World(
        root, clock, signals, rescue=rescue, rescue_after_s=0.0, claims=Claims(store, offload=at_once), default=sink
    )
    sink.fail(10_000)
    world.put(line("small"))
    world.tick(1.0)
    large = line("large", 1000)
    world.put(large)
    for _ in range(20):
        world.tick(1.0)

    assert large in rescue.lines
    assert 2 == world.total["rescued"]


def rescued(place: Path, *lines: bytes) -> Source:
    """Let a batch lie in a rescue sink, and return its reading side."""
    sink = open_rescue_sink(f"file:{place}", route="default", writer_id="w1")
    sink.write(batch(*lines))
    return open_source(f"file:{place}")


def test_what_was_rescued_whole_is_claimed_when_it_is_sent_on(tmp_path: Path, sink: ScriptedSink, store: Store) -> None:
    """To its own sink it is as large as it was."""
    large = line("large", 1000)
    source = rescued(tmp_path, line("a"), large)
    (one,) = replay(source, "default", sink, claims=Claims(store, offload=at_once))

    assert (2, 2, ()) == (one.found, one.delivered, one.rejected)
    assert [[large]] == list(store.objects.values())
    assert "claim" in claim_in(sink, "large")


def test_what_was_sent_on_without_an_answer_is_said_to_be_in_doubt(tmp_path: Path, sink: ScriptedSink) -> None:
    """A replay leaves duplicates as the flusher does, and for the same cause."""
    source = rescued(tmp_path, b"a", b"b")
    sink.crash(AmbiguousSinkError("read timeout"))
    sink.answer(Receipt(1, retryable=(1,), in_doubt=1, trouble="InternalFailure: no message"))
    first, second = [*replay(source, "default", sink), *replay(source, "default", sink)]

    assert (2, 2) == (first.left, first.in_doubt)
    assert (1, 1) == (second.left, second.in_doubt)
    assert "1 of 2 events were not taken: InternalFailure: no message" == second.trouble


def test_a_store_that_blocks_is_written_to_off_the_hub(sink: ScriptedSink, store: Store) -> None:
    """A disk that hangs would hold up every upload else."""
    store.blocking = True
    handed: list[Receipt] = []

    def offload(run: Any) -> Any:
        handed.append(run())
        return handed[-1]

    large = line("large", 1000)
    one = Batch("w1-1", "w1", (), (large + b"\n",))
    Claims(store, offload=offload).write(sink, one)

    assert 1 == len(handed)


def test_a_sink_that_refuses_a_claim_keeps_the_event_in_the_spool(sink: ScriptedSink, store: Store) -> None:
    """As any write that fails: the caller puts it back."""
    sink.fail()

    with pytest.raises(TransientSinkError):
        Claims(store, offload=at_once).write(sink, Batch("w1-1", "w1", (), (line("large", 1000) + b"\n",)))
