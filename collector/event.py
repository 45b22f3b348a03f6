"""
Events on their way in (`Event`, `Envelope`, `Lines`) and on their way out (`Span`, `Batch`).
"""

from __future__ import annotations

import msgspec


class Event(msgspec.Struct, frozen=True, gc=False):
    """
    One device event, as sent.

    `index` is its place in the upload, from 0. `id` is a JSON string token, quotes included, ready to be copied into a
    line. `body` is the JSON object byte for byte, with line breaks between tokens made spaces; it may be a `Raw` of
    msgspec's, a slice that holds the whole upload. An event is `is_named`
    when whoever sent it says who it is, so that sent again it has the same id; else its id is like no other.
    """

    index: int
    id: bytes
    body: bytes
    is_named: bool = True


class Envelope(msgspec.Struct, frozen=True):
    """One decoded upload of one tenant. `received_us` is microseconds since the epoch."""

    tenant_id: str
    protocol: str
    receipt: str
    received_us: int
    remote_ip: str
    events: list[Event]


class Lines(msgspec.Struct, frozen=True):
    """The finished lines of one upload, on their way into the spool; `received_us` is microseconds since the epoch."""

    tenant_id: str
    payload: bytes
    events: int
    received_us: int


class Span(msgspec.Struct, frozen=True, order=True):
    """
    Where events lie in a segment: `first` to `last` (exclusive) of one partition.

    A partition is what a tenant sent in one UTC hour (`hour` counts hours since the epoch); events of a
    partition are numbered from 0 within the segment, in the order of their arrival.
    """

    tenant_id: str
    hour: int
    first: int
    last: int

    def __len__(self) -> int:
        return self.last - self.first


class Batch(msgspec.Struct, frozen=True):
    """
    The unit of write and retry: lines of one segment, within one sink's limits.

    `name` is unique in the world and the same whenever the same events are read again, so that a sink which
    names objects by it writes a repeat over the first. `pieces` are NDJSON, each line ended by a newline, where they
    lie in the spool. `spans` cover the lines in order. There is one partition if the sink's `Limits` are
    `partitioned`, one hour if they are `hourly`.
    """

    name: str
    segment: str
    spans: tuple[Span, ...]
    pieces: tuple[bytes | memoryview, ...]

    def __len__(self) -> int:
        return sum(map(len, self.spans))

    @property
    def size(self) -> int:
        """Return how many bytes its lines have."""
        return sum(map(len, self.pieces))

    @property
    def payload(self) -> bytes:
        """Put the pieces together, anew each time: for who needs them in one, at about 1 ms a MiB."""
        return b"".join(self.pieces)

    def lines(self) -> list[bytes]:
        """Split the payload into lines without their newlines."""
        return self.payload.split(b"\n")[:-1]
