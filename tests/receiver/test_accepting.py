"""How workers share what comes to the port that all of them listen on."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import ExitStack

import gevent
import pytest
from gevent import socket

from collector.receiver import worker
from collector.receiver.worker import SharedServer

#: For whatever must come, in seconds.
PATIENCE_S = 10.0


class Port:
    """A port with two workers' servers in this process; `accepted` names who took each connection."""

    def __init__(self, stack: ExitStack) -> None:
        self._stack = stack
        self.accepted: list[str] = []
        self._listener = socket.create_server(("127.0.0.1", 0))
        for name in ("one", "two"):
            listener = socket.socket(fileno=self._listener.dup().detach())
            server = SharedServer(listener, handle=lambda client, _, name=name: self.accepted.append(name))
            server.start()
            stack.callback(server.close)
        stack.callback(self._listener.close)

    def connect(self) -> None:
        """Connect, and wait until somebody has accepted."""
        count = len(self.accepted)
        self._stack.enter_context(socket.create_connection(self._listener.getsockname()))
        with gevent.Timeout(PATIENCE_S):
            while len(self.accepted) == count:
                gevent.sleep(0.001)


@pytest.fixture
def port() -> Iterator[Port]:
    with ExitStack() as stack:
        yield Port(stack)


def test_who_has_accepted_lets_the_others_accept(port: Port, monkeypatch: pytest.MonkeyPatch) -> None:
    """The worker that is awake would have all that come, and serve their uploads while the others sleep."""
    monkeypatch.setattr(worker, "_PAUSE_S", 2 * PATIENCE_S)
    for _ in range(2):
        port.connect()

    assert {"one", "two"} == set(port.accepted)


def test_a_pause_ends_by_itself(port: Port) -> None:
    """A worker that nobody helps has them all."""
    for _ in range(20):
        port.connect()

    assert 20 == len(port.accepted)
