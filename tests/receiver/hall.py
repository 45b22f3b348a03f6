"""The device listener of one worker in process, with connections whose far ends are in our hands."""

from __future__ import annotations

import json
from collections.abc import Callable, Sequence
from functools import partial
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import gevent
from gevent import socket

from collector.protocols.base import Protocol
from collector.protocols.native import Native
from collector.receiver.answers import cors
from collector.receiver.body import BodyRoom
from collector.receiver.connection import Connection
from collector.receiver.door import Door
from collector.receiver.hot import Hot, HotDoor
from collector.receiver.intake import refuse
from collector.receiver.lobby import Lobby
from collector.receiver.outbox import Outbox
from collector.receiver.roster import Place, Roster
from collector.receiver.runtime import Times
from collector.receiver.shed import Shedder
from collector.receiver.together import Taken
from collector.receiver.turns import Turns
from tests.receiver.world import World
from tests.server import Link, upload

#: For whatever must come, in seconds.
PATIENCE_S = 10.0
PROTOCOLS: dict[str, Protocol] = {"/v1/events": Native()}


def one(name: str, *fields: str, key: str = "dev-key") -> bytes:
    """Write an upload of one event, whose id is its name."""
    return upload(json.dumps({"id": name}).encode(), *fields, key=key)


class Worker:
    """What connections ask of their worker."""

    def __init__(self) -> None:
        self.cfg = SimpleNamespace(limit_request_line=4094, limit_request_fields=100, limit_request_field_size=8190)
        times = Times(lame_duck_s=0.0, drain_s=4.0, body_deadline_s=PATIENCE_S, max_header_bytes=16 * 1024)
        self.wsgi = SimpleNamespace(
            runtime=SimpleNamespace(times=times, bad_request=lambda _, message: message.encode())
        )
        self.failures: list[str] = []
        self.log = SimpleNamespace(exception=self.failures.append)
        self.requests = 0
        self.is_leaving = False

    def count_request(self) -> None:
        """Count."""
        self.requests += 1


class WatchedDoor(HotDoor):
    """The hot door; `groups` are the sizes of what it served together, and `before`, if set, is called before each."""

    groups: list[int]
    before: Callable[[], object] | None = None

    def serve_together(self, uploads: Sequence[tuple[Hot, bytes, str]]) -> list[Taken]:
        """Take note, and serve."""
        self.groups.append(len(uploads))
        if self.before is not None:
            self.before()
        return super().serve_together(uploads)


class Client(Link):
    """The far end of a connection."""

    def __init__(self, sock: Any) -> None:  # no super(): it would connect
        self._buffer = b""
        self.sock = sock

    def is_silent(self) -> bool:
        """Tell whether nothing has come yet, and the connection stands."""
        self.sock.settimeout(0)
        try:
            self._buffer += self.sock.recv(1)
        except BlockingIOError:
            return not self._buffer
        finally:
            self.sock.settimeout(PATIENCE_S)
        return False


class Hall:
    """A listener that takes `limit` connections."""

    def __init__(self, root: Path, *, limit: int = 1000, room: BodyRoom | None = None) -> None:
        self.world = World(root)
        intake = self.world.intake
        self.worker = Worker()
        self.evicted: list[Place] = []
        self.roster = Roster(limit, self.evicted.append)
        self.turns = Turns()
        self.hot = WatchedDoor(
            intake, PROTOCOLS, room=room or BodyRoom(1 << 20), max_upload_bytes=1 << 20, trusted_hops=0
        )
        self.hot.groups = []
        self.door = Door(
            "test",
            "device",
            self.worker,
            self.roster,
            Outbox(),
            turns=self.turns,
            shedder=Shedder(PROTOCOLS, verdict=intake.gate.open, refuse=partial(refuse, intake), cors=cors),
            hot=self.hot,
        )
        assert self.door.lobby is not None
        self.lobby: Lobby = self.door.lobby
        self._clients: list[Client] = []
        self._greenlets: list[Any] = []

    def connect(self, *, send_buffer: int = 0) -> Client:
        """Let a connection in, and return its far end once it waits in the lobby."""
        ours, theirs = socket.socketpair()
        if send_buffer:
            ours.setsockopt(socket.SOL_SOCKET, socket.SO_SNDBUF, send_buffer)
        theirs.settimeout(PATIENCE_S)
        self._clients.append(Client(theirs))
        self._greenlets.append(gevent.spawn(Connection(self.door, ours, ("192.0.2.1", 4711)).run))
        gevent.sleep(0)
        return self._clients[-1]

    def connect_many(self, count: int) -> list[Client]:
        """Let some connections in."""
        return [self.connect() for _ in range(count)]

    def turn(self, times: int = 5) -> None:
        """Let the loop look at its sockets so many times."""
        for _ in range(times):
            # A sleep of 0 comes back before it has looked.
            gevent.sleep(0.001)

    def close(self) -> None:
        """Hang up, and hold that every connection came to its end and left nothing behind."""
        for client in self._clients:
            client.sock.close()
        done = gevent.joinall(self._greenlets, timeout=PATIENCE_S)
        self.lobby._watcher.stop()
        self.lobby._servant.kill()
        self.lobby._epoll.close()
        self.world.close()

        assert len(self._greenlets) == len(done)
        assert (0, {}, 0) == (len(self.roster), self.lobby._known, self.hot.room.held)
