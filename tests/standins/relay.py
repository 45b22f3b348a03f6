"""
What lies between Collector and a server, in our hands: connections are handed on, refused, cut, or left hanging.
"""

from __future__ import annotations

import socket
import threading
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from enum import Enum


class Way(Enum):
    """What becomes of a request."""

    ON = "it reaches the server, and its answer comes back"
    REFUSED = "its connection is closed at once"
    REPLY_LOST = "it reaches the server, whose answer does not come back"
    SILENT = "nothing happens to it"


class Relay:
    """A relay on `port` of loopback to another port there. A context manager."""

    def __init__(self, to_port: int) -> None:
        self._to_port = to_port
        self._listener = socket.create_server(("127.0.0.1", 0))
        self.port = int(self._listener.getsockname()[1])
        self.way = Way.ON
        #: How many answers there were that did not come back, and how many bytes to which nothing happened.
        self.lost = self.swallowed = 0
        self._open: set[socket.socket] = set()
        self._threads: list[threading.Thread] = []

    def __enter__(self) -> Relay:
        self._start(self._accept)
        return self

    def __exit__(self, *exc: object) -> None:
        # A plain close leaves whoever waits in accept() there.
        with suppress(OSError):
            self._listener.shutdown(socket.SHUT_RDWR)
        self._listener.close()
        self.cut()
        for thread in self._threads:
            thread.join()

    @contextmanager
    def goes(self, way: Way) -> Iterator[None]:
        """Let all go another way for a while, and then the former; connections that stand are cut, before and after."""
        before, self.way = self.way, way
        self.cut()
        try:
            yield
        finally:
            self.way = before
            self.cut()

    def cut(self) -> None:
        """Cut every connection there is."""
        for end in list(self._open):
            with suppress(OSError):
                end.shutdown(socket.SHUT_RDWR)

    def _start(self, run: object, *arguments: object) -> None:
        thread = threading.Thread(target=run, args=arguments, daemon=True)  # type: ignore[arg-type]
        self._threads.append(thread)
        thread.start()

    def _accept(self) -> None:
        while True:
            try:
                near, _ = self._listener.accept()
            except OSError:
                return
            if self.way is Way.REFUSED:
                near.close()
                continue
            far = socket.create_connection(("127.0.0.1", self._to_port))
            self._open |= {near, far}
            self._start(self._hand_on, near, far)
            self._start(self._hand_back, far, near)

    def _hand_on(self, near: socket.socket, far: socket.socket) -> None:
        with suppress(OSError):
            while data := near.recv(65536):
                if self.way is Way.SILENT:
                    self.swallowed += len(data)
                else:
                    far.sendall(data)
        self._end(near, far)

    def _hand_back(self, far: socket.socket, near: socket.socket) -> None:
        with suppress(OSError):
            while data := far.recv(65536):
                if self.way is Way.REPLY_LOST and not data.startswith(b"HTTP/1.1 100"):
                    self.lost += 1
                    break
                near.sendall(data)
        self._end(near, far)

    def _end(self, *ends: socket.socket) -> None:
        for end in ends:
            with suppress(OSError):
                end.shutdown(socket.SHUT_RDWR)
            end.close()
            self._open.discard(end)
