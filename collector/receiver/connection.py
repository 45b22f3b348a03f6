"""
One connection, from its first byte to its last.

A request's head is read within its own time and size, and refused before the parser when two parsers could read it
in two ways. Then it is refused cheaply, or it waits for its turn and is served: by the hot door if it is one of those
that devices usually send, else by gunicorn's parser and the application. Either way it is answered in one send.
"""

from __future__ import annotations

import socket
import time
from collections.abc import Callable
from contextlib import suppress
from typing import Any

from gunicorn.http import errors

from collector.errors import BadUpload
from collector.protocols.base import Reply
from collector.receiver.body import FREE_BYTES
from collector.receiver.body import Place as BodyPlace
from collector.receiver.cold import Cold, status_of
from collector.receiver.door import Door
from collector.receiver.heads import SMUGGLING, expects, has_odd_lines, is_smuggling, plain_length
from collector.receiver.hot import Hot, HotDoor
from collector.receiver.lobby import Guest, Visit
from collector.receiver.outbox import Out
from collector.receiver.roster import Place

_STEP_BYTES = 64 * 1024
#: A head must be whole this long after its first byte, in seconds.
_HEAD_DEADLINE_S = 10.0
#: How long and how much is read from a client that has its answer but still sends, so that it can read it.
_LINGER_S, _LINGER_BYTES = 2.0, 8 * 1024 * 1024


