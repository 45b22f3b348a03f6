"""
One job on its way to its sink, and what the sink says of it: settled, put aside, or to be tried again.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable, Sequence
from functools import partial

from collector.clock import Clock
from collector.delivery import job as jobs
from collector.delivery.aside import Claims, Parking
from collector.delivery.batches import Cut
from collector.delivery.lane import Lane, Reading
from collector.delivery.retry import Backoff
from collector.errors import AmbiguousSinkError, ThrottledSinkError, TransientSinkError
from collector.outcome import Receipt
from collector.telemetry.ledger import Verdicts
from collector.telemetry.signals import Signals

Write = Callable[[], list[jobs.Answer]]
Offload = Callable[[Write], list[jobs.Answer]]


class Deliverer:
    """
    Carries jobs of any lane; each ends with every event settled, or its reading's `retry_at` set.

    `offload` runs a blocking write off the hub, `offload_quietly` does so where nobody waits for it. What a sink
    refuses for good is kept in `parking`, if there is one, before it is settled; what is too large for it goes through
    `claims`.
    """

    def __init__(
        self,
        *,
        backoff: Backoff,
        clock: Clock,
        signals: Signals,
        offload: Offload,
        offload_quietly: Offload,
        parking: Parking | None,
        claims: Claims | None,
    ) -> None:
        self._backoff = backoff
        self._clock = clock
        self._signals = signals
        self._offload = offload
        self._offload_quietly = offload_quietly
        self._parking = parking
        self._claims = claims

    def deliver(self, lane: Lane, reading: Reading, job: Sequence[Cut], *, is_waited_for: Callable[[], bool]) -> None:
        """Write a job, and settle it; raises nothing."""
        try:
            write = partial(jobs.write, lane.sink, job, self._clock, self._claims)
            if lane.sink.blocking:
                answers = (self._offload if is_waited_for() else self._offload_quietly)(write)
            else:
                answers = write()
            self._settle(lane, reading, answers)
        except Exception as error:  # noqa: BLE001 - a journal that refuses, or a defect of ours: the events stay
            self._tell_defect(lane, reading, error)

    def _settle(self, lane: Lane, reading: Reading, answers: Sequence[jobs.Answer]) -> None:
        """Settle what a sink took of a job, at one stroke; a batch that failed, or has no true receipt, fails alone."""
        lane.timed(answers)
        taken: list[tuple[jobs.Answer, Receipt, int, Verdicts]] = []
        for answer in answers:
            batch = answer.one.batch
            try:
                receipt, spared = lane.verdict(batch, answer.receipt())
                verdicts = Verdicts(batch, receipt)
                if receipt.rejected and self._parking is not None:
                    receipt = self._parking.keep(lane.route, batch, receipt)
                    verdicts = Verdicts(batch, receipt)
                taken.append((answer, receipt, spared, verdicts))
            except TransientSinkError as error:
                self._pace(
                    lane,
                    answer,
                    throttled=isinstance(error, ThrottledSinkError),
                    in_doubt=len(batch) * isinstance(error, AmbiguousSinkError),
                )
                self._fail(lane, reading, str(error))
            except Exception as error:  # noqa: BLE001 - a defect of a sink: the events stay where they are
                self._tell_defect(lane, reading, error)
        reading.holding.settle(reading.segment, [verdicts for *_, verdicts in taken], arrived=lane.arrived)
        now = self._clock.monotonic()
        for answer, receipt, spared, _ in taken:
            batch = answer.one.batch
            lane.tell(self._signals, answer, receipt)
            lane.took(answer.one, receipt, now)
            self._tell_refused(lane, receipt)
            self._pace(lane, answer, throttled=receipt.throttled, in_doubt=receipt.in_doubt)
            reading.has_remains |= spared > 0
            if len(receipt.retryable) > spared:
                if receipt.delivered:
                    reading.segment.attempts = 0
                left = f"{len(receipt.retryable) - spared} of {len(batch)} events were not taken"
                self._fail(lane, reading, f"{left}: {receipt.trouble}" if receipt.trouble else left)

    def _pace(self, lane: Lane, answer: jobs.Answer, *, throttled: bool, in_doubt: int) -> None:
        if throttled:
            lane.slow_down(self._clock.monotonic(), answer.seconds)
            self._signals.batch_throttled(lane.route)
        if in_doubt:
            self._signals.batch_in_doubt(lane.route, in_doubt)

    def _tell_refused(self, lane: Lane, receipt: Receipt) -> None:
        for reason, count in Counter(reason for _, reason in receipt.rejected).items():
            self._signals.events_refused(lane.route, reason, self._parking is not None, receipt.trouble, count)

    def _tell_defect(self, lane: Lane, reading: Reading, error: Exception) -> None:
        self._signals.internal_error(f"flusher.deliver {lane.route}", error)
        self._fail(lane, reading, type(error).__name__)

    def _fail(self, lane: Lane, reading: Reading, error: str) -> None:
        if reading.retry_at is None:
            lane.failures += 1
            reading.segment.attempts += 1
            failures = max(lane.failures, reading.segment.attempts)
            delay_s = self._backoff.delay_s(failures)
            reading.retry_at = lane.not_before = self._clock.monotonic() + delay_s
            self._signals.batch_failed(lane.route, f"{'rescue: ' * lane.is_rescue}{error}", failures, delay_s)
