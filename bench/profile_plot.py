"""
The picture of the profile: a bar for each case, made of its stages, and the floor's below it.
"""

from __future__ import annotations

from collections.abc import Iterator

from bench.profiling import Profile, Report, Row, title
from bench.stages import STAGES, Stage
from collector.drawing.axes import Axis
from collector.drawing.svg import EDGE, GRID, INK, PAPER, SOFT, WIDTH, number, page, text

#: Pixels: what is above the first case, of each case its words, its two bars and its axis, and where the bars begin.
_TOP, _WORDS, _BAR, _GAP, _FLOOR, _AXIS, _REST = 84, 12, 46, 4, 22, 20, 26
_LEFT = EDGE + 62
_WIDE = WIDTH - EDGE - _LEFT
_CASE = _WORDS + _BAR + _GAP + _FLOOR + _AXIS + _REST
#: Of what the labels are made, and about how wide a letter of it is; and what is free beside them.
_SIZE, _LETTER, _FREE = 11.0, 6.0, 9.0
_LEGEND_COLUMNS, _LEGEND_LINE = 3, 19
#: A colour that reflects less than this is dark, and written on in white.
_DARK = 0.55
#: Less is no wider than the line between two bars.
_LEAST_PX = 0.3


def draw(report: Report) -> str:
    """Draw it as SVG."""
    body: list[str] = []
    at = float(_TOP)
    for row in report.rows:
        body += _case(row, at)
        at += _CASE
    body += _legend(at)
    lines = -(-len(STAGES) // _LEGEND_COLUMNS)
    words = (
        "CPU µs of one worker, from recv to the file in the sink; each case on a scale of its own. "
        "Floor: a server that does nothing but recv, parse, split, write, send."
    )
    return page("Where the time of an upload goes", words, body, height=at + lines * _LEGEND_LINE + 8)


def _case(row: Row, top: float) -> Iterator[str]:
    ours, theirs = row.collector.cpu_us, row.floor.cpu_us
    axis = Axis("", 0.0, max(ours, theirs))
    bar = top + _WORDS
    floor = bar + _BAR + _GAP
    yield text(EDGE, top, title(row.case), size=13.5, weight=600)
    yield text(
        WIDTH - EDGE,
        top,
        f"{ours:,.0f} µs, {ours / theirs:.1f} times the floor's {theirs:,.0f} µs",
        colour=SOFT,
        anchor="end",
    )
    for value, label in axis.ticks():
        x = _LEFT + axis.part(value) * _WIDE
        yield f'<path d="M{number(x)} {number(bar)}V{number(floor + _FLOOR + 4)}" stroke="{GRID}"/>'
        yield text(x, floor + _FLOOR + 16, label, size=_SIZE, colour=SOFT, anchor="middle")
    yield text(_LEFT - 8, bar + _BAR / 2 + 4, "Collector", size=_SIZE, anchor="end")
    yield from _bar(row.collector, bar, _BAR, _WIDE / axis.high)
    yield text(_LEFT - 8, floor + _FLOOR / 2 + 4, "floor", size=_SIZE, anchor="end")
    yield from _bar(row.floor, floor, _FLOOR, _WIDE / axis.high)


def _bar(profile: Profile, top: float, height: float, px_per_us: float) -> Iterator[str]:
    """Draw a bar, its stages side by side, with as much written on each as has room."""
    x = float(_LEFT)
    for stage in STAGES:
        us = profile.us[stage.name]
        width = us * px_per_us
        if width < _LEAST_PX:
            continue
        yield (
            f'<rect x="{number(x)}" y="{number(top)}" width="{number(width)}" height="{number(height)}" '
            f'fill="{stage.colour}" stroke="{PAPER}" stroke-width="0.7">'
            f"<title>{stage.name}: {us:.1f} µs, {us / profile.cpu_us:.0%}</title></rect>"
        )
        lines = _labels(stage, us, width, is_low=height <= _FLOOR)
        for n, line in enumerate(lines):
            middle = top + height / 2 + 4 + (n - (len(lines) - 1) / 2) * 14
            yield text(x + width / 2, middle, line, size=_SIZE, colour=_on(stage.colour), anchor="middle")
        x += width


def _labels(stage: Stage, us: float, width: float, *, is_low: bool) -> list[str]:
    """Return what is written on a stage, line by line: as much as has room."""

    def fits(line: str) -> bool:
        return len(line) * _LETTER + _FREE <= width

    if is_low:
        return next(([line] for line in (f"{stage.short} {us:.0f}", stage.short, f"{us:.0f}") if fits(line)), [])
    return [line for line in (stage.short, f"{us:.0f}") if fits(line)]


def _on(colour: str) -> str:
    """Return a colour that can be read on another."""
    red, green, blue = (int(colour[n : n + 2], 16) / 255 for n in (1, 3, 5))
    return PAPER if 0.299 * red + 0.587 * green + 0.114 * blue < _DARK else INK


def _legend(top: float) -> Iterator[str]:
    lines = -(-len(STAGES) // _LEGEND_COLUMNS)
    pitch = (WIDTH - EDGE) / _LEGEND_COLUMNS
    for n, stage in enumerate(STAGES):
        x, y = EDGE + n // lines * pitch, top + n % lines * _LEGEND_LINE
        yield f'<rect x="{number(x)}" y="{number(y - 10)}" width="12" height="12" fill="{stage.colour}"/>'
        yield text(x + 18, y, stage.name)
