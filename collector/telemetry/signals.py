"""
What Collector says: one method is one thing that happened, told as one log line and counted in one place.

Call sites say what happened and nothing else, so a line and a metric can't disagree. Names, levels and fields are
declared in `catalogue.SIGNALS`. Levels: error, data is lost or a human is needed; warning, unexpected and nothing lost.
What strangers can cause at will is counted at once and logged together, once a `flush()` for each kind of it.
"""

from __future__ import annotations

import threading
from collections.abc import Collection
from typing import TYPE_CHECKING

from collector.clock import Clock
from collector.outcome import Outcome, Reason
from collector.telemetry.catalogue import SIGNALS, SPAN
from collector.telemetry.copies import CopySignals
from collector.telemetry.deliveries import DeliverySignals
from collector.telemetry.gathering import MAX_KEYS, Gathering
from collector.telemetry.generations import GenerationSignals
from collector.telemetry.line_signals import LineSignals
from collector.telemetry.logs import rfc3339
from collector.telemetry.metrics import Metrics
from collector.telemetry.part import flag
from collector.telemetry.reports import ReportSignals

if TYPE_CHECKING:
    from structlog.typing import FilteringBoundLogger


class Signals(CopySignals, DeliverySignals, GenerationSignals, LineSignals, ReportSignals):
    """Every signal as a method. Safe to call from any thread or greenlet; never raises because of a log."""

    def __init__(
        self, logger: FilteringBoundLogger, metrics: Metrics, *, clock: Clock, max_keys: int = MAX_KEYS
    ) -> None:
        self._metrics = metrics
        self._clock = clock
        self._max_keys = max_keys
        self._say = {
            "debug": logger.debug, "info": logger.info, "warning": logger.warning, "error": logger.error,
        }  # fmt: skip
        self._lock = threading.Lock()
        self._gathering = Gathering(clock, max_keys=max_keys)
        self._shown: set[tuple[str, str]] = set()
        self._refusing = False
        metrics.set("collector_spool_refusing", 0)
        metrics.set("collector_memory_refusing", 0)

    # -- a worker's life -----------------------------------------------------------------------------------

    def worker_started(self, pid: int, owner: str) -> None:
        """A worker is ready."""
        self._metrics.set("collector_worker_start_time_seconds", self._clock.now_us() / 1_000_000)
        self._say["info"]("worker.started", pid=pid, owner=owner)

    def drain_done(
        self,
        scope: str,
        accepted: int,
        delivered: int,
        rescued: int,
        rejected_by_sink: int,
        dropped: int,
        deduplicated: int,
        left: int,
        owner: str = "",
    ) -> None:
        """
        A `worker`, which is named by `owner`, or the whole `task` has drained.

        The numbers are its ledger, `left` what is still in its spool.
        """
        self._metrics.inc("collector_drains_total", (scope, flag(not left)))
        self._say["warning" if left else "info"](
            "drain.done", scope=scope, owner=owner, accepted=accepted, delivered=delivered, rescued=rescued,
            rejected_by_sink=rejected_by_sink, dropped=dropped, deduplicated=deduplicated, left=left,
        )  # fmt: skip

    # -- uploads -------------------------------------------------------------------------------------------

    def upload_accepted(
        self,
        tenant_id: str,
        protocol: str,
        events: int,
        bytes: int,  # noqa: A002 - what they are in batch_delivered
    ) -> None:
        """An upload was taken, with so many events of so many bytes in the spool; no line, ever."""
        self._metrics.add_upload((tenant_id, protocol), events, bytes)

    def upload_refused(self, tenant_id: str | None, protocol: str, reason: Reason) -> None:
        """An upload was refused; `tenant_id` is None when the key is unknown, never what the stranger sent."""
        self._metrics.inc("collector_uploads_refused_total", (tenant_id or "", protocol, reason))
        self._gather("upload.refused", (tenant_id, protocol, reason))

    def connection_evicted(self, state: str) -> None:
        """A connection was closed to let another in; it was idle, or in the middle of a head or of a body."""
        self._metrics.inc("collector_connections_evicted_total", (state,))
        self._gather("connection.evicted", (state,))

    def upload_unconfirmed(self, tenant_id: str, protocol: str, receipt: str, events: int) -> None:
        """An upload waited for its sink in vain; its receipt finds its events once they arrive."""
        self._metrics.inc("collector_uploads_unconfirmed_total", (tenant_id, protocol))
        self._say["warning"]("upload.unconfirmed", tenant=tenant_id, protocol=protocol, receipt=receipt, events=events)

    def events_rejected(self, tenant_id: str, protocol: str, code: Reason, count: int) -> None:
        """So many events of an upload that was taken were not."""
        self._metrics.inc("collector_events_rejected_total", (tenant_id, protocol, code), count)
        self._gather("events.rejected", (tenant_id, protocol, code), count=count)

    # -- batches and events --------------------------------------------------------------------------------

    def batch_delivered(
        self,
        route: str,
        events: int,
        bytes: int,  # noqa: A002 - the field's name on the line
        seconds: float,
    ) -> None:
        """A sink confirmed a batch after so many seconds."""
        labels = (route,)
        self._metrics.inc("collector_batches_delivered_total", labels)
        self._metrics.inc("collector_batch_events_total", labels, events)
        self._metrics.inc("collector_batch_bytes_total", labels, bytes)
        self._metrics.observe("collector_batch_seconds", labels, seconds)
        self._say["debug"]("batch.delivered", route=route, events=events, bytes=bytes, seconds=round(seconds, 6))

    def batch_failed(self, route: str, error: str, attempts: int, retry_in_s: float) -> None:
        """A sink did not take a batch at this, its `attempts`-th try."""
        self._metrics.inc("collector_batch_failures_total", (route,))
        self._say["warning"](
            "batch.failed", route=route, error=error, attempts=attempts, retry_in_s=round(retry_in_s, 3)
        )

    def batch_rescued(self, route: str, cause: str, count: int) -> None:
        """The rescue sink confirmed so many events of a batch; `cause` is `unavailable` or `drain`."""
        self._metrics.inc("collector_batches_rescued_total", (route, cause))
        self._metrics.inc("collector_rescued_events_total", (route, cause), count)
        # A line a batch would be a thousand a second, with a thousand tenants.
        self._gather("batch.rescued", (route, cause), count=count)

    def rescue_unreadable(self, place: str, cause: str) -> None:
        """A rescued batch can't be read back; it stays where it is."""
        self._metrics.inc("collector_rescued_unreadable_total")
        self._say["error"]("rescue.unreadable", place=place, cause=cause)

    def replay_done(self, found: int, delivered: int, rejected: int, left: int) -> None:
        """So many rescued events were read, and sent on to the sinks of their routes; what is left waits."""
        for outcome, count in (("delivered", delivered), ("rejected", rejected)):
            self._metrics.inc("collector_replayed_events_total", (outcome,), count)
        self._say["warning" if left or rejected else "info"](
            "replay.done", found=found, delivered=delivered, rejected=rejected, left=left
        )

    def events_lost(self, tenant_id: str, outcome: Outcome, reason: Reason, count: int, segment: str) -> None:
        """So many events that had been taken were settled without arriving."""
        self._metrics.inc("collector_events_lost_total", (tenant_id, outcome, reason), count)
        self._say["warning" if outcome == Outcome.REJECTED_BY_SINK else "error"](
            "events.lost", tenant=tenant_id, outcome=outcome, reason=reason, count=count, segment=segment
        )

    # -- the spool and the ledger --------------------------------------------------------------------------

    def spool_refusing(self, cause: str) -> None:
        """The spool can't take events; said again while it still can't, nothing is logged."""
        with self._lock:
            changed, self._refusing = not self._refusing, True
        if changed:
            self._metrics.set("collector_spool_refusing", 1)
            self._say["error"]("spool.refusing", cause=cause)

    def spool_recovered(self) -> None:
        """The spool takes events again."""
        with self._lock:
            changed, self._refusing = self._refusing, False
        if changed:
            self._metrics.set("collector_spool_refusing", 0)
            self._say["info"]("spool.recovered")

    def memory_short(self, used_bytes: int, limit_bytes: int, held_bytes: int) -> None:
        """So much of the nearest limit is in use, `held_bytes` of it for this worker's events: no more is taken."""
        self._metrics.set("collector_memory_refusing", 1)
        self._say["error"]("memory.short", used_bytes=used_bytes, limit_bytes=limit_bytes, held_bytes=held_bytes)

    def memory_recovered(self, used_bytes: int, limit_bytes: int) -> None:
        """So much of the nearest limit is in use: uploads are taken again."""
        self._metrics.set("collector_memory_refusing", 0)
        self._say["info"]("memory.recovered", used_bytes=used_bytes, limit_bytes=limit_bytes)

    def segment_adopted(self, owner: str, segments: int, events: int) -> None:
        """So many segments of a dead owner, with so many events, are ours now."""
        self._metrics.inc("collector_segments_adopted_total", (), segments)
        self._say["warning"]("segment.adopted", owner=owner, segments=segments, events=events)

    def frame_corrupt(self, segment: str, offset: int) -> None:
        """The frame at this offset can't be read back."""
        self._metrics.inc("collector_frames_corrupt_total")
        self._gather("frame.corrupt", (segment,), values=(segment, offset))

    def tail_cut(self, segment: str, bytes: int) -> None:  # noqa: A002 - the field's name on the line
        """The last so many bytes of a segment were no whole frame."""
        self._metrics.inc("collector_tails_cut_total")
        self._say["warning"]("tail.cut", segment=segment, bytes=bytes)

    def ledger_imbalance(self, tenant_id: str, accepted: int, accounted: int) -> None:
        """A tenant's events and their fates do not add up."""
        self._metrics.inc("collector_ledger_imbalances_total")
        self._say["error"]("ledger.imbalance", tenant=tenant_id, accepted=accepted, accounted=accounted)

    # -- the rest ------------------------------------------------------------------------------------------

    def tenants_loaded(self, count: int, version: str) -> None:
        """So many tenants are in force; `version` tells one state of the file from another."""
        self._metrics.set("collector_tenants", count)
        self._metrics.inc("collector_tenants_reloads_total", ("loaded",))
        self._say["info"]("tenants.loaded", count=count, version=version)

    def tenants_rejected(self, problems: list[str]) -> None:
        """The tenants did not load, for these reasons."""
        self._metrics.inc("collector_tenants_reloads_total", ("rejected",))
        self._say["error"]("tenants.rejected", problems=problems)

    def internal_error(self, where: str, error: BaseException) -> None:
        """An error that nobody expected came up in `where`, a constant."""
        self._metrics.inc("collector_internal_errors_total", (where,))
        kind = type(error).__qualname__
        key = (where, kind)
        with self._lock:
            first = key not in self._shown and len(self._shown) < self._max_keys
            if first:
                self._shown.add(key)
        if not first:
            self._gather("internal.error", key)
            return
        now = rfc3339(self._clock.now_us())
        self._say["error"]("internal.error", where=where, error=kind, exc_info=error, count=1, first=now, last=now)

    def flush(self, *, hold: Collection[str] = ()) -> None:
        """
        Log what was gathered since the last flush; the runtime calls it once a second and at the end.

        What is gathered of the names `hold` is kept for a later one.
        """
        with self._lock:
            self._shown.clear()
        for name, kind in self._gathering.take(hold):
            signal = SIGNALS[name]
            fields = [field for field in signal.fields if field not in (*SPAN, "traceback")]
            self._say[signal.levels[0]](
                signal.name, **dict(zip(fields, kind.values, strict=True)), count=kind.count,
                first=rfc3339(kind.first_us), last=rfc3339(kind.last_us),
            )  # fmt: skip

    def _gather(
        self,
        name: str,
        key: tuple[str | None, ...],
        *,
        values: tuple[str | int | None, ...] | None = None,
        count: int = 1,
        span_us: tuple[int, int] | None = None,
    ) -> None:
        if self._gathering.add(name, key, key if values is None else values, count, span_us=span_us):
            self._metrics.inc("collector_log_keys_folded_total")
