"""
What the load balancer has processed, as a part of what the tasks sent: the one thing that shows a loss between them.

It is above 1 by the headers that the tasks do not count, and more so at night, when batches are small: it is learned by
the hour of the day, as everything is.
"""

from __future__ import annotations

import math
from collections.abc import Sequence

import msgspec

from collector.control.watch.bounds import Bounds, Past, Rule, bounds
from collector.control.watch.course import HOUR, SLOTS, Course, Place
from collector.control.watch.robust import median

#: Windows of both that are needed before it is known what the ratio is: six hours.
NEEDED = 6 * HOUR
#: Below this part of the middle window the ratio of two small numbers is chance. A guess.
_TOO_LITTLE = 0.02
#: A ratio below this is told as this.
_NEARLY_NONE = 1e-3
#: 35 minutes; told from 1.5 % on. Counters are read at other times than a load balancer's, which is a part of a percent
#: of half an hour. A choice.
RULE = Rule(span=7, deviations=6.0, least_up=0.015, least_down=0.015, quietest=0.002)


class Ratio(msgspec.Struct, frozen=True):
    """
    The ratio of each of some windows, as a logarithm: `at` are their numbers, `logs` what it was.

    `usual` is what it has been at each hour of the day; `bounds` speak of the windows in their order in `at`.
    """

    at: Sequence[int]
    logs: Sequence[float]
    usual: Sequence[float]
    bounds: Bounds
    middle: float

    @property
    def usual_ratio(self) -> float:
        """What has been processed of a byte that was sent, in the middle of the history."""
        return math.exp(self.middle)


def learn_ratio(course: Course, places: Sequence[Place], *, factor: float) -> Ratio | None:
    """Learn the ratio from the windows before those that are judged, or None if there are too few of them."""
    if course.sent is None:
        return None
    known = sorted(value for value in course.sent[: course.judged] if value)
    enough = _TOO_LITTLE * median(known) if known else 0.0
    at = [window for window, value in enumerate(course.sent) if value is not None and value > enough]
    history = sum(window < course.judged for window in at)
    if history < NEEDED:
        return None
    logs = [
        math.log(max(course.processed[window] / sent, _NEARLY_NONE))
        for window in at
        if (sent := course.sent[window]) is not None
    ]
    here = [places[window] for window in at]
    middle = median(logs[:history])
    usual = _by_hour(logs[:history], here, middle)
    off = [log - usual[place.slot // HOUR] for log, place in zip(logs, here, strict=True)]
    return Ratio(at, logs, usual, bounds(off, Past.all_of(here[:history]), RULE.times(factor)), middle)


def _by_hour(logs: Sequence[float], places: Sequence[Place], middle: float) -> list[float]:
    hours = SLOTS // HOUR
    alone: list[list[float]] = [[] for _ in range(hours)]
    for log, place in zip(logs, places, strict=False):
        alone[place.slot // HOUR].append(log)
    near = [alone[hour - 1] + alone[hour] + alone[(hour + 1) % hours] for hour in range(hours)]
    # An hour that was hardly seen is taken to be like the others.
    return [median(one) if len(one) >= 2 * HOUR else middle for one in near]
