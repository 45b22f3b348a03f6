"""
Windows in a row that are told as one.
"""

from __future__ import annotations

from collections.abc import Sequence

import msgspec


class Episode(msgspec.Struct, frozen=True):
    """From the window `first` to the window `last`; at `told` it could first be told."""

    first: int
    last: int
    told: int


def episodes(flagged: Sequence[bool], *, apart: int) -> list[Episode]:
    """Put windows together that are flagged, with no more than `apart` between two of them."""
    found: list[Episode] = []
    for at, is_flagged in enumerate(flagged):
        if not is_flagged:
            continue
        if found and at - found[-1].last <= apart:
            found[-1] = msgspec.structs.replace(found[-1], last=at)
        else:
            found.append(Episode(at, at, at))
    return found


def began(off: Sequence[float], one: Episode, span: int) -> int:
    """
    Return the window in which it began: a running median over `span` windows is told after half of them.

    Two windows in a row that are less than half as far off, or on the other side, were before it.
    """
    ahead = off[max(one.first - span + 1, 0) : one.first + 1]
    middle = sorted(ahead)[len(ahead) // 2]
    first = one.first
    for at in range(one.first, max(one.first - 2 * span, -1), -1):
        if off[at] * middle > 0 and abs(off[at]) > abs(middle) / 2:
            first = at
        elif first - at >= 2:
            break
    return first
