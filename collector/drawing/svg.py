"""
Draws charts as SVG: panels side by side, each with its axes, its lines, and the lines' names at their ends.

The same numbers make the same file, byte for byte, so that a diff of two runs shows what changed.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Sequence
from xml.sax.saxutils import escape, quoteattr

import msgspec

from collector.drawing.axes import Axis

INK, SOFT, GRID, PAPER = "#1f2937", "#5b6778", "#e4e8ee", "#ffffff"
_FONT = "system-ui, -apple-system, Segoe UI, Helvetica, Arial, sans-serif"
#: Pixels: the whole, what is above and below the plots, and what is left and right of each for words.
WIDTH, _TOP, _PLOT, _BOTTOM, _FOOT = 1080, 100, 224, 56, 18
_LEFT, _RIGHT, EDGE = 54, 74, 16
#: Names at the ends of lines stay so far apart.
_APART = 15.0
#: The radius of a point.
_MARK = 3.2


class Line(msgspec.Struct, frozen=True):
    """Points joined by a line, with a `name` at the right end; `hollow` are x values whose points are drawn empty."""

    name: str
    colour: str
    points: Sequence[tuple[float, float]]
    dashed: bool = False
    marks: bool = True
    hollow: frozenset[float] = frozenset()


class Panel(msgspec.Struct, frozen=True):
    """One chart, with its axes; what lies outside of an axis is not drawn."""

    title: str
    x: Axis
    y: Axis
    lines: Sequence[Line]


def figure(title: str, words: str, panels: Sequence[Panel], *, feet: Sequence[str] = ()) -> str:
    """Draw panels side by side, under a title and a line of words, and with smaller lines below them."""
    under = _TOP + _PLOT + _BOTTOM
    height = under + _FOOT * len(feet) + (_FOOT // 2 if feet else 0)
    body = [text(EDGE, under + 14 + n * _FOOT, foot, colour=SOFT) for n, foot in enumerate(feet)]
    pitch = (WIDTH - EDGE) / len(panels)
    for n, panel in enumerate(panels):
        body += _panel(panel, EDGE / 2 + n * pitch + _LEFT, pitch - _LEFT - _RIGHT)
    return page(title, words, body, height=height)


def page(title: str, words: str, body: Iterable[str], *, height: float) -> str:
    """Put what was drawn under a title and a line of words."""
    return "\n".join([
        f'<svg xmlns="http://www.w3.org/2000/svg" viewBox="0 0 {WIDTH} {number(height)}" '
        f'font-family={quoteattr(_FONT)} '
        f'font-size="12" role="img" aria-label={quoteattr(f"{title}. {words}")}>',
        f'<rect width="{WIDTH}" height="{number(height)}" fill="{PAPER}"/>',
        text(EDGE, 30, title, size=19, weight=600),
        text(EDGE, 52, words, size=13, colour=SOFT),
        *body,
        "</svg>",
        "",
    ])  # fmt: skip


def _panel(panel: Panel, left: float, width: float) -> Iterator[str]:
    bottom = _TOP + _PLOT

    def at_x(value: float) -> float:
        return left + panel.x.part(value) * width

    def at_y(value: float) -> float:
        return bottom - panel.y.part(value) * _PLOT

    yield text(left - _LEFT + EDGE / 2, _TOP - 16, panel.title, size=13.5, weight=600)
    for value, label in panel.y.ticks():
        yield f'<path d="M{number(left)} {number(at_y(value))}h{number(width)}" stroke="{GRID}"/>'
        yield text(left - 7, at_y(value) + 4, label, colour=SOFT, anchor="end")
    for value, label in panel.x.ticks():
        yield f'<path d="M{number(at_x(value))} {_TOP}v{_PLOT}" stroke="{GRID}"/>'
        yield text(at_x(value), bottom + 18, label, colour=SOFT, anchor="middle")
    yield f'<path d="M{number(left)} {bottom}h{number(width)}" stroke="{SOFT}"/>'
    yield text(left + width / 2, bottom + 40, panel.x.label, colour=INK, anchor="middle")
    ends: list[tuple[float, float, Line]] = []
    # The first line is what it is about: it lies above the others.
    for line in reversed(panel.lines):
        points = [(at_x(x), at_y(y), x) for x, y in line.points if panel.x.holds(x) and panel.y.holds(y)]
        if points:
            yield from _line(line, points)
            ends.append((points[-1][1], points[-1][0], line))
    for y, x, line in _apart(ends, _TOP, bottom):
        yield text(x + 9, y + 4, line.name, colour=line.colour, weight=600)


def _line(line: Line, points: Sequence[tuple[float, float, float]]) -> Iterator[str]:
    path = "L".join(f"{number(x)} {number(y)}" for x, y, _ in points)
    dash = ' stroke-dasharray="6 4"' if line.dashed else ""
    width = 2.2 if line.marks else 1.6
    yield (
        f'<path d="M{path}" fill="none" stroke="{line.colour}" stroke-width="{width}" stroke-linejoin="round"'
        f' stroke-linecap="round"{dash}/>'
    )
    for x, y, value in points if line.marks else ():
        empty = value in line.hollow
        fill, edge = (PAPER, f' stroke="{line.colour}" stroke-width="1.8"') if empty else (line.colour, "")
        yield f'<circle cx="{number(x)}" cy="{number(y)}" r="{_MARK}" fill="{fill}"{edge}/>'


def _apart(ends: Iterable[tuple[float, float, Line]], top: float, bottom: float) -> Iterator[tuple[float, float, Line]]:
    """Move names away from each other, downwards first, and back up where they would leave the plot."""
    placed = sorted(ends, key=lambda end: end[0])
    heights: list[float] = []
    for y, _, _ in placed:
        heights.append(max(y, heights[-1] + _APART if heights else top))
    limit = bottom
    for n in range(len(heights) - 1, -1, -1):
        heights[n] = min(heights[n], limit)
        limit = heights[n] - _APART
    return ((y, x, line) for y, (_, x, line) in zip(heights, placed, strict=True))


def text(
    x: float, y: float, words: str, *, size: float = 12, colour: str = INK, weight: int = 400, anchor: str = "start"
) -> str:
    """Write words, their baseline at `y`."""
    style = f' font-size="{size:g}"' if size != 12 else ""
    style += f' font-weight="{weight}"' if weight != 400 else ""
    style += f' text-anchor="{anchor}"' if anchor != "start" else ""
    return f'<text x="{number(x)}" y="{number(y)}" fill="{colour}"{style}>{escape(words)}</text>'


def number(value: float) -> str:
    """Write a length in pixels."""
    return f"{value:.1f}".removesuffix(".0")
