"""
Connections of a load generator, as cheap as Python can have them, and what an answer is.
"""

from __future__ import annotations

import re
import resource
import select
import socket
from collections.abc import Callable, Iterator
from contextlib import contextmanager

#: No answer may take longer, in seconds.
PATIENCE_S = 30.0
READ_BYTES = 64 * 1024
OK = b"HTTP/1.1 200 "
CLOSE = b"\r\nconnection: close\r\n"
#: Files of this process beside the connections.
_SPARE_FILES = 128
_LENGTH = b"\r\nContent-Length: "
_STATUS = re.compile(rb"HTTP/1\.[01] (\d{3}) ")


class LoadError(Exception):
    """Raised when a server closes on a request, stays silent, or answers what is no HTTP/1.1."""


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


class Link:
    """
    A connection, with what is still to send of its request and what has come of the answer.

    `since` is the moment from which its request's latency runs, by the generator's own clock.
    """

    __slots__ = ("come", "fd", "recv", "send", "since", "socket", "unsent")

    def __init__(self, link: socket.socket) -> None:
        link.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
        link.setblocking(False)
        self.socket = link
        self.fd = link.fileno()
        self.recv: Callable[[int], bytes] = link.recv
        self.send: Callable[[bytes], int] = link.send
        self.since = 0.0
        self.unsent = b""
        self.come = b""


class Links:
    """All connections to one server, and what watches them."""

    def __init__(self, address: tuple[str, int]) -> None:
        self._address = address
        self.poll = select.epoll()
        self.by_fd: dict[int, Link] = {}

    def close(self) -> None:
        """Close all of them."""
        for link in self.by_fd.values():
            link.socket.close()
        self.poll.close()

    def connect(self) -> Link:
        """Open one more; raises OSError."""
        link = Link(socket.create_connection(self._address, timeout=PATIENCE_S))
        self.by_fd[link.fd] = link
        self.poll.register(link.fd, select.EPOLLIN)
        return link

    def renew(self, link: Link) -> Link:
        """Open one in the place of one that has ended; raises OSError."""
        self.poll.unregister(link.fd)
        del self.by_fd[link.fd]
        link.socket.close()
        return self.connect()

    def send(self, link: Link, data: bytes) -> None:
        """Send what goes at once, and see to it that the rest follows; raises OSError."""
        try:
            sent = link.send(data)
        except BlockingIOError:
            sent = 0
        if link.unsent or sent < len(data):
            link.unsent = data[sent:]
            self.poll.modify(link.fd, select.EPOLLIN | select.EPOLLOUT if link.unsent else select.EPOLLIN)


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
