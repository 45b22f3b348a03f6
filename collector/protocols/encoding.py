"""
Undo the Content-Encoding of an upload, never beyond a limit.

Output is made in chunks and counted as it appears, so a bomb costs the limit and one chunk, plus the decoder's
own window: 32 KiB for gzip and deflate, at most 8 MiB for zstd (`_ZSTD_WINDOW`), at most 16 MiB for br by its
format (28 while it grows, measured). Headers are believed as far as the bytes bear them out:

- Undeclared gzip is inflated (posthog-js sends it as text/plain, rudder-sdk-node as a form).
- A body that does not inflate as declared but starts like JSON is taken as it is: some proxies inflate a body
  and leave the header on. What is then wrong with it as JSON, the protocol says.
- `deflate` is zlib-wrapped by the standard and raw by habit; the first byte tells which.
"""

from __future__ import annotations

import io
from collections.abc import Callable, Generator, Iterator

import brotli  # type: ignore[import-untyped]  # ships no types
import zstandard
from isal import isal_zlib

from collector.errors import BadUpload
from collector.outcome import Reason

SUPPORTED = "gzip, deflate, br, zstd"

#: Output made at once. Larger chunks are no faster (measured); smaller ones cost calls.
_CHUNK = 64 * 1024
#: Input given at once to decoders that hand back what they did not use, so that the rest is not copied over and over.
_SLICE = 16 * 1024
#: brotli fills blocks of its own, of 32 KiB and then 64; below the first one's size it stops after that.
_BROTLI_CHUNK = 16 * 1024
#: What RFC 9659 lets an encoder of HTTP content use.
_ZSTD_WINDOW = 8 << 20
#: Empty gzip members cost 20 bytes to send and microseconds to open. One a event is the most that makes sense.
_MAX_MEMBERS = 10_000

#: How a gzip member begins.
GZIP = b"\x1f\x8b"
_BOM = b"\xef\xbb\xbf"


class _Corrupt(Exception):
    """Raised when bytes do not inflate; the text says what is wrong."""


def inflate(body: bytes, content_encoding: str, limit: int) -> bytes:
    """
    Return the upload as its sender had it, at most `limit` bytes.

    `content_encoding` is the header's value, or "". Raises `BadUpload`: UNSUPPORTED_ENCODING for one that is
    unknown or stacked, TOO_LARGE as soon as there are more than `limit` bytes, MALFORMED for bytes that are
    corrupt, cut off, or followed by others.
    """
    decoder = _DECODERS[_declared(content_encoding)]
    if not body:
        return body
    if body[:2] == GZIP and decoder is not _brotli:
        decoder = _gzip
    if decoder is _identity:
        if len(body) > limit:
            raise _too_large(limit)
        return body
    try:
        return _collect(decoder(body), limit)
    except _Corrupt as problem:
        # brotli has no magic number, and a good stream may start with gzip's: so gzip comes second there.
        if decoder is _brotli and body[:2] == GZIP:
            return inflate(body, "gzip", limit)
        if len(body) <= limit and _looks_like_json(body):
            return body
        raise BadUpload(
            Reason.MALFORMED,
            f"the body does not inflate: {problem}",
            "send the whole compressed body, with the Content-Encoding that it has",
        ) from None


def _looks_like_json(body: bytes) -> bool:
    """Tell by the first byte, and by UTF-8: a broken br or raw deflate stream may begin with a bracket, too."""
    if body.removeprefix(_BOM).lstrip()[:1] not in {b"{", b"["}:
        return False
    try:
        body.decode()
    except UnicodeDecodeError:
        return False
    return True


def _declared(content_encoding: str) -> str:
    """Reduce the header to one name of `_DECODERS`."""
    names = [name.strip() for name in content_encoding.lower().split(",")]
    names = [name for name in names if name not in ("", "identity")] or [""]
    if len(names) > 1:
        problem = "several encodings on top of each other"
    elif names[0] not in _DECODERS:
        problem = "this Content-Encoding"
    else:
        return names[0]
    raise BadUpload(
        Reason.UNSUPPORTED_ENCODING, f"{problem} can't be undone", f"send one of: {SUPPORTED}, or no encoding"
    )


def _collect(chunks: Iterator[bytes], limit: int) -> bytes:
    """Join chunks without a second copy of them all; stop at the first byte over the limit."""
    first = next(chunks, b"")
    if len(first) > limit:
        raise _too_large(limit)
    second = next(chunks, None)
    if second is None:
        return first
    with io.BytesIO() as out:
        size = out.write(first)
        while second is not None:
            size += len(second)
            if size > limit:
                raise _too_large(limit)
            out.write(second)
            second = next(chunks, None)
        return out.getvalue()


