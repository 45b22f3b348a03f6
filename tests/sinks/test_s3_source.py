"""The reading side of the `s3:` sink before a real S3 server: what is whole, who may, and what comes between."""

from __future__ import annotations

import json
from collections.abc import Callable, Iterator
from datetime import UTC, datetime, timedelta
from pathlib import Path
from types import SimpleNamespace
from typing import cast

import pytest
import zstandard
from botocore.exceptions import ClientError

from collector import aws
from collector.delivery.rescue import replay
from collector.errors import SinkError, TransientSinkError
from collector.event import Batch
from collector.sinks import bucket as buckets
from collector.sinks import lease as leases
from collector.sinks.registry import open_rescue_sink, open_source
from collector.sinks.s3_source import S3Source, S3Stored
from tests.fakes import FakeClock, ScriptedSink, batch
from tests.server import Server, wait_for
from tests.standins.relay import Relay, Way
from tests.standins.seaweed import ENVIRON, Bucket, Seaweed

HOUR_PATH = "tenant=dev/date=2026-01-02/hour=03"
LEASE = "r/route=default/.replay.lease"


@pytest.fixture(autouse=True)
def _environment(monkeypatch: pytest.MonkeyPatch) -> None:
    for name, value in ENVIRON.items():
        monkeypatch.setenv(name, value)


@pytest.fixture(name="place")
def _place(bucket: Bucket, relay: Relay) -> str:
    return f"s3://{bucket.name}/r?endpoint=http://127.0.0.1:{relay.port}"


@pytest.fixture(name="source")
def _source(place: str, clock: FakeClock) -> Iterator[S3Source]:
    made = opened(place, clock)
    yield made
    made.close()


def opened(place: str, clock: FakeClock) -> S3Source:
    made = open_source(place, clock=clock)
    assert isinstance(made, S3Source)
    return made


def rescue(place: str, *batches: Batch, route: str = "default") -> None:
    sink = open_rescue_sink(place, route=route, writer_id="w1")
    for one in batches:
        sink.write(one)
    sink.close()


def numbered(count: int) -> list[Batch]:
    return [batch(b'{"id":"%d"}' % n, name=f"w1-{n:08d}") for n in range(count)]


def only(source: S3Source) -> S3Stored:
    (stored,) = source.stored("default")
    return stored


def batches_in(bucket: Bucket) -> list[str]:
    return sorted(key for key in bucket.objects() if key.endswith(".zst"))


# -- what lies there ---------------------------------------------------------------------------------------


def test_hundreds_of_objects_come_page_by_page(place: str, source: S3Source, monkeypatch: pytest.MonkeyPatch) -> None:
    """An outage leaves more than one answer holds; and a listing of all of it before the first is sent is a wait."""
    rescue(place, *numbered(200))
    monkeypatch.setattr(buckets, "PAGE", 30)
    call, pages = aws.call, []

    def count(what: str, *args: object, **arguments: object) -> object:
        pages.append("list_objects" in what)
        return call(what, *args, **arguments)  # type: ignore[arg-type]

    monkeypatch.setattr(aws, "call", count)
    found = source.stored("default")
    names = [next(found).name for _ in range(10)]
    assert 1 == sum(pages)
    names += [stored.name for stored in found]

    assert [f"w1-{n:08d}" for n in range(200)] == names
    assert 7 == sum(pages)


def test_objects_that_go_while_they_are_listed_hide_none_of_the_others(
    place: str, source: S3Source, bucket: Bucket, monkeypatch: pytest.MonkeyPatch
) -> None:
    """That is what a replay does: it takes away what it has just met."""
    rescue(place, *numbered(50))
    monkeypatch.setattr(buckets, "PAGE", 7)
    sink = ScriptedSink()
    with source.exclusive("default") as is_mine:
        assert is_mine
        told = list(replay(source, "default", sink))

    assert 50 == len(told) == len(set(sink.lines))
    assert {} == bucket.objects()


def test_many_routes_are_all_named(place: str, source: S3Source, monkeypatch: pytest.MonkeyPatch) -> None:
    """One that is not is replayed by nobody."""
    monkeypatch.setattr(buckets, "PAGE", 2)
    for n in range(5):
        rescue(place, batch(b"1"), route=f"r-{n}")

    assert [f"r-{n}" for n in range(5)] == source.routes()


