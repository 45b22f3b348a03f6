"""`collector tail`: what it prints, in which order, and what it does about what comes late, or can't be read."""

from __future__ import annotations

import io
import json
import os
import signal
import subprocess
import sys
from collections.abc import Callable, Iterable, Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from threading import Thread

import pytest
from click.testing import CliRunner, Result

from collector import cli
from collector.cli.seen import Seen
from collector.cli.tail import Tail, parse_since, run
from collector.errors import SinkError, TransientSinkError
from collector.event import Batch
from collector.receiver.lines import timestamp
from collector.sinks import bucket
from collector.sinks.reading import Object
from collector.sinks.registry import open_delivered, open_sink
from tests.fakes import HOUR, FakeClock, batch
from tests.server import PATIENCE_S, ROOT, Server, tenant, upload, wait_for
from tests.standins.relay import Relay, Way
from tests.standins.seaweed import ENVIRON, Seaweed

HOUR_US = 3600 * 1_000_000
#: Half past the hour in which the fake clock starts.
NOW_US = HOUR * HOUR_US + HOUR_US // 2
TEMPLATES = [
    "",
    "&by=hour",
    "&key={date}/{hour}/{tenant}",
    "&key={tenant}-{year}/{month}{day}/{hour}",
    "&by=hour&key={year}/{month}/{day}-{hour}",
]


def line(ident: str, received_us: int, tenant_id: str = "dev", event: str = "{}") -> bytes:
    head = json.dumps({"id": ident, "tenant": tenant_id, "received_at": timestamp(received_us)}, separators=(",", ":"))
    return f'{head[:-1]},"event":{event}}}'.encode()


def made(ident: str, received_us: int, tenant_id: str = "dev") -> Batch:
    """Make a batch of one event."""
    return batch(
        line(ident, received_us, tenant_id), name=f"w1-{ident}", tenant_id=tenant_id, hour=received_us // HOUR_US
    )


def put(place: str, *batches: Batch) -> None:
    sink = open_sink(place, writer_id="w1")
    sink.start()
    for one in batches:
        sink.write(one)
    sink.close()


def look(*arguments: str) -> Result:
    return CliRunner().invoke(cli.main, ["tail", "--no-follow", *arguments])


def idents(lines: str | bytes) -> list[str]:
    return [json.loads(line)["id"] for line in lines.splitlines()]


def since(received_us: int) -> str:
    return timestamp(received_us)


@pytest.fixture(name="place")
def _place(tmp_path: Path) -> str:
    return f"file:{tmp_path}/data?fsync=0"


# -- which events ------------------------------------------------------------------------------------------


@pytest.mark.parametrize("options", TEMPLATES)
def test_events_come_by_hour_from_the_very_microsecond_on_wherever_they_lie(tmp_path: Path, options: str) -> None:
    """Whoever says a time means the events, and not the objects that happen to hold them."""
    place = f"file:{tmp_path}/data?fsync=0{options}"
    times = {"old": -26 * HOUR_US, "before": -1, "at": 0, "next": HOUR_US, "day": 25 * HOUR_US}
    times["year"] = HOUR_US - 365 * 24 * HOUR_US
    put(place, *(made(ident, NOW_US + shift) for ident, shift in times.items()))
    put(place, made("others", NOW_US + HOUR_US, "zeta"))

    assert ["at", "next", "others", "day"] == idents(look(place, "--since", since(NOW_US)).stdout)
    assert ["at", "next", "day"] == idents(look(place, "--since", since(NOW_US), "--tenant", "dev").stdout)
    assert ["others"] == idents(look(place, "--since", since(NOW_US), "--tenant", "zeta").stdout)
    assert [] == idents(look(place, "--since", since(NOW_US), "--tenant", "nobody").stdout)
    assert ["at", "next"] == idents(look(place, "--since", since(NOW_US), "--tenant", "dev", "--limit", "2").stdout)


def test_lines_come_byte_for_byte(place: str) -> None:
    """They go on into jq, and what it gets is what the device sent."""
    odd = line('\u2028,"event":', NOW_US, event='{"a":1e400,"a":"\\u2028 \\ud83e","ü":[]}')
    put(place, batch(odd, name="w1-1", hour=HOUR))

    assert odd + b"\n" == look(place, "--since", since(NOW_US)).stdout_bytes


