"""
The picture of a judgement: what came beside what was expected, the ratio below it, and all of the history.
"""

from __future__ import annotations

import math
from collections.abc import Iterator, Sequence

from collector.control.watch.course import HOUR, SLOTS, WINDOW
from collector.control.watch.finding import Finding, Of, What
from collector.control.watch.judge import Judgement
from collector.control.watch.robust import MAD, median
from collector.control.watch.series import stamp
from collector.drawing.axes import Axis, plain
from collector.drawing.timeline import Band, Course, Span, Strip, timeline

#: The colours of the other pictures: what came, what was sent, what was expected, the part that is judged.
_CAME, _SENT, _EXPECTED, _JUDGED = "#2e7d4f", "#b7791f", "#66717f", "#a3acb8"
_FOUND = {
    What.SILENT: "#5b6778",
    What.ZERO: "#b3261e",
    What.STEP: "#b7791f",
    What.PATTERN: "#6b4ba3",
    What.GAP: "#1f5fa8",
}
_MB = 1e6
#: The close view is of a day, or of what is judged if that is longer.
_CLOSE = SLOTS
#: The band is drawn this many standard deviations of a window wide.
_WIDE = 3.0


def draw(judgement: Judgement, *, title: str) -> str:
    """Draw a judgement as SVG."""
    course = judgement.course
    count = len(course.processed)
    since = max(min(count - _CLOSE, course.judged - HOUR), 0)
    strips = [_close(judgement, since)]
    if judgement.ratio is not None:
        strips.append(_ratios(judgement, since))
    strips.append(_whole(judgement))
    found = len(judgement.findings)
    words = (
        f"Judged from {stamp(course.minute(course.judged))} to {stamp(course.minute(count))}: "
        f"{found or 'no'} finding{'s' * (found != 1)}."
    )
    feet = ["Times are UTC. Each point is the mean of five minutes. The grey part is what was judged."]
    return timeline(title, words, strips, feet=feet)


def _close(judgement: Judgement, since: int) -> Strip:
    course = judgement.course
    came = _by_minute(judgement, course.processed, since)
    courses = [Course("processed", _CAME, came)]
    if course.sent is not None:
        courses.append(Course("sent", _SENT, _by_minute(judgement, course.sent, since), is_dashed=True))
    bands = [Band("expected", _EXPECTED, list(_band(judgement, since)))] if judgement.normal else []
    most = [value for one in courses for _, value in one.points if value is not None]
    most += [high for band in bands for _, _, high in band.points]
    return Strip(
        "MB a minute", course.minute(since), course.minute(len(course.processed)), plain("", most), 250,
        courses, bands, [_judged(judgement), *_spans(judgement, {Of.PROCESSED, Of.SENT})],
    )  # fmt: skip


def _ratios(judgement: Judgement, since: int) -> Strip:
    course, ratio, normal = judgement.course, judgement.ratio, judgement.normal
    assert ratio is not None  # noqa: S101 -- for mypy: it is drawn only where there is one
    usual = math.exp(ratio.middle)
    shown = [(n, at) for n, at in enumerate(ratio.at) if at >= since]
    by_window = {at: math.exp(ratio.logs[n]) for n, at in shown}
    points = [(_middle(judgement, at), by_window.get(at)) for at in range(since, len(course.processed))]
    band = []
    if normal is not None:
        for _, at in shown:
            hour = normal.places[at].slot // HOUR
            middle = math.exp(ratio.usual[hour])
            low, high = math.exp(-ratio.bounds.down[hour]), math.exp(ratio.bounds.up[hour])
            band.append((_middle(judgement, at), middle * low, middle * high))
    # Around what is usual, and as far as the course goes, but never so far that a percent is not to be seen any more.
    least = min([usual * 0.95, *by_window.values()])
    most = min(max([usual * 1.05, *by_window.values()]), usual * 1.5)
    axis = _around(max(least, 0.0), most)
    return Strip(
        "Processed ÷ sent", course.minute(since), course.minute(len(course.processed)), axis, 110,
        [Course("ratio", _FOUND[What.GAP], points)], [Band("usual", _EXPECTED, band)],
        [_judged(judgement), *_spans(judgement, {Of.RATIO})],
    )  # fmt: skip


def _whole(judgement: Judgement) -> Strip:
    course = judgement.course
    came = _by_minute(judgement, course.processed, 0)
    return Strip(
        f"All that it was judged by: {len(course.processed) / SLOTS:.1f} days",
        course.minute(0), course.minute(len(course.processed)), plain("", [y for _, y in came if y is not None]), 70,
        [Course("processed", _CAME, came)], (), [_judged(judgement)],
    )  # fmt: skip


def _around(low: float, high: float) -> Axis:
    step = next(one for one in (0.01, 0.02, 0.05, 0.1, 0.2, 0.5, 1.0) if (high - low) / one <= 6)
    first, last = math.floor(low / step), math.ceil(high / step)
    values = [round(n * step, 2) for n in range(first, last + 1)]
    return Axis("", values[0], values[-1], only=values)


def _band(judgement: Judgement, since: int) -> Iterator[tuple[float, float, float]]:
    normal = judgement.normal
    if normal is None:
        return
    wide = _WIDE * MAD * median(map(abs, normal.off[: judgement.course.judged]))
    for at in range(since, len(normal.expected)):
        expected = normal.expected[at]
        low, high = (max(math.exp(expected + off) - normal.floor, 0.0) for off in (-wide, wide))
        yield _middle(judgement, at), low / WINDOW / _MB, high / WINDOW / _MB


def _by_minute(judgement: Judgement, values: Sequence[float | None], since: int) -> list[tuple[float, float | None]]:
    return [
        (_middle(judgement, at), None if value is None else value / WINDOW / _MB)
        for at, value in enumerate(values)
        if at >= since
    ]


def _middle(judgement: Judgement, window: int) -> float:
    return judgement.course.minute(window) + WINDOW / 2


def _judged(judgement: Judgement) -> Span:
    course = judgement.course
    return Span("", _JUDGED, course.minute(course.judged), course.minute(len(course.processed)))


def _spans(judgement: Judgement, of: set[Of]) -> list[Span]:
    end = judgement.course.minute(len(judgement.course.processed))
    return [_span(one, end) for one in judgement.findings if one.of in of]


def _span(one: Finding, end: int) -> Span:
    return Span(one.what.value, _FOUND[one.what], one.began, end if one.over is None else one.over)
