"""
The `stdout:` sink: lines on the standard output, for development and for hosts that collect it.

What the kernel has taken counts as delivered; a pipe's reader may still die with up to 64 KiB unread.
"""

from __future__ import annotations

import ctypes
import errno
import fcntl
import os
import select
from collections.abc import Callable, Iterator
from contextlib import contextmanager, suppress
from functools import cache
from typing import cast

import msgspec

from collector.clock import Clock
from collector.errors import TransientSinkError
from collector.event import Batch
from collector.outcome import Receipt
from collector.sinks.base import Limits, Offload
from collector.sinks.probing import Unread
from collector.sinks.url import SinkUrl, read_options

#: One segment's worth: whoever reads the output gets nothing else while a batch is written.
LIMITS = Limits(max_events=100_000, max_bytes=4 * 1024 * 1024, max_event_bytes=4 * 1024 * 1024, partitioned=False)

STDOUT = 1
#: One write of at most this many bytes goes into a pipe whole or not at all, whoever else writes to it (pipe(7)).
PIPE_BUF = select.PIPE_BUF
#: How long a reader may take nothing before the write is given up; below the 10 s an answer waits for its sink.
STALL_S = 5.0
#: How the output is opened once more: without waiting for a reader, or making a terminal ours.
ANEW = os.O_NONBLOCK | os.O_NOCTTY | os.O_CLOEXEC


class Options(msgspec.Struct, frozen=True, forbid_unknown_fields=True):
    """None: the output is what it is."""


def from_url(url: SinkUrl, writer_id: str, clock: Clock, offload: Offload) -> StdoutSink:  # noqa: ARG001 - every sink is made so
    """Make the sink of a `stdout:` URL; raises `ValueError`."""
    if url.host or url.path:
        raise ValueError(f"sink {url.text!r}: the standard output has no path; write stdout:")
    read_options(url, Options)
    return StdoutSink()


def probe(url: SinkUrl, batch: Batch) -> Unread:  # noqa: ARG001 - every probe is made so
    """Look for nothing: the line has gone to whoever reads the output."""
    return Unread("whoever reads the output has it", stays="it is printed")


