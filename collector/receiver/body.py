"""
Reads a request's body: whole, in time, within its limit, or not at all.
"""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from typing import Protocol

from collector.errors import BadUpload
from collector.outcome import Reason

#: How much is asked of the stream at once: a slow client holds no more than this beyond what is counted.
_STEP_BYTES = 64 * 1024
#: The first bytes of each body are not counted, so that large bodies which stall can't keep small uploads out. A body
#: that is no larger is read before its request takes its turn.
FREE_BYTES = 32 * 1024


class Stream(Protocol):
    """What a door hands over: `read` gives up to that many bytes, and nothing at the end of the body."""

    def read(self, size: int, /) -> bytes:
        """Read; raises BadUpload when the body breaks off or is too slow."""


class BodyRoom:
    """A bound on the bytes of all bodies that one worker reads and works on at once."""

    def __init__(self, limit_bytes: int) -> None:
        self._limit = limit_bytes
        self.held = 0

    @contextmanager
    def hold(self) -> Iterator[Place]:
        """Give a body a place, for as long as it is read and worked on."""
        place = Place(self)
        try:
            yield place
        finally:
            place.free()

    def take(self, size: int) -> None:
        """Count bytes that arrived; raises BadUpload when there is no room for them."""
        if self.held + size > self._limit:
            raise BadUpload(Reason.BACKPRESSURE, "too many large uploads are being read at once: send again later")
        self.held += size

    def give_back(self, size: int) -> None:
        """Take bytes off that are done with."""
        self.held -= size


class Place:
    """What one body holds of the room."""

    def __init__(self, room: BodyRoom) -> None:
        self._room = room
        self._size = 0
        self.counted = 0

    def free(self) -> None:
        """Leave: the body is done with."""
        self._room.give_back(self.counted)
        self._size = self.counted = 0

    def grow(self, size: int) -> None:
        """Count bytes of this body as they arrive; raises BadUpload when there is no room for them."""
        self._size += size
        more = max(0, self._size - FREE_BYTES) - self.counted
        if more > 0:
            self._room.take(more)
            self.counted += more

    def is_counted(self, size: int) -> bool:
        """Tell whether a body of `size` bytes has arrived and found room."""
        return self._size >= size and self.counted >= size - FREE_BYTES


def read_body(stream: Stream, content_length: int | None, limit: int, place: Place) -> bytes:
    """
    Return the whole body; `content_length` is None for a chunked one.

    Raises BadUpload: TOO_LARGE above `limit` bytes, MALFORMED for a body that ends before its length, which gunicorn
    hands over as if it were whole, and BACKPRESSURE when bodies take up all the room there is.
    """
    if content_length is not None and content_length > limit:
        raise _too_large(f"{content_length} bytes", limit)
    # One byte more than may come tells a chunked body over the limit from one at it.
    wanted = limit + 1 if content_length is None else content_length
    parts: list[bytes] = []
    got = 0
    while got < wanted:
        part = stream.read(min(wanted - got, _STEP_BYTES))
        if not part:
            break
        place.grow(len(part))
        parts.append(part)
        got += len(part)
    if content_length is None and got > limit:
        raise _too_large(f"over {limit} bytes", limit)
    if content_length is not None and got < content_length:
        raise BadUpload(
            Reason.MALFORMED,
            f"the body ended after {got} of the {content_length} bytes of its Content-Length: send it whole",
        )
    return parts[0] if len(parts) == 1 else b"".join(parts)


def _too_large(size: str, limit: int) -> BadUpload:
    return BadUpload(
        Reason.TOO_LARGE, f"the upload has {size}; the limit is {limit} as sent: send fewer events at once"
    )
