"""
One append-only file of the spool: open, sealed, in flight, settled.

A segment belongs to a route. Only its state in memory changes when it is sealed; on tmpfs it stays the same
file until all its events are settled and it is unlinked.
"""

from __future__ import annotations

import errno
import mmap
import os
from collections.abc import Callable, Sequence
from pathlib import Path

import msgspec

from collector.buffer import frame as frames_
from collector.buffer.ticket import Ticket
from collector.errors import SpoolBroken, SpoolError, SpoolFull
from collector.event import Lines, Span
from collector.intervals import Intervals
from collector.outcome import Reason

Partition = tuple[str, int]

_NO_ROOM = frozenset({errno.ENOSPC, errno.EDQUOT, errno.EFBIG})
#: What is looked at between two breaths: so many frames, at about 7 µs each, or so many bytes, at 0.3 ms a MiB to check
#: their sums (measured on one slow core).
_FRAMES_A_BREATH, _BYTES_A_BREATH = 64, 1 << 20


class Piece(msgspec.Struct, frozen=True):
    """Lines of one frame: events `first` to `first + events` of their partition."""

    first: int
    events: int
    payload: memoryview


class Contents(msgspec.Struct, frozen=True):
    """
    What a read of a segment found.

    `pieces` are the sound frames by partition, `ends` one past the highest event number of each partition,
    sound or not, `accepted` the highest running count of each tenant, `corrupt` the offsets of what is no sound
    frame, and `tail` such a gap at the very end: an append that its writer did not live to finish.
    """

    pieces: dict[Partition, list[Piece]]
    ends: dict[Partition, int]
    accepted: dict[str, int]
    corrupt: list[int]
    tail: frames_.Gap | None

    def missing(self, counts: dict[Partition, int]) -> list[Span]:
        """Return the events that `counts` says are in the segment and no sound frame holds."""
        spans = []
        for (tenant_id, hour), count in counts.items():
            pieces, at = self.pieces.get((tenant_id, hour), ()), 0
            for piece in pieces:
                if piece.first != at:
                    break
                at += piece.events
            if at == count:
                # One after the other and to the end, as nearly always.
                continue
            found = Intervals()
            for piece in pieces:
                found.add(piece.first, piece.first + piece.events)
            spans += [Span(tenant_id, hour, first, last) for first, last in found.gaps(0, count)]
        return spans


