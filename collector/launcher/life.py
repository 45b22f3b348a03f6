"""
What the launcher decides: which generation serves, what follows its death, and how the task comes to its end.

`heard` takes signals, `tick` looks at everything once and acts; both return at once.
"""

from __future__ import annotations

import signal
from enum import Enum, auto

from collector.clock import Clock
from collector.errors import BindError
from collector.launcher.plan import Handoff
from collector.launcher.reload import Reload
from collector.launcher.runs import Run, Runs
from collector.launcher.world import AnyChild, World
from collector.receiver.notice import Notice
from collector.telemetry.catalogue import METRICS, SIGNALS, Kind
from collector.telemetry.metrics import Metrics
from collector.telemetry.signals import Signals

#: How long a busy address is tried: workers whose launcher was killed let go of it within a second.
BIND_PATIENCE_S = 5.0
#: A master that lived so long did not die of its start. Those that die sooner are replaced later and later.
LONG_LIFE_S = 10.0
FIRST_DELAY_S, MAX_DELAY_S = 0.5, 10.0
#: The task's last word reads the books of all workers.
FAREWELL_S = 10.0

#: What the launcher counts and the workers show.
_COUNTERS = (
    *(
        metric
        for name in ("generation.ready", "generation.ended", "reload.done", "master.died")
        for metric in SIGNALS[name].metrics
    ),
    *(name for name, metric in METRICS.items() if name.startswith("collector_hec_") and metric.kind is Kind.COUNTER),
)


class Phase(Enum):
    """Where the task stands."""

    BINDING = auto()
    SERVING = auto()
    LAME_DUCK = auto()
    DRAINING = auto()
    FAREWELL = auto()
    ENDED = auto()


