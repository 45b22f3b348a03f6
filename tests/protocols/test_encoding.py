"""Content-Encoding: what is undone, what is refused, and what a bomb costs."""

from __future__ import annotations

import gzip
import random
import subprocess
import sys
import zlib
from collections.abc import Callable
from pathlib import Path

import brotli  # type: ignore[import-untyped]  # ships no types
import pytest
import zstandard
from hypothesis import given, settings
from hypothesis import strategies as st

from collector.errors import BadUpload
from collector.outcome import Reason
from collector.protocols.encoding import inflate

ROOT = Path(__file__).resolve().parents[2]
MIB = 1 << 20
EVENT = b'{"name":"open","at":1}'
#: Neither compressible nor like JSON, over several chunks of input and output.
NOISE = b"\x00" + random.Random(7).randbytes(300_000) + bytes(500_000)


def raw_deflate(data: bytes) -> bytes:
    stream = zlib.compressobj(wbits=-15)
    return stream.compress(data) + stream.flush()


def zstd(data: bytes) -> bytes:
    """Compress as a stream does: no size in the header, no checksum at the end."""
    stream = zstandard.ZstdCompressor().compressobj()
    return stream.compress(data) + stream.flush()


ENCODERS: dict[str, Callable[[bytes], bytes]] = {
    "gzip": gzip.compress,
    "deflate": zlib.compress,
    "deflate raw": raw_deflate,
    "br": lambda data: brotli.compress(data, quality=5),
    "zstd": zstd,
    "zstd with size and checksum": zstandard.ZstdCompressor(write_checksum=True).compress,
}
EVERY_ENCODING = pytest.mark.parametrize("kind", ENCODERS)


def encoding(kind: str) -> str:
    """Name the header's value of a kind of `ENCODERS`."""
    return kind.partition(" ")[0]


def refused(body: bytes, content_encoding: str, limit: int = MIB) -> BadUpload:
    with pytest.raises(BadUpload) as caught:
        inflate(body, content_encoding, limit)
    return caught.value


def attempt(body: bytes, content_encoding: str, limit: int = MIB) -> str | None:
    """Inflate and return None, or the reason why not."""
    try:
        assert len(inflate(body, content_encoding, limit)) <= limit
    except BadUpload as problem:
        return problem.reason
    return None


@EVERY_ENCODING
@pytest.mark.parametrize("data", [EVENT, NOISE, b"\x00", b"\x00" * 65_536, b"\x00" * 65_537, b"\x01" * 131_072])
def test_what_was_compressed_comes_back(kind: str, data: bytes) -> None:
    """At sizes around the chunk, too, where output may wait inside the decoder."""
    assert data == inflate(ENCODERS[kind](data), encoding(kind), MIB)


@EVERY_ENCODING
def test_nothing_compressed_is_nothing(kind: str) -> None:
    """The protocol then says that the upload is empty; that is not the encoding's fault."""
    assert b"" == inflate(ENCODERS[kind](b""), encoding(kind), MIB)
    assert b"" == inflate(b"", encoding(kind), MIB)


@EVERY_ENCODING
def test_the_limit_is_the_last_size_that_is_taken(kind: str) -> None:
    """An upload of exactly the limit is within it."""
    data = b"\x00" * 200_000

    assert data == inflate(ENCODERS[kind](data), encoding(kind), 200_000)
    assert Reason.TOO_LARGE == refused(ENCODERS[kind](data), encoding(kind), 199_999).reason


def test_a_plain_body_is_bounded_too() -> None:
    """A chunked body has no Content-Length that was checked before."""
    assert b"x" * 10 == inflate(b"x" * 10, "", 10)
    assert Reason.TOO_LARGE == refused(b"x" * 11, "", 10).reason


@pytest.mark.parametrize("header", ["", "identity", " Identity ", "text", "identity, ", "gzip", "x-gzip", "GZIP"])
def test_gzip_is_seen_whatever_the_header_says(header: str) -> None:
    """posthog-js declares nothing; names of encodings have no case."""
    if header == "text":
        assert Reason.UNSUPPORTED_ENCODING == refused(gzip.compress(EVENT), header).reason
        return

    assert EVENT == inflate(gzip.compress(EVENT), header, MIB)


@pytest.mark.parametrize("header", ["deflate", "zstd", "br"])
def test_gzip_under_another_name_is_seen(header: str) -> None:
    """Its first bytes tell, and no other of these formats is refused for it."""
    assert EVENT == inflate(gzip.compress(EVENT), header, MIB)


def test_a_brotli_stream_that_begins_like_gzip_is_brotli() -> None:
    """With the largest window, 2,188 bytes make 1f 8b 08: brotli has no magic number to tell it by."""
    data = bytes(range(256)) * 8 + b"a" * 140
    stream = brotli.compress(data, lgwin=24)

    assert b"\x1f\x8b\x08" == stream[:3]
    assert data == inflate(stream, "br", MIB)


