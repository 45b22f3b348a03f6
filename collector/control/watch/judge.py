"""
Judges the last windows by what those before them were.

What is told at a window follows from it and those before it alone: whoever had looked then would have been told.
"""

from __future__ import annotations

import math
from collections.abc import Sequence

import msgspec

from collector.control.watch.bounds import Bounds, Rule, bounds
from collector.control.watch.course import SLOTS, WINDOW, Calendar, Course
from collector.control.watch.episodes import Episode, began, episodes
from collector.control.watch.finding import (
    LOOK_AT_PATTERN,
    LOOK_AT_SILENCE,
    LOOK_AT_SILENT_TASKS,
    Finding,
    Of,
    What,
    amount,
    change,
    look_at_level,
    look_at_zero,
)  # fmt: skip
from collector.control.watch.gap import gaps
from collector.control.watch.normal import DAYS_DAYS, WEEKS_DAYS, Normal, learn
from collector.control.watch.pattern import Pattern
from collector.control.watch.ratio import NEEDED, Ratio, learn_ratio
from collector.control.watch.robust import median, usual_most

#: Sensitivities, as factors of what is told.
SENSITIVITIES = {"low": 1.5, "normal": 1.0, "high": 0.75}
#: What is less is told after 20 minutes, by four windows of seven, and what is more after 45, for a burst of half an
#: hour is no news; and both after an hour and a half, what is small and stays. By measurement: `python -m bench.watch`.
RULES = (
    Rule(span=7, deviations=5.5, least_up=math.inf, least_down=-math.log(0.87), quietest=0.02, days=4.5),
    Rule(span=17, deviations=5.5, least_up=math.log(1.15), least_down=math.inf, quietest=0.02, days=4.5),
    Rule(span=37, deviations=6.0, least_up=math.log(1.1), least_down=-math.log(0.91), quietest=0.015, days=6.0),
)
#: Nothing came: under this part of what was expected, and this far off in logarithms, so that something was.
_NOTHING, _FAR = 0.02, -2.0
#: So many windows in a row.
_ZEROS = 2
#: And by half longer than what is no news, where mornings begin at another time at weekends.
_LONGER = 1.5
#: What a running median still remembers of a drop to zero after its end, in windows.
_AFTER = 36
#: Windows in which all is well, between two that are told, which make two findings of it: two hours.
_APART = 24
#: Windows without a word of the tasks that are a silence: half an hour.
_SILENT = 6


class Judgement(msgspec.Struct, frozen=True):
    """What was found, what could not be seen, and by what it was judged; None where there is too little to judge by."""

    course: Course
    findings: Sequence[Finding]
    unseen: Sequence[str]
    normal: Normal | None
    ratio: Ratio | None


def judge(
    course: Course, calendar: Calendar, *, sensitivity: str = "normal", has_data: bool = True, has_sent: bool = True
) -> Judgement:
    """
    Judge the windows from `course.judged` on.

    `has_data` and `has_sent` say whether anything was ever reported of either; nothing is another thing than zeros.
    """
    factor = SENSITIVITIES[sensitivity]
    normal = learn(course, calendar)
    places = normal.places if normal else [calendar.place(course.minute(at)) for at in range(len(course.processed))]
    ratio = learn_ratio(course, places, factor=factor)
    findings = [*_silences(course, has_data=has_data, has_sent=has_sent)]
    if normal is not None:
        findings += _Traffic(course, normal, ratio, factor).findings()
    if ratio is not None:
        # Of what does not come at all it need not be said that it is less than was sent.
        findings += [one for one in gaps(course, ratio, places) if not any(_covers(zero, one) for zero in findings)]
    findings.sort(key=lambda finding: (not finding.is_on, finding.began))
    return Judgement(course, findings, [*_unseen(course, normal, ratio)], normal, ratio)


