"""
Weeks that never were: traffic as a load balancer might have seen it, with a change planted where one is wanted.

The same seed makes the same bytes. Whoever tries the watch without a load balancer is shown these, and its detection
delay and its false alarms are measured on them. What the numbers are like is a guess at a service with users in a few
neighbouring zones; no traffic of anybody's is in it.
"""

from __future__ import annotations

import math
import random
from collections.abc import Iterator
from enum import StrEnum

import msgspec

from collector.control.watch.course import Calendar
from collector.control.watch.series import DAY, Series

#: Monday, 5 January 2026.
MONDAY = 29_459_520
#: Of a minute's deviation, what the next one keeps: deviations last for some ten minutes.
_LASTING = 0.9
#: What a minute alone deviates by besides, and what the reading of counters shifts between a minute and the next:
#: parts of the whole.
_ALONE, _SHIFTED = 0.08, 0.01
#: Parts of what passes that tasks do not count: headers of TCP and TLS.
_HEADERS = 0.03
#: Every so many minutes, in traffic that comes in lumps.
_LUMP = 45


class Kind(StrEnum):
    """What may be planted."""

    CLEAN = "clean"
    ZERO = "zero"
    STEP_DOWN = "step-down"
    STEP_UP = "step-up"
    LEAK = "leak"
    FLAT = "flat"
    MOVED = "moved"
    LUMPS = "lumps"


class Traffic(msgspec.Struct, frozen=True):
    """
    What the weeks are like. `minutes` are from `start` on, in minutes; shares are of 1, spreads of the logarithm.

    `outages` are (minute, length) in minutes after the start: what a history may hold that is nobody's habit.
    """

    seed: int
    days: int = 15
    start: int = MONDAY
    bytes_a_minute: float = 40e6
    swing: float = 0.6
    weekend: float = 0.7
    growth_a_week: float = 0.02
    spread: float = 0.06
    spread_of_days: float = 0.03
    bursts_a_week: float = 0.0
    lost_minutes: float = 0.0
    is_night_empty: bool = False
    zone: str = ""
    outages: tuple[tuple[int, int], ...] = ()


class Change(msgspec.Struct, frozen=True):
    """What is planted, in which minute after the start; `size` is a factor, or what leaks away in an hour."""

    kind: Kind = Kind.CLEAN
    at: int = 0
    size: float = 1.0


#: What is planted when nothing else is said of it.
SIZES = {Kind.STEP_DOWN: 0.7, Kind.STEP_UP: 1.5, Kind.LEAK: 0.01}


def make(traffic: Traffic, change: Change) -> tuple[Series, Series]:
    """Make the bytes that were processed and those that were sent."""
    chance = random.Random(traffic.seed)
    habit = _Habit(traffic, chance)
    bursts = _bursts(traffic, chance)
    processed: list[float | None] = []
    sent: list[float | None] = []
    drift, of_day, held = 0.0, 0.0, 0.0
    lasting = traffic.spread * math.sqrt(1 - _LASTING**2)
    # Half of the outages are of the tasks' own making: they send nothing.
    is_sending = chance.random() < 0.5
    for at in range(traffic.days * DAY):
        if at % DAY == 0:
            of_day = chance.gauss(0, traffic.spread_of_days)
        drift = _LASTING * drift + chance.gauss(0, lasting)
        alone = chance.gauss(0, _ALONE)
        shift = chance.gauss(0, _SHIFTED)
        size = habit.bytes_at(at, change) * bursts.get(at, 1.0) * math.exp(drift + of_day + alone)
        passed, lost = size * (1 + _HEADERS), chance.random() < traffic.lost_minutes
        if change.kind is Kind.LEAK and at >= change.at:
            passed *= max(1 - change.size * (at - change.at) / 60, 0.0)
        is_out = any(first <= at < first + length for first, length in traffic.outages)
        if is_out or (change.kind is Kind.ZERO and at >= change.at):
            passed, size = 0.0, size if is_sending else 0.0
        # What a counter's reading misses of a minute, the next one has.
        sent.append(float(round(max(size * (1 + shift) + held, 0.0))))
        held = -size * shift
        processed.append(0.0 if lost else float(round(passed)))
    return Series(traffic.start, processed), Series(traffic.start, sent)


class _Habit:
    """What a minute would have without chance, but for the few numbers that make a service this one and no other."""

    def __init__(self, traffic: Traffic, chance: random.Random) -> None:
        self._traffic = traffic
        self._calendar = Calendar(traffic.zone or "UTC")
        self._peak, self._second = chance.uniform(0, DAY), chance.uniform(0, DAY)
        self._late = chance.uniform(30, 120)
        # Peak over mean: what a day without its wave has.
        self._flat = traffic.bytes_a_minute

    def bytes_at(self, at: int, change: Change) -> float:
        traffic, is_changed = self._traffic, at >= change.at
        factor = change.size if is_changed and change.kind in {Kind.STEP_DOWN, Kind.STEP_UP} else 1.0
        if is_changed and change.kind is Kind.LUMPS:
            # Three minutes in five are nearly empty, and what they lack comes with the others.
            factor = 0.3 if at % _LUMP < _LUMP * 3 // 5 else 2.05
        grown: float = (1 + traffic.growth_a_week) ** (at / DAY / 7)
        if is_changed and change.kind is Kind.FLAT:
            return self._flat * grown
        moved = at - 6 * 60 if is_changed and change.kind is Kind.MOVED else at
        return self._wave(moved) * grown * factor

    def _wave(self, at: int) -> float:
        traffic = self._traffic
        place = self._calendar.place(traffic.start + at)
        # The minute of a local day: zones differ from UTC by quarters of an hour.
        minute = place.slot * 5 + (traffic.start + at) % 5
        is_weekend = place.weekday >= 5
        turn = 2 * math.pi / DAY
        since = minute - self._peak - (self._late if is_weekend else 0)
        if traffic.is_night_empty and math.cos(turn * since) < -0.5:
            return 0.0
        wave = math.cos(turn * since) + 0.25 * math.cos(2 * turn * (since - self._second))
        return self._flat * math.exp(traffic.swing * wave) * (traffic.weekend if is_weekend else 1.0)


def _bursts(traffic: Traffic, chance: random.Random) -> dict[int, float]:
    """Say by how much more is sent in which minutes, now and then: a campaign, a batch, a crash that all phones log."""
    return {
        minute: factor
        for at, factor in _starts(traffic, chance)
        for minute in range(at, at + chance.randrange(10, 41))
    }  # fmt: skip


def _starts(traffic: Traffic, chance: random.Random) -> Iterator[tuple[int, float]]:
    at = 0.0
    while traffic.bursts_a_week > 0:
        at += chance.expovariate(traffic.bursts_a_week / (7 * DAY))
        if at >= traffic.days * DAY:
            return
        yield int(at), chance.uniform(1.5, 2.5)
