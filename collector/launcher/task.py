"""
The whole launcher: `run` returns when the task is over.
"""

from __future__ import annotations

import os
import selectors
import signal
from collections.abc import Mapping
from pathlib import Path

from collector.clock import SystemClock, pause
from collector.launcher.children import Children
from collector.launcher.life import Launcher
from collector.launcher.machine import Machine
from collector.launcher.plan import read_handoff, write_handoff
from collector.settings import Settings
from collector.telemetry.logbook import Logbook
from collector.telemetry.metrics import Metrics
from collector.telemetry.stdout import unblock

#: Signals wake the loop. So often it looks by itself, while something is under way and otherwise.
_BUSY_S, _IDLE_S = 0.05, 1.0
_FLUSH_EVERY_S = 1.0
_ALARMS_BYTES = 1024
_STDOUT, _STDERR = 1, 2
_HEARD = (signal.SIGHUP, signal.SIGTERM, signal.SIGINT, signal.SIGQUIT, signal.SIGCHLD)
#: gunicorn's, and without effect here; by default they would end or stop the process.
_UNHEARD = (signal.SIGUSR1, signal.SIGUSR2, signal.SIGTTIN, signal.SIGTTOU)


def run(settings: Settings, *, configuration: Path, environ: Mapping[str, str]) -> tuple[int, str | None]:
    """
    Serve until told to stop; return the exit status, and why it failed if it did.

    `configuration` is gunicorn's, `environ` what everything is started with. It takes the process's signals.
    """
    alarms = _alarms()
    # Whatever is started from here on has a standard output that it never waits for.
    unblock(_STDOUT)
    unblock(_STDERR)
    clock, counts = SystemClock(), Metrics()
    log = Logbook(settings, clock=clock, counts=counts, rest=pause)
    children = Children()
    children.adopt_orphans()
    world = Machine(children, configuration=configuration, environ=environ)
    launcher = Launcher(
        read_handoff(write_handoff(settings)), world=world, clock=clock, signals=log.signals, counts=counts
    )
    flush_at, heard = 0.0, b""
    with selectors.DefaultSelector() as selector:
        selector.register(alarms, selectors.EVENT_READ)
        while launcher.exit_status is None:
            try:
                for number in heard:
                    launcher.heard(number)
                children.reap()
                launcher.tick()
            except Exception as error:  # noqa: BLE001 - the first process of a task must not end by a defect
                log.signals.internal_error("launcher.tick", error)
            # What loads slowly is loaded while gunicorn starts, and not before it does.
            log.start()
            if clock.monotonic() >= flush_at:
                flush_at = clock.monotonic() + _FLUSH_EVERY_S
                log.tick()
            ready = launcher.exit_status is None and selector.select(_BUSY_S if launcher.is_busy else _IDLE_S)
            heard = os.read(alarms, _ALARMS_BYTES) if ready else b""
    log.close()
    return launcher.exit_status, launcher.problem


def _alarms() -> int:
    """Return an open file in which each signal is a byte."""
    alarms, sink = os.pipe()
    os.set_blocking(alarms, False)
    os.set_blocking(sink, False)
    signal.set_wakeup_fd(sink, warn_on_full_buffer=False)
    for number in (*_HEARD, *_UNHEARD):
        # A handler and not SIG_IGN, which our children would inherit.
        signal.signal(number, _note)
    return alarms


def _note(_number: int, _frame: object) -> None:
    """Do nothing: Python has written the signal's number already."""
