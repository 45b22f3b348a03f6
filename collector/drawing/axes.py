"""
Axes of a chart: where a value lies, and which values are written beside it.
"""

from __future__ import annotations

import math
from collections.abc import Iterable, Sequence

import msgspec

#: Steps between round numbers, within a decade.
_ROUND = (1.0, 2.0, 5.0)
#: More words than this do not fit beside an axis of a log scale, nor are about so many needed on a plain one.
_MOST, _WANTED = 8, 5
#: Above this, in thousands; and so on.
_UNITS = ((1e6, "M"), (1e4, "k"))


class Axis(msgspec.Struct, frozen=True):
    """From `low` to `high`, on a log scale or a plain one; `only` are values to be written instead of round ones."""

    label: str
    low: float
    high: float
    log: bool = False
    only: Sequence[float] = ()

    def holds(self, value: float) -> bool:
        """Tell whether a value can be drawn."""
        return self.low <= value <= self.high

    def part(self, value: float) -> float:
        """Return how far along the axis a value lies, from 0 to 1."""
        if self.log:
            return math.log(value / self.low) / math.log(self.high / self.low)
        return (value - self.low) / (self.high - self.low)

    def ticks(self) -> list[tuple[float, str]]:
        """Return the values to be written, and how."""
        values = list(self.only) or (_of_decades(self.low, self.high) if self.log else _of_steps(self.low, self.high))
        return [(value, short(value)) for value in values if self.holds(value)]


def plain(label: str, values: Iterable[float]) -> Axis:
    """Make an axis from zero to a round number above all values."""
    most = max(values, default=0.0) or 1.0
    step = _step(most)
    return Axis(label, 0.0, math.ceil(most / step - 1e-9) * step)


def log(label: str, values: Iterable[float]) -> Axis:
    """Make an axis on a log scale, between round numbers around all values above zero."""
    above = [value for value in values if value > 0] or [1.0]
    low = max(one for one in _rounds(min(above)) if one <= min(above) * (1 + 1e-9))
    high = min(one for one in _rounds(max(above)) if one >= max(above) * (1 - 1e-9))
    return Axis(label, low, high if high > low else low * 10, log=True)


def short(value: float) -> str:
    """Write a number beside an axis."""
    for unit, letter in _UNITS:
        if value >= unit:
            return f"{value / (1e6 if letter == 'M' else 1e3):g}{letter}"
    return f"{value:,.10g}"


def _rounds(value: float) -> list[float]:
    """Return the round numbers of this decade and the next."""
    decade = math.floor(math.log10(value) + 1e-9)
    return [float(f"{step}e{power}") for power in (decade, decade + 1) for step in _ROUND]


def _of_decades(low: float, high: float) -> list[float]:
    powers = range(math.floor(math.log10(low)), math.ceil(math.log10(high)) + 1)
    inside = [one for power in powers for step in _ROUND if low <= (one := float(f"{step}e{power}")) <= high]
    return inside if len(inside) <= _MOST else [one for one in inside if f"{one:e}".startswith("1.0")]


def _of_steps(low: float, high: float) -> list[float]:
    step = _step(high)
    return [n * step for n in range(math.ceil(low / step), math.floor(high / step + 1e-9) + 1)]


def _step(most: float) -> float:
    """Return the round step that makes about as many as are wanted of what is between zero and this."""
    wanted = most / _WANTED
    return next(one for one in _rounds(wanted) if one >= wanted * (1 - 1e-9))
