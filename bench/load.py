"""
The load: one thread that keeps every connection busy with one request at a time, as cheaply as Python can.

It is a closed loop, so what it finds is the server's peak, and its latencies are those at the peak: about the number
of connections divided by the rate. A latency runs from the first byte sent to the last byte of the answer.
"""

from __future__ import annotations

import gc
import math
import select
from collections import Counter, deque
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from itertools import cycle
from time import perf_counter, process_time
from typing import Protocol

import msgspec

from bench.links import CLOSE, OK, PATIENCE_S, READ_BYTES, Links, LoadError, files_for, is_whole, status_of


class Traffic(msgspec.Struct, frozen=True):
    """
    What came back.

    `acknowledged` counts every answer that said what was expected, those of the warm-up and the last ones too;
    `latencies_s` has one number, sorted, for each within the measured `seconds`. `unexpected` counts all other answers
    by their status. `busy` is the generator's own part of its core in the measured seconds, from 0 to 1.
    """

    seconds: float
    acknowledged: int
    latencies_s: list[float]
    unexpected: dict[str, int]
    busy: float

    @property
    def per_s(self) -> float:
        """Return the expected answers per second."""
        return len(self.latencies_s) / self.seconds

    def latency_s(self, part: float) -> float:
        """Return the latency that this part of the requests did not exceed; 0.0 if there were none."""
        return at_part(self.latencies_s, part)


class Load(Protocol):
    """Sends requests as `drive` does; when each is sent is its own affair."""

    def __call__(
        self,
        address: tuple[str, int],
        requests: Sequence[bytes],
        *,
        connections: int,
        seconds: float,
        warm_up_s: float,
        expected: bytes = b"",
    ) -> Traffic:
        """Send them, and tell what came back; raises LoadError."""


def at_part(ordered: Sequence[float], part: float) -> float:
    """Return the number that this part of sorted ones does not exceed; 0.0 if there are none."""
    return ordered[min(len(ordered) - 1, int(part * len(ordered)))] if ordered else 0.0


@contextmanager
def no_collection() -> Iterator[None]:
    """Keep the garbage collector from walking the latencies again and again."""
    gc.disable()
    try:
        yield
    finally:
        gc.enable()


def drive(
    address: tuple[str, int],
    requests: Sequence[bytes],
    *,
    connections: int,
    seconds: float,
    warm_up_s: float,
    expected: bytes = b"",
) -> Traffic:
    """
    Send the requests in turn over so many connections, for the warm-up and then the measured seconds.

    An answer is as expected when it is a 200 that has `expected` in it. Raises LoadError. When this returns, every
    request that was sent has its answer.
    """
    links = Links(address)
    try:
        with no_collection(), files_for(connections):
            return _drive(links, requests, connections, seconds, warm_up_s, expected)
    except OSError as error:
        raise LoadError(f"the server broke a connection off: {error}") from error
    finally:
        links.close()


def _drive(
    links: Links, requests: Sequence[bytes], connections: int, seconds: float, warm_up_s: float, expected: bytes
) -> Traffic:
    latencies: list[float] = []
    ignore = deque[float](maxlen=0).append
    unexpected: Counter[str] = Counter()
    # The ends of the warm-up and of the measured seconds, each with the CPU time used so far.
    moments: list[tuple[float, float]] = []
    acknowledged, waiting = 0, connections
    poll, by_fd, following, clock, note = links.poll.poll, links.by_fd, cycle(requests).__next__, perf_counter, ignore
    for link in [links.connect() for _ in range(connections)]:
        link.since = clock()
        links.send(link, following())
    change_at = clock() + warm_up_s
    while waiting:
        ready = poll(PATIENCE_S)
        if not ready:
            raise LoadError(f"the server has sent nothing for {PATIENCE_S:.0f} s")
        for fd, mask in ready:
            link = by_fd[fd]
            if link.unsent and mask & select.EPOLLOUT:
                links.send(link, link.unsent)
                continue
            data = link.recv(READ_BYTES)
            if not data:
                raise LoadError("the server closed a connection on a request")
            if link.come:
                data = link.come + data
            if not is_whole(data):
                link.come = data
                continue
            link.come = b""
            now = clock()
            if now >= change_at:
                moments.append((now, process_time()))
                note, change_at = (latencies.append, now + seconds) if len(moments) == 1 else (ignore, math.inf)
            if data.startswith(OK) and expected in data:
                acknowledged += 1
                note(now - link.since)
            else:
                unexpected[status_of(data)] += 1
                if link.unsent or CLOSE in data.lower():
                    link = links.renew(link)
            if len(moments) == 2:
                waiting -= 1
                continue
            link.since = now
            links.send(link, following())
    (began, used), (ended, used_then) = moments
    latencies.sort()
    took = ended - began
    return Traffic(took, acknowledged, latencies, dict(unexpected), (used_then - used) / took)
