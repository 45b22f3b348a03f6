"""The `s3:` sink before a real S3 server, and before everything that can come between the two."""

from __future__ import annotations

import json
import random
import threading
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from typing import cast
from urllib.parse import parse_qs, urlsplit

import pytest
import zstandard

from collector import aws
from collector.errors import TransientSinkError
from collector.event import Batch
from collector.sinks import s3
from collector.sinks.base import Offload, at_once
from collector.sinks.registry import open_sink
from tests.fakes import HOUR, batch
from tests.server import Server, ids, tenant, upload, wait_for
from tests.standins.relay import Relay, Way
from tests.standins.seaweed import ENVIRON, Bucket, Seaweed

MIB = 1024 * 1024


@pytest.fixture(autouse=True)
def _environment(monkeypatch: pytest.MonkeyPatch) -> None:
    for name, value in ENVIRON.items():
        monkeypatch.setenv(name, value)


def url(bucket: Bucket, relay: Relay, prefix: str = "events/app", options: str = "") -> str:
    return f"s3://{bucket.name}/{prefix}?endpoint=http://127.0.0.1:{relay.port}{options}"


@pytest.fixture(name="sink")
def _sink(bucket: Bucket, relay: Relay) -> Iterator[s3.S3Sink]:
    made = open_sink(url(bucket, relay), writer_id="w1")
    assert isinstance(made, s3.S3Sink)
    made.start()
    yield made
    made.close()


def lines_of(frame: bytes) -> list[bytes]:
    return zstandard.ZstdDecompressor().decompress(frame, allow_extra_data=False).split(b"\n")[:-1]


def noise(size: int, *, name: str = "w1-00000001-0-1") -> Batch:
    """Make a batch that does not get smaller, and has one frame's worth of so many bytes."""
    return batch(random.Random(size).randbytes(size).replace(b"\n", b" "), name=name)


# -- what lies there ---------------------------------------------------------------------------------------


@pytest.mark.parametrize("options", ["", "&by=hour", "&level=9", "&key={date}/{hour}/{tenant}"])
def test_objects_are_named_and_shaped_as_the_files_of_the_file_sink(
    bucket: Bucket, relay: Relay, tmp_path: Path, options: str
) -> None:
    """Whoever reads one of them reads the other: a query changes nothing but the place."""
    batches = [batch(b'{"id":"%d"}' % n, name=f"w1-{n}", tenant_id=f"t{n}", hour=HOUR + n) for n in range(3)]
    for place in (url(bucket, relay, options=options), f"file:{tmp_path}?fsync=0{options}"):
        sink = open_sink(place, writer_id="w1")
        sink.start()
        for one in batches:
            sink.write(one)
        sink.close()
    files = {path.relative_to(tmp_path).as_posix(): path.read_bytes() for path in tmp_path.rglob("*.zst")}

    assert 3 == len(files)
    assert {f"events/app/{name}": frame for name, frame in files.items()} == bucket.objects()


@pytest.mark.parametrize(("prefix", "before"), [("", ""), ("a", "a/"), ("/a/b/", "a/b/"), ("tief/ü n", "tief/ü n/")])
def test_a_prefix_is_taken_as_a_person_means_it(bucket: Bucket, relay: Relay, prefix: str, before: str) -> None:
    """A slash too many would make a folder without a name, which no tool shows."""
    sink = open_sink(url(bucket, relay, prefix.lstrip("/")), writer_id="w1")
    sink.write(batch(b"{}", name="w1-1", tenant_id="dev"))
    sink.close()
    (key,) = bucket.objects()

    assert key.startswith(f"{before}tenant=dev/date=")


