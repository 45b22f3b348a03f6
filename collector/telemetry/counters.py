"""
The visible half of the ledger: one row of counters a tenant in a memory-mapped file on tmpfs.

Any process reads it at any moment; it outlives its writer. A row holds a sequence number that is odd while its
writer is at work on it, then the columns. Each store is one aligned eight-byte store (`memoryview.cast("q")`;
`struct.pack_into` with a byte order stores byte by byte). A number may be below 0: who sends on what another has
rescued takes it off there in its own books, and only the sum over all books counts.
"""

from __future__ import annotations

import contextlib
import errno
import mmap
import os
import struct
import threading
from collections.abc import Sequence
from pathlib import Path

import msgspec

from collector.outcome import FATES

#: What a row counts: events, one column for each fate, and copies of events that were here already. `accepted` counts
#: what was kept, as the frames in the spool do; whoever shows it to people adds the copies.
COLUMNS: tuple[str, ...] = ("accepted", "pending", *(fate.name for fate in FATES), "deduplicated")

_HEADER_BYTES = 4096
_NAME_BYTES = 64
_ROW_CELLS = 32
_ROW_BYTES = 8 * _ROW_CELLS
_CELLS = struct.Struct(f"={_ROW_CELLS}q")
_SEQ = _NAME_BYTES // 8
_FIRST = _SEQ + 1
_ROWS_AT_FIRST = 16
#: How often a reader looks again at a row that its writer is at work on: first at once, for a writer needs under 1 µs;
#: then with rests of so many seconds, for the writer may have lost its core in the middle, for some milliseconds.
_LOOKS_AT_ONCE, _LOOKS, _REST_S = 20, 120, 0.001

assert len(COLUMNS) + _FIRST <= _ROW_CELLS  # noqa: S101 - the file's layout, checked where it is laid out

Row = dict[str, int]


class _Header(msgspec.Struct):
    columns: tuple[str, ...]


