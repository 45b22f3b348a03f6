"""
The open loop: requests arrive at their rate, whether the server keeps up or not, and each answer is looked at.

An arrival takes a connection that has nothing to do, or opens one; when all that there may be are busy, it is not
sent. So what was offered is what was sent, and never more than the server saw.
"""

from __future__ import annotations

import errno
import math
import re
import select
import socket
from collections import Counter, deque
from collections.abc import Callable, Sequence
from itertools import cycle
from time import perf_counter, process_time

import msgspec

from bench.links import CLOSE, OK, READ_BYTES, LoadError, files_for, is_whole, status_of
from bench.load import at_part, no_collection

#: A request that has no answer after this long has none, in seconds.
PATIENCE_S = 5.0
_RETRY = re.compile(rb"\r\nretry-after: ?([1-5])\r\n", re.IGNORECASE)
#: The kernel is asked at least so often, in seconds.
_STEP_S = 0.001


class Offer(msgspec.Struct, frozen=True):
    """
    What arrives: so many requests a second over at most so many connections, which stay or are `fresh` ones each time.

    Without an end to `per_s`, every connection is kept busy: a closed loop.
    """

    per_s: float
    connections: int
    fresh: bool


class Harvest(msgspec.Struct, frozen=True):
    """
    What became of it.

    `sent`, `accepted` and `refused` are counted in the measured `seconds`; a refusal is a 503 with a Retry-After of
    1 to 5 s. Of the whole run: `answers`, and of them `acknowledged` and `turned_away`; `wrong` counts all others by
    their status, `failures` requests without an answer by what happened, and `unknown` those of them of which the
    server may have read a part. `busy` is the generator's part of its core. `latencies_s`, sorted, has the time from
    its arrival for each that was accepted.
    """

    seconds: float
    sent: int
    accepted: int
    refused: int
    acknowledged: int
    turned_away: int
    wrong: dict[str, int]
    failures: dict[str, int]
    unknown: int
    busy: float
    latencies_s: list[float]

    @property
    def answers(self) -> int:
        """Return how many requests were answered in the whole run."""
        return self.acknowledged + self.turned_away + sum(self.wrong.values())

    def latency_s(self, part: float) -> float:
        """Return the latency that this part of the accepted ones did not exceed; 0.0 if there were none."""
        return at_part(self.latencies_s, part)


def arrive(
    address: tuple[str, int],
    requests: Sequence[bytes],
    offer: Offer,
    *,
    seconds: float,
    warm_up_s: float,
    expected: bytes = b"",
) -> Harvest:
    """Send the requests in turn as the offer says; when this returns, none waits for its answer."""
    generator = _Arrivals(address, requests, offer, expected)
    try:
        with no_collection(), files_for(offer.connections):
            return generator.run(seconds, warm_up_s)
    finally:
        generator.close()


class _Visit:
    """A connection: `since` is when its request was sent, 0.0 when it has none."""

    __slots__ = ("come", "fd", "has_sent", "is_new", "since", "socket", "unsent")

    def __init__(self) -> None:
        self.socket = socket.socket()
        self.socket.setblocking(False)
        self.socket.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
        self.fd = self.socket.fileno()
        self.since = 0.0
        self.unsent = self.come = b""
        self.is_new = True
        self.has_sent = False


