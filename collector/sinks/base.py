"""
What a sink is: it declares its limits and writes. It does not split, retry, sleep, count or log.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator
from contextlib import AbstractContextManager
from typing import Protocol, TypeVar

import msgspec

from collector.event import Batch
from collector.outcome import Reason, Receipt

T = TypeVar("T")


class Offload(Protocol):
    """Runs a function that computes for long where it holds nobody up, and returns what it returns."""

    def __call__(self, run: Callable[[], T], /) -> T:
        """Run it."""


def at_once(run: Callable[[], T]) -> T:
    """Run a function here: where there is nobody to hold up."""
    return run()


class Limits(msgspec.Struct, frozen=True):
    """
    What one write may hold; the flusher splits to it.

    An event longer than `max_event_bytes` (its line, newline included) never reaches `write`: it is settled
    as rejected by the sink. A sink that is `partitioned` gets batches of one tenant and hour each, one that is `hourly`
    of one hour.
    """

    max_events: int
    max_bytes: int
    max_event_bytes: int
    partitioned: bool
    hourly: bool = False


class Opened(Protocol):
    """What is started once and let go of at the end."""

    def start(self) -> None:
        """Open what is needed; raises `errors.SinkError`."""

    def close(self) -> None:
        """Let go; safe to call twice and before `start`."""


class Sink(Protocol):
    """
    A destination of batches. `write` may be called from several greenlets or threads at once.

    `blocking` says that `write` blocks its thread on files and must run off the hub; a sink that talks over
    gevent's sockets is not blocking. A blocking one runs in threads of gevent's pool, where what gevent patches
    is a trap: two threads that wait for one `threading.Lock` may never wake, a wait of any kind gives the thread
    a hub, and then `os.close` of a pipe or a directory does not come to pass.

    A sink that names what it writes by the batch takes a batch whole or not at all: what is left of one keeps its name.
    """

    limits: Limits
    blocking: bool

    def start(self) -> None:
        """Open what is needed; raises `errors.SinkError` when the destination can't be had at all."""

    def write(self, batch: Batch) -> Receipt:
        """Write the batch and say of each event what became of it; raises `errors.TransientSinkError`."""

    def close(self) -> None:
        """Let go; safe to call twice and before `start`."""


class ObjectSink(Sink, Protocol):
    """A sink that keeps each batch as an object which can be found again."""

    def url_of(self, batch: Batch) -> str:
        """Say where a batch is, once it is written: `s3://…` or `file:///…`."""


class Stored(Protocol):
    """One batch of a route, as it lies in a sink that can be read back; `place` says where, for people."""

    name: str
    place: str

    def load(self) -> Batch | None:
        """
        Read the batch; None when it is gone. Its events are numbered anew, from 0.

        Raises `errors.SinkError` for what can't be read back, `errors.TransientSinkError` for what only can't be now,
        and leaves it where it is.
        """

    def keep(self, rest: Batch | None) -> None:
        """
        Let only these of the events that were loaded lie here, or nothing; a batch written since is not touched.

        Raises `errors.TransientSinkError`, and then what was there still is.
        """


class Source(Protocol):
    """
    The reading side of a rescue sink, which holds the batches of each route below `route=<name>`.

    Its `blocking` says of it, and of what is `Stored` there, what a `Sink`'s does. It need not be started.
    """

    @property
    def blocking(self) -> bool:
        """Tell whether it must run off the hub."""

    def start(self) -> None:
        """Open what takes long to open; raises `errors.SinkError`."""

    def close(self) -> None:
        """Let go; safe to call twice and before `start`."""

    def routes(self) -> list[str]:
        """Name the routes there are; raises `errors.SinkError` when the place can't be looked into."""

    def exclusive(self, route: str) -> AbstractContextManager[bool]:
        """Hold a route for one reader, and tell whether it is this one; raises `errors.SinkError`."""

    def stored(self, route: str) -> Iterator[Stored]:
        """List a route's batches; those that come meanwhile may be missing. Raises `errors.SinkError` in the middle."""

    def reasons(self) -> list[str]:
        """Name the reasons for which something is parked; raises `errors.SinkError`."""

    def put_aside(self, route: str, reason: Reason, batch: Batch) -> str:
        """Park what a sink refused for good, out of the way, and say where; raises `errors.TransientSinkError`."""
