"""
A generation: one master of gunicorn with its workers, all of the same code and settings.
"""

from __future__ import annotations

import os
import signal
import sys
from collections.abc import Mapping, Sequence
from contextlib import ExitStack, suppress
from pathlib import Path

import msgspec

from collector.launcher.children import Children
from collector.launcher.plan import Handoff
from collector.receiver.notice import LAUNCHED, Inherited

APP = "collector.bootstrap:create_app()"
_LINES_BYTES = 4096


class Generation:
    """
    One that was started.

    Its master leads a process group that holds the workers too, and all of them hold the writing end of a pipe: the
    pipe's end is the end of the last of them, master or orphan. As long as one lives, no other group can have the
    number of this one.
    """

    def __init__(
        self,
        number: int,
        handoff: Handoff,
        *,
        children: Children,
        configuration: Path,
        environ: Mapping[str, str],
        listeners: Sequence[int],
        notice: int,
    ) -> None:
        """Start gunicorn on these open listeners; `notice` is the board's. Raises OSError."""
        self.number = number
        self.handoff = handoff
        self._ready: set[bytes] = set()
        self._rest = b""
        self._is_open = True
        with ExitStack() as ours, ExitStack() as failing:
            settings = os.memfd_create("collector-settings")
            ours.callback(os.close, settings)
            os.pwrite(settings, handoff.data, 0)
            self._pipe, ready = os.pipe()
            ours.callback(os.close, ready)
            failing.callback(os.close, self._pipe)
            os.set_blocking(self._pipe, False)
            # A worker must not wait for a launcher that stands still.
            os.set_blocking(ready, False)
            inherited = Inherited(settings, notice, ready, tuple(f"fd://{fd}" for fd in listeners))
            self._master = children.start(
                [sys.executable, "-m", "gunicorn", "-c", str(configuration), APP],
                environ={**environ, LAUNCHED: msgspec.json.encode(inherited).decode()},
                fds=(settings, notice, ready, *listeners),
                at_our_death=signal.SIGTERM,
            )
            failing.pop_all()

    @property
    def pid(self) -> int:
        """The master's."""
        return self._master.pid

    @property
    def status(self) -> int | None:
        """The master's exit status, None while it lives."""
        return self._master.status

    def look(self) -> None:
        """Take in what the workers said since the last look."""
        while self._is_open:
            try:
                data = os.read(self._pipe, _LINES_BYTES)
            except BlockingIOError:
                return
            if not data:
                os.close(self._pipe)
                self._is_open = False
                return
            *lines, self._rest = (self._rest + data).split(b"\n")
            self._ready.update(lines)

    @property
    def is_ready(self) -> bool:
        """Tell whether as many workers as there should be have said that they accept."""
        return len(self._ready) >= self.handoff.plan.workers

    @property
    def is_over(self) -> bool:
        """Tell whether nothing of it lives any more."""
        return self.status is not None and not self._is_open

    def terminate(self) -> None:
        """Let it drain and end."""
        self._signal(signal.SIGTERM)

    def hurry(self) -> None:
        """Let it end soon."""
        self._signal(signal.SIGQUIT)

    def kill(self) -> None:
        """End all of it at one stroke."""
        if self._is_open:
            with suppress(ProcessLookupError):
                os.killpg(self.pid, signal.SIGKILL)

    def _signal(self, number: int) -> None:
        if self.status is None:
            self._master.signal(number)
        elif self._is_open:
            # Its workers have lost their master; they may not have noticed yet.
            with suppress(ProcessLookupError):
                os.killpg(self.pid, number)
