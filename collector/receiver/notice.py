"""
What the launcher tells the workers of all generations, and what they tell it.

The launcher writes a `Notice` on a `Board`, a piece of memory that its children inherit as an open file; a worker
says that it accepts by a line in a pipe. Without a launcher there is nothing to read, and nobody to tell.
"""

from __future__ import annotations

import os
from contextlib import suppress
from functools import cache
from zlib import crc32

import msgspec

from collector.settings import environment
from collector.telemetry.catalogue import Labels

#: The variable with which the launcher starts a generation: an `Inherited` in JSON. `gunicorn.conf.py` reads it too.
LAUNCHED = "_COLLECTOR_LAUNCHER"
#: Of the board; the largest notice is a problem of `MAX_PROBLEM_BYTES` and a dozen counters.
_BOARD_BYTES = 8192
MAX_PROBLEM_BYTES = 2000
_CRC_BYTES = 4
#: Looks at a board that is being written at each of them; a write takes a microsecond.
_LOOKS = 5


class Inherited(msgspec.Struct, frozen=True):
    """The open files that a generation inherits, by number; `binds` are gunicorn's, in the order of its roles."""

    settings: int
    notice: int
    ready: int
    binds: tuple[str, ...]


class Rejection(msgspec.Struct, frozen=True):
    """Why the last reload was rejected, and when (RFC 3339)."""

    problem: str
    at: str


class Notice(msgspec.Struct, frozen=True):
    """
    What the launcher says at the moment.

    `leaving`: the task was told to stop, and its workers should get no new traffic. `reload`: what was wrong with the
    last reload, None if it was done or there was none. `counters`: the launcher's own, in the shape of a snapshot's.
    """

    leaving: bool = False
    reload: Rejection | None = None
    counters: dict[str, list[tuple[Labels, int]]] = msgspec.field(default_factory=dict)


class Board:
    """The launcher's side: it writes, whoever inherits `fd` reads."""

    def __init__(self) -> None:
        self.fd = os.memfd_create("collector-notice")
        os.ftruncate(self.fd, _BOARD_BYTES)
        self.write(Notice())

    def write(self, notice: Notice) -> None:
        """Put a notice in the place of the one before."""
        text = msgspec.json.encode(notice)
        # Blanks after it, where a longer one stood.
        text = text.ljust(_BOARD_BYTES - _CRC_BYTES)
        os.pwrite(self.fd, crc32(text).to_bytes(_CRC_BYTES, "big") + text, 0)

    def close(self) -> None:
        """Let go of it."""
        os.close(self.fd)


class Reader:
    """The worker's side of a board. A read of one that did not change takes 3 µs."""

    def __init__(self, fd: int) -> None:
        self._fd = fd
        self._seen = b""
        self._notice = Notice()

    def read(self) -> Notice:
        """Return what is on the board, or the last that was seen whole on it."""
        for _ in range(_LOOKS):
            data = os.pread(self._fd, _BOARD_BYTES, 0)
            if data == self._seen:
                break
            text = data[_CRC_BYTES:]
            if crc32(text) != int.from_bytes(data[:_CRC_BYTES], "big"):
                continue  # it is being written
            self._seen = data
            # Another version of the launcher may have written it; what it says that is not known here is passed over.
            with suppress(msgspec.DecodeError):
                self._notice = msgspec.json.decode(text, type=Notice)
            break
        return self._notice


@cache
def _inherited() -> Inherited | None:
    given = environment().get(LAUNCHED, "")
    return msgspec.json.decode(given, type=Inherited) if given else None


@cache
def _reader() -> Reader | None:
    inherited = _inherited()
    return None if inherited is None else Reader(inherited.notice)


def has_launcher() -> bool:
    """Tell whether a launcher started this process, or gunicorn alone."""
    return _inherited() is not None


def read() -> Notice:
    """Return what the launcher says; without one, that there is nothing."""
    reader = _reader()
    return Notice() if reader is None else reader.read()


def tell_ready() -> None:
    """Tell the launcher, if there is one, that this worker accepts connections."""
    inherited = _inherited()
    if inherited is not None:
        # A launcher that was killed reads no more; its master is told to stop by the kernel.
        with suppress(OSError):
            os.write(inherited.ready, b"%d\n" % os.getpid())
