"""
The ids that were seen lately: a table of fixed size on tmpfs that all workers of the task map.

    <spool>/dedupe/ids-1-<buckets>      1 is the shape of the file

A bucket has 512 bytes: the number of the row to be written next, and 15 rows of 32 bytes (key 16s, seen u32, owner u32,
segment u32, until u32). An id's bucket follows from its key. A bucket is a ring, so a table that is full forgets its
oldest ids first, and never grows, splits or has to be swept. Only the holder of the baton may use it.

Times are ticks of CLOCK_MONOTONIC, which all processes of a host share: a clock that is set changes no window.
"""

from __future__ import annotations

import mmap
import os
import struct
from collections.abc import Iterable, Sequence
from hashlib import blake2b
from pathlib import Path
from typing import NamedTuple

from xxhash import xxh3_128_digest

from collector.errors import SpoolBroken

#: The resolution of times. A u32 of them lasts 13 years.
TICKS_PER_S = 10
BUCKET_BYTES, ROW_BYTES, KEY_BYTES = 512, 32, 16
ROWS = BUCKET_BYTES // ROW_BYTES - 1
#: Below that a table is of no use: 1,920 rows.
LEAST_BYTES = 64 * 1024
_SHAPE = 1
_REST = struct.Struct("<IIII")
_LATEST = 0xFFFFFFFF


class Place(NamedTuple):
    """Where an event lies: its owner's directory, by a hash of its name, and the number of its segment."""

    owner: int
    segment: int


class Row(NamedTuple):
    """One id that was seen: where in the table, when (a tick), and where its event was put."""

    at: int
    seen: int
    place: Place


class SeenIds:
    """One worker's map of the table."""

    def __init__(self, directory: Path, size_bytes: int) -> None:
        buckets = max(size_bytes, LEAST_BYTES) // BUCKET_BYTES
        #: A power of two, so that a mask finds a bucket.
        self._buckets = 1 << (buckets.bit_length() - 1)
        self._mask = self._buckets - 1
        self._directory = directory
        self._path = directory / f"ids-{_SHAPE}-{self._buckets}"
        self._map: mmap.mmap | None = None
        self._cells = memoryview(b"").cast("I")
        self._salts: dict[str, tuple[bytes, bytes]] = {}
        #: Rows written over before their time: how often the table was too small.
        self.forgotten = 0

    @property
    def is_open(self) -> bool:
        """Tell whether it can be used."""
        return self._map is not None

    def open(self) -> None:
        """Make the table or map the one that is there, and remove those of another size; raises OSError."""
        self._directory.mkdir(parents=True, exist_ok=True, mode=0o700)
        fd = os.open(self._path, os.O_RDWR | os.O_CREAT | os.O_CLOEXEC, 0o600)
        try:
            # Laid out before it is mapped: a store to a page that a full tmpfs can't give is a SIGBUS.
            os.posix_fallocate(fd, 0, self._buckets * BUCKET_BYTES)
            self._map = mmap.mmap(fd, self._buckets * BUCKET_BYTES)
        finally:
            os.close(fd)
        self._cells = memoryview(self._map).cast("I")
        for other in self._directory.glob("ids-*"):
            if other != self._path:
                # Workers of the old size keep what they mapped until they end.
                other.unlink(missing_ok=True)

    def keys(self, tenant_id: str, tokens: Iterable[bytes]) -> list[bytes]:
        """
        Make the keys of a tenant's ids.

        Whoever knows the hash could make ids that have one key; the tenant's own part of the key is a hash that
        nobody can aim at, so that no device can shadow another tenant's ids.
        """
        salt, mark = self._salts.get(tenant_id) or self._salt(tenant_id)
        return [xxh3_128_digest(salt + token)[:12] + mark for token in tokens]

    def _salt(self, tenant_id: str) -> tuple[bytes, bytes]:
        name = tenant_id.encode()
        self._salts[tenant_id] = made = (name + b"\0", blake2b(name, digest_size=4).digest())
        return made

    def find(self, keys: Sequence[bytes], *, after: int, now: int) -> list[Row | None]:
        """Look each key up; a row that was seen before the tick `after`, or later than `now`, is none."""
        find, found = self._table().find, []
        for key, base in zip(keys, self.buckets(keys), strict=True):
            at = find(key, base + ROW_BYTES, base + BUCKET_BYTES)
            found.append(None if at < 0 else self._row(key, base, at, after, now))
        return found

    def _row(self, key: bytes, base: int, at: int, after: int, now: int) -> Row | None:
        """Return the newest row of a key, the first one being at `at`: an id that came back late has two."""
        table = self._table()
        newest: Row | None = None
        while at >= 0:
            # Else it is the bytes of two neighbours that look like a key.
            if (at - base) % ROW_BYTES == 0:
                seen, owner, segment, _ = _REST.unpack_from(table, at + KEY_BYTES)
                if after <= seen <= now and (newest is None or seen > newest.seen):
                    newest = Row(at, seen, Place(owner, segment))
            at = table.find(key, at + 1, base + BUCKET_BYTES)
        return newest

    def remember(self, keys: Sequence[bytes], *, seen: int, until: int, place: Place) -> None:
        """Write a row for each key; the oldest of its bucket gives way."""
        table, cells = self._table(), self._cells
        rest = _REST.pack(seen, *place, min(until, _LATEST))
        for key, base in zip(keys, self.buckets(keys), strict=True):
            head = base >> 2
            row = cells[head] % ROWS
            at = base + ROW_BYTES + row * ROW_BYTES
            if cells[at + KEY_BYTES + 12 >> 2] > seen:
                self.forgotten += 1
            cells[head] = row + 1
            table[at : at + ROW_BYTES] = key + rest

    def refresh(self, row: Row, *, seen: int, until: int) -> None:
        """Note that an id was seen again; where its event lies stays as it was."""
        at = row.at + KEY_BYTES >> 2
        self._cells[at], self._cells[at + 3] = seen, min(until, _LATEST)

    def _table(self) -> mmap.mmap:
        if self._map is None:
            raise SpoolBroken(f"the ids in {self._path} are not open; open comes first")
        return self._map

    def buckets(self, keys: Sequence[bytes]) -> list[int]:
        """Say where the bucket of each key begins."""
        mask = self._mask
        # In C for all at once: every fourth word is the first one of a key.
        return [(word & mask) * BUCKET_BYTES for word in memoryview(b"".join(keys)).cast("I")[::4].tolist()]

    def close(self) -> None:
        """Let the table go, which stays for the others; safe to call twice."""
        self._cells.release()
        self._cells = memoryview(b"").cast("I")
        if self._map is not None:
            self._map.close()
            self._map = None
