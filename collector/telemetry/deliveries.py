"""
What Collector says of sinks that do not simply take a batch: a part of `signals.Signals`.
"""

from __future__ import annotations

from collector.outcome import Reason
from collector.telemetry.part import SignalsPart

#: How much of what a destination said stands on a line. A choice.
_MOST_CAUSE = 300


class DeliverySignals(SignalsPart):
    """The signals of pace, doubt, refusals and claims."""

    def batch_throttled(self, route: str) -> None:
        """A sink asked for a slower pace: its route has fewer batches under way for a while."""
        self._metrics.inc("collector_batches_throttled_total", (route,))
        self._gather("batch.throttled", (route,))

    def batch_in_doubt(self, route: str, count: int) -> None:
        """Nobody said whether so many events arrived; they are sent again, and may be there twice."""
        self._metrics.inc("collector_possible_duplicate_events_total", (route,), count)
        self._gather("batch.in_doubt", (route,), count=count)

    def events_refused(self, route: str, reason: Reason, parked: bool, cause: str, count: int) -> None:
        """A sink refuses so many events for good, for a `cause` in its own words; `parked` are those that are kept."""
        labels = (route, reason, "true" if parked else "false")
        self._metrics.inc("collector_sink_refused_events_total", labels, count)
        self._gather("events.refused", labels, values=(route, reason, parked, cause[:_MOST_CAUSE]), count=count)

    def event_claimed(self, route: str) -> None:
        """An event too large for its sink lies in the object store, and its claim is where it was to be."""
        self._metrics.inc("collector_claimed_events_total", (route,))
        self._gather("event.claimed", (route,))
