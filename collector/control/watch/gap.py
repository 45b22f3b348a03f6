"""
Finds where the load balancer processes another part of what the tasks send than it used to.
"""

from __future__ import annotations

import math
from collections.abc import Sequence

from collector.control.watch.course import HOUR, Course, Place
from collector.control.watch.episodes import began, episodes
from collector.control.watch.finding import LOOK_AT_GAIN, LOOK_AT_LOSS, Finding, Of, What
from collector.control.watch.ratio import RULE, Ratio
from collector.control.watch.robust import median

#: Windows of a ratio as it was, between two that are told, which make two findings of it: two hours.
_APART = 24


def gaps(course: Course, ratio: Ratio, places: Sequence[Place]) -> list[Finding]:
    """Return what is to be said of the ratio in the windows that are judged; it `came` to what it was at last."""
    scores = [ratio.bounds.score(n, places[at]) for n, at in enumerate(ratio.at)]
    found = []
    for is_more in (False, True):
        flagged = [score > 1 if is_more else score < -1 for score in scores]
        for one in episodes(flagged, apart=_APART):
            if ratio.at[one.last] < course.judged:
                continue
            off = [log - ratio.usual[places[at].slot // HOUR] for log, at in zip(ratio.logs, ratio.at, strict=True)]
            first = began(off, one, RULE.span)
            expected = math.exp(median(ratio.usual[places[at].slot // HOUR] for at in ratio.at[first : one.last + 1]))
            last = math.exp(median(ratio.logs[max(one.last - RULE.span + 1, first) : one.last + 1]))
            is_on = one.last + 1 == len(ratio.at)
            found.append(Finding(
                What.GAP, Of.RATIO, course.minute(ratio.at[first]), course.minute(ratio.at[one.told] + 1),
                None if is_on else course.minute(ratio.at[one.last] + 1), expected, last,
                max(abs(score) for score in scores[one.first : one.last + 1]),
                f"{abs(1 - last / expected):.1%} {'more' if is_more else 'less'} of what is sent comes through than "
                f"usual: {last:.3f}, and not {expected:.3f}",
                LOOK_AT_GAIN if is_more else LOOK_AT_LOSS,
            ))  # fmt: skip
    return found
