"""
Log lines to the standard output, without ever waiting for who reads it.

A pipe that nobody reads is full after 64 KiB, and a plain write to it does not return: health checks and uploads would
stand still with it. So the descriptor does not block, a few lines wait here, and what is too much is lost and counted.
"""

from __future__ import annotations

import os
import stat
import threading
from collections import deque
from collections.abc import Callable
from contextlib import suppress

import msgspec

from collector.clock import Clock

#: Bytes that wait while the reader is slow. A choice: what a flush of 500 kinds of signals says at once, and half more.
LIMIT_BYTES = 256 << 10
#: So long after losses began they are told, if lines have not got through again before that; in seconds. A choice.
_TELL_AFTER_S = 60.0
#: How long the last lines of a process are waited for, and between two tries, in seconds. Choices.
_CLOSE_S, _RETRY_S = 0.5, 0.01


class Lost(msgspec.Struct, frozen=True):
    """So many lines were lost, the first and the last at these times, in µs since the epoch."""

    count: int
    first_us: int
    last_us: int


class LineStream:
    """
    A file descriptor that takes whole lines, in their order, or loses them; it never blocks and never raises.

    Safe to use from any thread or greenlet. Hazard: lines over PIPE_BUF (4 KiB) of several workers may mix.
    """

    def __init__(self, *, clock: Clock, fd: int = 1, limit_bytes: int = LIMIT_BYTES) -> None:
        self._clock = clock
        self._fd = fd
        self._limit_bytes = limit_bytes
        self._lock = threading.Lock()
        self._is_open = False
        self._waiting: deque[bytes] = deque()
        self._waiting_bytes = 0
        self._lost: Lost | None = None
        self._lost_since_s: float | None = None
        self.lost = 0

    def write(self, line: bytes, /) -> None:
        """Write a line, after those that wait; one that can't wait, too, is lost."""
        with self._lock:
            if not self._is_open:
                self._fd = unblocked(self._fd)
                self._is_open = True
            self._waiting.append(line)
            self._waiting_bytes += len(line)
            self._push()
            if self._waiting_bytes > self._limit_bytes and len(self._waiting) > 1:
                # It has not been begun: those before it are as much as may wait.
                self._waiting_bytes -= len(self._waiting.pop())
                self._lose(1)

    def flush(self) -> None:
        """Write what waits, as far as it goes."""
        with self._lock:
            self._push()

    def close(self, rest: Callable[[float], None]) -> None:
        """Give what waits half a second more, and then up; `rest` waits so many seconds."""
        until_s = self._clock.monotonic() + _CLOSE_S
        self.flush()
        while self._waiting and self._clock.monotonic() < until_s:
            rest(_RETRY_S)
            self.flush()
        with self._lock:
            self._give_up()

    def _push(self) -> None:
        while self._waiting:
            line = self._waiting[0]
            try:
                written = os.write(self._fd, line)
            except BlockingIOError:
                return
            except OSError:
                # Nobody reads it any more, or never did.
                self._give_up()
                return
            self._waiting_bytes -= written
            if written < len(line):
                # The rest of it comes first, so that it stays one line.
                self._waiting[0] = line[written:]
                return
            self._waiting.popleft()

    def _give_up(self) -> None:
        if self._waiting:
            self._lose(len(self._waiting))
            self._waiting.clear()
            self._waiting_bytes = 0

    def _lose(self, count: int) -> None:
        self.lost += count
        now_us = self._clock.now_us()
        first_us, so_far = (self._lost.first_us, self._lost.count) if self._lost else (now_us, 0)
        self._lost = Lost(so_far + count, first_us, now_us)
        if self._lost_since_s is None:
            self._lost_since_s = self._clock.monotonic()

    def take_lost(self) -> Lost | None:
        """Return what was lost since this was last asked."""
        with self._lock:
            lost, self._lost = self._lost, None
            return lost

    def may_tell(self) -> bool:
        """
        Tell whether losses should be told now: lines get through again, or have not done so for a minute.

        Asked once for each telling: a `True` begins the next minute.
        """
        with self._lock:
            if self._lost_since_s is None:
                return True
            if self._waiting and self._clock.monotonic() - self._lost_since_s < _TELL_AFTER_S:
                return False
            self._lost_since_s = self._clock.monotonic() if self._waiting else None
            return True


def unblocked(fd: int) -> int:
    """
    Return a descriptor of the same file that does not block; `fd` itself where none else can be had.

    Opened anew, so that others who hold the file open do not find themselves with one that does not block.
    """
    try:
        if stat.S_ISREG(os.fstat(fd).st_mode) or not os.get_blocking(fd):
            return fd
        return os.open(f"/proc/self/fd/{fd}", os.O_WRONLY | os.O_NONBLOCK | os.O_NOCTTY | os.O_CLOEXEC)
    except OSError:
        # A socket can't be opened anew, nor a pipe that another user made. A descriptor that is not there stays so.
        with suppress(OSError):
            os.set_blocking(fd, False)
        return fd


def unblock(fd: int) -> None:
    """Let a descriptor, and so everyone who inherits it from here on, write without blocking."""
    opened = unblocked(fd)
    if opened != fd:
        os.dup2(opened, fd)
        os.close(opened)