@pytest.mark.parametrize("size", [1_000, 6 * MIB])
def test_a_repeat_is_no_second_object_and_does_not_touch_the_first(
    sink: s3.S3Sink, bucket: Bucket, monkeypatch: pytest.MonkeyPatch, size: int
) -> None:
    """A bucket that keeps versions would keep both, and a reader between the two could see either."""
    monkeypatch.setattr(s3, "PART_BYTES", 5 * MIB)
    # Of the same name and with other lines, as no batch is: what lies there then tells which of them was taken.
    first, other = noise(size), noise(size + 1)
    receipts = [sink.write(first), sink.write(other)]
    (frame,) = bucket.objects().values()

    assert [1, 1] == [receipt.delivered for receipt in receipts]
    assert first.lines() == lines_of(frame)


def test_what_computes_for_long_is_handed_off(bucket: Bucket, relay: Relay) -> None:
    """The loop stands still for it else, and every upload with it."""
    handed: list[bytes] = []

    def offload(run: Callable[[], bytes]) -> bytes:
        handed.append(run())
        return handed[-1]

    sink = open_sink(url(bucket, relay), writer_id="w1", offload=cast("Offload", offload))
    sink.write(batch(b"one"))
    sink.close()

    assert handed == list(bucket.objects().values())


def test_writes_that_find_credentials_at_once_share_a_client() -> None:
    """To look for them takes a while, in which others go on; one that nobody closes keeps its connections."""
    closed: list[str] = []
    names = iter(["outer", "inner"])

    class Client:
        def __init__(self) -> None:
            self.name = next(names)
            if self.name == "outer":
                sink.start()

        def close(self) -> None:
            closed.append(self.name)

    sink = s3.S3Sink("bucket", "", connect=cast("Callable[[], aws.Client]", Client), offload=at_once)
    sink.start()
    assert ["outer"] == closed
    sink.close()
    assert ["outer", "inner"] == closed


# -- in parts ----------------------------------------------------------------------------------------------


