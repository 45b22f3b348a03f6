"""Requests take turns, and the loop looks at its sockets in between."""

from __future__ import annotations

import json
import os
import signal
import time
from collections import Counter
from collections.abc import Sequence
from pathlib import Path

import gevent
import pytest
from gevent import socket
from gevent.hub import RawGreenlet

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


# -- arrivals ----------------------------------------------------------------------------------------------


class Arrived:
    """A request that came whole."""

    def __init__(self, name: str, size: int = 100) -> None:
        self.name = name
        self.data = bytes(size)


class Desk:
    """Where arrivals are served: in groups, each of which keeps the loop busy for so long."""

    def __init__(self, *, busy_s: float = 0.0) -> None:
        self.turns = Turns()
        self.turns.attend(self._serve, self._refuse)
        self.busy_s = busy_s
        self.served: list[list[str]] = []
        self.refused: list[list[str]] = []

    def _serve(self, group: Sequence[Arrived]) -> None:
        self.served.append([one.name for one in group])
        spin(self.busy_s)

    def _refuse(self, group: Sequence[Arrived]) -> None:
        self.refused.append([one.name for one in group])
        spin(self.busy_s)

    def come(self, *arrivals: Arrived) -> list[list[str]]:
        """Let arrivals come by the hub; return what was served before anything else ran."""
        at_once: list[list[str]] = []

        def come() -> None:
            before = len(self.served)
            self.turns.come(arrivals)
            at_once.extend(self.served[before:])

        gevent.get_hub().loop.run_callback(come)
        gevent.sleep(0)
        return at_once

    def join(self) -> None:
        """Return when all have had their turns."""
        for _ in range(10):
            gevent.sleep(0.001)


def names(count: int, size: int = 100) -> list[Arrived]:
    return [Arrived(str(n), size) for n in range(count)]


def test_arrivals_are_served_at_once_while_nobody_waits() -> None:
    """A device whose worker is idle pays nothing for the queue."""
    desk = Desk()

    assert [["0", "1", "2"]] == desk.come(*names(3))
    desk.join()
    assert [["a"]] == desk.come(Arrived("a"))


def test_arrivals_and_greenlets_have_their_turns_in_the_order_of_their_coming() -> None:
    """Whoever came by the other way would else wait for all of these, or these for all of them."""
    desk = Desk()
    hub = gevent.get_hub()

    def ask(name: str) -> None:
        desk.turns.wait()
        desk.served.append([name])

    def come(*names: str) -> None:
        desk.turns.come([Arrived(name) for name in names])

    def all_come() -> None:
        # In one step of the loop. The first of them has its turn at once.
        RawGreenlet(ask, hub).switch("first")
        RawGreenlet(ask, hub).switch("second")
        come("a", "b")
        RawGreenlet(ask, hub).switch("third")
        come("c")
        come("d")
        RawGreenlet(ask, hub).switch("fourth")

    hub.loop.run_callback(all_come)
    desk.join()

    assert [["first"], ["second"], ["a", "b"], ["third"], ["c", "d"], ["fourth"]] == desk.served


@pytest.mark.parametrize(
    ("count", "size", "groups"), [(100, 100, [32, 32, 32, 4]), (5, 40_000, [2, 2, 1]), (3, 100_000, [1, 1, 1])]
)
def test_a_group_is_bounded_in_number_and_in_bytes(count: int, size: int, groups: list[int]) -> None:
    """Nothing interrupts it, and all of it is held at once."""
    desk = Desk()
    desk.come(*names(count, size))
    desk.join()

    assert groups == [len(group) for group in desk.served]
    assert [str(n) for n in range(count)] == [name for group in desk.served for name in group]


def test_arrivals_are_not_served_at_once_when_a_slice_is_used_up() -> None:
    """Sockets of others have waited for as long."""
    desk = Desk(busy_s=0.011)

    assert [[str(n) for n in range(32)]] == desk.come(*names(70))
    desk.join()
    assert [32, 32, 6] == [len(group) for group in desk.served]


