"""
One run of the stress test: a sender, lines at a rate, an outage in the middle, and what became of all of them.
"""

from __future__ import annotations

import math
from collections.abc import Callable

from collector.clock import Clock
from collector.control.hec.cells import Cell, Run, Sender, Target, fates
from collector.control.hec.lines import Lines
from collector.control.hec.relay import Counted
from collector.errors import TuneError
from collector.telemetry.hec.options import Account

#: Between two looks, in seconds: what a first drop is known to. A choice, a hundredth of the shortest outage.
TICK_S = 0.005
#: Lines flow so long before an outage begins, in seconds, and until one has arrived. A choice.
_LEAD_S = 0.2
PATIENCE_S = 30.0
#: Lines of so many looks are made between two, at the most. A choice.
_MOST_TICKS = 4
#: A sender has so long to end, in seconds: longer than a request in a black hole takes, or its last lines would arrive
#: in the next run. The sender waits 3 s for a connection and 10 for an answer.
END_S = 20.0


class Bench:
    """
    Makes runs, one after the other.

    `sender` makes one for a cell; `wait` passes time, in seconds; `cpu_s` is the CPU that this process has used.
    """

    def __init__(
        self,
        target: Target,
        sender: Callable[[Cell], Sender],
        lines: Lines,
        *,
        clock: Clock,
        wait: Callable[[float], object],
        cpu_s: Callable[[], float],
    ) -> None:
        self.target = target
        self.lines = lines
        self.make_sender = sender
        self.clock = clock
        self.wait = wait
        self.cpu_s = cpu_s

    def run(self, cell: Cell, *, until_drop: bool = False, looks: Callable[[], None] | None = None) -> Run:
        """
        Make a run: flow, outage, recovery, and the accounts. Raises `TuneError`.

        `until_drop`: the outage lasts until the first line is dropped, `outage_s` at the most. `looks` is called now
        and then, to show that it goes on.
        """
        self.target.begin()
        sender = self.make_sender(cell)
        load = _Load(sender, self.lines, cell.lines_per_s, clock=self.clock, wait=self.wait, looks=looks)
        sender.start()
        started_cpu_s, started_s = self.cpu_s(), self.clock.monotonic()
        try:
            load.flow_for(_LEAD_S)
            if not load.flow_until(lambda seen: seen.delivered > 0, PATIENCE_S):
                raise TuneError(f"no line has arrived at HEC within {PATIENCE_S:.0f} s: {fates(sender.account())}")
            self.target.fail()
            before, out_s = sender.account(), self.clock.monotonic()
            load.watch_drops(before)
            # A line of a request that was under way may arrive yet.
            load.flow_until(lambda _: until_drop and load.dropped_at_s is not None, cell.outage_s)
            last = sender.account()
            self.target.recover()
            came_back = until_drop or load.flow_until(
                lambda seen: seen.delivered > last.delivered, _silence_bound_s(cell.outage_s)
            )
            back, back_s = sender.account(), self.clock.monotonic()
            if not came_back:
                raise TuneError(f"no line has arrived at HEC after the outage: {fates(back)}")
            per_s = (back.emitted / (back_s - started_s)) if back_s > started_s else 0.0
            busy = (self.cpu_s() - started_cpu_s) / (back_s - started_s) if back_s > started_s else 0.0
            level = before.held_bytes + cell.batch_bytes
            drained = not until_drop and load.flow_until(
                lambda seen: seen.held_bytes <= level, max(1.0, 2 * cell.outage_s)
            )
            drained_s = self.clock.monotonic() - back_s if drained else None
        finally:
            self.target.recover()
            sender.shutdown(END_S)
        return self._told(
            cell, sender.account(), self.target.counted(), before=before, back=back, silent_s=back_s - out_s,
            first_drop_s=None if load.dropped_at_s is None else load.dropped_at_s - out_s, drained_s=drained_s,
            per_s=per_s, busy=busy,
        )  # fmt: skip

    def _told(
        self, cell: Cell, end: Account, counted: Counted, *, before: Account, back: Account, silent_s: float,
        first_drop_s: float | None, drained_s: float | None, per_s: float, busy: float,
    ) -> Run:  # fmt: skip
        if not end.is_exact or end.queued or end.in_flight:
            raise TuneError(f"the sender's accounts do not add up: {fates(end)}. That is a defect of Collector")
        if counted.lines is not None and counted.repeated is not None:
            there = counted.lines - counted.repeated
            # A line that was sent in vain may be there; one that found no room was never sent.
            sent_in_vain = end.lost - end.dropped.get("full", 0)
            if not end.delivered <= there <= end.delivered + end.possible_duplicates + sent_in_vain:
                raise TuneError(
                    f"the sender says that {end.delivered:,} lines were delivered, and {there:,} different ones are"
                    " there. That is a defect of Collector"
                )
        return Run(
            cell=cell,
            emitted=end.emitted,
            delivered=end.delivered,
            lost=end.dropped.get("full", 0),
            lost_otherwise={reason: count for reason, count in end.dropped.items() if reason != "full" and count},
            possible_duplicates=end.possible_duplicates,
            arrived=counted.lines,
            repeated=counted.repeated,
            line_bytes=end.bytes_in / end.emitted,
            high_water_bytes=end.high_water_bytes,
            held_bytes=before.held_bytes,
            silent_s=silent_s,
            silent_lines=back.emitted - before.emitted,
            backlog_bytes=back.held_bytes,
            first_drop_s=first_drop_s,
            drained_s=drained_s,
            per_s=per_s,
            busy=busy,
        )


class _Load:
    """Lines at a rate, with a look at the accounts at each tick."""

    def __init__(
        self, sender: Sender, lines: Lines, per_s: float, *, clock: Clock, wait: Callable[[float], object],
        looks: Callable[[], None] | None,
    ) -> None:  # fmt: skip
        self._sender = sender
        self._lines = lines
        self._per_s = per_s
        self._clock = clock
        self._wait = wait
        self._looks = looks
        self._started_s = clock.monotonic()
        self._made = 0
        self._lost_before: int | None = None
        self.dropped_at_s: float | None = None

    def watch_drops(self, before: Account) -> None:
        """Note the time of the first line that is dropped from now on."""
        self._lost_before = before.lost

    def flow_for(self, seconds: float) -> None:
        """Let lines flow for so long."""
        self.flow_until(lambda _: False, seconds)

    def flow_until(self, done: Callable[[Account], bool], at_most_s: float) -> bool:
        """Let lines flow until `done` says so of the accounts; False when that took too long."""
        until_s = self._clock.monotonic() + at_most_s
        while True:
            now_s = self._clock.monotonic()
            # What was missed is caught up in small parts: making it takes time, too, in which more is missed.
            due = math.floor((now_s - self._started_s) * self._per_s) - self._made
            self._emit(min(due, math.ceil(_MOST_TICKS * TICK_S * self._per_s)))
            seen = self._sender.account()
            if self.dropped_at_s is None and self._lost_before is not None and seen.lost > self._lost_before:
                self.dropped_at_s = now_s
            if self._looks is not None:
                self._looks()
            if done(seen):
                return True
            if now_s >= until_s:
                return False
            self._wait(min(TICK_S, until_s - now_s))

    def _emit(self, count: int) -> None:
        put, line = self._sender.put, self._lines.next
        for _ in range(count):
            put(*line())
        self._made += max(0, count)


def _silence_bound_s(outage_s: float) -> float:
    """Return how long a sender may take to find out that HEC is back: its longest pause, and as long again."""
    return outage_s + 2 * PATIENCE_S
