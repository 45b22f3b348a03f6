"""
Sends what is queued, one request at a time: `step` does one thing and says when there is the next to do.
"""

from __future__ import annotations

from collections import deque
from collections.abc import Callable
from contextlib import suppress
from typing import Protocol

import msgspec

from collector.errors import HecUnanswered, HecUnsent
from collector.telemetry.hec.acks import GIVE_UP_AFTER, Acks
from collector.telemetry.hec.answers import ACK_IS_DISABLED, Answer, Reading, Verdict, read
from collector.telemetry.hec.buffer import Batch, Drop, HecBuffer
from collector.telemetry.hec.options import MAX_BATCH_BYTES, HecOptions
from collector.telemetry.hec.pace import Pace, State

#: Lines of the first batch after HEC was away. A choice: small, and a probe all the same.
PROBE_LINES = 16
#: Batches do not become smaller than this, however often HEC calls them too large. A choice: one line may have 16 KiB.
_LEAST_BATCH_BYTES = 32 << 10
#: Between two looks at confirmations while there is not much time left, in seconds. A choice.
_HURRIED_POLL_S = 0.25
#: What says that there is no page of confirmations for us.
_NOT_THERE = frozenset({400, 404})


class Transport(Protocol):
    """How requests get to HEC. Raises HecUnsent and HecUnanswered."""

    def post(self, lines: bytes) -> tuple[Answer, int]:
        """Send lines in their envelopes; return the answer, and how many bytes went."""

    def ask_acks(self, question: bytes) -> tuple[Answer, int]:
        """Ask what is confirmed; return the answer, and how many bytes went."""

    def ask_health(self) -> tuple[Answer, int]:
        """Ask how HEC is; return the answer, and how many bytes went."""


class Hooks(msgspec.Struct, frozen=True, kw_only=True):
    """
    Who is told what the accounts do not say.

    `failing` and `refused`: why lines are not taken, and for how many seconds nothing is tried, once each time.
    `recovered`: for how many seconds it was so. `unconfirmed`: why acks are wanted and can't be had. `defect`: an error
    that nobody expected.
    """

    failing: Callable[[str, float], None] = lambda _cause, _retry_in_s: None
    refused: Callable[[str, float], None] = lambda _cause, _retry_in_s: None
    recovered: Callable[[float], None] = lambda _seconds: None
    unconfirmed: Callable[[str], None] = lambda _cause: None
    defect: Callable[[BaseException], None] = lambda _error: None


