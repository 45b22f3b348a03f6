"""
The load: one thread that keeps every connection busy with one request at a time, as cheaply as Python can.

It is a closed loop, so what it finds is the server's peak, and its latencies are those at the peak: about the number
of connections divided by the rate. A latency runs from the first byte sent to the last byte of the answer.
"""

from __future__ import annotations

import gc
import math
import re
import resource
import select
import socket
from collections import Counter, deque
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from itertools import cycle
from time import perf_counter, process_time
from typing import Protocol

import msgspec

#: No answer may take longer, in seconds.
PATIENCE_S = 30.0
_READ_BYTES = 64 * 1024
#: Files of this process beside the connections.
_SPARE_FILES = 128
_OK = b"HTTP/1.1 200 "
_LENGTH = b"\r\nContent-Length: "
_STATUS = re.compile(rb"HTTP/1\.[01] (\d{3}) ")


class Load(Protocol):
    """Sends requests as `drive` does; when and how fast is its own affair."""

    def __call__(
        self,
        address: tuple[str, int],
        requests: Sequence[bytes],
        *,
        connections: int,
        seconds: float,
        warm_up_s: float,
        expected: bytes = b"",
    ) -> Traffic:
        """Send them, and tell what came back; raises LoadError."""


class LoadError(Exception):
    """Raised when a server closes on a request, stays silent, or answers what is no HTTP/1.1."""


class Traffic(msgspec.Struct, frozen=True):
    """
    What came back.

    `acknowledged` counts every answer that said what was expected, those of the warm-up and the last ones too;
    `latencies_s` has one number, sorted, for each within the measured `seconds`. `unexpected` counts all other answers
    by their status. `busy` is the generator's own part of its core in the measured seconds, from 0 to 1.
    """

    seconds: float
    acknowledged: int
    latencies_s: list[float]
    unexpected: dict[str, int]
    busy: float

    @property
    def per_s(self) -> float:
        """Return the expected answers per second."""
        return len(self.latencies_s) / self.seconds

    def latency_s(self, part: float) -> float:
        """Return the latency that this part of the requests did not exceed; 0.0 if there were none."""
        return at_part(self.latencies_s, part)


def at_part(ordered: Sequence[float], part: float) -> float:
    """Return the number that this part of sorted ones does not exceed; 0.0 if there are none."""
    return ordered[min(len(ordered) - 1, int(part * len(ordered)))] if ordered else 0.0


def drive(
    address: tuple[str, int],
    requests: Sequence[bytes],
    *,
    connections: int,
    seconds: float,
    warm_up_s: float,
    expected: bytes = b"",
) -> Traffic:
    """
    Send the requests in turn over so many connections, for the warm-up and then the measured seconds.

    An answer is as expected when it is a 200 that has `expected` in it. Raises LoadError. When this returns, every
    request that was sent has its answer.
    """
    generator = _Generator(address, requests)
    try:
        with no_collection(), files_for(connections):
            return generator.run(connections, seconds, warm_up_s, expected)
    except OSError as error:
        raise LoadError(f"the server broke a connection off: {error}") from error
    finally:
        generator.close()


@contextmanager
def no_collection() -> Iterator[None]:
    """Keep the garbage collector from walking the latencies again and again."""
    gc.disable()
    try:
        yield
    finally:
        gc.enable()


@contextmanager
def files_for(connections: int) -> Iterator[None]:
    """Let this process hold so many connections."""
    soft, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
    wanted = connections + _SPARE_FILES
    if soft == resource.RLIM_INFINITY or soft >= wanted:
        yield
        return
    resource.setrlimit(resource.RLIMIT_NOFILE, (wanted, hard))
    try:
        yield
    finally:
        resource.setrlimit(resource.RLIMIT_NOFILE, (soft, hard))


class _Link:
    """A connection, with what is still to send of its request and what has come of the answer."""

    __slots__ = ("come", "fd", "recv", "send", "sent_at", "socket", "unsent")

    def __init__(self, link: socket.socket) -> None:
        link.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
        link.setblocking(False)
        self.socket = link
        self.fd = link.fileno()
        self.recv: Callable[[int], bytes] = link.recv
        self.send: Callable[[bytes], int] = link.send
        self.sent_at = 0.0
        self.unsent = b""
        self.come = b""


