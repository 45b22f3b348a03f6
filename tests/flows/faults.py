"""A file system that fails: each system call of a worker may be refused, cut short, or be its last."""

from __future__ import annotations

import builtins
import errno
import fcntl
import io
import mmap
import os
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from enum import StrEnum
from typing import Any
from unittest import mock

#: What a file system on its way out says, and a process with too many files.
ERRNOS = (errno.ENOSPC, errno.EIO, errno.EROFS, errno.EMFILE)
#: What a call can say of these, the first if it can't say what the plan has; the others can say all but EMFILE.
SAYS = {
    **dict.fromkeys(("open",), ERRNOS),
    **dict.fromkeys(("scandir", "listdir"), (errno.EIO, errno.EMFILE)),
    **dict.fromkeys(("stat", "fstat", "statvfs", "pread"), (errno.EIO,)),
    **dict.fromkeys(("ftruncate", "truncate"), (errno.EIO, errno.EROFS)),
    "flock": (errno.ENOLCK,),
    "mmap": (errno.ENOMEM,),
}
#: The calls of the spool and its books, by the module that has them.
CALLS = {
    os: (
        "open", "write", "pwrite", "pread", "posix_fallocate", "ftruncate", "truncate", "mkdir", "rename", "replace",
        "unlink", "rmdir", "stat", "fstat", "statvfs", "scandir", "listdir",
    ),
    fcntl: ("flock",),
    io: ("open",),
    mmap: ("mmap",),
}  # fmt: skip
#: Those of which a part may be done, and the rest not.
SHORT = frozenset({"write", "pwrite"})
#: Those that may be done and then fail nevertheless.
DONE_AND_FAILED = frozenset({"write"})


class Fate(StrEnum):
    """What becomes of a call: it is refused, done in part, done and then refused, or its process dies before it."""

    FAIL = "fail"
    SHORT = "short"
    AFTER = "after"
    DIE = "die"


class Died(BaseException):
    """Ends a worker as kill -9 does: nothing of it runs any more."""


class Plan:
    """From the `first` call on, `count` calls meet a fate; with `calls`, only those of these names are counted."""

    def __init__(
        self, fate: Fate, *, first: int, count: int = 1, error: int = errno.EIO, calls: frozenset[str] = frozenset()
    ) -> None:
        self.fate = fate
        self.error = error
        self._first = first
        self._count = count
        self._calls = calls
        self._seen = 0
        self.met: list[str] = []

    def meets(self, name: str) -> bool:
        """Count a call, and tell whether it is one of the plan's."""
        if self._calls and name not in self._calls:
            return False
        self._seen += 1
        return self._first < self._seen <= self._first + self._count


class Process:
    """What the kernel knows of a worker: its open files, closed when it dies."""

    def __init__(self) -> None:
        self.is_dead = False
        self.fds: set[int] = set()


class FaultyDisk:
    """
    Stands between Collector and the system calls, while it is installed.

    `running` says which worker runs, and by which plan its calls fail; outside of it all calls go through, so that a
    test can look.
    """

    def __init__(self) -> None:
        self._process: Process | None = None
        self._plan: Plan | None = None
        self._close = os.close

    @contextmanager
    def installed(self) -> Iterator[FaultyDisk]:
        """Take the place of the calls."""
        patches = [
            mock.patch.object(module, name, self._wrapped(name, getattr(module, name)))
            for module, names in CALLS.items()
            for name in names
        ]
        patches.append(mock.patch.object(os, "close", self._closed))
        patches.append(mock.patch.object(builtins, "open", self._wrapped("open", builtins.open)))
        for patch in patches:
            patch.start()
        try:
            yield self
        finally:
            for patch in reversed(patches):
                patch.stop()

    @contextmanager
    def running(self, process: Process, plan: Plan | None = None) -> Iterator[None]:
        """Let a worker run; it may die in this block, which then ends quietly."""
        self._process, self._plan = process, plan
        try:
            yield
        except Died:
            pass
        finally:
            self._process = self._plan = None
            if process.is_dead:
                self.bury(process)

    def kill(self, process: Process) -> None:
        """Let a worker die between two calls."""
        process.is_dead = True
        self.bury(process)

    def bury(self, process: Process) -> None:
        """Close the files of a dead worker, as the kernel does."""
        while process.fds:
            self._close(process.fds.pop())

    def _wrapped(self, name: str, call: Callable[..., Any]) -> Callable[..., Any]:
        def made(*args: Any, **kwargs: Any) -> Any:
            process, plan = self._process, self._plan
            if process is None:
                return call(*args, **kwargs)
            if process.is_dead:
                raise Died
            if plan is not None and plan.meets(name):
                plan.met.append(name)
                if plan.fate is Fate.DIE:
                    process.is_dead = True
                    raise Died
                if plan.fate is Fate.SHORT and name in SHORT:
                    data = bytes(args[1])
                    return call(args[0], data[: len(data) // 2], *args[2:])
                if plan.fate is Fate.AFTER and name in DONE_AND_FAILED:
                    call(*args, **kwargs)
                says = SAYS.get(name, (errno.EIO, errno.ENOSPC, errno.EROFS))
                error = plan.error if plan.error in says else says[0]
                raise OSError(error, os.strerror(error), *[one for one in args[:1] if isinstance(one, str)])
            result = call(*args, **kwargs)
            if name == "open" and isinstance(result, int):
                process.fds.add(result)
            return result

        return made

    def _closed(self, fd: int) -> None:
        if self._process is not None:
            if self._process.is_dead:
                # It is closed with the others.
                return
            self._process.fds.discard(fd)
        self._close(fd)