def test_a_large_frame_goes_in_parts_and_is_one_object(
    sink: s3.S3Sink, bucket: Bucket, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Each part has its own time: at a few MB/s the whole would be given up on for ever."""
    monkeypatch.setattr(s3, "PART_BYTES", 5 * MIB)
    large = noise(12 * MIB)
    receipts = [sink.write(large), sink.write(large)]
    ((key, frame),) = bucket.objects().items()

    assert [1, 1] == [receipt.delivered for receipt in receipts]
    assert large.lines() == lines_of(frame)
    # S3's own mark of an object that came in so many parts.
    assert bucket.head(key)["ETag"].endswith('-3"')
    # The repeat found it there, and left no parts behind that somebody pays for.
    assert [] == bucket.unfinished()


def test_parts_that_fail_leave_no_object_and_no_parts(
    sink: s3.S3Sink, bucket: Bucket, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Half a batch must not be seen, and parts without an object are paid for until somebody finds them."""
    monkeypatch.setattr(s3, "PART_BYTES", 5 * MIB)
    call, sent = aws.call, 0

    def fail_at_the_second(what: str, *args: object, **arguments: object) -> object:
        nonlocal sent
        sent += "upload_part" in what
        if "upload_part" in what and sent == 2:
            raise TransientSinkError("a fault")
        return call(what, *args, **arguments)  # type: ignore[arg-type]

    monkeypatch.setattr(aws, "call", fail_at_the_second)
    with pytest.raises(TransientSinkError, match="a fault"):
        sink.write(noise(12 * MIB))
    assert ({}, []) == (bucket.objects(), bucket.unfinished())
    sink.write(noise(12 * MIB))
    assert 1 == len(bucket.objects())


# -- what comes between ------------------------------------------------------------------------------------


def test_an_answer_that_is_lost_costs_no_second_object(sink: s3.S3Sink, bucket: Bucket, relay: Relay) -> None:
    """Nobody can tell then whether it was written. It is tried again, and the bucket knows."""
    sink.write(batch(b"before", name="w1-0"))
    with relay.goes(Way.REPLY_LOST), pytest.raises(TransientSinkError, match="the batch is kept and tried again"):
        sink.write(batch(b"one"))

    assert relay.lost > 0
    wait_for(lambda: 2 == len(bucket.objects()), "the write whose answer was lost to be there")
    assert 1 == sink.write(batch(b"one")).delivered
    assert 2 == len(bucket.objects())


def test_a_server_that_says_nothing_is_given_up_on(
    bucket: Bucket, relay: Relay, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The device waits, too."""
    monkeypatch.setattr(aws, "_READ_S", 0.3)
    sink = open_sink(url(bucket, relay), writer_id="w1")
    with ThreadPoolExecutor() as threads, relay.goes(Way.SILENT):
        writing = threads.submit(sink.write, batch(b"one"))
        with pytest.raises(TransientSinkError, match=r"(?i)timeout"):
            writing.result(20.0)
    assert 1 == sink.write(batch(b"one")).delivered
    sink.close()


# -- what is said ------------------------------------------------------------------------------------------


def test_a_bucket_that_is_not_there_is_told_and_its_batch_waits(weed: Seaweed, relay: Relay) -> None:
    """It may be made a minute later: nothing is lost by a bucket that somebody forgot."""
    bucket = Bucket(weed.client, "not-there-yet")
    sink = open_sink(url(bucket, relay), writer_id="w1")
    with pytest.raises(
        TransientSinkError, match=r"s3: put_object not-there-yet/events.*NoSuchBucket.*create the bucket"
    ):
        sink.write(batch(b"one"))
    weed.client.create_bucket(Bucket=bucket.name)

    assert 1 == sink.write(batch(b"one")).delivered
    sink.close()


@pytest.mark.parametrize(
    ("change", "said"),
    [
        ({"AWS_SECRET_ACCESS_KEY": "another"}, "SignatureDoesNotMatch: .*; the secret does not belong to the key"),
        ({"AWS_ACCESS_KEY_ID": "AKIDNOBODY"}, "InvalidAccessKeyId: .*; these credentials are not known there"),
    ],
)
def test_credentials_that_are_wrong_are_told_without_them(
    bucket: Bucket, relay: Relay, monkeypatch: pytest.MonkeyPatch, change: dict[str, str], said: str
) -> None:
    """At three in the morning the sentence has to say what to look at; and it goes to a log."""
    for name, value in change.items():
        monkeypatch.setenv(name, value)
    sink = open_sink(url(bucket, relay), writer_id="w1")
    with pytest.raises(TransientSinkError, match=said) as told:
        sink.write(batch(b"one"))
    sink.close()

    assert not any(secret in str(told.value) for secret in ("another", ENVIRON["AWS_SECRET_ACCESS_KEY"]))


def test_credentials_that_are_missing_are_told_and_asked_for_again(
    bucket: Bucket, relay: Relay, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A container's role may come a moment after the container."""
    for name in ("AWS_ACCESS_KEY_ID", "AWS_SECRET_ACCESS_KEY"):
        monkeypatch.delenv(name)
    sink = open_sink(url(bucket, relay), writer_id="w1")
    for attempt in (sink.start, lambda: sink.write(batch(b"one"))):
        with pytest.raises(TransientSinkError, match="there are no credentials: give the task a role"):
            attempt()
    for name in ("AWS_ACCESS_KEY_ID", "AWS_SECRET_ACCESS_KEY"):
        monkeypatch.setenv(name, ENVIRON[name])

    assert 1 == sink.write(batch(b"one")).delivered
    sink.close()


class Scripted:
    """A server that answers as the test says, by the request's method and query; `seen` are those that came."""

    def __init__(self, answers: dict[str, tuple[int, str]]) -> None:
        self.seen: list[str] = []
        told = self

        class Handler(BaseHTTPRequestHandler):
            protocol_version = "HTTP/1.1"

            def _answer(self) -> None:
                self.rfile.read(int(self.headers.get("Content-Length", 0)))
                query = sorted(parse_qs(urlsplit(self.path).query, keep_blank_values=True).keys() - {"x-id"})
                told.seen.append(" ".join([self.command, *query]))
                status, body = answers[told.seen[-1]]
                self.send_response(status)
                self.send_header("Content-Length", str(len(body)))
                self.send_header("ETag", '"etag"')
                self.end_headers()
                self.wfile.write(body.encode())

            do_PUT = do_POST = do_DELETE = _answer  # noqa: N815 - their names are the methods'

            def log_message(self, *_: object) -> None:
                """Say nothing."""

        self._server = ThreadingHTTPServer(("127.0.0.1", 0), Handler)
        self._server.daemon_threads = True
        self._thread = threading.Thread(target=self._server.serve_forever)
        self.sink = open_sink(f"s3://bucket?endpoint=http://127.0.0.1:{self._server.server_address[1]}", writer_id="w1")

    def __enter__(self) -> Scripted:
        self._thread.start()
        return self

    def __exit__(self, *exc: object) -> None:
        self.sink.close()
        self._server.shutdown()
        self._thread.join()
        self._server.server_close()


def refusal(code: str) -> str:
    return f"<Error><Code>{code}</Code><Message>A sentence of theirs.</Message></Error>"


@pytest.mark.parametrize(
    ("status", "body", "said"),
    [
        (503, refusal("SlowDown"), "SlowDown: A sentence of theirs; AWS asks for a slower pace, and the batch waits"),
        (500, refusal("InternalError"), "InternalError: A sentence of theirs; the batch is kept and tried again"),
        (503, "", "503: .*; the batch is kept and tried again"),
        (502, "<html>a proxy's page</html>", "the batch is kept and tried again"),
        (409, refusal("ConditionalRequestConflict"), "ConditionalRequestConflict: A sentence of theirs"),
        (403, refusal("AccessDenied"), "AccessDenied: A sentence of theirs; let Collector's role do that there"),
        (403, "", "403: "),
        (400, refusal("ExpiredToken"), "ExpiredToken: .*; the credentials have run out"),
        (403, refusal("RequestTimeTooSkewed"), "RequestTimeTooSkewed: .*; set this machine's clock right"),
        (404, refusal("NoSuchBucket"), "NoSuchBucket: .*; create the bucket"),
    ],
)
def test_whatever_is_answered_but_done_puts_the_batch_back(status: int, body: str, said: str) -> None:
    """No answer of a bucket's says anything of the events, so none of them is given up for one."""
    with Scripted({"PUT": (status, body)}) as server, pytest.raises(TransientSinkError, match=said):
        server.sink.write(batch(b"one"))

    # Retries are the flusher's, which knows of the spool and of the drain.
    assert ["PUT"] == server.seen


@pytest.mark.parametrize("body", ["", refusal("PreconditionFailed")])
def test_an_object_that_is_there_has_arrived(body: str) -> None:
    """It says so with a status, and not every server with a word."""
    with Scripted({"PUT": (412, body)}) as server:
        assert 2 == server.sink.write(batch(b"one", b"two")).delivered


@pytest.mark.parametrize("body", ["", "no XML", "<Error/>", "<InitiateMultipartUploadResult/>"])
def test_an_upload_in_parts_that_is_not_named_has_not_begun(monkeypatch: pytest.MonkeyPatch, body: str) -> None:
    """A proxy that answers in the place of the bucket says 200 as well."""
    monkeypatch.setattr(s3, "PART_BYTES", 64 * 1024)
    with Scripted({"POST uploads": (200, body)}) as server, pytest.raises(TransientSinkError):
        server.sink.write(noise(100 * 1024))

    assert ["POST uploads"] == server.seen


BEGUN = "<InitiateMultipartUploadResult><UploadId>7</UploadId></InitiateMultipartUploadResult>"
DONE = "<CompleteMultipartUploadResult><ETag>x</ETag></CompleteMultipartUploadResult>"


@pytest.mark.parametrize(
    ("status", "body", "is_there", "is_aborted"),
    [
        (200, DONE, True, False),
        # S3 has said 200 by the time at which it finds out.
        (200, refusal("InternalError"), False, True),
        # It has kept the connection alive with white space until then, and breaks off.
        (200, "", False, True),
        (200, "\n  \n", False, True),
        (412, refusal("PreconditionFailed"), True, True),
        (500, "", False, True),
    ],
)
def test_an_upload_in_parts_is_there_when_its_completion_says_so_in_its_body(
    monkeypatch: pytest.MonkeyPatch, status: int, body: str, is_there: bool, is_aborted: bool
) -> None:
    """A 200 with an error in it has lost data for many; and what is not completed is paid for."""
    monkeypatch.setattr(s3, "PART_BYTES", 64 * 1024)
    answers = {
        "POST uploads": (200, BEGUN), "PUT partNumber uploadId": (200, ""), "POST uploadId": (status, body),
        "DELETE uploadId": (204, ""),
    }  # fmt: skip
    with Scripted(answers) as server:
        if is_there:
            assert 1 == server.sink.write(noise(100 * 1024)).delivered
        else:
            with pytest.raises(TransientSinkError):
                server.sink.write(noise(100 * 1024))

    assert ["POST uploads", *["PUT partNumber uploadId"] * 2, "POST uploadId"] == server.seen[:4]
    assert ["DELETE uploadId"] * is_aborted == server.seen[4:]


# -- in a server -------------------------------------------------------------------------------------------


def events_in(bucket: Bucket) -> list[str]:
    return sorted(json.loads(line)["id"] for frame in bucket.objects().values() for line in lines_of(frame))


def test_a_worker_delivers_to_a_bucket_and_confirms_what_is_there(bucket: Bucket, relay: Relay, tmp_path: Path) -> None:
    """An answer with `ack: sink` is true: the object is there when the device reads it."""
    toml = tenant("dev", "dev-key", ack="sink") + tenant("other", "other-key")
    with Server(tmp_path, toml=toml, sink=url(bucket, relay), workers=2) as server, server.link() as link:
        for n in range(5):
            reply = link.send(upload(json.dumps([{"id": f"{n}-{k}"} for k in range(40)]).encode())).must_reply()
            assert (200, "sink") == (reply.status, reply.json["ack"])
            assert {f"{n}-{k}" for k in range(40)} <= set(events_in(bucket))
        assert 200 == link.send(upload(b'{"id":"last"}', key="other-key")).must_reply().status
        ledger = server.settled()

    assert {"balanced": True, "accepted": 201, "delivered": 201}.items() <= ledger.items()
    assert sorted([*(f"{n}-{k}" for n in range(5) for k in range(40)), "last"]) == events_in(bucket)


def test_a_bucket_that_is_away_for_a_while_loses_nothing_and_holds_up_nobody(
    bucket: Bucket, relay: Relay, tmp_path: Path
) -> None:
    """Uploads go on into the spool, health checks are answered, and all of it arrives once."""
    sent: list[str] = []
    with Server(tmp_path, toml=tenant("dev", "dev-key"), sink=url(bucket, relay)) as server, server.link() as link:

        def send(count: int) -> None:
            for _ in range(count):
                events = [{"id": f"e{len(sent) + k}"} for k in range(20)]
                sent.extend(ids(events, link.send(upload(json.dumps(events).encode())).must_reply()))
                assert 200 == server.admin("/healthz").status

        send(10)
        for way in (Way.REFUSED, Way.REPLY_LOST):
            with relay.goes(way):
                send(10)
                failed = len(server.logged("batch.failed"))
                wait_for(lambda: len(server.logged("batch.failed")) > failed, "a batch to fail")  # noqa: B023
        ledger = server.settled()

    assert 600 == len(sent) == ledger["delivered"]
    assert ledger["balanced"]
    assert sorted(sent) == events_in(bucket)
