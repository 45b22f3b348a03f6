"""
The background flusher of a worker: seal, read, batch, write, settle, unlink.

It is a tick. A batch that fails goes back to its segment with a `not_before`; no greenlet sleeps holding data.
Each route has a lane of its own, so that a sink that fails or hangs holds up its own route alone.
"""

from __future__ import annotations

import threading
from collections.abc import Callable, Iterator, Mapping
from typing import TypeVar

from collector.buffer.holding import Holding
from collector.buffer.segment import Segment
from collector.buffer.spool import Spool
from collector.clock import Clock
from collector.delivery.batches import Cut, cut
from collector.delivery.retry import Backoff
from collector.errors import CollectorError, TransientSinkError
from collector.outcome import Reason, Receipt
from collector.sinks.base import Sink
from collector.telemetry.signals import Signals

T = TypeVar("T")
Spawn = Callable[[Callable[[], None]], object]
Offload = Callable[[Callable[[], T]], T]

#: How often the flusher looks at the ages of segments, in seconds: an event waits at most this long more.
TICK_S = 0.1


class _Reading:
    """A segment in flight: its batches still to come, those under way, and whether one failed."""

    def __init__(self, holding: Holding, segment: Segment, cuts: Iterator[Cut]) -> None:
        self.holding = holding
        self.segment = segment
        self.cuts = cuts
        self.under_way = 0
        self.retry_at: float | None = None
        self.is_read = False


class _Lane:
    """One route: its sink, and what is under way to it."""

    def __init__(self, route: str, sink: Sink) -> None:
        self.route = route
        self.sink = sink
        self.readings: list[_Reading] = []
        self.under_way = 0
        self.failures = 0
        self.not_before = 0.0

    def wanted_under_way(self) -> bool:
        return any(reading.segment.wanted for reading in self.readings)