class Segment:
    """
    One file of the spool.

    `counts` are events by partition and `sizes` bytes by tenant, as appended or as found; `pending` is how many
    events have met no fate yet. `opened_at` and
    `not_before` are monotonic seconds. A segment is `wanted` when an upload waits for its delivery, and
    `in_flight` while a reader is at work on it.
    """

    def __init__(self, path: Path, route: str, number: int) -> None:
        self.path = path
        self.route = route
        self.name = f"{path.parent.name}-{number:08d}"
        self.size = 0
        self.counts: dict[Partition, int] = {}
        self.sizes: dict[str, int] = {}
        self.settled: dict[Partition, Intervals] = {}
        self.pending = 0
        self._tickets: dict[Partition, list[Ticket]] = {}
        self.opened_at = 0.0
        self.not_before = 0.0
        self.attempts = 0
        self.in_flight = False
        self.wanted = False
        self._fd = -1

    @classmethod
    def create(cls, directory: Path, route: str, number: int, *, opened_at: float) -> Segment:
        """Open a new file for append; raises SpoolFull or SpoolBroken. `opened_at` is monotonic, in seconds."""
        segment = cls(directory / f"{number:08d}.{route}.seg", route, number)
        segment.opened_at = opened_at
        try:
            flags = os.O_RDWR | os.O_CREAT | os.O_EXCL | os.O_APPEND | os.O_CLOEXEC
            segment._fd = os.open(segment.path, flags, 0o600)
        except OSError as error:
            raise spool_error(error) from error
        return segment

    @classmethod
    def found(cls, path: Path) -> Segment:
        """Take a file that a dead writer left; what is in it, `load` tells."""
        number, route, _ = path.name.split(".")
        return cls(path, route, int(number))

    def append(self, uploads: Sequence[Lines], accepted: Sequence[int]) -> tuple[list[Span], dict[str, int]]:
        """
        Write uploads in one `write()`, whole or not at all; raises SpoolFull or SpoolBroken.

        `accepted` are the running counts of their tenants, each with its own events. Returns where the events of each
        upload lie, and how many bytes each tenant takes. Uploads of a partition share frames: to read one back costs
        7 µs, whatever is in it (measured).
        """
        # The last of each tenant: its frames lie in the order of its running count, if the clock is set back, too.
        drafts: dict[str, frames_.Draft] = {}
        ends: dict[Partition, int] = {}
        frames: list[frames_.Draft] = []
        spans: list[Span] = []
        for upload, running in zip(uploads, accepted, strict=True):
            partition = (upload.tenant_id, upload.received_us // frames_.US_PER_HOUR)
            draft = drafts.get(upload.tenant_id)
            if draft is None or draft.hour != partition[1] or draft.size + len(upload.payload) > frames_.SHARED_BYTES:
                first = ends.get(partition, self.counts.get(partition, 0))
                draft = drafts[upload.tenant_id] = frames_.Draft(partition, first, upload.received_us)
                frames.append(draft)
            spans.append(Span(*partition, draft.last, draft.last + upload.events))
            draft.add(upload, running)
            ends[partition] = draft.last
        parts: list[bytes] = []
        grown: dict[str, int] = {}
        for draft in frames:
            frame = draft.parts()
            parts += frame
            grown[draft.tenant_id] = grown.get(draft.tenant_id, 0) + sum(map(len, frame))
        self._write(b"".join(parts))
        for partition, last in ends.items():
            self.pending += last - self.counts.get(partition, 0)
            self.counts[partition] = last
        for tenant_id, size in grown.items():
            self.sizes[tenant_id] = self.sizes.get(tenant_id, 0) + size
        return spans, grown

    def _write(self, data: bytes) -> None:
        try:
            written = os.write(self._fd, data)
        except OSError as error:
            self._cut_back()
            raise spool_error(error) from error
        if written != len(data):
            self._cut_back()
            raise SpoolFull(f"the spool's file system took {written} of {len(data)} bytes: it has no room left")
        self.size += written

    def _cut_back(self) -> None:
        try:
            os.ftruncate(self._fd, self.size)
        except OSError as error:
            # What was written in part stays behind: no frame may follow it, so nothing more is appended here.
            self.seal()
            raise spool_error(error) from error

    @property
    def is_open(self) -> bool:
        """Tell whether it takes appends."""
        return self._fd >= 0

    def seal(self) -> None:
        """Take no more appends; safe to call twice."""
        if self._fd >= 0:
            os.close(self._fd)
            self._fd = -1

    def load(self, breathe: Callable[[], None] = lambda: None) -> Contents:
        """
        Read all that was appended, checking each frame; `breathe` is called now and then.

        Raises FileNotFoundError or another OSError when the file can't be read.
        """
        pieces: dict[Partition, list[Piece]] = {}
        ends: dict[Partition, int] = {}
        accepted: dict[str, int] = {}
        corrupt: list[int] = []
        tail = None
        data = self._map()
        breathe_at, since = _BYTES_A_BREATH, 0
        for one in frames_.frames(data):
            since += 1
            if since == _FRAMES_A_BREATH or one.offset >= breathe_at:
                breathe_at, since = one.offset + _BYTES_A_BREATH, 0
                breathe()
            if tail is not None:
                corrupt.append(tail.offset)
            if isinstance(one, frames_.Gap):
                tail = one
                continue
            tail = None
            tenant_id, first, events = one.tenant_id, one.first, one.events
            partition = (tenant_id, one.received_us // frames_.US_PER_HOUR)
            if first + events > ends.get(partition, 0):
                ends[partition] = first + events
            if one.accepted > accepted.get(tenant_id, 0):
                accepted[tenant_id] = one.accepted
            if not one.sound:
                corrupt.append(one.offset)
            elif partition in pieces:
                pieces[partition].append(Piece(first, events, one.payload))
            else:
                pieces[partition] = [Piece(first, events, one.payload)]
        return Contents(pieces, ends, accepted, corrupt, tail)

    def _map(self) -> bytes | mmap.mmap:
        """
        Return the file's bytes where they lie: a copy costs as much as all the rest of a load, most of it page faults.

        Nobody cuts off what may be read here; a stranger who did would end the process (SIGBUS), and its adopter would
        count what is gone.
        """
        file = os.open(self.path, os.O_RDONLY | os.O_CLOEXEC)
        try:
            # What lies beyond its size was refused, and could not be cut off.
            size = min(os.fstat(file).st_size, self.size)
            return mmap.mmap(file, size, mmap.MAP_SHARED | mmap.MAP_POPULATE, mmap.PROT_READ) if size else b""
        finally:
            os.close(file)

    def take_stock(self, contents: Contents, size: int) -> None:
        """Set a found segment's counts by what a read of it told and what is settled of it; `size` in bytes."""
        self.size = size
        for partition, ranges in self.settled.items():
            # What is settled was in the segment, even if its frames can't be read any more.
            contents.ends[partition] = max(contents.ends.get(partition, 0), *(last for _, last in ranges))
        self.counts = dict(contents.ends)
        self.pending = sum(self.counts.values()) - sum(map(len, self.settled.values()))
        for (tenant_id, _), pieces in contents.pieces.items():
            held = sum(len(piece.payload) for piece in pieces)
            self.sizes[tenant_id] = self.sizes.get(tenant_id, 0) + held

    def ticket(self, span: Span) -> Ticket:
        """Return a ticket for events just appended; `settle` tells it their fate."""
        ticket = Ticket(span)
        self._tickets.setdefault((span.tenant_id, span.hour), []).append(ticket)
        return ticket

    def settle(self, span: Span, rejected: dict[int, Reason]) -> int:
        """Note that events met their fate, tell the uploads that wait for it, and return how many are new."""
        partition = (span.tenant_id, span.hour)
        new = self.settled.setdefault(partition, Intervals()).add(span.first, span.last)
        self.pending -= new
        for ticket in self._tickets.get(partition, ()):
            ticket.settle(span, rejected)
        return new

    def pending_by(self) -> dict[str, int]:
        """Count the events without a fate, by tenant."""
        left: dict[str, int] = {}
        for partition, count in self.counts.items():
            left[partition[0]] = left.get(partition[0], 0) + count - len(self.settled.get(partition, ()))
        return left

    def unlink(self) -> None:
        """Remove the file; what it held is settled. A file that is gone already is no error."""
        self.seal()
        self.path.unlink(missing_ok=True)


def spool_error(error: OSError) -> SpoolError:
    """Say which of the spool's two errors a file system's error is."""
    if error.errno in _NO_ROOM:
        return SpoolFull(f"the spool's file system has no room: {error.strerror}")
    return SpoolBroken(f"the spool's file system refuses: {error.strerror} ({error.filename or 'write'})")
