"""The worker on the wire: what HTTP allows, what it must not be fooled by, and how it comes to its end."""

from __future__ import annotations

import contextlib
import json
import os
import signal
from collections import Counter
from collections.abc import Iterator
from itertools import pairwise
from pathlib import Path
from uuid import uuid4

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from tests.server import Link, Server, head, ids, upload, wait_for
from tests.uploaders import TENANTS, Count, Uploader, end, load

#: Well above every deadline of the server here; a connection that is silent for longer hangs.
HANG_S = 25.0
MAX_HEAD = 16 * 1024


@pytest.fixture(scope="module")
def server(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Server]:
    """Serve with one worker, so that whoever is held up is held up by it."""
    with Server(tmp_path_factory.mktemp("worker"), body_deadline_s=2, keepalive_s=3) as running:
        pids = running.worker_pids()
        yield running

        assert pids == running.worker_pids()
        assert running.settled()["balanced"]
        assert not running.logged("internal.error")
        assert not [line for line in running.log if line.get("message") == "a connection failed"]


@pytest.fixture(scope="module")
def slow_head(server: Server) -> Iterator[Link]:
    """A connection that sends half a head at the start of this module, for the last test of it."""
    with server.link() as link:
        yield link.send(b"POST /v1/events HTTP/1.1\r\nHost: x\r\n")


@pytest.fixture(autouse=True)
def _begin(slow_head: Link) -> None:
    """Let the slow head's time run beside all the other tests."""


def one(event_id: str) -> bytes:
    return json.dumps({"id": event_id}).encode()


def stored(server: Server) -> Counter[str]:
    server.settled()
    return Counter(event["id"] for event in server.events())


# -- what HTTP allows --------------------------------------------------------------------------------------


def test_a_connection_carries_many_requests(server: Server) -> None:
    """A phone pays for each handshake."""
    with server.link() as link:
        replies = [link.send(upload(one(f"many{n}"))).must_reply() for n in range(50)]
        refused = link.send(upload(b"[]")).must_reply()
        last = link.send(upload(one("many-last"))).must_reply()

    assert [200] * 50 == [reply.status for reply in replies]
    assert {"keep-alive"} == {reply.headers["connection"] for reply in [*replies, refused, last]}
    assert (400, 200) == (refused.status, last.status)


def test_requests_sent_together_are_answered_in_order(server: Server) -> None:
    """Pipelining: the second must not be lost in the buffer of the first."""
    requests = [upload(one(f"pipe{n}")) for n in range(30)]
    with server.link() as link:
        link.send(*requests, head("/healthz", "Connection: close", method="GET"))
        replies = link.replies()

    assert [1] * 30 == [reply.json["accepted"] for reply in replies[:30]]
    assert [{"status": "ok"}] == [reply.json for reply in replies[30:]]
    assert {f"pipe{n}": 1 for n in range(30)}.items() <= stored(server).items()


def test_requests_cut_anywhere_are_put_together(server: Server) -> None:
    """A packet ends where it likes."""
    data = upload(one("cut1")) + upload(one("cut2"))
    with server.link() as link:
        for at in range(len(data)):
            link.send(data[at : at + 1])
        replies = [link.must_reply(), link.must_reply()]

    assert [200, 200] == [reply.status for reply in replies]


def test_a_client_that_asks_before_it_sends_is_told_to_go_on(server: Server) -> None:
    """curl does so above a kilobyte, and waits a second for the word."""
    body = one("expected")
    with server.link() as link:
        link.send(head("/v1/events", "Expect: 100-continue", length=len(body)))
        first = link.must_reply()
        second = link.send(body).must_reply()

    assert (100, 200) == (first.status, second.status)


def test_an_expectation_that_does_not_exist_is_refused(server: Server) -> None:
    """RFC 9110: 417, and not a guess."""
    (reply,) = server.raw(head("/v1/events", "Expect: the-unexpected", length=2), b"{}")

    assert 417 == reply.status


