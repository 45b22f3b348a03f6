"""
How uploads lie in a segment: a header with checksums, the tenant's id, and the finished lines.

    magic 4s │ payload bytes u32 │ events u32 │ first u32 │ accepted u64 │ received_us u64 │ payload sum u64 │
    tenant bytes u16 │ pad 2 │ head sum u32 │ tenant │ payload

`first` is the number of the frame's first event within its partition in this segment, so that a frame says
where it belongs whatever happened to the frames before it. `accepted` is the tenant's running count in the
writer's ledger, this frame included: written in the same `write()` as the events, it tells exactly how many
events there ever were, however the writer died. The magic starts with a byte that no UTF-8 text holds, so a
scan for the next frame is not fooled by an event. Little-endian; sums are XXH3. A frame holds one upload, or some that
one tenant sent at the same time.
"""

from __future__ import annotations

import mmap
import struct
from collections.abc import Iterator, Sequence

import msgspec
from xxhash import xxh3_64, xxh3_64_intdigest

from collector.event import Lines

MAGIC = b"\xff\xfeC1"
_HEAD = struct.Struct("<4sIIIQQQHxx")
_SUM = struct.Struct("<I")
_WHOLE_HEAD = struct.Struct(_HEAD.format + "I")
HEAD_BYTES = _HEAD.size + _SUM.size
US_PER_HOUR = 3_600_000_000
#: What uploads that came together may share a frame: it is what damage to one byte can cost, beside the one upload
#: that it costs in any case. A choice.
SHARED_BYTES = 64 * 1024


class Frame(msgspec.Struct, frozen=True):
    """
    One frame as found, from `offset` to `end` of the segment's bytes.

    `payload` is a view into them, and `sound` says that its sum fits.
    """

    offset: int
    tenant_id: str
    events: int
    first: int
    accepted: int
    received_us: int
    payload: memoryview
    sound: bool
    end: int

    @property
    def partition(self) -> tuple[str, int]:
        """Name the partition: tenant and UTC hour since the epoch."""
        return self.tenant_id, self.received_us // US_PER_HOUR


class Gap(msgspec.Struct, frozen=True):
    """Bytes between frames, or after the last one, that are no frame."""

    offset: int
    length: int


def parts(
    tenant: bytes, payloads: Sequence[bytes], *, events: int, first: int, accepted: int, received_us: int
) -> list[bytes]:
    """Return one frame, of the lines of one or more uploads, as what has to be joined."""
    payload_sum = xxh3_64(payloads[0])
    for payload in payloads[1:]:
        payload_sum.update(payload)
    head = _HEAD.pack(
        MAGIC,
        sum(map(len, payloads)),
        events,
        first,
        accepted,
        received_us,
        payload_sum.intdigest(),
        len(tenant),
    )
    return [head, _SUM.pack(xxh3_64_intdigest(head + tenant) & 0xFFFFFFFF), tenant, *payloads]


class Draft:
    """A frame that is to be written: events `first` to `last` (exclusive) of a partition, in `size` bytes."""

    __slots__ = ("_accepted", "_payloads", "_received_us", "first", "hour", "last", "size", "tenant_id")

    def __init__(self, partition: tuple[str, int], first: int, received_us: int) -> None:
        self.tenant_id, self.hour = partition
        self.first = self.last = first
        self.size = 0
        self._received_us = received_us
        self._accepted = 0
        self._payloads: list[bytes] = []

    def add(self, upload: Lines, accepted: int) -> None:
        """Take the lines of an upload in; `accepted` is its tenant's running count, with them."""
        self._payloads.append(upload.payload)
        self.size += len(upload.payload)
        self.last += upload.events
        self._accepted = accepted

    def parts(self) -> list[bytes]:
        """Return what has to be joined."""
        return parts(
            self.tenant_id.encode(),
            self._payloads,
            events=self.last - self.first,
            first=self.first,
            accepted=self._accepted,
            received_us=self._received_us,
        )


def frames(data: bytes | mmap.mmap) -> Iterator[Frame | Gap]:
    """
    Walk the frames of a segment and the gaps between them, to the end.

    A frame that reaches past the end is a gap: its writer died in the middle. A frame with a sound head and a
    payload that does not fit its sum is returned with `sound` false: its tenant and its count are known.
    """
    view = memoryview(data)
    at = 0
    while at < len(data):
        frame = _frame_at(data, view, at)
        if frame is None:
            following = _next_frame(data, view, at + 1)
            yield Gap(at, following - at)
            at = following
        else:
            yield frame
            at = frame.end


def _frame_at(data: bytes | mmap.mmap, view: memoryview, at: int) -> Frame | None:
    head = at + HEAD_BYTES
    if head > len(data):
        return None
    magic, size, events, first, accepted, received_us, payload_sum, tenant_bytes, head_sum = _WHOLE_HEAD.unpack_from(
        data, at
    )
    start = head + tenant_bytes
    end = start + size
    if magic != MAGIC or end > len(data):
        return None
    tenant = data[head:start]
    if xxh3_64_intdigest(data[at : at + _HEAD.size] + tenant) & 0xFFFFFFFF != head_sum:
        return None
    payload = view[start:end]
    sound = xxh3_64_intdigest(payload) == payload_sum
    return Frame(at, tenant.decode(), events, first, accepted, received_us, payload, sound, end)


def _next_frame(data: bytes | mmap.mmap, view: memoryview, at: int) -> int:
    while (at := data.find(MAGIC, at)) >= 0:
        if _frame_at(data, view, at) is not None:
            return at
        at += 1
    return len(data)
