"""
Batches that HEC has answered, and that its indexers have not confirmed yet.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import msgspec

from collector.clock import Clock
from collector.telemetry.hec.buffer import Batch

#: Between two looks, in seconds, and how long a confirmation may take before the lines are sent again: what Splunk's
#: page on acknowledgements advises.
POLL_S, RESEND_AFTER_S = 10.0, 300.0
#: After looks in vain the pause grows to so many seconds, so that they do not keep lines from being sent. A guess.
_MAX_POLL_S = 80.0
#: So many looks in vain, one after the other, at a page that is not there or not ours, are no moment of maintenance.
GIVE_UP_AFTER = 5
#: Confirmations asked for at once. A choice: HEC keeps a million for a channel.
_AT_ONCE = 1000


class _Told(msgspec.Struct):
    acks: dict[str, Any]


class Acks:
    """What waits for its confirmation, by HEC's number for it."""

    def __init__(self, *, clock: Clock) -> None:
        self._clock = clock
        self._waiting: dict[int, tuple[Batch, float]] = {}
        self._looked_at_s = 0.0
        self._pause_s = POLL_S
        self._failures = 0

    def __len__(self) -> int:
        return len(self._waiting)

    def add(self, ack_id: int, batch: Batch) -> Batch | None:
        """Let a batch wait; return the one that waited under the same number, if HEC gave it twice."""
        if not self._waiting:
            self._looked_at_s = self._clock.monotonic()
        old = self._waiting.pop(ack_id, None)
        self._waiting[ack_id] = (batch, self._clock.monotonic())
        return old[0] if old else None

    def wait_s(self, *, hurry_s: float | None = None) -> float | None:
        """Return how long there is no need to look, None when nothing waits; `hurry_s` bounds the pause."""
        if not self._waiting:
            return None
        pause_s = self._pause_s if hurry_s is None else min(self._pause_s, hurry_s)
        return max(0.0, self._looked_at_s + pause_s - self._clock.monotonic())

    def question(self) -> bytes:
        """Return the body of the next look, for the oldest that wait."""
        return msgspec.json.encode({"acks": list(self._waiting)[:_AT_ONCE]})

    def failed(self) -> int:
        """Take note of a look in vain, and begin a longer pause; return how many there were one after the other."""
        self._failures += 1
        # From its end on: a look may take as long as the pause, and would leave no time for lines.
        self._looked_at_s = self._clock.monotonic()
        self._pause_s = min(_MAX_POLL_S, POLL_S * 2 ** min(self._failures - 1, 8))
        return self._failures

    def confirm(self, body: bytes, deliver: Callable[[Batch], None]) -> bool:
        """Take HEC's answer, and begin the pause before the next look; return whether it was one."""
        try:
            told = msgspec.json.decode(body, type=_Told)
        except (msgspec.DecodeError, UnicodeDecodeError, RecursionError):
            return False
        self._failures = 0
        self._looked_at_s, self._pause_s = self._clock.monotonic(), POLL_S
        for number in [number for number in self._waiting if told.acks.get(str(number)) is True]:
            deliver(self._waiting.pop(number)[0])
        return True

    def overdue(self) -> list[Batch]:
        """Take out what has waited too long."""
        due_s = self._clock.monotonic() - RESEND_AFTER_S
        late = [number for number, (_, since_s) in self._waiting.items() if since_s <= due_s]
        return [self._waiting.pop(number)[0] for number in late]

    def take_all(self) -> list[Batch]:
        """Take out everything: there will be no confirmations."""
        batches = [batch for batch, _ in self._waiting.values()]
        self._waiting.clear()
        return batches