@pytest.mark.parametrize("header", ["lzma", "gzip, gzip", "gzip,br", "utf-8", "compress", "gzip;q=1"])
def test_an_encoding_that_is_not_undone_is_refused_by_name_of_those_that_are(header: str) -> None:
    """Whoever gets a 415 must not have to guess."""
    problem = refused(gzip.compress(EVENT), header)

    assert Reason.UNSUPPORTED_ENCODING == problem.reason
    assert all(name in problem.detail for name in ("gzip", "deflate", "br", "zstd"))


@EVERY_ENCODING
@pytest.mark.parametrize("header_stays", ["", " \n", "\ufeff"])
def test_a_body_that_a_proxy_inflated_is_taken_as_it_is(kind: str, header_stays: str) -> None:
    """Some proxies inflate a body and leave the header on it."""
    body = header_stays.encode() + b"[" + EVENT + b"]"

    assert body == inflate(body, encoding(kind), MIB)


@EVERY_ENCODING
def test_a_body_that_is_neither_compressed_nor_json_is_malformed(kind: str) -> None:
    """Leniency is for JSON alone."""
    assert Reason.MALFORMED == refused(b"\xfenonsense that is no stream at all" * 9, encoding(kind)).reason


@EVERY_ENCODING
def test_a_stream_that_is_cut_off_anywhere_is_malformed(kind: str) -> None:
    """A cut NDJSON upload would lose its tail unseen."""
    stream = ENCODERS[kind](b"\x00some bytes, and again some bytes, and some others" * 3)

    for length in range(1, len(stream)):
        assert Reason.MALFORMED == refused(stream[:length], encoding(kind)).reason


@EVERY_ENCODING
def test_a_long_stream_that_is_cut_off_is_malformed(kind: str) -> None:
    """Where the cut falls on the edge of a slice or a block, too."""
    stream = ENCODERS[kind](NOISE)

    for length in (16_384, 65_536, 131_072, len(stream) - 1):
        assert Reason.MALFORMED == refused(stream[:length], encoding(kind)).reason


@EVERY_ENCODING
@pytest.mark.parametrize("data", [EVENT, NOISE], ids=["short", "long"])
@pytest.mark.parametrize("rest", [b"\x00", b"x", b"garbage", b"\x1f\x8b", b"\x28\xb5\x2f\xfd", bytes(70_000)], ids=len)
def test_bytes_after_the_end_are_malformed(kind: str, data: bytes, rest: bytes) -> None:
    """They may be the events that were meant to come."""
    assert Reason.MALFORMED == refused(ENCODERS[kind](data) + rest, encoding(kind)).reason


