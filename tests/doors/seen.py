"""
What a twin answers when it is asked what a case left behind. Apart from it, for its import builds a whole Collector.
"""

from __future__ import annotations

import msgspec

#: Where it is asked, on the admin listener.
PATH = "/twin"


class Kept(msgspec.Struct, frozen=True):
    """A frame as it was written, but for where it lies."""

    tenant: bytes
    events: int
    received_us: int
    payload: bytes


class Seen(msgspec.Struct, frozen=True):
    """What a case left behind: frames, how far each counter went up, and how many requests Flask had for devices."""

    kept: list[Kept]
    counted: dict[str, int]
    by_flask: int