class _Traffic:
    """What is to be said of the processed bytes alone; the ratio says what the tasks did meanwhile."""

    def __init__(self, course: Course, normal: Normal, ratio: Ratio | None, factor: float) -> None:
        self._course = course
        self._normal = normal
        self._ratio = ratio
        past = normal.past(course.judged)
        self._levels: list[Bounds] = [
            bounds(normal.off, past, rule.times(factor), off_of_days=normal.off_of_days) for rule in RULES
        ]
        self._pattern = Pattern(normal.off, normal.places, past, factor)
        self._scores = [
            max((one.score(at, place) for one in self._levels), key=abs) for at, place in enumerate(normal.places)
        ]

    def findings(self) -> list[Finding]:
        zeros = self._zeros()
        found = [self._zero(one) for one in zeros]
        after = {at for one in zeros for at in range(one.first, one.last + _AFTER)}
        flagged = [
            at not in after and (abs(self._scores[at]) > 1 or self._pattern.is_scattered(at))
            for at in range(len(self._scores))
        ]
        return found + [self._level(one) for one in self._judged(episodes(flagged, apart=_APART))]

    def _judged(self, found: Sequence[Episode]) -> list[Episode]:
        """Leave those out that were over before, and those of a day that nothing is known of."""
        return [one for one in found if one.last >= self._course.judged and self._normal.knows(one.last)]

    def _zeros(self) -> list[Episode]:
        """Return where nothing came that was expected, for longer than is no news."""
        runs: list[int] = []
        for at, came in enumerate(self._course.processed):
            is_none = came <= _NOTHING * self._normal.bytes_expected(at) and self._normal.off[at] <= _FAR
            runs.append((runs[-1] if runs else 0) + 1 if is_none else 0)
        days: dict[int, int] = {}
        for run, place in zip(runs[: self._course.judged], self._normal.places, strict=False):
            days[place.day] = max(days.get(place.day, 0), run)
        needed = max(_ZEROS, math.ceil(_LONGER * usual_most(days.values())) + 1)
        return self._judged([
            Episode(at - runs[at] + 1, at, at - runs[at] + needed)
            for at in range(len(runs))
            if runs[at] >= needed and (at + 1 == len(runs) or not runs[at + 1])
        ])  # fmt: skip

    def _zero(self, one: Episode) -> Finding:
        expected, came = self._bytes(one)
        return self._finding(
            What.ZERO, one, one.first,
            f"{amount(came)} a minute came where {amount(expected)} were expected",
            look_at_zero(self._sending(one)),
            score=max(-self._levels[0].score(at, self._normal.places[at]) for at in range(one.first, one.last + 1)),
        )  # fmt: skip

    def _level(self, one: Episode) -> Finding:
        """Tell a step from a changed pattern: after a step it is as even as ever, on another level."""
        scores = self._scores[one.first : one.last + 1]
        first = began(self._normal.off, one, RULES[0].span)
        expected, came = self._bytes(msgspec.structs.replace(one, first=first))
        says = f"{change(expected, came)} than expected: {amount(came)} a minute, and not {amount(expected)}"
        if max(scores) > 1 > -1 > min(scores) or self._pattern.is_uneven(first, one.last):
            most = max(*map(abs, scores), *(self._pattern.score(at) for at in range(one.first, one.last + 1)))
            return self._finding(
                What.PATTERN, one, first, f"it comes otherwise than at this time of other weeks; {says}",
                LOOK_AT_PATTERN, score=most,
            )  # fmt: skip
        look = look_at_level(self._sending(one), is_more=came > expected)
        return self._finding(What.STEP, one, first, says, look, score=max(map(abs, scores)))

    def _finding(
        self, what: What, one: Episode, first: int, says: str, look: Sequence[str], *, score: float
    ) -> Finding:
        expected, came = self._bytes(msgspec.structs.replace(one, first=first))
        return Finding(
            what, Of.PROCESSED, self._course.minute(first), self._course.minute(one.told + 1),
            None if one.last + 1 == len(self._course.processed) else self._course.minute(one.last + 1),
            expected, came, score, says, look,
        )  # fmt: skip

    def _bytes(self, one: Episode) -> tuple[float, float]:
        """Return what was expected and what came, as the middle of the windows, in bytes a minute."""
        windows = range(one.first, one.last + 1)
        expected = sum(map(self._normal.bytes_expected, windows)) / len(windows) / WINDOW
        return expected, sum(self._course.processed[one.first : one.last + 1]) / len(windows) / WINDOW

    def _sending(self, one: Episode) -> float | None:
        """Return what the tasks sent in this time, as a part of what they would have to for what was expected."""
        if self._ratio is None or self._course.sent is None:
            return None
        parts = [
            sent * math.exp(self._ratio.middle) / max(self._normal.bytes_expected(at), 1.0)
            for at in range(one.first, one.last + 1)
            if (sent := self._course.sent[at]) is not None
        ]
        return median(parts) if parts else None


def _covers(zero: Finding, gap: Finding) -> bool:
    """Tell whether a gap is a drop to zero, as the ratio shows it."""
    return zero.what is What.ZERO and gap.came < _NOTHING and abs(zero.began - gap.began) < _SILENT * WINDOW


def _silences(course: Course, *, has_data: bool, has_sent: bool) -> list[Finding]:
    end = course.minute(len(course.processed))
    found = []
    if not has_data:
        found.append(_silence(Of.PROCESSED, course.start, end, "not one point was reported, ever", LOOK_AT_SILENCE))
    if course.sent is None:
        return found
    if not has_sent:
        return [*found, _silence(Of.SENT, course.start, end, "nobody told what the tasks send", LOOK_AT_SILENT_TASKS)]
    silent = 0
    while silent < len(course.sent) and course.sent[-1 - silent] is None:
        silent += 1
    if silent >= _SILENT:
        since = course.minute(len(course.sent) - silent)
        found.append(_silence(Of.SENT, since, end, "what the tasks send is told no more", LOOK_AT_SILENT_TASKS))
    return found


def _silence(of: Of, since: int, end: int, says: str, look: Sequence[str]) -> Finding:
    return Finding(What.SILENT, of, since, min(since + _SILENT * WINDOW, end), None, 0.0, 0.0, 0.0, says, look)


def _unseen(course: Course, normal: Normal | None, ratio: Ratio | None) -> list[str]:
    """Say what could not be seen, and why."""
    days = course.judged / SLOTS
    unseen = []
    if normal is None:
        unseen.append(
            f"Steps, drops and patterns were not looked for: there are {days:.1f} days of history, and {DAYS_DAYS} "
            "days with traffic are needed, of working days or of weekends as it is one today."
        )
    elif days < WEEKS_DAYS:
        unseen.append(
            f"There are {days:.1f} days of history: working days are judged by working days, weekends by weekends. "
            f"What the week and the growth are is known from {WEEKS_DAYS} days on."
        )
    if course.sent is None:
        unseen.append(
            "Without what the tasks say they sent, a loss is not told from less traffic: give --sent, --sent-metric or "
            "--prometheus."
        )
    elif ratio is None:
        unseen.append(
            f"Processed ÷ sent was not looked at: less than {NEEDED * WINDOW // 60} hours before the judged ones have "
            "both."
        )
    return unseen