class Sender:
    """What is under way, and what is to be done with it."""

    def __init__(
        self,
        buffer: HecBuffer,
        transport: Transport,
        options: HecOptions,
        *,
        pace: Pace,
        acks: Acks,
        hooks: Hooks,
    ) -> None:
        self._buffer = buffer
        self._transport = transport
        self._batch_bytes = min(options.batch_bytes, MAX_BATCH_BYTES)
        self._batch_lines = options.batch_lines
        self._linger_s = options.linger_s
        self._pace = pace
        self._acks = acks
        self._wants_acks = options.ack
        self._hooks = hooks
        self._again: deque[Batch] = deque()
        self.is_hurried = False
        self.wants_lines = False

    @property
    def is_idle(self) -> bool:
        """Tell whether nothing waits to be sent or to be confirmed."""
        return not self._again and not self._acks and not self._buffer.queued_lines

    def is_due(self) -> bool:
        """Tell whether a batch of the queue should leave."""
        buffer = self._buffer
        return buffer.queued_lines > 0 and (
            self.is_hurried
            or buffer.queued_bytes >= self._batch_bytes
            or buffer.queued_lines >= self._batch_lines
            or buffer.oldest_queued_age_s() >= self._linger_s
        )

    def step(self) -> float:
        """
        Do one thing, if there is one; return for how many seconds there is nothing to do, 0 for: go on.

        Then `wants_lines` tells whether a full batch of new lines would be something to do.
        """
        self.wants_lines = False
        if self.is_hurried:
            self._pace.hurry()
        wait_s = self._pace.wait_s()
        if wait_s > 0:
            return wait_s
        look_in_s = self._acks.wait_s(hurry_s=_HURRIED_POLL_S if self.is_hurried else None)
        if look_in_s == 0:
            self._look()
            return 0.0
        if not self._again and not self.is_due():
            return self._idle_s(look_in_s)
        if self._pace.is_probing and not self._is_healthy():
            return 0.0
        batch = self._next(PROBE_LINES if self._pace.is_probing else self._batch_lines)
        if batch is not None:
            self._send(batch)
        return 0.0

    def _next(self, most_lines: int) -> Batch | None:
        if not self._again:
            return self._buffer.take(self._batch_bytes, min(most_lines, self._batch_lines))
        batch = self._again.popleft()
        if len(batch) <= most_lines:
            return batch
        first, rest = self._buffer.split(batch, [batch.lines[:most_lines], batch.lines[most_lines:]])
        self._again.appendleft(rest)
        return first

    def _idle_s(self, look_in_s: float | None) -> float:
        self.wants_lines = True
        if self.is_due():
            # What came between the look at the queue and the line above has woken nobody.
            return 0.0
        wait_s = self._linger_s
        if self._buffer.queued_lines:
            wait_s = max(0.001, wait_s - self._buffer.oldest_queued_age_s())
        return wait_s if look_in_s is None else min(wait_s, look_in_s)

    # -- a batch -------------------------------------------------------------------------------------------

    def _send(self, batch: Batch) -> None:
        body = b"".join([line.data for line in batch.lines])
        self._buffer.leaving(batch)
        try:
            answer, wire_bytes = self._transport.post(body)
        except HecUnsent as error:
            self._buffer.answered(batch, "unsent", wire_bytes=0, arrived=0, in_doubt=False)
            self._put_off(batch, str(error))
            return
        except HecUnanswered as error:
            arrived = len(batch)
            self._buffer.answered(batch, "unanswered", wire_bytes=error.wire_bytes, arrived=arrived, in_doubt=True)
            self._put_off(batch, str(error))
            return
        except Exception as error:  # noqa: BLE001 -- a defect of ours, which must not take the batch with it
            self._buffer.answered(batch, "defect", wire_bytes=0, arrived=len(batch), in_doubt=True)
            self._put_off(batch, type(error).__name__)
            self._tell(self._hooks.defect, error)
            return
        reading = read(answer, len(batch))
        is_unconfirmed = reading.verdict is Verdict.TAKEN and self._wants_acks
        self._buffer.answered(
            batch, reading.verdict, wire_bytes=wire_bytes, arrived=_arrived(batch, reading),
            in_doubt=reading.in_doubt or is_unconfirmed,
        )  # fmt: skip
        self._settle(batch, answer, reading)

    def _settle(self, batch: Batch, answer: Answer, reading: Reading) -> None:
        match reading.verdict:
            case Verdict.TAKEN:
                self._well(reading)
                self._taken(batch, reading)
            case Verdict.AGAIN | Verdict.DOUBT:
                is_missing = answer.status == 404
                self._put_off(batch, reading.cause, retry_after_s=answer.retry_after_s, is_missing=is_missing)
            case Verdict.HELD:
                self._again.appendleft(batch)
                if self._pace.refused():
                    self._tell(self._hooks.refused, reading.cause, self._pace.wait_s())
            case Verdict.CUT:
                self._well(reading)
                self._cut(batch, reading.at)
            case Verdict.SPLIT:
                self._well(reading)
                self._halve(batch, is_too_large=answer.status == 413)

    def _well(self, reading: Reading) -> None:
        away_s = self._pace.succeeded(is_near_capacity=reading.is_near_capacity)
        if away_s is not None:
            self._tell(self._hooks.recovered, away_s)

    def _put_off(
        self, batch: Batch, cause: str, *, retry_after_s: float | None = None, is_missing: bool = False
    ) -> None:
        self._again.appendleft(batch)
        self._fail(cause, retry_after_s=retry_after_s, is_missing=is_missing)

    def _fail(self, cause: str, *, retry_after_s: float | None = None, is_missing: bool = False) -> None:
        if self._pace.failed(retry_after_s, is_missing=is_missing):
            self._tell(self._hooks.refused if is_missing else self._hooks.failing, cause, self._pace.wait_s())

    def _tell(self, hook: Callable[..., None], *what: object) -> None:
        """Call a hook; what goes wrong in it is no reason to lose a batch."""
        try:
            hook(*what)
        except Exception as error:  # noqa: BLE001 -- it is not ours
            with suppress(Exception):
                self._hooks.defect(error)

    def _taken(self, batch: Batch, reading: Reading) -> None:
        if not self._wants_acks:
            self._buffer.deliver(batch)
        elif reading.ack_id is None:
            self._without_acks("HEC confirms nothing: its token does not use indexer acknowledgement", batch)
        else:
            displaced = self._acks.add(reading.ack_id, batch)
            if displaced is not None:
                # HEC began to count anew, so it has forgotten what it was to confirm.
                self._again.append(displaced)

    def _without_acks(self, cause: str, *batches: Batch) -> None:
        """Go on as if no acks had been wanted: waiting for what never comes would fill the buffer."""
        self._wants_acks = False
        self._tell(self._hooks.unconfirmed, cause)
        for batch in (*batches, *self._acks.take_all()):
            self._buffer.deliver(batch)

    def _cut(self, batch: Batch, at: int) -> None:
        """Take the refused line out: HEC has indexed those before it, and looked at none after it."""
        parts = self._buffer.split(batch, [batch.lines[:at], batch.lines[at : at + 1], batch.lines[at + 1 :]])
        if at:
            self._buffer.deliver(parts.pop(0))
        self._buffer.drop(parts.pop(0), Drop.REJECTED)
        self._again.extendleft(parts)

    def _halve(self, batch: Batch, *, is_too_large: bool) -> None:
        if len(batch) == 1:
            self._buffer.drop(batch, Drop.OVERSIZE if is_too_large else Drop.REJECTED)
            return
        if is_too_large:
            self._batch_bytes = min(self._batch_bytes, max(_LEAST_BATCH_BYTES, batch.size // 2))
        half = len(batch) // 2
        self._again.extendleft(reversed(self._buffer.split(batch, [batch.lines[:half], batch.lines[half:]])))

    # -- requests without lines ------------------------------------------------------------------------------

    def _is_healthy(self) -> bool:
        """Ask HEC before lines are risked on it; one that has no such page is asked with lines."""
        if self._pace.state is not State.FAILING:
            return True
        try:
            answer, wire_bytes = self._transport.ask_health()
        except (HecUnsent, HecUnanswered) as error:
            self._fail(str(error))
            return False
        self._buffer.asked(wire_bytes)
        if answer.status >= 500:
            self._fail(read(answer, 0).cause, retry_after_s=answer.retry_after_s)
            return False
        return True

    def _look(self) -> None:
        """Ask what is confirmed, and send again what has not been for too long."""
        try:
            answer, wire_bytes = self._transport.ask_acks(self._acks.question())
        except Exception as error:  # noqa: BLE001 -- a defect of ours, too, must leave time for lines
            # What it says of HEC, the next request with lines finds out; lines do not wait for confirmations.
            self._acks.failed()
            if not isinstance(error, HecUnsent | HecUnanswered):
                self._tell(self._hooks.defect, error)
        else:
            self._buffer.asked(wire_bytes)
            self._hear(answer)
        self._again.extend(self._acks.overdue())

    def _hear(self, answer: Answer) -> None:
        if answer.status == 200 and self._acks.confirm(answer.body, self._buffer.deliver):
            return
        times = self._acks.failed()
        reading = read(answer, 0)
        if reading.code == ACK_IS_DISABLED or (answer.status in _NOT_THERE and times >= GIVE_UP_AFTER):
            self._without_acks(f"HEC confirms nothing: {reading.cause}")


def _arrived(batch: Batch, reading: Reading) -> int:
    """Return how many lines of a batch may have arrived with an answered request."""
    if reading.verdict is Verdict.CUT:
        return reading.at
    return len(batch) if reading.verdict is Verdict.TAKEN or reading.in_doubt else 0
