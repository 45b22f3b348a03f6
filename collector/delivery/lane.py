"""
What is under way to one sink for one route: its own sink has a lane, and so has the rescue sink.
"""

from __future__ import annotations

from collections.abc import Iterator

from collector.buffer.holding import Holding
from collector.buffer.segment import Segment
from collector.delivery.batches import Cut
from collector.event import Batch
from collector.outcome import DELIVERED, Fate, Receipt
from collector.sinks.base import Limits, Sink

#: A sink that has not failed is slow, and not stuck, until it was silent for so long, in seconds. A guess: a write of
#: one batch takes less, and `stdout:` gives a stalled one up after 5.
SILENT_S = 10.0


class Reading:
    """
    A segment in flight: its batches still to come, those under way, and whether one failed.

    It `has_remains` when the rescue sink will never take some of its events.
    """

    def __init__(self, holding: Holding, segment: Segment, cuts: Iterator[Cut]) -> None:
        self.holding = holding
        self.segment = segment
        self.cuts = cuts
        self.under_way = 0
        self.retry_at: float | None = None
        self.is_read = False
        self.has_remains = False


class Lane:
    """
    One route's way to one sink; `arrived` is the fate of what that takes.

    Batches are cut to `limits`; `own` are those of the route's own sink.
    """

    def __init__(self, route: str, sink: Sink, *, limits: Limits, own: Limits, arrived: Fate = DELIVERED) -> None:
        self.route = route
        self.sink = sink
        self.limits = limits
        self.arrived = arrived
        self.readings: list[Reading] = []
        self.under_way = 0
        self.failures = 0
        self.not_before = 0.0
        self._own = own
        self._asked_at: float | None = None

    @property
    def is_rescue(self) -> bool:
        """Tell whether it leads to the rescue sink."""
        return self.arrived is not DELIVERED

    def begin(self, reading: Reading, one: Cut, now: float) -> None:
        """Note that a batch of a reading goes out."""
        reading.under_way += 1
        self.under_way += 1
        if self._asked_at is None and one.fits:
            self._asked_at = now

    def took(self, one: Cut, receipt: Receipt, now: float) -> None:
        """Note what the sink answered, while the batch still counts as under way."""
        if one.fits and not receipt.retryable:
            self.failures = 0
        if one.fits and (receipt.delivered or receipt.rejected):
            self._asked_at = now if self.under_way > 1 else None

    def end(self, reading: Reading) -> None:
        """Note that a batch of a reading came to its end, whichever."""
        reading.under_way -= 1
        self.under_way -= 1

    def is_stuck(self, now: float, after_s: float) -> bool:
        """Tell whether the sink has failed for so long, or been silent, without taking anything."""
        after_s = after_s if self.failures else max(after_s, SILENT_S)
        return self._asked_at is not None and now - self._asked_at >= after_s

    def wanted_under_way(self) -> bool:
        """Tell whether an upload waits for something that is in flight here."""
        return any(reading.segment.wanted for reading in self.readings)

    def verdict(self, batch: Batch, receipt: Receipt) -> tuple[Receipt, int]:
        """
        Return what is to be settled, and how many of the retryable events this sink will never take.

        What the rescue sink rejects is its own sink's to take or to reject, unless it is too large for that.
        """
        if not self.is_rescue or (len(batch) == 1 and len(batch.payload) > self._own.max_event_bytes):
            return receipt, 0
        retryable = sorted((*receipt.retryable, *(n for n, _ in receipt.rejected)))
        return Receipt(receipt.delivered, retryable=tuple(retryable)), len(receipt.rejected)
