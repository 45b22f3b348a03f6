"""The load generator, against a real server that answers in every way a server can."""

from __future__ import annotations

import socketserver
import threading
from collections.abc import Callable, Iterator
from contextlib import contextmanager

import pytest

from bench.links import LoadError
from bench.load import Traffic, drive

BODY = b'{"status":"ok"}'
OK = b"HTTP/1.1 200 OK\r\nContent-Length: %d\r\n\r\n%s" % (len(BODY), BODY)
REQUEST = b"POST /v1/events HTTP/1.1\r\nContent-Length: 3\r\n\r\nabc"

#: Gets the body of a request and its number on the connection; returns pieces to send, and whether to go on.
Behaviour = Callable[[bytes, int], tuple[list[bytes], bool]]


class Answers:
    """What a server was asked, over all connections."""

    def __init__(self) -> None:
        self.bodies: list[bytes] = []
        self.lock = threading.Lock()


@contextmanager
def server(behave: Behaviour) -> Iterator[tuple[tuple[str, int], Answers]]:
    answers = Answers()

    class Handler(socketserver.StreamRequestHandler):
        disable_nagle_algorithm = True  # each piece on its own, and at once

        def handle(self) -> None:
            number, go_on = 0, True
            while go_on:
                length = 0
                line = self.rfile.readline()
                if not line:
                    return
                while line.strip():
                    name, _, value = line.partition(b":")
                    length = int(value) if name == b"Content-Length" else length
                    line = self.rfile.readline()
                body = self.rfile.read(length)
                with answers.lock:
                    answers.bodies.append(body)
                pieces, go_on = behave(body, number)
                number += 1
                for piece in pieces:
                    self.wfile.write(piece)
                    self.wfile.flush()

    class Server(socketserver.ThreadingTCPServer):
        daemon_threads = True
        request_queue_size = 64

    with Server(("127.0.0.1", 0), Handler) as listening:
        thread = threading.Thread(target=listening.serve_forever, kwargs={"poll_interval": 0.01})
        thread.start()
        try:
            yield ("127.0.0.1", listening.server_address[1]), answers
        finally:
            listening.shutdown()
            thread.join()


def load(address: tuple[str, int], requests: list[bytes], expected: bytes = b'"ok"') -> Traffic:
    return drive(address, requests, connections=4, seconds=0.1, warm_up_s=0.02, expected=expected)


def test_every_request_that_was_sent_is_counted_by_its_answer() -> None:
    """The count is held against the ledger: one answer too few looks like an event too many."""
    with server(lambda body, number: ([OK], True)) as (address, answers):
        traffic = load(address, [REQUEST])

    assert len(answers.bodies) == traffic.acknowledged
    assert 0 < len(traffic.latencies_s) <= traffic.acknowledged
    assert {} == traffic.unexpected


def test_an_answer_in_pieces_is_one_answer() -> None:
    """A head that comes in two reads must not be counted twice, nor its body taken for another head."""
    pieces = [OK[:7], OK[7:30], OK[30:-3], OK[-3:]]
    with server(lambda body, number: (pieces, True)) as (address, answers):
        traffic = load(address, [REQUEST])

    assert len(answers.bodies) == traffic.acknowledged
    assert {} == traffic.unexpected


def test_a_request_that_no_buffer_holds_arrives_whole() -> None:
    """An upload is sent on as the server takes it; half of one would be refused, or worse, counted."""
    body = b"x" * (8 << 20)
    request = b"POST / HTTP/1.1\r\nContent-Length: %d\r\n\r\n%s" % (len(body), body)
    with server(lambda body, number: ([OK], True)) as (address, answers):
        traffic = load(address, [request])

    assert {len(body)} == {len(one) for one in answers.bodies}
    assert len(answers.bodies) == traffic.acknowledged


def test_a_refusal_is_no_answer_of_the_rate_and_the_load_goes_on() -> None:
    """A server that refuses everything at great speed would win every benchmark."""
    refusal = b"HTTP/1.1 503 Busy\r\nConnection: close\r\nContent-Length: 2\r\n\r\nno"
    with server(lambda body, number: ([OK], True) if number < 2 else ([refusal], False)) as (address, answers):
        traffic = load(address, [REQUEST])

    assert {"503"} == set(traffic.unexpected)
    assert len(answers.bodies) == traffic.acknowledged + traffic.unexpected["503"]
    assert traffic.acknowledged > 2 * 4
    assert len(traffic.latencies_s) <= traffic.acknowledged


def test_a_200_that_says_something_else_is_not_acknowledged() -> None:
    """An upload taken in part is answered with 200 too."""
    with server(lambda body, number: ([OK], True)) as (address, answers):
        traffic = load(address, [REQUEST], expected=b'"accepted":5')

    assert 0 == traffic.acknowledged
    assert {"200": len(answers.bodies)} == traffic.unexpected


@pytest.mark.parametrize(
    ("pieces", "words"),
    [
        ([], "closed"),
        ([b"HTTP/1.1 200 OK\r\nContent-Le"], "closed"),
        ([b"HTTP/1.1 200 OK\r\n\r\n"], "without Content-Length"),
        ([b"SSH-2.0-x\r\nContent-Length: 0\r\n\r\n"], "no HTTP"),
    ],
)
def test_a_server_that_breaks_http_ends_the_run(pieces: list[bytes], words: str) -> None:
    """What became of such a request nobody knows, so no count that holds it can be true."""
    with server(lambda body, number: (pieces, False)) as (address, _), pytest.raises(LoadError, match=words):
        load(address, [REQUEST])


def test_a_latency_is_the_one_that_a_part_did_not_exceed() -> None:
    """Off by one at the end would show the maximum as p99, or fail on a single request."""
    traffic = Traffic(1.0, 4, [0.1, 0.2, 0.3, 0.4], {}, 0.0)

    assert (0.3, 0.4, 0.4) == (traffic.latency_s(0.5), traffic.latency_s(0.99), traffic.latency_s(1.0))
    assert 0.0 == Traffic(1.0, 0, [], {}, 0.0).latency_s(0.5)
