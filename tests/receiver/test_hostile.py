"""
Clients that are slow, silent, many or mean: each is bounded, and nobody else waits for them.

That nobody waits is shown by a polite device beside them: it gets its answers while they are all still there.
"""

from __future__ import annotations

import contextlib
import json
import os
import resource
import select
import shutil
import signal
import threading
from collections import Counter
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any, NamedTuple

import pytest

from tests.server import Link, Server, head, tenant, upload, wait_for

#: Well above every deadline of the servers here; a connection that is silent for longer hangs.
HANG_S = 30.0
MAX_HEAD = 16 * 1024
#: The connections that the small server takes at once.
LIMIT = 50
#: As /proc/net/tcp writes it.
LISTENING = "0A"
TLS = b"\x16\x03\x01\x02\0\x01\0\x01\xfc\x03\x03" + bytes(n % 9 for n in range(500))
ASK = head("/healthz", method="GET", key=None)
CHUNKED = head("/v1/events", "Transfer-Encoding: chunked")
HALF_HEAD = b"POST /v1/events HTTP/1.1\r\nHost: x\r\n"
TENANTS = tenant("dev", "dev-key") + tenant("held", "held-key", route="held", ack="sink")


@pytest.fixture(scope="module", autouse=True)
def _many_files() -> Iterator[None]:
    """Let this process, and the servers that it starts, hold thousands of sockets."""
    soft, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
    resource.setrlimit(resource.RLIMIT_NOFILE, (hard, hard))
    yield
    resource.setrlimit(resource.RLIMIT_NOFILE, (soft, hard))


@pytest.fixture(scope="module")
def server(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Server]:
    """Serve with one worker and short deadlines."""
    yield from serve(tmp_path_factory.mktemp("hostile"), body_deadline_s=2, keepalive_s=3)


@pytest.fixture(scope="module")
def small(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Server]:
    """Serve with few places and long deadlines: who leaves here before his client does was sent away."""
    folder = tmp_path_factory.mktemp("small")
    held = folder / "held"
    toml = f'[routes.held]\nsink = "file:{held}?fsync=0"\n' + TENANTS
    yield from serve(folder, toml=toml, worker_connections=LIMIT, keepalive_s=50, body_deadline_s=25, ack_timeout_s=25)


def serve(folder: Path, *, toml: str = "", **settings: Any) -> Iterator[Server]:
    # A busy machine is no overload here.
    with Server(folder, toml=toml, max_lag_s=60, **settings) as running:
        pids = running.worker_pids()
        yield running

        assert pids == running.worker_pids()
        assert running.settled()["balanced"]
        assert not running.logged("internal.error")
        assert not [line for line in running.log if line.get("message") == "a connection failed"]


def held(server: Server, links: Sequence[Link] = ()) -> int:
    """Count the device connections that the server has accepted and not let go: all, or those of `links`."""
    ports = {link.sock.getsockname()[1] for link in links}
    count = 0
    for line in Path("/proc/net/tcp").read_text().splitlines()[1:]:
        _, local, remote, state, *_, inode = line.split()[:10]
        mine, theirs = (int(address.partition(":")[2], 16) for address in (local, remote))
        # Without an inode it is the kernel's alone: not accepted yet, or closed already.
        if mine == server.port and state != LISTENING and inode != "0" and (not links or theirs in ports):
            count += 1
    return count


@pytest.fixture(autouse=True)
def _alone(request: pytest.FixtureRequest) -> None:
    """Begin when the small server holds none of an earlier test's connections: they would take places."""
    if "small" in request.fixturenames:
        small = request.getfixturevalue("small")
        wait_for(lambda: held(small) == 0, "the connections of the test before to be gone")


@contextlib.contextmanager
def crowd(server: Server, count: int, *data: bytes, receive_buffer: int = 0) -> Iterator[list[Link]]:
    """Hold so many connections that have sent this."""
    with contextlib.ExitStack() as stack:
        links = []
        for _ in range(count):
            link = stack.enter_context(server.link(timeout_s=HANG_S, receive_buffer=receive_buffer))
            links.append(link.send(*data))
        yield links


def is_open(link: Link) -> bool:
    """Tell whether the server has not closed a connection."""
    poll = select.poll()
    poll.register(link.sock, select.POLLRDHUP)
    return not poll.poll(0)


