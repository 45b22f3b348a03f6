"""
The life of one worker: what is started when gunicorn has forked it, ticks while it serves, and ends in order.
"""

from __future__ import annotations

import os
from collections.abc import Callable, Iterable, Mapping
from contextlib import suppress

import msgspec

from collector.admission.dedupe import Dedupe
from collector.admission.gate import Gate
from collector.admission.quota import Quota
from collector.admission.tenants import TenantBook
from collector.buffer.spool import Spool
from collector.clock import Clock
from collector.delivery.flusher import Flusher
from collector.delivery.replayer import Replayer
from collector.errors import SinkError
from collector.outcome import Reason
from collector.sinks.base import Opened
from collector.telemetry import metrics
from collector.telemetry.books import METRICS, replace
from collector.telemetry.logbook import Logbook
from collector.telemetry.reporter import Reporter
from collector.telemetry.signals import Signals

#: How often the spool, the tenants and the gate are looked after, in seconds.
TICK_S = 0.25
_PUBLISH_EVERY_S = 1.0
#: How long a worker that has sent everything on waits for what others hold and may leave, in seconds. A choice: to let
#: go of a spool takes milliseconds.
_LINGER_S = 1.0


class Times(msgspec.Struct, frozen=True):
    """What the gunicorn worker needs to know: seconds, and the bytes of a request's head."""

    lame_duck_s: float
    drain_s: float
    body_deadline_s: float
    max_header_bytes: int


