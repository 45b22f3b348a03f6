"""
Draws each dashboard in Simple XML as SVG: its rows, panels and inputs as they stand in the file, on sample data.

Splunk draws it otherwise. This shows what there is and where, to somebody who has no Splunk at hand.
"""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

from collector.drawing.svg import EDGE, GRID, INK, PAPER, SOFT, WIDTH, number, page, text
from dashboards import samples
from dashboards.app import panel_state
from dashboards.charts import ROW, Box, chart, cut, single, table, wrapped
from dashboards.views import Panel, View, read_views

FOLDER = Path(__file__).parent.parent / "docs" / "dashboards"
WORDS = "The layout, on sample data, drawn by Collector's own tool. This is no screenshot of Splunk."
#: Pixels: a line of the description, an input, what is between two panels.
_LINE, _INPUT, _GAP = 17.0, 46.0, 10.0
#: What a time picker says, and the moments below a chart, by where the range begins.
_RANGES = {
    "-4h@m": ("Last 4 hours", ("08:00", "09:00", "10:00", "11:00", "12:00")),
    "-24h@h": ("Last 24 hours", ("12:00", "18:00", "00:00", "06:00", "12:00")),
    "-60m@m": ("Last 60 minutes", ("11:00", "11:15", "11:30", "11:45", "12:00")),
}
#: Tables that have not as many rows as others: of what should not happen, and in the sample hardly did.
_FEW = {
    "Log lines that are missing here, by process": 0,
    "Lines that are missing here, by process": 0,
    "Masters that died, and events taken over from dead workers": 0,
    "Imbalances, bad frames, torn ends and unchecked ids": 0,
    "Times without room": 0,
    "Losses, by tenant": 1,
    "Taken over from dead workers": 1,
    "Unexpected errors": 1,
    "Refused by sinks for good": 2,
    "What needs a look: errors, newest first": 2,
    "A Splunk that did not take lines": 2,
    "Uploads whose sink did not confirm in time": 2,
    "What Splunk's HEC complained of": 2,
    "What sinks said when they failed": 3,
}


def draw(folder: Path) -> list[Path]:
    """Write a picture of each dashboard into a folder, and return them."""
    folder.mkdir(parents=True, exist_ok=True)
    files = []
    for view in read_views():
        file = folder / f"{view.name}.svg"
        file.write_text(drawn(view))
        files.append(file)
    return files


def drawn(view: View) -> str:
    """Draw one dashboard."""
    y = 76.0
    body = []
    for line in wrapped(view.description, WIDTH - 2 * EDGE, 13):
        body.append(text(EDGE, y, line, size=13))
        y += _LINE
    body += _inputs(view, y)
    y += _INPUT + 2 * _GAP
    for row in view.rows:
        height = max(_height(panel) for panel in row)
        width = (WIDTH - 2 * EDGE - _GAP * (len(row) - 1)) / len(row)
        for n, panel in enumerate(row):
            body += _panel(view, panel, Box(EDGE + n * (width + _GAP), y, width, height))
        y += height + _GAP
    return page(view.label, WORDS, body, height=y + _GAP)


def _inputs(view: View, y: float) -> Iterator[str]:
    for n, one in enumerate(view.inputs):
        x = EDGE + n * 190
        shown = _RANGES[one.default][0] if one.kind == "time" else one.default.replace("*", "all") or "task-7f3a"
        yield text(x, y + 8, one.label, size=11, colour=SOFT)
        yield (
            f'<rect x="{number(x)}" y="{number(y + 16)}" width="176" height="28" rx="4" fill="{PAPER}" '
            f'stroke="{SOFT}" stroke-opacity="0.5"/>'
        )
        yield text(x + 10, y + 34, cut(shown, 140, 12), colour=INK)
        yield text(x + 158, y + 34, "▾", colour=SOFT)


def _rows(panel: Panel) -> int:
    return _FEW.get(panel.title, samples.ROWS)


def _height(panel: Panel) -> float:
    if panel.kind == "table":
        return 62 + ROW * max(1, _rows(panel))
    return float(panel.options["height"]) + (6 if panel.kind == "single" else 0)


def _panel(view: View, panel: Panel, box: Box) -> Iterator[str]:
    state = panel_state(view, panel)
    yield (
        f'<rect x="{number(box.x)}" y="{number(box.y)}" width="{number(box.width)}" height="{number(box.height)}" '
        f'rx="6" fill="{PAPER}" stroke="{GRID}" stroke-width="1.5"/>'
    )
    if panel.kind == "single":
        yield from single(panel, state, box)
    elif panel.kind == "chart":
        (moments,) = [_RANGES[one.default][1] for one in view.inputs if one.kind == "time"]
        yield from chart(panel, state, box, moments=moments)
    else:
        yield from table(panel, state, box, _rows(panel))