class _Arrivals:
    def __init__(self, address: tuple[str, int], requests: Sequence[bytes], offer: Offer, expected: bytes) -> None:
        self._address = address
        self._next: Callable[[], bytes] = cycle(requests).__next__
        self._offer = offer
        self._expected = expected
        self._poll = select.epoll()
        self._visits: dict[int, _Visit] = {}
        self._idle: deque[_Visit] = deque()
        # Those with a request, the oldest first.
        self._busy: dict[int, _Visit] = {}
        self._sent = self._accepted = self._refused = self._unknown = 0
        self._wrong: Counter[str] = Counter()
        self._failures: Counter[str] = Counter()
        self._latencies_s: list[float] = []

    def close(self) -> None:
        for visit in self._visits.values():
            visit.socket.close()
        self._poll.close()

    def run(self, seconds: float, warm_up_s: float) -> Harvest:
        began = began_measuring = perf_counter()
        used, measured_from, until = process_time(), began + warm_up_s, began + warm_up_s + seconds
        arrived, before, clock = 0, (0, 0, 0), perf_counter
        while (now := clock()) < until:
            if measured_from and now >= measured_from:
                before, used, began_measuring, measured_from = self._counts(), process_time(), now, 0.0
            arrived = self._arrivals(now - began, arrived, now)
            self._look(now)
        took, busy = now - began_measuring, process_time() - used
        sent, accepted, refused = (after - then for after, then in zip(self._counts(), before, strict=True))
        while self._busy:
            self._look(clock())
        return Harvest(
            took, sent, accepted, refused, self._accepted, self._refused, dict(self._wrong), dict(self._failures),
            self._unknown, busy / took, sorted(self._latencies_s),
        )  # fmt: skip

    def _counts(self) -> tuple[int, int, int]:
        return self._sent, self._accepted, self._refused

    def _arrivals(self, passed_s: float, arrived: int, now: float) -> int:
        """Send what has arrived since the last time, as far as there are connections; return how many have by now."""
        free = self._offer.connections - len(self._busy)
        due = free if math.isinf(self._offer.per_s) else int(passed_s * self._offer.per_s) - arrived
        for _ in range(min(due, free)):
            self._begin(now)
        return arrived + due

    def _begin(self, now: float) -> None:
        visit = self._idle.popleft() if self._idle else _Visit()
        visit.since, visit.unsent, visit.come, visit.has_sent = now, self._next(), b"", False
        self._busy[visit.fd] = visit
        self._sent += 1
        if not visit.is_new:
            self._send(visit)
            return
        self._visits[visit.fd] = visit
        self._poll.register(visit.fd, select.EPOLLIN | select.EPOLLOUT)
        problem = visit.socket.connect_ex(self._address)
        if problem not in {0, errno.EINPROGRESS}:
            self._fail(visit, errno.errorcode.get(problem, str(problem)))

    def _send(self, visit: _Visit) -> None:
        try:
            sent = visit.socket.send(visit.unsent)
        except BlockingIOError:
            sent = 0
        except OSError as error:
            self._fail(visit, type(error).__name__)
            return
        waited = visit.is_new or visit.has_sent
        visit.unsent = visit.unsent[sent:]
        visit.is_new, visit.has_sent = False, visit.has_sent or sent > 0
        if visit.unsent or waited:
            self._poll.modify(visit.fd, select.EPOLLIN | select.EPOLLOUT if visit.unsent else select.EPOLLIN)

    def _look(self, now: float) -> None:
        """Take what has come, and give up on who has waited for too long."""
        for fd, mask in self._poll.poll(_STEP_S):
            visit = self._visits.get(fd)
            if visit is None:
                continue
            if visit.unsent and mask & select.EPOLLOUT:
                self._send(visit)
            elif mask & ~select.EPOLLOUT:
                self._receive(visit)
        while self._busy:
            oldest = next(iter(self._busy.values()))
            if now - oldest.since < PATIENCE_S:
                break
            self._fail(oldest, "no connection" if oldest.is_new else "no answer")

    def _receive(self, visit: _Visit) -> None:
        try:
            data = visit.socket.recv(READ_BYTES)
        except OSError as error:
            self._fail(visit, type(error).__name__)
            return
        if not data:
            self._fail(visit, "closed")
            return
        visit.come += data
        try:
            if is_whole(visit.come):
                self._note(visit)
                self._finish(visit)
        except LoadError:
            self._wrong["no HTTP"] += 1
            self._drop(visit)

    def _note(self, visit: _Visit) -> None:
        answer = visit.come
        if answer.startswith(OK) and self._expected in answer:
            self._accepted += 1
            self._latencies_s.append(perf_counter() - visit.since)
            return
        status = status_of(answer)
        if status == "503" and _RETRY.search(answer):
            self._refused += 1
        else:
            self._wrong[status] += 1

    def _finish(self, visit: _Visit) -> None:
        if self._offer.fresh or visit.unsent or CLOSE in visit.come.lower():
            self._drop(visit)
            return
        del self._busy[visit.fd]
        visit.since = 0.0
        self._idle.append(visit)

    def _fail(self, visit: _Visit, what: str) -> None:
        if visit.since:
            self._failures[what] += 1
            self._unknown += visit.has_sent
        else:
            self._idle.remove(visit)  # nobody was waiting for anything
        self._drop(visit)

    def _drop(self, visit: _Visit) -> None:
        self._busy.pop(visit.fd, None)
        del self._visits[visit.fd]
        self._poll.unregister(visit.fd)
        visit.socket.close()