@pytest.mark.parametrize(
    ("version", "field", "stays"),
    [
        ("1.0", "", False),
        ("1.0", "Connection: keep-alive", True),
        ("1.1", "", True),
        ("1.1", "Connection: close", False),
    ],
)
def test_a_connection_stays_or_ends_as_its_client_asks(server: Server, version: str, field: str, stays: bool) -> None:
    """A load balancer's health check speaks 1.0 and waits for the end."""
    fields = (field,) if field else ()
    with server.link(timeout_s=HANG_S) as link:
        link.send(head("/healthz", *fields, method="GET", version=version))
        reply = link.must_reply()

        assert 200 == reply.status
        assert ("keep-alive" if stays else "close") == reply.headers["connection"]
        if stays:
            assert 200 == link.send(head("/healthz", *fields, method="GET", version=version)).must_reply().status
        else:
            assert link.reply() is None


def test_an_upload_by_http_1_0_is_taken(server: Server) -> None:
    """Old proxies speak it."""
    body = one("old")
    (reply,) = server.raw(head("/v1/events", length=len(body), version="1.0"), body)

    assert (200, 1) == (reply.status, reply.json["accepted"])


def test_a_head_request_is_answered_without_a_body(server: Server) -> None:
    """What follows a body that should not be there is taken for the next answer."""
    with server.link() as link:
        link.send(head("/healthz", method="HEAD"), head("/healthz", method="GET"))
        first, second = link.reply(to_head=True), link.reply()

    assert first is not None
    assert second is not None
    assert (200, 200) == (first.status, second.status)
    # RFC 9110, 8.6: what a GET would have, or nothing.
    assert first.headers.get("content-length", second.headers["content-length"]) == second.headers["content-length"]


def test_a_silent_connection_is_closed_without_a_word(server: Server) -> None:
    """An answer that nobody asked for is taken for that of the next request."""
    with server.link(timeout_s=HANG_S) as never, server.link(timeout_s=HANG_S) as once:
        assert 200 == once.send(head("/healthz", method="GET")).must_reply().status
        assert once.reply() is None
        assert never.reply() is None


# -- what it must not be fooled by -------------------------------------------------------------------------

SMUGGLED = upload(one("smuggled"))
LENGTH = len(SMUGGLED)


@pytest.mark.parametrize(
    "request_",
    [
        head("/v1/events", "Transfer-Encoding: chunked", length=LENGTH) + b"0\r\n\r\n" + SMUGGLED,
        head("/v1/events", f"Content-Length: {LENGTH}", "Transfer-Encoding: chunked") + b"0\r\n\r\n" + SMUGGLED,
        head("/v1/events", "Content-Length: 0", length=LENGTH) + SMUGGLED,
        head("/v1/events", "Content-Length: 2", "Content-Length: 2") + b"{}" + SMUGGLED,
        head("/v1/events", "Content-Length: 0, 2") + b"{}" + SMUGGLED,
        head("/v1/events", "Content-Length: +2") + b"{}" + SMUGGLED,
        head("/v1/events", "Content-Length: 2_0") + b"{}" + SMUGGLED,
        head("/v1/events", "Content-Length: 0x2") + b"{}" + SMUGGLED,
        head("/v1/events", "Content-Length: -1") + SMUGGLED,
        head("/v1/events", "Content-Length: \xb2") + SMUGGLED,
        head("/v1/events", "Content-Length:") + SMUGGLED,
        head("/v1/events", "Content-Length : 2") + b"{}" + SMUGGLED,
        head("/v1/events", "Content-Length: " + "9" * 5000) + SMUGGLED,
        head("/v1/events", "X-Folded: a\r\n b", length=2) + b"{}" + SMUGGLED,
        head("/v1/events", "Transfer-Encoding:\r\n chunked") + b"0\r\n\r\n" + SMUGGLED,
        head("/v1/events", "Transfer-Encoding: chunked", "Transfer-Encoding: chunked") + b"0\r\n\r\n" + SMUGGLED,
        head("/v1/events", "Transfer-Encoding: chunked, identity") + b"0\r\n\r\n" + SMUGGLED,
        head("/v1/events", "Transfer-Encoding: xchunked") + b"0\r\n\r\n" + SMUGGLED,
        head("/v1/events", "Transfer-Encoding: gzip") + SMUGGLED,
        head("/v1/events", "Transfer-Encoding: \x0bchunked") + b"0\r\n\r\n" + SMUGGLED,
        head("/v1/events", "Transfer-Encoding: chunked", version="1.0") + b"0\r\n\r\n" + SMUGGLED,
        head("/v1/events", length=2).replace(b"\r\n", b"\n") + b"{}" + SMUGGLED,
        head("/v1/events", "X-Bare: a\nContent-Length: 2") + b"{}" + SMUGGLED,
        head("/v1/events", "X-Bare: a\rContent-Length: 2") + b"{}" + SMUGGLED,
        head("/v1/events", length=2)[:-4] + b"\n\n{}" + SMUGGLED,
        head("/v1/events", "Host: another.test", length=2) + b"{}" + SMUGGLED,
        head("/v1/events", "No colon", length=2) + b"{}" + SMUGGLED,
        head("/v1/events", ": no name", length=2) + b"{}" + SMUGGLED,
        head("/v1/events", "Tab\t: x", length=2) + b"{}" + SMUGGLED,
        head("/v1/events with a blank", length=2) + b"{}" + SMUGGLED,
        head("/v1/events", length=2, version="2.0") + b"{}" + SMUGGLED,
        head("/v1/events", length=2, version="1.1x") + b"{}" + SMUGGLED,
        b"\r\n\r\n" + SMUGGLED,
        b"\n" + SMUGGLED,
        b"\x16\x03\x01\x02\0\x01\0\x01\xfc\x03\x03" + b"\0" * 50 + b"\r\n\r\n" + SMUGGLED,
        b"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n" + SMUGGLED,
        b"CONNECT collector.test:80 HTTP/1.1\r\nHost: x\r\n\r\n" + SMUGGLED,
    ],
    ids=lambda data: repr(data.removeprefix(b"POST /v1/events HTTP/1.1\r\nHost: collector.test\r\n")[:50]),
)
def test_a_request_of_two_meanings_is_refused_and_nothing_after_it_is_seen(server: Server, request_: bytes) -> None:
    """A proxy that reads it the other way would be made to carry a stranger's request in somebody's name."""
    mark = uuid4().hex[:8]
    replies = server.raw(request_.replace(b"smuggled", mark.encode()))

    assert mark not in stored(server)
    assert 1 == len(replies), replies
    assert replies[0].status in range(400, 506)
    assert "close" == replies[0].headers["connection"]