class _Generator:
    def __init__(self, address: tuple[str, int], requests: Sequence[bytes]) -> None:
        self._address = address
        self._next: Callable[[], bytes] = cycle(requests).__next__
        self._poll = select.epoll()
        self._links: dict[int, _Link] = {}

    def close(self) -> None:
        for link in self._links.values():
            link.socket.close()
        self._poll.close()

    def run(self, connections: int, seconds: float, warm_up_s: float, expected: bytes) -> Traffic:
        latencies: list[float] = []
        ignore = deque[float](maxlen=0).append
        unexpected: Counter[str] = Counter()
        # The ends of the warm-up and of the measured seconds, each with the CPU time used so far.
        moments: list[tuple[float, float]] = []
        acknowledged, waiting = 0, connections
        poll, links, following, clock, note = self._poll.poll, self._links, self._next, perf_counter, ignore
        for link in [self._connect() for _ in range(connections)]:
            link.sent_at = clock()
            self._send(link, following())
        change_at = clock() + warm_up_s
        while waiting:
            ready = poll(PATIENCE_S)
            if not ready:
                raise LoadError(f"the server has sent nothing for {PATIENCE_S:.0f} s")
            for fd, mask in ready:
                link = links[fd]
                if link.unsent and mask & select.EPOLLOUT:
                    self._send(link, link.unsent)
                    continue
                data = link.recv(_READ_BYTES)
                if not data:
                    raise LoadError("the server closed a connection on a request")
                if link.come:
                    data = link.come + data
                if not is_whole(data):
                    link.come = data
                    continue
                link.come = b""
                now = clock()
                if now >= change_at:
                    moments.append((now, process_time()))
                    note, change_at = (latencies.append, now + seconds) if len(moments) == 1 else (ignore, math.inf)
                if data.startswith(_OK) and expected in data:
                    acknowledged += 1
                    note(now - link.sent_at)
                else:
                    unexpected[status_of(data)] += 1
                    if link.unsent or b"\r\nconnection: close\r\n" in data.lower():
                        link = self._renew(link)
                if len(moments) == 2:
                    waiting -= 1
                    continue
                link.sent_at = now
                self._send(link, following())
        (began, used), (ended, used_then) = moments
        latencies.sort()
        took = ended - began
        return Traffic(took, acknowledged, latencies, dict(unexpected), (used_then - used) / took)

    def _connect(self) -> _Link:
        link = _Link(socket.create_connection(self._address, timeout=PATIENCE_S))
        self._links[link.fd] = link
        self._poll.register(link.fd, select.EPOLLIN)
        return link

    def _renew(self, link: _Link) -> _Link:
        """Put a new connection in the place of one that the server closes."""
        self._poll.unregister(link.fd)
        del self._links[link.fd]
        link.socket.close()
        return self._connect()

    def _send(self, link: _Link, data: bytes) -> None:
        """Send what goes at once, and see to it that the rest follows."""
        try:
            sent = link.send(data)
        except BlockingIOError:
            sent = 0
        if link.unsent or sent < len(data):
            link.unsent = data[sent:]
            self._poll.modify(link.fd, select.EPOLLIN | select.EPOLLOUT if link.unsent else select.EPOLLIN)


def is_whole(data: bytes) -> bool:
    """Tell whether an answer has come to its end. Raises LoadError for one that does not say where that is."""
    end = data.find(b"\r\n\r\n")
    if end < 0:
        return False
    at = data.find(_LENGTH, 0, end)
    if at < 0:
        raise LoadError(f"an answer without Content-Length: {data[:end][:500]!r}")
    at += len(_LENGTH)
    return len(data) >= end + 4 + int(data[at : data.index(b"\r", at)])


def status_of(data: bytes) -> str:
    """Return an answer's status. Raises LoadError for what is no answer."""
    found = _STATUS.match(data)
    if found is None:
        raise LoadError(f"an answer that is no HTTP: {data[:500]!r}")
    return found[1].decode()
