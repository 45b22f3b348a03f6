"""
Generations with their times: how they begin, when they are ready, and how they are seen off.
"""

from __future__ import annotations

import signal

from collector.clock import Clock
from collector.launcher.plan import Handoff
from collector.launcher.world import AnyGeneration, World
from collector.telemetry.signals import Signals

#: What a generation may take beyond its drain: polls of a worker and of gunicorn, and the ends of their interpreters.
MARGIN_S = 5.0
#: What is left of the drain when nobody is to be waited for; a worker has the same.
QUICK_S = 2.0


class Run:
    """A generation with its times, in seconds of the clock; `kill_at` is infinite until it is to go."""

    def __init__(self, generation: AnyGeneration, now: float) -> None:
        self.generation = generation
        self.began = now
        self.is_ready = False
        self.left = now
        self.kill_at = float("inf")
        self.is_hurried = self.killed = False


class Runs:
    """All generations of a task; `leaving` are those that are to end."""

    def __init__(self, *, world: World, clock: Clock, signals: Signals) -> None:
        self._world = world
        self._clock = clock
        self._signals = signals
        self._count = 0
        self.leaving: list[Run] = []

    def start(self, handoff: Handoff) -> Run:
        """Begin one; raises OSError."""
        self._count += 1
        return Run(self._world.start_generation(self._count, handoff), self._clock.monotonic())

    def look_at(self, run: Run) -> None:
        """Take in what became of one that is to serve; say when it is ready."""
        generation = run.generation
        generation.look()
        if generation.is_ready and not run.is_ready:
            run.is_ready = True
            self._signals.generation_ready(
                generation.number,
                generation.pid,
                generation.handoff.plan.workers,
                self._clock.monotonic() - run.began,
            )

    def let_go(self, run: Run, *, quick: bool) -> None:
        """Let one end: drain, or do so in no time."""
        self.see_off(run, quick=quick)
        if quick and not run.is_hurried:
            run.is_hurried = True
            run.generation.hurry()
        elif not quick:
            run.generation.terminate()

    def see_off(self, run: Run, *, quick: bool = False) -> None:
        """Watch the end of one that knows of it."""
        now = self._clock.monotonic()
        if run not in self.leaving:
            self.leaving.append(run)
            run.left = now
        patience_s = QUICK_S if quick else run.generation.handoff.plan.drain_s
        run.kill_at = min(run.kill_at, now + patience_s + MARGIN_S)

    def look_after_leaving(self) -> None:
        """Say which have ended, and end those that take too long."""
        now = self._clock.monotonic()
        for run in list(self.leaving):
            generation = run.generation
            generation.look()
            if now >= run.kill_at and not run.killed:
                run.killed = True
                generation.kill()
            # What can't be killed hangs in the kernel: nothing is gained by waiting for it.
            if generation.is_over or now >= run.kill_at + MARGIN_S:
                self.leaving.remove(run)
                status = -signal.SIGKILL if generation.status is None else generation.status
                self._signals.generation_ended(generation.number, generation.pid, status, run.killed, now - run.left)
