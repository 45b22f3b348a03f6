"""
Draws courses over time, as SVG: panels one below the other, each with a band, lines, and spans that have a name.

As of `svg`: the same numbers make the same file.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from datetime import UTC, datetime, timedelta

import msgspec

from collector.drawing.axes import Axis
from collector.drawing.svg import EDGE, GRID, INK, PAPER, SOFT, WIDTH, number, page, text

_HEAD, _TITLE, _GAP, _FOOT = 78, 26, 30, 18
_LEFT, _RIGHT = 70.0, WIDTH - 96.0
#: Minutes between two words of the axis of time, of which about so many are wanted.
_STEPS, _WANTED = (5, 15, 30, 60, 120, 180, 360, 720, 1440, 2880, 10080), 9
_DAY = 1440
#: Names of spans stay so far apart, in pixels, and a letter takes about so many.
_APART, _LETTER = 8.0, 7.6
_EPOCH = datetime.fromtimestamp(0, UTC)


class Course(msgspec.Struct, frozen=True):
    """A line through points of (minute since the epoch, value); where a value is None it is broken."""

    name: str
    colour: str
    points: Sequence[tuple[float, float | None]]
    is_dashed: bool = False


class Band(msgspec.Struct, frozen=True):
    """Between two values at each minute: (minute, low, high)."""

    name: str
    colour: str
    points: Sequence[tuple[float, float, float]]


class Span(msgspec.Struct, frozen=True):
    """A time that is shaded, from a minute to another, and named if there is a name."""

    name: str
    colour: str
    start: float
    end: float


class Strip(msgspec.Struct, frozen=True):
    """One panel: what it shows, from when to when, and on which axis."""

    title: str
    start: float
    end: float
    y: Axis
    height: float
    courses: Sequence[Course] = ()
    bands: Sequence[Band] = ()
    spans: Sequence[Span] = ()


def timeline(title: str, words: str, strips: Sequence[Strip], *, feet: Sequence[str] = ()) -> str:
    """Draw panels one below the other, under a title and a line of words, and with smaller lines below them."""
    body: list[str] = []
    top = float(_HEAD)
    for strip in strips:
        body += _strip(strip, top + _TITLE)
        top += _TITLE + strip.height + _GAP
    body += [text(EDGE, top + 8 + n * _FOOT, foot, colour=SOFT) for n, foot in enumerate(feet)]
    return page(title, words, body, height=top + _FOOT * len(feet) + 4)


def times(start: float, end: float) -> list[tuple[int, str]]:
    """Return the minutes that are written below an axis of time, and how: midnights by their date."""
    step = next((one for one in _STEPS if (end - start) / one <= _WANTED), _STEPS[-1])
    first = -int(-start // step) * step
    return [(minute, _written(minute, step)) for minute in range(first, int(end) + 1, step)]


def _written(minute: int, step: int) -> str:
    moment = _EPOCH + timedelta(minutes=minute)
    return f"{moment:%-d %b}" if step >= _DAY or minute % _DAY == 0 else f"{moment:%H:%M}"


def _strip(strip: Strip, top: float) -> Iterator[str]:
    bottom, width = top + strip.height, _RIGHT - _LEFT

    def at_x(minute: float) -> float:
        part = (minute - strip.start) / (strip.end - strip.start)
        return _LEFT + min(max(part, 0.0), 1.0) * width

    def at_y(value: float) -> float:
        # What leaves the axis runs along its edge: a gap there would look like nothing.
        return bottom - strip.y.part(min(max(value, strip.y.low), strip.y.high)) * strip.height

    yield text(EDGE, top - 12, strip.title, size=13.5, weight=600)
    seen = [one for one in strip.spans if one.end > strip.start and one.start < strip.end]
    for span in seen:
        x, end = at_x(span.start), at_x(span.end)
        yield (
            f'<rect x="{number(x)}" y="{number(top)}" width="{number(max(end - x, 1.0))}" '
            f'height="{number(strip.height)}" fill="{span.colour}" fill-opacity="0.13"/>'
        )
    for value, label in strip.y.ticks():
        yield f'<path d="M{number(_LEFT)} {number(at_y(value))}h{number(width)}" stroke="{GRID}"/>'
        yield text(_LEFT - 7, at_y(value) + 4, label, colour=SOFT, anchor="end")
    for minute, label in times(strip.start, strip.end):
        yield f'<path d="M{number(at_x(minute))} {number(top)}v{number(strip.height)}" stroke="{GRID}"/>'
        yield text(at_x(minute), bottom + 16, label, colour=SOFT, anchor="middle")
    yield f'<path d="M{number(_LEFT)} {number(bottom)}h{number(width)}" stroke="{SOFT}"/>'
    for band in strip.bands:
        upper = [(at_x(minute), at_y(high)) for minute, _, high in band.points]
        lower = [(at_x(minute), at_y(low)) for minute, low, _ in reversed(band.points)]
        if upper:
            yield f'<path d="M{_joined(upper + lower)}Z" fill="{band.colour}" fill-opacity="0.22"/>'
    for course in reversed(strip.courses):
        dash = ' stroke-dasharray="5 4"' if course.is_dashed else ""
        for part in _unbroken(course.points):
            path = _joined([(at_x(minute), at_y(value)) for minute, value in part])
            yield f'<path d="M{path}" fill="none" stroke="{course.colour}" stroke-width="1.6"{dash}/>'
    yield from _names(strip, top)
    yield from _named_spans([(at_x(one.start), one) for one in seen if one.name], top)


def _names(strip: Strip, top: float) -> Iterator[str]:
    """Write the names of courses and bands beside the panel, one below the other."""
    beside: list[Course | Band] = [*strip.courses, *strip.bands]
    named = [(one.name, one.colour) for one in beside if one.name and one.points]
    for n, (name, colour) in enumerate(named):
        yield text(_RIGHT + 9, top + 12 + n * 16, name, colour=colour, weight=600)


def _named_spans(places: Sequence[tuple[float, Span]], top: float) -> Iterator[str]:
    """Write each span's name at its start, below another where that would be on top of it."""
    ends: list[float] = []
    for x, span in sorted(places, key=lambda place: place[0]):
        length = len(span.name) * _LETTER
        start = min(x + 4, _RIGHT - length)
        row = next((n for n, end in enumerate(ends) if end + _APART <= start), len(ends))
        ends[row : row + 1] = [start + length]
        yield (
            f'<rect x="{number(start - 2)}" y="{number(top + 3 + row * 16)}" width="{number(length + 4)}" height="15" '
            f'fill="{PAPER}" fill-opacity="0.8"/>'
        )
        yield text(start, top + 15 + row * 16, span.name, colour=INK, weight=600)


def _unbroken(points: Sequence[tuple[float, float | None]]) -> Iterator[list[tuple[float, float]]]:
    part: list[tuple[float, float]] = []
    for minute, value in points:
        if value is not None:
            part.append((minute, value))
        elif part:
            yield part
            part = []
    if part:
        yield part


def _joined(points: Sequence[tuple[float, float]]) -> str:
    return "L".join(f"{number(x)} {number(y)}" for x, y in points)
