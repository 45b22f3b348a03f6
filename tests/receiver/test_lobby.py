"""In the lobby connections wait for each other's sake, and none of them for another's."""

from __future__ import annotations

import gc
import json
import time
import tracemalloc
from collections import Counter
from collections.abc import Iterator
from pathlib import Path

import gevent
import pytest
from gevent.event import Event

from collector.buffer.segment import Contents
from collector.errors import BadUpload
from collector.outcome import Reason
from collector.protocols.base import Reply
from collector.receiver.body import BodyRoom
from collector.receiver.lobby import Arrival, Denial, Guest, Visit
from collector.receiver.roster import Place
from collector.receiver.shed import Shed
from tests.receiver.hall import Client, Hall, one
from tests.server import upload


@pytest.fixture
def hall(root: Path) -> Iterator[Hall]:
    made = Hall(root)
    yield made
    made.close()


def send_together(clients: list[Client], requests: list[bytes]) -> None:
    """Send a request by each connection, before the loop looks at any of them."""
    for client, request in zip(clients, requests, strict=True):
        client.send(request)


def spin(seconds: float) -> None:
    """Keep the loop busy, as serving does."""
    until = time.monotonic() + seconds
    while time.monotonic() < until:
        pass


def hold_next(hall: Hall) -> Event:
    """Let the next group wait, in the middle of being served, until the event is set."""
    go = Event()

    def rest() -> None:
        hall.hot.before = None
        go.wait()

    hall.hot.before = rest
    return go


def statuses(clients: list[Client]) -> list[int]:
    return [client.must_reply().status for client in clients]


def kept(hall: Hall) -> list[str]:
    """Let all be delivered, and return the ids of what was kept."""
    return [json.loads(line)["id"] for line in hall.world.deliver()]


def contents(hall: Hall) -> Contents:
    hall.world.spool.seal_all()
    ((_, segment),) = hall.world.spool.sealed()
    return segment.load()


# -- together ----------------------------------------------------------------------------------------------


def test_uploads_that_come_together_are_served_together_and_answered_each_by_its_own(hall: Hall) -> None:
    """Whoever gets another's answer believes another's events to be safe."""
    clients = hall.connect_many(8)
    send_together(clients, [one(f"{n}") for n in range(8)])
    replies = [client.must_reply() for client in clients]
    receipts = {json.loads(line)["id"]: json.loads(line)["receipt"] for line in hall.world.deliver()}

    assert [8] == hall.hot.groups
    assert {str(n): reply.json["receipt"] for n, reply in enumerate(replies)} == receipts
    assert {(200, "keep-alive")} == {(reply.status, reply.headers["connection"]) for reply in replies}
    assert 8 == hall.worker.requests == len(hall.roster.waiting(Place.IDLE))
    assert [len(b'{"id": "0"}')] * 8 == [told["bytes"] for told in hall.world.signals.named("upload_accepted")]


def test_uploads_of_a_tenant_that_come_together_share_a_frame(hall: Hall) -> None:
    """To read a frame back costs the same, whatever is in it."""
    clients = hall.connect_many(8)
    send_together(clients, [one(f"{n}", key=("dev-key", "private-key")[n % 2]) for n in range(8)])

    assert [200] * 8 == statuses(clients)
    pieces = contents(hall).pieces
    assert {"dev": [4], "private": [4]} == {
        tenant_id: [piece.events for piece in found] for (tenant_id, _), found in pieces.items()
    }


def test_each_that_comes_with_others_gets_what_is_due_to_it(hall: Hall) -> None:
    """What the others are must not show in an answer, and who is slow or wrong must not hold them up."""
    good, bad, half, two, known, again, unknown = hall.connect_many(7)
    cut = one("half")
    send_together(
        [good, bad, half, two, known, again, unknown],
        [
            one("good"),
            upload(b'{"id":'),
            cut[:-9],
            upload(b'{"id":"first"}\n{"id":"beside"}\n', "Content-Type: application/x-ndjson") + one("second"),
            one("seen", key="once-key"),
            one("seen", key="once-key"),
            one("no", key="what"),
        ],
    )

    assert [200, 400, 200, 200, 401] == statuses([good, bad, known, again, unknown])
    assert [2, 1] == [two.must_reply().json["accepted"] for _ in range(2)]
    assert half.is_silent()
    assert 200 == half.send(cut[-9:]).must_reply().status
    assert sorted(["good", "half", "first", "beside", "second", "seen"]) == sorted(kept(hall))
    assert 8 == hall.worker.requests