@EVERY_ENCODING
def test_a_flipped_bit_raises_nothing_but_bad_upload(kind: str) -> None:
    """Formats without a checksum may not notice; none may break."""
    stream = ENCODERS[kind](NOISE[:2000])

    for position in range(0, len(stream) * 8, 5):
        broken = bytearray(stream)
        broken[position // 8] ^= 1 << position % 8
        assert attempt(bytes(broken), encoding(kind)) in {None, Reason.MALFORMED, Reason.TOO_LARGE}


def test_gzip_members_and_zstd_frames_are_joined() -> None:
    """Log shippers append one to the other."""
    frames = zstd(b"one ") + b"\x50\x2a\x4d\x18\x04\x00\x00\x00skip" + zstandard.compress(b"two ") + zstd(NOISE)

    assert b"one two " + NOISE == inflate(frames, "zstd", MIB)
    assert b"one two " + NOISE == inflate(b"".join(map(gzip.compress, (b"one ", b"two ", NOISE))), "gzip", MIB)


def test_a_frame_that_a_cut_one_would_swallow_is_not_its_end() -> None:
    """The decoder only stops where a frame is cut off; a frame that skips over what follows must not hide it."""
    assert Reason.MALFORMED == refused(zstd(EVENT) + b"\x50\x2a\x4d\x18\x09\x00\x00\x00skip", "zstd").reason


def test_members_without_end_are_refused() -> None:
    """Each costs 20 bytes to send and microseconds to open."""
    empty = gzip.compress(b"")

    assert b"" == inflate(empty * 10_000, "gzip", MIB)
    assert Reason.MALFORMED == refused(empty * 10_001, "gzip").reason


def test_a_gzip_header_without_end_is_malformed() -> None:
    """A file name that never stops makes no output that a limit could see."""
    header = b"\x1f\x8b\x08\x08" + bytes(6)

    assert Reason.MALFORMED == refused(header + b"a" * (4 * MIB), "gzip").reason


def test_a_zstd_window_over_8_mib_is_refused_for_its_size() -> None:
    """A header of six bytes may ask for 128 MiB of memory, and more."""
    parameters = zstandard.ZstdCompressionParameters(window_log=27)
    stream = zstandard.ZstdCompressor(compression_params=parameters).compressobj()
    problem = refused(stream.compress(EVENT) + stream.flush(), "zstd")

    assert Reason.MALFORMED == problem.reason
    assert "window" in problem.message


def test_a_large_window_of_brotli_is_malformed() -> None:
    """Outside the format of HTTP; its window may be a gigabyte."""
    assert Reason.MALFORMED == refused(b"\x11\x1e" + bytes(60), "br").reason


def deflate_zeros(mebibytes: int, *, wrapped: bool) -> bytes:
    """Build a true stream of zeros: one compressed block of a mebibyte, which needs nothing before it, repeated."""
    stream = zlib.compressobj(9, wbits=-15)
    stream.compress(bytes(MIB))
    stream.flush(zlib.Z_FULL_FLUSH)
    block = stream.compress(bytes(MIB)) + stream.flush(zlib.Z_FULL_FLUSH)
    end = b"\x03\x00"
    if not wrapped:
        return block * mebibytes + end
    checksum = 0
    for _ in range(mebibytes):
        checksum = zlib.crc32(bytes(MIB), checksum)
    trailer = checksum.to_bytes(4, "little") + (mebibytes * MIB % 2**32).to_bytes(4, "little")
    return gzip.compress(b"")[:10] + block * mebibytes + end + trailer


def brotli_zeros(mebibytes: int) -> bytes:
    """Build with the largest window there is."""
    stream = brotli.Compressor(quality=1, lgwin=24)
    pieces: list[bytes] = [stream.process(bytes(MIB)) for _ in range(mebibytes)]
    return b"".join([*pieces, stream.finish()])


def zstd_zeros(mebibytes: int) -> bytes:
    """Build with the largest window that is allowed."""
    parameters = zstandard.ZstdCompressionParameters.from_level(1, window_log=23)
    stream = zstandard.ZstdCompressor(compression_params=parameters).compressobj()
    return b"".join(stream.compress(bytes(MIB)) for _ in range(mebibytes)) + stream.flush()


#: The memory that a decoder may take besides its output, in MiB: its window (br holds two while it grows), and 4.
BOMBS: dict[str, tuple[Callable[[], bytes], int]] = {
    "gzip": (lambda: deflate_zeros(1024, wrapped=True), 4),
    "deflate": (lambda: deflate_zeros(1024, wrapped=False), 4),
    "br": (lambda: brotli_zeros(256), 16 + 12 + 4),
    "zstd": (lambda: zstd_zeros(1024), 8 + 4),
}

#: VmHWM, since the peak in getrusage() begins with that of the parent.
MEASURE = """
import sys
from collector.errors import BadUpload
from collector.protocols.encoding import inflate
def peak_kib():
    return int(open("/proc/self/status").read().split("VmHWM:")[1].split()[0])
encoding, path, limit = sys.argv[1], sys.argv[2], int(sys.argv[3])
body = open(path, "rb").read()
inflate(bytes.fromhex(sys.argv[4]), encoding, limit)
before = peak_kib()
try:
    inflate(body, encoding, limit)
except BadUpload as problem:
    print(problem.reason, peak_kib() - before)
"""


def test_the_builder_of_bombs_builds_what_it_says() -> None:
    """A bomb that is refused for being broken would prove nothing."""
    assert bytes(3 * MIB) == gzip.decompress(deflate_zeros(3, wrapped=True))
    assert bytes(3 * MIB) == zlib.decompress(deflate_zeros(3, wrapped=False), wbits=-15)
    assert bytes(3 * MIB) == brotli.decompress(brotli_zeros(3))


@pytest.mark.parametrize("kind", BOMBS)
def test_a_bomb_costs_its_limit_and_no_more(kind: str, tmp_path: Path) -> None:
    """A gigabyte in a mebibyte is what an attacker sends first; peak memory is read from a process of its own."""
    build, allowance_mib = BOMBS[kind]
    bomb = tmp_path / "bomb"
    bomb.write_bytes(build())
    limit = 16 * MIB
    warm_up = ENCODERS[kind](EVENT).hex()

    done = subprocess.run(
        [sys.executable, "-c", MEASURE, kind, str(bomb), str(limit), warm_up],
        cwd=ROOT, capture_output=True, text=True, check=True, timeout=60,
    )  # fmt: skip

    reason, peak_kib = done.stdout.split()
    assert "too_large" == reason
    assert bomb.stat().st_size < 4 * MIB
    assert limit // 2 < int(peak_kib) * 1024 < limit + allowance_mib * MIB


@given(st.binary(max_size=300), st.sampled_from(["", "gzip", "deflate", "br", "zstd"]), st.integers(0, 400))
@settings(max_examples=300)
def test_no_bytes_raise_anything_but_bad_upload(body: bytes, content_encoding: str, limit: int) -> None:
    """They come from strangers."""
    assert attempt(body, content_encoding, limit) in {None, Reason.MALFORMED, Reason.TOO_LARGE}


@given(st.binary(max_size=5000), st.sampled_from(sorted(ENCODERS)))
def test_all_bytes_come_back(data: bytes, kind: str) -> None:
    """Whatever the sender had, Collector has."""
    assert data == inflate(ENCODERS[kind](data), encoding(kind), 5000)
