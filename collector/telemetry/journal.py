"""
The durable half of the ledger: what became of events, one checksummed line a settlement, on tmpfs.

A line is `<xxh3 of the JSON, 16 hex digits> <JSON>`. The file is laid out in advance, zeros at its end, so that
settling works while the file system is full. A line that its writer did not live to finish fits no checksum and
ends the file.
"""

from __future__ import annotations

import contextlib
import errno
import os
from collections.abc import Iterable, Iterator
from pathlib import Path

import msgspec
from xxhash import xxh3_64_hexdigest

from collector.event import Span
from collector.intervals import Intervals

#: Bytes laid out in advance. A settlement of one tenant takes about 150.
_RESERVE_BYTES = 128 * 1024

#: The count of each fate by its name, by tenant.
Fates = dict[str, dict[str, int]]


class Settlement(msgspec.Struct, frozen=True, omit_defaults=True):
    """Events of one segment that met their fate; without a segment, a correction of the accounts alone."""

    fates: Fates
    segment: str = ""
    spans: tuple[Span, ...] = ()


class Saved(msgspec.Struct, frozen=True):
    """`State` as it is written."""

    fates: Fates
    segments: dict[str, tuple[Span, ...]]


#: What is settled of one segment, by tenant and hour.
Settled = dict[tuple[str, int], Intervals]


class State:
    """All settlements so far: the sums of fates, and what is settled of the segments that still exist."""

    def __init__(self, saved: Saved | None = None) -> None:
        self.fates: Fates = {} if saved is None else saved.fates
        self.segments: dict[str, Settled] = {}
        for name, spans in ({} if saved is None else saved.segments).items():
            self._settle(name, spans)

    def add(self, settlement: Settlement) -> None:
        """Fold one more settlement in."""
        for tenant_id, counts in settlement.fates.items():
            sums = self.fates.setdefault(tenant_id, {})
            for fate, count in counts.items():
                sums[fate] = sums.get(fate, 0) + count
        if settlement.segment:
            self._settle(settlement.segment, settlement.spans)

    def _settle(self, segment: str, spans: Iterable[Span]) -> None:
        settled = self.segments.setdefault(segment, {})
        for span in spans:
            settled.setdefault((span.tenant_id, span.hour), Intervals()).add(span.first, span.last)

    def saved(self) -> Saved:
        """Return what a compacted journal begins with."""
        return Saved(self.fates, {name: tuple(spans_of(settled)) for name, settled in self.segments.items()})


def spans_of(settled: Settled) -> Iterator[Span]:
    """List what is settled of one segment."""
    for (tenant_id, hour), ranges in settled.items():
        for first, last in ranges:
            yield Span(tenant_id, hour, first, last)


class Journal:
    """One writer's settlements; the lock of the directory keeps a second writer out."""

    def __init__(self, path: Path) -> None:
        self.path = path
        self._fd = -1
        self._at = 0
        self._laid_out = 0
        self._compact_at = 0
        self.state = State()

    def start(self) -> None:
        """Create the file, or read the one that is there; raises OSError."""
        self._fd = os.open(self.path, os.O_RDWR | os.O_CREAT | os.O_CLOEXEC, 0o600)
        self._laid_out = os.fstat(self._fd).st_size
        if self._laid_out == 0:
            self._lay_out(_RESERVE_BYTES)
        self.state, self._at = read(self.path)
        self._compact_at = max(_RESERVE_BYTES // 2, 4 * self._at)

    def write(self, settlement: Settlement) -> None:
        """Make one settlement durable, then count it; raises OSError, and then nothing happened."""
        self._write(_line(msgspec.json.encode({"settled": settlement})))
        self.state.add(settlement)
        if self._at > self._compact_at:
            self.compact()

    def _write(self, line: bytes) -> None:
        if self._at + len(line) > self._laid_out:
            self._lay_out(max(_RESERVE_BYTES, len(line)))
        if os.pwrite(self._fd, line, self._at) != len(line):
            # What was written of it fits no checksum, and the next line is written over it.
            raise OSError(errno.ENOSPC, "only a part of a line was written", str(self.path))
        self._at += len(line)

    def _lay_out(self, more: int) -> None:
        os.posix_fallocate(self._fd, self._laid_out, more)
        self._laid_out += more

    def compact(self) -> None:
        """Write the sums to a new file and put it in the old one's place; without room, leave the old one."""
        new = Journal(self.path.with_suffix(".new"))
        line = _line(msgspec.json.encode({"state": self.state.saved()}))
        self._compact_at = self._at * 2
        with contextlib.suppress(OSError):
            new.path.unlink(missing_ok=True)
            new._fd = os.open(new.path, os.O_RDWR | os.O_CREAT | os.O_EXCL | os.O_CLOEXEC, 0o600)
            try:
                new._lay_out(_RESERVE_BYTES)
                new._write(line)
                os.rename(new.path, self.path)
            except OSError:
                new.close()
                new.path.unlink(missing_ok=True)
                raise
            self.close()
            self._fd, self._at, self._laid_out = new._fd, new._at, new._laid_out
            self._compact_at = max(_RESERVE_BYTES // 2, 4 * self._at)

    def forget(self, segment: str) -> None:
        """Drop what is known of a segment that was unlinked; the next compaction leaves it out."""
        self.state.segments.pop(segment, None)

    def close(self) -> None:
        """Close the file; safe to call twice."""
        if self._fd >= 0:
            os.close(self._fd)
            self._fd = -1


def _line(record: bytes) -> bytes:
    return b"%s %s\n" % (xxh3_64_hexdigest(record).encode(), record)


def read(path: Path) -> tuple[State, int]:
    """Read a journal up to its first line that is not whole; return the sums and where that line starts."""
    state, at = State(), 0
    for line in path.read_bytes().split(b"\n"):
        digest, _, record = line.partition(b" ")
        if not record or digest != xxh3_64_hexdigest(record).encode():
            break
        entry = msgspec.json.decode(record, type=_Entry)
        if entry.state is not None:
            state = State(entry.state)
        if entry.settled is not None:
            state.add(entry.settled)
        at += len(line) + 1
    return state, at


class _Entry(msgspec.Struct):
    settled: Settlement | None = None
    state: Saved | None = None
