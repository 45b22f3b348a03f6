"""
What becomes of rescued batches later: notes by which the ledger moves their events on from `rescued`, once.

    <spool>/rescued/<owner>     a line for each batch of a segment of the owner's that was rescued, or sent on

Who settles a batch as rescued notes it, and so does who has sent one on and taken it away: another worker maybe, later
or at the same time. Whoever comes second finds the other's line, and moves the events in its own books, after its own
line is written. A death at any step leaves them `rescued`; a batch that is met again finds nothing more to move.
Batches of another spool are known by their owners' names, which have nothing here. Nothing is noted before somebody
who sends on has made the folder.
"""

from __future__ import annotations

import contextlib
import fcntl
import os
import re
import threading
from collections.abc import Iterator, Mapping
from pathlib import Path

from collector.outcome import DELIVERED

#: What all notes may take, in bytes, at some 60 a batch; what is not noted stays `rescued`. As much again is there for
#: what is sent on. A choice: 35,000 batches, which take 90 ms to read the first time (measured).
MOST_BYTES = 2 * 1024 * 1024
#: How often the lock of notes is asked for, and the seconds between. Whoever has it needs some 0.1 ms; a holder that is
#: stopped holds nobody up for longer.
_LOOKS, _REST_S = 100, 0.002
_BATCH = re.compile(r"(?P<owner>.+)-(?P<rest>\d{8,}-[0-9a-f]{8}-\d{8,}-\d{8,})")
_RESCUED, _SENT = "rescued", "sent"
#: A line without it is one that its writer did not live to finish.
_END = ";"

#: Events by the names of their fates.
Counts = dict[str, int]


class _Notes:
    """The notes on one owner's batches, as far as they were read."""

    def __init__(self) -> None:
        self.inode = -1
        self.read_to = 0
        #: Of each batch, events that were rescued and not sent on, or sent on and not (yet) known as rescued.
        self.rescued: dict[str, int] = {}
        self.sent: dict[str, Counts] = {}

    def read(self, fd: int) -> None:
        """Read on from where the last look ended."""
        stat = os.fstat(fd)
        if stat.st_ino != self.inode:
            self.inode, self.read_to = stat.st_ino, 0
            self.rescued, self.sent = {}, {}
        data = os.pread(fd, stat.st_size - self.read_to, self.read_to)
        self.read_to += len(data)
        for line in data.decode(errors="replace").split("\n"):
            self.add(line)

    def add(self, line: str) -> Counts:
        """Fold a line in, and return the events that move by it, by their last fate."""
        if not line.endswith(_END):
            return {}
        verb, batch, *counts = line[:-1].split(" ")
        if verb == _RESCUED:
            self.rescued[batch] = self.rescued.get(batch, 0) + int(counts[0])
        else:
            sent = self.sent.setdefault(batch, {})
            for fate, _, count in (word.partition("=") for word in counts):
                sent[fate] = sent.get(fate, 0) + int(count)
        return self._move(batch) if batch in self.rescued and batch in self.sent else {}

    def _move(self, batch: str) -> Counts:
        """Match what was rescued and what was sent on, as far as they go."""
        moved: Counts = {}
        sent, left = self.sent.pop(batch), self.rescued.pop(batch)
        # What was delivered comes last: of a batch with more lines than were rescued, nobody can say which was refused.
        for fate in sorted(sent, key=lambda fate: (fate == DELIVERED.name, fate)):
            count = min(left, sent[fate])
            moved[fate] = count
            left -= count
            sent[fate] -= count
        if left:
            self.rescued[batch] = left
        elif any(sent.values()):
            self.sent[batch] = {fate: count for fate, count in sent.items() if count}
        return {fate: count for fate, count in moved.items() if count}


