"""
Requests and answers of HTTP/1.1 as bytes on a socket: as much of it as a sender to HEC has a use for.
"""

from __future__ import annotations

import base64
import binascii
import zlib
from collections.abc import Mapping
from http import HTTPStatus
from io import BufferedIOBase
from typing import Protocol
from urllib.parse import parse_qs, urlsplit

import msgspec

#: Bounds of a head. Guesses: a sender's has three hundred bytes.
_MAX_LINE_BYTES, _MAX_HEADERS, _MOST_DIGITS = 16 * 1024, 100, 15
#: So much of a body that is refused for its size is read all the same: a client that is reset while it still sends may
#: not see the answer.
_MOST_DRAINED_BYTES = 64 << 20
_CHUNK_BYTES = 64 * 1024
_GZIP = 31


class Head(msgspec.Struct, frozen=True):
    """
    The head of a request; names of headers are in lower case, and of a name that comes twice the last counts.

    `target` is path and query as they came; `length` is that of the body in bytes.
    """

    method: str
    target: str
    path: str
    query: Mapping[str, str]
    headers: Mapping[str, str]
    length: int

    @property
    def keeps_alive(self) -> bool:
        """Tell whether the client wants the connection to stay."""
        return self.headers.get("connection", "").lower() != "close"

    def token(self) -> tuple[str | None, bool]:
        """Return the token of the header, or None, and whether there is a header that has none in a known scheme."""
        scheme, _, rest = self.headers.get("authorization", "").partition(" ")
        if not scheme:
            return None, False
        if scheme.lower() == "splunk" and rest:
            return rest.strip(), False
        if scheme.lower() == "basic":
            try:
                return base64.b64decode(rest, validate=True).decode().partition(":")[2], False
            except (binascii.Error, UnicodeDecodeError):
                pass
        return None, True


class BadRequest(Exception):
    """Raised for a request that is answered with `status` before HEC has a look at it; the connection ends."""

    def __init__(self, status: int, message: str) -> None:
        super().__init__(message)
        self.status = status


class TooLarge(Exception):
    """Raised for a body over its bound."""


class Writer(Protocol):
    """A connected socket, as far as answers are concerned."""

    def sendall(self, data: bytes, /) -> None:
        """Send all of it; raises OSError."""


def read_head(stream: BufferedIOBase) -> Head | None:
    """Read a head; None at the end of the connection. Raises `BadRequest`, and OSError of the socket."""
    first = _line(stream)
    if first is None:
        return None
    words = first.split(" ")
    if len(words) != 3 or not words[2].startswith("HTTP/1."):
        raise BadRequest(400, "the first line is no request of HTTP/1.1")
    headers: dict[str, str] = {}
    while line := _line(stream):
        name, colon, value = line.partition(":")
        if not colon or len(headers) == _MAX_HEADERS:
            raise BadRequest(400, "a line of the head is no header, or there are too many")
        headers[name.strip().lower()] = value.strip()
    if line is None:
        return None
    url = urlsplit(words[1])
    query = {name: values[-1] for name, values in parse_qs(url.query).items()}
    length = headers.get("content-length", "0")
    if not (length.isascii() and length.isdigit() and len(length) <= _MOST_DIGITS):
        raise BadRequest(400, "Content-Length is no number")
    return Head(words[0], words[1], url.path, query, headers, int(length))


def _line(stream: BufferedIOBase) -> str | None:
    line = stream.readline(_MAX_LINE_BYTES + 1)
    if len(line) > _MAX_LINE_BYTES:
        raise BadRequest(431, "a line of the head is too long")
    return line.decode("latin-1").rstrip("\r\n") if line.endswith(b"\n") else None


def read_body(stream: BufferedIOBase, link: Writer, head: Head, *, max_bytes: int) -> bytes | None:
    """
    Read the body, inflated; None if the connection ends in it.

    Raises `TooLarge` over `max_bytes`, which count uncompressed, after it has read what was sent; `BadRequest` for a
    body without a length or in a coding other than gzip; OSError of the socket.
    """
    if "transfer-encoding" in head.headers:
        raise BadRequest(411, "a body has to come with its length")
    coding = head.headers.get("content-encoding", "identity").lower()
    if coding not in {"identity", "gzip"}:
        raise BadRequest(415, f"Content-Encoding {coding} is not known")
    if head.headers.get("expect", "").lower() == "100-continue":
        link.sendall(b"HTTP/1.1 100 Continue\r\n\r\n")
    if head.length > max_bytes:
        left = min(head.length, _MOST_DRAINED_BYTES)
        while left and (chunk := stream.read(min(left, _CHUNK_BYTES))):
            left -= len(chunk)
        raise TooLarge
    data = stream.read(head.length)
    if len(data) < head.length:
        return None
    return inflated(data, max_bytes=max_bytes) if coding == "gzip" else data


def read_body_as_it_is(stream: BufferedIOBase, head: Head) -> bytes | None:
    """Read the body and leave it packed; None if the connection ends in it. Raises `BadRequest` without a length."""
    if "transfer-encoding" in head.headers:
        raise BadRequest(411, "a body has to come with its length")
    data = stream.read(min(head.length, _MOST_DRAINED_BYTES))
    return data if len(data) == head.length else None


def inflated(data: bytes, *, max_bytes: int) -> bytes:
    """Inflate gzip, one member or several; raises `TooLarge` over the bound, and `BadRequest` for what is no gzip."""
    parts: list[bytes] = []
    left = max_bytes
    try:
        while data:
            member = zlib.decompressobj(_GZIP)
            part = member.decompress(data, left + 1)
            if len(part) > left:
                raise TooLarge
            parts.append(part)
            left -= len(part)
            if not member.eof:
                raise BadRequest(400, "the gzip of the body ends too soon")
            data = member.unused_data
    except zlib.error as error:
        raise BadRequest(400, f"the body is no gzip: {error}") from None
    return b"".join(parts)


def written(status: int, headers: Mapping[str, str], body: bytes, *, keeps_alive: bool) -> bytes:
    """Write an answer as it goes over the wire."""
    phrase = HTTPStatus(status).phrase if status in HTTPStatus._value2member_map_ else "Unknown"
    lines = {
        "Content-Type": "application/json; charset=UTF-8",
        "Content-Length": str(len(body)),
        "Connection": "Keep-Alive" if keeps_alive else "close",
        **headers,
    }
    head = "".join(f"{name}: {value}\r\n" for name, value in lines.items())
    return f"HTTP/1.1 {status} {phrase}\r\n{head}\r\n".encode("latin-1") + body
