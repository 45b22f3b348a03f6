"""
What a sink is: it declares its limits and writes. It does not split, retry, sleep, count or log.
"""

from __future__ import annotations

from typing import Protocol

import msgspec

from collector.event import Batch
from collector.outcome import Receipt


class Limits(msgspec.Struct, frozen=True):
    """
    What one write may hold; the flusher splits to it.

    An event longer than `max_event_bytes` (its line, newline included) never reaches `write`: it is settled
    as rejected by the sink. A sink that is `partitioned` gets batches of one tenant and hour each.
    """

    max_events: int
    max_bytes: int
    max_event_bytes: int
    partitioned: bool


class Sink(Protocol):
    """
    A destination of batches. `write` may be called from several greenlets or threads at once.

    `blocking` says that `write` blocks its thread on files and must run off the hub; a sink that talks over
    gevent's sockets is not blocking. A blocking one runs in threads of gevent's pool, where what gevent patches
    is a trap: two threads that wait for one `threading.Lock` may never wake, a wait of any kind gives the thread
    a hub, and then `os.close` of a pipe or a directory does not come to pass.
    """

    limits: Limits
    blocking: bool

    def start(self) -> None:
        """Open what is needed; raises `errors.SinkError` when the destination can't be had at all."""

    def write(self, batch: Batch) -> Receipt:
        """Write the batch and say of each event what became of it; raises `errors.TransientSinkError`."""

    def close(self) -> None:
        """Let go; safe to call twice and before `start`."""
