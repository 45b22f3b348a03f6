"""
Events that prove themselves: each carries its id and a checksum of all its other bytes.

An upload is named by its device and its number, and is the same bytes each time it is written; so what was sent need
not be kept, and what arrives can be checked without it.
"""

from __future__ import annotations

import gzip
import json
import random
import re
from functools import lru_cache
from typing import NamedTuple

from xxhash import xxh3_64_hexdigest

#: What a careless copy alters: quotes, escapes, line ends of all kinds, what lies beyond 16 bits, a lone surrogate.
AWKWARD = tuple('ab "\\/\n\r\t\0\x7fé\u2028\u2029\U0001f600\udc00')
#: How many different payloads there are: enough that a mix-up of two is seen, few enough to be made at once.
RESTS = 509
MOST_EVENTS = 20
#: One upload in so many is compressed; more would be a test of this machine's gzip.
GZIP_EVERY = 8

_EVENT = re.compile(rb'\{"id":"([^"\\]+)","sum":"([0-9a-f]{16})",(.*)\}', re.DOTALL)
_FROM_SINK = b',"event":'


class Line(NamedTuple):
    """One line of a sink, read: `is_sound` when the event is byte for byte what its device wrote, under its id."""

    event_id: str
    tenant: str
    receipt: str
    is_sound: bool


def how_many(device: str, number: int) -> int:
    """Return how many events an upload has, 1 to `MOST_EVENTS`."""
    return 1 + (number * 7 + len(device)) % MOST_EVENTS


def event_id(device: str, number: int, place: int) -> str:
    """Name an event; a device is named `<tenant>-<number>`."""
    return f"{device}.{number}.{place}"


def parse_id(text: str) -> tuple[str, int, int] | None:
    """Take an event's id apart; None for one that no device of ours writes."""
    device, number, place = text.rsplit(".", 2) if text.count(".") >= 2 else ("", "", "")
    if not (number.isdecimal() and place.isdecimal()) or event_id(device, int(number), int(place)) != text:
        return None
    return device, int(number), int(place)


def event(name: str, rest: bytes) -> bytes:
    """Write an event around its payload."""
    return b'{"id":"%b","sum":"%b",%b}' % (name.encode(), _sum(name.encode(), rest), rest)


def upload(device: str, number: int, *, padding: int = 0) -> tuple[bytes, str]:
    """Write an upload; return its body and its Content-Encoding. `padding` bytes more are in each event."""
    rests = _rests(padding)
    events = [
        event(event_id(device, number, place), rests[(number * 31 + place * 7 + len(device)) % RESTS])
        for place in range(how_many(device, number))
    ]
    match number % 3:
        case 0:
            body = b"[" + b",".join(events) + b"]"
        case 1:
            body = b'{"events":[' + b" , ".join(events) + b"]}"
        case _:
            body = b"\n".join(events) + b"\n"
    if number % GZIP_EVERY == 0:
        return gzip.compress(body, 1), "gzip"
    return body, ""


def read(line: bytes) -> Line | None:
    """Read a line of a sink; None when it holds no event of ours, as far as one can tell."""
    head, found, raw = line.partition(_FROM_SINK)
    match = _EVENT.fullmatch(raw[:-1])
    try:
        about = json.loads(head + b"}")
        name, tenant, receipt = (str(about[field]) for field in ("id", "tenant", "receipt"))
    except (ValueError, KeyError, TypeError):
        return None
    if not found or match is None:
        # The event is beyond reading, but the line says whose it was.
        return Line(name, tenant, receipt, is_sound=False)
    is_sound = match[1].decode() == name and match[2] == _sum(match[1], match[3]) and raw.endswith(b"}")
    return Line(name, tenant, receipt, is_sound)


def _sum(name: bytes, rest: bytes) -> bytes:
    return xxh3_64_hexdigest(name + b"\0" + rest).encode()


@lru_cache(maxsize=4)
def _rests(padding: int) -> list[bytes]:
    chance = random.Random(20261124)
    return [_rest(chance, padding) for _ in range(RESTS)]


def _rest(chance: random.Random, padding: int) -> bytes:
    """Write an event's fields after the checksum: no line break between tokens, which a sink's line may not have."""
    fields = {
        "n": chance.getrandbits(80),
        "text": "".join(chance.choices(AWKWARD, k=chance.randrange(60))),
        "nested": [{"a": {}}, None, -0.0, 1e300, {"event": chance.random()}],
        "noise": chance.randbytes(padding // 2).hex(),
    }
    # Surrogates can't be written as UTF-8: those payloads are all escapes, the others half of the time.
    plain = chance.random() < 0.5 or "\udc00" in fields["text"]  # type: ignore[operator]
    text = json.dumps(fields, ensure_ascii=plain, separators=(",", ":") if chance.random() < 0.5 else (", ", " : "))
    # An id given twice, and an escape that nobody needs, must come through as they are.
    return (text[1:-1] + r',"n":7,"\u0061":"\u002f"').encode()
