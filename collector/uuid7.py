"""
UUIDs of version 7 (RFC 9562): ids that sort by the time of their making.
"""

from __future__ import annotations

import os
from collections.abc import Callable
from weakref import WeakMethod

from collector.clock import Clock

_RANDOM_BITS = 74  # rand_a (12) and rand_b (62), used as one number
_TIME_MASK = (1 << 48) - 1
_RAND_B_MASK = (1 << 62) - 1
_VERSION = 7 << 76
_VARIANT = 1 << 63
#: A new millisecond starts in the lower half of the random range, so that counting on from there has room.
_SEED_MASK = (1 << (_RANDOM_BITS - 1)) - 1
#: Within a millisecond a call steps on by up to 2^48: 2^25 calls fit, and two processes forked with the same
#: state part at their first call.
_STEP_MASK = (1 << 48) - 1

#: How much randomness a call takes, and how much is asked of the kernel at once: that costs as much as all else.
_DRAW_BYTES, _POOL_BYTES = 10, 640


class Uuid7:
    """
    Make UUIDv7 strings, each greater than the one before, in every process another.

    Time and the 74 free bits are kept as one number that only grows (RFC 9562, 6.2, method 2). A clock that
    goes back, or stands, leaves the time part where it was; a full random range carries into it. `clock` gives
    microseconds; `random_bytes(n)` is a source such as `os.urandom`. Not for several threads.
    """

    def __init__(self, clock: Clock, random_bytes: Callable[[int], bytes] = os.urandom) -> None:
        self._clock = clock
        self._random_bytes = random_bytes
        self._last = -1
        self._pool, self._at = b"", 0
        mine = WeakMethod(self._forget)
        os.register_at_fork(after_in_child=lambda: (forget := mine()) and forget())

    def _forget(self) -> None:
        """Throw away what randomness is left; a forked child would give out the same as its parent."""
        self._pool, self._at = b"", 0

    def __call__(self) -> str:
        """Make one: 36 characters, lower case."""
        return _text(self._take(1))

    def many(self, count: int) -> list[str]:
        """Make `count` ids, consecutive, at the price of one draw of randomness."""
        if count <= 0:
            return []
        first = self._take(count)
        prefix, low = _text(first)[:24], first & 0xFFFFFFFFFFFF
        if low + count <= 1 << 48:
            # One format in C: half the time of one an id.
            return (f"{prefix}%012x " * count % tuple(range(low, low + count))).split()
        return [_text(number) for number in range(first, first + count)]

    def _take(self, count: int) -> int:
        """Reserve `count` consecutive numbers and return the first."""
        at = self._at
        if at == len(self._pool):
            self._pool, at = self._random_bytes(_POOL_BYTES), 0
        self._at = at + _DRAW_BYTES
        chance = int.from_bytes(self._pool[at : at + _DRAW_BYTES])
        first = (self._clock.now_us() // 1000 & _TIME_MASK) << _RANDOM_BITS | (chance & _SEED_MASK)
        if first >> _RANDOM_BITS <= self._last >> _RANDOM_BITS:
            first = self._last + 1 + (chance & _STEP_MASK)
        self._last = first + count - 1
        return first


def _text(number: int) -> str:
    """Write time (48 bits) and random (74 bits) around the version and the variant."""
    uuid = (number >> _RANDOM_BITS) << 80 | _VERSION | (number >> 62 & 0xFFF) << 64 | _VARIANT | number & _RAND_B_MASK
    digits = uuid.to_bytes(16).hex()
    return f"{digits[:8]}-{digits[8:12]}-{digits[12:16]}-{digits[16:20]}-{digits[20:]}"
