"""
The cold door: gunicorn's parser, a WSGI environ and the application, for what is no usual upload.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import msgspec
from gunicorn import http
from gunicorn.http import errors, wsgi
from gunicorn.http.body import ChunkedReader

from collector.receiver.timed_body import TimedBody

#: What gunicorn's parser says of a request, as a status; anything else it refuses is a 400.
_STATUS = {
    errors.LimitRequestLine: (414, "URI Too Long"),
    errors.LimitRequestHeaders: (431, "Request Header Fields Too Large"),
    errors.UnsupportedTransferCoding: (501, "Not Implemented"),
    errors.ExpectationFailed: (417, "Expectation Failed"),
    errors.ForbiddenProxyRequest: (403, "Forbidden"),
}


class Served(msgspec.Struct, frozen=True):
    """An answer; whether the request was read to its end, and whether the connection ends with it."""

    answer: bytes
    is_finished: bool
    closes: bool


class Cold:
    """The cold door of one connection, whose listener is called `name` by gunicorn and `role` by us."""

    def __init__(self, worker: Any, name: Any, role: str, client: Any, addr: Any) -> None:
        self._worker = worker
        self._name = name
        self._role = role
        self._client = client
        self._addr = addr
        self._parser = http.get_parser(worker.cfg, client, addr)

    def serve(self, data: bytes, body_until: float, note_wait: Callable[[bool], None] | None) -> Served:
        """
        Serve the request that begins with `data`.

        What it reads beyond that of the body has until `body_until` on the monotonic clock; `note_wait` is as for a
        `TimedBody`. Raises what gunicorn's parser raises.
        """
        worker = self._worker
        self._parser.unreader.unread(data)
        del data
        request = next(self._parser)
        response, environ = wsgi.create(request, self._client, self._addr, self._name, worker.cfg)
        body = TimedBody(request.body, _length(request), body_until, note_wait)
        environ["wsgi.input"] = body
        environ["wsgi.multithread"] = True
        environ["collector.listener"] = self._role
        parts = worker.wsgi(environ, response.start_response)
        try:
            answer = b"".join(parts)
        finally:
            if hasattr(parts, "close"):
                parts.close()
        if worker.is_leaving or not body.is_finished:
            response.force_close()
        is_head = request.method == "HEAD"
        answer = _head(response, None if is_head else len(answer)) + (b"" if is_head else answer)
        return Served(answer, body.is_finished, response.should_close())

    def rest(self) -> bytes:
        """Return what was read beyond the last request."""
        rest: bytes = self._parser.unreader.take_buffered()
        return rest


def _length(request: Any) -> int | None:
    if isinstance(request.body.reader, ChunkedReader):
        return None
    return next((int(value) for name, value in request.headers if name == "CONTENT-LENGTH"), 0)


def _head(response: Any, length: int | None) -> bytes:
    """Render the head of an answer; without `length` the application's own Content-Length stays."""
    response.response_length, response.chunked = length, False
    if length is None:
        response.response_length = 0
        fields = [f"{name}: {value}\r\n" for name, value in response.headers]
    else:
        fields = [f"{name}: {value}\r\n" for name, value in response.headers if name.lower() != "content-length"]
        if response.status_code not in (204, 304):
            fields.append(f"Content-Length: {length}\r\n")
    return "".join([*response.default_headers(), *fields, "\r\n"]).encode("latin-1")


def status_of(error: errors.ParseException) -> tuple[int, str]:
    """Return the status and the phrase with which a request is refused that gunicorn's parser does not take."""
    return next((row for kind, row in _STATUS.items() if isinstance(error, kind)), (400, "Bad Request"))
