"""
The board: a directory on tmpfs where the workers of a task tell one another which tenants are in force.

A worker that holds the board's lock may write; all read. Each file is replaced whole or not at all.
"""

from __future__ import annotations

import fcntl
import os
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import TypeVar

import msgspec

from collector.clock import Clock
from collector.tenant import Tenant

_Shape = TypeVar("_Shape", bound=msgspec.Struct)

#: Device, inode, times of content and inode in ns, size: what differs when a file does. None: there is no file.
Stamp = tuple[int, int, int, int, int] | None
#: Before the first look.
UNSEEN: Stamp = (-1, -1, -1, -1, -1)


class Published(msgspec.Struct, frozen=True):
    """
    The tenants that hold from `active_from_s` on, and the `previous` ones until then.

    Times are CLOCK_MONOTONIC seconds; `read_at_s` is when the file was read. `text_sha256` is of the file's text,
    empty when the tenants came with a worker's settings. `slots` numbers every tenant there ever was, from 0.
    """

    text_sha256: str
    read_at_s: float
    active_from_s: float
    tenants: tuple[Tenant, ...]
    previous: tuple[Tenant, ...]
    slots: dict[str, int]


class Problem(msgspec.Struct, frozen=True):
    """What is wrong with the file whose text has this digest."""

    text_sha256: str
    problems: list[str]


class Board:
    """One worker's hold on the board. Methods raise OSError when the tmpfs refuses."""

    def __init__(self, directory: Path) -> None:
        self._lock_fd = self._alive_fd = -1
        self.directory = directory
        self.current_file = directory / "current"
        self.problem_file = directory / "problem"

    @property
    def is_open(self) -> bool:
        """Tell whether the board can be used."""
        return self._lock_fd >= 0

    def open(self) -> None:
        """Make the directory and open the lock."""
        self.directory.mkdir(mode=0o700, parents=True, exist_ok=True)
        self._lock_fd = os.open(self.directory / "lock", os.O_RDWR | os.O_CREAT | os.O_CLOEXEC, 0o600)

    def close(self) -> None:
        """Let go of the locks. Safe to call twice."""
        for fd in {self._lock_fd, self._alive_fd} - {-1}:
            os.close(fd)
        self._lock_fd = self._alive_fd = -1

    @contextmanager
    def locked(self, *, wait: bool = False) -> Iterator[bool]:
        """Hold the lock, or tell that another worker does; it is held for the reading of one file, a second or two."""
        try:
            fcntl.flock(self._lock_fd, fcntl.LOCK_EX | (0 if wait else fcntl.LOCK_NB))
        except BlockingIOError:
            yield False
            return
        try:
            yield True
        finally:
            # Whoever closed the board meanwhile let go of the lock.
            if self.is_open:
                fcntl.flock(self._lock_fd, fcntl.LOCK_UN)

    def join(self) -> bool:
        """Say with a shared lock that this worker lives, and tell whether no other does; under the lock."""
        self._alive_fd = os.open(self.directory / "alive", os.O_RDWR | os.O_CREAT | os.O_CLOEXEC, 0o600)
        try:
            fcntl.flock(self._alive_fd, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError:
            fcntl.flock(self._alive_fd, fcntl.LOCK_SH)
            return False
        fcntl.flock(self._alive_fd, fcntl.LOCK_SH)
        return True

    def current(self, clock: Clock) -> Published | None:
        """Return what is published. What claims to be of the future is of another boot, and counts as nothing."""
        current = _read(self.current_file, Published)
        # The clock is asked after the reading: what was published in between is of the past by now.
        return current if current is not None and current.read_at_s <= clock.monotonic() else None

    def problem(self) -> Problem | None:
        """Return what is wrong with the file."""
        return _read(self.problem_file, Problem)

    def put_current(self, current: Published) -> None:
        """Publish; under the lock."""
        self._put(self.current_file, current)

    def put_problem(self, problem: Problem) -> None:
        """Publish; under the lock."""
        self._put(self.problem_file, problem)

    def clear_problem(self) -> None:
        """Say that the file is sound; under the lock."""
        self.problem_file.unlink(missing_ok=True)

    def _put(self, file: Path, value: msgspec.Struct) -> None:
        # Under the lock, so that the temporary name is nobody else's; what a dead writer left is written over.
        temporary = file.with_name(f"{file.name}.new")
        temporary.write_bytes(msgspec.json.encode(value))
        temporary.replace(file)


def stamp_of(path: Path) -> Stamp:
    """Look at what a path leads to, symlinks and all; None when that is nothing that can be looked at."""
    try:
        status = path.stat()
    except OSError:
        return None
    return status.st_dev, status.st_ino, status.st_mtime_ns, status.st_ctime_ns, status.st_size


def _read(file: Path, shape: type[_Shape]) -> _Shape | None:
    try:
        return msgspec.json.decode(file.read_bytes(), type=shape)
    except (FileNotFoundError, msgspec.DecodeError):
        return None
