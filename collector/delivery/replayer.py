"""
What a worker does for rescued batches: now and then it looks for some, and sends them on.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from contextlib import suppress
from functools import partial

from collector.buffer.spool import Spool
from collector.delivery.aside import Claims
from collector.delivery.rescue import DEFAULT_ROUTE, Replayed, replay
from collector.errors import SinkError, SpoolError
from collector.outcome import DELIVERED, Fate, Outcome
from collector.sinks.base import Offload, Sink, Source
from collector.telemetry.homecoming import Homecoming
from collector.telemetry.signals import Signals

#: When a worker looks for rescued batches first, and how often then, in seconds. Choices: late enough for a start to be
#: over, and so seldom that a sink which is down is not met by more than its flusher's own tries.
FIRST_S, EVERY_S = 2.0, 30.0
#: Places told as unreadable that a worker remembers, so as to tell each once.
_TOLD = 1000


class Replayer:
    """
    One worker's share of the replay: soon after the start and then now and then, every route beside the others.

    The route's lock keeps the workers of the task, and of other tasks with the same place, out of each other's way.
    `spawn` runs a function beside the caller, `rest` waits so many seconds. The ledger of the `spool` learns of batches
    of its own that have come home.
    """

    def __init__(
        self,
        source: Source,
        sinks: Mapping[str, Sink],
        *,
        signals: Signals,
        spawn: Callable[[Callable[[], None]], object],
        rest: Callable[[float], None],
        offload: Offload,
        spool: Spool | None = None,
        claims: Claims | None = None,
    ) -> None:
        self._source = source
        self._sinks = sinks
        self._signals = signals
        self._spawn = spawn
        self._rest = rest
        self._offload = offload
        self._spool = spool
        self._claims = claims
        self._at_work: set[str] = set()
        self._failures: dict[str, int] = {}
        self._told: set[str] = set()
        self._closed = False

    def run(self) -> None:
        """Look for rescued batches until closed."""
        if self._spool is not None:
            # A full spool: then what is rescued is not told apart from what came home.
            with suppress(OSError):
                Homecoming(self._spool.root).start()
        self._rest(FIRST_S)
        while not self._closed:
            self.tick()
            self._rest(EVERY_S)

    def close(self) -> None:
        """Begin no further batch; the one that is under way goes on to its end. Safe to call twice."""
        self._closed = True

    def tick(self) -> None:
        """Start on every route that nobody is at work on."""
        try:
            routes = self._offload(self._source.routes) if self._source.blocking else self._source.routes()
        except SinkError:
            # It is not there, or can't be had: the rescue that failed has told it, or nothing was ever rescued.
            return
        for route in routes:
            if route not in self._at_work:
                self._at_work.add(route)
                self._spawn(partial(self._replay, route))

    def _replay(self, route: str) -> None:
        try:
            with self._source.exclusive(route) as is_mine:
                if is_mine:
                    self._send_on(route)
        except SinkError as error:
            self._tell_failure(route, error)
        except Exception as error:  # noqa: BLE001 - one route's trouble is not the others', nor the worker's
            self._signals.internal_error("rescue.replay", error)
        finally:
            self._at_work.discard(route)

    def _send_on(self, route: str) -> None:
        sink = self._sinks.get(route) or self._sinks[DEFAULT_ROUTE]
        found = delivered = rejected = left = 0
        for one in replay(self._source, route, sink, claims=self._claims, offload=self._offload):
            if one.in_doubt:
                self._signals.batch_in_doubt(route, one.in_doubt)
            if one.is_away:
                self._tell_failure(route, one.trouble)
                continue
            if not one.readable:
                self._tell_unreadable(one)
                continue
            found += one.found
            delivered += one.delivered
            left += one.left
            self._note(one)
            for reason, count in one.rejected:
                rejected += count
                self._signals.events_lost(one.tenant_id, Outcome.REJECTED_BY_SINK, reason, count, one.name)
            if one.trouble:
                self._tell_failure(route, one.trouble)
            else:
                self._failures.pop(route, None)
            if self._closed:
                break
        if delivered or rejected:
            self._signals.replay_done(found, delivered, rejected, left)

    def _note(self, one: Replayed) -> None:
        """Let the ledger know, once the batch is gone from the rescue sink; what can't be noted stays `rescued`."""
        refused = {Fate(Outcome.REJECTED_BY_SINK, reason).name: count for reason, count in one.rejected}
        if self._spool is not None and (one.delivered or refused):
            with suppress(OSError, SpoolError):
                fates = {DELIVERED.name: one.delivered, **refused}
                self._spool.mine().ledger.sent_on(one.name, one.tenant_id, fates)

    def _tell_failure(self, route: str, trouble: object) -> None:
        self._failures[route] = self._failures.get(route, 0) + 1
        self._signals.batch_failed(route, f"replay: {trouble}", self._failures[route], EVERY_S)

    def _tell_unreadable(self, one: Replayed) -> None:
        if one.place not in self._told and len(self._told) < _TOLD:
            self._told.add(one.place)
            self._signals.rescue_unreadable(one.place, one.trouble)
