"""
The hot door: the uploads that nearly all devices send, served straight from gunicorn's parser in C.

`look` decides by the head alone. It takes a POST to an ingest path, of HTTP/1.1, with one plain Content-Length and
every field once; whatever is unusual is None, and goes unread through gunicorn's own parser and Flask. Both doors call
the same `take`, and give the same answers to the same bytes: a differential suite and a fuzzer hold that.
"""

from __future__ import annotations

import re
from collections.abc import Callable, Mapping, Sequence
from email.utils import formatdate
from typing import Any

import gunicorn
import msgspec
from gunicorn_h1c import parse_request_fast

from collector.outcome import ADMITTED
from collector.protocols.base import JSON_HEADERS, Protocol, Reply, Request
from collector.receiver.addresses import remote_ip
from collector.receiver.answers import STATUS_TEXTS, fields_of
from collector.receiver.body import BodyRoom
from collector.receiver.intake import Intake, refuse
from collector.receiver.together import Taken, take_together
from collector.receiver.upload import take

#: Fields that change what a request is, or that Flask's door reads in a way of its own.
_UNUSUAL = frozenset({"transfer-encoding", "expect", "upgrade"})
#: What Werkzeug and we read in one way.
_HOST = re.compile(r"[A-Za-z0-9.-]+(?::[0-9]{1,5})?")
_QUERY = re.compile(rb"[!\"$-~]*")  # printable, without a fragment's mark
_ORIGIN = re.compile(r"[!-~]+")
#: A length of more digits is over every limit.
_MAX_DIGITS = 9
_LINES = {status: f"HTTP/1.1 {text}\r\n".encode() for status, text in STATUS_TEXTS.items()}
_US_PER_S = 1_000_000


#: gunicorn's limits of a head: bytes of the request line, number of fields, bytes of a field.
HeadLimits = tuple[int, int, int]
#: What gunicorn 27 takes instead of a limit that is none, or too high (http/message.py).
_MOST_LINE, _UNLIMITED_LINE, _MOST_FIELDS, _USUAL_FIELD = 8190, 1024 * 1024, 32768, 8190


def head_limits(cfg: Any) -> HeadLimits:
    """Return the limits that gunicorn's own parser takes from its settings."""
    line, fields, field = cfg.limit_request_line, cfg.limit_request_fields, cfg.limit_request_field_size
    return (
        _UNLIMITED_LINE if line == 0 else line if 0 < line < _MOST_LINE else _MOST_LINE,
        fields if 0 < fields <= _MOST_FIELDS else _MOST_FIELDS,
        field if field > 0 else _USUAL_FIELD,
    )


class Hot(msgspec.Struct):
    """A request that the hot door takes, all but its body, which has `length` bytes."""

    protocol: Protocol
    path: str
    query: str
    fields: dict[str, str]
    length: int
    closes: bool


class HotDoor:
    """One worker's hot door; `room` bounds the bodies that are read at once."""

    def __init__(
        self,
        intake: Intake,
        protocols: Mapping[str, Protocol],
        *,
        room: BodyRoom,
        max_upload_bytes: int,
        trusted_hops: int,
    ) -> None:
        self._intake = intake
        self._routes = {path.encode(): (path, protocol) for path, protocol in protocols.items()}
        self._max_upload_bytes = max_upload_bytes
        self._trusted_hops = trusted_hops
        self._second = -1
        self._keeps = self._closes = b""
        self.room = room

    def look(self, data: bytes, limits: HeadLimits) -> Hot | None:
        """
        Tell whether the request that `data` begins with is one for this door; None for every doubt.

        Its head must be whole, and have no line that is folded or does not end in CR LF: the parser lets these pass.
        """
        if not data.startswith(b"POST /"):
            return None
        try:
            head = parse_request_fast(data, 0, *limits)
        except Exception:  # noqa: BLE001 - its many errors have no common root; the other door says what is wrong
            return None
        target, pairs = head.path, head.asgi_headers
        query = b""
        if (route := self._routes.get(target)) is None:
            path, _, query = target.partition(b"?")
            route = self._routes.get(path)
            if route is None or _QUERY.fullmatch(query) is None:
                return None
        # Names are ASCII, or there would have been an error.
        fields = {name.decode(): value.decode("latin-1") for name, value in pairs}
        length = fields.get("content-length", "")
        if (
            len(fields) != len(pairs)
            or head.minor_version != 1
            or not length.isdecimal()
            or len(length) > _MAX_DIGITS
            or (size := int(length)) > self._max_upload_bytes
            or not _UNUSUAL.isdisjoint(fields)
            or "_" in "".join(fields)
            or _HOST.fullmatch(fields.get("host", "")) is None
            or ("origin" in fields and _ORIGIN.fullmatch(fields["origin"]) is None)
        ):
            return None
        closes = False
        if "connection" in fields and (connection := fields["connection"].lower()) != "keep-alive":
            closes = connection == "close"
            if not closes:
                return None
        return Hot(route[1], route[0], query.decode() if query else "", fields, size, closes)

    def is_open(self, lag_s: float) -> bool:
        """Tell whether any upload may come in now, if it waits `lag_s` seconds for its turn."""
        return self._intake.gate.open(lag_s) is ADMITTED

    def serve(self, hot: Hot, body: bytes, peer: str) -> Callable[[], Reply]:
        """Take an upload, and return what gives the answer; it holds nothing of the body."""
        verdict = self._intake.gate.open()
        if verdict is not ADMITTED:
            # It has closed since the head came.
            reply = refuse(self._intake, hot.protocol, verdict)
            return lambda: reply
        return take(self._intake, hot.protocol, self._request(hot, body, peer))

    def serve_together(self, uploads: Sequence[tuple[Hot, bytes, str]]) -> list[Taken]:
        """Take several uploads, each with its body and its peer; None is for one that has to be served alone."""
        requests = [(hot.protocol, self._request(hot, body, peer)) for hot, body, peer in uploads]
        return take_together(self._intake, requests)

    def _request(self, hot: Hot, body: bytes, peer: str) -> Request:
        if self._trusted_hops:
            peer = remote_ip(peer, hot.fields.get("x-forwarded-for", ""), self._trusted_hops)
        return Request("POST", hot.path, hot.query, hot.fields, body, peer)

    def render(self, reply: Reply, hot: Hot, *, closes: bool) -> bytes:
        """Return the bytes of an answer, as gunicorn and Flask would send it."""
        second = self._intake.clock.now_us() // _US_PER_S
        if second != self._second:
            self._second = second
            common = f"Server: {gunicorn.SERVER}\r\nDate: {formatdate(second, usegmt=True)}\r\nConnection: "
            self._keeps, self._closes = f"{common}keep-alive\r\n".encode(), f"{common}close\r\n".encode()
        origin = hot.fields.get("origin")
        if reply.headers is JSON_HEADERS and origin is None:
            fields = b"Content-Type: application/json\r\n"
        else:
            texts = [f"{name}: {value}\r\n" for name, value in fields_of(reply, origin).items()]
            fields = "".join(texts).encode("latin-1")
        return b"%b%b%bContent-Length: %d\r\n\r\n%b" % (
            _LINES[reply.status], self._closes if closes else self._keeps, fields, len(reply.body), reply.body,
        )  # fmt: skip