def test_a_place_with_nothing_in_it_has_no_routes(source: S3Source) -> None:
    """A bucket knows no folders: before the first rescue there is nothing to be looked into."""
    assert [] == source.routes()
    assert [] == list(source.stored("default"))


def test_a_prefix_that_begins_alike_is_another_place(
    place: str, source: S3Source, weed: Seaweed, bucket: Bucket
) -> None:
    """S3 lists by what a key begins with, and not by folders."""
    rescue(place.replace("/r?", "/r2?"), batch(b"1"))
    weed.client.put_object(Bucket=bucket.name, Key="r/route=default2/x", Body=b"")

    assert ["default2"] == source.routes()
    assert [] == list(source.stored("default"))


@pytest.mark.parametrize(
    ("key", "body"),
    [
        (f"{HOUR_PATH}/n1.ndjson.zst", b"torn"),
        (f"{HOUR_PATH}/n1.ndjson.zst", b""),
        (f"{HOUR_PATH}/n1.ndjson.zst", zstandard.ZstdCompressor().compress(b"no end of a line")),
        (f"{HOUR_PATH}/readme.txt", zstandard.ZstdCompressor().compress(b"1\n")),
        ("tenant=dev/date=2026-13-02/hour=03/n1.ndjson.zst", zstandard.ZstdCompressor().compress(b"1\n")),
        ("tenant=dev/date=2026-01-02/n1.ndjson.zst", zstandard.ZstdCompressor().compress(b"1\n")),
        (f"{HOUR_PATH}/huge.ndjson.zst", bytes(4 * 1024 * 1024)),
    ],
)
def test_an_object_that_is_no_batch_is_told_and_left_and_the_others_arrive(
    place: str, source: S3Source, weed: Seaweed, bucket: Bucket, monkeypatch: pytest.MonkeyPatch, key: str, body: bytes
) -> None:
    """What is not ours we send nowhere and take away nowhere; passed over in silence, it might be missed."""
    monkeypatch.setattr("collector.sinks.s3_source.MOST_FRAME_BYTES", 1024 * 1024)
    weed.client.put_object(Bucket=bucket.name, Key=f"r/route=default/{key}", Body=body)
    rescue(place, batch(b"1", name="z1"))
    sink = ScriptedSink()

    told = list(replay(source, "default", sink))

    assert [(False, False), (True, False)] == sorted((one.readable, one.is_away) for one in told)
    assert [b"1"] == sink.lines
    assert [f"r/route=default/{key}"] == list(bucket.objects())
    assert any(f"{bucket.name}/r/route=default/{key}" in one.trouble for one in told)


# -- what comes between ------------------------------------------------------------------------------------


def test_an_answer_that_is_lost_at_the_removal_leaves_nothing_behind(
    place: str, source: S3Source, bucket: Bucket, relay: Relay
) -> None:
    """It may be gone and may not: told as left, it is met again if it is there, and else never."""
    rescue(place, batch(b"1"))
    stored = only(source)
    stored.load()
    with relay.goes(Way.REPLY_LOST), pytest.raises(TransientSinkError):
        stored.keep(None)

    wait_for(lambda: not bucket.objects(), "the removal whose answer was lost")
    assert None is stored.load()
    stored.keep(None)


def test_a_read_that_breaks_off_is_tried_again_and_is_no_broken_object(
    place: str, source: S3Source, bucket: Bucket, relay: Relay
) -> None:
    """An error line for an operator, each time a network has a bad minute, hides the one that matters."""
    rescue(place, *numbered(9))
    found = source.stored("default")
    sink = ScriptedSink()
    told = replay(source, "default", sink)
    assert next(told).delivered
    with relay.goes(Way.REPLY_LOST):
        away = list(told)

    assert [(False, True)] * 3 == [(one.readable, one.is_away) for one in away]
    assert 8 == len(batches_in(bucket))
    assert [1] * 8 == [one.delivered for one in replay(source, "default", sink)]
    assert 9 == len(set(sink.lines))
    found.close()  # type: ignore[attr-defined]


