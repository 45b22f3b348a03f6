"""The world that tests are made of: fakes with the shapes of the real things, and builders of values."""

from __future__ import annotations

import inspect
import threading
from collections import deque
from collections.abc import Callable, Collection
from typing import Any

from collector.errors import TransientSinkError
from collector.event import Batch, Span
from collector.outcome import Reason, Receipt
from collector.sinks.base import Limits
from collector.telemetry.catalogue import SIGNALS
from collector.telemetry.signals import Signals


class FakeClock:
    """A clock that moves only when told to; it starts at 2026-01-02T03:04:05.678901Z, and 1000 s after boot."""

    def __init__(self, now_us: int = 1_767_323_045_678_901, monotonic: float = 1000.0) -> None:
        self._now_us = now_us
        self._monotonic = monotonic

    def now_us(self) -> int:
        """Return microseconds since the epoch, UTC."""
        return self._now_us

    def monotonic(self) -> float:
        """Return seconds that never go back."""
        return self._monotonic

    def advance(self, seconds: float) -> None:
        """Let time pass on both clocks."""
        self._now_us += round(seconds * 1_000_000)
        self._monotonic += seconds


class RecordingSignals(Signals):
    """
    Every signal as (method, arguments by name) in `calls`, and nothing else: no line, no metric, no aggregation.

    A call that the real method would not take raises TypeError here too. `flush` only counts in `flushes`.
    """

    def __init__(self) -> None:  # no super(): all that the real one holds is for lines and metrics
        self.calls: list[tuple[str, dict[str, Any]]] = []
        self.flushes = 0

    def flush(self, *, hold: Collection[str] = ()) -> None:
        """Count."""
        self.flushes += 1

    def named(self, method: str) -> list[dict[str, Any]]:
        """Return the arguments of each call of one method."""
        return [arguments for name, arguments in self.calls if name == method]


def _recorder(method: str) -> Callable[..., None]:
    signature = inspect.signature(getattr(Signals, method))

    def record(self: RecordingSignals, *args: object, **kwargs: object) -> None:
        arguments = dict(signature.bind(self, *args, **kwargs).arguments)
        del arguments["self"]
        self.calls.append((method, arguments))

    return record


for _signal in SIGNALS.values():
    setattr(RecordingSignals, _signal.method, _recorder(_signal.method))


#: 2026-01-02T03:00Z, the hour in which `FakeClock` starts.
HOUR = 490_923


def batch(
    *lines: bytes,
    name: str = "w1-00000001-0000aaaa-00000000",
    segment: str = "w1-00000001",
    tenant_id: str = "dev",
    hour: int = HOUR,
) -> Batch:
    """Build a batch of one partition from lines without their newlines."""
    spans = (Span(tenant_id, hour, 0, len(lines)),) if lines else ()
    return Batch(name=name, segment=segment, spans=spans, pieces=tuple(line + b"\n" for line in lines))


class ScriptedSink:
    """
    A sink in memory that fails as it is told to; without a script it delivers all.

    Each call of a method that scripts a fault adds the fate of one write, and writes meet them in that order.
    `written` holds every batch as it came, faults or not; `lines` all that was delivered, in order, repeats
    twice; `objects` what an object store would hold, by batch name, repeats once.
    """

    blocking = False

    def __init__(self, *, limits: Limits | None = None) -> None:
        self.limits = limits or Limits(
            max_events=10_000, max_bytes=8 * 1024 * 1024, max_event_bytes=1024 * 1024, partitioned=True
        )
        self.written: list[Batch] = []
        self.lines: list[bytes] = []
        self.objects: dict[str, list[bytes]] = {}
        self.started = self.closed = 0
        self.hanging = 0
        self._script: deque[Callable[[Batch], Receipt]] = deque()
        self._changed = threading.Condition()
        self._released = 0

    def start(self) -> None:
        """Count."""
        self.started += 1

    def close(self) -> None:
        """Count."""
        self.closed += 1

    def write(self, batch: Batch) -> Receipt:
        """Meet the next fate of the script."""
        with self._changed:
            self.written.append(batch)
            fate = self._script.popleft() if self._script else self._deliver
        return fate(batch)

    def fail(self, times: int = 1) -> None:
        """Let writes raise, with nothing kept."""
        self._script.extend([self._fail] * times)

    def fail_after_keeping(self) -> None:
        """Let a write keep everything and raise nevertheless, as a lost answer does: its retry is a duplicate."""

        def fate(batch: Batch) -> Receipt:
            self._deliver(batch)
            return self._fail(batch)

        self._script.append(fate)

    def retry(self, *indexes: int) -> None:
        """Let a write deliver all but these, which it gives back."""
        self._script.append(lambda batch: self._deliver(batch, retryable=indexes))

    def reject(self, *indexes: int, reason: Reason = Reason.SINK_INVALID) -> None:
        """Let a write deliver all but these, which it refuses for good."""
        self._script.append(lambda batch: self._deliver(batch, rejected=tuple((index, reason) for index in indexes)))

    def answer(self, receipt: Receipt) -> None:
        """Let a write keep nothing and say this, whether it adds up or not."""
        self._script.append(lambda _: receipt)

    def crash(self, error: BaseException) -> None:
        """Let a write raise what no sink should."""

        def fate(_: Batch) -> Receipt:
            raise error

        self._script.append(fate)

    def hang(self) -> None:
        """Let a write hang until `release`, and then deliver."""

        def fate(batch: Batch) -> Receipt:
            with self._changed:
                self.hanging += 1
                self._changed.notify_all()
                turn = self._released + self.hanging
                self._changed.wait_for(lambda: self._released >= turn)
            return self._deliver(batch)

        self._script.append(fate)

    def wait_until_hanging(self, writes: int = 1, *, timeout_s: float = 30.0) -> None:
        """Return once so many writes hang; AssertionError when they do not."""
        with self._changed:
            assert self._changed.wait_for(lambda: self.hanging >= writes, timeout_s), f"{self.hanging} writes hang"

    def release(self) -> None:
        """Let every write that hangs go on."""
        with self._changed:
            self._released += self.hanging
            self.hanging = 0
            self._changed.notify_all()

    def _deliver(
        self, batch: Batch, *, retryable: tuple[int, ...] = (), rejected: tuple[tuple[int, Reason], ...] = ()
    ) -> Receipt:
        kept_back = {*retryable, *(index for index, _ in rejected)}
        delivered = [line for index, line in enumerate(batch.lines()) if index not in kept_back]
        with self._changed:
            self.lines += delivered
            self.objects[batch.name] = delivered
        return Receipt(delivered=len(delivered), retryable=retryable, rejected=rejected)

    @staticmethod
    def _fail(batch: Batch) -> Receipt:
        raise TransientSinkError(f"the script says that {batch.name} fails")