@pytest.mark.parametrize(
    "room", [b"X-Long: " + b"x" * MAX_HEAD, b"\r\n".join(b"X-%d: x" % n for n in range(2000)), b"X" * MAX_HEAD]
)
def test_a_head_over_its_limit_is_refused(server: Server, room: bytes) -> None:
    """Without a bound a stranger fills the memory before anybody asks who he is."""
    with server.link() as link:
        replies = link.send(b"POST /v1/events HTTP/1.1\r\nHost: x\r\n", room, b"\r\n\r\n").replies()

    assert [431] == [reply.status for reply in replies]
    assert "malformed" == replies[0].json["error"]


def test_a_line_over_its_limit_is_refused(server: Server) -> None:
    """414 tells the writer of a client what is too long."""
    (reply,) = server.raw(head("/v1/events?" + "x" * 9000, length=0))

    assert 414 == reply.status


def test_a_head_that_never_ends_is_refused_at_its_limit(server: Server) -> None:
    """Its sender does not stop by himself, so the answer can't wait for that."""
    with server.link() as link:
        link.send(b"GET /healthz HTTP/1.1\r\nX: ")
        with contextlib.suppress(OSError):
            for _ in range(100):
                link.send(b"x" * 1024)
        reply = link.must_reply()

    assert 431 == reply.status


def test_a_refusal_reaches_a_client_that_still_sends(server: Server) -> None:
    """A close with unread bytes is a reset, and a reset can destroy the answer on its way: the client tries again."""
    size = 6 << 20
    with server.link() as link:
        link.send(head(length=size))
        for _ in range(size >> 16):
            link.send(b"x" * 65_536)
        reply = link.must_reply()

        assert (413, "too_large") == (reply.status, reply.json["error"])
        assert link.reply() is None


def test_a_client_that_never_reads_its_answers_is_let_go(server: Server) -> None:
    """Its connection would hold its place for ever: a few thousand of them and nobody else has one."""
    records = [{"type": "nothing that is known", "x": "y" * 25_000}] * 40
    fields = ("X-CleverTap-Account-Id: dev", "X-CleverTap-Passcode: dev-key")
    # Its answer repeats the records: a megabyte for each.
    request = upload(json.dumps({"d": records}).encode(), *fields, path="/1/upload", key=None)
    with server.link(timeout_s=12, receive_buffer=2048) as link:
        closed = False
        try:
            for _ in range(100):
                link.send(request)
        except TimeoutError:
            pass  # it waits for us, and would for ever
        except OSError:
            closed = True

    assert closed