class Launcher:
    """One task. `problem` says why it failed, if it did."""

    def __init__(self, first: Handoff, *, world: World, clock: Clock, signals: Signals, counts: Metrics) -> None:
        self._handoff = first
        self._world = world
        self._clock = clock
        self._signals = signals
        self._counts = counts
        self._runs = Runs(world=world, clock=clock, signals=signals)
        self._reload = Reload(world=world, runs=self._runs, clock=clock, signals=signals)
        self._current: Run | None = None
        self._farewell: AnyChild | None = None
        self._restart_at: float | None = None
        self._deaths = 0
        self._was_ready = False
        self._is_quick = False
        #: The end of the phase, where time ends it.
        self._until = clock.monotonic() + BIND_PATIENCE_S
        self._posted = Notice()
        self.phase = Phase.BINDING
        self.problem: str | None = None

    @property
    def exit_status(self) -> int | None:
        """Return how the process should end, None while it should not."""
        if self.phase is not Phase.ENDED:
            return None
        return 0 if self.problem is None else 1

    @property
    def is_busy(self) -> bool:
        """Tell whether anything is under way that no signal announces."""
        is_steady = self._current is not None and self._current.is_ready
        return not (is_steady and self.phase is Phase.SERVING) or self._reload.is_busy or bool(self._runs.leaving)

    # -- signals -------------------------------------------------------------------------------------------

    def heard(self, number: int) -> None:
        """Take a signal."""
        serves = self.phase in {Phase.BINDING, Phase.SERVING}
        if number == signal.SIGHUP and serves:
            self._reload.ask()
        elif number == signal.SIGTERM and serves:
            self._leave(self._handoff.plan.lame_duck_s)
        elif number == signal.SIGTERM and self.phase is Phase.LAME_DUCK:
            self._drain()
        elif number in {signal.SIGINT, signal.SIGQUIT}:
            self._is_quick = True
            if serves:
                self._leave(0.0)
            elif self.phase in {Phase.LAME_DUCK, Phase.DRAINING}:
                self._drain()

    def _leave(self, lame_duck_s: float) -> None:
        """Be unready and begin nothing new; what serves goes on for so long."""
        self.phase = Phase.LAME_DUCK
        self._until = self._clock.monotonic() + lame_duck_s
        self._reload.abandon(quick=self._is_quick)
        self._post()
        if lame_duck_s <= 0 or self._current is None:
            self._drain()

    def _drain(self) -> None:
        """Let every generation end."""
        self.phase = Phase.DRAINING
        self._restart_at = None
        # Ours first: once the last worker has closed its own, nobody may be left in a queue that nobody empties.
        self._world.keep_listeners(())
        if self._current is not None:
            self._runs.let_go(self._current, quick=self._is_quick)
            self._current = None
        if self._is_quick:
            for run in list(self._runs.leaving):
                self._runs.let_go(run, quick=True)

    # -- the tick ------------------------------------------------------------------------------------------

    def tick(self) -> None:
        """Look at everything once."""
        if self.phase is Phase.BINDING:
            self._bind()
        if self.phase is Phase.SERVING:
            self._look_after_reload()
        if self.phase in {Phase.SERVING, Phase.LAME_DUCK}:
            self._look_after_current()
        self._runs.look_after_leaving()
        if self.phase is Phase.LAME_DUCK and self._clock.monotonic() >= self._until:
            self._drain()
        if self.phase is Phase.DRAINING and not self._runs.leaving:
            self._begin_farewell()
        elif self.phase is Phase.FAREWELL:
            self._look_after_farewell()
        self._post()

    def _bind(self) -> None:
        plan, now = self._handoff.plan, self._clock.monotonic()
        try:
            self._world.listen(plan.binds, plan.backlog)
        except BindError as error:
            if not error.is_busy or now >= self._until:
                self.problem, self.phase = str(error), Phase.ENDED
            return
        self.phase = Phase.SERVING
        self._restart_at = now

    def _look_after_reload(self) -> None:
        successor = self._reload.tick(self._handoff)
        if successor is None:
            return
        old, self._current = self._current, successor
        self._handoff = successor.generation.handoff
        self._restart_at, self._deaths, self._was_ready = None, 0, True
        self._world.keep_listeners(self._handoff.plan.binds)
        if old is not None:
            self._runs.let_go(old, quick=False)

    def _look_after_current(self) -> None:
        now, run = self._clock.monotonic(), self._current
        if run is not None:
            self._runs.look_at(run)
            self._was_ready = self._was_ready or run.is_ready
            if run.generation.status is not None:
                self._current = None
                self._replace(run, run.generation.status)
        if self._restart_at is not None and now >= self._restart_at:
            self._restart_at = None
            try:
                self._current = self._runs.start(self._handoff)
            except OSError as error:
                self._signals.internal_error("launcher.start", error)
                self._deaths += 1
                self._restart_at = now + self._delay_s()

    def _replace(self, run: Run, status: int) -> None:
        """Follow the death of the master that served; its workers notice it by themselves, and drain."""
        now, generation = self._clock.monotonic(), run.generation
        self._runs.see_off(run)
        if self.phase is Phase.LAME_DUCK:
            self._drain()
        elif not self._was_ready:
            # A start that fails is for an operator, or whoever started the task, to see.
            self.problem = f"gunicorn ended with {status} before its workers were ready"
            self._drain()
        else:
            self._deaths = 1 if now - run.began >= LONG_LIFE_S else self._deaths + 1
            self._restart_at = now + self._delay_s()
            self._signals.master_died(generation.number, generation.pid, status, self._delay_s())

    def _delay_s(self) -> float:
        return min(FIRST_DELAY_S * 2 ** (self._deaths - 2), MAX_DELAY_S) if self._deaths > 1 else 0.0

    # -- the end -------------------------------------------------------------------------------------------

    def _begin_farewell(self) -> None:
        if self.problem is not None:
            self.phase = Phase.ENDED
            return
        self.phase = Phase.FAREWELL
        self._until = self._clock.monotonic() + FAREWELL_S
        try:
            self._farewell = self._world.start_farewell(self._handoff)
        except OSError as error:
            self._signals.internal_error("launcher.farewell", error)

    def _look_after_farewell(self) -> None:
        farewell = self._farewell
        if farewell is not None and farewell.status is None:
            if self._clock.monotonic() < self._until:
                return
            farewell.signal(signal.SIGKILL)
        self.phase = Phase.ENDED
        if farewell is None or farewell.status != 0:
            # The code on the disk may be broken; ours was whole when it was loaded.
            self._world.say_farewell(self._handoff)

    def _post(self) -> None:
        counters = self._counts.snapshot().counters
        notice = Notice(
            leaving=self.phase not in {Phase.BINDING, Phase.SERVING},
            reload=self._reload.rejection,
            counters={name: counters[name] for name in _COUNTERS if counters.get(name)},
        )
        if notice != self._posted:
            self._posted = notice
            self._world.post(notice)