def test_only_the_hours_that_are_asked_for_are_looked_into(place: str, monkeypatch: pytest.MonkeyPatch) -> None:
    """A year of hours lies there, and a listing of it takes minutes and costs money."""
    put(place, *(made(f"e{n}", NOW_US + n * HOUR_US) for n in range(-50, 3)))
    delivered, template = open_delivered(place)
    looked: list[str] = []
    list_files = delivered.files

    def files(folder: str) -> Iterable[tuple[str, int]]:
        looked.append(folder)
        return list_files(folder)

    monkeypatch.setattr(delivered, "files", files)
    monkeypatch.setattr(
        delivered, "folders", lambda place: pytest.fail(f"it lists {place}") if place else ["tenant=dev"]
    )
    shown = Tail(delivered, template, since_us=NOW_US, tenant_id="", limit=None, out=io.BytesIO())
    shown.look(range(HOUR, HOUR + 2))

    assert ["tenant=dev/date=2026-01-02/hour=03", "tenant=dev/date=2026-01-02/hour=04"] == looked


@pytest.mark.parametrize(
    ("text", "ago_us"),
    [("90s", 90_000_000), ("10m", 600_000_000), ("2h", 2 * HOUR_US), ("3d", 72 * HOUR_US),
     ("2026-01-02T03:29:59.999999Z", 1), ("2026-01-02T04:00:00+01:00", HOUR_US // 2)],
)  # fmt: skip
def test_since_is_a_duration_or_a_time(text: str, ago_us: int) -> None:
    """Both are what people have at hand: a minute or two, or the line of a log."""
    assert NOW_US - ago_us == parse_since(text, now_us=NOW_US)


@pytest.mark.parametrize("text", ["", "10", "m", "5y", "-1h", "2026-01-02", "2026-01-02T03:04:05", "2026-13-01T00:00Z"])
def test_a_since_that_says_no_time_is_a_sentence(text: str) -> None:
    """A time without a zone is an hour off for half of the world."""
    result = look("file:data", "--since", text)

    assert (1, "") == (result.exit_code, result.stdout)
    assert "is neither 90s, 10m, 2h or 3d nor a time with its zone" in result.stderr


@pytest.mark.parametrize(
    ("arguments", "said"),
    [
        (["stdout:"], "holds no objects that could be looked into; what can be is file: and s3:"),
        (["file:nowhere"], "there is no directory"),
        (["file:data", "--route", "default"], "a URL and a route are two places"),
        (["--route", "other"], "there is no route 'other'; the routes are default"),
        (["file:data?key={date}"], "it lacks {tenant}"),
        (["file:data", "--tenant", "a/b"], "'a/b' can't be a tenant's id"),
    ],
)
def test_a_place_that_can_not_be_looked_into_is_a_sentence(
    arguments: list[str], said: str, monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    """It is typed by hand, and mistyped; waiting for ever in a folder that is not there tells nobody."""
    monkeypatch.chdir(tmp_path)
    monkeypatch.setenv("COLLECTOR_SPOOL_DIR", "/dev/shm/collector-test-tail")
    for follow in ("--follow", "--no-follow"):
        result = CliRunner().invoke(cli.main, ["tail", follow, *arguments])
        assert 1 == result.exit_code
        assert said in result.stderr


def test_an_object_that_can_not_be_read_is_told_once_and_left_out(place: str, tmp_path: Path) -> None:
    """Half a disk is broken, and the other half is wanted all the more."""
    put(place, *(made(name, NOW_US) for name in ("a", "b", "c", "d")))
    files = {path.name[3]: path for path in (tmp_path / "data").rglob("w1-*")}
    files["a"].write_bytes(b"no zstd")
    files["b"].write_bytes(files["b"].read_bytes()[:-1])
    files["c"].unlink()
    files["c"].symlink_to(files["d"])
    (files["d"].parent / ".e.ndjson.zst.tmp").write_bytes(b"not whole yet")
    once = look(place, "--since", since(NOW_US))

    assert (1, ["d"]) == (once.exit_code, idents(once.stdout))
    assert 3 == once.stderr.count("can't be read back, and is left out") == len(once.stderr.splitlines())


def test_an_object_that_can_not_be_read_is_told_once_while_it_follows(
    place: str, tmp_path: Path, clock: FakeClock, capsys: pytest.CaptureFixture[str]
) -> None:
    """It is there at every look."""
    put(place, made("a", NOW_US), made("b", NOW_US))
    next((tmp_path / "data").rglob("w1-a*")).write_bytes(b"no zstd")
    world = World(place, clock)

    assert ["b", "c"] == world.follow(world.put("c"), lambda: None)
    assert 1 == capsys.readouterr().err.count("left out")


# -- what comes --------------------------------------------------------------------------------------------


class World:
    """A sink, a clock, and somebody who looks; `then` is what happens while they wait, one after the other."""

    def __init__(self, place: str, clock: FakeClock, *, back_us: int = 0) -> None:
        self.place = place
        self.clock = clock
        clock.advance((NOW_US - clock.now_us()) / 1e6)
        self.out = io.BytesIO()
        self.delivered, template = open_delivered(place)
        self.shown = Tail(self.delivered, template, since_us=NOW_US - back_us, tenant_id="", limit=None, out=self.out)

    def follow(self, *then: Callable[[], object]) -> list[str]:
        """Look once more after each; return what was shown."""
        rest = list(then)

        def wait(seconds: float) -> bool:
            self.clock.advance(seconds)
            if not rest:
                return True
            rest.pop(0)()
            return False

        run(self.shown, self.clock, follow=True, wait=wait)
        return idents(self.out.getvalue())

    def put(self, ident: str, hours: int = 0) -> Callable[[], None]:
        return lambda: put(self.place, made(ident, NOW_US + hours * HOUR_US))


def test_what_comes_is_shown_once_as_it_comes(place: str, clock: FakeClock) -> None:
    """A repeat of a batch is written over the first, and is no news."""
    put(place, made("first", NOW_US))
    world = World(place, clock)

    assert ["first", "a", "b"] == world.follow(world.put("a"), world.put("a"), world.put("b"), world.put("first"))


def test_what_comes_late_is_shown_as_it_comes_for_a_day(place: str, clock: FakeClock) -> None:
    """A phone's upload waits through an outage of the bucket, and lies in the hour in which it came."""
    put(place, made("start", NOW_US))
    world = World(place, clock, back_us=200 * HOUR_US)

    def minute() -> None:
        clock.advance(60)

    assert ["start", "ago-1", "ago-24"] == world.follow(
        world.put("ago-24", -24), world.put("ago-25", -25), world.put("ago-1", -1), minute, minute, minute
    )


def test_events_of_before_are_not_shown_however_late_they_come(place: str, clock: FakeClock) -> None:
    """They were received before the time that was asked for."""
    put(place, made("start", NOW_US))
    world = World(place, clock)

    assert ["start"] == world.follow(world.put("before", -1), lambda: clock.advance(60), lambda: clock.advance(60))


def test_a_look_that_was_not_possible_is_made_up_for(
    place: str, clock: FakeClock, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    """The bucket was away for three hours: what came then lies in hours that nobody looks into each second."""
    put(place, made("start", NOW_US))
    world = World(place, clock, back_us=10 * HOUR_US)
    files = world.delivered.files

    def away(_: str) -> list[tuple[str, int]]:
        raise TransientSinkError("it is away")

    def go() -> None:
        monkeypatch.setattr(world.delivered, "files", away)
        clock.advance(5 * 3600)

    shown = world.follow(
        go,
        world.put("meanwhile", 2),
        world.put("late", 0),
        lambda: monkeypatch.setattr(world.delivered, "files", files),
    )
    assert ["start", "late", "meanwhile"] == shown
    # Once, and not for each look.
    assert "it is away\n" == capsys.readouterr().err


def test_an_object_that_is_not_to_be_had_now_is_shown_later(
    place: str, clock: FakeClock, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A connection that breaks off in the middle says nothing about the object."""
    put(place, made("a", NOW_US), made("b", NOW_US), made("c", NOW_US))
    world = World(place, clock)
    read, failed = world.delivered.read, list[str]()

    def fail_once(name: str) -> bytes | None:
        if "w1-b" in name and not failed:
            failed.append(name)
            raise TransientSinkError("cut")
        return read(name)

    monkeypatch.setattr(world.delivered, "read", fail_once)

    assert ["a", "b", "c"] == world.follow(lambda: None)


def test_it_pauses_for_as_long_as_it_looks(place: str, clock: FakeClock, monkeypatch: pytest.MonkeyPatch) -> None:
    """Of ten thousand tenants each look is ten thousand requests, and the disk is also the sink's."""
    put(place, made("a", NOW_US))
    world = World(place, clock)
    files, pauses = world.delivered.files, list[float]()

    def slow(folder: str) -> list[tuple[str, int]]:
        clock.advance(7)
        return list(files(folder))

    def wait(seconds: float) -> bool:
        pauses.append(round(seconds, 3))
        monkeypatch.setattr(world.delivered, "files", slow)
        return len(pauses) == 2

    run(world.shown, clock, follow=True, wait=wait)
    # This hour, the one before was not asked for, and the next.
    assert [1.0, 14.0] == pauses


# -- what is remembered ------------------------------------------------------------------------------------


def test_what_was_shown_is_remembered_within_a_bound_and_comes_no_second_time() -> None:
    """It runs for weeks, beside a sink that gets a thousand objects a second."""
    seen = Seen(most=100)
    shown = [Object(HOUR + n // 400, n, f"o{n}") for n in range(2000)]
    for one in shown:
        assert seen.is_new(one)
        seen.add(one)
        assert len(seen) <= 100

    assert not any(map(seen.is_new, shown))
    assert seen.is_new(Object(HOUR, 5000, "late"))
    seen.forget_before(HOUR + 100)
    assert 0 == len(seen)


def test_objects_of_one_instant_are_forgotten_together() -> None:
    """S3 tells times by the second, in which a thousand of them may come."""
    seen = Seen(most=10)
    shown = [Object(HOUR, 7, f"o{n}") for n in range(50)]
    for one in shown:
        seen.add(one)
        assert len(seen) <= 10

    assert not any(map(seen.is_new, shown))
    assert seen.is_new(Object(HOUR, 8, "next"))


# -- as a program ------------------------------------------------------------------------------------------


def environ() -> dict[str, str]:
    """Leave out what makes Python's standard output another than it is for most."""
    inherited = {name: value for name, value in os.environ.items() if name != "PYTHONUNBUFFERED"}
    return inherited | {"PYTHONPATH": str(ROOT)}


class Program:
    """`collector tail`, as it runs in a terminal or before a pipe. A context manager."""

    def __init__(self, *arguments: str, **variables: str) -> None:
        self._process = subprocess.Popen(
            [sys.executable, "-m", "collector", "tail", *arguments],
            stdout=subprocess.PIPE, stderr=subprocess.PIPE, env=environ() | variables,
        )  # fmt: skip
        self._threads = ThreadPoolExecutor()

    def __enter__(self) -> Program:
        return self

    def __exit__(self, *exc: object) -> None:
        if self._process.poll() is None:
            self._process.kill()
        self._process.communicate()
        self._threads.shutdown()

    def next(self, count: int) -> list[str]:
        """Wait for so many events, and return their ids."""
        assert self._process.stdout is not None
        return [self._threads.submit(lambda: idents(self._process.stdout.readline())[0]).result(PATIENCE_S)  # type: ignore[union-attr]
                for _ in range(count)]  # fmt: skip

    def stop(self) -> tuple[int, bytes, bytes]:
        """Press Ctrl-C; return the exit status, and what else was printed."""
        self._process.send_signal(signal.SIGINT)
        return self._end()

    def read_no_more(self) -> tuple[int, bytes, bytes]:
        """Close the pipe, as `head` does, and let it find out by itself."""
        assert self._process.stdout is not None
        self._process.stdout.close()
        self._process.wait(PATIENCE_S)
        assert self._process.stderr is not None
        return self._process.returncode, b"", self._process.stderr.read()

    def _end(self) -> tuple[int, bytes, bytes]:
        out, err = self._process.communicate(timeout=PATIENCE_S)
        return self._process.returncode, out, err


def events(*names: str) -> bytes:
    return upload(json.dumps([{"id": name} for name in names]).encode())


@pytest.mark.parametrize("options", ["", "&by=hour", "&key={tenant}/{date}/{hour}"])
def test_a_running_collector_is_followed_until_ctrl_c(tmp_path: Path, options: str) -> None:
    """It is the first thing that somebody tries who has sent an event, and wonders."""
    place = f"file:{tmp_path}/data?fsync=0{options}"
    toml = (
        tenant("dev", "dev-key") + tenant("zeta", "zeta-key", route="other") + '[routes.other]\nsink = "file:other"\n'
    )
    with Server(tmp_path, toml=toml, sink=place) as server:
        server.ask(events("a", "b"))
        server.settled()
        config = {"COLLECTOR_CONFIG": str(tmp_path / "collector.toml"), "COLLECTOR_SINK": place,
                  "COLLECTOR_SPOOL_DIR": str(server.spool)}  # fmt: skip
        with Program(**config) as shown:
            assert ["a", "b"] == shown.next(2)
            server.ask(events("c"))
            assert ["c"] == shown.next(1)
            server.ask(events("d", "e"))
            assert ["d", "e"] == shown.next(2)
            assert (0, b"", b"") == shown.stop()


def test_a_reader_that_has_enough_ends_it_quietly(place: str) -> None:
    """`tail | head` is how people look; it would wait for an event that never comes, and complain of it then."""
    now_us = parse_since("0s", now_us=0)
    put(place, made("a", now_us))
    with Program(place, "--since", "3000d") as shown:
        assert ["a"] == shown.next(1)
        assert (0, b"", b"") == shown.read_no_more()


def test_a_pipe_that_is_closed_in_the_middle_ends_it_quietly(place: str) -> None:
    """More than a pipe holds is under way then."""
    start_us = parse_since("0s", now_us=0)
    put(place, batch(*[line("x" * 500, start_us)] * 2000, name="w1-1", hour=start_us // HOUR_US))
    with Program(place, "--since", "3000d") as shown:
        assert ["x" * 500] == shown.next(1)
        assert (0, b"", b"") == shown.read_no_more()


def test_a_pipe_that_nobody_reads_ends_it_quietly(place: str) -> None:
    """What it could not write it must not try again when it ends, and complain."""
    put(place, made("a", parse_since("0s", now_us=0)))
    reading, writing = os.pipe()
    os.close(reading)
    ended = subprocess.run(
        [sys.executable, "-m", "collector", "tail", place, "--since", "3000d", "--no-follow"],
        stdout=writing, stderr=subprocess.PIPE, env=environ(), check=False,
    )  # fmt: skip
    os.close(writing)

    assert (0, b"") == (ended.returncode, ended.stderr)


# -- of a bucket -------------------------------------------------------------------------------------------


@pytest.fixture(name="aws")
def _aws(monkeypatch: pytest.MonkeyPatch) -> None:
    for name, value in ENVIRON.items():
        monkeypatch.setenv(name, value)


@pytest.mark.parametrize("options", TEMPLATES)
def test_a_bucket_is_read_as_a_directory_is(weed: Seaweed, aws: None, options: str) -> None:
    """The same objects lie in both."""
    place = f"s3://{weed.bucket().name}/pre/fix?endpoint=http://127.0.0.1:{weed.port}{options}"
    times = {
        "old": -26 * HOUR_US,
        "before": -1,
        "at": 0,
        "next": HOUR_US,
        "day": 25 * HOUR_US,
        "week": 7 * 24 * HOUR_US,
    }
    put(place, *(made(ident, NOW_US + shift) for ident, shift in times.items()))
    put(place, made("others", NOW_US + HOUR_US, "zeta"))

    found = idents(look(place, "--since", since(NOW_US)).stdout)
    assert ["at", ["next", "others"], "day", "week"] == [found[0], sorted(found[1:3]), *found[3:]]
    assert ["at", "next", "day", "week"] == idents(look(place, "--since", since(NOW_US), "--tenant", "dev").stdout)


def test_more_objects_than_a_page_of_a_listing_has_are_all_found(
    weed: Seaweed, aws: None, monkeypatch: pytest.MonkeyPatch
) -> None:
    """S3 gives a thousand, and a word to go on with, which is easily overlooked."""
    monkeypatch.setattr(bucket, "PAGE", 10)
    place = f"s3://{weed.bucket().name}?endpoint=http://127.0.0.1:{weed.port}"
    sink = open_sink(place, writer_id="w1")
    for n in range(25):
        sink.write(made(f"{n:04}", NOW_US))
    sink.close()

    assert {f"{n:04}" for n in range(25)} == set(idents(look(place, "--since", since(NOW_US)).stdout))


def test_a_bucket_that_goes_away_in_the_middle_is_told_and_nothing_is_missed(
    weed: Seaweed, aws: None, tmp_path: Path
) -> None:
    """It is left running through the night, and the network has nights of its own."""
    name = weed.bucket().name
    direct = f"s3://{name}/events?endpoint=http://127.0.0.1:{weed.port}"
    with Relay(weed.port) as relay, Server(tmp_path, toml=tenant("dev", "dev-key"), sink=direct) as server:
        server.ask(events("a"))
        server.settled()
        with Program(f"s3://{name}/events?endpoint=http://127.0.0.1:{relay.port}") as shown:
            assert ["a"] == shown.next(1)
            for way, ident in ((Way.REFUSED, "b"), (Way.REPLY_LOST, "c")):
                with relay.goes(way):
                    server.ask(events(ident))
                    server.settled()
                    if way is Way.REPLY_LOST:
                        wait_for(lambda: relay.lost, "a listing to be cut")
                assert [ident] == shown.next(1)
            relay.cut()
            server.ask(events("d"))
            assert ["d"] == shown.next(1)
            status, out, err = shown.stop()

    assert (0, b"") == (status, out)
    assert b"s3: list_objects_v2" in err
    assert b"Traceback" not in err


@contextmanager
def refusing(code: str) -> Iterator[int]:
    """Run a bucket that refuses all that is asked of it; its port."""

    class Handler(BaseHTTPRequestHandler):
        def do_GET(self) -> None:
            body = f"<Error><Code>{code}</Code><Message>A sentence of theirs.</Message></Error>".encode()
            self.send_response(403 if code == "AccessDenied" else 404)
            self.send_header("Content-Length", str(len(body)))
            self.end_headers()
            self.wfile.write(body)

        def log_message(self, *_: object) -> None:
            """Say nothing."""

    server = ThreadingHTTPServer(("127.0.0.1", 0), Handler)
    thread = Thread(target=server.serve_forever, kwargs={"poll_interval": 0.01})
    thread.start()
    try:
        yield int(server.server_address[1])
    finally:
        server.shutdown()
        thread.join()
        server.server_close()


@pytest.mark.parametrize(
    ("code", "said"),
    [
        ("AccessDenied", "takes s3:ListBucket on the bucket and s3:GetObject on its objects"),
        ("NoSuchBucket", "create the bucket, or name another one"),
    ],
)
def test_a_bucket_that_may_not_be_looked_into_is_a_sentence(aws: None, code: str, said: str) -> None:
    """A role that writes needs neither of the two rights, so whoever has just that one is refused here first."""
    with refusing(code) as port:
        result = look(f"s3://bucket?endpoint=http://127.0.0.1:{port}")

    assert (1, "") == (result.exit_code, result.stdout)
    assert "s3: list_objects_v2 bucket/" in result.stderr
    assert said in result.stderr


def test_an_object_of_a_bucket_that_may_not_be_read_is_left_out(aws: None) -> None:
    """It may lie there under a key of somebody else's."""
    with refusing("AccessDenied") as port:
        delivered, _ = open_delivered(f"s3://bucket?endpoint=http://127.0.0.1:{port}")
        with pytest.raises(SinkError, match="get_object bucket/a: AccessDenied") as told:
            delivered.read("a")
        delivered.close()
    with refusing("NoSuchKey") as port:
        delivered, _ = open_delivered(f"s3://bucket?endpoint=http://127.0.0.1:{port}")
        assert delivered.read("a") is None
        delivered.close()

    assert not isinstance(told.value, TransientSinkError)