def has_spoken(link: Link) -> bool:
    """Tell whether there is something to read, the end included."""
    return bool(select.select([link.sock], [], [], 0)[0])


def one(event_id: str) -> bytes:
    return json.dumps({"id": event_id}).encode()


def be_polite(server: Server, kept: Link, name: str) -> None:
    """Upload as a good device does: over a connection that was there before, and over new ones."""
    for n in range(5):
        over_kept = kept.send(upload(one(f"{name}.kept{n}"))).must_reply()
        over_new = server.post(one(f"{name}.new{n}"))

        assert [(200, 1), (200, 1)] == [(reply.status, reply.json["accepted"]) for reply in (over_kept, over_new)]


# -- nobody waits for them ---------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("sent", "told"),
    [
        pytest.param(b"", [], id="nothing"),
        pytest.param(ASK, [200], id="one request"),
        pytest.param(b"P", [], id="one byte"),
        pytest.param(HALF_HEAD, [], id="half a head"),
        pytest.param(TLS, [], id="a handshake of TLS"),
        pytest.param(b"GET / HTTP/1.1\r\nX: " + b"x" * (MAX_HEAD - 100), [], id="a head as long as may be"),
        pytest.param(head(length=1000), [], id="a head without its body"),
        pytest.param(upload(b"[" * 1000)[:-1], [], id="a body without its end"),
        pytest.param(CHUNKED + b"3e8\r\n[", [], id="half a chunk"),
        pytest.param(head("/v1/events", "Expect: 100-continue", length=1000), [100], id="a question"),
        pytest.param(ASK * 20 + HALF_HEAD, [200] * 20, id="many requests and a half"),
        pytest.param(ASK + head(length=1000), [200], id="a request, and a head without its body"),
    ],
)
def test_nobody_waits_for_those_who_send(small: Server, sent: bytes, told: list[int]) -> None:
    """And then nothing more, forty at a time: each costs a place and nothing else."""
    with small.link() as kept, crowd(small, 40, sent) as links:
        replies = [[link.must_reply().status for _ in told] for link in links]
        be_polite(small, kept, "beside")

        assert [told] * 40 == replies
        assert [True] * 40 == [is_open(link) for link in links]
        assert [False] * 40 == [has_spoken(link) for link in links]


def test_nobody_waits_for_those_who_do_not_read(small: Server) -> None:
    """The answer lies in the server until it is read, and whoever writes it must not stand before the others."""
    records = [{"type": "nothing that is known", "x": "y" * 25_000}] * 40
    fields = ("X-CleverTap-Account-Id: dev", "X-CleverTap-Passcode: dev-key")
    # Its answer repeats the records, and is a megabyte.
    request = upload(json.dumps({"d": records}).encode(), *fields, path="/1/upload", key=None)
    with small.link() as kept, crowd(small, 10, request, receive_buffer=2048) as links:
        wait_for(lambda: all(has_spoken(link) for link in links), "the answers to begin")
        be_polite(small, kept, "unread")

        assert [True] * 10 == [is_open(link) for link in links]


def test_nobody_waits_for_one_who_sends_thousands_of_requests_at_once(server: Server) -> None:
    """Who always has a request waiting is served in turn with the others, not before them."""
    count = 1000
    answered = 0

    with server.link() as kept, server.link() as greedy:

        def read() -> None:
            nonlocal answered
            for _ in range(count):
                greedy.must_reply()
                answered += 1

        reader = threading.Thread(target=read)
        reader.start()
        greedy.send(ASK * count)
        be_polite(server, kept, "greedy")
        meanwhile = answered
        reader.join(HANG_S)

    assert meanwhile < count == answered


def test_many_who_pipeline_leave_room_for_one_who_does_not(server: Server) -> None:
    """Twenty of them get twenty turns in a round, and he gets his."""
    with server.link() as kept, crowd(server, 20, ASK * 60) as links:
        be_polite(server, kept, "pipelined")
        unfinished = sum(is_open(link) for link in links)
        statuses = [{link.must_reply().status for _ in range(60)} for link in links]

    assert 20 == unfinished
    assert [{200}] * 20 == statuses


# -- thousands ---------------------------------------------------------------------------------------------


