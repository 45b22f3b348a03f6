"""
What the load balancer has processed at such a time of the day and of the week, and how far it may be from that.

All in logarithms, so that a third less is as much at night as by day. What is expected of a window is

    the level of the last days + the growth + the shape of the day + what this hour of the week has beside it

and each of these is a median, over days or over weeks, so that an outage in the past moves none of them.
"""

from __future__ import annotations

import math
from collections import defaultdict
from collections.abc import Sequence

import msgspec

from collector.control.watch.bounds import Past
from collector.control.watch.course import HOUR, SLOTS, Calendar, Course, Place
from collector.control.watch.robust import agreed, median, spread
from collector.control.watch.series import DAY

#: Days of history from which on the week is known, and below which even the shape of a day is not.
WEEKS_DAYS, DAYS_DAYS = 14, 3
#: Added to every window, as a part of the middle one, so that an empty one has a logarithm. A guess: below, nothing is
#: told from nothing.
_FLOOR = 0.005
#: So many times the floor are something.
_SOME = 4.0
#: Windows on each side whose values count for the shape of the day, too.
_NEAR = 1
#: Windows that a day must have to have a level of its own: first of all, and once the shape of a day is known.
_WHOLE, _PART = SLOTS * 3 // 4, SLOTS // 4
#: Growth is believed when three quarters of the weeks' differences show half of it at least.
_FEW, _HALF = 0.25, 0.5
_WEEK = 7
#: Hours on each side that say what an hour of the week has, more or less.
_BESIDE = 3
#: Whole days are not believed to be steadier than this: it is learned from eight differences at the most. A guess.
_STEADIEST = 0.03
#: Of a normal distribution, its standard deviation over that of its inner three quarters.
_GIVEN_BACK = 1.65
#: Saturday and Sunday; it matters only while the week is not known.
WEEKEND = frozenset({5, 6})


class Normal(msgspec.Struct, frozen=True):
    """
    What was expected, window by window, and what came: both as logarithms of bytes + `floor`.

    `off` is by how much more came; where users' clocks may have been set by an hour, the least that an hour earlier or
    later leaves. `places` has the windows' places, and `days` says how many days of history were learned from.
    `off_of_days` is the standard deviation of a whole day from what could be expected of it.
    """

    floor: float
    expected: Sequence[float]
    off: Sequence[float]
    places: Sequence[Place]
    days: float
    growth_a_day: float
    is_shifted: Sequence[bool]
    weekends: frozenset[bool]
    off_of_days: float

    def knows(self, window: int) -> bool:
        """Tell whether a window lies in a day of a kind that was learned from: a working day, or one of a weekend."""
        return (self.places[window].weekday in WEEKEND) in self.weekends

    def past(self, history: int) -> Past:
        """Return the windows before `history` to learn from: where nothing is expected, nothing can be off."""
        least = math.log(_SOME * self.floor)
        known = [self.knows(window) for window in range(history)]
        counted = [one and self.expected[window] > least for window, one in enumerate(known)]
        return Past(self.places[:history], counted, known)

    def bytes_expected(self, window: int) -> float:
        """Return how many bytes were expected in a window."""
        return max(math.exp(self.expected[window]) - self.floor, 0.0)


def learn(course: Course, calendar: Calendar) -> Normal | None:
    """Learn what is normal from the windows before those that are judged; None if that is nothing."""
    count, history = len(course.processed), course.judged
    flowing = [value for value in course.processed[:history] if value > 0]
    if not flowing:
        return None
    floor = max(_FLOOR * median(flowing), 1.0)
    logs = [math.log(value + floor) for value in course.processed]
    places = [calendar.place(course.minute(window)) for window in range(-HOUR, count + HOUR)]
    here = places[HOUR:-HOUR]
    known = here[:history]
    days = history / SLOTS
    is_of_weeks = days >= WEEKS_DAYS
    weekends = frozenset({False, True} if is_of_weeks else {here[-1].weekday in WEEKEND})
    rows: dict[int, dict[int, float]] = defaultdict(dict)
    for place, value in zip(known, logs, strict=False):
        if (place.weekday in WEEKEND) in weekends:
            rows[place.day][place.slot] = value
    if sum(len(row) >= _PART for row in rows.values()) < DAYS_DAYS:
        return None
    shape, levels = _polished(rows)
    growth = _growth(levels) if is_of_weeks else 0.0
    today = here[-1].day
    last = [levels[day] + growth * (today - day) for day in sorted(levels)[-_WEEK:]]
    # A line through the last days: what a day had is this far below today.
    base = median(last)
    plain = [base - growth * (today - place.day) + shape[place.slot] for place in places]
    weekly = _weekly(known, [log - one for log, one in zip(logs, plain[HOUR:], strict=False)]) if is_of_weeks else {}
    expected = [one + _beside(weekly, place) for one, place in zip(plain, places, strict=True)]
    within = int(days * DAY)
    shifted = [calendar.may_be_shifted(course.minute(window), within=within) for window in range(count)]
    off = [
        _least([log - one for one in expected[at : at + 2 * HOUR + 1 : HOUR]])
        if shifted[at]
        else log - expected[at + HOUR]
        for at, log in enumerate(logs)
    ]
    return Normal(floor, expected[HOUR:-HOUR], off, here, days, growth, shifted, weekends, _off_of_days(levels, growth))


