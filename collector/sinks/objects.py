"""
Objects of batches, the same in a directory and in a bucket: where they lie, what they are called, how they are packed.

    tenant=<id>/date=YYYY-MM-DD/hour=HH/<batch>.ndjson.zst
    date=YYYY-MM-DD/hour=HH/<batch>.ndjson.zst              by hour, of all tenants

or as the sink's `key` says, a template of `layout`.
"""

from __future__ import annotations

import re
from collections.abc import Iterator, Mapping, Sequence

import zstandard

from collector.errors import SinkError
from collector.event import Batch
from collector.sinks.base import Limits
from collector.sinks.layout import DEFAULT, By, around, check_layout
from collector.sinks.url import SinkUrl

#: 64 MiB keep one write (the batch, its frame, and zstd's own room) within what a small worker can spare.
#: An object has no limit of its own for events, so the bytes decide.
_BYTES = 64 * 1024 * 1024
_EVENTS = 1_000_000
LIMITS: Mapping[By, Limits] = {
    "tenant": Limits(max_events=_EVENTS, max_bytes=_BYTES, max_event_bytes=_BYTES, partitioned=True),
    "hour": Limits(max_events=_EVENTS, max_bytes=_BYTES, max_event_bytes=_BYTES, partitioned=False, hourly=True),
}

SUFFIX = ".ndjson.zst"
TENANT_ID = re.compile(r"[A-Za-z0-9_-]{1,64}")
#: 200 characters leave room for the suffix and the marks of a temporary file in the 255 of a file name.
BATCH_NAME = re.compile(r"[A-Za-z0-9_-][A-Za-z0-9._=-]{0,199}")

#: What is compressed in one call, at the least. A choice: it takes 0.1 ms.
_CHUNK_BYTES = 64 * 1024
#: A compressor that met no larger batch is small itself, and kept for the next one. A choice.
_SMALL_BYTES = 64 * 1024


def check_key(url: SinkUrl, by: By) -> None:
    """See that a sink's `key`, if its URL has one, names places; raises `ValueError`."""
    template = url.options.get("key")
    if template is None:
        return
    try:
        check_layout(template, by=by)
    except ValueError as exc:
        raise ValueError(f"sink {url.text!r}: its key is {template!r}, and {exc}") from exc


def template_of(url: SinkUrl) -> str:
    """Return the template of the places of a sink's objects, out of a URL that is in order."""
    return url.options.get("key") or DEFAULT["hour" if url.options.get("by") == "hour" else "tenant"]


def place_of(batch: Batch, by: By, key: str = "") -> tuple[str, str]:
    """
    Say where a batch goes: directory and name. Nothing but the two patterns lets a name into a path.

    Raises `SinkError` for a batch that the limits rule out, or of no nameable tenant: a defect of the caller.
    """
    tenant_id, hour = batch.spans[0].tenant_id, batch.spans[0].hour
    by_tenant = by == "tenant"
    if any(span.hour != hour or (by_tenant and span.tenant_id != tenant_id) for span in batch.spans):
        raise SinkError(f"batch {batch.name!r} is not one {'tenant and ' * by_tenant}hour, as an object must be")
    if not BATCH_NAME.fullmatch(batch.name):
        raise SinkError(f"batch name {batch.name!r} can't be a file name")
    name = f"{batch.name}{SUFFIX}"
    before, behind = around(key or DEFAULT[by], hour)
    if not by_tenant:
        return before, name
    if not TENANT_ID.fullmatch(tenant_id):
        raise SinkError(f"tenant id {tenant_id!r} can't be a directory")
    return f"{before}{tenant_id}{behind}", name


class Packer:
    """Makes one zstd frame of a batch; any number of threads may at once."""

    def __init__(self, level: int) -> None:
        self._level = level
        # Compressors that nobody uses; one serves one thread at a time. List operations are atomic.
        self._idle: list[zstandard.ZstdCompressor] = []

    def pack(self, batch: Batch) -> bytes:
        """Return the frame, with its size and a checksum."""
        if batch.size > _SMALL_BYTES:
            return compress(batch.pieces, self._level)
        try:
            compressor = self._idle.pop()
        except IndexError:
            compressor = _make_compressor(self._level)
        frame = compressor.compress(batch.payload)
        self._idle.append(compressor)
        return frame


def compress(pieces: Sequence[bytes | memoryview], level: int) -> bytes:
    """
    Make one zstd frame of all pieces, with its size and a checksum.

    They are not put together first: a copy of 4 MiB takes 3 ms, in which nothing else runs in this process.
    """
    stream = _make_compressor(level).compressobj(size=sum(map(len, pieces)))
    return b"".join([*map(stream.compress, _chunks(pieces)), stream.flush()])


def _chunks(pieces: Sequence[bytes | memoryview]) -> Iterator[bytes | memoryview]:
    """Put small pieces together: for each call the compressor lets go of the interpreter, and has to wait for it."""
    small: list[bytes | memoryview] = []
    size = 0
    for piece in pieces:
        small.append(piece)
        size += len(piece)
        if size >= _CHUNK_BYTES:
            yield small[0] if len(small) == 1 else b"".join(small)
            small, size = [], 0
    yield b"".join(small)


def _make_compressor(level: int) -> zstandard.ZstdCompressor:
    """Make a compressor, which serves one thread at a time."""
    return zstandard.ZstdCompressor(level=level, write_checksum=True, write_content_size=True)
