"""
Draws what a panel shows, on sample data: a number, a chart, or a table.
"""

from __future__ import annotations

import json
from collections.abc import Iterator, Sequence
from typing import NamedTuple

from collector.drawing.axes import plain
from collector.drawing.svg import GRID, INK, PAPER, SOFT, number, text
from collector.telemetry.hec.options import SOURCETYPE
from dashboards import samples
from dashboards.schema import schema
from dashboards.spl import State
from dashboards.spl.state import OF_SPLUNK
from dashboards.views import Panel

PALETTE = ("#2e7d4f", "#b7791f", "#3b6ea5", "#8a5aa8", "#66717f", "#82b899", "#c2603f", "#a3acb8")
_LETTER = 0.55
#: Pixels: a row of a table; what is left, right and below of a plot.
ROW, _LEFT, _RIGHT, _BELOW = 20.0, 46.0, 12.0, 38.0
#: Of a chart in columns, how many there are; and of names in a line.
_COLUMNS = 24
_SERIES = 6


class Box(NamedTuple):
    """A place on the page, in pixels."""

    x: float
    y: float
    width: float
    height: float


def single(panel: Panel, state: State, box: Box) -> Iterator[str]:
    """Draw a number, in the colour that its range has, with its course above what is said under it."""
    (name,) = [column for column in state.columns if column != "_time"]
    options = panel.options
    value = "balanced" if name == "state" else samples.number_of(name, panel.title)
    ink, soft = INK, SOFT
    if options.get("useColors") == "1" and isinstance(value, float | int):
        ranges, colours = json.loads(options["rangeValues"]), json.loads(options["rangeColors"])
        colour = colours[sum(value > bound for bound in ranges)].replace("0x", "#")
        yield (
            f'<rect x="{number(box.x)}" y="{number(box.y)}" width="{number(box.width)}" '
            f'height="{number(box.height)}" rx="6" fill="{colour}"/>'
        )
        ink = soft = PAPER
    digits = len(options["numberPrecision"].partition(".")[2])
    words = value if isinstance(value, str) else f"{value:,.{digits}f}"
    if unit := options.get("unit", ""):
        words = f"{words} {unit}"
    middle = box.x + box.width / 2
    for n, line in enumerate(wrapped(panel.title, box.width - 16, 12.5)[:2]):
        yield text(middle, box.y + 20 + n * 15, line, size=12.5, weight=600, colour=ink, anchor="middle")
    yield text(middle, box.y + 70, words, size=28, weight=600, colour=ink, anchor="middle")
    if state.of_time:
        yield _line(samples.course(panel.title, 1.0), box.x + 24, box.y + 80, box.width - 48, 22, PALETTE[0])
    if under := options.get("underLabel", ""):
        yield text(
            middle, box.y + box.height - 7, cut(under, box.width - 12, 10.5), size=10.5, colour=soft, anchor="middle"
        )


def chart(panel: Panel, state: State, box: Box, *, moments: Sequence[str]) -> Iterator[str]:
    """Draw a course over time of each series, as lines, areas or columns, with names below."""
    kind, stacked = panel.options["charting.chart"], panel.options.get("charting.chart.stackMode") == "stacked"
    series = _series(panel, state, spiky=kind == "column")
    overlay = panel.options.get("charting.chart.overlayFields", "")
    if kind == "column":
        series = [(name, [sum(values[n : n + 2]) for n in range(0, samples.POINTS, 2)]) for name, values in series]
    floors = [0.0] * len(series[0][1])
    layers: list[tuple[str, list[float], list[float]]] = []
    for name, values in series:
        tops = [floor + value for floor, value in zip(floors, values, strict=True)] if stacked else values
        layers.append((name, floors if stacked else [0.0] * len(values), tops))
        floors = tops if stacked else floors
    axis = plain("", [max(tops) for _, _, tops in layers])
    left, width = box.x + _LEFT, box.width - _LEFT - _RIGHT
    top, height = box.y + 44, box.height - 44 - _BELOW
    yield text(box.x + 12, box.y + 20, cut(panel.title, box.width - 20, 12.5), size=12.5, weight=600)
    yield text(box.x + 12, box.y + 35, panel.options.get("charting.axisTitleY.text", ""), size=10.5, colour=SOFT)
    for value, label in axis.ticks():
        y = top + height * (1 - axis.part(value))
        yield f'<path d="M{number(left)} {number(y)}h{number(width)}" stroke="{GRID}"/>'
        yield text(left - 6, y + 4, label, size=10.5, colour=SOFT, anchor="end")
    for n, moment in enumerate(moments):
        yield text(
            left + width * n / (len(moments) - 1), top + height + 15, moment, size=10.5, colour=SOFT, anchor="middle"
        )
    # What lies above hides what is below it: the last layer of a stack comes first.
    for n, (name, lows, tops) in reversed(list(enumerate(layers))):
        colour = PALETTE[n % len(PALETTE)]
        scaled = [value / axis.high for value in tops]
        if kind == "column":
            yield from _bars([low / axis.high for low in lows], scaled, left, top, width, height, colour)
        elif kind == "area" and name != overlay:
            yield _area([low / axis.high for low in lows], scaled, left, top, width, height, colour)
        if kind != "column":
            yield _line(scaled, left, top, width, height, colour)
    yield f'<path d="M{number(left)} {number(top + height)}h{number(width)}" stroke="{SOFT}"/>'
    yield from _legend([name for name, _, _ in layers], box)


