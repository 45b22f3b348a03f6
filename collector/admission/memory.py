"""
Whether the task has memory to take more, told before the kernel would have to kill it.

What is looked at: each cgroup with a limit that holds this process, and the machine. In use is what the kernel
can't take back at once: the processes, the pages of tmpfs (so the spool is in it), the kernel's own; not its cache
of files. A look costs under a millisecond (measured) and comes four times a second. What this worker itself takes in
between two looks is counted as it comes, and every worker may take no more than its part of the room that was seen,
so that all together stay below the mark however fast they fill.
"""

from __future__ import annotations

import ctypes
import math
from collections.abc import Callable
from contextlib import suppress

import msgspec

from collector.clock import Clock
from collector.settings.places import CLOSE_PART, MemoryGroup, machine_memory_bytes, memory_groups
from collector.telemetry.signals import Signals

#: The part of a limit below which uploads are taken again after they were refused. The 5 % between the two are a
#: choice: less, and a task at its limit would be ready and unready by turns.
OPEN_PART = 0.85
#: The same for the whole machine, where others live too, and may use nearly all of it with nobody in danger.
MACHINE_CLOSE_PART, MACHINE_OPEN_PART = 0.95, 0.93
#: How often memory is looked at, in seconds. At a look a second a worker in a cgroup of 192 MiB was killed between two.
LOOK_EVERY_S = 0.25
_MIB = 1 << 20
#: By glibc's malloc.h. Buffers above so many bytes have a mapping of their own. Batches and the bodies of large uploads
#: do, at some 0.2 ms of page faults a MiB; what most uploads need does not.
_M_MMAP_THRESHOLD, _LARGE_BYTES = -3, _MIB


def return_large_buffers() -> None:
    """
    Let this process give the memory of every large buffer back as soon as it is freed, where the C library is glibc.

    Left alone, glibc keeps up to 32 MiB of it for each of its arenas, one a thread: measured, a worker that had
    inflated 16 MiB uploads in its threads stayed at 185 MiB for good, and so returns to 41.
    """
    with suppress(OSError, AttributeError):
        ctypes.CDLL(None).mallopt(_M_MMAP_THRESHOLD, _LARGE_BYTES)


class Use(msgspec.Struct, frozen=True):
    """How much of a limit is in use, in bytes, and the parts of it at which intake closes and opens."""

    used_bytes: int
    limit_bytes: int
    close_part: float = CLOSE_PART
    open_part: float = OPEN_PART

    @property
    def room_bytes(self) -> int:
        """Return what may still be taken in before intake closes; negative beyond that."""
        return int(self.limit_bytes * self.close_part) - self.used_bytes

    @property
    def is_low(self) -> bool:
        """Tell whether it is below the mark at which intake opens."""
        return self.used_bytes < self.limit_bytes * self.open_part


class Memory:
    """
    The guard of one of `workers` workers.

    `held` returns the bytes of events that this worker holds now. `root` is where `/proc` and `/sys` are looked for.
    """

    def __init__(
        self,
        *,
        held: Callable[[], int],
        workers: int,
        clock: Clock,
        signals: Signals,
        root: str = "/",
    ) -> None:
        self._held = held
        self._workers = workers
        self._clock = clock
        self._signals = signals
        self._root = root
        self._groups: list[MemoryGroup] | None = None
        self._look_at = 0.0
        self._held_at_look = 0
        #: How many bytes of events this worker may hold until the next look.
        self.ceiling_bytes = math.inf
        #: Set from the look that finds the mark reached to the one that finds it well undercut.
        self.is_short = False
        #: What was in use of the limit that is the nearest, at the last look.
        self.use = Use(0, 0)

    def tick(self) -> None:
        """Look, if it is time; called a few times a second."""
        now = self._clock.monotonic()
        if now >= self._look_at:
            self._look_at = now + LOOK_EVERY_S
            self.look()

    def look(self) -> None:
        """See how much memory is in use, and close or open."""
        uses = self._uses()
        self.use = min(uses, key=lambda use: use.room_bytes / use.limit_bytes)
        self._held_at_look = self._held()
        if not self.is_short and self.use.room_bytes <= 0:
            self.is_short = True
            self._signals.memory_short(self.use.used_bytes, self.use.limit_bytes, self._held_at_look)
        elif self.is_short and all(use.is_low for use in uses):
            self.is_short = False
            self._signals.memory_recovered(self.use.used_bytes, self.use.limit_bytes)
        self.ceiling_bytes = self._held_at_look + self.use.room_bytes / self._workers

    def _uses(self) -> list[Use]:
        total, available = machine_memory_bytes(self._root)
        uses = [Use(total - available, total, MACHINE_CLOSE_PART, MACHINE_OPEN_PART)]
        if self._groups is None:
            self._groups = memory_groups(self._root)
        for group in self._groups:
            # A limit may come, change and go while we run; a cgroup may be taken from view.
            with suppress(OSError):
                limit = group.limit_bytes()
                if limit is not None and 0 < limit < total:
                    uses.append(Use(group.used_bytes(), limit))
        return uses

    @property
    def trouble(self) -> str:
        """Say why no upload may come in now, or nothing."""
        if self.is_short:
            use = self.use
            return (
                f"the task is short of memory: {use.used_bytes // _MIB} of {use.limit_bytes // _MIB} MiB are in use, "
                f"{self._held_at_look // _MIB} MiB of them for this worker's events"
            )
        if self._held() >= self.ceiling_bytes:
            return "the task is filling its memory too fast"
        return ""
