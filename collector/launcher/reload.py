"""
A reload: preflight, candidate, and the verdict; whatever goes wrong, the generation that runs goes on.
"""

from __future__ import annotations

from collector.clock import Clock
from collector.errors import BindError
from collector.launcher.plan import Handoff
from collector.launcher.runs import Run, Runs
from collector.launcher.world import AnyPreflight, World
from collector.receiver.notice import Rejection
from collector.telemetry.logs import rfc3339
from collector.telemetry.signals import Signals

#: A preflight takes half a second (measured); a machine may be a hundred times slower.
PREFLIGHT_S = 60.0
#: Two of gunicorn's own worker timeouts: a worker that hangs at its start is killed once and started once more.
READY_S = 60.0
#: Reloads wait while so many generations drain: each is as much memory as the one that serves.
MAX_LEAVING = 2


class Reload:
    """Reloads one after the other; `rejection` is there when the last one was rejected."""

    def __init__(self, *, world: World, runs: Runs, clock: Clock, signals: Signals) -> None:
        self._world = world
        self._runs = runs
        self._clock = clock
        self._signals = signals
        self._wanted_at: float | None = None
        self._began = 0.0
        self._preflight: AnyPreflight | None = None
        self._candidate: Run | None = None
        self.rejection: Rejection | None = None

    @property
    def is_busy(self) -> bool:
        """Tell whether one is under way, or waits to be."""
        return bool(self._preflight or self._candidate) or self._wanted_at is not None

    def ask(self) -> None:
        """Want one; all that are asked for before it begins are one."""
        if self._wanted_at is None:
            self._wanted_at = self._clock.monotonic()

    def abandon(self, *, quick: bool) -> None:
        """Forget it: the task ends."""
        self._wanted_at = None
        if self._preflight is not None:
            self._preflight.abandon()
            self._preflight = None
        if self._candidate is not None:
            self._runs.let_go(self._candidate, quick=quick)
            self._candidate = None

    def tick(self, running: Handoff) -> Run | None:
        """Go on with it; return the run that is to serve from now on, once there is one in the place of `running`."""
        if self._candidate is not None:
            return self._look_after(self._candidate, running)
        if self._preflight is not None:
            self._look_at_preflight(self._preflight, running)
        elif self._wanted_at is not None and len(self._runs.leaving) < MAX_LEAVING:
            self._began, self._wanted_at = self._wanted_at, None
            try:
                self._preflight = self._world.start_preflight()
            except OSError as error:
                self._reject("preflight", f"it could not be started: {error.strerror}")
        return None

    def _look_at_preflight(self, preflight: AnyPreflight, running: Handoff) -> None:
        if preflight.is_over:
            self._preflight = None
            verdict = preflight.verdict()
            if isinstance(verdict, Handoff):
                self._try(verdict, running)
            else:
                self._reject("preflight", verdict)
        elif self._clock.monotonic() >= self._began + PREFLIGHT_S:
            self._preflight = None
            preflight.abandon()
            self._reject("preflight", f"it did not end in {PREFLIGHT_S:g} s")

    def _try(self, handoff: Handoff, running: Handoff) -> None:
        try:
            self._world.listen(handoff.plan.binds, handoff.plan.backlog)
            self._candidate = self._runs.start(handoff)
        except BindError as error:
            self._reject("bind", str(error))
        except OSError as error:
            self._world.keep_listeners(running.plan.binds)
            self._reject("generation", f"it could not be started: {error.strerror}")

    def _look_after(self, run: Run, running: Handoff) -> Run | None:
        self._runs.look_at(run)
        if run.generation.status is not None:
            problem = f"it ended with {run.generation.status} before it was ready; its own lines say why"
        elif run.is_ready:
            self._candidate = self.rejection = None
            self._signals.reload_done(run.generation.number, self._clock.monotonic() - self._began)
            return run
        elif self._clock.monotonic() >= run.began + READY_S:
            problem = f"it was not ready in {READY_S:g} s"
        else:
            return None
        self._candidate = None
        self._world.keep_listeners(running.plan.binds)
        # Some of its workers may have accepted connections: they are seen off.
        self._runs.let_go(run, quick=False)
        self._reject("generation", problem)
        return None

    def _reject(self, stage: str, problem: str) -> None:
        self.rejection = Rejection(problem, rfc3339(self._clock.now_us()))
        self._signals.reload_rejected(stage, problem)
