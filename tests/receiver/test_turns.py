"""Requests take turns, and the loop looks at its sockets in between."""

from __future__ import annotations

import json
import os
import signal
import time
from collections import Counter
from pathlib import Path

import gevent
import pytest
from gevent import socket

from collector.receiver.turns import Turns
from tests.server import Server, head, upload

#: More than the least slice: a turn that takes so long has its slice to itself.
LONG_S = 0.003


def spin(seconds: float) -> None:
    """Keep the loop busy, as serving does."""
    until = time.monotonic() + seconds
    while time.monotonic() < until:
        pass


def test_nobody_is_served_twice_while_another_waits() -> None:
    """One that always has a request ready would be served over and over."""
    turns = Turns()
    order: list[int] = []

    def ask(name: int) -> None:
        for _ in range(30):
            turns.wait()
            order.append(name)

    gevent.joinall([gevent.spawn(ask, name) for name in range(8)], raise_error=True)
    # The first one is served before the others have come.
    rounds = [Counter(order[at : at + 8]) for at in range(1, len(order) - 8, 8)]

    assert [Counter(range(8))] * 29 == rounds


def test_a_turn_comes_at_once_when_nobody_else_is_served() -> None:
    """A single client pays nothing for the queue."""
    turns = Turns()
    seen = []
    for _ in range(3):
        gevent.spawn(lambda: seen.append("other"))
        turns.wait()
        seen.append("served")
        gevent.sleep(0.001)

    assert ["served", "other"] * 3 == seen


def test_the_loop_looks_at_its_sockets_between_slices() -> None:
    """A health check comes by a socket; it must not wait for all who wait for a turn."""
    turns = Turns()
    ours, theirs = socket.socketpair()
    served = 0
    served_when_read = None

    def ask() -> None:
        nonlocal served
        turns.wait()
        served += 1
        if served == 5:
            theirs.send(b"!")
        spin(LONG_S)

    def read() -> None:
        nonlocal served_when_read
        ours.recv(1)
        served_when_read = served

    reader = gevent.spawn(read)
    gevent.joinall([*(gevent.spawn(ask) for _ in range(40)), reader], raise_error=True)
    ours.close()
    theirs.close()

    assert 40 == served
    # One slice may follow before the loop looks, and one turn of it may be under way.
    assert served_when_read is not None
    assert served_when_read <= 5 + 2


def test_one_that_gives_up_waiting_holds_nobody_up() -> None:
    """Its connection was cut off; those behind it know nothing of that."""
    turns = Turns()
    served: list[str] = []

    def ask(name: str) -> None:
        turns.wait()
        served.append(name)

    first, second, third = (gevent.spawn(ask, name) for name in ("first", "second", "third"))
    # All three have begun when this returns, and the first alone is through.
    gevent.sleep(0)
    second.kill()
    gevent.joinall([first, third], raise_error=True)

    assert ["first", "third"] == served


def test_a_turn_that_fails_does_not_end_the_turns() -> None:
    """The loop itself calls those whose turn it is."""
    turns = Turns()
    served: list[str] = []

    def ask(name: str) -> None:
        turns.wait()
        served.append(name)
        if name == "bad":
            raise RuntimeError("a defect")

    greenlets = [gevent.spawn(ask, name) for name in ("a", "bad", "b")]
    hub_errors = gevent.get_hub().exception_stream
    gevent.get_hub().exception_stream = None
    gevent.joinall(greenlets)
    gevent.get_hub().exception_stream = hub_errors

    assert ["a", "bad", "b"] == served


def test_the_lag_grows_with_those_who_wait() -> None:
    """It is known before the first of them has waited long: a burst is refused when it comes, not a second later."""
    turns = Turns()
    seen: list[float] = []

    def ask() -> None:
        turns.wait()
        seen.append(turns.lag_s)

    gevent.joinall([gevent.spawn(ask) for _ in range(500)], raise_error=True)

    # At the first of them, 499 wait; at the last one, nobody.
    assert seen[1] > 100 * 0.0001
    assert 0.0 == turns.lag_s


@pytest.mark.parametrize(("late", "lag_s"), [((0.5,), 0.0), ((0.5, 0.4), 0.4), ((0.5, 0.4, 0.0), 0.0)])
def test_a_loop_lags_when_it_is_late_twice_in_a_row(late: tuple[float, ...], lag_s: float) -> None:
    """Once late is a process that was stopped for a moment, and no reason to refuse anybody."""
    turns = Turns()
    for one in late:
        turns.note_loop_lag(one)

    assert lag_s == turns.lag_s


def test_the_worst_lag_is_told_once() -> None:
    """Each second's metric is of that second."""
    turns = Turns()
    turns.note_loop_lag(0.7)
    turns.note_loop_lag(0.0)

    assert [0.7, 0.0] == [turns.take_worst_s(), turns.take_worst_s()]


def test_a_client_that_sends_many_requests_at_once_is_served_in_turn_with_the_others(tmp_path: Path) -> None:
    """Pipelining is allowed; going first is not."""
    with Server(tmp_path, max_lag_s=60) as server:
        (worker,) = server.worker_pids()
        # Whichever end the loop begins at, there is somebody behind the greedy one.
        links = [server.link() for _ in range(11)]
        greedy, polite = links[5], links[:5] + links[6:]
        for link in links:
            assert 200 == link.send(head("/healthz", method="GET")).must_reply().status
        # What they send while it stands still, it finds at once.
        os.kill(worker, signal.SIGSTOP)
        greedy.send(*(upload(b'{"id":"greedy%d"}' % n) for n in range(100)))
        for n, link in enumerate(polite):
            link.send(upload(b'{"id":"polite%d"}' % n))
        os.kill(worker, signal.SIGCONT)
        statuses = {greedy.must_reply().status for _ in range(100)} | {link.must_reply().status for link in polite}
        for link in links:
            link.sock.close()
        server.settled()
        lines = sorted(map(json.loads, server.lines()), key=lambda line: line["received_at"])
        order = [line["id"] for line in lines]

        assert {200} == statuses
        assert 110 == len(order)
        # One of the greedy one's may come first, and one between them.
        assert {f"polite{n}" for n in range(10)} <= set(order[:12])
