"""
Objects of batches on their way back, the same from a directory and from a bucket: what one is named, and what it holds.

    …/tenant=<id>/date=YYYY-MM-DD/hour=HH/<batch>.ndjson.zst

What a sink refused for good lies in the same way below `parked`, by the reason.
"""

from __future__ import annotations

import re
from collections.abc import Callable
from datetime import UTC, datetime

import zstandard

from collector.errors import SinkError
from collector.event import Batch, Span
from collector.sinks.base import Offload, at_once
from collector.sinks.objects import BATCH_NAME, LIMITS, SUFFIX, TENANT_ID

PARKED, REASON = "parked", "reason="
_MOST_BYTES = LIMITS["tenant"].max_bytes
#: A frame of what does not get smaller is larger than that by zstd's own marks: some bytes for each block of 128 KiB.
MOST_FRAME_BYTES = _MOST_BYTES + _MOST_BYTES // 256
_PATH = re.compile(r"(?:.*/)?tenant=([^/]+)/date=(\d{4}-\d\d-\d\d)/hour=([01]\d|2[0-3])/([^/]+)", re.DOTALL)


def parked(reason: str) -> str:
    """Name the folder of a rescue sink that holds, below `route=<name>`, what was refused for a reason."""
    return f"{PARKED}/{REASON}{reason}"


def read_back(place: str, fetch: Callable[[], bytes | None], *, offload: Offload = at_once) -> Batch | None:
    """
    Read the batch at a place, whose end is as above; None when `fetch`, which gets its frame, has nothing.

    `offload` runs what inflates it. Raises `SinkError` for what is not named as a batch is, for what `fetch` raises
    OSError or ValueError about, and for what is no whole frame. Its events are numbered anew.
    """
    match = _PATH.fullmatch(place)
    name = match[4].removesuffix(SUFFIX) if match else ""
    if match is None or not match[4].endswith(SUFFIX) or not BATCH_NAME.fullmatch(name):
        raise SinkError(f"{place} is not named as a batch is")
    tenant_id, date, hour, _ = match.groups()
    if not TENANT_ID.fullmatch(tenant_id):
        raise SinkError(f"{place}: {tenant_id!r} can't be a tenant's id")
    try:
        started = datetime.fromisoformat(date).replace(hour=int(hour), tzinfo=UTC)
        frame = fetch()
        if frame is None:
            return None
        payload = offload(lambda: unpack(frame))
    except (OSError, ValueError) as exc:
        raise SinkError(f"{place} can't be read back: {exc}") from exc
    span = Span(tenant_id, int(started.timestamp()) // 3600, 0, payload.count(b"\n"))
    return Batch(name=name, segment=name, spans=(span,), pieces=(payload,))


def unpack(frame: bytes) -> bytes:
    """Inflate a frame, held to its checksum; raises ValueError saying what is wrong with it."""
    try:
        size = zstandard.frame_content_size(frame)
        if not 0 < size <= _MOST_BYTES:
            raise ValueError(f"it says that it holds {size} bytes, and a batch is 1 to {_MOST_BYTES}")
        payload = zstandard.ZstdDecompressor().decompress(frame, allow_extra_data=False)
    except zstandard.ZstdError as exc:
        raise ValueError(str(exc)) from exc
    if not payload.endswith(b"\n"):
        raise ValueError("its last line has no end")
    return payload