class Flusher:
    """
    Moves what is in the spool to the sinks.

    `spawn` runs a function beside the caller (a greenlet in a worker, at once in a test), `offload` runs a
    blocking one off the hub and returns its result, `breathe` lets other greenlets run. At most `concurrency`
    batches of a route are under way at once, of at most `concurrency` segments in memory.
    """

    def __init__(
        self,
        spool: Spool,
        sinks: Mapping[str, Sink],
        *,
        backoff: Backoff,
        clock: Clock,
        signals: Signals,
        max_age_s: float,
        concurrency: int,
        spawn: Spawn = lambda run: run(),
        offload: Offload[Receipt] = lambda run: run(),
        breathe: Callable[[], None] = lambda: None,
    ) -> None:
        self._spool = spool
        self._lanes = {route: _Lane(route, sink) for route, sink in sinks.items()}
        self._backoff = backoff
        self._clock = clock
        self._signals = signals
        self._max_age_s = max_age_s
        self._concurrency = concurrency
        self._spawn = spawn
        self._offload = offload
        self._breathe = breathe
        self._wake = threading.Event()
        self._closed = False
        self._ticking = False

    # -- the loop ------------------------------------------------------------------------------------------

    def run(self) -> None:
        """Tick until closed."""
        while not self._closed:
            self._wake.wait(TICK_S)
            self._wake.clear()
            try:
                self.tick()
            except Exception as error:  # noqa: BLE001 - the loop outlives whatever a tick meets; nothing is settled by it
                self._signals.internal_error("flusher.tick", error)

    def wake(self) -> None:
        """Tick soon: an upload waits for its sink, or a batch came back."""
        self._wake.set()

    def close(self) -> None:
        """End the loop; what is under way goes on to its end. Safe to call twice."""
        self._closed = True
        self._wake.set()

    def drain(self, deadline_s: float) -> bool:
        """Seal all and tick until the spool is empty or the time is up; return whether it is empty."""
        until = self._clock.monotonic() + deadline_s
        while not self._spool.is_empty and self._clock.monotonic() < until:
            self._spool.seal_all()
            self.tick()
            self._wake.wait(TICK_S / 2)
            self._wake.clear()
        return self._spool.is_empty

    # -- one tick ------------------------------------------------------------------------------------------

    def tick(self) -> None:
        """Seal what is due, and start as many batches as the lanes have places for."""
        if self._ticking:
            # A tick breathes in the middle; a second one, of a drain, would read the same segments again.
            return
        self._ticking = True
        try:
            self._tick()
        finally:
            self._ticking = False

    def _tick(self) -> None:
        now = self._clock.monotonic()
        self._seal(now)
        waiting: dict[str, list[tuple[Holding, Segment]]] = {}
        for holding, segment in self._spool.sealed():
            if segment.not_before <= now:
                # A route that the settings no longer name leaves by the default one.
                route = segment.route if segment.route in self._lanes else "default"
                waiting.setdefault(route, []).append((holding, segment))
        for lane in self._lanes.values():
            if lane.not_before <= now:
                self._fill(lane, waiting.get(lane.route, []))

    def _seal(self, now: float) -> None:
        # A route that is behind gains nothing by one more segment: the open one goes on to grow, up to its size, and
        # the batches with it.
        behind = {segment.route for _, segment in self._spool.sealed()}
        for segment in self._spool.open_segments():
            if not segment.size:
                continue
            lane = self._lanes.get(segment.route)
            is_due = now - segment.opened_at >= self._max_age_s and segment.route not in behind
            # Uploads that wait are written together: while one group is on its way, the next one gathers.
            if is_due or (segment.wanted and (lane is None or not lane.wanted_under_way())):
                self._spool.seal(segment.route)

    def _fill(self, lane: _Lane, waiting: list[tuple[Holding, Segment]]) -> None:
        # After a failure one batch goes ahead and tries the sink; the others follow when it has arrived.
        places = 1 if lane.failures else self._concurrency
        while lane.under_way < places and lane.not_before <= self._clock.monotonic():
            reading, one = self._next_cut(lane)
            if one is None or reading is None:
                if not waiting or len(lane.readings) >= self._concurrency:
                    return
                self._read(lane, *waiting.pop(0))
                continue
            reading.under_way += 1
            lane.under_way += 1
            self._spawn(self._delivery(lane, reading, one))

    def _next_cut(self, lane: _Lane) -> tuple[_Reading | None, Cut | None]:
        for reading in list(lane.readings):
            if reading.is_read or reading.retry_at is not None:
                continue
            one = next(reading.cuts, None)
            if one is not None:
                return reading, one
            reading.is_read = True
            self._finish(lane, reading)
        return None, None

    def _read(self, lane: _Lane, holding: Holding, segment: Segment) -> None:
        segment.in_flight = True
        try:
            contents = segment.load(self._breathe)
            if contents.tail is not None:
                contents.corrupt.append(contents.tail.offset)
            holding.lose_missing(segment, contents)
        except FileNotFoundError:
            holding.lose_all(segment)
            segment.in_flight = False
            self._spool.discard_if_settled(holding, segment)
        except (OSError, CollectorError) as error:
            self._signals.internal_error("flusher.read", error)
            segment.in_flight = False
            segment.attempts += 1
            segment.not_before = self._clock.monotonic() + self._backoff.delay_s(segment.attempts)
        else:
            lane.readings.append(_Reading(holding, segment, cut(segment, contents, lane.sink.limits)))

    # -- one batch -----------------------------------------------------------------------------------------

    def _delivery(self, lane: _Lane, reading: _Reading, one: Cut) -> Callable[[], None]:
        return lambda: self._deliver(lane, reading, one)

    def _deliver(self, lane: _Lane, reading: _Reading, one: Cut) -> None:
        batch, started = one.batch, self._clock.monotonic()
        try:
            if not one.fits:
                receipt = Receipt(0, rejected=tuple((n, Reason.SINK_TOO_LARGE) for n in range(len(batch))))
            elif lane.sink.blocking:
                receipt = self._offload(lambda: lane.sink.write(batch))
            else:
                receipt = lane.sink.write(batch)
            reading.holding.settle(reading.segment, batch, receipt)
        except TransientSinkError as error:
            self._fail(lane, reading, str(error))
        except Exception as error:  # noqa: BLE001 - a defect of a sink or of ours: the events stay where they are
            self._signals.internal_error(f"flusher.deliver {lane.route}", error)
            self._fail(lane, reading, type(error).__name__)
        else:
            self._signals.batch_delivered(
                lane.route, receipt.delivered, len(batch.payload), self._clock.monotonic() - started
            )
            if receipt.retryable:
                self._fail(lane, reading, f"{len(receipt.retryable)} of {len(batch)} events were not taken")
            else:
                lane.failures = 0
        finally:
            reading.under_way -= 1
            lane.under_way -= 1
            self._finish(lane, reading)
            self.wake()

    def _fail(self, lane: _Lane, reading: _Reading, error: str) -> None:
        now = self._clock.monotonic()
        if reading.retry_at is None:
            lane.failures += 1
            reading.segment.attempts += 1
            failures = max(lane.failures, reading.segment.attempts)
            delay_s = self._backoff.delay_s(failures)
            reading.retry_at = lane.not_before = now + delay_s
            self._signals.batch_failed(lane.route, error, failures, delay_s)

    def _finish(self, lane: _Lane, reading: _Reading) -> None:
        """Let a segment go when none of its batches is under way: to its end, or back to be tried again."""
        if reading.under_way or not (reading.is_read or reading.retry_at is not None) or reading not in lane.readings:
            return
        lane.readings.remove(reading)
        reading.segment.in_flight = False
        if reading.retry_at is not None:
            reading.segment.not_before = reading.retry_at
        self._spool.discard_if_settled(reading.holding, reading.segment)
