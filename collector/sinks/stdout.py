"""
The `stdout:` sink: lines on the standard output, for development and for hosts that collect it.

What the kernel has taken counts as delivered; a pipe's reader may still die with up to 64 KiB unread.
"""

from __future__ import annotations

import fcntl
import os
import select
import threading
from contextlib import suppress

import msgspec

from collector.clock import Clock
from collector.errors import TransientSinkError
from collector.event import Batch
from collector.outcome import Receipt
from collector.sinks.base import Limits
from collector.sinks.url import SinkUrl, read_options

#: One segment's worth: whoever reads the output gets nothing else while a batch is written.
LIMITS = Limits(max_events=100_000, max_bytes=4 * 1024 * 1024, max_event_bytes=4 * 1024 * 1024, partitioned=False)

STDOUT = 1
#: One write of at most this many bytes goes into a pipe whole or not at all, whoever else writes to it (pipe(7)).
PIPE_BUF = select.PIPE_BUF
#: How long a reader may take nothing before the write is given up; below the 10 s an answer waits for its sink.
STALL_S = 5.0


class Options(msgspec.Struct, frozen=True, forbid_unknown_fields=True):
    """None: the output is what it is."""


def from_url(url: SinkUrl, writer_id: str, clock: Clock) -> StdoutSink:  # noqa: ARG001 - every sink is made so
    """Make the sink of a `stdout:` URL; raises `ValueError`."""
    if url.host or url.path:
        raise ValueError(f"sink {url.text!r}: the standard output has no path; write stdout:")
    read_options(url, Options)
    return StdoutSink()


class StdoutSink:
    """
    Writes whole lines to a file descriptor that others write to as well.

    Lines up to `PIPE_BUF` bytes never mingle with anything. Longer ones never mingle with those of another
    worker's sink, for both take the same lock; a stranger's write may fall into them.
    """

    limits = LIMITS
    blocking = True

    def __init__(self, fd: int = STDOUT, *, stall_s: float = STALL_S) -> None:
        self._given_fd = fd
        self._stall_s = stall_s
        self._lock = threading.Lock()
        self._fd: int | None = None
        self._torn = False

    def start(self) -> None:
        """Take a descriptor of our own, so that nobody closes it under a write."""
        with self._lock:
            if self._fd is None:
                try:
                    self._fd = os.dup(self._given_fd)
                except OSError as exc:
                    raise TransientSinkError(f"stdout: is not there: {exc.strerror}; start Collector with one") from exc

    def write(self, batch: Batch) -> Receipt:
        """
        Write the lines in order; the receipt gives back as retryable what did not fit when the output failed.

        Raises `TransientSinkError` when not one line was written: the reader is gone, or took nothing for
        `stall_s` seconds, or the disk behind the output is full.
        """
        if not len(batch):
            return Receipt(delivered=0)
        with self._lock:
            if self._fd is None:
                raise TransientSinkError("stdout: is closed; the batch waits for the next start")
            written, failure = self._write_lines(self._fd, batch.payload)
        delivered = batch.payload.count(b"\n", 0, written)
        if failure is not None and not delivered:
            raise TransientSinkError(f"stdout: {failure}; see to the program that reads it") from failure
        return Receipt(delivered=delivered, retryable=tuple(range(delivered, len(batch))))

    def close(self) -> None:
        """Give the descriptor back; waits for a write that is under way."""
        with self._lock:
            if self._fd is not None:
                os.close(self._fd)
                self._fd = None

    def _write_lines(self, fd: int, payload: bytes) -> tuple[int, OSError | None]:
        """Write until done or refused: how many bytes went out, and what refused the rest."""
        view = memoryview(payload)
        written = 0
        writable = select.poll()
        writable.register(fd, select.POLLOUT)
        with _WorkersLock(fd):
            try:
                if self._torn:
                    # A line of an earlier write ends in its middle; end it, or the next would be lost with it.
                    self._write_some(fd, writable, b"\n")
                    self._torn = False
                while written < len(payload):
                    # As many whole lines as go in at once, or a piece of one that is longer.
                    end = payload.rfind(b"\n", written, written + PIPE_BUF) + 1 or written + PIPE_BUF
                    written += self._write_some(fd, writable, view[written:end])
                    self._torn = payload[written - 1] != ord("\n")
            except OSError as exc:
                return written, exc
        return written, None

    def _write_some(self, fd: int, writable: select.poll, piece: bytes | memoryview) -> int:
        """Write some of a piece no longer than `PIPE_BUF`; after the poll not even a blocking pipe blocks for it."""
        while True:
            if not writable.poll(self._stall_s * 1000):
                raise TimeoutError(f"nothing was read from it for {self._stall_s:g} s")
            # Another writer may have been faster.
            with suppress(BlockingIOError):
                return os.write(fd, piece)


class _WorkersLock:
    """
    Keeps the writes of other processes off the same output.

    A POSIX lock: forked workers share their open files, and flock's locks with them. The threads of one
    process share a POSIX lock in turn, hence the sink's other lock around it.
    """

    def __init__(self, fd: int) -> None:
        self._fd = fd

    def __enter__(self) -> None:
        # An output that can't be locked is still written to; long lines of two workers may then mingle.
        with suppress(OSError):
            fcntl.lockf(self._fd, fcntl.LOCK_EX)

    def __exit__(self, *_: object) -> None:
        with suppress(OSError):
            fcntl.lockf(self._fd, fcntl.LOCK_UN)
