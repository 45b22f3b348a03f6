"""Uploads are refused before anybody has parsed them, with the answer that they would get behind the parser."""

from __future__ import annotations

import json
import os
import signal
from collections import Counter
from functools import partial
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from collector.outcome import ADMITTED, Reason, Verdict
from collector.protocols.base import Protocol, Reply
from collector.protocols.native import Native
from collector.receiver.answers import cors
from collector.receiver.shed import Shed, Shedder
from tests.server import Link, Server, head, upload, wait_for

FULL = Verdict.refused(Reason.BACKPRESSURE, "no room", retry_after_s=3)


class Desk:
    """A shedder whose verdict the test chooses, and what it counted."""

    def __init__(self, verdict: Verdict = FULL) -> None:
        self.lags: list[float] = []
        self.refused: list[str] = []
        self._verdict = verdict
        self.shedder = Shedder({"/v1/events": Native()}, verdict=self._judge, refuse=self._refuse, cors=cors)

    def _judge(self, lag_s: float) -> Verdict:
        self.lags.append(lag_s)
        return self._verdict

    def _refuse(self, protocol: Protocol, verdict: Verdict) -> Reply:
        self.refused.append(protocol.name)
        return protocol.refuse(verdict)

    def judge(self, request: bytes) -> Shed | None:
        return self.shedder.judge(request, request.find(b"\r\n\r\n"), 0.5)


def test_what_may_come_in_is_left_alone() -> None:
    """The door is open nearly always."""
    desk = Desk(ADMITTED)

    assert desk.judge(upload(b"{}")) is None
    assert ([0.5], []) == (desk.lags, desk.refused)


def test_a_refusal_is_a_whole_answer_in_the_protocols_words() -> None:
    """A device must not be able to tell at which stage it was refused."""
    desk = Desk()
    shed = desk.judge(upload(b"12345"))

    assert shed is not None
    top, _, body = desk.shedder.refuse(shed).partition(b"\r\n\r\n")
    line, *fields = top.decode().split("\r\n")

    assert "HTTP/1.1 503 Service Unavailable" == line
    assert "Retry-After: 3" in fields
    assert f"Content-Length: {len(body)}" in fields
    assert {"status": "error", "code": 503, "error": "backpressure"}.items() <= json.loads(body).items()
    assert (5, ["native"]) == (shed.skip_bytes, desk.refused)


@pytest.mark.parametrize(
    "request_",
    [
        head("/healthz", method="GET"),
        head("/readyz", method="GET"),
        head("/nothing", length=0),
        head("/v1/events", method="OPTIONS"),
        head("/v1/events", length=0, version="1.0"),
        b"no request at all\r\n\r\n",
        head("/v1/events", "content-length : 5", length=5),
        head("/v1/events", "no field", length=5),
        head("/v1/events", "X: a\x00b", length=5),
        head("/v1/events", "Host: another", length=5),
    ],
)
def test_what_is_no_upload_goes_on_to_the_parser(request_: bytes) -> None:
    """A health check must be answered at any load; and what two could read in two ways, the parser refuses."""
    desk = Desk()

    assert desk.judge(request_) is None
    assert [] == desk.refused


@pytest.mark.parametrize(
    "request_",
    [
        head(length=65_537),
        head("/v1/events", "Transfer-Encoding: chunked"),
        head("/v1/events", "Expect: 100-continue", length=5),
        head("/v1/events", "Connection: close", length=5),
        head("/v1/events", "Content-Length: 5", length=5),
        head("/v1/events", "Content-Length: 7", length=5),
        head("/v1/events", "Content-Length: +5"),
        head("/v1/events"),
    ],
)
def test_a_body_whose_end_is_in_doubt_ends_its_connection(request_: bytes) -> None:
    """Whatever of it were taken for the next request could be a stranger's."""
    desk = Desk()
    shed = desk.judge(request_)

    assert shed is not None
    assert shed.skip_bytes is None
    assert b"Connection: close\r\n" in desk.shedder.refuse(shed)


def test_a_browser_may_see_a_refusal() -> None:
    """Without these fields a page sees a network error, and no Retry-After."""
    desk = Desk()
    shed = desk.judge(head("/v1/events?key=k", "Origin: https://shop.example", length=2))

    assert shed is not None
    assert b"\r\nAccess-Control-Allow-Origin: https://shop.example\r\n" in desk.shedder.refuse(shed)
    assert 2 == shed.skip_bytes


@given(
    st.lists(
        st.sampled_from(
            [
                "Accept: x",
                "Content-Length: 3",
                "content-length:3",
                "Content-Length: 3, 3",
                "Content-Length: 0x3",
                "Transfer-Encoding: chunked",
                "TRANSFER-ENCODING: identity",
                "X: Content-Length: 9",
                "Connection: close",
                "Expect: 100-continue",
                "Content-Length:\t3 ",
            ]
        ),
        max_size=5,
    )
)
def test_a_body_is_skipped_only_when_there_is_one_plain_length(fields: list[str]) -> None:
    """One rule, whatever the fields: a single length, and nothing that could overrule it."""
    shed = Desk().judge(b"POST /v1/events HTTP/1.1\r\nHost: x\r\n" + "\r\n".join([*fields, "", ""]).encode())
    names = [field.partition(":")[0].lower() for field in fields]
    plain = [field for field in fields if field.replace(" ", "").replace("\t", "").lower() == "content-length:3"]
    unusual = {"transfer-encoding", "expect", "connection"} & set(names)
    certain = 1 == len(plain) == names.count("content-length") and not unusual

    assert shed is not None
    assert (3 if certain else None) == shed.skip_bytes


def test_a_burst_beyond_the_lag_is_refused_in_part_and_every_connection_lives_on(tmp_path: Path) -> None:
    """Those that can't be served in time are told at once when to come back, and lose nothing by it."""
    # A few turns are too long a wait; and all of them are far more than one look at the sockets and one slice of turns.
    bodies = [json.dumps([{"id": f"burst{n}-{k}"} for k in range(100)]).encode() for n in range(400)]
    with Server(tmp_path, max_lag_s=0.005) as server:
        (worker,) = server.worker_pids()
        links = [server.link() for _ in range(400)]
        for link in links:
            assert 200 == link.send(head("/healthz", method="GET")).must_reply().status
        # What they send while it stands still, it finds at once.
        os.kill(worker, signal.SIGSTOP)
        for link, body in zip(links, bodies, strict=True):
            link.send(upload(body))
        os.kill(worker, signal.SIGCONT)
        replies = [link.must_reply() for link in links]
        refused = [reply for reply in replies if reply.status == 503]
        for link, body, reply in zip(links, bodies, replies, strict=True):
            if reply.status == 503:
                wait_for(partial(is_taken, link, upload(body)), "an upload to be taken that was refused")
            link.sock.close()
        server.settled()

        assert {200, 503} == {reply.status for reply in replies}
        assert {"backpressure"} == {reply.json["error"] for reply in refused}
        assert {"1", "2", "3", "4", "5"} >= {reply.headers["retry-after"] for reply in refused}
        sent = Counter(event["id"] for body in bodies for event in json.loads(body))
        assert sent == Counter(event["id"] for event in server.events())


def is_taken(link: Link, request: bytes) -> bool:
    return 200 == link.send(request).must_reply().status
