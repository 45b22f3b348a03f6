"""The listening sockets: bound once, kept or let go by their addresses."""

from __future__ import annotations

import os
import socket
from collections.abc import Iterator

import pytest

from collector.errors import BindError
from collector.launcher.listeners import Listeners
from tests.server import free_ports


@pytest.fixture
def listeners() -> Iterator[Listeners]:
    listeners = Listeners()
    yield listeners
    listeners.keep(())


def address(port: int) -> str:
    return f"127.0.0.1:{port}"


def answers(port: int) -> bool:
    try:
        socket.create_connection(("127.0.0.1", port)).close()
    except ConnectionRefusedError:
        return False
    return True


def test_an_address_is_listened_on_until_it_is_let_go(listeners: Listeners) -> None:
    """One that stays keeps its queue: whoever waits in it waits on."""
    one, other = free_ports(2)
    listeners.open([address(one), address(other)], 16)
    (before,) = listeners.fds([address(other)])
    listeners.open([address(other)], 16)

    assert [before] == listeners.fds([address(other)])
    assert (True, True) == (answers(one), answers(other))
    assert not os.get_inheritable(before)
    listeners.keep([address(other)])
    assert (False, True) == (answers(one), answers(other))


def test_whoever_waits_at_an_address_that_is_let_go_is_served_and_nobody_comes_after(listeners: Listeners) -> None:
    """The last worker looks into the queue and closes it; whoever came between the two would be reset."""
    (port,) = free_ports(1)
    listeners.open([address(port)], 16)
    with socket.socket(fileno=os.dup(listeners.fds([address(port)])[0])) as inherited:
        waiting = socket.create_connection(("127.0.0.1", port))
        listeners.keep(())
        with pytest.raises(TimeoutError):
            socket.create_connection(("127.0.0.1", port), timeout=0.3)
        served, _ = inherited.accept()
        waiting.sendall(b"?")
        served.sendall(served.recv(1))

        with pytest.raises(BlockingIOError):
            inherited.accept()
        assert b"?" == waiting.recv(1)
        waiting.close()
        served.close()
    assert not answers(port)


def test_a_socket_given_from_outside_is_given_back_as_it_was(listeners: Listeners) -> None:
    """Its owner may start the next task on it."""
    with socket.create_server(("127.0.0.1", 0)) as given:
        listeners.open([f"fd://{os.dup(given.fileno())}"], 16)
        listeners.keep(())

        assert answers(given.getsockname()[1])


@pytest.mark.filterwarnings("error")
def test_of_addresses_that_cannot_all_be_had_none_is_taken(listeners: Listeners) -> None:
    """A reload that is rejected leaves nothing open, and no socket for the collector of garbage."""
    (free,) = free_ports(1)
    with socket.create_server(("127.0.0.1", 0)) as taken:
        port = taken.getsockname()[1]
        with pytest.raises(BindError, match=f"127.0.0.1:{port} can't be listened on: another program does") as refused:
            listeners.open([address(free), address(port)], 16)

    assert refused.value.is_busy
    assert not answers(free)


def test_an_address_of_another_machine_is_told_and_not_waited_for(listeners: Listeners) -> None:
    """It will not be ours in five seconds either."""
    with pytest.raises(BindError, match=r"192\.0\.2\.1:80 can't be listened on: ") as refused:
        listeners.open(["192.0.2.1:80"], 16)

    assert not refused.value.is_busy


def test_a_socket_given_from_outside_is_taken_as_it_is(listeners: Listeners) -> None:
    """systemd binds it, and we may not."""
    given = socket.create_server(("127.0.0.1", 0))
    port = given.getsockname()[1]
    name = f"fd://{given.detach()}"
    listeners.open([name], 16)

    assert [int(name.removeprefix("fd://"))] == listeners.fds([name])
    assert answers(port)


def test_ipv6_is_listened_on_by_its_brackets(listeners: Listeners) -> None:
    """A bind is written as it stands in a URL."""
    with socket.socket(socket.AF_INET6) as probe:
        try:
            probe.bind(("::1", 0))
        except OSError:
            pytest.skip("no IPv6 on this machine")
        port = probe.getsockname()[1]
    listeners.open([f"[::1]:{port}"], 16)

    socket.create_connection(("::1", port)).close()
