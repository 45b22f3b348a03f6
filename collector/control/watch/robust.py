"""
Medians, and what is made of them: numbers that one outage in the past does not move.
"""

from __future__ import annotations

from bisect import bisect_left, insort
from collections.abc import Iterable, Sequence

#: From the median of absolute deviations to a standard deviation, were they normal.
MAD = 1.4826
#: What is as great on every fifth day is no news. A choice: three of two weeks' days may have been bad ones.
_NO_NEWS = 0.8


def median(values: Iterable[float]) -> float:
    """Return the middle of values, of which there is one at least."""
    ordered = sorted(values)
    half = len(ordered) // 2
    return ordered[half] if len(ordered) % 2 else (ordered[half - 1] + ordered[half]) / 2


def spread(values: Iterable[float]) -> float:
    """Return the median of the distances from zero, as a standard deviation."""
    return MAD * median(map(abs, values))


def agreed(values: Sequence[float]) -> float:
    """
    Return what several weeks agree on: their median; of two the one nearer to zero, or zero if they are on its sides.

    One week has nobody to agree with.
    """
    if len(values) > 2:
        return median(values)
    if len(values) < 2 or values[0] * values[1] <= 0:
        return 0.0
    return min(values, key=abs)


def usual_most(by_day: Iterable[float]) -> float:
    """Return what the greatest values of most days stay below; 0 without a day."""
    ordered = sorted(by_day)
    return ordered[int(_NO_NEWS * (len(ordered) - 1))] if ordered else 0.0


def rolling_median(values: Sequence[float], span: int) -> list[float]:
    """Return for each value the median of it and those before it, `span` (an odd number) in all; fewer at the head."""
    ordered: list[float] = []
    medians = []
    for at, value in enumerate(values):
        if at >= span:
            del ordered[bisect_left(ordered, values[at - span])]
        insort(ordered, value)
        medians.append(ordered[len(ordered) // 2])
    return medians


def rolling_spread(values: Sequence[float], span: int) -> list[float]:
    """Return for each value by how much it and those before it, `span` in all, lie apart: the median distance."""
    medians = rolling_median(values, span)
    return [
        median([abs(value - middle) for value in values[max(at - span + 1, 0) : at + 1]])
        for at, middle in enumerate(medians)
    ]
