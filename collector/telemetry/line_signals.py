"""
What Collector says of its own log lines: a part of `signals.Signals`.
"""

from __future__ import annotations

from collector.telemetry.part import SignalsPart

#: How much of what Splunk said stands on a line. A choice.
_MOST_CAUSE = 300


class LineSignals(SignalsPart):
    """The signals of lines that get lost, and of a Splunk that does not take them."""

    def stdout_lost(self, count: int, first_us: int, last_us: int) -> None:
        """The standard output did not take so many lines, between these times."""
        self._metrics.inc("collector_log_lines_lost_total", (), count)
        self._gather("stdout.lost", (), count=count, span_us=(first_us, last_us))

    def hec_dropped(self, reason: str, count: int, first_us: int, last_us: int) -> None:
        """So many lines for Splunk were dropped, between these times."""
        self._metrics.inc("collector_hec_dropped_lines_total", (reason,), count)
        self._gather("hec.dropped", (reason,), count=count, span_us=(first_us, last_us))

    def hec_failing(self, cause: str, retry_in_s: float) -> None:
        """Splunk did not take lines several times in a row."""
        self._metrics.set("collector_hec_failing", 1)
        self._say["warning"]("hec.failing", cause=cause[:_MOST_CAUSE], retry_in_s=round(retry_in_s, 3))

    def hec_refused(self, cause: str, retry_in_s: float) -> None:
        """Splunk takes no lines until a human has changed something."""
        self._metrics.set("collector_hec_failing", 1)
        self._say["error"]("hec.refused", cause=cause[:_MOST_CAUSE], retry_in_s=round(retry_in_s, 3))

    def hec_unconfirmed(self, cause: str) -> None:
        """Acks are wanted, and can't be had."""
        self._metrics.set("collector_hec_unconfirmed", 1)
        self._say["error"]("hec.unconfirmed", cause=cause[:_MOST_CAUSE])

    def hec_recovered(self, seconds: float) -> None:
        """Splunk takes lines again, after so many seconds."""
        self._metrics.set("collector_hec_failing", 0)
        self._say["info"]("hec.recovered", seconds=round(seconds, 3))
