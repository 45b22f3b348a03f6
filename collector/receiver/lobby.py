"""
The lobby: where connections wait for their next request, all of them with one look.

Whoever waits here costs no switch and no watcher of its own. A request that comes whole, and that the hot door takes,
is served from here, together with those that came at the same time; or refused, while no upload may come in. With all
else the connection's own greenlet goes on, as it would have without a lobby: it gets what was read.
"""

from __future__ import annotations

import select
from collections.abc import Callable, Sequence
from contextlib import suppress
from functools import partial
from typing import Any

import gevent
import msgspec
from gevent import get_hub, getcurrent, monkey

from collector.errors import BadUpload
from collector.protocols.base import Reply
from collector.receiver.body import Place as BodyPlace
from collector.receiver.heads import has_odd_lines
from collector.receiver.hot import HeadLimits, Hot, HotDoor
from collector.receiver.outbox import Out
from collector.receiver.roster import Place, Roster
from collector.receiver.shed import Shed, Shedder
from collector.receiver.together import Later
from collector.receiver.turns import Turns

#: How much is read of a connection at once. A larger request is not for the lobby.
_STEP_BYTES = 64 * 1024
#: So many connections are looked at before the loop looks at its other sockets: about 3 ms. A choice.
_MOST = 128
_READ = 1  # libev's EV_READ


class Visit(msgspec.Struct):
    """
    What a connection's greenlet gets: the first bytes of a request, none at the end of the line.

    `hot` is there if it is a whole request for the hot door that has had its turn, and has to be served alone.
    """

    data: bytes
    hot: Hot | None = None


class Guest:
    """A connection, as the lobby knows it."""

    __slots__ = ("client", "fd", "greenlet", "is_known", "is_waiting", "out", "peer", "sock")

    def __init__(self, client: Any, out: Out, peer: str) -> None:
        self.client = client
        # The plain socket: gevent's own asks its loop when there is nothing.
        self.sock = client._sock  # noqa: SLF001 -- it is the plain socket's only name
        self.fd: int = client.fileno()
        self.out = out
        self.peer = peer
        self.greenlet: Any = None
        # Whether the kernel tells the lobby when something comes, and whether the lobby may take it.
        self.is_known = self.is_waiting = False


class Arrival(msgspec.Struct):
    """An upload that has come whole; `place` is what its body holds of the room for bodies."""

    guest: Guest
    hot: Hot
    data: bytes
    begin: int
    place: BodyPlace


class Denial(msgspec.Struct):
    """An upload that has come whole, and is to be refused; nothing is held of its body."""

    guest: Guest
    shed: Shed


