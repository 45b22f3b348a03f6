"""
How evenly it comes: whether windows lie apart that used to follow the day's course together.
"""

from __future__ import annotations

from collections.abc import Sequence

from collector.control.watch.bounds import Past
from collector.control.watch.course import HOUR, Place
from collector.control.watch.robust import median, rolling_spread

#: Two hours and one, in windows, and one more.
_SPAN, _LATELY = 25, 13
#: Told when windows lie so many times as far apart as at this hour of other days, a quarter beyond what is no news, and
#: an eighth in any case. By measurement: `python -m bench.watch`.
_TIMES, _BEYOND, _LEAST = 2.5, 1.25, 0.12
#: So many windows are needed to tell whether they lie apart.
_ENOUGH = 8


class Pattern:
    """How far windows lie apart, and how far they may."""

    def __init__(self, off: Sequence[float], places: Sequence[Place], past: Past, factor: float) -> None:
        self._off = off
        self._places = places
        self._apart = rolling_spread(off, _SPAN)
        self._apart_lately = rolling_spread(off, _LATELY)
        self._usual = past.middles(self._apart)
        self._least = max(_BEYOND * past.most(self._apart), _LEAST) * factor
        self._times = _TIMES * factor

    def score(self, at: int) -> float:
        """Return how far windows lie apart up to this one, as a part of what is told."""
        return self._apart[at] / self._most(at)

    def is_scattered(self, at: int) -> bool:
        """Tell whether they lie too far apart: in two hours and in the last of these, unlike a slope."""
        return self._apart[at] > self._most(at) and self._apart_lately[at] > self._most(at)

    def is_uneven(self, first: int, last: int) -> bool:
        """Tell whether these windows alone lie apart, whatever came before them."""
        if last - first + 1 < _ENOUGH:
            return False
        values = self._off[first : last + 1]
        middle = median(values)
        return median([abs(value - middle) for value in values]) > self._most(last)

    def _most(self, at: int) -> float:
        return max(self._times * self._usual[self._places[at].slot // HOUR], self._least)