def test_1500_connections_at_once_are_held_and_hold_nobody_up(server: Server) -> None:
    """Phones keep their connections; each is a socket and a few kilobytes, and none is lost to the others."""
    with server.link() as kept, crowd(server, 1500) as links:
        be_polite(server, kept, "many")

        assert [True] * 1500 == [is_open(link) for link in links]

        statuses = [link.send(ASK).must_reply().status for link in links[::50]]

    assert [200] * 30 == statuses
    wait_for(lambda: held(server) < 100, "the places to be free again")


def test_2000_silent_connections_do_not_keep_a_newcomer_out_of_50_places(small: Server) -> None:
    """A stranger with a laptop can open them; those that wait longest make room, without a word."""
    with crowd(small, 2000) as links:
        replies = [small.post(one(f"newcomer{n}")) for n in range(10)]
        wait_for(lambda: held(small) <= LIMIT, "no more connections than there are places")
        first, last = links[0].reply(), is_open(links[-1])

    assert [200] * 10 == [reply.status for reply in replies]
    assert first is None
    assert last


@pytest.mark.parametrize(
    "sent", [b"", ASK, b"P", HALF_HEAD, TLS, head(length=1000), CHUNKED + b"3e8\r\n["],
    ids=["nothing", "a request", "a byte", "half a head", "TLS", "a head", "half a chunk"],
)  # fmt: skip
def test_200_connections_that_only_wait_do_not_keep_a_newcomer_out_of_50_places(small: Server, sent: bytes) -> None:
    """Whatever they have sent and whatever they wait for: without a bound, a place is taken for a deadline's time."""
    with crowd(small, 200, sent) as links, contextlib.ExitStack() as stack:
        replies = []
        for n in range(5):
            (link,) = stack.enter_context(crowd(small, 1, upload(one(f"stays{n}"))))
            replies.append(link.must_reply())
        wait_for(lambda: held(small) <= LIMIT, "no more connections than there are places")
        still = sum(is_open(link) for link in links)

        assert [200] * 5 == [reply.status for reply in replies]
        assert LIMIT - 10 <= still < LIMIT  # as few as need be are sent away


def test_the_idle_make_room_before_those_who_send_a_head_and_these_before_those_who_send_a_body(small: Server) -> None:
    """The nearer a client is to its answer, the more is lost with its connection."""
    with contextlib.ExitStack() as stack:

        def add(count: int, sent: bytes) -> list[Link]:
            return stack.enter_context(crowd(small, count, sent))

        # The oldest are the last to go.
        bodies, heads, idle = add(10, head(length=20)), add(10, HALF_HEAD), add(30, b"")
        assert 200 == small.post(one("all are in")).status

        def left() -> tuple[int, int, int]:
            return tuple(sum(is_open(link) for link in links) for links in (bodies, heads, idle))  # type: ignore[return-value]

        wait_for(lambda: left() == (10, 10, 29), "one idle connection to make room")
        assert [False] + [True] * 29 == [is_open(link) for link in idle]  # the one that was idle for longest

        add(31, head(length=20))
        wait_for(lambda: left() == (10, 9, 0), f"all idle ones and one head to make room, not {left()}")

        add(9, head(length=20))
        wait_for(lambda: left() == (10, 0, 0), f"all heads to make room, not {left()}")

        add(3, head(length=20))
        wait_for(lambda: left() == (7, 0, 0), f"three bodies to make room, not {left()}")
        replies = [link.send(b'{"id":"late"}       ').must_reply() for link in bodies if is_open(link)]

        assert [200] * 7 == [reply.status for reply in replies]


def test_a_connection_that_is_being_answered_is_never_sent_away(small: Server) -> None:
    """Its events may be kept by now: it would send them again, and they would arrive twice."""
    held = small.folder / "held"
    shutil.rmtree(held, ignore_errors=True)
    held.write_text("in the way")
    try:
        with contextlib.ExitStack() as stack:
            waiting = [stack.enter_context(small.link(timeout_s=HANG_S)) for _ in range(20)]
            for n, link in enumerate(waiting):
                link.send(upload(one(f"held{n}"), key="held-key"))
            wait_for(lambda: small.ledger()["pending"] >= 20, "the uploads to wait for their sink")
            stack.enter_context(crowd(small, 200))
            stack.enter_context(crowd(small, 200, HALF_HEAD))
            newcomers = [small.post(one(f"beside{n}")) for n in range(5)]

            assert [False] * 20 == [has_spoken(link) for link in waiting]

            held.unlink()
            replies = [link.must_reply() for link in waiting]

        assert [200] * 5 == [reply.status for reply in newcomers]
        assert [(200, "sink")] * 20 == [(reply.status, reply.json["ack"]) for reply in replies]
    finally:
        held.unlink(missing_ok=True) if held.is_file() else None


