"""The simulated HEC over real sockets: what senders are tested against has to be right itself."""

from __future__ import annotations

import gzip
import json
import socket
import ssl
import threading
from collections.abc import Iterator
from datetime import UTC, datetime
from ipaddress import ip_address
from pathlib import Path

import pytest
import requests
from cryptography import x509
from cryptography.hazmat.primitives import hashes, serialization
from cryptography.hazmat.primitives.asymmetric import ec
from cryptography.x509.oid import NameOID

from collector.clock import SystemClock
from collector.control.hec.child import HecChild
from collector.control.hec.endpoint import CLOUD_BYTES, Rules
from collector.control.hec.faults import Answer, Line, Slow, redirect
from collector.control.hec.preflight import look
from collector.control.hec.relay import Relay
from collector.control.hec.simulated import SimulatedHec
from collector.errors import TuneError
from tests.fakes import FakeClock

EVENTS = "/services/collector/event"
GUID = "8f3e1d6e-0a51-4c1e-9c43-0e6f8d9b2a10"
OTHER_GUID = "11111111-2222-4333-8444-555555555555"
WAIT_S = 20


@pytest.fixture(name="hec")
def _hec() -> Iterator[SimulatedHec]:
    with SimulatedHec() as hec:
        yield hec


@pytest.fixture(name="session")
def _session() -> Iterator[requests.Session]:
    with requests.Session() as session:
        session.trust_env = False
        yield session


def body(*events: object) -> bytes:
    return b"".join(json.dumps({"event": event}, separators=(",", ":")).encode() for event in events)


def post(
    hec: SimulatedHec | HecChild, session: requests.Session, data: bytes = body({"a": 1}), *, path: str = EVENTS,
    token: str | None = None, **headers: str,
) -> requests.Response:  # fmt: skip
    authorization = {"Authorization": f"Splunk {hec.token if token is None else token}"}
    sent = authorization | {name.replace("_", "-"): value for name, value in headers.items()}
    return session.post(hec.url + path, data=data, headers=sent, timeout=WAIT_S, allow_redirects=False)


def code(response: requests.Response) -> tuple[int, int]:
    return response.status_code, response.json()["code"]


def raw(hec: SimulatedHec, data: bytes) -> bytes:
    """Send bytes as they are, and return all that comes until the connection ends."""
    with socket.create_connection(("127.0.0.1", hec.port), timeout=WAIT_S) as link:
        link.sendall(data)
        link.shutdown(socket.SHUT_WR)
        return b"".join(iter(lambda: link.recv(65536), b""))


def request_of(hec: SimulatedHec, data: bytes, *headers: str, path: str = EVENTS) -> bytes:
    lines = [f"POST {path} HTTP/1.1", "Host: x", f"Authorization: Splunk {hec.token}", *headers]
    return "\r\n".join([*lines, f"Content-Length: {len(data)}", "", ""]).encode() + data


# -- what it says


@pytest.mark.parametrize("path", ["/services/collector", "/services/collector/event", "/services/collector/event/1.0"])
def test_what_is_posted_is_indexed_byte_for_byte(hec: SimulatedHec, session: requests.Session, path: str) -> None:
    """That each delivered line is there is asserted by its text, so the text may not change on the way."""
    data = b'{"event":{"b" : 1,"a":"\\u00e9}{"}}\n{"event":"text"}{"event":{"last":1.50}}'

    answer = post(hec, session, data, path=path)

    assert (200, {"text": "Success", "code": 0}) == (answer.status_code, answer.json())
    assert [b'{"b" : 1,"a":"\\u00e9}{"}', b'"text"', b'{"last":1.50}'] == hec.lines
    assert (3, 0, 1, len(data)) == (
        (books := hec.books()).indexed, books.repeated, books.bodies, books.body_bytes,
    )  # fmt: skip


