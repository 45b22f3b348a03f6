"""
Batches that HEC has answered, and that its indexers have not confirmed yet.
"""

from __future__ import annotations

from collections.abc import Callable

import msgspec

from collector.clock import Clock
from collector.telemetry.hec.buffer import Batch

#: Between two looks, in seconds, and how long a confirmation may take before the lines are sent again: what Splunk's
#: page on acknowledgements advises.
POLL_S, RESEND_AFTER_S = 10.0, 300.0
#: Confirmations asked for at once. A choice: HEC keeps a million for a channel.
_AT_ONCE = 1000


class _Told(msgspec.Struct):
    acks: dict[str, bool] = msgspec.field(default_factory=dict)


class Acks:
    """What waits for its confirmation, by HEC's number for it."""

    def __init__(self, *, clock: Clock) -> None:
        self._clock = clock
        self._waiting: dict[int, tuple[Batch, float]] = {}
        self._look_at_s = 0.0

    def __len__(self) -> int:
        return len(self._waiting)

    def add(self, ack_id: int, batch: Batch) -> Batch | None:
        """Let a batch wait; return the one that waited under the same number, if HEC gave it twice."""
        if not self._waiting:
            self._look_at_s = self._clock.monotonic() + POLL_S
        old = self._waiting.pop(ack_id, None)
        self._waiting[ack_id] = (batch, self._clock.monotonic())
        return old[0] if old else None

    def wait_s(self, *, hurry_s: float | None = None) -> float | None:
        """Return how long there is no need to look, None when nothing waits; `hurry_s` is the most it may be."""
        if not self._waiting:
            return None
        wait_s = max(0.0, self._look_at_s - self._clock.monotonic())
        return wait_s if hurry_s is None else min(wait_s, hurry_s)

    def question(self) -> bytes:
        """Return the body of the next look, for the oldest that wait; the time of the one after it begins."""
        self._look_at_s = self._clock.monotonic() + POLL_S
        return msgspec.json.encode({"acks": list(self._waiting)[:_AT_ONCE]})

    def confirm(self, body: bytes, deliver: Callable[[Batch], None]) -> bool:
        """Take HEC's answer; return whether it was one."""
        try:
            told = msgspec.json.decode(body, type=_Told)
        except (msgspec.DecodeError, RecursionError):
            return False
        for number, is_confirmed in told.acks.items():
            if is_confirmed and number.isascii() and number.isdigit() and int(number) in self._waiting:
                deliver(self._waiting.pop(int(number))[0])
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
