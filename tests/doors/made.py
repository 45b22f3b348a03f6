"""Requests made by chance: from nearly sound to broken by a grammar, and bytes of others changed here and there."""

from __future__ import annotations

import json
from functools import lru_cache
from itertools import pairwise
from pathlib import Path
from typing import NamedTuple

from hypothesis import strategies as st

from tests.doors import odd
from tests.doors.pair import Case

HERE = Path(__file__).resolve().parent
RECORDED = HERE / "recorded"
#: Cases that once told the doors apart, each a JSON object in a file; both doors are asked them again for ever.
FAILURES = HERE / "failures"
#: Above this a client may meet the end of the connection in the middle of its bytes, sooner or later.
_AT_A_BREATH = 16_000

# -- by a grammar ------------------------------------------------------------------------------------------

GAPS = (b": ", b":", b":  ", b":\t", b": \t ", b" : ", b":\r\n ", b"\t:", b"")
ENDS = (b"", b" ", b"\t", b"  \t", b"\0", b"\x0b", b"\r", b"\n")


class Draft(NamedTuple):
    """A request in the pieces that chance changes."""

    line: bytes
    fields: tuple[bytes, ...]
    body: bytes

    def whole(self) -> bytes:
        """Write it."""
        return b"\r\n".join([self.line, *self.fields, b"", self.body])


def _draft(data: bytes) -> Draft:
    head, _, body = data.partition(b"\r\n\r\n")
    line, *fields = head.split(b"\r\n")
    return Draft(line, tuple(fields), body)


SOUND = tuple(_draft(data) for data in odd.HOT.values() if data.count(b" HTTP/1.1") == 1)
LINES = tuple(b"POST %s HTTP/1.1" % target for target in odd.TARGETS) + odd.LINES


@st.composite
def _values(draw: st.DrawFn) -> bytes:
    """Draw a field that means something, or that is no field."""
    if draw(st.integers(0, 5)) == 0:
        return draw(st.sampled_from(odd.FIELDS))
    name = draw(st.sampled_from(sorted(odd.VALUES)))
    texts = odd.VALUES[name] or tuple(odd.written(length, 26) for length in odd.LENGTHS)
    written: bytes = draw(st.sampled_from([bytes, bytes.lower, bytes.upper, bytes.swapcase, _underscored]))(name)
    pieces = (GAPS[:3] * 4 + GAPS, texts, (b"",) * 8 + ENDS)
    return b"".join([written, *(draw(st.sampled_from(piece)) for piece in pieces)])


def _underscored(name: bytes) -> bytes:
    return name.replace(b"-", b"_")


@st.composite
def requests(draw: st.DrawFn) -> bytes:
    """Draw a sound upload and bend it up to four times."""
    draft = draw(st.sampled_from(SOUND))
    line, fields, body = draft.line, list(draft.fields), draft.body
    for _ in range(draw(st.integers(0, 4))):
        at = draw(st.integers(0, len(fields)))
        match draw(st.integers(0, 7)):
            case 0:
                line = draw(st.sampled_from(LINES))
            case 1 | 2:
                fields.insert(at, draw(_values()))
            case 3 if fields:
                del fields[at % len(fields)]
            case 4 if fields:
                fields.insert(at, draw(st.sampled_from(fields)))
            case 5:
                fields = draw(st.permutations(fields))
            case 6:
                body = draw(st.sampled_from(_bodies()))
                length = draw(st.sampled_from((b"%d",) * 8 + odd.LENGTHS))
                fields = [field for field in fields if not field.lower().startswith(b"content-length")]
                fields.insert(at, b"Content-Length: " + odd.written(length, len(body)))
            case _ if fields:
                field = fields[at % len(fields)]
                name, gap, text = field.partition(b":")
                bent = (
                    name.swapcase() + gap + text,
                    name + gap + b" \t" + text + b" ",
                    name + b": ",
                    name.lower() + gap + text,
                )
                fields[at % len(fields)] = draw(st.sampled_from(bent))
    return Draft(line, tuple(fields), body).whole()