def _polished(rows: dict[int, dict[int, float]]) -> tuple[list[float], dict[int, float]]:
    """Part values by day and window of the day into a shape and levels, by medians in turn (Tukey's median polish)."""
    whole = {day: row for day, row in rows.items() if len(row) >= _WHOLE} or rows
    shape = [0.0] * SLOTS
    levels: dict[int, float] = {}
    for _ in range(2):
        levels = {day: median([value - shape[slot] for slot, value in row.items()]) for day, row in whole.items()}
        beside = [[row[slot] - levels[day] for day, row in whole.items() if slot in row] for slot in range(SLOTS)]
        shape = [median(_around(beside, slot) or [0.0]) for slot in range(SLOTS)]
    levels |= {
        day: median([value - shape[slot] for slot, value in row.items()])
        for day, row in rows.items()
        if len(row) >= _PART
    }
    return shape, levels


def _around(beside: Sequence[Sequence[float]], slot: int) -> list[float]:
    return [value for near in range(slot - _NEAR, slot + _NEAR + 1) for value in beside[near % SLOTS]]


def _growth(levels: dict[int, float]) -> float:
    """Return the growth a day, from each day and the same one a week later: these differ by nothing else."""
    steps = sorted((levels[day + _WEEK] - level) / _WEEK for day, level in levels.items() if day + _WEEK in levels)
    if not steps:
        return 0.0
    middle = median(steps)
    least = steps[int(_FEW * (len(steps) - 1))] if middle > 0 else -steps[int((1 - _FEW) * (len(steps) - 1) + 0.5)]
    return middle if least >= _HALF * abs(middle) else 0.0


def _off_of_days(levels: dict[int, float], growth: float) -> float:
    """
    Return how far whole days are off, as a standard deviation.

    Two days a week apart differ by twice the variance of one. The quarter that differs most is left out, and what that
    takes from a normal deviation is given back.
    """
    week = [levels[day + _WEEK] - level - _WEEK * growth for day, level in levels.items() if day + _WEEK in levels]
    if len(week) < _WEEK:
        middle = median(levels.values())
        return max(spread([level - middle for level in levels.values()]), _STEADIEST)
    kept = sorted(map(abs, week))[: len(week) * 3 // 4]
    return max(_GIVEN_BACK * math.sqrt(sum(one * one for one in kept) / len(kept) / 2), _STEADIEST)


def _weekly(places: Sequence[Place], beside: Sequence[float]) -> dict[tuple[int, int], float]:
    """
    Return what each hour of the week has beside the shape of the day.

    That is what the hours around it have, of all weeks, and besides only what the weeks agree on: of two Saturdays one
    may have had an outage.
    """
    hours: dict[tuple[int, int], list[float]] = defaultdict(list)
    for place, value in zip(places, beside, strict=False):
        hours[place.day, place.slot // HOUR].append(value)
    weeks: dict[tuple[int, int], list[float]] = defaultdict(list)
    weekdays = {place.day: place.weekday for place in places}
    for (day, hour), values in hours.items():
        if len(values) > HOUR // 2:
            weeks[weekdays[day], hour].append(median(values))
    found = {}
    for (weekday, hour), values in weeks.items():
        near = [one for other in range(hour - _BESIDE, hour + _BESIDE + 1) for one in weeks.get((weekday, other), ())]
        around = median(near)
        found[weekday, hour] = around + agreed([value - around for value in values])
    return found


def _beside(weekly: dict[tuple[int, int], float], place: Place) -> float:
    """Return the correction of a window: between the middles of two hours, a part of each; none from another day."""
    if not weekly:
        return 0.0
    at = (place.slot + 0.5) / HOUR - 0.5
    last = SLOTS // HOUR - 1
    before = min(max(math.floor(at), 0), last)
    after = min(before + 1, last) if at > 0 else before
    part = min(max(at - before, 0.0), 1.0)
    return (1 - part) * weekly.get((place.weekday, before), 0.0) + part * weekly.get((place.weekday, after), 0.0)


def _least(values: Sequence[float]) -> float:
    """Return the value nearest to zero, or zero between values on its two sides."""
    return 0.0 if min(values) < 0 < max(values) else min(values, key=abs)
