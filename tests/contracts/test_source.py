"""
What every sink that can be read back keeps to: one suite, run over each of them.

A new one adds a place of its own to `PLACES`: the sink's URL, and how to make it refuse.
"""

from __future__ import annotations

import os
from collections.abc import Callable, Iterator
from contextlib import AbstractContextManager, contextmanager
from dataclasses import dataclass
from pathlib import Path

import pytest

from collector.errors import TransientSinkError
from collector.event import Batch
from collector.outcome import Reason
from collector.sinks.base import Source, Stored
from collector.sinks.registry import (
    SCHEMES,
    SOURCES,
    can_be_read_back,
    open_parked,
    open_parked_source,
    open_rescue_sink,
    open_sink,
    open_source,
)
from tests.contracts.cases import no_file_may_grow, sdk_environment
from tests.fakes import HOUR, batch
from tests.standins.relay import Relay, Way
from tests.standins.shared import started_seaweed


@dataclass(frozen=True)
class Place:
    """A place that is empty; inside of `refusing` it takes nothing."""

    url: str
    refusing: Callable[[], AbstractContextManager[None]]


def file_place(folder: Path) -> Iterator[Place]:
    yield Place(f"file:{folder}/two%20words?level=3", no_file_may_grow)


def s3_place(_: Path) -> Iterator[Place]:
    running = started_seaweed()
    with Relay(running.port) as relay, sdk_environment():
        url = f"s3://{running.bucket().name}/two%20words?endpoint=http://127.0.0.1:{relay.port}&level=3"
        yield Place(url, lambda: relay.goes(Way.REFUSED))


PLACES: dict[str, Callable[[Path], Iterator[Place]]] = {"file": file_place, "s3": s3_place}


@pytest.fixture(name="one", params=list(PLACES))
def _one(request: pytest.FixtureRequest, tmp_path: Path) -> Iterator[Place]:
    with contextmanager(PLACES[request.param])(tmp_path) as made:
        yield made


@pytest.fixture(name="place")
def _place(one: Place) -> str:
    return one.url


@pytest.fixture(name="source")
def _source(place: str) -> Iterator[Source]:
    source = open_source(place)
    source.start()
    yield source
    source.close()


def rescue(place: str, *batches: Batch, route: str = "default") -> None:
    sink = open_rescue_sink(place, route=route, writer_id="w1")
    sink.start()
    for one in batches:
        assert len(one) == sink.write(one).delivered
    sink.close()


def only(source: Source, route: str = "default") -> Stored:
    (stored,) = source.stored(route)
    return stored


def lines(source: Source, route: str = "default") -> list[bytes]:
    found = [stored.load() for stored in source.stored(route)]
    return [line for one in found if one is not None for line in one.lines()]


def test_every_sink_that_can_be_read_back_is_tried_here() -> None:
    """A replay trusts it with what is nowhere else."""
    assert set(SOURCES) == set(PLACES)
    assert set(SOURCES) <= set(SCHEMES)


def test_a_sink_that_can_not_be_read_back_says_so() -> None:
    """The operator hears it from `collector check`, and not after an outage."""
    assert not can_be_read_back("stdout:")
    with pytest.raises(ValueError, match="'stdout:' can't be read back"):
        open_source("stdout:")
    with pytest.raises(ValueError, match="there is no sink 'nowhere'"):
        open_source("nowhere:x")


def test_a_rescued_batch_comes_back_as_it_was(place: str, source: Source) -> None:
    """The name makes a repeat known at its own sink; tenant and hour say where it belongs there."""
    rescue(place, batch(b'{"id":"1"}', b"\xff not utf-8", b"", name="w1-1-a-0-3", tenant_id="acme", hour=HOUR + 7))

    found = only(source).load()

    assert found is not None
    assert ("w1-1-a-0-3", 3) == (found.name, len(found))
    assert {("acme", HOUR + 7)} == {(span.tenant_id, span.hour) for span in found.spans}
    assert [b'{"id":"1"}', b"\xff not utf-8", b""] == found.lines()


def test_the_routes_of_rescued_batches_are_told_apart(place: str, source: Source) -> None:
    """Each is sent on to its own sink."""
    rescue(place, batch(b"a"), route="default")
    rescue(place, batch(b"b"), route="archive_2-x")

    assert {"default", "archive_2-x"} == set(source.routes())
    assert [[b"a"], [b"b"]] == [lines(source, route) for route in ("default", "archive_2-x")]


def test_what_has_arrived_is_gone(place: str, source: Source) -> None:
    """Left behind, it would be sent on again by every replay."""
    rescue(place, batch(b"1", name="n1"), batch(b"2", name="n2"))
    first = next(source.stored("default"))
    first.load()

    first.keep(None)

    assert [b"2"] == lines(source)


def test_what_was_not_taken_stays_and_nothing_else(place: str, source: Source) -> None:
    """A stream takes a part of a batch; the others alone may be sent again."""
    rescue(place, batch(b"1", b"2", b"3"))
    stored = only(source)
    stored.load()

    stored.keep(batch(b"2"))

    assert [b"2"] == lines(source)
    again = only(source)
    again.load()
    again.keep(None)
    assert [] == lines(source)


