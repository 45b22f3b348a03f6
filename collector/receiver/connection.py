"""
One connection, from its first byte to its last.

A request's head is read within its own time and size, and refused before the parser when two parsers could read it
in two ways. Then it is refused cheaply, or it waits for its turn, goes through gunicorn's parser and the application,
and is answered in one send.
"""

from __future__ import annotations

import re
import socket
import time
from contextlib import suppress
from typing import Any

from gunicorn import http
from gunicorn.http import errors, wsgi
from gunicorn.http.body import ChunkedReader

from collector.receiver.roster import Place, Roster
from collector.receiver.shed import Refusal, Shedder
from collector.receiver.timed_body import TimedBody
from collector.receiver.turns import Turns

_STEP_BYTES = 64 * 1024
#: A head must be whole this long after its first byte, in seconds.
_HEAD_DEADLINE_S = 10.0
#: A body up to so many bytes is read before its request takes its turn; a larger one is read in its turn, and counted
#: against the room for bodies.
_MAX_EARLY_BYTES = 32 * 1024
#: How long and how much is read from a client that has its answer but still sends, so that it can read it.
_LINGER_S, _LINGER_BYTES = 2.0, 8 * 1024 * 1024

#: What gunicorn's parser says of a request, as a status; anything else it refuses is a 400.
_STATUS = {
    errors.LimitRequestLine: (414, "URI Too Long"),
    errors.LimitRequestHeaders: (431, "Request Header Fields Too Large"),
    errors.UnsupportedTransferCoding: (501, "Not Implemented"),
    errors.ExpectationFailed: (417, "Expectation Failed"),
    errors.ForbiddenProxyRequest: (403, "Forbidden"),
}
_LENGTH = re.compile(rb"\r\ncontent-length:[ \t]*([0-9]{1,9})[ \t]*\r\n", re.IGNORECASE)
_CODING = re.compile(rb"\r\ntransfer-encoding[^\r\n]*")
_CHUNKED = re.compile(rb"\r\ntransfer-encoding:[ \t]*chunked[ \t]*")
_EXPECT = re.compile(rb"\r\nexpect:", re.IGNORECASE)


class Door:
    """
    A listener, and what all its connections share.

    `name` is what gunicorn calls it, asked once (it is gone while a worker stops); `role` is "device" or "admin".
    Without `turns` and `shedder` its requests are served at once, whatever the load.
    """

    def __init__(
        self, name: Any, role: str, worker: Any, roster: Roster, turns: Turns | None, shedder: Shedder | None
    ) -> None:
        self.name = name
        self.role = role
        self.worker = worker
        self.roster = roster
        self.turns = turns
        self.shedder = shedder
        self.times = worker.wsgi.runtime.times


