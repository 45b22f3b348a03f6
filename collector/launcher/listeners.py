"""
The listening sockets: bound once, held for life, and shared with every generation.
"""

from __future__ import annotations

import errno
import socket
from collections.abc import Iterable, Sequence

from collector.errors import BindError
from collector.settings.values import host_and_port


class Listeners:
    """Sockets by the address that the settings name."""

    def __init__(self) -> None:
        self._sockets: dict[str, socket.socket] = {}

    def open(self, addresses: Sequence[str], backlog: int) -> None:
        """Listen on these too, beside those that are open; BindError, and no new one is open, if any can't be."""
        opened: dict[str, socket.socket] = {}
        try:
            for address in addresses:
                if address not in self._sockets:
                    opened[address] = _listen(address, backlog)
        except OSError as error:
            for one in opened.values():
                one.close()
            is_busy = error.errno == errno.EADDRINUSE
            reason = "another program does" if is_busy else error.strerror or str(error)
            raise BindError(f"{address} can't be listened on: {reason}", is_busy=is_busy) from error
        self._sockets |= opened

    def keep(self, addresses: Iterable[str]) -> None:
        """Let go of all others. Who inherited them still has them."""
        for address in self._sockets.keys() - set(addresses):
            self._sockets.pop(address).close()

    def fds(self, addresses: Sequence[str]) -> list[int]:
        """Return the open files of these, in order."""
        return [self._sockets[address].fileno() for address in addresses]


def _listen(address: str, backlog: int) -> socket.socket:
    if address.startswith("fd://"):
        # It is listening, or its owner wants gunicorn to begin: it is taken as it is.
        return socket.socket(fileno=int(address.removeprefix("fd://")))
    host, port = host_and_port(address)
    # A name is one of IPv4, as it is for gunicorn.
    family = socket.AF_INET6 if ":" in host else socket.AF_INET
    listener = socket.socket(family, socket.SOCK_STREAM)
    try:
        listener.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        listener.bind((host, port))
        listener.listen(backlog)
        # Shared by all that accept: none of them may be held up when another was faster.
        listener.setblocking(False)
    except OSError:
        listener.close()
        raise
    return listener