def table(panel: Panel, state: State, box: Box, rows: int) -> Iterator[str]:
    """Draw a table; what does not fit a column is cut off."""
    yield text(box.x + 12, box.y + 20, cut(panel.title, box.width - 20, 12.5), size=12.5, weight=600)
    names = list(state.columns)
    cells = [[_cell(panel, state, name, row) for name in names] for row in range(rows)]
    wanted = [
        2 + max(5, len(name), *(min(len(line[n]), 34) for line in cells)) if cells else len(name)
        for n, name in enumerate(names)
    ]
    scale = (box.width - 24) / sum(wanted)
    y = box.y + 44
    yield (
        f'<rect x="{number(box.x + 8)}" y="{number(y - 14)}" width="{number(box.width - 16)}" height="19" '
        'fill="#f1f4f7"/>'
    )
    for line, weight in [(names, 600), *((line, 400) for line in cells)]:
        x = box.x + 12
        for n, word in enumerate(line):
            room = wanted[n] * scale
            colour = SOFT if weight == 600 else INK
            yield text(x, y, cut(word, room - 6, 10.5), size=10.5, weight=weight, colour=colour)
            x += room
        if weight == 400:
            yield f'<path d="M{number(box.x + 8)} {number(y + 6)}h{number(box.width - 16)}" stroke="{GRID}"/>'
        y += ROW
    if not cells:
        yield text(box.x + box.width / 2, y + 2, "No results found.", size=11, colour=SOFT, anchor="middle")


def _cell(panel: Panel, state: State, name: str, row: int) -> str:
    """Return what stands in a row; empty is a field that the row's signal does not have."""
    signals = state.named or state.signals
    if "event" not in state.columns:
        return samples.cell(name, row, signals, panel.title)
    event = samples.cell("event", row, signals)
    lines = schema().sources[SOURCETYPE]
    if name == "level":
        return min(lines.levels[event])
    origin = state.columns[name].origin
    if origin in {"", *OF_SPLUNK, *lines.common, *lines.signals[event]}:
        return samples.cell(name, row, signals if name == "event" else frozenset({event}), panel.title)
    return ""


def _series(panel: Panel, state: State, *, spiky: bool) -> list[tuple[str, list[float]]]:
    if not state.split:
        names = [name for name in state.columns if name != "_time"]
        return [
            (name, samples.course(panel.title + name, samples.number_of(name, panel.title), spiky=spiky))
            for name in names
        ]
    names = list(samples.names_of(state.split, state.named))[:_SERIES]
    height = samples.number_of(state.made, panel.title)
    return [
        (name, samples.course(panel.title + name, height / (1.0 + 0.7 * n), spiky=spiky))
        for n, name in enumerate(names)
    ]


def _points(values: Sequence[float], left: float, top: float, width: float, height: float) -> list[str]:
    step = width / (len(values) - 1)
    return [f"{number(left + n * step)} {number(top + height * (1 - value))}" for n, value in enumerate(values)]


def _line(values: Sequence[float], left: float, top: float, width: float, height: float, colour: str) -> str:
    path = "L".join(_points(values, left, top, width, height))
    return f'<path d="M{path}" fill="none" stroke="{colour}" stroke-width="1.6" stroke-linejoin="round"/>'


def _area(
    lows: Sequence[float], tops: Sequence[float], left: float, top: float, width: float, height: float, colour: str
) -> str:
    there, back = _points(tops, left, top, width, height), _points(lows, left, top, width, height)[::-1]
    return f'<path d="M{"L".join([*there, *back])}Z" fill="{colour}" fill-opacity="0.35"/>'


def _bars(
    lows: Sequence[float], tops: Sequence[float], left: float, top: float, width: float, height: float, colour: str
) -> Iterator[str]:
    step = width / len(tops)
    for n, (low, high) in enumerate(zip(lows, tops, strict=True)):
        if high > low:
            yield (
                f'<rect x="{number(left + n * step + 2)}" y="{number(top + height * (1 - high))}" '
                f'width="{number(step - 4)}" height="{number(height * (high - low))}" fill="{colour}"/>'
            )


def _legend(names: Sequence[str], box: Box) -> Iterator[str]:
    x, y = box.x + 14, box.y + box.height - 8
    for n, name in enumerate(names):
        width = len(name) * 10.5 * _LETTER + 24
        if x + width > box.x + box.width:
            return
        yield f'<rect x="{number(x)}" y="{number(y - 8)}" width="9" height="9" fill="{PALETTE[n % len(PALETTE)]}"/>'
        yield text(x + 13, y, name, size=10.5, colour=SOFT)
        x += width


def cut(words: str, width: float, size: float) -> str:
    """Return as much of some words as has room."""
    room = int(width / (size * _LETTER))
    return words if len(words) <= room else words[: max(1, room - 1)].rstrip() + "…"


def wrapped(words: str, width: float, size: float) -> list[str]:
    """Return some words in lines of this width."""
    room, lines = int(width / (size * _LETTER)), [""]
    for word in words.split():
        joined = f"{lines[-1]} {word}".strip()
        if len(joined) > room and lines[-1]:
            lines.append(word)
        else:
            lines[-1] = joined
    return lines