def test_a_client_whose_request_is_on_its_way_is_not_taken_for_idle(small: Server) -> None:
    """Between the packet and its reader lies a moment; who is sent away in it has lost a request."""
    (pid,) = small.worker_pids()
    with contextlib.ExitStack() as stack:
        asking = stack.enter_context(crowd(small, LIMIT - 20))
        silent = stack.enter_context(crowd(small, 20))
        wait_for(lambda: held(small) == LIMIT, "all of them to be accepted")
        # While it stands still, requests and newcomers arrive in the same moment.
        os.kill(pid, signal.SIGSTOP)
        try:
            newcomers = stack.enter_context(crowd(small, 15, ASK))
            for link in asking:
                link.send(ASK)
        finally:
            os.kill(pid, signal.SIGCONT)
        replies = [link.reply() for link in (*asking, *newcomers)]

        assert [200] * (LIMIT - 5) == [reply.status if reply else None for reply in replies]
        wait_for(lambda: sum(is_open(link) for link in silent) == 5, "the silent ones to make room")


# -- half-closed, and hung up ------------------------------------------------------------------------------

BODY = upload(one("half-closed"))


@pytest.mark.parametrize(
    ("sent", "told"),
    [
        (b"", []),
        (b"P", []),
        (HALF_HEAD, []),
        (TLS, []),
        (ASK[:-1], []),
        (ASK, [200]),
        (ASK + b"\r", [200]),
        (BODY, [200]),
        (BODY[:-1], [400]),
        (BODY + HALF_HEAD, [200]),
        (BODY * 3, [200] * 3),
        (ASK + BODY[:-1], [200, 400]),
        (BODY[:-1] + b"[" + ASK, [400, 200]),
        (head(length=10) + b"", [400]),
        (CHUNKED, [400]),
        (CHUNKED + b"5\r\n{", [400]),
        (head("/v1/events", "Expect: 100-continue", length=10), [100, 400]),
        (head(length=10**12), [413]),
        (head(length=10**12) + ASK, [413]),
        (head("/healthz", "Connection: close", method="GET") + BODY, [200]),
    ],
    ids=lambda value: None if isinstance(value, list) else repr(value.removeprefix(b"POST /v1/events"))[2:40],
)
def test_a_half_closed_connection_gets_its_answers_and_its_end(server: Server, sent: bytes, told: list[int]) -> None:
    """Its client reads on and never closes: what it asked whole is answered, and its place is free again."""
    with crowd(server, 5, sent) as links:
        for link in links:
            link.half_close()
        statuses = [[reply.status for reply in link.replies()] for link in links]
        wait_for(lambda: held(server, links) == 0, "the server to let them go while their clients hold on")

    assert [told] * 5 == statuses


def test_clients_that_hang_up_at_any_byte_leave_no_connection_behind(server: Server) -> None:
    """A lift, a flat battery, a scanner: a reset in each state that a connection can be in."""
    data = ASK + upload(one("hung up"), "Expect: 100-continue") + CHUNKED + b"2\r\n{}\r\n0\r\n\r\n" + HALF_HEAD
    before = held(server)
    with server.link() as kept:
        for cut in range(0, len(data), 5):
            server.link().send(data[:cut]).reset()
            server.link().send(data[:cut]).sock.close()
        be_polite(server, kept, "beside those who hang up")
    wait_for(lambda: held(server) <= before, "the server to notice")


# -- each is bounded ---------------------------------------------------------------------------------------


class Slow(NamedTuple):
    """A client that never comes to an end by itself: what it sends, then again and again, and what it is told."""

    first: bytes
    again: bytes
    told: list[int]
    or_told: list[int] | None = None


