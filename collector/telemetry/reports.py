"""
What Collector says from time to time of how it stands: a part of `signals.Signals`.

A report moves no metric. It says what some have come to, for whoever sees the log alone.
"""

from __future__ import annotations

from collector.telemetry.part import SignalsPart


class ReportSignals(SignalsPart):
    """The signals of how a process stands."""

    def intake_report(
        self,
        tenant_id: str,
        *,
        seconds: float,
        uploads: int,
        events: int,
        bytes: int,  # noqa: A002 - the field's name on the line
        refused: int,
        rejected: int,
        deduplicated: int,
    ) -> None:
        """So much came from a tenant in the last so many seconds."""
        self._say["info"](
            "intake.report", tenant=tenant_id, seconds=round(seconds, 3), uploads=uploads, events=events, bytes=bytes,
            refused=refused, rejected=rejected, deduplicated=deduplicated,
        )  # fmt: skip

    def route_report(
        self,
        route: str,
        *,
        seconds: float,
        batches: int,
        events: int,
        bytes: int,  # noqa: A002 - the field's name on the line
        failures: int,
        throttled: int,
        in_doubt: int,
        width: int,
    ) -> None:
        """So much went to a route in the last so many seconds."""
        self._say["info"](
            "route.report", route=route, seconds=round(seconds, 3), batches=batches, events=events, bytes=bytes,
            failures=failures, throttled=throttled, in_doubt=in_doubt, width=width,
        )  # fmt: skip

    def worker_report(
        self,
        *,
        connections: int,
        lag_s: float,
        resident_bytes: int,
        memory_used_bytes: int,
        memory_limit_bytes: int,
        spool_bytes: int,
        spool_budget_bytes: int,
        spool_refusing: bool,
    ) -> None:
        """A worker stands so."""
        self._say["info"](
            "worker.report", connections=connections, lag_s=round(lag_s, 6), resident_bytes=resident_bytes,
            memory_used_bytes=memory_used_bytes, memory_limit_bytes=memory_limit_bytes, spool_bytes=spool_bytes,
            spool_budget_bytes=spool_budget_bytes, spool_refusing=spool_refusing,
        )  # fmt: skip

    def ledger_report(
        self,
        *,
        accepted: int,
        delivered: int,
        rescued: int,
        rejected_by_sink: int,
        dropped: int,
        deduplicated: int,
        pending: int,
        balanced: bool,
    ) -> None:
        """The ledger of the whole task."""
        self._say["info"](
            "ledger.report", accepted=accepted, delivered=delivered, rescued=rescued,
            rejected_by_sink=rejected_by_sink, dropped=dropped, deduplicated=deduplicated, pending=pending,
            balanced=balanced,
        )  # fmt: skip

    def hec_report(
        self,
        *,
        emitted: int,
        delivered: int,
        dropped: int,
        queued: int,
        in_flight: int,
        held_bytes: int,
        buffer_bytes: int,
        high_water_bytes: int,
        oldest_age_s: float,
        bytes_in: int,
        bytes_wire: int,
        requests: int,
        retries: int,
        possible_duplicates: int,
    ) -> None:
        """The accounts of a process's log lines for Splunk; they do not hold this line yet."""
        self._say["info"](
            "hec.report", emitted=emitted, delivered=delivered, dropped=dropped, queued=queued, in_flight=in_flight,
            held_bytes=held_bytes, buffer_bytes=buffer_bytes, high_water_bytes=high_water_bytes,
            oldest_age_s=round(oldest_age_s, 3), bytes_in=bytes_in, bytes_wire=bytes_wire, requests=requests,
            retries=retries, possible_duplicates=possible_duplicates,
        )  # fmt: skip