def _too_large(limit: int) -> BadUpload:
    return BadUpload(Reason.TOO_LARGE, f"the upload inflates to more than {limit:,} bytes: send fewer events at once")


def _identity(body: bytes) -> Iterator[bytes]:
    yield body


def _gzip(body: bytes) -> Iterator[bytes]:
    """One or more members, one after the other."""
    position = 0
    for _ in range(_MAX_MEMBERS):
        position += yield from _zlib(body, position, wbits=31, name="gzip")
        if position == len(body):
            return
    raise _Corrupt(f"more than {_MAX_MEMBERS:,} gzip members")


def _deflate(body: bytes) -> Iterator[bytes]:
    """
    zlib-wrapped, or raw.

    A low half of 8 in the first byte is zlib's mark; in a raw stream it would be a stored block with a padding
    bit set, which no encoder writes.
    """
    used = yield from _zlib(body, 0, wbits=15 if body[0] & 0x0F == 8 else -15, name="deflate")
    if used < len(body):
        raise _Corrupt("deflate data with other bytes after its end")


def _zlib(body: bytes, position: int, *, wbits: int, name: str) -> Generator[bytes, None, int]:
    """Inflate one stream that begins at `position`, and return how many bytes it took."""
    stream = isal_zlib.decompressobj(wbits)
    view, start = memoryview(body), position
    piece: bytes | memoryview = b""
    try:
        while not stream.eof:
            if not piece:
                piece = view[position : position + _SLICE]
                position += len(piece)
            chunk = stream.decompress(piece, _CHUNK)
            # A full chunk may leave output behind with no input to show for it, but less than a chunk: ask once more.
            if not (piece or stream.eof):
                raise _Corrupt(f"{name} data that is cut off")
            piece = stream.unconsumed_tail
            yield chunk
    except isal_zlib.IsalError:  # type: ignore[misc]  # its stub makes an instance of the class
        raise _Corrupt(f"corrupt {name} data, or other bytes after its end") from None
    return position - len(stream.unused_data) - start


def _brotli(body: bytes) -> Iterator[bytes]:
    stream = brotli.Decompressor()
    position, end = 0, len(body)
    try:
        while not stream.is_finished():
            piece = body[position : position + _SLICE] if stream.can_accept_more_data() else b""
            position += len(piece)
            chunk = stream.process(piece, output_buffer_limit=_BROTLI_CHUNK)
            # With all input inside, output may still be waiting: ask until nothing comes.
            if not (piece or chunk or stream.is_finished()) and position == end:
                raise _Corrupt("br data that is cut off")
            yield chunk
    except brotli.error:
        raise _Corrupt("corrupt br data, or other bytes after its end") from None
    if position < end:
        raise _Corrupt("br data with other bytes after its end")


#: A frame of our own that goes behind the body: the reader says nothing when a frame is cut off, it only stops.
#: If the last thing that comes out is this, every frame before it was whole. The checksum in it keeps these bytes
#: from being the last of an outer frame that swallowed it.
_MARK = b"\x00collector: end of upload\x00"
_MARK_FRAME = zstandard.ZstdCompressor(write_checksum=True).compress(_MARK)


def _zstd(body: bytes) -> Iterator[bytes]:
    """One or more frames, one after the other."""
    reader = zstandard.ZstdDecompressor(max_window_size=_ZSTD_WINDOW).stream_reader(
        body + _MARK_FRAME, read_across_frames=True
    )
    held = b""
    try:
        while chunk := reader.read(_CHUNK):
            held += chunk
            yield held[: -len(_MARK)]
            held = held[-len(_MARK) :]
    except zstandard.ZstdError as error:
        if "too much memory" in str(error):
            raise _Corrupt(f"a zstd window over {_ZSTD_WINDOW >> 20} MiB (RFC 9659)") from None
        raise _Corrupt("corrupt zstd data, or other bytes after its end") from None
    if held != _MARK:
        raise _Corrupt("zstd data that is cut off")


_DECODERS: dict[str, Callable[[bytes], Iterator[bytes]]] = {
    "": _identity,
    "gzip": _gzip,
    "x-gzip": _gzip,
    "deflate": _deflate,
    "br": _brotli,
    "zstd": _zstd,
}