@lru_cache
def _bodies() -> tuple[bytes, ...]:
    return tuple(data.partition(b"\r\n\r\n")[2] for data in odd.bodies().values() if len(data) < 2000)


@st.composite
def cases(draw: st.DrawFn) -> Case:
    """Draw up to three requests on one connection, cut into pieces anywhere."""
    several = st.lists(requests() | st.sampled_from(sorted(odd.MIXED.values())), min_size=1, max_size=3)
    return draw(cut(b"".join(draw(several))))


def cut(data: bytes) -> st.SearchStrategy[Case]:
    """Cut bytes into parts, mostly into one."""

    def case(cuts: list[int], *, asks: bool) -> Case:
        marks = [0, *sorted(set(cuts)), len(data)]
        parts = tuple(data[start:end] for start, end in pairwise(marks) if start < end)
        return Case(parts or (b"",), asks=asks and len(data) < _AT_A_BREATH)

    nowhere: st.SearchStrategy[list[int]] = st.just([])
    places = nowhere | st.lists(st.integers(0, len(data)), max_size=3)
    return st.builds(case, places, asks=st.booleans())


# -- byte by byte ------------------------------------------------------------------------------------------

TOKENS = (
    b"\r\n", b"\n", b"\r", b"\r\n\r\n", b" ", b"\t", b":", b"\0", b"\x7f", b"\xff", b"\xc2\xa0", b",", b";", b"%",
    b"%2e", b"/", b"//", b"?", b"#", b"_",
    b"-", b"+", b"0", b"9", b"HTTP/1.0", b"HTTP/1.1", b"POST ", b"GET ", b"chunked", b"close", b"keep-alive",
    b"Content-Length: 0\r\n", b"Host: x\r\n",
    b"Transfer-Encoding: chunked\r\n", b"Expect: 100-continue\r\n", b"Connection: close\r\n", b"content-length",
    b"\r\n ", b"\r\n\t", b"gzip", b"sink",
    b"dev-key", b"0\r\n\r\n", b"Upgrade: h2c\r\n", b"\x1f\x8b", b"{", b"]",
)  # fmt: skip


@lru_cache
def corpus() -> tuple[bytes, ...]:
    """List what is changed: the recorded requests, those made by hand, and pipelines."""
    files = [file.read_bytes() for file in sorted(RECORDED.glob("*.http"))]
    families = (odd.HOT, odd.lines(), odd.values(), odd.doubles(), odd.lengths(), odd.fields(), odd.bodies())
    by_hand = [data for family in families for data in family.values()]
    return tuple(data for data in (*files, *by_hand, *odd.MIXED.values()) if 0 < len(data) < 4000)


@st.composite
def changed(draw: st.DrawFn) -> Case:
    """Draw bytes of the corpus, and change up to five places, most of them in the head."""
    data = draw(st.sampled_from(corpus()))
    for _ in range(draw(st.integers(1, 5))):
        end = data.find(b"\r\n\r\n") + 4 if draw(st.integers(0, 4)) else len(data)
        at = draw(st.integers(0, max(0, end)))
        over = draw(st.sampled_from((0, 0, 1, 1, 2, 5, 20)))
        match draw(st.integers(0, 4)):
            case 0:
                new = draw(st.binary(max_size=3))
            case 1 | 2:
                new = draw(st.sampled_from(TOKENS))
            case 3:
                start = draw(st.integers(0, len(data)))
                new, over = data[start : start + draw(st.integers(1, 40))], 0
            case _:
                new = bytes(byte ^ 0x20 for byte in data[at : at + over])
        data = data[:at] + new + data[at + over :]
    return draw(cut(data))


# -- what failed -------------------------------------------------------------------------------------------


def write(case: Case) -> str:
    """Write a case down; its bytes as Latin-1, which a person can read."""
    fields = case._asdict() | {"parts": [part.decode("latin-1") for part in case.parts]}
    return json.dumps(fields, indent=1) + "\n"


def read(text: str) -> Case:
    """Read a case that was written down."""
    fields = json.loads(text)
    return Case(**fields | {"parts": tuple(part.encode("latin-1") for part in fields["parts"])})
