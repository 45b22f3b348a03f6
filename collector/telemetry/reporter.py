"""
How a worker stands, said from time to time in the log: what came, what went on, and what it holds.
"""

from __future__ import annotations

import fcntl
import os
from collections import Counter
from collections.abc import Callable, Iterable
from contextlib import suppress
from pathlib import Path
from typing import TYPE_CHECKING

from collector.clock import Clock
from collector.errors import LedgerError
from collector.telemetry.books import Totals
from collector.telemetry.metrics import Metrics, Snapshot
from collector.telemetry.signals import Signals

if TYPE_CHECKING:
    from collector.telemetry.hec.buffer import Loss
    from collector.telemetry.hec.options import Account

#: Tenants that have a line of their own in a report: those with the most events. A choice: lines must not grow with
#: tenants without a bound, and an analyst of the others has the events themselves.
MAX_TENANTS = 50
OTHERS = "(others)"

_INTAKE = {
    "collector_uploads_total": "uploads",
    "collector_upload_events_total": "events",
    "collector_upload_bytes_total": "bytes",
    "collector_uploads_refused_total": "refused",
    "collector_events_rejected_total": "rejected",
    "collector_events_deduplicated_total": "deduplicated",
}
_ROUTES = {
    "collector_batches_delivered_total": "batches",
    "collector_batch_events_total": "events",
    "collector_batch_bytes_total": "bytes",
    "collector_batch_failures_total": "failures",
    "collector_batches_throttled_total": "throttled",
    "collector_possible_duplicate_events_total": "in_doubt",
}
_COUNTERS_OF_ACCOUNT = {
    "collector_hec_emitted_lines_total": "emitted",
    "collector_hec_delivered_lines_total": "delivered",
    "collector_hec_line_bytes_total": "bytes_in",
    "collector_hec_wire_bytes_total": "bytes_wire",
    "collector_hec_possible_duplicate_lines_total": "possible_duplicates",
}
_GAUGES_OF_ACCOUNT = {
    "collector_hec_queued_lines": "queued",
    "collector_hec_in_flight_lines": "in_flight",
    "collector_hec_held_bytes": "held_bytes",
    "collector_hec_high_water_bytes": "high_water_bytes",
    "collector_hec_oldest_age_seconds": "oldest_age_s",
}


