"""
How far a running median may be from what is normal, before it is told: by the hour of the day, and by what is no news.
"""

from __future__ import annotations

import math
from collections import defaultdict
from collections.abc import Iterable, Sequence

import msgspec

from collector.control.watch.course import HOUR, SLOTS, Place
from collector.control.watch.robust import MAD, median, rolling_median, usual_most

_HOURS = SLOTS // HOUR
#: Beyond what four days of five stay below, by a quarter of it. A choice.
_BEYOND = 1.25
#: A quiet hour is trusted to be half as quiet as the day at the most, and nothing to be quieter than this part.
_QUIETEST = 0.5
#: Windows that a day must have for its greatest value to say something.
_WHOLE = SLOTS // 2


class Rule(msgspec.Struct, frozen=True):
    """
    When a running median is told: over `span` windows (an odd number), off by `deviations`, and by `least` in any case.

    `quietest` is the least standard deviation that is believed. `days` is how many deviations a whole day may be off
    besides. Logarithms, all but the span and the deviations.
    """

    span: int
    deviations: float
    least_up: float
    least_down: float
    quietest: float
    days: float = 0.0

    def times(self, factor: float) -> Rule:
        """Return the rule of another sensitivity: everything is told from so many times as much on."""
        return msgspec.structs.replace(
            self, deviations=self.deviations * factor, least_up=self.least_up * factor,
            least_down=self.least_down * factor, days=self.days * factor,
        )  # fmt: skip


class Bounds(msgspec.Struct, frozen=True):
    """A running median, window by window, and by hour of the day how far up and down it may be."""

    values: Sequence[float]
    up: Sequence[float]
    down: Sequence[float]

    def score(self, window: int, place: Place) -> float:
        """Return how far off a window is, as a part of what is told: over 1 upwards, below -1 downwards."""
        value, hour = self.values[window], place.slot // HOUR
        return value / (self.up[hour] if value > 0 else self.down[hour])


def bounds(off: Sequence[float], past: Past, rule: Rule, *, off_of_days: float = 0.0) -> Bounds:
    """
    Learn bounds for a running median from the past.

    `off_of_days` is the standard deviation of whole days from what was expected of them.
    """
    values = rolling_median(off, rule.span)
    by_hour = past.by_hour(values)
    everywhere = [abs(value) for one in by_hour for value in one]
    quiet = max(_QUIETEST * MAD * median(everywhere) if everywhere else 0.0, rule.quietest)
    usual = [
        math.hypot(rule.deviations * max(MAD * _middle(map(abs, one)), quiet), rule.days * off_of_days)
        for one in by_hour
    ]
    most_up = _BEYOND * past.most(values)
    most_down = _BEYOND * past.most([-value for value in values])
    return Bounds(
        values,
        [max(one, most_up, rule.least_up) for one in usual],
        [max(one, most_down, rule.least_down) for one in usual],
    )


class Past(msgspec.Struct, frozen=True):
    """
    The windows that are learned from, by their places.

    Of a day of which nothing is `known` nothing is learned. Windows that are not `counted` are not asked how far off
    windows are, but for the greatest of a day.
    """

    places: Sequence[Place]
    counted: Sequence[bool]
    known: Sequence[bool]

    @classmethod
    def all_of(cls, places: Sequence[Place]) -> Past:
        """Make a past in which all windows count."""
        return cls(places, [True] * len(places), [True] * len(places))

    def by_hour(self, values: Sequence[float]) -> list[list[float]]:
        """Return the values of each hour of the day, with those of the hours before and after it."""
        alone: list[list[float]] = [[] for _ in range(_HOURS)]
        for value, place, counts in zip(values, self.places, self.counted, strict=False):
            if counts:
                alone[place.slot // HOUR].append(value)
        return [alone[hour - 1] + alone[hour] + alone[(hour + 1) % _HOURS] for hour in range(_HOURS)]

    def middles(self, values: Sequence[float]) -> list[float]:
        """Return the middle of each hour of the day, with those before and after it; 0 where there is none."""
        return [_middle(one) for one in self.by_hour(values)]

    def most(self, values: Sequence[float]) -> float:
        """Return what the greatest values of most days stay below."""
        days: dict[int, list[float]] = defaultdict(list)
        for value, place, known in zip(values, self.places, self.known, strict=False):
            if known:
                days[place.day].append(value)
        return max(usual_most(max(one) for one in days.values() if len(one) >= _WHOLE), 0.0)


def _middle(values: Iterable[float]) -> float:
    """Return the middle, or 0 of nothing."""
    ordered = list(values)
    return median(ordered) if ordered else 0.0