class StdoutSink:
    """
    Writes whole lines to a file descriptor that others write to as well.

    Lines up to `PIPE_BUF` bytes never mingle with anything. Longer ones never mingle with those of another
    such sink, in this process or another, for they take turns; a stranger's write may fall into them. On an
    output that can't be locked, a socket, that holds within one sink only.
    """

    limits = LIMITS
    blocking = True

    def __init__(self, fd: int = STDOUT, *, stall_s: float = STALL_S) -> None:
        self._given_fd = fd
        self._stall_s = stall_s
        self._fd: int | None = None
        self._turns_fd: int | None = None
        self._torn = False

    def start(self) -> None:
        """Take a descriptor of our own, so that nobody closes it under a write."""
        if self._fd is not None:
            return
        try:
            fd = os.dup(self._given_fd)
        except OSError as exc:
            raise TransientSinkError(f"stdout: is not there: {exc.strerror}; start Collector with one") from exc
        self._turns_fd = fd if _can_be_locked(fd) else os.memfd_create("stdout-turns")
        self._fd = fd

    def write(self, batch: Batch) -> Receipt:
        """
        Write the lines in order; the receipt gives back as retryable what did not fit when the output failed.

        Raises `TransientSinkError` when not one line was written: the reader is gone, or took nothing for
        `stall_s` seconds, or the disk behind the output is full.
        """
        if not len(batch):
            return Receipt(delivered=0)
        payload = batch.payload
        try:
            with self._turn() as fd:
                written, failure = self._write_lines(fd, payload)
        except OSError as exc:
            raise TransientSinkError("stdout: is closed; the batch waits for the next start") from exc
        delivered = payload.count(b"\n", 0, written)
        if failure is not None and not delivered:
            raise TransientSinkError(f"stdout: {failure}; see to the program that reads it") from failure
        return Receipt(delivered=delivered, retryable=tuple(range(delivered, len(batch))))

    def close(self) -> None:
        """Give the descriptor back; waits for a write that is under way, `stall_s` seconds for a stuck one."""
        with suppress(OSError), self._turn() as fd:
            turns_fd, self._fd, self._turns_fd = self._turns_fd, None, None
            _close(fd)
            if turns_fd is not None and turns_fd != fd:
                _close(turns_fd)

    @contextmanager
    def _turn(self) -> Iterator[int]:
        """
        Wait until nobody else writes, and yield the output; raises `OSError` when the sink is closed.

        flock excludes by open file, so each turn opens one anew. It is no lock of `threading`, for under gevent
        threads of its pool that wait for one of those may never be woken.
        """
        turn = os.open(f"/proc/self/fd/{self._turns_fd}", os.O_WRONLY | ANEW)
        try:
            fcntl.flock(turn, fcntl.LOCK_EX)
            if self._fd is None:
                raise OSError(errno.EBADF, os.strerror(errno.EBADF))
            yield self._fd
        finally:
            _close(turn)

    def _write_lines(self, fd: int, payload: bytes) -> tuple[int, OSError | None]:
        """Write until done or refused: how many bytes went out, and what refused the rest."""
        view = memoryview(payload)
        written = 0
        try:
            if self._torn:
                # A line of an earlier write ends in its middle; end it, or the next would be lost with it.
                self._write_some(fd, b"\n")
                self._torn = False
            while written < len(payload):
                # As many whole lines as go in at once, or a piece of one that is longer.
                end = payload.rfind(b"\n", written, written + PIPE_BUF) + 1 or written + PIPE_BUF
                written += self._write_some(fd, view[written:end])
                self._torn = payload[written - 1] != ord("\n")
        except OSError as exc:
            return written, exc
        return written, None

    def _write_some(self, fd: int, piece: bytes | memoryview) -> int:
        """Write some of a piece no longer than `PIPE_BUF`; after the poll not even a blocking pipe blocks for it."""
        while True:
            if not _poll_for_room(fd, self._stall_s):
                raise TimeoutError(f"nothing was read from it for {self._stall_s:g} s")
            # Another writer may have been faster.
            with suppress(BlockingIOError):
                return os.write(fd, piece)


class _PollFd(ctypes.Structure):
    """What poll(2) is asked."""

    _fields_ = (("fd", ctypes.c_int), ("events", ctypes.c_short), ("revents", ctypes.c_short))


@cache
def _poll() -> Callable[[object, int, int], int]:
    """
    Find poll(2) itself, which blocks its thread and nothing else.

    In a worker `select.poll` is gevent's, which makes a hub for each thread that calls it.
    """
    poll = ctypes.CDLL(None).poll
    poll.argtypes = (ctypes.POINTER(_PollFd), ctypes.c_ulong, ctypes.c_int)
    poll.restype = ctypes.c_int
    return cast("Callable[[object, int, int], int]", poll)


def _poll_for_room(fd: int, timeout_s: float) -> bool:
    """Wait until a write would go on or fail; False when neither came to be in time."""
    return _poll()(ctypes.byref(_PollFd(fd, select.POLLOUT, 0)), 1, round(timeout_s * 1000)) != 0


def _close(fd: int) -> None:
    """
    Close at once.

    In a worker `os.close` is gevent's: what is no regular file it closes when the hub turns next, if ever. Until
    then a lock stays locked, and a reader waits for the end.
    """
    os.closerange(fd, fd + 1)


def _can_be_locked(fd: int) -> bool:
    """Tell whether the output can be opened anew, for its lock alone: a socket can't, a foreign user's pipe neither."""
    try:
        probe = os.open(f"/proc/self/fd/{fd}", os.O_WRONLY | ANEW)
    except OSError:
        return False
    try:
        fcntl.flock(probe, fcntl.LOCK_EX | fcntl.LOCK_NB)
    except BlockingIOError:
        return True
    except OSError:
        return False
    finally:
        _close(probe)
    return True
