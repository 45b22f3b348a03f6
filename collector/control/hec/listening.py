"""
A port of 127.0.0.1 that can be given up and taken again, with a thread for each connection.
"""

from __future__ import annotations

import socket
import ssl
import threading
from collections.abc import Callable
from contextlib import suppress
from typing import NamedTuple

#: Connections at once; one more is closed. A guess: a test has a handful, a sender one a worker.
_MOST_CONNECTIONS = 256

#: Serves a connection to its end; the event is set when the connection is ended from here. May raise OSError.
Serve = Callable[[socket.socket, threading.Event], None]


class _Served(NamedTuple):
    thread: threading.Thread
    is_cut: threading.Event


class Listening:
    """
    One on a port of the kernel's choice, which stays its own from the making to `close()`, listening or not.

    `certificate` makes it speak TLS.
    """

    def __init__(self, serve: Serve, *, certificate: ssl.SSLContext | None = None) -> None:
        self._serve = serve
        self._certificate = certificate
        # Bound and never listening: nobody else gets the port while we do not listen on it.
        self._holder = _bound(0)
        self.port = int(self._holder.getsockname()[1])
        self._listener: socket.socket | None = None
        self._acceptor: threading.Thread | None = None
        self._served: dict[socket.socket, _Served] = {}
        self._lock = threading.Lock()
        self._switching = threading.Lock()
        self._is_closed = False

    @property
    def connections(self) -> int:
        """Return how many connections are open now."""
        with self._lock:
            return len(self._served)

    def listen(self) -> None:
        """Listen, on the same port as before."""
        with self._switching:
            if self._listener is None and not self._is_closed:
                self._listener = _bound(self.port)
                self._listener.listen(128)
                self._acceptor = threading.Thread(target=self._accept, args=(self._listener,), daemon=True)
                self._acceptor.start()

    def refuse(self) -> None:
        """Listen no more, and end all connections: whoever comes is refused by the kernel."""
        with self._switching:
            if self._listener is not None and self._acceptor is not None:
                # A plain close leaves whoever waits in accept() there.
                with suppress(OSError):
                    self._listener.shutdown(socket.SHUT_RDWR)
                self._acceptor.join()
                self._listener.close()
                self._listener = None
            self.hang_up()

    def hang_up(self) -> None:
        """End all connections that are open, and wait until their threads have ended; new ones are welcome."""
        with self._lock:
            served = dict(self._served)
        for link, one in served.items():
            one.is_cut.set()
            with suppress(OSError):
                # Not TLS's own shutdown, which takes away what its thread may be reading with.
                socket.socket.shutdown(link, socket.SHUT_RDWR)
        for one in served.values():
            if one.thread is not threading.current_thread():
                one.thread.join()

    def close(self) -> None:
        """End everything, and give the port up."""
        self._is_closed = True
        self.refuse()
        self._holder.close()

    def _accept(self, listener: socket.socket) -> None:
        while True:
            try:
                link, _ = listener.accept()
            except OSError:
                return
            if self._certificate is not None:
                link = self._certificate.wrap_socket(link, server_side=True, do_handshake_on_connect=False)
            is_cut = threading.Event()
            thread = threading.Thread(target=self._run, args=(link, is_cut), daemon=True)
            with self._lock:
                if len(self._served) >= _MOST_CONNECTIONS:
                    link.close()
                    continue
                self._served[link] = _Served(thread, is_cut)
                # In here, so that nobody waits for the end of what has not begun.
                thread.start()

    def _run(self, link: socket.socket, is_cut: threading.Event) -> None:
        try:
            with suppress(OSError), link:
                self._serve(link, is_cut)
        finally:
            with self._lock:
                self._served.pop(link, None)


def _bound(port: int) -> socket.socket:
    """Make a socket on a port of 127.0.0.1, which another of ours may be bound to as well."""
    made = socket.socket()
    made.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
    made.bind(("127.0.0.1", port))
    return made