# -- strangers ---------------------------------------------------------------------------------------------

pieces = st.one_of(
    st.binary(max_size=40),
    st.sampled_from(
        [
            b"GET", b"POST", b"OPTIONS", b"CONNECT", b" ", b"/", b"/v1/events", b"/1/upload", b"/healthz", b"*",
            b"http://x/",
            b"HTTP/1.1", b"HTTP/1.0", b"HTTP/9.9", b"\r\n", b"\r\n\r\n", b"\n", b"\n\n", b"\r", b"\0", b":",
            b"Host: x\r\n",
            b"Host: [::1\r\n", b"Host: \xff\xfe..\r\n", b"Content-Length: 5\r\n", b"Content-Length: 99999999999\r\n",
            b"Transfer-Encoding: chunked\r\n", b"5\r\nhello\r\n", b"0\r\n\r\n", b"Expect: 100-continue\r\n",
            b"Authorization: Bearer dev-key\r\n", b"Authorization: Basic \xff\r\n", b"Connection: close\r\n",
            b"Connection: upgrade\r\nUpgrade: h2c\r\n", b"Content-Encoding: gzip\r\n", b"Content-Encoding: zstd\r\n",
            b"Content-Type: multipart/form-data; boundary=x\r\n", b"Origin: null\r\n", b"X-Forwarded-For: ,\r\n",
            b"Collector-Ack: sink\r\n", b"Cookie: a=b; =\r\n", b"SCRIPT-NAME: /x\r\n", b'{"id":"fuzz"}', b"[",
            b"?key=dev-key&%zz",
            b"Range: bytes=-\r\n", b"If-None-Match: *\r\n", b"Content-Type: \xe9\r\n", b"Date: x\r\n",
        ]
    ),
)  # fmt: skip
heads = st.builds(
    lambda method, path, fields, rest: method + b" " + path + b" HTTP/1.1\r\n" + b"".join(fields) + b"\r\n" + rest,
    st.sampled_from([b"GET", b"POST", b"HEAD", b"OPTIONS", b"PUT"]),
    st.sampled_from([b"/v1/events", b"/1/upload", b"/healthz", b"/readyz", b"//", b"/%", b"/v1/events?key=dev-key"])
    | st.binary(max_size=10),
    st.lists(pieces, max_size=5),
    st.binary(max_size=50) | pieces,
)


@settings(max_examples=200, suppress_health_check=[HealthCheck.function_scoped_fixture, HealthCheck.too_slow])
@given(sent=st.lists(pieces, max_size=12).map(b"".join) | heads, cuts=st.lists(st.integers(0, 400), max_size=3))
def test_whatever_comes_in_only_http_goes_out(server: Server, sent: bytes, cuts: list[int]) -> None:
    """Strangers try everything; `Link` takes nothing for an answer that is none, and waits for the end."""
    if sent.startswith(b"HEAD"):  # whose answers have a length and no body
        sent = b"GET" + sent[4:]
    edges = sorted({0, *(cut for cut in cuts if cut < len(sent)), len(sent)})
    with server.link(timeout_s=HANG_S) as link:
        try:
            for begin, stop in pairwise(edges):
                link.send(sent[begin:stop])
            link.half_close()
        except OSError:  # it was refused at once, and we still sent
            pass
        with contextlib.suppress(ConnectionResetError):
            replies = link.replies()

            assert all(100 <= reply.status < 600 and reply.status != 500 for reply in replies)
    assert 200 == server.ask(head("/healthz", method="GET")).status


# -- its end -----------------------------------------------------------------------------------------------


def test_an_idle_connection_ends_without_a_word_when_the_server_stops(tmp_path: Path) -> None:
    """gunicorn writes a 500 there, and the client takes it for the answer to its next upload."""
    with Server(tmp_path, drain_s=2) as server, server.link() as fresh, server.link() as used:
        assert 200 == used.send(head("/healthz", method="GET")).must_reply().status

        server.signal(signal.SIGTERM)

        assert fresh.reply() is None
        assert used.reply() is None
        assert 0 == server.stop()


