"""
gunicorn's gevent worker, made lossless: what the stock one gets wrong is put right here.

The stock worker waits for ever on a body that stalls, hands over a body that broke off as if it were whole, closes
its listener on a full accept queue, and writes a 500 to idle connections when it stops. This one reads the head of
a request within its own time and size, gives a body a deadline, answers in one send, and when told to stop answers
all that arrived before it goes.

gunicorn's master imports this module before anything is patched, so it must import nothing else of Collector at
its head.
"""

from __future__ import annotations

import os
import socket
import time
from contextlib import suppress
from functools import partial
from typing import Any

import gevent
from gevent.pool import Pool
from gevent.server import StreamServer
from gunicorn import http
from gunicorn.http import errors, wsgi
from gunicorn.http.body import ChunkedReader
from gunicorn.workers.ggevent import GeventWorker

#: The listeners, in the order of `bind`.
ROLES = ("device", "admin")
_HEAD_STEP_BYTES = 64 * 1024
#: A head must be whole this long after its first byte, in seconds.
_HEAD_DEADLINE_S = 10.0
#: How long and how much is read from a client that has its answer but still sends, so that it can read it.
_LINGER_S, _LINGER_BYTES = 2.0, 8 * 1024 * 1024
#: The parts of the drain budget in which idle connections may still ask, and after which busy ones are cut off.
_IDLE_PART, _BUSY_PART = 0.25, 0.5
_POLL_S = 0.05
_HEARTBEAT_S = 1.0

#: What gunicorn's parser says of a request, as a status; anything else it refuses is a 400.
_STATUS = {
    errors.LimitRequestLine: (414, "URI Too Long"),
    errors.LimitRequestHeaders: (431, "Request Header Fields Too Large"),
    errors.UnsupportedTransferCoding: (501, "Not Implemented"),
    errors.ExpectationFailed: (417, "Expectation Failed"),
    errors.ForbiddenProxyRequest: (403, "Forbidden"),
}


class Door:
    """A listener: its name as gunicorn gives it, asked once (it is gone while a worker stops), and its role."""

    def __init__(self, name: Any, role: str) -> None:
        self.name = name
        self.role = role


