"""
What an upload waits on whose answer promises `sink`.
"""

from __future__ import annotations

import threading

from collector.event import Span
from collector.outcome import Reason


class Ticket:
    """The events of an upload in their segment, and their fate."""

    def __init__(self, span: Span) -> None:
        self._span = span
        self._left = len(span)
        self._rejected: list[tuple[int, Reason]] = []
        self._done = threading.Event()

    def settle(self, span: Span, rejected: dict[int, Reason]) -> None:
        """Note that a span of its partition is settled; `rejected` maps numbers in it to the sink's reason."""
        mine = self._span
        first, last = max(span.first, mine.first), min(span.last, mine.last)
        if first >= last:
            return
        self._left -= last - first
        self._rejected += [(n - mine.first, reason) for n, reason in rejected.items() if first <= n < last]
        if self._left <= 0:
            self._done.set()

    def wait(self, timeout_s: float) -> bool:
        """Wait until every event met its fate; return whether it did in time."""
        return self._done.wait(timeout_s)

    def rejected(self) -> list[tuple[int, Reason]]:
        """Return the events that the sink refused, as (place among the upload's accepted events, reason)."""
        return sorted(self._rejected)