def test_gzip_is_inflated_and_the_wire_is_counted(hec: SimulatedHec, session: requests.Session) -> None:
    """What a load balancer counts is the wire, and what a licence counts is not."""
    data = body(*({"n": n} for n in range(100)))
    packed = gzip.compress(data[: len(data) // 2]) + gzip.compress(data[len(data) // 2 :])

    assert 200 == post(hec, session, packed, Content_Encoding="gzip").status_code

    books = hec.books()
    assert (100, len(data), len(packed)) == (books.indexed, books.body_bytes, books.wire_bytes)
    assert sum(len(line) for line in hec.lines) == books.line_bytes
    assert (len(packed), len(data)) == (hec.requests[-1].wire_bytes, hec.requests[-1].body_bytes)


@pytest.mark.parametrize(
    ("headers", "query", "expected"),
    [
        ({}, "", (401, 2)),
        ({"Authorization": "Bearer x"}, "", (401, 3)),
        ({"Authorization": "Splunk"}, "", (401, 3)),
        ({"Authorization": "Basic ???"}, "", (401, 3)),
        ({"Authorization": "Splunk wrong"}, "", (403, 4)),
        ({"Authorization": "Basic eDp3cm9uZw=="}, "", (403, 4)),
        ({"Authorization": "Basic eDpzZWNyZXQ="}, "", (200, 0)),
        ({"Authorization": "splunk secret"}, "", (200, 0)),
        ({}, "?token=secret", (400, 16)),
        ({"Authorization": "Splunk wrong"}, "?token=secret", (403, 4)),
    ],
)
def test_a_token_is_checked_with_the_right_words(
    headers: dict[str, str], query: str, expected: tuple[int, int], session: requests.Session
) -> None:
    """A sender tells its operator what is wrong by these numbers; each has its own remedy."""
    with SimulatedHec(Rules(token="secret")) as hec:
        answer = session.post(hec.url + EVENTS + query, data=body(1), headers=headers, timeout=WAIT_S)

        assert expected == code(answer)
        assert (expected[0] == 200) == bool(hec.lines)


def test_a_token_can_be_disabled_rotated_or_in_the_query(hec: SimulatedHec, session: requests.Session) -> None:
    """All of it happens to a running sender."""
    old = hec.token
    hec.rules = Rules(is_disabled=True)
    assert (403, 1) == code(post(hec, session))
    hec.rules = Rules(token="new", takes_query_token=True)
    assert (403, 4) == code(post(hec, session, token=old))
    assert (200, 0) == code(post(hec, session))
    assert (200, 0) == code(session.post(f"{hec.url}{EVENTS}?token=new", data=body(2), timeout=WAIT_S))


def test_health_needs_no_token_and_an_unknown_path_is_not_found(hec: SimulatedHec, session: requests.Session) -> None:
    """A half-open breaker asks the former, and a wrong URL is the commonest mistake of all."""
    for path in ("/services/collector/health", "/services/collector/health/1.0"):
        assert (200, 17) == code(session.get(hec.url + path, timeout=WAIT_S))
    assert 404 == post(hec, session, path="/services/collectors").status_code
    assert 405 == session.get(hec.url + EVENTS, timeout=WAIT_S).status_code
    assert 405 == post(hec, session, path="/services/collector/health").status_code
    assert 200 == session.options(hec.url + EVENTS, timeout=WAIT_S).status_code
    assert [] == hec.lines


def test_an_event_that_is_bad_is_named(hec: SimulatedHec, session: requests.Session) -> None:
    """The sender drops that one and sends the rest again, or it loses or repeats."""
    answer = post(hec, session, body(1) + b'{"event":""}' + body(3))

    assert (400, {"text": "Event field cannot be blank", "code": 13, "invalid-event-number": 1}) == (
        answer.status_code, answer.json(),
    )  # fmt: skip
    assert [b"1"] == hec.lines


def test_an_index_that_the_token_may_not_use_is_refused(session: requests.Session) -> None:
    """Everything goes to the default index of the token unless the envelope says otherwise."""
    with SimulatedHec(Rules(indexes=frozenset({"main"}))) as hec:
        assert (400, 7) == code(post(hec, session, b'{"event":1,"index":"secret"}'))
        assert (200, 0) == code(post(hec, session, b'{"event":1,"index":"main"}'))


@pytest.mark.parametrize("packed", [False, True])
def test_a_body_over_the_bound_is_refused_uncompressed(session: requests.Session, packed: bool) -> None:
    """The bound counts what is in the gzip; and a bomb of it may not blow up in the server."""
    data = body("x" * 1000)
    with SimulatedHec(Rules(max_content_length=len(data) - 1)) as hec:
        sent, headers = (gzip.compress(data), {"Content_Encoding": "gzip"}) if packed else (data, {})

        assert (413, 6) == code(post(hec, session, sent, **headers))
        hec.rules = Rules(max_content_length=len(data) - 1, oversize_status=400)
        answer = post(hec, session, sent, **headers)
        assert (400, 6, 0) == (*code(answer), answer.json()["invalid-event-number"])
        assert [413, 400] == [request.status for request in hec.requests]
        hec.rules = Rules(max_content_length=len(data))
        assert (200, 0) == code(post(hec, session, sent, **headers))


def test_a_large_body_that_is_refused_is_answered_and_not_reset(session: requests.Session) -> None:
    """A client that is still sending when it is reset may never see why."""
    with SimulatedHec(Rules(max_content_length=CLOUD_BYTES)) as hec:
        assert 413 == post(hec, session, b" " * (12 << 20)).status_code


# -- acknowledgements


def test_an_ack_is_true_once_it_is_due_and_once_only(session: requests.Session) -> None:
    """Who asks again is told false, like one who asks on another channel: so a sender may not ask carelessly."""
    clock = FakeClock()
    with SimulatedHec(Rules(ack=True, ack_after_s=1.3), clock=clock) as hec:

        def acks(*ids: int, channel: str = GUID) -> dict[str, bool]:
            data = json.dumps({"acks": ids}).encode()
            path = f"/services/collector/ack?channel={channel}"
            return dict(post(hec, session, data, path=path).json()["acks"])

        first, second = (post(hec, session, X_Splunk_Request_Channel=GUID).json()["ackId"] for _ in range(2))
        other = post(hec, session, X_Splunk_Request_Channel=OTHER_GUID).json()["ackId"]

        assert (0, 1, 0) == (first, second, other)
        assert {"0": False, "1": False} == acks(0, 1)
        clock.advance(1.3)
        assert {"1": True, "7": False} == acks(1, 7)
        assert {"0": False, "1": False} == acks(0, 1, channel=GUID.replace("8", "9"))
        assert {"0": True, "1": False} == acks(0, 1)


def test_a_channel_is_asked_for_where_acks_are_on(session: requests.Session) -> None:
    """The stock handler sends none, and loses each batch to such a token."""
    ack = "/services/collector/ack"
    with SimulatedHec(Rules(ack=True)) as hec:
        assert (400, 10) == code(post(hec, session))
        assert (400, 11) == code(post(hec, session, X_Splunk_Request_Channel="mine"))
        assert (400, 10) == code(post(hec, session, b'{"acks":[0]}', path=ack))
        assert (400, 6) == code(post(hec, session, b"[]", path=ack, X_Splunk_Request_Channel=GUID))
        assert "ackId" not in post(hec, session, b"{", X_Splunk_Request_Channel=GUID).json()
    with SimulatedHec() as hec:
        assert (400, 14) == code(post(hec, session, b'{"acks":[0]}', path=ack, X_Splunk_Request_Channel=GUID))
        assert {"text": "Success", "code": 0} == post(hec, session, X_Splunk_Request_Channel=GUID).json()


# -- the wire


def test_requests_of_one_connection_are_answered_in_their_order(hec: SimulatedHec) -> None:
    """A sender keeps its connection, or pays for TLS with each batch."""
    answer = raw(hec, request_of(hec, body(1)) + request_of(hec, b"{") + request_of(hec, body(3), "Connection: close"))

    assert [b"200 OK", b"400 Bad Request", b"200 OK"] == [
        part[:15].split(b"\r")[0] for part in answer.split(b"1.1 ")[1:]
    ]
    assert [b"1", b"3"] == hec.lines


@pytest.mark.parametrize(
    ("data", "status"),
    [
        (b"nonsense\r\n\r\n", b"400"),
        (b"POST / HTTP/1.1\r\nnonsense\r\n\r\n", b"400"),
        (b"POST / HTTP/1.1\r\nContent-Length: -1\r\n\r\n", b"400"),
        (b"POST / HTTP/1.1\r\nContent-Length: \xb2\r\n\r\n", b"400"),
        (b"POST / HTTP/1.1\r\nTransfer-Encoding: chunked\r\n\r\n0\r\n\r\n", b"411"),
        (b"POST / HTTP/1.1\r\nContent-Encoding: deflate\r\n\r\n", b"415"),
        (b"POST / HTTP/1.1\r\nContent-Encoding: gzip\r\nContent-Length: 2\r\n\r\nxx", b"400"),
        (b"POST / HTTP/1.1\r\nX: " + b"x" * 20_000 + b"\r\n\r\n", b"431"),
        (b"POST / HTTP/1.1\r\n" + b"".join(b"X-%d: x\r\n" % n for n in range(101)) + b"\r\n", b"400"),
    ],
)
def test_what_is_no_request_is_answered_and_the_connection_ends(hec: SimulatedHec, data: bytes, status: bytes) -> None:
    """What follows such a thing can't be told apart from its body."""
    answer = raw(hec, data + request_of(hec, body(1)))

    assert [b"HTTP/1.1", status] == answer.split(b" ")[:2]
    assert 1 == answer.count(b"HTTP/1.1 ")
    assert b"Connection: close" in answer
    assert [] == hec.lines


def test_gzip_that_ends_too_soon_is_refused_whole(hec: SimulatedHec) -> None:
    """The events before the cut would be indexed, and the sender would never know of the rest."""
    packed = gzip.compress(body(1, 2, 3))[:-12]

    assert b" 400 " in raw(hec, request_of(hec, packed, "Content-Encoding: gzip"))
    assert [] == hec.lines


@pytest.mark.parametrize(
    "sent", [b"", b"POST /x", b"POST / HTTP/1.1\r\nHost: x\r\n", b"POST / HTTP/1.1\r\nContent-Length: 9\r\n\r\nx"]
)
def test_a_request_that_breaks_off_is_no_request(hec: SimulatedHec, sent: bytes) -> None:
    """A sender that dies in the middle has sent nothing."""
    assert b"" == raw(hec, sent)
    assert [] == hec.requests


def test_a_client_that_waits_to_be_told_to_go_on_is_told(hec: SimulatedHec) -> None:
    """curl does so with larger bodies, and waits for a second otherwise."""
    data = body(1)
    with socket.create_connection(("127.0.0.1", hec.port), timeout=WAIT_S) as link:
        link.sendall(request_of(hec, data, "Expect: 100-continue")[: -len(data)])
        assert link.recv(100).startswith(b"HTTP/1.1 100 Continue\r\n\r\n")
        link.sendall(data)
        assert link.recv(100).startswith(b"HTTP/1.1 200 OK")


# -- faults


@pytest.mark.parametrize("fault", [Line.RESET, Line.CLOSE_BEFORE, Line.LOSE_ANSWER, Line.CUT_ANSWER])
def test_a_connection_that_ends_without_an_answer_may_have_had_its_effect(
    hec: SimulatedHec, session: requests.Session, fault: Line
) -> None:
    """What the sender sees is nearly the same; whether it repeats is told by the lines alone."""
    hec.script(fault, None)

    with pytest.raises(requests.RequestException):
        post(hec, session, body(1))
    assert 200 == post(hec, session, body(1)).status_code

    taken = fault in {Line.LOSE_ANSWER, Line.CUT_ANSWER}
    assert [b"1"] * (2 if taken else 1) == hec.lines
    assert int(taken) == hec.books().repeated


def test_a_reset_is_one_and_an_orderly_end_is_none(hec: SimulatedHec) -> None:
    """The kernel tells a sender of the first at once, in the middle of a write if need be."""
    hec.script(Line.RESET, Line.CLOSE_BEFORE)

    with socket.create_connection(("127.0.0.1", hec.port), timeout=WAIT_S) as link:
        link.sendall(request_of(hec, body(1)))
        with pytest.raises(ConnectionResetError):
            link.recv(1)
    assert b"" == raw(hec, request_of(hec, body(1)))


def test_a_connection_may_end_after_a_good_answer(hec: SimulatedHec) -> None:
    """A busy Splunk closes idle connections after 12 s: the next batch meets a stale one."""
    hec.script(Line.CLOSE_AFTER)
    answer = raw(hec, request_of(hec, body(1)) + request_of(hec, body(2)))

    assert 1 == answer.count(b"HTTP/1.1 200 OK")
    assert b"Keep-Alive" in answer
    assert [b"1"] == hec.lines


def test_a_black_hole_swallows_until_the_client_gives_up(hec: SimulatedHec, session: requests.Session) -> None:
    """It costs the sender its whole timeout each time, and is the outage that hangs others."""
    hec.stand(Line.BLACK_HOLE)
    with socket.create_connection(("127.0.0.1", hec.port), timeout=WAIT_S) as link:
        link.sendall(request_of(hec, body(1)))
        link.settimeout(0.05)
        with pytest.raises(TimeoutError):
            link.recv(1)
        hec.stand(None)
        with pytest.raises(TimeoutError):
            link.recv(1)
    assert 200 == post(hec, session, body(2)).status_code
    assert [b"2"] == hec.lines
    assert [0, 200] == [request.status for request in hec.requests]


def test_an_answer_may_be_anything(hec: SimulatedHec, session: requests.Session) -> None:
    """Proxies answer with pages, balancers with 502, Splunk with numbers; who follows a redirect loses the batch."""
    hec.script(
        Answer(code=26, headers=(("Retry-After", "7"),)),
        Answer(status=502, body=b"<html>"),
        Answer(code=24, takes=True),
        redirect("http://127.0.0.1:9/elsewhere"),
        Answer(code=99, text="New"),
    )

    busy = post(hec, session)
    assert ((429, 26), "7") == (code(busy), busy.headers["Retry-After"])
    page = post(hec, session)
    assert (502, b"<html>") == (page.status_code, page.content)
    assert [] == hec.lines
    assert (200, 24) == code(post(hec, session, body(3)))
    assert [b"3"] == hec.lines
    moved = post(hec, session)
    assert (302, "http://127.0.0.1:9/elsewhere") == (moved.status_code, moved.headers["Location"])
    odd = post(hec, session)
    assert (500, {"text": "New", "code": 99}) == (odd.status_code, odd.json())
    assert [26, 9, 24, 9, 99] == [request.code for request in hec.requests]


def test_a_script_is_for_events_and_what_stands_is_for_all(hec: SimulatedHec, session: requests.Session) -> None:
    """A health probe in between would use up what was meant for the next batch; an outage is of the whole server."""
    health = f"{hec.url}/services/collector/health"
    hec.script(Answer(code=8))
    assert 200 == session.get(health, timeout=WAIT_S).status_code
    assert 500 == post(hec, session).status_code
    hec.stand(Answer(code=18))
    assert (503, 18) == code(session.get(health, timeout=WAIT_S))
    hec.script_by(lambda head: Slow(0.0) if head.method == "GET" else None)
    assert (200, 17) == code(session.get(health, timeout=WAIT_S))
    assert (503, 18) == code(post(hec, session))
    hec.script_by(None)
    hec.stand(None)
    assert (200, 0) == code(post(hec, session))


def test_an_outage_refuses_and_comes_back_on_the_same_port(hec: SimulatedHec, session: requests.Session) -> None:
    """A sender has one URL; what it held during the outage has to arrive at it."""
    url, port = hec.url, hec.port
    assert 200 == post(hec, session, body(1)).status_code
    for _ in range(3):
        with hec.outage():
            assert 0 == hec.connections
            with pytest.raises(ConnectionRefusedError):
                socket.create_connection(("127.0.0.1", port), timeout=WAIT_S)
        assert 200 == post(hec, session, body(2)).status_code
    with hec.outage(Answer()):
        assert (503, 9) == code(post(hec, session))
    assert 200 == post(hec, session, body(3)).status_code
    assert url == hec.url
    assert [b"1", *[b"2"] * 3, b"3"] == hec.lines


def test_a_request_that_is_worked_on_when_the_outage_begins_has_no_effect(hec: SimulatedHec) -> None:
    """Else the outage begins with a line that nobody was told of; and the switch may not wait for the work."""
    hec.latency_s = 3600.0
    with socket.create_connection(("127.0.0.1", hec.port), timeout=WAIT_S) as link:
        link.sendall(request_of(hec, body(1)))
        hec.script_by(lambda _: None)
        while hec.connections == 0:
            pass
        switch = threading.Thread(target=hec.refuse)
        switch.start()
        switch.join(WAIT_S)
        assert not switch.is_alive()
        assert b"" == link.recv(100)
    assert [] == hec.lines


def test_latency_and_rate_are_what_a_request_takes(session: requests.Session) -> None:
    """Asked of the clock, and not of how long a test took."""
    clock = FakeClock()
    waited: list[float] = []

    with SimulatedHec(latency_s=0.25, bytes_per_s=1000, clock=clock) as hec:
        hec._listening._serve = lambda link, _: hec._serve(link, _Waits(waited))  # type: ignore[arg-type]
        data = body("x" * 488)
        assert 500 == len(data)
        post(hec, session, data)
        post(hec, session, data)
        session.get(f"{hec.url}/services/collector/health", timeout=WAIT_S)
        clock.advance(10)
        post(hec, session, data)
        hec.script(Slow(2.0))
        hec.bytes_per_s = 0
        post(hec, session, data)
        hec.latency_s = 0
        post(hec, session, data)

    # The second comes when the first is not yet through, and the third finds the line free.
    assert [0.75, 1.25, 0.25, 0.75, 2.25] == waited


class _Waits:
    """An event that is never set, and waits for nothing."""

    def __init__(self, waited: list[float]) -> None:
        self._waited = waited

    def wait(self, timeout: float) -> bool:
        self._waited.append(timeout)
        return False


# -- bounds and ends


def test_what_is_kept_is_bounded_and_what_is_counted_is_not(session: requests.Session) -> None:
    """A run of an hour may not fill the memory of the machine that it measures."""
    with SimulatedHec(Rules(keep_lines=3, keep_requests=2)) as hec:
        for n in range(4):
            post(hec, session, body(n, n))
        assert [b"0", b"0", b"1"] == hec.lines
        assert 2 == len(hec.requests)
        assert (8, 4, 4) == ((books := hec.books()).indexed, books.repeated, books.codes["0"])
        hec.forget()
        assert ([], [], 0, {}) == (hec.lines, hec.requests, hec.books().indexed, hec.books().codes)


def test_all_threads_end_with_the_server() -> None:
    """A test that leaves some behind is a test of the next one."""
    before = set(threading.enumerate())
    with SimulatedHec() as hec:
        hec.stand(Line.BLACK_HOLE)
        hec.latency_s = 3600.0
        links = [socket.create_connection(("127.0.0.1", hec.port), timeout=WAIT_S) for _ in range(5)]
        for link in links[1:]:
            link.sendall(request_of(hec, body(1)))
        while hec.connections < 5:
            pass
    assert before == set(threading.enumerate())
    assert 0 == hec.connections
    for link in links:
        link.close()
    hec.listen()
    with pytest.raises(ConnectionRefusedError):
        socket.create_connection(("127.0.0.1", hec.port), timeout=WAIT_S)


def test_one_connection_too_many_is_ended(
    hec: SimulatedHec, session: requests.Session, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Each has a thread."""
    monkeypatch.setattr("collector.control.hec.listening._MOST_CONNECTIONS", 1)
    assert 200 == post(hec, session).status_code
    with socket.create_connection(("127.0.0.1", hec.port), timeout=WAIT_S) as link:
        assert b"" == link.recv(1)
    assert 200 == post(hec, session).status_code


def test_it_speaks_tls_with_a_certificate(tmp_path: Path) -> None:
    """A real HEC does by default, and a sender has to be tried with it: trusted, and not."""
    certificate, context = self_signed(tmp_path)
    with SimulatedHec(certificate=context) as hec, requests.Session() as session:
        session.trust_env = False
        session.verify = str(certificate)
        assert hec.url.startswith("https://")
        assert 200 == post(hec, session).status_code
        session.verify = True
        session.close()
        with pytest.raises(requests.exceptions.SSLError):
            post(hec, session)
        session.verify = str(certificate)
        hec.hang_up()
        assert 200 == post(hec, session).status_code
        # The look and the relay of the stress test check it, too.
        envelopes = [b'{"event":1}']
        assert 6 == look(hec.url, hec.token, envelopes, clock=SystemClock(), ca_file=str(certificate)).sent_lines
        with pytest.raises(TuneError, match="a certificate that is not trusted"):
            look(hec.url, hec.token, envelopes, clock=SystemClock())
        with Relay(hec.url, ca_file=str(certificate)) as relay:
            health = session.get(f"{relay.url}/services/collector/health", timeout=WAIT_S)
            assert (200, 17) == code(health)


def self_signed(folder: Path) -> tuple[Path, ssl.SSLContext]:
    """Make a certificate for 127.0.0.1 that signs itself."""
    key = ec.generate_private_key(ec.SECP256R1())
    name = x509.Name([x509.NameAttribute(NameOID.COMMON_NAME, "hec")])
    start = datetime(2026, 1, 1, tzinfo=UTC)
    made = (
        x509.CertificateBuilder()
        .subject_name(name)
        .issuer_name(name)
        .public_key(key.public_key())
        .serial_number(1)
        .not_valid_before(start)
        .not_valid_after(start.replace(year=2126))
        .add_extension(x509.SubjectAlternativeName([x509.IPAddress(ip_address("127.0.0.1"))]), critical=False)
        .add_extension(x509.BasicConstraints(ca=True, path_length=None), critical=True)
        .sign(key, hashes.SHA256())
    )
    certificate, secret = folder / "hec.pem", folder / "hec.key"
    certificate.write_bytes(made.public_bytes(serialization.Encoding.PEM))
    secret.write_bytes(
        key.private_bytes(serialization.Encoding.PEM, serialization.PrivateFormat.PKCS8, serialization.NoEncryption())
    )
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
    context.load_cert_chain(certificate, secret)
    return certificate, context