class Connection:
    """One client, served until either side has had enough."""

    def __init__(self, door: Door, client: Any, addr: Any) -> None:
        self._door = door
        self._worker = door.worker
        self._client = client
        self._addr = addr
        self._parser = http.get_parser(self._worker.cfg, client, addr)
        self._unreader = self._parser.unreader
        self._body_until = 0.0
        self._is_whole = False

    def run(self) -> None:
        """Serve the connection to its end; raises nothing that concerns it alone."""
        self._client.settimeout(None)
        self._door.roster.enter(self._client)
        try:
            while self._next():
                pass
        except errors.ParseException as error:
            status = next((row for kind, row in _STATUS.items() if isinstance(error, kind)), (400, "Bad Request"))
            self._refuse(*status, str(error))
        except StopIteration:
            pass
        except (OSError, errors.NoMoreData):
            pass  # the client is gone: nobody to answer
        except Exception:
            self._worker.log.exception("a connection failed")
        finally:
            self._door.roster.leave(self._client)
            with suppress(OSError):
                self._client.close()

    def _next(self) -> bool:
        """Serve one request; tell whether the connection may carry another."""
        data, end = self._read_head()
        if not end:
            return False
        door = self._door
        self._body_until = time.monotonic() + door.times.body_deadline_s
        if door.turns is not None and door.shedder is not None:
            head = data[: end + 2]
            shed = door.shedder.judge(head, door.turns.lag_s)
            if shed is not None:
                door.turns.wait_to_refuse()
                return self._shed(door.shedder.refuse(shed, head), data[end + 4 :])
        data = self._read_early(data, end)
        if door.turns is not None:
            door.turns.wait()
        self._unreader.unread(data)
        return self._serve(next(self._parser))

    # -- in ------------------------------------------------------------------------------------------------

    def _read_head(self) -> tuple[bytes, int]:
        """Read until a head is whole; return what was read, and where the head ends, 0 at the end of the line."""
        client, roster = self._client, self._door.roster
        head: bytes = self._unreader.take_buffered()
        limit = self._door.times.max_header_bytes
        deadline = time.monotonic() + _HEAD_DEADLINE_S
        while (end := head.find(b"\r\n\r\n", 0, limit + 4)) < 0 and len(head) <= limit and not _is_smuggling(head):
            roster.move(client, Place.HEAD if head else Place.IDLE)
            client.settimeout(max(0.001, deadline - time.monotonic()) if head else self._worker.cfg.keepalive)
            try:
                data = client.recv(_STEP_BYTES)
            except TimeoutError:
                if head:
                    self._refuse(408, "Request Timeout", "the head of the request did not arrive in time")
                return b"", 0
            if not data:
                return b"", 0
            if not head:
                deadline = time.monotonic() + _HEAD_DEADLINE_S
            head += data
        roster.move(client, Place.SERVED)
        client.settimeout(None)
        if _is_smuggling(head[: end if end >= 0 else None]):
            why = "a line of the head is folded or does not end in CR LF, or there are two transfer codings"
            self._refuse(400, "Bad Request", why)
            return b"", 0
        if end < 0:
            self._refuse(431, "Request Header Fields Too Large", f"the head is over {limit} bytes")
            return b"", 0
        if end == 0:
            self._refuse(400, "Bad Request", "there is an empty line where a request should begin")
        return head, end

    def _read_early(self, data: bytes, end: int) -> bytes:
        """Read on until a small body is whole, breaks off or is out of time; whoever reads it next finds out which."""
        lengths = _LENGTH.findall(data[: end + 2])
        whole = end + 4 + int(lengths[0]) if len(lengths) == 1 else 0
        self._is_whole = 0 < whole <= len(data)
        if whole <= len(data) or whole > end + 4 + _MAX_EARLY_BYTES or _EXPECT.search(data, 0, end):
            return data
        data = self._read_body(data, whole)
        self._is_whole = len(data) >= whole
        return data

    def _read_body(self, data: bytes, whole: int) -> bytes:
        """Read on until there are `whole` bytes, or the client is out of time or gone."""
        self._note_wait(True)
        with suppress(TimeoutError):
            while len(data) < whole:
                self._client.settimeout(max(0.001, self._body_until - time.monotonic()))
                more = self._client.recv(_STEP_BYTES)
                if not more:
                    break
                data += more
        self._note_wait(False)
        self._client.settimeout(None)
        return data

    def _note_wait(self, waits: bool) -> None:
        self._door.roster.move(self._client, Place.BODY if waits else Place.SERVED)

    # -- served --------------------------------------------------------------------------------------------

    def _serve(self, request: Any) -> bool:
        """Answer one request; tell whether the connection may carry another."""
        worker, client, door = self._worker, self._client, self._door
        response, environ = wsgi.create(request, client, self._addr, door.name, worker.cfg)
        note_wait = None if self._is_whole else self._note_wait
        body = TimedBody(request.body, _length(request), self._body_until, note_wait)
        environ["wsgi.input"] = body
        environ["wsgi.multithread"] = True
        environ["collector.listener"] = door.role
        worker.count_request()
        parts = worker.wsgi(environ, response.start_response)
        try:
            answer = b"".join(parts)
        finally:
            if hasattr(parts, "close"):
                parts.close()
        if worker.is_leaving or not body.is_finished:
            response.force_close()
        is_head = request.method == "HEAD"
        self._send(_head(response, None if is_head else len(answer)) + (b"" if is_head else answer))
        if not body.is_finished:
            self._linger()
        return not response.should_close()

    def _send(self, answer: bytes) -> None:
        # A client that does not read its answer must not hold its place for ever.
        self._client.settimeout(self._door.times.body_deadline_s)
        sent = self._client.send(answer)
        if sent < len(answer):
            # It has more to do than send() even for a small answer that the socket takes at once.
            self._client.sendall(memoryview(answer)[sent:])
        self._client.settimeout(None)

    # -- refused -------------------------------------------------------------------------------------------

    def _shed(self, refusal: Refusal, rest: bytes) -> bool:
        """Answer without more than a look, and skip the body; tell whether the connection may carry another request."""
        self._send(refusal.answer)
        skip_bytes = refusal.skip_bytes
        if skip_bytes is None or self._worker.is_leaving:
            self._linger()
            return False
        if len(rest) < skip_bytes:
            rest = self._read_body(rest, skip_bytes)
        if len(rest) > skip_bytes:
            self._unreader.unread(rest[skip_bytes:])
        return len(rest) >= skip_bytes

    def _refuse(self, status: int, phrase: str, message: str) -> None:
        """Answer what is no request, in the words of every other refusal, and count it."""
        body = self._worker.wsgi.runtime.bad_request(status, message[:200])
        head = (
            f"HTTP/1.1 {status} {phrase}\r\nConnection: close\r\nContent-Type: application/json\r\n"
            f"Content-Length: {len(body)}\r\n\r\n"
        )
        with suppress(OSError):
            self._client.settimeout(_LINGER_S)
            self._client.sendall(head.encode() + body)
            self._linger()

    def _linger(self) -> None:
        """Read on for a while: closing on unread bytes is a reset, which can destroy the answer on its way."""
        with suppress(OSError):
            self._client.shutdown(socket.SHUT_WR)
            until, left = time.monotonic() + _LINGER_S, _LINGER_BYTES
            while left > 0 and (rest := until - time.monotonic()) > 0:
                self._client.settimeout(rest)
                data = self._client.recv(_STEP_BYTES)
                if not data:
                    break
                left -= len(data)


def _length(request: Any) -> int | None:
    if isinstance(request.body.reader, ChunkedReader):
        return None
    return next((int(value) for name, value in request.headers if name == "CONTENT-LENGTH"), 0)


def _is_smuggling(head: bytes) -> bool:
    """Tell whether a head has what two parsers may read in two ways; the one in C lets these pass."""
    if head.count(b"\n") != head.count(b"\r\n") or b"\r\n " in head or b"\r\n\t" in head:
        return True
    # A proxy that knows the coding "identity", as HTTP/1.1 once had it, sees another body than one that does not.
    codings = _CODING.findall(lower) if b"transfer-encoding" in (lower := head.lower()) else []
    return len(codings) > 1 or any(b"chunked" in one and not _CHUNKED.fullmatch(one) for one in codings)


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
