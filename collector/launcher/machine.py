"""
The machine that the launcher acts on: its sockets and its processes.
"""

from __future__ import annotations

import os
import signal
import sys
from collections.abc import Mapping, Sequence
from pathlib import Path

from collector.launcher.children import Child, Children
from collector.launcher.generation import Generation
from collector.launcher.listeners import Listeners
from collector.launcher.plan import Handoff
from collector.launcher.preflight import Preflight
from collector.receiver.farewell import tell_drain_done
from collector.receiver.notice import LAUNCHED, Board, Notice
from collector.settings import SNAPSHOT, from_json

_FAREWELL = "from collector.receiver.farewell import tell_drain_done; tell_drain_done()"


class Machine:
    """The real one; a `World`."""

    def __init__(self, children: Children, *, configuration: Path, environ: Mapping[str, str]) -> None:
        """Take where gunicorn's configuration lies, and the environment of whatever is started."""
        self._children = children
        self._configuration = configuration
        self._environ = {name: value for name, value in environ.items() if name not in {SNAPSHOT, LAUNCHED}}
        self._listeners = Listeners()
        self._board = Board()

    def listen(self, addresses: Sequence[str], backlog: int) -> None:
        """Listen on these too, or on none that is new."""
        self._listeners.open(addresses, backlog)

    def keep_listeners(self, addresses: Sequence[str]) -> None:
        """Let go of all others."""
        self._listeners.keep(addresses)

    def start_generation(self, number: int, handoff: Handoff) -> Generation:
        """Start gunicorn on the listeners that the handoff names."""
        return Generation(
            number,
            handoff,
            children=self._children,
            configuration=self._configuration,
            environ=self._environ,
            listeners=self._listeners.fds(handoff.plan.binds),
            notice=self._board.fd,
        )

    def start_preflight(self) -> Preflight:
        """Start a child that loads what is on the disk."""
        return Preflight(children=self._children, environ=self._environ)

    def start_farewell(self, handoff: Handoff) -> Child:
        """Start a child that says what became of everything, with the code that did it last."""
        settings = os.memfd_create("collector-settings")
        try:
            os.pwrite(settings, handoff.data, 0)
            return self._children.start(
                [sys.executable, "-c", _FAREWELL],
                environ={**self._environ, SNAPSHOT: f"fd://{settings}"},
                fds=(settings,),
                at_our_death=signal.SIGKILL,
            )
        finally:
            os.close(settings)

    def say_farewell(self, handoff: Handoff) -> None:
        """Say it with our own code."""
        tell_drain_done(from_json(handoff.data.splitlines()[0]))

    def post(self, notice: Notice) -> None:
        """Tell the workers."""
        self._board.write(notice)
