"""
How much the spool may hold: a budget for the task, a part of it for each worker, and what the mount really has.
"""

from __future__ import annotations

import contextlib
import os
from collections.abc import Collection
from pathlib import Path

import msgspec

from collector.buffer.holding import directories

#: The part of a budget at which new uploads are refused; what lies above is for two workers that grow at once
#: between two measurements. A choice.
HIGH_WATERMARK = 0.9
#: Appends stop when the file system has less than this free, the greater of a part and some bytes: journals and
#: counters must go on. Two journals and the counters of a few hundred tenants are half a MiB.
_FREE_PART, _FREE_BYTES = 0.02, 1024 * 1024


class Bounds(msgspec.Struct, frozen=True):
    """How much the spool may hold, in bytes: the whole task, one worker of it, and one segment before it leaves."""

    task_bytes: int
    worker_bytes: int
    segment_bytes: int


class Room:
    """The room of one worker, as of the last measurement."""

    def __init__(self, root: Path, bounds: Bounds) -> None:
        self._root = root
        self._bounds = bounds
        self._others_bytes = 0
        self._free_bytes = 0

    def measure(self, mine: Collection[Path], *, used_bytes: int, adopted_bytes: int) -> int:
        """
        Look at the file system and at what the other workers hold, and return how much this worker may hold.

        That is its part, and never more than there is. `mine` are its directories, in which it holds `used_bytes`, of
        which it adopted `adopted_bytes`.
        """
        with contextlib.suppress(OSError):
            self._others_bytes = sum(
                _segment_bytes(directory) for directory in directories(self._root / "owners") if directory not in mine
            )
            stat = os.statvfs(self._root)
            kept_free = max(_FREE_BYTES, int(stat.f_blocks * stat.f_frsize * _FREE_PART))
            self._free_bytes = stat.f_bavail * stat.f_frsize - kept_free
        whole = self._bounds.task_bytes * HIGH_WATERMARK - self._others_bytes
        # What it adopted does not count against its own part: that was the dead worker's part.
        part = self._bounds.worker_bytes * HIGH_WATERMARK + adopted_bytes
        return max(0, int(min(part, whole, used_bytes + self._free_bytes)))


def _segment_bytes(directory: Path) -> int:
    total = 0
    with contextlib.suppress(FileNotFoundError), os.scandir(directory) as entries:
        for entry in entries:
            if entry.name.endswith(".seg"):
                with contextlib.suppress(FileNotFoundError):
                    total += entry.stat().st_size
    return total
