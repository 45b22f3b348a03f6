"""
The paced load: requests come at moments of their own, whether or not those before them are answered.

The moments are those of devices that know nothing of each other: a Poisson process, the same one for the same seed.
A latency runs from the moment at which its request should have been sent, so that a request that waits for a
connection, or for this generator, waits in the numbers: a slow server hides nothing of what it did to those that
came meanwhile.
"""

from __future__ import annotations

import random
import select
from collections import Counter, deque
from collections.abc import Callable, Sequence
from itertools import cycle
from time import perf_counter, process_time

from bench.links import CLOSE, OK, PATIENCE_S, READ_BYTES, Link, Links, LoadError, files_for, is_whole, status_of
from bench.load import Load, Traffic, no_collection

#: The kernel counts what epoll waits in whole milliseconds, so nobody sleeps when a request is due this soon.
_SPIN_S = 0.002


def moments_of(per_s: float, seconds: float, *, seed: int) -> list[float]:
    """Return when requests come in so many seconds, from the beginning on, at this rate on average."""
    rng, moments, now = random.Random(seed), [], 0.0
    while (now := now + rng.expovariate(per_s)) < seconds:
        moments.append(now)
    return moments


def paced(per_s: float, *, seed: int = 1) -> Load:
    """Make a load of this rate, to be used as `bench.load.drive` is."""

    def drive(
        address: tuple[str, int],
        requests: Sequence[bytes],
        *,
        connections: int,
        seconds: float,
        warm_up_s: float,
        expected: bytes = b"",
    ) -> Traffic:
        """Send the requests in turn at their moments; raises LoadError. When this returns, each has its answer."""
        moments = moments_of(per_s, warm_up_s + seconds, seed=seed)
        links = Links(address)
        try:
            with no_collection(), files_for(connections):
                return _Pace(links, requests, expected).run(connections, moments, seconds, warm_up_s)
        except OSError as error:
            raise LoadError(f"the server broke a connection off: {error}") from error
        finally:
            links.close()

    return drive


class _Pace:
    def __init__(self, links: Links, requests: Sequence[bytes], expected: bytes) -> None:
        self._links = links
        self._next: Callable[[], bytes] = cycle(requests).__next__
        self._expected = expected
        self._idle: deque[Link] = deque()
        self._acknowledged = 0
        self._unexpected: Counter[str] = Counter()
        # When each was due, and what it took.
        self._found: list[tuple[float, float]] = []

    def run(self, connections: int, moments: Sequence[float], seconds: float, warm_up_s: float) -> Traffic:
        self._idle.extend(self._links.connect() for _ in range(connections))
        coming, due, used = deque(moments), deque[float](), process_time()
        began = heard = perf_counter()
        while coming or due or len(self._idle) < connections:
            now = perf_counter()
            while coming and began + coming[0] <= now:
                due.append(began + coming.popleft())
            while due and self._idle:
                link = self._idle.popleft()
                link.since = due.popleft()
                self._links.send(link, self._next())
            if len(self._idle) == connections:
                heard = now
            elif now - heard > PATIENCE_S:
                raise LoadError(f"the server has sent nothing for {PATIENCE_S:.0f} s")
            wait_s = began + coming[0] - now if coming else PATIENCE_S
            for fd, mask in self._links.poll.poll(0.0 if wait_s < _SPIN_S else wait_s - _SPIN_S / 2):
                heard = now
                self._look(self._links.by_fd[fd], mask)
        busy = (process_time() - used) / (perf_counter() - began)
        latencies = sorted(took for since, took in self._found if since - began >= warm_up_s)
        return Traffic(seconds, self._acknowledged, latencies, dict(self._unexpected), busy)

    def _look(self, link: Link, mask: int) -> None:
        if link.unsent and mask & select.EPOLLOUT:
            self._links.send(link, link.unsent)
            return
        data = link.recv(READ_BYTES)
        if not data:
            self._closed(link)
            return
        link.come += data
        if not is_whole(link.come):
            return
        answer, link.come = link.come, b""
        if answer.startswith(OK) and self._expected in answer:
            self._acknowledged += 1
            self._found.append((link.since, perf_counter() - link.since))
        else:
            self._unexpected[status_of(answer)] += 1
        link.since = 0.0
        self._idle.append(self._links.renew(link) if link.unsent or CLOSE in answer.lower() else link)

    def _closed(self, link: Link) -> None:
        """Renew one that the server closed while nothing was asked of it."""
        if link.since:
            raise LoadError("the server closed a connection on a request")
        self._idle.remove(link)
        self._idle.append(self._links.renew(link))
