"""
What Collector says of events that come again: a part of `signals.Signals`.
"""

from __future__ import annotations

from collector.telemetry.part import SignalsPart


class CopySignals(SignalsPart):
    """The signals of dedupe."""

    def events_deduplicated(self, tenant_id: str, protocol: str, count: int) -> None:
        """So many events of an upload that was taken were copies of others, and are not kept; no line, ever."""
        self._metrics.inc("collector_events_deduplicated_total", (tenant_id, protocol), count)

    def dedupe_unchecked(self, tenant_id: str, cause: str, count: int) -> None:
        """So many events were taken without a look at their ids."""
        self._metrics.inc("collector_dedupe_unchecked_events_total", (tenant_id,), count)
        self._gather("dedupe.unchecked", (tenant_id, cause), count=count)

    def dedupe_shortened(self, count: int) -> None:
        """So many ids were forgotten before their window was over."""
        self._metrics.inc("collector_dedupe_forgotten_ids_total", (), count)
        self._gather("dedupe.shortened", (), count=count)
