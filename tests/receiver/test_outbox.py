"""Answers that become ready together leave together, and each reaches its client or ends its connection."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import ExitStack

import gevent
import pytest
from gevent import socket

from collector.receiver.outbox import Out, Outbox
from collector.receiver.roster import Place, Roster

#: More than a socket of its own takes: the kernel's buffers are a few hundred KiB.
LARGE = b"x" * 8_000_000
#: For whatever must come, in seconds.
PATIENCE_S = 10.0


class Hall:
    """Connections of one roster, with the far ends in our hands."""

    def __init__(self, stack: ExitStack) -> None:
        self._stack = stack
        self.outbox = Outbox()
        self.roster = Roster(100, lambda place: None)

    def connect(self, deadline_s: float = PATIENCE_S) -> tuple[Out, socket.socket]:
        """Let a connection in that is being served; return its way out, and its client."""
        ours, theirs = socket.socketpair()
        for end in (ours, theirs):
            self._stack.callback(end.close)
        theirs.settimeout(PATIENCE_S)
        self.roster.enter(ours)
        return Out(ours, self.roster, deadline_s), theirs

    def resting(self) -> int:
        """Count the connections that have their answer."""
        return len(self.roster.waiting(Place.IDLE))


@pytest.fixture
def hall() -> Iterator[Hall]:
    with ExitStack() as stack:
        yield Hall(stack)


def received(client: socket.socket, size: int) -> bytes:
    """Read so many bytes, or all before the end."""
    data = b""
    while len(data) < size and (more := client.recv(size - len(data))):
        data += more
    return data


def is_silent(client: socket.socket) -> bool:
    """Tell whether nothing has come yet."""
    client.settimeout(0)
    try:
        return not client.recv(1)
    except BlockingIOError:
        return True
    finally:
        client.settimeout(PATIENCE_S)


def test_answers_wait_for_each_other_and_leave_before_the_next_look_at_the_sockets(hall: Hall) -> None:
    """That is what makes them cheap; longer, and a device would wait for strangers."""
    served = [hall.connect() for _ in range(3)]
    for n, (out, _) in enumerate(served):
        out.put(hall.outbox, b"answer %d" % n)
    before = [is_silent(client) for _, client in served]

    answers = [received(client, 8) for _, client in served]

    assert ([True] * 3, [b"answer 0", b"answer 1", b"answer 2"]) == (before, answers)


def test_so_many_do_not_wait_for_more(hall: Hall) -> None:
    """They are memory, and the first of them somebody's time."""
    served = [hall.connect() for _ in range(64)]

    for out, _ in served:
        out.put(hall.outbox, b"answer")

    assert [False] * 64 == [is_silent(client) for _, client in served]


def test_a_connection_counts_as_served_until_its_answer_is_with_the_kernel(hall: Hall) -> None:
    """A worker that goes closes who is idle: an answer that still waits here would be lost."""
    out, client = hall.connect()
    out.put(hall.outbox, b"answer")
    owed = (out.owes, hall.resting())

    received(client, 6)

    assert ((True, 0), (False, 1)) == (owed, (out.owes, hall.resting()))


def test_a_client_that_reads_late_gets_its_large_answer_whole(hall: Hall) -> None:
    """What does not go at once goes as he reads, and nobody else waits for him."""
    out, client = hall.connect()
    other, quick = hall.connect()
    out.put(hall.outbox, LARGE)
    other.put(hall.outbox, b"answer")

    assert b"answer" == received(quick, 6)
    assert (True, 1) == (out.owes, hall.resting())
    assert LARGE == received(client, len(LARGE))
    out.settle(hall.outbox)
    assert (False, 2) == (out.owes, hall.resting())


def test_the_next_answer_does_not_overtake_one_that_is_still_owed(hall: Hall) -> None:
    """A client takes the first that comes for the one to its first request."""
    out, client = hall.connect()
    out.put(hall.outbox, LARGE)
    reader = gevent.spawn(received, client, len(LARGE) + 4)

    out.settle(hall.outbox)
    out.send(b"next")

    assert LARGE + b"next" == reader.get(timeout=PATIENCE_S)


def test_what_is_owed_at_the_end_leaves_before_the_connection_goes(hall: Hall) -> None:
    """A client that has closed its half still waits for its answer."""
    out, client = hall.connect()
    out.put(hall.outbox, b"answer")

    out.settle(hall.outbox)

    assert False is out.owes
    assert b"answer" == received(client, 6)


def test_a_client_that_never_reads_is_hung_up_on(hall: Hall) -> None:
    """Its answer is memory, and its place another's."""
    out, client = hall.connect(deadline_s=0.05)
    out.put(hall.outbox, LARGE)

    gevent.sleep(0)
    out.settle(hall.outbox)

    assert len(LARGE) > len(received(client, len(LARGE)))
    assert False is out.owes


def test_a_client_that_is_gone_keeps_no_other_from_its_answer(hall: Hall) -> None:
    """Those whose answers are behind his have done nothing."""
    gone, left = hall.connect()
    out, client = hall.connect()
    left.close()
    gone.put(hall.outbox, b"answer")
    out.put(hall.outbox, b"answer")

    assert b"answer" == received(client, 6)
    assert False is gone.owes


def test_an_answer_of_a_connection_that_has_left_is_let_go(hall: Hall) -> None:
    """It was closed by its own side while its last bytes were on their way."""
    out, _ = hall.connect()
    out.put(hall.outbox, b"answer")
    hall.roster.leave(out._client)

    hall.outbox.flush()

    assert (False, 0) == (out.owes, len(hall.roster))


def test_a_connection_whose_next_request_has_come_does_not_rest_when_it_is_paid(hall: Hall) -> None:
    """For that moment it could be sent away for another, and what it asked would have no answer."""
    out, client = hall.connect()
    rests: list[int] = []
    hall.roster.rest = lambda _: rests.append(1)  # type: ignore[method-assign,assignment]
    out.put(hall.outbox, LARGE)
    hall.outbox.flush()
    settled = gevent.spawn(out.settle, hall.outbox)
    gevent.sleep(0)
    received(client, len(LARGE))
    settled.join(PATIENCE_S)

    assert (False, []) == (out.owes, rests)