class CounterFile:
    """The writer's side: one process at a time, the holder of the directory's lock."""

    def __init__(self, path: Path) -> None:
        self._path = path
        self._fd = -1
        self._map: mmap.mmap | None = None
        self._cells = memoryview(b"")
        self._rows: dict[str, int] = {}
        self._capacity = 0

    def start(self) -> None:
        """Create the file, or take over the one that is there, of another version too; raises OSError."""
        self._renew()
        self._fd = os.open(self._path, os.O_RDWR | os.O_CREAT | os.O_CLOEXEC, 0o600)
        size = os.fstat(self._fd).st_size
        if size < _HEADER_BYTES + _ROW_BYTES:
            self._grow(_ROWS_AT_FIRST)
            header = msgspec.json.encode(_Header(COLUMNS)).ljust(_HEADER_BYTES - 1) + b"\n"
            if os.pwrite(self._fd, header, 0) != len(header):
                raise OSError(errno.ENOSPC, "only a part of the header was written", str(self._path))
        else:
            self._remap((size - _HEADER_BYTES) // _ROW_BYTES)
            names = _names(os.pread(self._fd, size, 0))
            self._rows = {name: n for n, name in enumerate(names)}

    def _renew(self) -> None:
        """Put a file with today's columns in the place of one with others."""
        with contextlib.suppress(FileNotFoundError):
            if self._path.stat().st_size < _HEADER_BYTES + _ROW_BYTES or columns_of(self._path) == COLUMNS:
                return
            new = CounterFile(self._path.with_suffix(".new"))
            new._path.unlink(missing_ok=True)
            new.start()
            for tenant_id, shown in read(self._path).items():
                new.write(new.row(tenant_id), [shown.get(column, 0) for column in COLUMNS])
            new.close()
            new._path.rename(self._path)

    def _grow(self, capacity: int) -> None:
        # Pages are laid out before they are mapped: a store to a page that a full tmpfs can't give is a SIGBUS.
        os.posix_fallocate(self._fd, 0, _HEADER_BYTES + capacity * _ROW_BYTES)
        self._remap(capacity)

    def _remap(self, capacity: int) -> None:
        # The old one is let go of when the new one is there: without either, nothing could be counted any more.
        new = mmap.mmap(self._fd, _HEADER_BYTES + capacity * _ROW_BYTES)
        self._release()
        self._map = new
        self._cells = memoryview(self._map).cast("q")
        self._capacity = capacity

    def row(self, tenant_id: str) -> int:
        """Return the number of the tenant's row, a new one if there is none; raises OSError without room."""
        row = self._rows.get(tenant_id)
        if row is None:
            row = len(self._rows)
            if row == self._capacity:
                self._grow(2 * self._capacity)
            name = tenant_id.encode().ljust(_NAME_BYTES, b"\0")
            at = (_HEADER_BYTES + row * _ROW_BYTES) // 8
            self._cells[at : at + _SEQ] = memoryview(name).cast("q")
            self._rows[tenant_id] = row
        return row

    def write(self, row: int, values: Sequence[int], *, first: int = 0) -> None:
        """Show new values of a row, in the order of `COLUMNS` from the `first` on; the others stay."""
        cells, at = self._cells, (_HEADER_BYTES + row * _ROW_BYTES) // 8 + _SEQ
        seq = cells[at] | 1
        cells[at] = seq
        for n, value in enumerate(values, at + 1 + first):
            cells[n] = value
        cells[at] = seq + 1

    def add(self, row: int, accepted: int, pending: int) -> None:
        """Show new values of the first two columns alone: what an append changes."""
        cells, at = self._cells, (_HEADER_BYTES + row * _ROW_BYTES) // 8 + _SEQ
        seq = cells[at] | 1
        cells[at] = seq
        cells[at + 1] = accepted
        cells[at + 2] = pending
        cells[at] = seq + 1

    def _release(self) -> None:
        self._cells.release()
        self._cells = memoryview(b"")
        if self._map is not None:
            self._map.close()
            self._map = None

    def close(self) -> None:
        """Unmap and close; safe to call twice."""
        self._release()
        if self._fd >= 0:
            os.close(self._fd)
            self._fd = -1


def _names(data: bytes) -> list[str]:
    names = []
    for at in range(_HEADER_BYTES, len(data) - _ROW_BYTES + 1, _ROW_BYTES):
        name = data[at : at + _NAME_BYTES].rstrip(b"\0")
        if not name:
            break
        names.append(name.decode(errors="replace"))
    return names


def columns_of(path: Path) -> tuple[str, ...]:
    """Read which columns a file has, none if its writer died before it had any; raises OSError."""
    with path.open("rb") as file:
        return _columns(file.read(_HEADER_BYTES))


def _columns(head: bytes) -> tuple[str, ...]:
    try:
        return msgspec.json.decode(head, type=_Header).columns
    except msgspec.DecodeError:
        # Nothing was counted yet: the header comes before the first row.
        return ()


def read(path: Path) -> dict[str, Row]:
    """
    Read every row as its writer last left it; raises OSError.

    A file of another version of Collector is read by the column names in its header. A row that stays odd was
    left so by a writer that died in the middle: it is returned as it is, and adoption writes it anew.
    """
    fd = os.open(path, os.O_RDONLY | os.O_CLOEXEC)
    try:
        size = os.fstat(fd).st_size
        # Twice all of it: ten thousand rows one by one would take six times as long, and few change meanwhile.
        data, again = os.pread(fd, size, 0), os.pread(fd, size, 0)
        columns = _columns(data[:_HEADER_BYTES])
        rows: dict[str, Row] = {}
        for n, name in enumerate(_names(data)):
            at = _HEADER_BYTES + n * _ROW_BYTES
            cells = _CELLS.unpack_from(data, at)
            if cells[_SEQ] % 2 or data[at : at + _ROW_BYTES] != again[at : at + _ROW_BYTES]:
                cells = _steady(fd, at, again[at : at + _ROW_BYTES])
            rows[name] = dict(zip(columns, cells[_FIRST:], strict=False))
        return rows
    finally:
        os.close(fd)


def _steady(fd: int, at: int, seen: bytes) -> tuple[int, ...]:
    """Read a row until it is the same twice, and its writer is not at work on it."""
    for look in range(_LOOKS):
        again = os.pread(fd, _ROW_BYTES, at)
        if again == seen and _CELLS.unpack(seen)[_SEQ] % 2 == 0:
            break
        seen = again
        if look >= _LOOKS_AT_ONCE:
            # Patched in a worker: the others have their turn meanwhile.
            threading.Event().wait(_REST_S)
    return _CELLS.unpack(seen)
