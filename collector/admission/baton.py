"""
The baton: whose turn it is at the ids of the task, and what its holder is about to append.

    <spool>/dedupe/baton    held by flock for the microseconds of a claim

The kernel frees the lock when its holder dies, however it dies. Before its holder appends, it writes down where; after
the ids are remembered, it strikes that out. Who takes the baton and finds such an intent knows that its predecessor
died in between.
"""

from __future__ import annotations

import fcntl
import mmap
import os
import threading
from pathlib import Path

import msgspec

from collector.clock import Clock

#: An owner's directory and a segment's file name are at most 255 bytes each, and a slash.
_FILE_BYTES = 4096
_PLACE_AT, _PLACE_BYTES = 32, 512
#: Words at the head: is there an intent, its offset, when its events came, the length of its file's name.
_IS_SET, _OFFSET, _SEEN, _LENGTH = range(4)
#: The lock is asked for so often at once, a microsecond each: a claim takes some ten. Then with rests, in seconds, that
#: grow up to the longest: its holder has lost its core, or is stopped.
_TRIES_AT_ONCE = 16
_FIRST_REST_S, _LONGEST_REST_S = 0.0002, 0.005


class Intent(msgspec.Struct, frozen=True):
    """An append that has begun: `file` below the owners' directory, its size before, and the tick of the claim."""

    file: str
    offset: int
    seen: int


class Baton:
    """One worker's grip on the baton. Whoever has it may use the ids; nobody else."""

    def __init__(self, path: Path, clock: Clock) -> None:
        self._path = path
        self._clock = clock
        self._fd = -1
        self._map: mmap.mmap | None = None
        self._words = memoryview(b"").cast("Q")
        # The kernel's lock tells processes apart and not the threads of one. In a worker nobody waits for it long: who
        # has it gives it back before another greenlet runs.
        self._mine = threading.Lock()

    @property
    def path(self) -> Path:
        """Return the file."""
        return self._path

    def open(self) -> None:
        """Open or make the file; raises OSError. Safe to call twice."""
        if self._fd >= 0:
            return
        self._path.parent.mkdir(parents=True, exist_ok=True, mode=0o700)
        fd = os.open(self._path, os.O_RDWR | os.O_CREAT | os.O_CLOEXEC, 0o600)
        try:
            # A store to a page that a full tmpfs can't give is a SIGBUS: the page is taken here.
            os.posix_fallocate(fd, 0, _FILE_BYTES)
            self._map = mmap.mmap(fd, _FILE_BYTES)
        except OSError:
            os.close(fd)
            raise
        self._words = memoryview(self._map).cast("Q")
        self._fd = fd

    def take(self, wait_s: float) -> bool:
        """Take it, waiting at most so long; return whether it was to be had. The file must be open."""
        if not self._mine.acquire(blocking=False) and not self._mine.acquire(timeout=wait_s):
            return False
        until, tries, rest_s, rested_s = 0.0, 0, _FIRST_REST_S, 0.0
        while True:
            try:
                fcntl.flock(self._fd, fcntl.LOCK_EX | fcntl.LOCK_NB)
            except BlockingIOError:
                tries += 1
                until = until or self._clock.monotonic() + wait_s
            except BaseException:
                self._mine.release()
                raise
            else:
                return True
            if rested_s >= wait_s or self._clock.monotonic() > until:
                self._mine.release()
                return False
            if tries >= _TRIES_AT_ONCE:
                # Patched in a worker: the others have their turn meanwhile.
                threading.Event().wait(rest_s)
                rested_s += rest_s
                rest_s = min(2 * rest_s, _LONGEST_REST_S)

    def give_back(self) -> None:
        """Let the next one have it."""
        fcntl.flock(self._fd, fcntl.LOCK_UN)
        self._mine.release()

    @property
    def intent(self) -> Intent | None:
        """
        Return what its holder was about to append, and has not struck out.

        Who does not have it may look, too, once the one who wrote it is known to be dead.
        """
        words, map_ = self._words, self._map
        if map_ is None or not words[_IS_SET]:
            return None
        length = min(words[_LENGTH], _PLACE_BYTES)
        file = map_[_PLACE_AT : _PLACE_AT + length].decode(errors="replace")
        return Intent(file, words[_OFFSET], words[_SEEN])

    def intend(self, intent: Intent) -> None:
        """Write down what will be appended; only with the baton."""
        words, map_ = self._words, self._map
        name = intent.file.encode()
        if map_ is None or len(name) > _PLACE_BYTES:
            raise ValueError(f"{intent.file[:80]} can't be written down as an intent")
        map_[_PLACE_AT : _PLACE_AT + len(name)] = name
        words[_OFFSET], words[_SEEN], words[_LENGTH] = intent.offset, intent.seen, len(name)
        # Last: before this store there is no intent, and nothing was appended.
        words[_IS_SET] = 1

    def strike_out(self) -> None:
        """Say that what was intended is done, or was not done at all; only with the baton."""
        self._words[_IS_SET] = 0

    def close(self) -> None:
        """Let the file go; safe to call twice."""
        self._words.release()
        self._words = memoryview(b"").cast("Q")
        if self._map is not None:
            self._map.close()
            self._map = None
        if self._fd >= 0:
            os.close(self._fd)
            self._fd = -1