def test_a_connection_carries_one_upload_after_the_other(hall: Hall) -> None:
    """Each of them waits in the lobby again."""
    clients = hall.connect_many(3)
    for n in range(20):
        send_together(clients, [one(f"{n}.{k}") for k in range(3)])
        assert [200] * 3 == statuses(clients)

    assert [3] * 20 == hall.hot.groups
    assert 60 == len(set(kept(hall)))


def test_more_than_a_group_are_served_in_groups(hall: Hall) -> None:
    """A group is work that nothing interrupts, and memory."""
    clients = hall.connect_many(100)
    send_together(clients, [one(f"{n}") for n in range(100)])

    assert [200] * 100 == statuses(clients)
    assert 32 == max(hall.hot.groups)
    assert [str(n) for n in range(100)] == sorted(kept(hall), key=int)


def test_a_request_larger_than_a_look_goes_on_in_its_own_greenlet(hall: Hall) -> None:
    """It would have to be waited for, and nobody in the lobby waits for one."""
    large, other = hall.connect_many(2)
    body = json.dumps([{"id": f"{n}", "x": "y" * 1500} for n in range(100)]).encode()
    send_together([large, other], [upload(body)[:100_000], one("other")])

    assert 200 == other.must_reply().status
    assert [1] == hall.hot.groups
    assert 100 == large.send(upload(body)[100_000:]).must_reply().json["accepted"]


def test_a_body_is_counted_while_it_waits_and_no_longer(hall: Hall) -> None:
    """Many that wait are as much memory as many that are read; and what is never given back shuts the door for good."""
    held: list[int] = []
    hall.hot.before = lambda: held.append(hall.hot.room.held)
    client = hall.connect()
    for n in range(3):
        event = {"id": f"{n}", "x": "y" * 50_000}
        assert 200 == client.send(upload(json.dumps(event).encode())).must_reply().status

    assert [1, 1, 1] == hall.hot.groups
    assert 3 == len([size for size in held if size > 10_000])
    assert 0 == hall.hot.room.held


class FullOnce(BodyRoom):
    """Has no room for the first that asks, and for all others."""

    is_full = True

    def take(self, size: int) -> None:
        if self.is_full:
            self.is_full = False
            raise BadUpload(Reason.BACKPRESSURE, "no room")
        super().take(size)


def test_an_upload_that_finds_no_room_is_not_for_the_lobby(root: Path) -> None:
    """Its own greenlet finds out whether there is some, and has the words if there is none."""
    hall = Hall(root, room=FullOnce(1 << 20))
    client = hall.connect()

    assert 200 == client.send(upload(json.dumps({"id": "large", "x": "y" * 50_000}).encode())).must_reply().status
    assert [] == hall.hot.groups
    assert ["large"] == kept(hall)
    hall.close()


def test_one_that_has_to_be_taken_alone_has_had_its_turn_with_the_others(hall: Hall) -> None:
    """Sent to the end of the queue, or judged by the lag anew, it would pay for what it is."""
    clients = hall.connect_many(80)

    def lag() -> None:
        hall.hot.before = None
        for _ in range(2):
            hall.turns.note_loop_lag(60.0)
        spin(0.02)

    hall.hot.before = lag
    send_together(clients, [one(f"{n}", *(() if n else ("Collector-Ack: spool",))) for n in range(80)])
    assert 200 == clients[0].must_reply().status
    hall.turns.note_loop_lag(0.0)
    assert [200] * 79 == statuses(clients[1:])
    order = kept(hall)

    assert order.index("0") < order.index("79")


# -- clients that are no help ------------------------------------------------------------------------------


def test_an_upload_whose_client_leaves_while_it_waits_for_its_turn_is_kept(hall: Hall) -> None:
    """It came whole. That nobody hears of it is the client's affair; that nobody else is disturbed is ours."""
    clients = hall.connect_many(80)

    def leave() -> None:
        hall.hot.before = None
        # More than a slice: the others wait for the next one.
        spin(0.02)
        clients[-1].reset()
        clients[-2].sock.close()

    hall.hot.before = leave
    send_together(clients, [one(f"{n}") for n in range(80)])

    assert [200] * 78 == statuses(clients[:-2])
    assert {str(n): 1 for n in range(80)} == Counter(kept(hall))
    hall.turn()
    assert 78 == len(hall.roster)


