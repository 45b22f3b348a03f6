"""
Where loss starts: the search between rates.
"""

from __future__ import annotations

import math
from collections.abc import Callable

from collector.errors import TuneError

#: How far from the predicted rate the search begins, and by what it widens. A choice.
AROUND, _WIDER, _MOST_WIDENINGS = 1.25, 1.5, 4


def bracket(is_lossy: Callable[[float], bool], guess: float, *, most: float) -> tuple[float, float | None]:
    """
    Return a rate that is clean and one, above it, that is lossy; the latter is None when `most` is clean.

    Raises `TuneError` when even small rates are lossy: then the buffer is not what decides.
    """
    low = min(guess / AROUND, most)
    for _ in range(_MOST_WIDENINGS):
        if not is_lossy(low):
            break
        low /= _WIDER
    else:
        raise TuneError(
            f"lines are lost at {low * _WIDER:,.0f} a second, a fraction of the {guess:,.0f} that the buffer should"
            " hold: something else than its size decides. Is HEC slower than the lines come? See `collector hec size`"
        )
    high = low * AROUND * AROUND
    while high < most:
        if is_lossy(high):
            return low, high
        low, high = high, high * _WIDER
    return (low, most) if low < most and is_lossy(most) else (max(low, most), None)


def narrowed(
    is_lossy: Callable[[float], bool], clean: float, lossy: float | None, *, halvings: int
) -> tuple[float, float | None]:
    """Halve what lies between a clean rate and a lossy one so many times, on a log scale."""
    for _ in range(halvings if lossy else 0):
        middle = math.sqrt(clean * (lossy or clean))
        if is_lossy(middle):
            lossy = middle
        else:
            clean = middle
    return clean, lossy
