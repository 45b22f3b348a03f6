"""
What is under way to one sink for one route: its own sink has a lane, and so has the rescue sink.
"""

from __future__ import annotations

import math
from collections.abc import Iterator, Sequence

import msgspec

from collector.buffer.holding import Holding
from collector.buffer.segment import Segment
from collector.delivery import job as jobs
from collector.delivery.batches import Cut, meet
from collector.event import Batch
from collector.outcome import DELIVERED, RESCUED, Fate, Receipt
from collector.sinks.base import Limits, Sink
from collector.telemetry.signals import Signals

#: A sink that has not failed is slow, and not stuck, until it was silent for so long, in seconds. A guess: a write of
#: one batch takes less, and `stdout:` gives a stalled one up after 5.
SILENT_S = 10.0
#: A sink that writes a batch in less time than this waits for no disk, in seconds. A small file on tmpfs takes 0.1 ms,
#: on a disk that syncs some ms (measured).
QUICK_S = 0.002
#: A job of a quick sink that is out for longer is not waited for, in seconds. A guess, and a tick of the flusher.
PATIENCE_S = 0.1


class Reading:
    """
    A segment in flight: its batches still to come, its jobs under way, and whether a batch failed.

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

    Batches are cut to `limits`; `own` are those of the route's own sink. They go in jobs, of which `under_way` are out:
    several small ones to a sink that blocks, one to any other.
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
        #: Why what arrives at a rescue sink is there.
        self.cause = "unavailable"
        self._width = math.inf
        self._narrowed_at = -math.inf
        self._own = own
        self._batch_s: float | None = None
        self._began_at = 0.0
        self._asked_at: float | None = None

    @property
    def is_rescue(self) -> bool:
        """Tell whether it leads to the rescue sink."""
        return self.arrived is not DELIVERED

    def open_readings(self) -> list[Reading]:
        """List the readings that may still have batches to give."""
        return [one for one in self.readings if not one.is_read and one.retry_at is None]

    def next_job(self, reading: Reading) -> list[Cut]:
        """Take the batches of a reading that go out next; none at its end."""
        most = jobs.MAX_BATCHES if self.sink.blocking else 1
        if self._batch_s and most * self._batch_s > jobs.MAX_S:
            most = max(1, int(jobs.MAX_S / self._batch_s))
        return jobs.gather(reading.cuts, most)

    def places(self, most: int, now: float) -> int:
        """
        Tell how many jobs may be out at once: one after a failure, which tries the sink.

        One, too, for a sink that blocks and is quick: its threads would not be faster beside each other, and uploads
        would wait for each of them to let go of the interpreter. A job that does not come back holds no other up.
        """
        is_quick = self._batch_s is not None and self._batch_s < QUICK_S and now - self._began_at < PATIENCE_S
        return 1 if self.failures or (self.sink.blocking and is_quick) else self.width(most)

    def width(self, most: int) -> int:
        """Tell how many jobs the destination bears at once, by what it said of its pace."""
        self._width = min(self._width, most)
        return int(self._width)

    def slow_down(self, now: float, took_s: float) -> None:
        """Halve that: it asked for a slower pace. Once for all jobs that were under way together."""
        if now - took_s > self._narrowed_at and self._width < math.inf:
            self._width = max(1.0, self._width / 2)
            self._narrowed_at = now

    def begin(self, reading: Reading, job: Sequence[Cut], now: float) -> None:
        """Note that a job of a reading goes out."""
        reading.under_way += 1
        self.under_way += 1
        self._began_at = now
        if self._asked_at is None and any(one.fits for one in job):
            self._asked_at = now

    def timed(self, answers: Sequence[jobs.Answer]) -> None:
        """Note how long the batches of a job took: as the quickest, for the others may have waited for uploads."""
        self._batch_s = min(answer.seconds for answer in answers)

    def took(self, one: Cut, receipt: Receipt, now: float) -> None:
        """Note what the sink answered, while the batch's job still counts as under way."""
        if one.fits and (receipt.delivered or not receipt.retryable):
            self.failures = 0
        if not receipt.retryable:
            # One more for each round of so many jobs.
            self._width += 1 / self._width
        if one.fits and (receipt.delivered or receipt.rejected):
            self._asked_at = now if self.under_way > 1 else None

    def tell(self, signals: Signals, answer: jobs.Answer, receipt: Receipt) -> None:
        """Say that the sink took a batch."""
        if self.is_rescue:
            if receipt.delivered:
                signals.batch_rescued(self.route, self.cause, receipt.delivered)
            return
        signals.batch_delivered(self.route, receipt.delivered, answer.one.batch.size, answer.seconds)
        if receipt.delivered and answer.one.batch.size > self.limits.max_event_bytes:
            signals.event_claimed(self.route)

    def end(self, reading: Reading) -> None:
        """Note that a job of a reading came to its end, whichever."""
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
        if not self.is_rescue or (len(batch) == 1 and batch.size > self._own.max_event_bytes):
            return receipt, 0
        retryable = sorted((*receipt.retryable, *(n for n, _ in receipt.rejected)))
        return msgspec.structs.replace(receipt, retryable=tuple(retryable), rejected=()), len(receipt.rejected)


def rescue_lane(route: str, rescue: Sink, own: Sink) -> Lane:
    """Make a route's way to the rescue sink; cut for both, so that a batch is there under the name of its own sink."""
    return Lane(route, rescue, limits=meet(own.limits, rescue.limits), own=own.limits, arrived=RESCUED)
