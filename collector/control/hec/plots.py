"""
Loss against rate for each buffer, measured and predicted, as SVG.
"""

from __future__ import annotations

import msgspec

from collector.control.hec import prediction
from collector.control.hec.cells import Run
from collector.control.hec.tuning import Found, Point
from collector.drawing.axes import Axis, plain
from collector.drawing.svg import Line, Panel, figure

#: Of the buffers, from the smallest.
_COLOURS = ("#c2410c", "#1d4ed8", "#15803d")
_STEPS = 48
#: A predicted line goes on so far beyond the fastest run.
_BEYOND = 1.05


class _Curve(msgspec.Struct, frozen=True):
    name: str
    colour: str
    point: Point


def draw(found: Found, *, embedded: bool) -> str:
    """Draw a panel of loss against rate, and one of the time to the first drop; points are runs, dashes predictions."""
    curves = [
        _Curve(_size(point.buffer_bytes), _COLOURS[n % len(_COLOURS)], point) for n, point in enumerate(found.points)
    ]
    rates = [run.per_s for curve in curves for run in curve.point.runs]
    across = plain("lines a second of one worker", [max(rates) * _BEYOND])
    losses = [100 * run.loss_part for curve in curves for run in curve.point.runs]
    lines = [line for curve in curves for line in _losses(curve, found, across)]
    loss = Panel("Lost of what came while nothing left, %", across, plain("", [*losses, 10.0]), lines)
    drops = _drops(curves)
    tallest = [y for line in drops for _, y in line.points]
    widest = [x for line in drops for x, _ in line.points]
    drop = Panel("First drop after, s", plain("buffer, KiB", widest), plain("", tallest), drops)
    shorter = found.points[0].outage_s
    words = (
        f"Outages of {shorter:.2g} s, lines of {found.flood.line_bytes:.0f} bytes with their envelopes, "
        f"{'a simulated' if embedded else 'a real'} HEC"
    )
    feet = ["Points are runs, dashes what arithmetic predicts: B / (r T), where T is how long the sender was silent."]
    return figure("Where a buffer begins to lose lines", f"{words}.", [loss, drop], feet=feet)


def _losses(curve: _Curve, found: Found, across: Axis) -> list[Line]:
    point = curve.point
    measured = sorted((run.per_s, 100 * run.loss_part) for run in point.runs)
    step = across.high / _STEPS
    predicted = [
        (n * step, 100 * _predicted(point, found, n * step * found.flood.line_bytes)) for n in range(1, _STEPS + 1)
    ]
    return [
        Line(curve.name, curve.colour, measured),
        Line("", curve.colour, predicted, dashed=True, marks=False),
    ]


def _predicted(point: Point, found: Found, rate: float) -> float:
    return prediction.loss_part(point.buffer_bytes, rate, point.silent_s, severe_part=found.severe_part)


def _drops(curves: list[_Curve]) -> list[Line]:
    measured = [
        (curve.point.buffer_bytes / 1024, curve.point.first_drop_s)
        for curve in curves
        if curve.point.first_drop_s is not None
    ]
    predicted = [(curve.point.buffer_bytes / 1024, curve.point.predicted_drop_s) for curve in curves]
    return [
        Line("measured", _COLOURS[1], measured),
        Line("predicted", _COLOURS[0], predicted, dashed=True, marks=False),
    ]


def loss_of(run: Run) -> str:
    """Write the loss of a run for a table."""
    return f"{run.loss_part:.1%}" if run.lost else "-"


def _size(value: int) -> str:
    return f"{value / (1 << 20):.3g} MiB" if value >= 1 << 20 else f"{value / 1024:.3g} KiB"
