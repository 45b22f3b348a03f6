"""
Child processes: how they are started, and how all that end are reaped, orphans of our children too.
"""

from __future__ import annotations

import ctypes
import os
import signal
import subprocess
from collections.abc import Mapping, Sequence
from contextlib import suppress

# Of linux/prctl.h.
_PR_SET_PDEATHSIG = 1
_PR_SET_CHILD_SUBREAPER = 36


class Child:
    """One process of ours; `status` is its exit status once it is reaped, negative of a signal."""

    def __init__(self, process: subprocess.Popen[bytes]) -> None:
        self._process = process
        self.pid = process.pid
        self.status: int | None = None

    def signal(self, number: int) -> None:
        """Send a signal, unless it is reaped: its pid may be another's by then."""
        if self.status is None:
            os.kill(self.pid, number)

    def ended(self, status: int) -> None:
        """Note that it was reaped."""
        # Or subprocess would wait for the pid itself one day, whosever it is then.
        self._process.returncode = self.status = status


class Children:
    """All processes that the launcher has started and not yet reaped."""

    def __init__(self) -> None:
        self._living: dict[int, Child] = {}

    def adopt_orphans(self) -> None:
        """Let what our children leave behind come to us, also where we are not PID 1."""
        if ctypes.CDLL(None, use_errno=True).prctl(_PR_SET_CHILD_SUBREAPER, 1, 0, 0, 0):
            raise OSError(ctypes.get_errno(), "prctl(PR_SET_CHILD_SUBREAPER) failed")

    def start(
        self,
        arguments: Sequence[str],
        *,
        environ: Mapping[str, str],
        fds: Sequence[int] = (),
        output: int | None = None,
        at_our_death: signal.Signals,
    ) -> Child:
        """
        Start a program in a process group of its own, so that a terminal's Ctrl-C reaches the launcher alone.

        It inherits the open files `fds` and the standard streams; `output` is an open file that takes the place of
        the last two. `at_our_death` is sent to it when the launcher dies, however it dies. Raises OSError.
        """
        launcher, libc = os.getpid(), ctypes.CDLL(None)

        def tie() -> None:
            libc.prctl(_PR_SET_PDEATHSIG, int(at_our_death), 0, 0, 0)
            if os.getppid() != launcher:  # it died in between, and no signal will come
                os._exit(1)

        process = subprocess.Popen(  # noqa: S603 -- our own interpreter, no shell
            arguments,
            env=environ,
            stdin=subprocess.DEVNULL,
            stdout=output,
            stderr=output,
            pass_fds=fds,
            process_group=0,
            preexec_fn=tie,  # noqa: PLW1509 -- it takes no lock that the other thread, of the log, may hold
        )
        child = self._living[process.pid] = Child(process)
        return child

    def reap(self) -> None:
        """Take the exit status of every child that has ended, our own or an orphan that came to us."""
        with suppress(ChildProcessError):
            while (reaped := os.waitpid(-1, os.WNOHANG))[0]:
                pid, status = reaped
                child = self._living.pop(pid, None)
                if child is not None:
                    child.ended(os.waitstatus_to_exitcode(status))
