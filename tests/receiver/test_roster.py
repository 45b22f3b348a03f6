"""Who has to go when too many are connected."""

from __future__ import annotations

from collections.abc import Iterator

import pytest
from gevent import socket

from collector.receiver.roster import Place, Roster


class Room:
    """A roster for three, and the far ends of its connections."""

    def __init__(self) -> None:
        self.evicted: list[Place] = []
        self.roster = Roster(3, self.evicted.append)
        self.pairs: list[tuple[socket.socket, socket.socket]] = []

    def connect(self, place: Place) -> int:
        """Let a connection in that then waits for something; return its number."""
        ours, theirs = socket.socketpair()
        self.pairs.append((ours, theirs))
        self.roster.enter(ours)
        self.roster.move(ours, place)
        return len(self.pairs) - 1

    def ended(self) -> list[int]:
        """Return the numbers of the connections that were hung up, as their clients see it."""
        found = []
        for number, (_, theirs) in enumerate(self.pairs):
            theirs.settimeout(0)
            try:
                if not theirs.recv(1):
                    found.append(number)
            except OSError:
                continue
        return found


@pytest.fixture
def room() -> Iterator[Room]:
    """Close the connections at the end."""
    one = Room()
    yield one

    for pair in one.pairs:
        for end in pair:
            end.close()


def test_nobody_goes_while_there_is_room(room: Room) -> None:
    """A limit is no reason below it."""
    for _ in range(3):
        room.connect(Place.IDLE)

    assert [] == room.ended()
    assert [] == room.evicted


def test_the_one_that_is_idle_longest_goes_first(room: Room) -> None:
    """It is the least likely to send again."""
    numbers = [room.connect(Place.IDLE) for _ in range(3)]
    room.roster.move(room.pairs[numbers[0]][0], Place.SERVED)
    room.roster.move(room.pairs[numbers[0]][0], Place.IDLE)
    room.connect(Place.IDLE)

    assert [numbers[1]] == room.ended()
    assert [Place.IDLE] == room.evicted


@pytest.mark.parametrize(
    ("places", "goes"),
    [
        ((Place.BODY, Place.HEAD, Place.IDLE), 2),
        ((Place.BODY, Place.HEAD, Place.SERVED), 1),
        ((Place.BODY, Place.SERVED, Place.SERVED), 0),
    ],
)
def test_who_has_sent_least_goes_first(room: Room, places: tuple[Place, ...], goes: int) -> None:
    """Half an upload is lost work; an idle connection is none."""
    numbers = [room.connect(place) for place in places]
    room.connect(Place.IDLE)

    assert [numbers[goes]] == room.ended()


def test_nobody_who_is_served_goes(room: Room) -> None:
    """Its answer is on the way, and its events may be kept already."""
    for _ in range(5):
        room.connect(Place.SERVED)

    assert [] == room.ended()


def test_where_nobody_could_go_the_first_who_waits_again_goes(room: Room) -> None:
    """The listener takes nobody in while all places are taken: it would be closed until a deadline passes."""
    for _ in range(5):
        room.connect(Place.SERVED)
    for number in (3, 1):
        room.roster.move(room.pairs[number][0], Place.IDLE)
    room.roster.move(room.pairs[0][0], Place.IDLE)

    assert [1, 3] == room.ended()


def test_one_that_has_just_sent_stays(room: Room) -> None:
    """What lies in the socket unread would be lost without an answer."""
    first, second, _ = (room.connect(Place.IDLE) for _ in range(3))
    room.pairs[first][1].send(b"POST")
    room.connect(Place.IDLE)

    assert [second] == room.ended()


def test_one_that_left_is_forgotten(room: Room) -> None:
    """Its place is free again."""
    first = room.connect(Place.IDLE)
    room.roster.leave(room.pairs[first][0])
    for _ in range(3):
        room.connect(Place.IDLE)

    assert [] == room.ended()
    assert 3 == len(room.roster)


def test_the_roster_works_while_anybody_is_in_the_middle_of_something(room: Room) -> None:
    """A worker that stops waits for that, and not for who is idle."""
    number = room.connect(Place.IDLE)

    assert not room.roster.is_working

    room.roster.move(room.pairs[number][0], Place.HEAD)

    assert room.roster.is_working