def test_a_client_that_breaks_off_with_its_answer_unread_disturbs_nobody(hall: Hall) -> None:
    """The look at its connection fails; those behind it have come with the same look."""
    clients = hall.connect_many(5)
    send_together(clients[:3], [one(f"{n}") for n in range(3)])
    hall.turn()
    for client in clients[:3]:
        client.sock.close()
    send_together(clients[3:], [one("3"), one("4")])

    assert [200, 200] == statuses(clients[3:])
    hall.turn()
    assert 2 == len(hall.roster)


def test_an_answer_does_not_overtake_one_that_is_made_alone(hall: Hall) -> None:
    """A client takes the first that comes for the one to its first request."""
    go = hold_next(hall)
    client = hall.connect()
    client.send(one("first", key="what"))
    hall.turn()
    client.send(one("second"))
    hall.turn()
    go.set()

    assert [401, 200] == statuses([client, client])


def test_a_client_that_ends_its_half_after_its_upload_is_answered(hall: Hall) -> None:
    """The end comes with the same look as the upload."""
    client = hall.connect()
    client.send(one("last")).half_close()

    assert [200] == [reply.status for reply in client.replies()]
    assert ["last"] == kept(hall)


def test_a_client_that_does_not_read_its_answers_holds_up_nobody_and_gets_them_all(hall: Hall) -> None:
    """What is left of an answer must go before the next one, or neither can be read."""
    slow, other = hall.connect(send_buffer=4096), hall.connect()
    sent = 0
    while Place.SERVED not in {place for place in Place if hall.roster.waiting(place)}:
        slow.send(upload(json.dumps([{"id": f"slow{sent}"}, *[0] * 99]).encode()))
        sent += 1
        hall.turn()
        assert sent < 1000
    for n in range(3):
        slow.send(one(f"more{n}"))
        hall.turn()
    assert [200] * 5 == [other.send(one(f"other{n}")).must_reply().status for n in range(5)]
    replies = [slow.must_reply() for _ in range(sent + 3)]
    receipts = [reply.json["receipt"] for reply in replies]

    assert [1] * (sent + 3) == [reply.json["accepted"] for reply in replies]
    # They grow with the time of their making.
    assert sorted(receipts) == receipts
    assert 200 == slow.send(one("after")).must_reply().status


def test_a_client_that_sends_more_while_it_is_served_is_served_again(hall: Hall) -> None:
    """It is not looked at meanwhile, however often the loop goes round: its bytes stay there until it waits again."""
    go = hold_next(hall)
    client = hall.connect()
    client.send(one("first"))
    hall.turn()
    client.send(one("second"))
    hall.turn()
    looks = Counter[str]()
    epoll = hall.lobby._epoll

    class Counted:
        """epoll's own methods can't be replaced."""

        def __getattr__(self, name: str) -> object:
            looks[name] += 1
            return getattr(epoll, name)

    hall.lobby._epoll = Counted()
    hall.turn(20)
    hall.lobby._epoll = epoll
    go.set()

    assert 0 == looks["poll"]
    assert [200, 200] == statuses([client, client])
    assert ["first", "second"] == kept(hall)


def test_the_lobby_holds_nothing_of_what_it_has_served(hall: Hall) -> None:
    """It may be long until the next upload comes, and its body is not counted any more."""
    client = hall.connect()
    assert 200 == client.send(one("served")).must_reply().status
    hall.world.intake.gate.draining = True
    assert 503 == client.send(one("refused")).must_reply().status
    hall.turn()
    gc.collect()

    assert [] == [thing for thing in gc.get_objects() if isinstance(thing, Arrival | Denial)]