class Reporter:
    """
    Says how a worker stands, every `every_s` seconds; 0 means never.

    Of all workers of a task the one that holds `lock` says what the task's ledger says, which it reads by `offload`
    beside the loop.
    """

    def __init__(
        self,
        *,
        every_s: float,
        lock: Path,
        ledger: Callable[[], Totals],
        signals: Signals,
        clock: Clock,
        offload: Callable[[Callable[[], Totals]], Totals],
    ) -> None:
        self._every_s = every_s
        self._lock = lock
        self._ledger = ledger
        self._signals = signals
        self._clock = clock
        self._offload = offload
        self._said_at_s = clock.monotonic()
        self._before: dict[str, dict[str, Counter[str]]] = {"intake": {}, "routes": {}}
        self._lock_fd = -1

    def is_due(self) -> bool:
        """Tell whether it is time."""
        return self._every_s > 0 and self._clock.monotonic() - self._said_at_s >= self._every_s

    def report(self, now: Snapshot) -> None:
        """Say how things stand: what came since the last report, from the metrics as they are now."""
        if not self._every_s:
            return
        now_s = self._clock.monotonic()
        seconds, self._said_at_s = now_s - self._said_at_s, now_s
        for tenant_id, came in _largest(self._news("intake", now, _INTAKE)):
            self._signals.intake_report(tenant_id, seconds=seconds, **{name: came[name] for name in _INTAKE.values()})
        widths = {labels[0]: value for labels, value in now.gauges.get("collector_route_concurrency", ())}
        for route, went in sorted(self._news("routes", now, _ROUTES)):
            self._signals.route_report(
                route,
                seconds=seconds,
                width=int(widths.get(route, 0)),
                **{name: went[name] for name in _ROUTES.values()},
            )
        self._say_worker(now)
        if self._is_speaker():
            self._say_ledger()

    def _news(self, kind: str, now: Snapshot, counters: dict[str, str]) -> list[tuple[str, Counter[str]]]:
        """Return what was counted since the last report, by the first label; without what has not moved."""
        sums: dict[str, Counter[str]] = {}
        for metric, name in counters.items():
            for labels, value in now.counters.get(metric, ()):
                sums.setdefault(labels[0], Counter())[name] += value
        before, self._before[kind] = self._before[kind], sums
        news = (
            (label, Counter({k: v - before.get(label, Counter())[k] for k, v in s.items()}))
            for label, s in sums.items()
        )
        return [(label, counted) for label, counted in news if label and any(counted.values())]

    def _say_worker(self, now: Snapshot) -> None:
        gauges = {name: series[0][1] for name, series in now.gauges.items() if series}
        self._signals.worker_report(
            connections=int(gauges.get("collector_connections", 0)),
            lag_s=gauges.get("collector_lag_seconds", 0.0),
            resident_bytes=int(gauges.get("collector_worker_resident_memory_bytes", 0)),
            memory_used_bytes=int(gauges.get("collector_memory_used_bytes", 0)),
            memory_limit_bytes=int(gauges.get("collector_memory_limit_bytes", 0)),
            spool_bytes=int(gauges.get("collector_spool_bytes", 0)),
            spool_budget_bytes=int(gauges.get("collector_spool_budget_bytes", 0)),
            spool_refusing=bool(gauges.get("collector_spool_refusing", 0)),
        )

    def _is_speaker(self) -> bool:
        """Tell whether this worker speaks for the task: it holds the lock, and keeps it to its end."""
        if self._lock_fd >= 0:
            return True
        with suppress(OSError):
            fd = os.open(self._lock, os.O_RDWR | os.O_CREAT | os.O_CLOEXEC, 0o600)
            try:
                fcntl.flock(fd, fcntl.LOCK_EX | fcntl.LOCK_NB)
            except OSError:
                os.close(fd)
            else:
                self._lock_fd = fd
        return self._lock_fd >= 0

    def _say_ledger(self) -> None:
        with suppress(LedgerError, OSError):
            totals = self._offload(self._ledger)
            self._signals.ledger_report(**totals.outcomes(), balanced=totals.balanced)

    def close(self) -> None:
        """Let another worker speak for the task; safe to call twice."""
        if self._lock_fd >= 0:
            os.close(self._lock_fd)
            self._lock_fd = -1


def _largest(news: Iterable[tuple[str, Counter[str]]]) -> list[tuple[str, Counter[str]]]:
    """Keep the tenants with the most events, and add the others up."""
    by_size = sorted(news, key=lambda one: (-one[1]["events"], one[0]))
    others: Counter[str] = Counter()
    for _, came in by_size[MAX_TENANTS:]:
        others.update(came)
    return by_size[:MAX_TENANTS] + ([(OTHERS, others)] if others else [])


def say_accounts(
    account: Account, before: Account | None, losses: Iterable[Loss], now_us: int, *, signals: Signals, counts: Metrics
) -> None:
    """
    Count what has become of log lines for Splunk since the account `before`.

    `losses` have the times of drops; a drop that came between the two looks is of `now_us`.
    """
    for name, field in _COUNTERS_OF_ACCOUNT.items():
        counts.inc(name, (), getattr(account, field) - (getattr(before, field) if before else 0))
    for name, field in _GAUGES_OF_ACCOUNT.items():
        counts.set(name, getattr(account, field))
    for result, count in account.results.items():
        counts.inc("collector_hec_requests_total", (result,), count - (before.results.get(result, 0) if before else 0))
    times = {loss.reason.value: (loss.first_us, loss.last_us) for loss in losses}
    for reason, dropped in account.dropped.items():
        count = dropped - (before.dropped.get(reason, 0) if before else 0)
        if count:
            signals.hec_dropped(reason, count, *times.get(reason, (now_us, now_us)))
