"""
The preflight of a reload: a child loads the settings and builds a worker, from what is on the disk now.
"""

from __future__ import annotations

import os
import signal
import sys
from collections.abc import Mapping

from collector.launcher.children import Children
from collector.launcher.plan import Handoff, read_handoff
from collector.receiver.notice import MAX_PROBLEM_BYTES

#: Patched before anything of ours is imported, as a worker is.
_PROGRAM = """
from gevent import monkey
monkey.patch_all()
from collector.cli import main
main(["rehearse", "--fd", "{fd}"], prog_name="collector")
"""
_TRACEBACK = "Traceback (most recent call last)"


class Preflight:
    """One that was started. `verdict` is there when it is over."""

    def __init__(self, *, children: Children, environ: Mapping[str, str]) -> None:
        """Start the child; raises OSError."""
        self._handoff, self._words = os.memfd_create("collector-settings"), os.memfd_create("collector-preflight")
        try:
            self._child = children.start(
                [sys.executable, "-c", _PROGRAM.format(fd=self._handoff)],
                environ=environ,
                fds=(self._handoff,),
                output=self._words,
                at_our_death=signal.SIGKILL,
            )
        except OSError:
            self._close()
            raise

    @property
    def is_over(self) -> bool:
        """Tell whether the child has ended."""
        return self._child.status is not None

    def abandon(self) -> None:
        """End it now; nobody wants its verdict."""
        self._child.signal(signal.SIGKILL)
        self._close()

    def verdict(self) -> Handoff | str:
        """Return what a new generation is to be started with, or why there can be none; once, when it is over."""
        handoff, words = _read(self._handoff), _read(self._words).decode(errors="replace")
        self._close()
        if self._child.status == 0:
            try:
                return read_handoff(handoff)
            except ValueError as error:
                return f"the preflight gave no settings: {error}"
        return last_words(words) or f"the preflight ended with {self._child.status} and said nothing"

    def _close(self) -> None:
        os.close(self._handoff)
        os.close(self._words)


def last_words(text: str) -> str:
    """Return the end of what a program said, fit for a line: of a traceback what it comes to, else all sentences."""
    lines = ["".join(char if char.isprintable() else " " for char in line).strip() for line in text.splitlines()]
    lines = [line for line in lines if line]
    if any(_TRACEBACK in line for line in lines):
        # From the last frame on: the file that is at fault, and what it comes to.
        frames = [number for number, line in enumerate(lines) if line.startswith('File "')]
        lines = lines[frames[-1] :] if frames else lines[-3:]
    return "; ".join(lines).encode()[-MAX_PROBLEM_BYTES:].decode(errors="ignore")


def _read(fd: int) -> bytes:
    return os.pread(fd, os.fstat(fd).st_size, 0)