def test_arrivals_that_come_in_a_slice_that_is_used_up_wait_for_the_next() -> None:
    """Coming one by one must gain nothing on coming together."""
    desk = Desk(busy_s=0.011)
    late: list[list[str]] = []

    def come() -> None:
        desk.turns.come([Arrived("first")])
        desk.turns.come([Arrived("second")])
        late.extend(desk.served)

    gevent.get_hub().loop.run_callback(come)
    desk.join()

    assert [["first"]] == late
    assert [["first"], ["second"]] == desk.served


def test_the_loop_looks_at_its_sockets_between_slices_of_arrivals() -> None:
    """A closed loop of uploads keeps no health check waiting."""
    desk = Desk(busy_s=LONG_S)
    ours, theirs = socket.socketpair()
    served_when_read: list[int] = []

    def read() -> None:
        ours.recv(1)
        served_when_read.append(len(desk.served))

    reader = gevent.spawn(read)
    gevent.sleep(0)
    theirs.send(b"!")
    desk.come(*names(32 * 40))
    reader.join()
    ours.close()
    theirs.close()
    while len(desk.served) < 40:
        gevent.sleep(0.001)

    # What is served at once is a slice, and the loop may begin one more before it looks.
    assert served_when_read[0] <= 2 * (0.01 / LONG_S + 1)


def test_the_lag_counts_arrivals_that_wait_and_those_that_are_about_to() -> None:
    """A burst is refused when it comes, and it comes with one look."""
    desk = Desk(busy_s=0.011)
    turns = desk.turns
    alone = turns.lag_s_behind(0), turns.lag_s_behind(100)
    desk.come(*names(532))
    waiting = turns.lag_s, turns.lag_s_behind(500)

    assert 0.0 == alone[0]
    assert 100 * 0.0001 < alone[1]
    assert 500 * 0.0001 < waiting[0] < waiting[1]
    while turns.lag_s:
        gevent.sleep(0.001)
    assert 532 == sum(map(len, desk.served))
    assert turns.take_worst_s() > 0.01


def test_an_arrival_is_expected_to_take_its_part_of_a_group_and_not_all_of_it() -> None:
    """Taken for a turn each, few that wait would seem a long queue, and be refused."""
    desk = Desk(busy_s=LONG_S)
    desk.come(*names(32 * 60))
    while len(desk.served) < 60:
        gevent.sleep(0.001)

    assert desk.turns.lag_s_behind(1) < LONG_S


def test_those_that_are_to_be_refused_have_their_turns_in_small_groups_and_in_the_order_of_their_coming() -> None:
    """Nothing interrupts a group; and whoever came by the other way must not wait for all of these."""
    desk = Desk()
    hub = gevent.get_hub()

    def ask(name: str) -> None:
        desk.turns.wait_to_refuse()
        desk.refused.append([name])

    def all_come() -> None:
        # In one step of the loop. The first of them has its turn at once.
        RawGreenlet(ask, hub).switch("first")
        desk.turns.come_to_be_refused(names(20))
        RawGreenlet(ask, hub).switch("second")
        desk.turns.come_to_be_refused([Arrived("last")])

    hub.loop.run_callback(all_come)
    desk.join()

    rows = [[str(n) for n in range(20)][at : at + 8] for at in (0, 8, 16)]
    assert [["first"], *rows, ["second"], ["last"]] == desk.refused


def test_refusals_take_no_more_turns_than_uploads_do() -> None:
    """They are quick to come back, and would have all of the time for themselves."""
    desk = Desk(busy_s=LONG_S)
    desk.turns.come_to_be_refused(names(8 * 100))
    desk.come(*names(32 * 20))
    while len(desk.served) < 20:
        gevent.sleep(0.001)

    # One may be under way when the last upload is served.
    assert 0 < len(desk.refused) <= 20 + 1


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
