"""
The background flusher of a worker: seal, read, batch, write, settle, unlink.

It is a tick. A batch that fails goes back to its segment with a `not_before`; no greenlet sleeps holding data. Small
batches of a segment go to a sink that blocks together, in one job.
Each route has a lane of its own, so that a sink that fails or hangs holds up its own route alone. Beside it there
may be a lane to the rescue sink, which is gone when the own sink has taken nothing for long, or a drain nears its end.
"""

from __future__ import annotations

import threading
from collections.abc import Callable, Mapping, Sequence
from functools import partial

from collector.buffer.holding import Holding
from collector.buffer.segment import Segment
from collector.buffer.spool import Spool
from collector.clock import Clock
from collector.delivery.aside import Claims, Parking
from collector.delivery.batches import Cut, cut
from collector.delivery.deliverer import Deliverer, Offload
from collector.delivery.lane import Lane, Reading, rescue_lane
from collector.delivery.retry import Backoff
from collector.errors import CollectorError
from collector.sinks.base import Sink
from collector.telemetry.signals import Signals

Spawn = Callable[[Callable[[], None]], object]

#: How often the flusher looks at the ages of segments, in seconds: an event waits at most this long more.
TICK_S = 0.1
#: The last part of a drain, in which what is left goes to the rescue sink. Half: by then a sink that came back within
#: the other half has been met by several tries, and to write a spool elsewhere takes as long as to write it at all.
RESCUE_PART = 0.5


