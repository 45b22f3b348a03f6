"""A copy of the program in which code may be broken, mended and renewed, with a sink and a clock of our own in it."""

from __future__ import annotations

import shutil
from pathlib import Path

from tests.server import ROOT

#: What a run needs of the checkout.
SHIPPED = ("gunicorn.conf.py", "wsgi.py", "tmpfs-mounts.json", "setup.cfg")
#: The module that is broken: every worker imports it, and gunicorn's master must not.
BROKEN = "collector/receiver/upload.py"

_REGISTER = """

from collector.sinks import chaos

SINKS["chaos"] = chaos.from_url
SCHEMES = tuple(SINKS)
"""

_ALLOW = """

SINK_SCHEMES = (*SINK_SCHEMES, "chaos")
"""

# Collector reads the time in one place: what is added here, everything in it takes for the machine's clock.
_SHIFT = """

import os

_SHIFT = os.open({path!r}, os.O_RDONLY | os.O_CLOEXEC)


def _shifted(self):
    return time.time_ns() // 1000 + int.from_bytes(os.pread(_SHIFT, 8, 0), "little", signed=True)


SystemClock.now_us = _shifted
"""


class Tree:
    """The copy; `root` goes into PYTHONPATH."""

    def __init__(self, root: Path, source: Path = ROOT) -> None:
        self.root = root
        self._shift = root.with_name(f"{root.name}.shift")
        self._generation = 0
        shutil.copytree(source / "collector", root / "collector", ignore=shutil.ignore_patterns("__pycache__"))
        for name in SHIPPED:
            shutil.copy(source / name, root / name)
        shutil.copy(Path(__file__).with_name("sink.py"), root / "collector/sinks/chaos.py")
        self._sound = (root / BROKEN).read_text()
        self.shift_clock(0)
        _append(root / "collector/sinks/registry.py", _REGISTER)
        _append(root / "collector/settings/values.py", _ALLOW)
        _append(root / "collector/clock.py", _SHIFT.format(path=str(self._shift)))

    def shift_clock(self, us: int) -> None:
        """Let the wall clock be so many microseconds ahead, from the next reading on in every process."""
        with self._shift.open("r+b" if self._shift.exists() else "w+b", buffering=0) as file:
            file.write(us.to_bytes(8, "little", signed=True))

    def renew(self) -> int:
        """Write new code that works, and return the generation that it puts into the names of objects."""
        module = self.root / "collector/sinks/chaos.py"
        old = f"\nGENERATION = {self._generation}\n"
        self._generation += 1
        text = module.read_text()
        assert old in text
        _replace(module, text.replace(old, f"\nGENERATION = {self._generation}\n"))
        return self._generation

    def break_code(self) -> None:
        """Write code that no Python can read."""
        _append(self.root / BROKEN, "\nthis is (no Python\n")

    def mend_code(self) -> None:
        """Take it back."""
        _replace(self.root / BROKEN, self._sound)


def _append(file: Path, text: str) -> None:
    _replace(file, file.read_text() + text)


def _replace(file: Path, text: str) -> None:
    """Change a file at one stroke, as a deploy does: a process that starts meanwhile reads the old or the new."""
    whole = file.with_name(f".{file.name}.new")
    whole.write_text(text)
    whole.replace(file)