SLOW = {
    "sends nothing": Slow(b"", b"", []),
    "is served, and then sends nothing": Slow(ASK, b"", [200]),
    "sends a byte": Slow(b"P", b"", [408]),
    "drips a head": Slow(HALF_HEAD + b"X: ", b"x", [408]),
    "drips whole fields": Slow(HALF_HEAD, b"X: x\r\n", [408]),
    # Two of them in one packet are an empty head.
    "drips empty lines": Slow(b"", b"\r\n", [408], or_told=[400]),
    "drips a second head": Slow(ASK + b"POST /", b"x", [200, 408]),
    "begins a handshake of TLS": Slow(TLS, b"", [408]),
    "drips a body": Slow(head(length=1000), b" ", [408]),
    "drips a second body": Slow(upload(one("first")) + head(length=1000), b" ", [200, 408]),
    "drips a chunk": Slow(CHUNKED + b"3e8\r\n", b" ", [408]),
    "drips whole chunks": Slow(CHUNKED, b"1\r\n \r\n", [408]),
    "drips the length of a chunk": Slow(CHUNKED, b"0", [408]),
    "asks whether to go on, and does not": Slow(head("/v1/events", "Expect: 100-continue", length=9), b"", [100, 408]),
    "sends a body where none is wanted": Slow(head("/nothing", length=10**6), b" ", [404]),
    "is refused for its head, and goes on": Slow(head(": no name", length=10**6), b" ", [400]),
    "is refused for its body, and goes on": Slow(head(length=10**12), b" ", [413]),
    "has the wrong key, and goes on": Slow(head(length=1000, key="wrong"), b" ", [408]),
}


@pytest.fixture(scope="module")
def slow(server: Server) -> Iterator[dict[str, Link]]:
    """Connect them all at the start of this module, so that their time runs beside the other tests."""
    with contextlib.ExitStack() as stack:
        links = {name: stack.enter_context(server.link(timeout_s=HANG_S)) for name in SLOW}
        done = threading.Event()

        def drip() -> None:
            for name, link in links.items():
                link.send(SLOW[name].first)
            while not done.wait(0.2):
                for name, link in links.items():
                    with contextlib.suppress(OSError):  # it was closed, as it should be
                        link.send(SLOW[name].again)

        thread = threading.Thread(target=drip)
        thread.start()
        stack.callback(thread.join)
        stack.callback(done.set)
        yield links


@pytest.fixture(autouse=True)
def _begin(slow: dict[str, Link]) -> None:
    """Let their time run from the first test on."""


def test_heads_that_do_not_end_take_no_more_memory_than_their_limit(server: Server) -> None:
    """A head is read before anybody knows who sends it, so all of them together must be small."""
    (pid,) = server.worker_pids()
    Path(f"/proc/{pid}/clear_refs").write_text("5")
    before = peak_bytes(pid)
    with server.link() as kept, crowd(server, 100, b"GET / HTTP/1.1\r\nX: ") as links:
        for link in links:
            with contextlib.suppress(OSError):
                link.send(b"x" * (1 << 20))
        be_polite(server, kept, "beside long heads")
        statuses = [link.must_reply().status for link in links]

    assert [431] * 100 == statuses
    assert peak_bytes(pid) - before < 40 << 20  # read whole, they would take 100 MiB


def peak_bytes(pid: int) -> int:
    (line,) = (line for line in Path(f"/proc/{pid}/status").read_text().splitlines() if line.startswith("VmHWM:"))
    return int(line.split()[1]) * 1024


@pytest.mark.parametrize("name", SLOW)
def test_each_slow_client_comes_to_its_end(slow: dict[str, Link], name: str) -> None:
    """By a deadline that does not begin anew with each byte, and with an answer if it asked for one."""
    statuses = []
    with contextlib.suppress(ConnectionResetError):  # the end of one that still sends
        while (reply := slow[name].reply()) is not None:
            statuses.append(reply.status)

    assert statuses in (SLOW[name].told, SLOW[name].or_told)


def test_the_server_holds_nobody_any_more(server: Server, slow: dict[str, Link]) -> None:
    """All the clients of the tests before are gone or were let go, whatever they did."""
    wait_for(lambda: held(server) == 0, "the last connection to be closed")

    assert [True] * len(SLOW) == [not is_open(link) for link in slow.values()]
    assert all(count == 1 for name, count in Counter(event["id"] for event in server.events()).items() if "." in name)