class Homecoming:
    """The notes of a spool; each process that holds books of it has one."""

    def __init__(self, root: Path) -> None:
        self._folder = root / "rescued"
        self._owners = root / "owners"
        self._notes: dict[str, _Notes] = {}

    def start(self) -> None:
        """Let batches be noted from now on; raises OSError."""
        self._folder.mkdir(parents=True, exist_ok=True, mode=0o700)

    def rescued(self, batches: Mapping[str, int]) -> dict[str, Counts]:
        """Note events of batches as settled so, and return those that were sent on already: they are ours to move."""
        lines = {batch: str(count) for batch, count in batches.items() if count}
        return self._write(_RESCUED, lines, MOST_BYTES)

    def sent(self, batch: str, fates: Mapping[str, int]) -> Counts:
        """Note events of a batch as sent on, by their fates, and return those that are ours to move."""
        counts = " ".join(f"{fate}={count}" for fate, count in fates.items() if count)
        return self._write(_SENT, {batch: counts} if counts else {}, 2 * MOST_BYTES).get(batch, {})

    def _write(self, verb: str, counts: Mapping[str, str], most_bytes: int) -> dict[str, Counts]:
        """Write a line about each batch; what can't be noted stays as it is."""
        by_owner: dict[str, dict[str, str]] = {}
        for batch, count in counts.items():
            if match := _BATCH.fullmatch(batch):
                by_owner.setdefault(match["owner"], {})[batch] = f"{verb} {match['rest']} {count}{_END}"
        moved: dict[str, Counts] = {}
        for owner, lines in by_owner.items():
            # A full spool takes no notes, and one without anybody who sends on has no place for them.
            with contextlib.suppress(OSError), self._opened(owner) as fd:
                notes = self._notes.setdefault(owner, _Notes())
                notes.read(fd)
                # The first line break ends what a writer left that died in the middle.
                data = "".join(f"\n{line}\n" for line in lines.values()).encode()
                if self._size() + len(data) <= most_bytes and os.write(fd, data) == len(data):
                    notes.read_to += len(data)
                    moved |= {batch: found for batch, line in lines.items() if (found := notes.add(line))}
                self._forget_if_over(owner, notes)
        return moved

    @contextlib.contextmanager
    def _opened(self, owner: str) -> Iterator[int]:
        """Open and lock the notes on an owner's batches; raises OSError, also for an owner who is not of this spool."""
        path = self._folder / owner
        flags = os.O_RDWR | os.O_APPEND | os.O_CLOEXEC
        if (self._owners / owner).is_dir():
            flags |= os.O_CREAT
            if not path.exists():
                self._make_room()
        for _ in range(_LOOKS):
            fd = os.open(path, flags, 0o600)
            try:
                _lock(fd)
                # Between the open and the lock another may have removed it.
                if os.fstat(fd).st_nlink:
                    yield fd
                    return
            finally:
                os.close(fd)
        raise FileNotFoundError(path)

    def _size(self) -> int:
        size = 0
        for path in self._folder.iterdir():
            # Another may remove it meanwhile.
            with contextlib.suppress(FileNotFoundError):
                size += path.stat().st_size
        return size

    def _make_room(self) -> None:
        """Let the notes on the oldest owners go, when there is not half of the room for those on another."""
        for oldest in sorted(self._folder.iterdir()):
            if self._size() <= MOST_BYTES // 2:
                return
            oldest.unlink(missing_ok=True)

    def _forget_if_over(self, owner: str, notes: _Notes) -> None:
        """Remove notes that nobody waits for: all is moved, or can't be any more, for its owner's books are closed."""
        if not notes.rescued and not (notes.sent and (self._owners / owner).is_dir()):
            (self._folder / owner).unlink(missing_ok=True)
            self._notes.pop(owner, None)


def _lock(fd: int) -> None:
    for look in range(_LOOKS):
        try:
            fcntl.flock(fd, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError:
            if look + 1 == _LOOKS:
                raise
            # Patched in a worker: the others have their turn meanwhile.
            threading.Event().wait(_REST_S)
        else:
            return