class Connection:
    """One client, served until either side has had enough."""

    def __init__(self, door: Door, client: Any, addr: Any) -> None:
        self._door = door
        self._worker = door.worker
        self._client = client
        self._addr = addr
        self._peer: str = addr[0] if isinstance(addr, tuple) else str(addr)
        self._out = Out(client, door.roster, door.times.body_deadline_s)
        self._guest = Guest(client, self._out, self._peer) if door.lobby is not None else None
        self._body_until = 0.0
        # The request that is served came alone, and not with the one before it.
        self._is_fresh = True
        # Made for the first request that needs it.
        self._cold: Cold | None = None

    def run(self) -> None:
        """Serve the connection to its end; raises nothing that concerns it alone."""
        self._door.roster.enter(self._client)
        rest: bytes | None = b""
        try:
            while rest is not None:
                rest = self._next(rest)
        except errors.ParseException as error:
            self._refuse(*status_of(error), str(error))
        except StopIteration:
            pass
        except (OSError, errors.NoMoreData):
            pass  # the client is gone: nobody to answer
        except Exception:
            self._worker.log.exception("a connection failed")
        finally:
            self._out.settle(self._door.outbox)
            if self._door.lobby is not None and self._guest is not None:
                self._door.lobby.leave(self._guest)
            self._door.roster.leave(self._client)
            with suppress(OSError):
                self._client.close()

    def _next(self, data: bytes) -> bytes | None:
        """Serve a request that may have begun with `data`; return what came after it, None at the end of the line."""
        door = self._door
        self._is_fresh = not data
        visit = Visit(data) if data else self._await_request()
        data, taken_up = visit.data, visit.hot
        # It would hold the upload for as long as an answer waits for its sink.
        del visit
        if not data:
            return None
        end = data.find(b"\r\n\r\n", 0, door.times.max_header_bytes + 4)
        if end <= 0 or has_odd_lines(data, end):
            data, end = self._read_head(data)
            if not end:
                return None
        self._body_until = time.monotonic() + door.times.body_deadline_s
        if door.turns is not None and door.shedder is not None:
            if taken_up is None and (shed := door.shedder.judge(data, end, door.turns.lag_s)) is not None:
                door.turns.wait_to_refuse()
                return self._shed(door.shedder.refuse(shed), shed.skip_bytes, data[end + 4 :])
            if door.hot is not None and (hot := taken_up or door.hot.look(data, door.head_limits)) is not None:
                # What comes back is not the body any more: an answer may have to wait for its sink, and holds nothing.
                answer, data = self._take_hot(door.hot, hot, data, end, has_turn=taken_up is not None)
                if answer is not None:
                    return self._answer_hot(door.hot, hot, answer(), data)
        if is_smuggling(data, end):
            self._refuse(400, "Bad Request", SMUGGLING)
            return None
        return self._serve_cold(data, end)

    # -- the hot door --------------------------------------------------------------------------------------

    def _take_hot(
        self, door: HotDoor, hot: Hot, data: bytes, end: int, *, has_turn: bool
    ) -> tuple[Callable[[], Reply] | None, bytes]:
        """
        Take an upload; return what gives the answer, and what came after it.

        None, and what there is of it, is for one that breaks off, is out of time or has no room. Whoever reads on
        finds out which, and says so.
        """
        begin, whole = end + 4, end + 4 + hot.length
        if hot.length <= FREE_BYTES:
            if len(data) < whole:
                data = self._read_body(data, whole)
            return self._take_whole(door, hot, data, begin, whole, has_turn=has_turn)
        # A client that resets has broken off, too, and the other door counts it.
        with door.room.hold() as place, suppress(BadUpload, ConnectionError):
            place.grow(min(whole, len(data)) - begin)
            if len(data) < whole:
                data = self._read_body(data, whole, place)
            if place.is_counted(hot.length):
                return self._take_whole(door, hot, data, begin, whole, has_turn=has_turn)
        return None, data

    def _take_whole(
        self, door: HotDoor, hot: Hot, data: bytes, begin: int, whole: int, *, has_turn: bool
    ) -> tuple[Callable[[], Reply] | None, bytes]:
        if len(data) < whole:
            return None, data
        if self._door.turns is not None and not has_turn:
            self._door.turns.wait(is_fresh=self._is_fresh)
        self._worker.count_request()
        return door.serve(hot, data[begin:whole], self._peer), data[whole:]

    def _answer_hot(self, door: HotDoor, hot: Hot, reply: Reply, rest: bytes) -> bytes | None:
        closes = hot.closes or self._worker.is_leaving
        self._answer(door.render(reply, hot, closes=closes), rest, closes=closes)
        return None if closes else rest

    def _answer(self, answer: bytes, rest: bytes, *, closes: bool) -> None:
        """Send an answer: with those of others, where nothing on this connection waits for it."""
        if closes or rest:
            self._out.send(answer)
        else:
            self._out.put(self._door.outbox, answer)

    # -- the cold door -------------------------------------------------------------------------------------

    def _serve_cold(self, data: bytes, end: int) -> bytes | None:
        """Serve a request by gunicorn's parser and the application."""
        data, is_whole = self._read_early(data, end)
        if self._door.turns is not None:
            self._door.turns.wait(is_fresh=self._is_fresh)
        self._worker.count_request()
        if self._cold is None:
            self._cold = Cold(self._worker, self._door.name, self._door.role, self._client, self._addr)
        served = self._cold.serve(data, self._body_until, None if is_whole else self._note_wait)
        del data
        rest = b"" if served.closes else self._cold.rest()
        self._answer(served.answer, rest, closes=served.closes)
        if not served.is_finished:
            self._linger()
        return None if served.closes else rest

    # -- in ------------------------------------------------------------------------------------------------

    def _await_request(self) -> Visit:
        """Wait for a request, or for the end of the line. The roster limits how long."""
        client, roster = self._client, self._door.roster
        if not self._out.owes:
            roster.move(client, Place.IDLE)
        if self._door.lobby is not None and self._guest is not None:
            visit = self._door.lobby.wait(self._guest)
        else:
            visit = Visit(self._await_bytes())
        self._out.settle(self._door.outbox)
        roster.move(client, Place.SERVED)
        return visit

    def _await_bytes(self) -> bytes:
        client = self._client
        while True:
            # A look at the socket before the wait would cost a system call, and find nothing.
            client._wait(client._read_event)  # noqa: SLF001 -- gevent's own name for it; recv() would look first
            with suppress(BlockingIOError):
                data: bytes = client._sock.recv(_STEP_BYTES)  # noqa: SLF001 -- as above
                return data

    def _read_head(self, head: bytes) -> tuple[bytes, int]:
        """Read on until a head is whole; return what was read, and where the head ends, 0 at the end of the line."""
        client, roster = self._client, self._door.roster
        limit = self._door.times.max_header_bytes
        deadline = time.monotonic() + _HEAD_DEADLINE_S
        while (end := head.find(b"\r\n\r\n", 0, limit + 4)) < 0 and len(head) <= limit and not is_smuggling(head):
            roster.move(client, Place.HEAD)
            client.settimeout(max(0.001, deadline - time.monotonic()))
            try:
                data = client.recv(_STEP_BYTES)
            except TimeoutError:
                self._refuse(408, "Request Timeout", "the head of the request did not arrive in time")
                return b"", 0
            if not data:
                return b"", 0
            head += data
        roster.move(client, Place.SERVED)
        client.settimeout(None)
        if is_smuggling(head, end if end >= 0 else None):
            self._refuse(400, "Bad Request", SMUGGLING)
            return b"", 0
        if end < 0:
            self._refuse(431, "Request Header Fields Too Large", f"the head is over {limit} bytes")
            return b"", 0
        if end == 0:
            self._refuse(400, "Bad Request", "there is an empty line where a request should begin")
        return head, end

    def _read_early(self, data: bytes, end: int) -> tuple[bytes, bool]:
        """
        Read on until a small body is whole, breaks off or is out of time; tell whether it is whole.

        Whoever reads it next finds out which.
        """
        length = plain_length(data, end)
        whole = end + 4 + length if length is not None else 0
        if whole <= len(data) or whole > end + 4 + FREE_BYTES or expects(data, end):
            return data, 0 < whole <= len(data)
        data = self._read_body(data, whole)
        return data, len(data) >= whole

    def _read_body(self, data: bytes, whole: int, place: BodyPlace | None = None) -> bytes:
        """
        Read on until there are `whole` bytes, or the client is out of time or gone, or there is no more room.

        `place` is where the bytes of a large body are counted.
        """
        parts, size = [data], len(data)
        self._note_wait(True)
        with suppress(TimeoutError, BadUpload):
            while size < whole:
                self._client.settimeout(max(0.001, self._body_until - time.monotonic()))
                more = self._client.recv(_STEP_BYTES)
                if not more:
                    break
                parts.append(more)
                size += len(more)
                if place is not None:
                    place.grow(len(more))
        self._note_wait(False)
        self._client.settimeout(None)
        return b"".join(parts)

    def _note_wait(self, waits: bool) -> None:
        self._door.roster.move(self._client, Place.BODY if waits else Place.SERVED)

    # -- refused -------------------------------------------------------------------------------------------

    def _shed(self, answer: bytes, skip_bytes: int | None, rest: bytes) -> bytes | None:
        """Answer without more than a look, and skip the body; return what came after it, None to close."""
        self._out.send(answer)
        if skip_bytes is None or self._worker.is_leaving:
            self._linger()
            return None
        if len(rest) < skip_bytes:
            rest = self._read_body(rest, skip_bytes)
        return rest[skip_bytes:] if len(rest) >= skip_bytes else None

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
