"""
Reads a request's body: whole, in time, within its limit, or not at all.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator
from contextlib import contextmanager
from typing import Protocol

from collector.errors import BadUpload
from collector.outcome import Reason

_STEP_BYTES = 1024 * 1024


class Stream(Protocol):
    """What a door hands over: `read` gives up to that many bytes, and nothing at the end of the body."""

    def read(self, size: int, /) -> bytes:
        """Read; raises BadUpload when the body breaks off or is too slow."""


def read_body(stream: Stream, content_length: int | None, limit: int) -> bytes:
    """
    Return the whole body; `content_length` is None for a chunked one.

    Raises BadUpload: TOO_LARGE above `limit` bytes, and MALFORMED for a body that ends before its length, which
    gunicorn hands over as if it were whole.
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


class BodyRoom:
    """A bound on the bytes of all bodies that are being read at once in this worker."""

    def __init__(self, limit_bytes: int) -> None:
        self._limit = limit_bytes
        self.held = 0

    @contextmanager
    def hold(self, size: int, refuse: Callable[[], BadUpload]) -> Iterator[None]:
        """Hold room for one body while it is read and worked on; raises what `refuse` returns if there is none."""
        if self.held + size > self._limit:
            raise refuse()
        self.held += size
        try:
            yield
        finally:
            self.held -= size
