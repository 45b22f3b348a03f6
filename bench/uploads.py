"""
What is uploaded: device events of one size, each with an id of its own, in bodies and finished requests.
"""

from __future__ import annotations

import gzip
import random
from itertools import cycle
from typing import Any

import msgspec

EVENT_BYTES = 360
#: How many different uploads of a case go round and round: too many for any cache to make them cheap.
POOL_UPLOADS = 512
_POOL_EVENTS = 4096
#: What an event begins with: {"id":"…36…"
_ID_BYTES = 44
PATH = "/v1/events"

#: What SDKs use unless they are told otherwise.
_GZIP_LEVEL = 6
_NAMES = ("screen_view", "product_viewed", "added_to_cart", "search", "session_start", "purchase", "notification_open")
_SCREENS = ("home", "search/results", "product/detail", "cart", "checkout/payment", "account/orders", "settings")
_DEVICES = (
    ("android", "14", "Pixel 8"), ("android", "13", "SM-A546B"), ("ios", "18.1", "iPhone15,2"),
    ("ios", "17.6", "iPad13,4"),
)  # fmt: skip
_LOCALES = ("de-DE", "en-GB", "en-US", "es-MX", "fr-FR", "hi-IN", "ja-JP", "pt-BR")
_WORDS = (
    "red green blue large small running shoe jacket winter summer cotton leather new sale offer classic light pro case "
    "wireless charger phone tablet garden kitchen desk lamp chair book novel guide set pack kids men women"
).split()


class Case(msgspec.Struct, frozen=True):
    """One thing to measure. `ack` is what the device asks for: an answer once the spool has it, or the sink."""

    events: int
    encoding: str = "plain"
    connections: int = 32
    ack: str = "spool"

    @property
    def title(self) -> str:
        """Name it for a person."""
        return f"{self.events} {'event' if self.events == 1 else 'events'}, {self.encoding}, ack {self.ack}"


def event(rng: random.Random) -> bytes:
    """Make one event of `EVENT_BYTES` as a device would send it."""
    system, version, device = rng.choice(_DEVICES)
    properties: dict[str, Any] = {
        "screen": rng.choice(_SCREENS),
        "item": rng.randrange(10**6),
        "price": rng.randrange(10**5) / 100,
        "online": rng.random() < 0.9,
        "text": "",
    }
    fields = {
        "id": _id(rng),
        "event": rng.choice(_NAMES),
        "timestamp": f"2026-01-{rng.randrange(1, 31):02d}T{rng.randrange(24):02d}:{rng.randrange(60):02d}"
        f":{rng.randrange(60):02d}.{rng.randrange(1000):03d}Z",
        "user_id": f"u-{rng.randrange(10**8):08d}",
        "session": f"{rng.getrandbits(48):012x}",
        "context": {"os": system, "os_version": version, "device": device, "locale": rng.choice(_LOCALES)},
        "properties": properties,
    }
    missing = EVENT_BYTES - len(msgspec.json.encode(fields))
    text = ""
    while len(text) < missing:
        text += rng.choice(_WORDS) + " "
    properties["text"] = text[: missing - 1] + "."
    return msgspec.json.encode(fields)


def _id(rng: random.Random) -> str:
    """Make an id that looks like a random UUID."""
    digits = f"{rng.getrandbits(128):032x}"
    return f"{digits[:8]}-{digits[8:12]}-4{digits[13:16]}-a{digits[17:20]}-{digits[20:]}"


def bodies(events: int, encoding: str, *, seed: int, count: int = POOL_UPLOADS) -> list[bytes]:
    """
    Make so many different upload bodies, each an array of so many events; the same ones for the same seed.

    No id comes twice; what else an event says does, for making it anew would take longer than the measurement.
    """
    rng = random.Random(seed)
    rests = [event(rng)[_ID_BYTES:] for _ in range(min(_POOL_EVENTS, events * count))]
    plain = [
        b"[" + b",".join(f'{{"id":"{_id(rng)}"'.encode() + rng.choice(rests) for _ in range(events)) + b"]"
        for _ in range(count)
    ]
    return [gzip.compress(body, _GZIP_LEVEL, mtime=0) for body in plain] if encoding == "gzip" else plain


def names(tenants: int) -> list[str]:
    """Name so many tenants."""
    return [f"bench-{n}" for n in range(1, tenants + 1)]


def key(tenant: str) -> str:
    """Return what a tenant's devices show."""
    return f"key-of-{tenant}"


def requests(case: Case, *, seed: int = 1, tenants: int = 1) -> list[bytes]:
    """Render the requests of a case, whole, as an SDK sends them; the tenants take turns, each at least once."""
    head = (
        f"POST {PATH} HTTP/1.1\r\nHost: collector.example.com\r\nUser-Agent: device-sdk/3.2 (Android 14)\r\n"
        f"Content-Type: application/json\r\nAccept: */*\r\n"
    )
    if case.encoding != "plain":
        head += f"Content-Encoding: {case.encoding}\r\n"
    if case.ack != "spool":
        head += f"Collector-Ack: {case.ack}\r\n"
    made = bodies(case.events, case.encoding, seed=seed)
    turns, uploaders = max(len(made), tenants), cycle(names(tenants))
    return [
        f"{head}Authorization: Bearer {key(tenant)}\r\nContent-Length: {len(body)}\r\n\r\n".encode() + body
        for body, tenant, _ in zip(cycle(made), uploaders, range(turns), strict=False)
    ]