def test_an_idle_connection_may_still_upload_while_the_server_stops(tmp_path: Path) -> None:
    """A client can't know; what it sends now must be answered, and kept."""
    with Server(tmp_path, drain_s=12) as server, server.link() as link, server.link() as half:
        assert 200 == link.send(head("/healthz", method="GET")).must_reply().status
        half.send(upload(one("half"))[:30])

        server.signal(signal.SIGTERM)
        wait_for(lambda: refuses(server), "the server to accept nothing more")
        half_reply = half.send(upload(one("half"))[30:]).must_reply()
        reply = link.send(upload(one("late"))).must_reply()

        assert (200, 200) == (reply.status, half_reply.status)
        assert "close" == reply.headers["connection"]
        assert 0 == server.stop()
        assert {"late": 1, "half": 1} == Counter(event["id"] for event in server.events())


def refuses(server: Server) -> bool:
    try:
        with Link(server.port):
            return False
    except ConnectionRefusedError:
        return True


def test_an_upload_under_way_is_answered_before_the_server_ends(tmp_path: Path) -> None:
    """A deploy must not cost the upload whose second half is still in the air."""
    body = json.dumps([{"id": f"slow{n}"} for n in range(100)]).encode()
    with Server(tmp_path, drain_s=12) as server, server.link() as link:
        link.send(head(length=len(body)), body[:100])
        assert 200 == server.post([{"id": "other"}]).status  # the first one's head was read before this

        server.signal(signal.SIGTERM)
        wait_for(lambda: refuses(server), "the server to accept nothing more")
        reply = link.send(body[100:]).must_reply()

        assert (200, 100) == (reply.status, reply.json["accepted"])
        assert 0 == server.stop()
        assert 101 == len(server.lines())


def test_connections_that_wait_to_be_accepted_are_served_before_the_end(tmp_path: Path) -> None:
    """Their handshake is done and their request sent: gunicorn resets them."""
    with Server(tmp_path) as server:
        (worker,) = server.worker_pids()
        # While it stands still, the kernel alone takes connections.
        os.kill(worker, signal.SIGSTOP)
        links = [server.link().send(upload(one(f"queued{n}"))) for n in range(60)]
        server.signal(signal.SIGTERM)
        wait_for(lambda: [line for line in server.log if "Handling signal: term" in str(line)], "the master to stop")
        os.kill(worker, signal.SIGTERM)
        os.kill(worker, signal.SIGCONT)
        outcomes = Counter(outcome(link) for link in links)

        assert {"200": 60} == outcomes
        assert 0 == server.stop()
        assert 60 == len(server.lines())


def outcome(link: Link) -> str:
    with link:
        try:
            reply = link.reply()
        except OSError as error:
            return type(error).__name__
        return "closed" if reply is None else str(reply.status)


def test_a_stop_drains_says_so_and_ends_with_0(tmp_path: Path) -> None:
    """The operator reads in one line that nothing was left behind."""
    with Server(tmp_path, workers=2, flush_interval_s=60) as server:
        kept = [event_id for n in range(20) for event_id in ids([{"id": str(n)}], server.post([{"id": str(n)}]))]

        assert 0 == server.stop()

        *workers, drained = server.logged("drain.done")

        assert ["worker", "worker", "task"] == [line["scope"] for line in (*workers, drained)]
        assert [20, 0] == [sum(line[name] for line in workers) for name in ("delivered", "left")]
        assert {"accepted": 20, "delivered": 20, "dropped": 0, "left": 0}.items() <= drained.items()
        assert kept == sorted((event["id"] for event in server.events()), key=int)


def test_a_stop_is_not_held_up_by_a_sink_that_is_away(tmp_path: Path) -> None:
    """The budget is a budget; what is left waits in the spool, and the line says how much."""
    (tmp_path / "data").write_text("in the way")
    with Server(tmp_path, drain_s=1) as server:
        assert 200 == server.post([{"id": "a"}]).status
        assert 0 == server.stop()
        assert [("worker", 1), ("task", 1)] == [(line["scope"], line["left"]) for line in server.logged("drain.done")]

        (tmp_path / "data").unlink()
        server.start()

        assert {"accepted": 1, "delivered": 1}.items() <= server.settled().items()
        assert ["a"] == [event["id"] for event in server.events()]


