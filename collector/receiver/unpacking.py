"""
Undoes the compression of an upload, where it does not hold up others.
"""

from __future__ import annotations

from collections.abc import Callable

from collector.protocols.base import Request
from collector.protocols.encoding import GZIP, inflate

#: Bodies above this are inflated off the hub, in bytes as sent: a thread's round trip costs 50 µs, this much
#: gzip about 150 µs.
_APART_BYTES = 32 * 1024


def unpack(request: Request, limit: int, offload: Callable[[Callable[[], bytes]], bytes]) -> bytes:
    """Return the body as its sender had it, at most `limit` bytes; raises BadUpload. `offload` runs off the hub."""
    body, encoding = request.body, request.headers.get("content-encoding", "")
    if not encoding and body[:2] != GZIP and len(body) <= limit:
        return body
    if is_heavy(request):
        return offload(lambda: inflate(body, encoding, limit))
    return inflate(body, encoding, limit)


def is_heavy(request: Request) -> bool:
    """Tell whether a body takes so long to inflate that it is done off the hub."""
    body = request.body
    return len(body) > _APART_BYTES and (body[:2] == GZIP or bool(request.headers.get("content-encoding")))