class Worker(GeventWorker):  # type: ignore[misc]  # gunicorn ships no types
    """One worker process: its listeners, its connections, its life."""

    def __init__(self, *args: Any, **kwargs: Any) -> None:
        super().__init__(*args, **kwargs)
        self._idle: set[Any] = set()
        self._busy: set[Any] = set()
        self._stopping = False
        self._is_quick = False

    # -- life ----------------------------------------------------------------------------------------------

    def run(self) -> None:
        """Serve until told to stop, then drain."""
        # Here and not at the head: by now everything is patched, and what is on the disk is what this generation runs.
        from collector.receiver.timed_body import TimedBody

        self._timed_body = TimedBody
        runtime = self.wsgi.runtime
        servers = [self._listen(sock, role) for sock, role in zip(self.sockets, ROLES, strict=False)]
        heart = gevent.spawn(self._beat)
        while self.alive:
            gevent.sleep(_POLL_S)
        deadline = time.monotonic() + (2.0 if self._is_quick else runtime.times.drain_s)
        runtime.begin_drain()
        self._stop_accepting(servers)
        self._see_off(deadline)
        runtime.finish(max(0.0, deadline - time.monotonic()))
        heart.kill()

    def _listen(self, sock: Any, role: str) -> StreamServer:
        sock.setblocking(True)
        door = Door(sock.getsockname(), role)
        server = StreamServer(sock, handle=partial(self.handle, door), spawn=Pool(self.worker_connections))
        if self.cfg.workers > 1:
            # One at a time, or the first worker to wake takes all that wait.
            server.max_accept = 1
        server.start()
        return server

    def _beat(self) -> None:
        while True:
            self.tmp.notify()
            if self.ppid != os.getppid():
                # The master is gone: nobody restarts us, and nobody will tell us to stop.
                self.alive = False
            gevent.sleep(_HEARTBEAT_S)

    def _stop_accepting(self, servers: list[StreamServer]) -> None:
        self._stopping = True
        for server in servers:
            server.stop_accepting()
            # A connection whose handshake is done would be reset by the close: serve it first.
            while (waiting := server.do_read()) is not None:
                self._busy.add(waiting[0])
                server.do_handle(*waiting)
            server.close()
        # Connections that were accepted a moment ago have not begun: they are neither idle nor busy yet.
        gevent.sleep(0)

    def _see_off(self, deadline: float) -> None:
        """Answer what is under way or still asks, close what stays silent, and cut off what does not end."""
        budget = deadline - time.monotonic()
        idle_until = deadline - budget * (1 - _IDLE_PART)
        busy_until = deadline - budget * (1 - _BUSY_PART)
        while (self._idle and time.monotonic() < idle_until and not self._is_quick) or (
            self._busy and time.monotonic() < busy_until
        ):
            gevent.sleep(_POLL_S)
        self.wsgi.runtime.refuse_uploads()
        for client in list(self._idle):
            with suppress(OSError):
                client.shutdown(socket.SHUT_RDWR)
        while self._busy and time.monotonic() < busy_until:
            gevent.sleep(_POLL_S)

    def handle_quit(self, _signal: int, _frame: Any) -> None:
        """Stop soon: as for TERM, but wait for nobody who is silent."""
        self._is_quick = True
        self.alive = False

    # -- one connection ------------------------------------------------------------------------------------

    def handle(self, listener: Door, client: Any, addr: Any) -> None:
        """Serve a connection to its end."""
        parser = http.get_parser(self.cfg, client, addr)
        client.settimeout(None)
        try:
            while self._await_head(client, parser.unreader):
                try:
                    request = next(parser)
                    again = self._serve(listener, request, client, addr)
                finally:
                    self._busy.discard(client)
                if not again:
                    break
                # A connection that always has a request waiting must not be served twice before the others.
                gevent.sleep(0)
        except errors.ParseException as error:
            status = next((row for kind, row in _STATUS.items() if isinstance(error, kind)), (400, "Bad Request"))
            self._refuse(client, *status, str(error))
        except StopIteration:
            pass
        except (OSError, errors.NoMoreData):
            pass  # the client is gone: nobody to answer
        except Exception:
            self.log.exception("a connection failed")
        finally:
            self._idle.discard(client)
            self._busy.discard(client)
            with suppress(OSError):
                client.close()

    def _await_head(self, client: Any, unreader: Any) -> bool:
        """Read until the head of a request is whole and give it back to the parser; False at the end of the line."""
        head = unreader.take_buffered()
        limit = self.wsgi.runtime.times.max_header_bytes
        deadline = time.monotonic() + _HEAD_DEADLINE_S
        while (end := head.find(b"\r\n\r\n", 0, limit + 4)) < 0 and len(head) <= limit and not _is_smuggling(head):
            if not head:
                self._busy.discard(client)
                self._idle.add(client)
                client.settimeout(self.cfg.keepalive)
            else:
                self._busy.add(client)
                client.settimeout(max(0.001, deadline - time.monotonic()))
            try:
                data = client.recv(_HEAD_STEP_BYTES)
            except TimeoutError:
                if head:
                    self._refuse(client, 408, "Request Timeout", "the head of the request did not arrive in time")
                return False
            finally:
                self._idle.discard(client)
            if not data:
                return False
            if not head:
                deadline = time.monotonic() + _HEAD_DEADLINE_S
            head += data
        self._busy.add(client)
        client.settimeout(None)
        if _is_smuggling(head[: end if end >= 0 else None]):
            self._refuse(client, 400, "Bad Request", "a line of the head is folded, or does not end in CR LF")
            return False
        if end < 0:
            self._refuse(client, 431, "Request Header Fields Too Large", f"the head is over {limit} bytes")
            return False
        unreader.unread(head)
        return True

    def _serve(self, door: Door, request: Any, client: Any, addr: Any) -> bool:
        """Answer one request; tell whether the connection may carry another."""
        started = time.monotonic()
        response, environ = wsgi.create(request, client, addr, door.name, self.cfg)
        body = self._timed_body(request.body, _length(request), started + self.wsgi.runtime.times.body_deadline_s)
        environ["wsgi.input"] = body
        environ["wsgi.multithread"] = True
        environ["collector.listener"] = door.role
        self.nr += 1
        if self.nr >= self.max_requests:
            self.alive = False
        parts = self.wsgi(environ, response.start_response)
        try:
            answer = b"".join(parts)
        finally:
            if hasattr(parts, "close"):
                parts.close()
        if self._stopping or not self.alive or not body.is_finished:
            response.force_close()
        # A client that does not read its answer must not hold its place for ever.
        client.settimeout(self.wsgi.runtime.times.body_deadline_s)
        is_head = request.method == "HEAD"
        client.sendall(_head(response, None if is_head else len(answer)) + (b"" if is_head else answer))
        client.settimeout(None)
        if not body.is_finished:
            self._linger(client)
        return not response.should_close()

    def _linger(self, client: Any) -> None:
        """Read on for a while: closing on unread bytes is a reset, which can destroy the answer on its way."""
        with suppress(OSError):
            client.shutdown(socket.SHUT_WR)
            until, left = time.monotonic() + _LINGER_S, _LINGER_BYTES
            while left > 0 and (rest := until - time.monotonic()) > 0:
                client.settimeout(rest)
                data = client.recv(_HEAD_STEP_BYTES)
                if not data:
                    break
                left -= len(data)

    def _refuse(self, client: Any, status: int, phrase: str, message: str) -> None:
        """Answer what is no request, in the words of every other refusal, and count it."""
        body = self.wsgi.runtime.bad_request(status, message[:200])
        head = (
            f"HTTP/1.1 {status} {phrase}\r\nConnection: close\r\nContent-Type: application/json\r\n"
            f"Content-Length: {len(body)}\r\n\r\n"
        )
        with suppress(OSError):
            client.settimeout(_LINGER_S)
            client.sendall(head.encode() + body)
            self._linger(client)


def _length(request: Any) -> int | None:
    if isinstance(request.body.reader, ChunkedReader):
        return None
    return next((int(value) for name, value in request.headers if name == "CONTENT-LENGTH"), 0)


def _is_smuggling(head: bytes) -> bool:
    """Tell whether a head has what two parsers may read in two ways; the one in C lets both pass."""
    return head.count(b"\n") != head.count(b"\r\n") or b"\r\n " in head or b"\r\n\t" in head


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
