"""
Who is connected, and what each connection waits for; and who has to go when there are too many.
"""

from __future__ import annotations

import socket
from collections.abc import Callable
from contextlib import suppress
from enum import IntEnum
from typing import Any


class Place(IntEnum):
    """What a connection waits for. Who waits for the client may be sent away, in this order; who is served may not."""

    IDLE = 0
    HEAD = 1
    BODY = 2
    SERVED = 3


#: How many that have waited long are looked at for one whose client has sent nothing meanwhile. A guess.
_LOOKS = 16


class Roster:
    """The connections of one listener. More than `limit` are too many; `note_eviction` is told who had to go."""

    def __init__(self, limit: int, note_eviction: Callable[[Place], None]) -> None:
        self._limit = limit
        self._note_eviction = note_eviction
        self._place: dict[Any, Place] = {}
        # Oldest first, for dictionaries keep their order, each with the second in which it began.
        self._waiting: tuple[dict[Any, int], ...] = tuple({} for _ in Place)
        self._second = 0
        # They were sent away, and have not left yet.
        self._going: set[Any] = set()

    def __len__(self) -> int:
        return len(self._place)

    def enter(self, client: Any) -> None:
        """Take in a connection, and send another away if there are too many."""
        self._place[client] = Place.SERVED
        self._waiting[Place.SERVED][client] = self._second
        self._make_room()

    def move(self, client: Any, to: Place) -> None:
        """Note what a connection waits for from now on; one that may be sent away is, if there are too many."""
        del self._waiting[self._place[client]][client]
        self._place[client] = to
        self._waiting[to][client] = self._second
        if to is not Place.SERVED:
            self._make_room()

    def rest(self, client: Any) -> None:
        """Note that a connection has its answer and waits for its next request, unless it has left."""
        if client in self._place:
            self.move(client, Place.IDLE)

    def leave(self, client: Any) -> None:
        """Forget a connection."""
        del self._waiting[self._place.pop(client)][client]
        self._going.discard(client)

    def sweep(self, idle_s: float) -> None:
        """
        Close the connections that have been idle for longer than `idle_s`; called once a second.

        A timer for each of them would cost every request more than its place here.
        """
        self._second += 1
        idle = self._waiting[Place.IDLE]
        for client, since in list(zip(idle, idle.values(), strict=True)) if idle else ():
            if self._second - since <= idle_s:
                break
            if not _has_sent(client):
                hang_up(client)

    def waiting(self, place: Place) -> list[Any]:
        """List the connections that wait for one thing, those that wait longest first."""
        return list(self._waiting[place])

    @property
    def is_working(self) -> bool:
        """Tell whether any connection is in the middle of a request."""
        return len(self._place) > len(self._waiting[Place.IDLE])

    def _make_room(self) -> None:
        if len(self._place) - len(self._going) <= self._limit:
            return
        for place in (Place.IDLE, Place.HEAD, Place.BODY):
            for client, _ in zip(self._waiting[place], range(_LOOKS), strict=False):
                # What the client has sent and nobody has read yet would be lost with its connection.
                if not _has_sent(client):
                    self._note_eviction(place)
                    self._going.add(client)
                    self.move(client, Place.SERVED)
                    # Its own greenlet wakes by this, and closes it.
                    hang_up(client)
                    return


def _has_sent(client: Any) -> bool:
    try:
        # Of the plain socket: gevent's own waits until there is something.
        return bool(client._sock.recv(1, socket.MSG_PEEK | socket.MSG_DONTWAIT))  # noqa: SLF001 -- it is the plain socket's only name
    except OSError:
        return False


def hang_up(client: Any) -> None:
    """End a connection from outside of the greenlet that serves it."""
    with suppress(OSError):
        client.shutdown(socket.SHUT_RDWR)