def test_a_batch_that_is_another_by_now_is_not_touched(place: str, source: Source) -> None:
    """What was read is not what lies there: the next replay sees to it."""
    rescue(place, batch(b"1", b"2", b"3"))
    removed, replaced, other = only(source), only(source), only(source)
    for stored in (removed, replaced, other):
        stored.load()
    other.keep(batch(b"2", b"3"))

    removed.keep(None)
    replaced.keep(batch(b"1"))

    assert [b"2", b"3"] == lines(source)


def test_what_is_gone_when_it_is_read_is_none(place: str, source: Source) -> None:
    """Somebody removed it by hand; that is no mistake of the place's."""
    rescue(place, batch(b"1"))
    stored, other = only(source), only(source)
    other.load()
    other.keep(None)

    assert None is stored.load()
    stored.keep(None)
    assert [] == lines(source)


def test_a_place_that_takes_nothing_keeps_what_it_had(one: Place, place: str, source: Source) -> None:
    """The rest is written whole before what it replaces goes."""
    rescue(place, batch(b"1", b"2"))
    stored = only(source)
    stored.load()

    with one.refusing(), pytest.raises(TransientSinkError):
        stored.keep(batch(b"2"))
    with one.refusing(), pytest.raises(TransientSinkError):
        source.put_aside("default", Reason.SINK_INVALID, batch(b"1"))

    assert [b"1", b"2"] == lines(source)


def test_one_reader_has_a_route_at_a_time(place: str, source: Source) -> None:
    """Two would send everything twice, to a sink that does not name by batch."""
    rescue(place, batch(b"1"), route="a")
    rescue(place, batch(b"1"), route="b")
    others = open_source(place)
    with source.exclusive("a") as first, others.exclusive("a") as second, others.exclusive("b") as third:
        assert (True, False, True) == (first, second, third)
    with open_source(place).exclusive("a") as after:
        assert after


def test_what_is_parked_is_out_of_the_way_and_can_be_read_back_by_its_reason(place: str, source: Source) -> None:
    """It is an operator's to look at, and to send again when its sink was the one at fault."""
    rescue(place, batch(b"1", name="n1"))
    assert [] == source.reasons()

    where = source.put_aside("default", Reason.SINK_INVALID, batch(b"bad", name="n0"))
    sink = open_parked(place, route="archive", reason=Reason.SINK_TOO_LARGE, writer_id="w1")
    sink.start()
    sink.write(batch(b"large", name="n2", tenant_id="acme"))
    sink.close()

    assert where.endswith("/parked/reason=sink_invalid/route=default")
    assert ["sink_invalid", "sink_too_large"] == source.reasons()
    assert (["default"], [b"1"]) == (source.routes(), lines(source))
    invalid, too_large = (open_parked_source(place, reason) for reason in source.reasons())
    assert (["default"], [b"bad"]) == (invalid.routes(), lines(invalid))
    assert (["archive"], [b"large"]) == (too_large.routes(), lines(too_large, "archive"))
    found = only(too_large, "archive")
    assert "/parked/reason=sink_too_large/route=archive/tenant=acme/date=2026-01-02/hour=03/n2.ndjson" in found.place
    found.load()
    found.keep(None)
    assert [] == lines(too_large, "archive")


def test_what_can_not_be_read_back_parks_nothing() -> None:
    """It would be gone there, with the answer that it is kept."""
    with pytest.raises(ValueError, match="'stdout:' can't be read back"):
        open_parked("stdout:", route="a", reason=Reason.SINK_INVALID, writer_id="w")


def test_reading_leaves_nothing_open(place: str, source: Source) -> None:
    """A worker does this for months."""
    rescue(place, *(batch(b"1", name=f"n{n}") for n in range(20)))
    # A client keeps a connection.
    assert 20 == len(lines(source))
    before = len(os.listdir("/proc/self/fd"))
    with source.exclusive("default") as mine:
        assert mine
        for n, stored in enumerate(source.stored("default")):
            stored.load()
            stored.keep(None if n % 2 else batch(b"rest"))

    assert before == len(os.listdir("/proc/self/fd"))
    assert 10 == len(lines(source))


def test_what_is_read_back_lies_by_tenant(tmp_path: Path) -> None:
    """A batch of many tenants could not be sent on to a sink that keeps them apart."""
    with pytest.raises(ValueError, match="leave out by=hour"):
        open_rescue_sink(f"file:{tmp_path}?by=hour", route="a", writer_id="w")


def test_only_a_rescue_sink_that_can_be_read_back_has_a_place_for_each_route(tmp_path: Path) -> None:
    """`stdout:` has no path, and is the same for all."""
    assert type(open_sink("stdout:", writer_id="w")) is type(open_rescue_sink("stdout:", route="a", writer_id="w"))
    rescue(f"file:{tmp_path}/r/", batch(b"1"), route="a")

    assert [tmp_path / "r/route=a"] == list((tmp_path / "r").iterdir())