class Flusher:
    """
    Moves what is in the spool to the sinks.

    `spawn` runs a function beside the caller (a greenlet in a worker, at once in a test), `offload` runs a blocking one
    off the hub and returns its result, `offload_quietly` does so where nobody waits for it, `breathe` lets other
    greenlets run. At most `concurrency` jobs of a lane are under way at once, each of one segment, of at most
    `concurrency` segments in memory.

    What a sink refuses for good goes to `parking`, what is too large for it to `claims`, if they are there.

    `rescues` are the rescue sink as each route has it. It gets what waits for a sink that took nothing for
    `rescue_after_s`, but for one batch now and then that tries the sink.
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
        rescues: Mapping[str, Sink] | None = None,
        rescue_after_s: float = 0.0,
        spawn: Spawn = lambda run: run(),
        offload: Offload = lambda run: run(),
        offload_quietly: Offload | None = None,
        breathe: Callable[[], None] = lambda: None,
        parking: Parking | None = None,
        claims: Claims | None = None,
    ) -> None:
        self._spool = spool
        self._lanes = {route: Lane(route, sink, limits=sink.limits, own=sink.limits) for route, sink in sinks.items()}
        self._rescues = {route: rescue_lane(route, sink, sinks[route]) for route, sink in (rescues or {}).items()}
        self._rescue_after_s = rescue_after_s
        self._backoff = backoff
        self._clock = clock
        self._signals = signals
        self._max_age_s = max_age_s
        self._concurrency = concurrency
        self._spawn = spawn
        self._breathe = breathe
        self._deliverer = Deliverer(
            backoff=backoff,
            clock=clock,
            signals=signals,
            offload=offload,
            offload_quietly=offload_quietly or offload,
            parking=parking,
            claims=claims,
        )
        self._wake = threading.Event()
        self._closed = self._ticking = self._draining = self._ending = False
        #: Segments with events that only their own sink may yet take: they wait for it, and their route is not behind.
        self._remains: set[str] = set()

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

    def drain(self, deadline_s: float, *, to_rescue: Callable[[], bool] = lambda: True) -> bool:
        """
        Seal all and tick until the spool is empty or the time is up; return whether it is empty.

        In the last part of the time nothing more goes to the sinks of routes that have a rescue sink: what waits goes
        there, if `to_rescue` says so. What is under way at a sink then is waited for, and is left in the spool if that
        hangs: it may have arrived, and would be in both.
        """
        self._draining = True
        until = self._clock.monotonic() + deadline_s
        while not self._spool.is_empty and (now := self._clock.monotonic()) < until:
            is_near = until - now <= deadline_s * RESCUE_PART
            if is_near and self._rescues and not self._ending and to_rescue():
                self._ending = True
                for lane in self._rescues.values():
                    lane.cause = "drain"
                for _, segment in self._spool.sealed():
                    segment.not_before = 0.0
            self._spool.seal_all()
            self.tick()
            self._wake.wait(TICK_S / 2)
            self._wake.clear()
        return self._spool.is_empty

    def widths(self) -> dict[str, int]:
        """Return for each route how many jobs may be under way at once, by what its sink says of the pace."""
        return {route: lane.width(self._concurrency) for route, lane in self._lanes.items()}

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
            self._serve(lane, self._rescues.get(lane.route), waiting.get(lane.route, []))

    def _seal(self, now: float) -> None:
        # A route that is behind gains nothing by one more segment: the open one goes on to grow, up to its size, and
        # the batches with it.
        behind = {segment.route for _, segment in self._spool.sealed() if segment.name not in self._remains}
        for segment in self._spool.open_segments():
            if not segment.size:
                continue
            lanes = [lanes[segment.route] for lanes in (self._lanes, self._rescues) if segment.route in lanes]
            is_due = now - segment.opened_at >= self._max_age_s and segment.route not in behind
            # Uploads that wait are written together: while one group is on its way, the next one gathers.
            if is_due or (segment.wanted and not any(lane.wanted_under_way() for lane in lanes)):
                self._spool.seal(segment.route)

    def _serve(self, lane: Lane, rescue: Lane | None, waiting: list[tuple[Holding, Segment]]) -> None:
        """Give a route's waiting segments to its sink, or to the rescue sink."""
        if rescue is None:
            self._fill(lane, waiting)
        elif self._ending:
            self._release(lane)
            self._fill(rescue, waiting)
        else:
            # However long a sink has failed, one batch goes ahead and tries it when its time has come.
            self._fill(lane, waiting)
            if self._is_given_up(lane):
                self._fill(rescue, waiting)

    def _is_given_up(self, lane: Lane) -> bool:
        """Tell whether what waits for a route's own sink is the rescue sink's."""
        is_stuck = lane.is_stuck(self._clock.monotonic(), self._rescue_after_s)
        return lane.route in self._rescues and not lane.is_rescue and (self._ending or is_stuck)

    def _release(self, lane: Lane) -> None:
        """Let go of every segment that was read for a sink which gets no more, once none of it is under way."""
        for reading in list(lane.readings):
            reading.retry_at = self._clock.monotonic()
            self._finish(lane, reading)

    def _fill(self, lane: Lane, waiting: list[tuple[Holding, Segment]]) -> None:
        # After a failure one job goes ahead and tries the sink; the others follow when it has arrived.
        while (
            lane.under_way < lane.places(self._concurrency, now := self._clock.monotonic()) and lane.not_before <= now
        ):
            reading, job = self._next_job(lane)
            if reading is None:
                if not waiting or len(lane.readings) >= self._concurrency:
                    return
                self._read(lane, *waiting.pop(0))
                continue
            lane.begin(reading, job, self._clock.monotonic())
            self._spawn(partial(self._deliver, lane, reading, job))

    def _next_job(self, lane: Lane) -> tuple[Reading | None, list[Cut]]:
        for reading in lane.open_readings():
            if job := lane.next_job(reading):
                return reading, job
            reading.is_read = True
            self._finish(lane, reading)
        return None, []

    def _read(self, lane: Lane, holding: Holding, segment: Segment) -> None:
        segment.in_flight = True
        try:
            contents = holding.read(segment, self._breathe)
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
            lane.readings.append(Reading(holding, segment, cut(segment, contents, lane.limits)))

    # -- one job -------------------------------------------------------------------------------------------

    def _deliver(self, lane: Lane, reading: Reading, job: Sequence[Cut]) -> None:
        try:
            self._deliverer.deliver(lane, reading, job, is_waited_for=partial(self._is_waited_for, reading))
        finally:
            lane.end(reading)
            self._finish(lane, reading)
            self.wake()

    def _is_waited_for(self, reading: Reading) -> bool:
        """Tell whether an upload waits for a segment to be delivered, or the next segment does, or the end."""
        return reading.segment.wanted or self._draining or any(True for _ in self._spool.sealed())

    def _finish(self, lane: Lane, reading: Reading) -> None:
        """Let a segment go when none of its batches is under way: to its end, or back to be tried again."""
        if reading.under_way or not (reading.is_read or reading.retry_at is not None) or reading not in lane.readings:
            return
        lane.readings.remove(reading)
        reading.segment.in_flight = False
        (self._remains.add if reading.has_remains else self._remains.discard)(reading.segment.name)
        if reading.retry_at is None and reading.has_remains:
            # No fault of the rescue sink's: it goes on with other segments, and leaves this one alone for a while.
            reading.segment.attempts += 1
            reading.retry_at = self._clock.monotonic() + self._backoff.delay_s(reading.segment.attempts)
        if reading.retry_at is not None:
            # What tried a sink that is given up has had its turn there.
            reading.segment.not_before = 0.0 if self._is_given_up(lane) else reading.retry_at
        self._spool.discard_if_settled(reading.holding, reading.segment)