def test_an_upload_that_waits_for_its_sink_is_told_when_its_worker_has_no_more_time(tmp_path: Path) -> None:
    """A connection that breaks off says nothing; a 503 says that the events are kept."""
    (tmp_path / "data").write_text("in the way")
    with Server(tmp_path, drain_s=1, ack_timeout_s=60) as server, server.link() as link:
        link.send(upload(one("patient"), "Collector-Ack: sink"))
        wait_for(lambda: server.ledger()["pending"], "the event to be in the spool")

        server.signal(signal.SIGTERM)
        reply = link.must_reply()

        assert (503, "backpressure") == (reply.status, reply.json["error"])
        assert "kept" in reply.json["message"]
        assert 0 == server.stop()


def wait_for_successors(server: Server, *, of: list[int], count: int) -> None:
    """Return once so many workers live that are none of these, and none of these does."""

    def look() -> bool:
        living = set(server.worker_pids())
        return len(living) == count and not living & set(of)

    wait_for(look, f"{count} successors of {of}")


def wait_for_uploads(uploaders: list[Uploader], more: int) -> None:
    """Return once so many more uploads were acknowledged."""
    least = sum(device.acknowledged for device in uploaders) + more
    wait_for(lambda: sum(device.acknowledged for device in uploaders) >= least, f"{more} more uploads")


def test_a_reload_under_load_fails_no_request_and_loses_no_event(tmp_path: Path) -> None:
    """A deploy at noon is to be as dull as one at night."""
    with Server(tmp_path, toml=TENANTS, workers=2) as server:
        uploaders = load(server, per_tenant=2, mixed=True)
        for _ in range(2):
            before = server.worker_pids()
            server.signal(signal.SIGHUP)
            wait_for_successors(server, of=before, count=2)
        end(uploaders)
        server.settled()
        count = Count(server, uploaders)

        assert Counter() == sum((device.failed + device.refused for device in uploaders), Counter[str]())
        assert count.acknowledged > 0
        assert (0, 0, 0, 0) == (count.missing, count.altered, count.invented, count.duplicates)


def test_events_of_a_killed_worker_arrive_and_the_books_stay_exact(tmp_path: Path) -> None:
    """kill -9 runs no hook; the promise of an answer is kept by who is left."""
    with Server(tmp_path, toml=TENANTS, workers=2) as server:
        uploaders = load(server, per_tenant=2)
        for _ in range(3):
            wait_for_uploads(uploaders, 30)
            victim = server.worker_pids()[0]
            os.kill(victim, signal.SIGKILL)
            wait_for_successors(server, of=[victim], count=2)
        end(uploaders)
        ledger = server.settled()
        count = Count(server, uploaders)

        assert (0, 0, 0) == (count.missing, count.altered, count.invented)
        assert count.lines == ledger["delivered"] == ledger["accepted"]
        assert not server.logged("ledger.imbalance")
        assert not server.logged("events.lost")


def test_a_second_start_delivers_what_a_killed_server_left(tmp_path: Path) -> None:
    """A container that is killed as a whole leaves its spool, if its tmpfs lives; the next one finds it."""
    with Server(tmp_path, workers=2, flush_interval_s=3600) as server:
        events = [{"id": str(n)} for n in range(200)]
        kept = [event_id for event in events for event_id in ids([event], server.post([event]))]
        server.kill()

        assert [] == server.files()

        server.start()
        ledger = server.settled()

        assert 200 == len(kept) == ledger["accepted"] == ledger["delivered"]
        assert Counter(kept) == Counter(event["id"] for event in server.events())


def test_uploads_that_wait_for_the_sink_share_its_writes(tmp_path: Path) -> None:
    """A file for each of them would cost as many round trips to the store as there are devices."""
    with Server(tmp_path, flush_interval_s=3600) as server:
        links = [server.link() for _ in range(64)]
        for n, link in enumerate(links):
            link.send(upload(one(f"ack{n}"), "Collector-Ack: sink"))
        replies = [link.must_reply() for link in links]
        for link in links:
            link.sock.close()
        files = server.files()

        assert {(200, "sink")} == {(reply.status, reply.json["ack"]) for reply in replies}
        assert {f"ack{n}": 1 for n in range(64)} == Counter(event["id"] for event in server.events())
        assert len(files) <= 16


def test_a_slow_head_is_refused_in_its_time(slow_head: Link) -> None:
    """Half a head and then nothing is the cheapest way to hold a place."""
    replies = slow_head.replies()

    assert [408] == [reply.status for reply in replies]
    assert "close" == replies[0].headers["connection"]
