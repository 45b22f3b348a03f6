"""The load of the chaos runs: what its devices write down of an answer, whatever the answer."""

from __future__ import annotations

import gzip
import os
import socket
import threading
from collections.abc import Callable, Iterator
from contextlib import contextmanager

import msgspec
import pytest

from tests.server import free_ports
from tests.system.chaos import diary, events
from tests.system.chaos.load import Device, Load, Plan

Answer = Callable[[socket.socket, bytes], None]


def http(status: str, body: bytes, *fields: str) -> bytes:
    head = "\r\n".join([f"HTTP/1.1 {status}", *fields, f"Content-Length: {len(body)}"])
    return head.encode() + b"\r\n\r\n" + body


def accept(accepted: int, *fields: str) -> bytes:
    said = {"status": "ok", "accepted": accepted, "rejected": [], "ack": "spool", "receipt": "r"}
    return http("200 OK", msgspec.json.encode(said), *fields)


def take(request: bytes) -> bytes:
    head, _, body = request.partition(b"\r\n\r\n")
    return accept((gzip.decompress(body) if b"gzip" in head else body).count(b'"sum"'))


def refuse(status: str, reason: str, *fields: str) -> bytes:
    return http(status, msgspec.json.encode({"status": "error", "error": reason}), *fields)


class Script:
    """A server that answers request after request by a script, and takes every upload when that is at its end."""

    def __init__(self, *answers: bytes) -> None:
        self._answers = list(answers)
        self._listener = socket.create_server(("127.0.0.1", 0))
        self.port = int(self._listener.getsockname()[1])
        self.requests: list[bytes] = []
        self._thread = threading.Thread(target=self._serve, daemon=True)
        self._thread.start()

    def close(self) -> None:
        self._listener.shutdown(socket.SHUT_RDWR)
        self._thread.join(10.0)
        self._listener.close()

    def _serve(self) -> None:
        while True:
            try:
                client, _ = self._listener.accept()
            except OSError:
                return
            with client:
                while request := _request(client):
                    self.requests.append(request)
                    answer = self._answers.pop(0) if self._answers else take(request)
                    client.sendall(answer)
                    if answer[:13] != b"HTTP/1.1 200 " or b"onnection: close" in answer:
                        break


def _request(client: socket.socket) -> bytes:
    data = b""
    while b"\r\n\r\n" not in data:
        if not (more := client.recv(65536)):
            return b""
        data += more
    head, _, body = data.partition(b"\r\n\r\n")
    length = int(head.rpartition(b"Content-Length: ")[2])
    while len(body) < length:
        body += client.recv(65536)
    return head + b"\r\n\r\n" + body


@contextmanager
def script(*answers: bytes) -> Iterator[Script]:
    server = Script(*answers)
    try:
        yield server
    finally:
        server.close()


def run(port: int, *, until: Callable[[Load], bool], **fields: bool) -> diary.Diary:
    """Let one device work until a condition holds, and return its diary."""
    device = Device(name="red-0", tenant="red", key="red-key", pause_s=0.01, **fields)
    load = Load(Plan(port=port, devices=[device], diary="", seed=1), last_s=0.5)
    read, write = os.pipe()
    try:
        thread = threading.Thread(target=load.run, args=(read,), daemon=True)
        thread.start()
        patience = threading.Event()
        for _ in range(2000):
            if until(load):
                break
            patience.wait(0.005)
        else:
            pytest.fail(f"the device did not come so far: {load.diary}")
        os.write(write, b"\n")
        thread.join(20.0)
        assert not thread.is_alive()
    finally:
        os.close(read)
        os.close(write)
    return load.diary


def test_an_upload_that_is_taken_is_written_down_with_its_receipt() -> None:
    """What a device was told is what the oracle holds against the sink."""
    with script() as server:
        kept = run(server.port, until=lambda load: len(server.requests) >= 4)

    device = kept.devices[0]
    assert device.begun == len(server.requests) == len(device.receipts)
    assert ["r", "r", "r"] == device.receipts[:3]
    assert [] == kept.failures
    assert events.upload("red-0", 1)[0] == server.requests[1].partition(b"\r\n\r\n")[2]
    assert b"Content-Encoding: gzip" in server.requests[0]


@pytest.mark.parametrize(
    ("answer", "kind"),
    [
        (refuse("500 Internal Server Error", "internal"), "status 500 internal"),
        (refuse("503 Service Unavailable", "backpressure"), "status 503 backpressure"),
        (refuse("503 Service Unavailable", "backpressure", "Retry-After: 60"), "status 503 backpressure"),
        (refuse("400 Bad Request", "malformed"), "status 400 malformed"),
        (accept(99, "Connection: close"), "an answer that is not about the upload"),
        (b"HTTP/1.1 503 Oops\r\nContent-Length: 400\r\n\r\n{", "closed within an answer"),
        (b"\0" * 30 + b"\r\n\r\n", "no answer of ours"),
    ],
)
def test_an_answer_that_no_device_may_get_is_a_failure_and_the_upload_is_sent_again(answer: bytes, kind: str) -> None:
    """Whatever is not a promise and not a true refusal is a broken request."""
    with script(answer) as server:
        kept = run(server.port, until=lambda load: len(load.diary.devices[0].receipts) >= 1)

    assert [True] == [failure.kind.startswith(kind) for failure in kept.failures]
    assert {0: [diary.FAILED]} == kept.devices[0].again
    assert server.requests[0] == server.requests[1]


@pytest.mark.parametrize(("ack_sink", "outcome"), [(False, diary.REFUSED), (True, diary.UNCONFIRMED)])
def test_a_device_that_is_sent_away_comes_again_and_no_failure_is_written(ack_sink: bool, outcome: str) -> None:
    """A 503 with a time to come back is an answer; of one that waited for its sink nobody knows what it kept."""
    with script(refuse("503 Service Unavailable", "backpressure", "Retry-After: 2")) as server:
        kept = run(server.port, until=lambda load: len(load.diary.devices[0].receipts) >= 1, ack_sink=ack_sink)

    assert [] == kept.failures[:1] or (kept.failures[0].asked_at > 0 and len(kept.devices[0].receipts) >= 1)
    assert {"red backpressure": 1} == kept.refusals
    assert [outcome] == kept.devices[0].again[0]


def test_a_connection_that_nobody_takes_is_told_from_one_that_is_broken_off() -> None:
    """Between two tasks nobody listens; a connection that was taken must be served."""
    (port,) = free_ports(1)
    with script(b"") as server:
        broken_off = run(server.port, until=lambda load: len(load.diary.devices[0].receipts) >= 1)
    nobody = run(port, until=lambda load: bool(load.diary.failures))

    assert ["closed without an answer"] == [failure.kind for failure in broken_off.failures]
    assert {0: [diary.FAILED]} == broken_off.devices[0].again
    assert {diary.NOBODY_LISTENS} == {failure.kind for failure in nobody.failures}
    assert (1, []) == (nobody.devices[0].begun, nobody.devices[0].receipts)