class Runtime:
    """
    Everything of one worker that has a life.

    `spawn` runs a function beside the caller, `rest` waits so many seconds.
    """

    def __init__(
        self,
        *,
        spool: Spool,
        flusher: Flusher,
        replayer: Replayer | None,
        sinks: Iterable[Opened],
        tenants: TenantBook,
        quota: Quota,
        dedupe: Dedupe,
        gate: Gate,
        clock: Clock,
        signals: Signals,
        counts: metrics.Metrics,
        log: Logbook,
        reporter: Reporter,
        times: Times,
        spawn: Callable[[Callable[[], None]], object],
        rest: Callable[[float], None],
    ) -> None:
        self._spool = spool
        self._flusher = flusher
        self._replayer = replayer
        self._sinks = list(sinks)
        self._tenants = tenants
        self._quota = quota
        self._dedupe = dedupe
        self._gate = gate
        self._clock = clock
        self._signals = signals
        self._counts = counts
        self._log = log
        self._reporter = reporter
        self._spawn = spawn
        self._rest = rest
        self._publish_at = 0.0
        self._started = False
        self._closed = False
        self._gauges: Callable[[], Mapping[str, float]] = dict
        self.times = times

    # -- life, in order ------------------------------------------------------------------------------------

    def start(self) -> None:
        """Open everything and start the background work; called once, in the forked and patched worker."""
        self._log.start()
        for sink in self._sinks:
            try:
                sink.start()
            except SinkError as error:
                # A sink that is away is no reason to refuse events: they wait in the spool.
                self._signals.internal_error("sink.start", error)
        self._spool.start()
        self._guard("tenants.tick", self._tenants.tick)
        self._guard("quota.start", self._quota.start)
        self._guard("gate.tick", self._gate.tick)
        self._started = True
        self._spawn(self._flusher.run)
        if self._replayer is not None:
            self._spawn(self._replayer.run)
        self._spawn(self._run)
        self._signals.worker_started(os.getpid(), self._spool.owner)

    def watch(self, gauges: Callable[[], Mapping[str, float]]) -> None:
        """Let the worker's own gauges, by their names, be part of every snapshot of the metrics."""
        self._gauges = gauges

    def begin_drain(self) -> None:
        """Be unready from now on; uploads that still come are taken."""
        self._gate.leaving = True

    @property
    def is_leaving(self) -> bool:
        """Tell whether `begin_drain` was called."""
        return self._gate.leaving

    def refuse_uploads(self) -> None:
        """Take no more uploads."""
        self._gate.draining = True

    def finish(self, budget_s: float, *, to_rescue: Callable[[], bool] = lambda: True) -> None:
        """
        Send on what is in the spool while there is time, say what became of everything, and close.

        `to_rescue` tells, when it is asked, that nobody else of the task goes on with what waits.
        """
        if self._started and not self._closed:
            self._gate.draining = True
            if self._replayer is not None:
                self._replayer.close()
            self._drain(budget_s, to_rescue)
            self._gate.gone = True
            self._guard("reporter.report", lambda: self._reporter.report(self.snapshot()))
            totals = self._spool.totals()
            self._signals.drain_done(
                scope="worker",
                owner=self._spool.owner,
                accepted=totals["accepted"],
                delivered=totals["delivered"],
                rescued=totals["rescued"],
                rejected_by_sink=totals["rejected_by_sink"],
                dropped=totals["dropped"],
                deduplicated=totals["deduplicated"],
                left=totals["pending"],
            )
        self.close()

    def _drain(self, budget_s: float, to_rescue: Callable[[], bool]) -> None:
        now = self._clock.monotonic()
        until = now + budget_s
        self._flusher.drain(budget_s, to_rescue=to_rescue)
        # One who ends a moment before the others of a task that ends, as at a stop in the middle of a reload, may leave
        # events that nobody else would see to.
        linger_until = min(until, self._clock.monotonic() + _LINGER_S)
        while to_rescue() and next(self._spool.root.glob("owners/*/*.seg"), None) and now < linger_until:
            self._guard("spool.adopt", self._spool.adopt)
            self._rest(TICK_S / 4)
            now = self._clock.monotonic()
            self._flusher.drain(until - now, to_rescue=to_rescue)

    def close(self) -> None:
        """Let everything go; what is not delivered stays in the spool for the next worker. Safe to call twice."""
        if self._closed:
            return
        self._closed = True
        if self._replayer is not None:
            self._replayer.close()
        self._flusher.close()
        self._reporter.close()
        self._log.close()
        if self._started:
            self._guard("metrics.publish", self._publish)
        self._spool.close()
        self._dedupe.close()
        self._quota.close()
        for sink in self._sinks:
            sink.close()

    # -- the background ------------------------------------------------------------------------------------

    def _run(self) -> None:
        while not self._closed:
            self.tick()
            self._rest(TICK_S)

    def tick(self) -> None:
        """Look after everything once; what one part meets does not keep the others from their turn."""
        self._guard("spool.tick", self._spool.tick)
        self._guard("tenants.tick", self._tenants.tick)
        self._guard("gate.tick", self._gate.tick)
        now = self._clock.monotonic()
        if now >= self._publish_at:
            self._publish_at = now + _PUBLISH_EVERY_S
            self._guard("log.tick", self._log.tick)
            self._guard("metrics.publish", self._publish)
            if self._reporter.is_due():
                self._guard("reporter.report", lambda: self._reporter.report(self.snapshot()))

    def _guard(self, where: str, part: Callable[[], object]) -> None:
        try:
            part()
        except Exception as error:  # noqa: BLE001 - a defect in one part must not stop the others
            self._signals.internal_error(where, error)

    def snapshot(self) -> metrics.Snapshot:
        """Return this worker's metrics as they are now."""
        counts, spool = self._counts, self._spool
        self._log.look()
        counts.set("collector_spool_bytes", spool.used_bytes)
        counts.set("collector_spool_budget_bytes", spool.bounds.worker_bytes)
        counts.set("collector_spool_refusing", int(spool.is_full))
        memory = self._gate.memory
        counts.set("collector_memory_used_bytes", memory.use.used_bytes)
        counts.set("collector_memory_limit_bytes", memory.use.limit_bytes)
        counts.set("collector_memory_refusing", int(memory.is_short))
        counts.set("collector_tenants", len(self._tenants.table))
        for route, width in self._flusher.widths().items():
            counts.set("collector_route_concurrency", width, (route,))
        counts.set("collector_worker_resident_memory_bytes", metrics.resident_bytes())
        for name, value in self._gauges().items():
            counts.set(name, value)
        return counts.snapshot()

    def _publish(self) -> None:
        directory = self._spool.directory
        if directory is not None:
            # A full or read-only spool is told by its own signal.
            with suppress(OSError):
                replace(directory / METRICS, metrics.encode(self.snapshot()))

    def bad_request(self, status: int, message: str) -> bytes:
        """Count what was no request, and return the body of its refusal."""
        reason = Reason.SLOW_BODY if status == 408 else Reason.MALFORMED
        self._signals.upload_refused(None, "http", reason)
        refusal = {"status": "error", "code": status, "error": reason.value, "message": message, "detail": ""}
        return msgspec.json.encode(refusal)

    def connection_evicted(self, state: str) -> None:
        """Count a connection that was closed for another."""
        self._signals.connection_evicted(state)
