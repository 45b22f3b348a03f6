"""
The floor: a server that does the least that any server has to, on the worker that Collector's is made from.

It receives a request, parses its head, splits its body into events, writes them to a file on tmpfs in one call, and
answers in one send. It knows no key and no limit, keeps nothing, and believes whatever it is sent: what it takes for an
upload is what is left when all else has become free.
"""

from __future__ import annotations

import os
from contextlib import suppress
from typing import Any

import msgspec
from gunicorn.workers.ggevent import GeventWorker
from gunicorn_h1c import parse_request_fast
from isal import isal_zlib

_STEP_BYTES = 64 * 1024
#: The file begins anew when it has so many bytes.
_MOST_BYTES = 64 << 20
#: zlib's number for gzip.
_GZIP = 31
_ANSWER = b"HTTP/1.1 200 OK\r\nContent-Type: application/json\r\nContent-Length: 2\r\n\r\n{}"
_decode = msgspec.json.Decoder(list[msgspec.Raw]).decode


class Floor(GeventWorker):  # type: ignore[misc]  # gunicorn ships no types
    """gunicorn's gevent worker, with a connection loop that does nothing else."""

    def init_process(self) -> None:
        """Open the file, in the folder of the run, which lies on tmpfs."""
        self.file = os.open("written", os.O_WRONLY | os.O_CREAT | os.O_TRUNC | os.O_CLOEXEC, 0o600)
        super().init_process()

    def handle(self, _listener: Any, client: Any, _addr: Any) -> None:  # noqa: ANN401 -- gevent's sockets have no types
        """Serve a connection to its end."""
        with client, suppress(OSError):
            serve(client, self.file)


def serve(client: Any, file: int) -> None:  # noqa: ANN401 -- as above
    """Answer every request of a connection."""
    data = b""
    while data := data or receive(client):
        at, length, is_gzip = parse(data)
        whole = at + length
        if len(data) < whole:
            data = receive(client, data, whole)
        if length:
            body = data[at:whole]
            write(file, split(inflate(body) if is_gzip else body))
        send(client)
        data = data[whole:]


def receive(client: Any, begun: bytes = b"", whole: int = 0) -> bytes:  # noqa: ANN401 -- as above
    """Wait until something has come, or until `whole` bytes have; raises OSError if the client goes meanwhile."""
    parts, size = [begun], len(begun)
    while True:
        client._wait(client._read_event)  # noqa: SLF001 -- as Collector does, to save the look before the wait
        with suppress(BlockingIOError):
            data: bytes = client._sock.recv(_STEP_BYTES)  # noqa: SLF001 -- as above
            if not whole:
                return data
            if not data:
                raise ConnectionResetError
            parts.append(data)
            size += len(data)
            if size >= whole:
                return b"".join(parts)


def parse(data: bytes) -> tuple[int, int, bool]:
    """Return where a head ends, how long its body is, and whether that is compressed."""
    head = parse_request_fast(data)
    return head.consumed, max(0, head.content_length), head.get_header(b"content-encoding") is not None


def inflate(body: bytes) -> bytes:
    """Undo gzip."""
    plain: bytes = isal_zlib.decompress(body, _GZIP)
    return plain


def split(body: bytes) -> list[msgspec.Raw]:
    """Return the events of an array."""
    return _decode(body)


def write(file: int, events: list[msgspec.Raw]) -> None:
    """Write the events."""
    os.write(file, b"\n".join(events))
    if os.lseek(file, 0, os.SEEK_CUR) > _MOST_BYTES:
        os.ftruncate(file, 0)
        os.lseek(file, 0, os.SEEK_SET)


def send(client: Any) -> None:  # noqa: ANN401 -- as above
    """Answer."""
    client._sock.send(_ANSWER)  # noqa: SLF001 -- as above