class Lobby:
    """The lobby of one listener; made in its worker's main greenlet, after gevent patched it."""

    def __init__(
        self,
        worker: Any,
        roster: Roster,
        turns: Turns,
        hot: HotDoor,
        shedder: Shedder,
        limits: HeadLimits,
        max_header_bytes: int,
    ) -> None:
        self._worker = worker
        self._roster = roster
        self._turns = turns
        self._hot = hot
        self._shedder = shedder
        self._limits = limits
        self._max_header_bytes = max_header_bytes
        self._hub = get_hub()
        self._known: dict[int, Guest] = {}
        # gevent takes it out of the module, because it blocks; asked for what is there already, it does not.
        self._epoll = monkey.get_original("select", "epoll")()
        self._watcher = self._hub.loop.io(self._epoll.fileno(), _READ)
        self._watcher.start(self._look)
        self._groups: list[Callable[[], None]] = []
        # Whoever serves may have to wait for a lock, for an instant, and the hub must not.
        self._servant = gevent.spawn(self._serve)
        self._is_serving = True
        turns.attend(self._come, self._deny)

    # -- who waits -----------------------------------------------------------------------------------------

    def wait(self, guest: Guest) -> Visit:
        """Return when a connection has a request that is not served from here, or its end."""
        guest.greenlet, guest.is_waiting = getcurrent(), True
        self._know(guest)
        visit: Visit = self._hub.switch()
        return visit

    def leave(self, guest: Guest) -> None:
        """Forget a connection, before it is closed."""
        guest.greenlet, guest.is_waiting = None, False
        self._ignore(guest)

    def _know(self, guest: Guest) -> None:
        if not guest.is_known:
            self._epoll.register(guest.fd, select.EPOLLIN)
            self._known[guest.fd] = guest
            guest.is_known = True

    def _ignore(self, guest: Guest) -> None:
        if guest.is_known:
            guest.is_known = False
            del self._known[guest.fd]
            self._epoll.unregister(guest.fd)

    def _hand_over(self, guest: Guest, visit: Visit) -> None:
        """Let a connection's own greenlet go on, if it does not already."""
        greenlet, guest.greenlet, guest.is_waiting = guest.greenlet, None, False
        if greenlet is not None:
            self._hub.loop.run_callback(greenlet.switch, visit)

    # -- what comes ----------------------------------------------------------------------------------------

    def _look(self) -> None:
        """Read what has come; called by the hub."""
        arrivals: list[Arrival] = []
        denials: list[Denial] = []
        for fd, _ in self._epoll.poll(0, _MOST):
            guest = self._known[fd]
            if not guest.is_waiting:
                # It is served, and has sent more: nobody looks before it waits again.
                self._ignore(guest)
                continue
            try:
                data = guest.sock.recv(_STEP_BYTES)
            except BlockingIOError:
                continue
            except OSError:
                data = b""
            # From now on what it sent would be lost with it.
            self._roster.move(guest.client, Place.SERVED)
            one: Arrival | Denial | None = None
            if data and not guest.out.owes:
                # What nobody expected must not cost those that came before; alone it fails again, and is told.
                with suppress(Exception):
                    one = self._judged(guest, data, self._turns.lag_s_behind(len(arrivals)))
            guest.is_waiting = one is None
            if isinstance(one, Arrival):
                arrivals.append(one)
            elif isinstance(one, Denial):
                denials.append(one)
            else:
                self._hand_over(guest, Visit(data))
        if arrivals:
            self._turns.come(arrivals)
        if denials:
            self._turns.come_to_be_refused(denials)

    def _judged(self, guest: Guest, data: bytes, lag_s: float) -> Arrival | Denial | None:
        """Return what is to be done here with an upload, if `data` is one, whole and without anything behind it."""
        end = data.find(b"\r\n\r\n", 0, self._max_header_bytes + 4)
        if end <= 0 or has_odd_lines(data, end):
            return None
        if self._hot.is_open(lag_s):
            return self._arrival(guest, data, end)
        shed = self._shedder.judge(data, end, lag_s)
        return Denial(guest, shed) if shed is not None and shed.skip_bytes == len(data) - end - 4 else None

    def _arrival(self, guest: Guest, data: bytes, end: int) -> Arrival | None:
        hot = self._hot.look(data, self._limits)
        if hot is None or len(data) != end + 4 + hot.length:
            return None
        place = BodyPlace(self._hot.room)
        try:
            place.grow(hot.length)
        except BadUpload:
            return None
        return Arrival(guest, hot, data, end + 4, place)

    # -- what is served ------------------------------------------------------------------------------------

    def _come(self, group: Sequence[Arrival]) -> None:
        """Serve some that came together, whose turn it is; called by the hub."""
        self._let_serve(partial(self._serve_group, group))

    def _deny(self, group: Sequence[Denial]) -> None:
        """Refuse some, whose turn it is; called by the hub."""
        self._let_serve(partial(self._refuse_group, group))

    def _let_serve(self, serve: Callable[[], None]) -> None:
        self._groups.append(serve)
        if not self._is_serving:
            self._servant.switch()

    def _serve(self) -> None:
        while True:
            while self._groups:
                # Under no name here: it would be held until the next group comes.
                self._groups.pop(0)()
            self._is_serving = False
            self._hub.switch()
            self._is_serving = True

    def _serve_group(self, group: Sequence[Arrival]) -> None:
        try:
            self._answer(group)
        except Exception:
            self._worker.log.exception("uploads that came together failed")
            for one in group:
                # Without an answer its client sends again.
                self._hand_over(one.guest, Visit(b""))
        for one in group:
            one.place.free()

    def _refuse_group(self, group: Sequence[Denial]) -> None:
        for one in group:
            try:
                self._pay(one.guest, self._shedder.refuse(one.shed), self._worker.is_leaving)
            except Exception:
                self._worker.log.exception("a refusal failed")
                self._hand_over(one.guest, Visit(b""))

    def _answer(self, group: Sequence[Arrival]) -> None:
        hot, worker = self._hot, self._worker
        uploads = hot.serve_together([(one.hot, one.data[one.begin :], one.guest.peer) for one in group])
        answers: list[tuple[Guest, bytes, bool]] = []
        later: dict[tuple[str, str], list[tuple[Guest, Hot, Later]]] = {}
        for one, taken in zip(group, uploads, strict=True):
            if taken is None:
                self._hand_over(one.guest, Visit(one.data, one.hot))
                continue
            worker.count_request()
            if isinstance(taken, Later):
                later.setdefault(taken.fate, []).append((one.guest, one.hot, taken))
            else:
                answers.append((one.guest, *self._render(taken, one.hot)))
        for answer in answers:
            self._pay(*answer)
        for waiting in later.values():
            gevent.spawn(self._answer_later, waiting)

    def _answer_later(self, waiting: Sequence[tuple[Guest, Hot, Later]]) -> None:
        """Answer uploads that wait for the same segment: one wait is enough where all meet their fate together."""
        for guest, hot, later in waiting:
            try:
                self._pay(guest, *self._render(later.answer(), hot))
            except Exception:
                self._worker.log.exception("an upload that waited for its sink failed")
                self._hand_over(guest, Visit(b""))

    def _render(self, reply: Reply, hot: Hot) -> tuple[bytes, bool]:
        """Return the answer's bytes, and whether it ends its connection."""
        closes = hot.closes or self._worker.is_leaving
        return self._hot.render(reply, hot, closes=closes), closes

    def _pay(self, guest: Guest, answer: bytes, closes: bool) -> None:
        guest.out.pay(answer)
        if closes:
            self._hand_over(guest, Visit(b""))
        else:
            guest.is_waiting = True
            self._know(guest)