def test_a_bucket_that_is_away_or_not_there_is_told(weed: Seaweed, place: str, relay: Relay, clock: FakeClock) -> None:
    """An empty answer would pass for an empty place, and the command for done."""
    with relay.goes(Way.REFUSED):
        source = opened(place, clock)
        for look in (source.routes, lambda: list(source.stored("default")), lambda: source.exclusive("a").__enter__()):
            with pytest.raises(SinkError, match="tried again"):
                look()
        source.close()
    other = opened(place.replace("s3://b-", "s3://none-"), clock)
    with pytest.raises(SinkError, match="NoSuchBucket"):
        other.routes()
    other.close()


def test_a_server_that_knows_no_conditions_is_asked_before(
    place: str, source: S3Source, bucket: Bucket, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Not every server that speaks S3 takes `If-Match`; a replay that never takes anything away never ends."""
    call = aws.call

    def know_none(what: str, method: object, **arguments: object) -> object:
        # What is refused so is in `unless`, and `call` returns None for it.
        return None if "IfMatch" in arguments else call(what, method, **arguments)  # type: ignore[arg-type]

    rescue(place, batch(b"1", b"2", name="n1"), batch(b"3", b"4", name="n2"))
    first, second = source.stored("default")
    again, _ = source.stored("default")
    for stored in (first, second, again):
        stored.load()
    monkeypatch.setattr(aws, "call", know_none)
    first.keep(batch(b"2"))
    again.keep(None)
    second.keep(None)

    assert ["r/route=default/" + HOUR_PATH + "/n1.ndjson.zst"] == batches_in(bucket)
    assert [b"2"] == (only(source).load() or batch()).lines()


# -- the lease -----------------------------------------------------------------------------------------------


def test_the_lease_of_a_holder_that_died_is_taken_over_when_it_has_run_out(
    place: str, source: S3Source, bucket: Bucket, clock: FakeClock, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A killed worker gives nothing up, and what it had begun must not lie there for ever."""
    dead = opened(place, clock)
    held = dead.exclusive("default")
    assert held.__enter__()
    # However far this machine's clock runs ahead, the server's says how old the lease is.
    clock.advance(3600.0)
    with source.exclusive("default") as is_mine:
        assert not is_mine
    monkeypatch.setattr(leases, "LASTS_S", 0.5)

    def has_it() -> bool:
        with source.exclusive("default") as is_mine:
            return is_mine

    wait_for(has_it, "the lease of the dead one to run out")
    assert {} == bucket.objects()
    dead.close()


def test_a_holder_renews_its_lease_as_it_goes_on(
    place: str, source: S3Source, bucket: Bucket, clock: FakeClock, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A million batches take longer than any lease should last."""
    rescue(place, *numbered(3))
    tags = []
    with source.exclusive("default") as is_mine:
        assert is_mine
        for _ in source.stored("default"):
            tags.append(bucket.head(LEASE)["ETag"])
            clock.advance(leases.LASTS_S / 3)

    assert 3 == len(set(tags))
    assert LEASE not in bucket.objects()


def test_a_holder_that_lost_its_lease_stops_and_leaves_that_of_the_other(
    place: str, source: S3Source, bucket: Bucket, weed: Seaweed, clock: FakeClock
) -> None:
    """It was away for longer than the lease lasts, and another is at work on the same batches."""
    rescue(place, *numbered(4))
    other, sink = opened(place, clock), ScriptedSink()
    held = other.exclusive("default")
    with source.exclusive("default") as is_mine:
        assert is_mine
        told = replay(source, "default", sink)
        next(told)
        weed.client.delete_object(Bucket=bucket.name, Key=LEASE)
        assert held.__enter__()
        clock.advance(leases.LASTS_S)
        with pytest.raises(TransientSinkError, match="the lease of the route default was lost"):
            list(told)
    assert LEASE in bucket.objects()
    assert 3 == len(list(other.stored("default")))
    held.__exit__(None, None, None)
    other.close()

    assert 1 == len(sink.written)
    assert 3 == len(batches_in(bucket)) == len(bucket.objects())


def test_two_that_go_on_with_the_same_batches_lose_none(place: str, source: S3Source, clock: FakeClock) -> None:
    """A lost lease costs what arrives twice, and nothing else: what one left, the other does not take away."""
    rescue(place, batch(b"1", b"2", b"3", name="n1"))
    other, sink = opened(place, clock), ScriptedSink()
    mine, others = only(source), only(other)
    mine.load()
    others.load()
    # One has sent on the first of them, the other all but the second.
    mine.keep(batch(b"2", b"3"))
    others.keep(batch(b"2"))
    told = list(replay(source, "default", sink))

    assert [2] == [one.delivered for one in told]
    assert [b"2", b"3"] == sink.lines
    other.close()


def test_a_stop_in_the_middle_of_a_replay_leaves_no_lease_behind(place: str, bucket: Bucket) -> None:
    """The next start would wait for a minute until it has run out, and the route with it."""
    rescue(place, batch(b"one"))
    source = open_source(place)
    with source.exclusive("default") as is_mine:
        assert is_mine
        assert LEASE in bucket.objects()
        source.close()
        assert LEASE not in bucket.objects()
        with open_source(place).exclusive("default") as is_next:
            assert is_next
        assert LEASE not in bucket.objects()


def test_a_lease_whose_answer_was_lost_is_known_again(
    place: str, source: S3Source, relay: Relay, bucket: Bucket, clock: FakeClock
) -> None:
    """Else the one who has it waits for itself."""
    with relay.goes(Way.REPLY_LOST), pytest.raises(TransientSinkError):
        source.exclusive("default").__enter__()
    wait_for(lambda: LEASE in bucket.objects(), "the lease whose answer was lost")
    other = opened(place, clock)
    with other.exclusive("default") as is_others, source.exclusive("default") as is_mine:
        assert (False, True) == (is_others, is_mine)
        with source.exclusive("default") as again:
            assert not again
    other.close()


def test_one_of_two_that_ask_for_a_lease_at_once_has_it(clock: FakeClock) -> None:
    """AWS may tell both that they met; that is no trouble of the bucket's, and nothing to tell an operator."""

    def refuse(code: str) -> Callable[..., dict[str, object]]:
        def method(**_: object) -> dict[str, object]:
            raise ClientError({"Error": {"Code": code, "Message": "theirs"}}, "operation")

        return method

    client = SimpleNamespace(put_object=refuse("ConditionalRequestConflict"), get_object=refuse("NoSuchKey"))
    bucket = buckets.Bucket("b", lambda: cast("aws.Client", client))

    assert not leases.Lease(bucket, "lease", "me", clock=clock).take()


def test_how_old_a_lease_is_the_server_says() -> None:
    """Two machines of one task may differ by more than a lease lasts."""
    written = datetime(2026, 1, 2, 3, 4, 5, tzinfo=UTC)

    def found(seconds: float, **headers: str) -> dict[str, object]:
        now = written + timedelta(seconds=seconds)
        headers = {"date": now.strftime("%a, %d %b %Y %H:%M:%S GMT"), **headers}
        return {"LastModified": written, "ResponseMetadata": {"HTTPHeaders": headers}}

    assert [False, False, True] == [leases._is_over(found(s)) for s in (0, leases.LASTS_S, leases.LASTS_S + 1)]
    assert not leases._is_over(found(1e6, date="no date"))


# -- in a server -------------------------------------------------------------------------------------------


def test_what_a_server_rescued_to_a_bucket_comes_home_by_itself(place: str, bucket: Bucket, tmp_path: Path) -> None:
    """The task's own sink was away, the bucket was not, and nobody has to type anything."""
    (tmp_path / "data").write_text("in the way")
    with Server(tmp_path, workers=2, rescue_sink=place, rescue_after_s=0.5) as server:
        for n in range(40):
            assert 200 == server.post([{"id": str(n)}]).status
        wait_for(lambda: server.ledger()["rescued"] == 40, "the rescue")
        assert 40 == sum(
            frame.count(b"\n")
            for frame in (zstandard.ZstdDecompressor().decompress(body) for body in bucket.objects().values())
        )
        (tmp_path / "data").unlink()
        assert 0 == server.stop()
        server.start()
        wait_for(lambda: not batches_in(bucket), "the replay")
        wait_for(lambda: 40 == sum(line["delivered"] for line in server.logged("replay.done")), "its end")
        wait_for(lambda: not bucket.objects(), "the lease to be given up")
        arrived = sorted(json.loads(line)["id"] for line in server.lines())
        assert {"accepted": 40, "delivered": 40, "rescued": 0}.items() <= server.settled().items()

    assert sorted(map(str, range(40))) == arrived
    # The file in the way is told at the start.
    assert {"sink.start"} == {line["where"] for line in server.logged("internal.error")}