def test_an_answer_that_waits_alone_for_its_sink_holds_nothing_of_its_upload(
    hall: Hall, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Two thousand connections with 60 KB each would be a whole worker's memory, for as long as the sink hangs."""
    held: list[int] = []

    def confirm(*_: object) -> Reply:
        # Who woke the connection goes on, and lets go.
        gevent.sleep(0.01)
        held.append(tracemalloc.get_traced_memory()[0])
        return Reply(200, (), b"waited")

    monkeypatch.setattr("collector.receiver.upload.confirm", confirm)
    request, client = upload(json.dumps({"id": "a", "x": "y" * 50_000}).encode(), key="sure-key"), hall.connect()
    tracemalloc.start()
    try:
        assert b"waited" == client.send(request).must_reply().body
    finally:
        tracemalloc.stop()

    assert [True] == [size < 40_000 for size in held], held


def test_a_connection_that_asks_to_close_is_closed_after_its_answer(hall: Hall) -> None:
    """It waits for the end."""
    clients = hall.connect_many(3)
    send_together(clients, [one("a"), one("b", "Connection: close"), one("c")])
    replies = [client.must_reply() for client in clients]

    assert ["keep-alive", "close", "keep-alive"] == [reply.headers["connection"] for reply in replies]
    assert clients[1].reply() is None
    assert [True, True] == [clients[0].is_silent(), clients[2].is_silent()]


# -- who may be sent away ----------------------------------------------------------------------------------


def test_nobody_whose_upload_has_come_is_sent_away_for_another(root: Path) -> None:
    """Its bytes were read: with the connection they would be lost, and nobody told."""
    hall = Hall(root, limit=3)
    first, second, idle = hall.connect_many(3)
    late: list[Client] = []

    def connect() -> None:
        hall.hot.before = None
        late.append(hall.connect())

    hall.hot.before = connect
    send_together([first, second], [one("first"), one("second")])

    assert [200, 200] == statuses([first, second])
    assert idle.reply() is None
    assert [Place.IDLE] == hall.evicted
    assert 200 == late[0].send(one("late")).must_reply().status
    hall.close()


def test_an_idle_connection_is_swept_and_one_that_is_served_is_not(hall: Hall) -> None:
    """A device that went away without a word holds a place, and one whose upload waits is not idle."""
    idle, busy = hall.connect_many(2)

    def sweep() -> None:
        hall.hot.before = None
        for _ in range(5):
            hall.roster.sweep(2.0)

    hall.hot.before = sweep
    busy.send(one("a"))

    assert 200 == busy.must_reply().status
    assert idle.reply() is None
    assert 200 == busy.send(one("b")).must_reply().status


# -- what goes wrong ---------------------------------------------------------------------------------------


def test_a_group_that_fails_is_closed_without_an_answer_and_the_next_is_served(hall: Hall) -> None:
    """A device that hears nothing sends again; one that waits for ever does not."""
    clients = hall.connect_many(40)

    def fail() -> None:
        hall.hot.before = None
        raise RuntimeError("a defect")

    hall.hot.before = fail
    large = upload(json.dumps({"id": "large", "x": "y" * 40_000}).encode())
    send_together(clients, [large, *(one(f"{n}") for n in range(1, 40))])
    answers = [client.reply() for client in clients]
    failed = [n for n, reply in enumerate(answers) if reply is None]

    assert 1 == len(hall.worker.failures)
    assert hall.hot.groups[0] == len(failed)
    assert {200} == {reply.status for reply in answers if reply is not None}
    assert 200 == hall.connect().send(one("after")).must_reply().status
    assert {**{str(n): 1 for n in range(1, 40) if n not in failed}, "after": 1} == Counter(kept(hall))
    assert 0 == hall.hot.room.held


def test_an_answer_that_can_not_be_written_closes_none_of_those_that_were_served(
    hall: Hall, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Their own greenlets have them again: a second word would be taken for the end of the next request."""
    alone, broken, after = hall.connect_many(3)
    render = hall.hot.render

    def fail_once(*args: object, **kwargs: object) -> bytes:
        monkeypatch.setattr(hall.hot, "render", render)
        raise RuntimeError("a defect")

    monkeypatch.setattr(hall.hot, "render", fail_once)
    send_together([alone, broken], [one("alone", key="once-key"), one("broken")])

    assert 200 == alone.must_reply().status
    assert broken.reply() is None
    assert [200, 200] == statuses([alone.send(one("again")), after.send(one("after"))])


def test_whoever_serves_may_wait_and_nobody_else_waits_with_it(hall: Hall) -> None:
    """It may need a lock that another worker holds; the loop itself must not stand still for that."""
    go = Event()
    order: list[str] = []

    def rest() -> None:
        hall.hot.before = None
        order.append("waits")
        go.wait()
        order.append("goes on")

    hall.hot.before = rest
    first, second = hall.connect_many(2)
    first.send(one("first"))
    hall.turn()
    second.send(one("second"))
    hall.turn()
    order.append("others run")
    assert [True, True] == [first.is_silent(), second.is_silent()]
    go.set()

    assert [200, 200] == statuses([first, second])
    assert ["waits", "others run", "goes on"] == order
    assert [1, 1] == hall.hot.groups
    assert ["first", "second"] == kept(hall)


# -- the end -----------------------------------------------------------------------------------------------


def test_what_is_in_the_lobby_when_the_worker_leaves_is_answered_and_closed(hall: Hall) -> None:
    """A client that is told so finds another worker; a reset costs it a timeout."""
    clients = hall.connect_many(3)
    hall.hot.before = lambda: setattr(hall.worker, "is_leaving", True)
    send_together(clients, [one(f"{n}") for n in range(3)])
    replies = [client.must_reply() for client in clients]

    assert [(200, "close")] * 3 == [(reply.status, reply.headers["connection"]) for reply in replies]
    assert [None] * 3 == [client.reply() for client in clients]
    assert 3 == len(kept(hall))


def test_an_upload_whose_turn_comes_when_none_is_taken_any_more_is_refused(hall: Hall) -> None:
    """The spool is being emptied: what were kept now would be left behind."""
    clients = hall.connect_many(3)
    hall.hot.before = lambda: setattr(hall.world.intake.gate, "draining", True)
    send_together(clients, [one(f"{n}") for n in range(3)])
    replies = [client.must_reply() for client in clients]

    assert [(503, "draining")] * 3 == [(reply.status, reply.json["error"]) for reply in replies]
    assert [] == kept(hall)


def watch_hand_overs(hall: Hall, monkeypatch: pytest.MonkeyPatch) -> list[bytes]:
    """Return what has gone on in its own greenlet since."""
    seen: list[bytes] = []
    hand_over = hall.lobby._hand_over

    def watched(guest: Guest, visit: Visit) -> None:
        seen.append(visit.data)
        hand_over(guest, visit)

    monkeypatch.setattr(hall.lobby, "_hand_over", watched)
    return seen


def test_while_the_door_is_closed_uploads_are_refused_together_and_their_connections_live_on(
    hall: Hall, monkeypatch: pytest.MonkeyPatch
) -> None:
    """They come back in a moment, and a handshake costs both sides."""
    clients = hall.connect_many(20)
    handed_over = watch_hand_overs(hall, monkeypatch)
    hall.world.intake.gate.draining = True
    send_together(clients, [one(f"no{n}", f"Origin: https://{n}.example") for n in range(20)])
    refused = [client.must_reply() for client in clients]
    hall.world.intake.gate.draining = False
    send_together(clients, [one(f"{n}") for n in range(20)])

    assert [(503, "draining")] * 20 == [(reply.status, reply.json["error"]) for reply in refused]
    assert [f"https://{n}.example" for n in range(20)] == [
        reply.headers["access-control-allow-origin"] for reply in refused
    ]
    assert 20 == len(hall.world.signals.named("upload_refused"))
    assert [200] * 20 == statuses(clients)
    assert ([20], 20, []) == (hall.hot.groups, len(kept(hall)), handed_over)


def test_while_the_door_is_closed_each_that_is_in_doubt_is_refused_alone(hall: Hall) -> None:
    """Where a body ends, only who reads it knows; and what is no upload may come in."""
    half, two, chunked, small = hall.connect_many(4)
    cut = one("half")
    hall.world.intake.gate.draining = True
    send_together(
        [half, two, chunked, small],
        [cut[:-9], one("first") + one("second"), upload(b"", "Transfer-Encoding: chunked"), one("small")],
    )

    assert [503] * 4 == statuses([half, two, chunked, small])
    assert 503 == two.must_reply().status
    assert chunked.reply() is None
    hall.world.intake.gate.draining = False
    half.send(cut[-9:])
    assert [200] * 3 == statuses([one_.send(one(f"{n}")) for n, one_ in enumerate([half, two, small])])
    assert ["0", "1", "2"] == sorted(kept(hall))


def test_a_refusal_that_fails_closes_its_own_connection_alone(hall: Hall, monkeypatch: pytest.MonkeyPatch) -> None:
    """A device that hears nothing sends again."""
    clients = hall.connect_many(3)
    shedder = hall.door.shedder
    assert shedder is not None
    refuse = shedder.refuse

    def fail_once(shed: Shed) -> bytes:
        monkeypatch.setattr(shedder, "refuse", refuse)
        raise RuntimeError("a defect")

    monkeypatch.setattr(shedder, "refuse", fail_once)
    hall.world.intake.gate.draining = True
    send_together(clients, [one(f"{n}") for n in range(3)])

    assert clients[0].reply() is None
    assert [503, 503] == statuses(clients[1:])
    assert 1 == len(hall.worker.failures)


def test_who_is_refused_while_the_worker_leaves_is_told_and_let_go(hall: Hall) -> None:
    """Its connection would have the worker wait for a request that it does not take."""
    clients = hall.connect_many(3)
    hall.world.intake.gate.draining = hall.worker.is_leaving = True
    send_together(clients, [one(f"{n}") for n in range(3)])

    assert [503] * 3 == statuses(clients)
    assert [None] * 3 == [client.reply() for client in clients]
