"""Frames: what was written whole is read back, and nothing else is taken for a frame."""

from __future__ import annotations

from hypothesis import given
from hypothesis import strategies as st

from collector.buffer.frame import HEAD_BYTES, MAGIC, Frame, Gap, frames, parts

UPLOADS = st.lists(
    st.tuples(st.text("abcXYZ09_-", min_size=1, max_size=64), st.binary(max_size=300), st.integers(1, 50)), max_size=6
)


def written(uploads: list[tuple[str, bytes, int]]) -> list[bytes]:
    return [
        b"".join(
            parts(
                tenant.encode(),
                [payload],
                events=events,
                first=n,
                accepted=n + events,
                received_us=1_767_323_045_678_901,
            )
        )
        for n, (tenant, payload, events) in enumerate(uploads)
    ]


def told(data: bytes) -> list[tuple[str, bytes, int]]:
    return [
        (one.tenant_id, bytes(one.payload), one.events) for one in frames(data) if isinstance(one, Frame) and one.sound
    ]


@given(uploads=UPLOADS)
def test_frames_are_read_back_as_they_were_written(uploads: list[tuple[str, bytes, int]]) -> None:
    """The spool is the only copy between the answer and the sink."""
    data = b"".join(written(uploads))

    assert uploads == told(data)
    assert not [one for one in frames(data) if isinstance(one, Gap)]


@given(uploads=UPLOADS, data=st.data())
def test_a_torn_tail_costs_the_last_frame_alone(uploads: list[tuple[str, bytes, int]], data: st.DataObject) -> None:
    """A writer that is killed inside its write leaves a part of a frame, which nobody was told is safe."""
    whole = written([*uploads, ("last", b"never acknowledged", 1)])
    cut = data.draw(st.integers(1, len(whole[-1]) - 1))
    found = list(frames(b"".join(whole[:-1]) + whole[-1][:cut]))

    assert uploads == told(b"".join(whole[:-1]) + whole[-1][:cut])
    assert isinstance(found[-1], Gap)
    assert cut == found[-1].length


@given(uploads=UPLOADS, data=st.data())
def test_a_flipped_byte_costs_at_most_its_own_frame(uploads: list[tuple[str, bytes, int]], data: st.DataObject) -> None:
    """What memory does to one frame must not take its neighbours along."""
    whole = written([*uploads, ("hit", b"x" * 40, 3)])
    at = data.draw(st.integers(0, len(whole[-1]) - 1))
    hit = bytearray(whole[-1])
    hit[at] ^= data.draw(st.integers(1, 255))
    after = written([("after", b"intact", 2)])
    found = told(b"".join(whole[:-1]) + bytes(hit) + after[0])

    assert [*uploads, ("after", b"intact", 2)] == found


def test_a_frame_whose_payload_is_damaged_still_says_whose_and_how_many() -> None:
    """So a loss is counted exactly, for the tenant whose it is."""
    data = bytearray(b"".join(parts(b"acme", [b"{}\n" * 7], events=7, first=3, accepted=10, received_us=0)))
    data[-1] ^= 1
    (one,) = frames(bytes(data))

    assert isinstance(one, Frame)
    assert not one.sound
    assert ("acme", 7, 3, 10) == (one.tenant_id, one.events, one.first, one.accepted)


@given(noise=st.binary(max_size=500))
def test_noise_is_one_gap_and_never_an_error(noise: bytes) -> None:
    """Whatever lies in the file, a reader comes to its end."""
    found = list(frames(noise + MAGIC * 3))

    assert len(noise) + 3 * len(MAGIC) == sum(one.length for one in found if isinstance(one, Gap))


def test_no_text_can_be_taken_for_the_start_of_a_frame() -> None:
    """The magic begins with bytes that UTF-8 never has, so a scan for the next frame skips every event."""
    assert not any(MAGIC[:2] in chr(point).encode() for point in range(0x110000) if not 0xD800 <= point < 0xE000)
    assert HEAD_BYTES == len(b"".join(parts(b"", [b""], events=0, first=0, accepted=0, received_us=0)))
