"""
The plots: how Collector scales, a file for each thing that was varied, and its memory over time.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator, Sequence
from pathlib import Path

from bench.cell import Cell
from bench.memory import CASE as MEMORY_CASE
from bench.memory import LIMIT_BYTES, Memory
from bench.scaling import BY_HOUR, CASE, OF_TENANTS, WORKERS_CASE, Point, Scaling, Sweep
from bench.scaling_table import cpu_us_per_event, refused_part
from bench.table import OTHERS_LIMIT
from collector.drawing.axes import Axis, log, plain
from collector.drawing.svg import Line, Panel, figure

#: Collector's two greens, the reference's two greys, and what a limit or an ideal is drawn in: the colours of
#: docs/data-path.svg.
OURS, OURS_SOFT, THEIRS, THEIRS_SOFT, MARK = "#2e7d4f", "#82b899", "#66717f", "#a3acb8", "#b7791f"
#: From this part of refusals on, a point is drawn empty.
REFUSED_PART = 0.01
_MIB = 1 << 20
_WORDS = {
    "events an upload": f"One worker, {CASE.connections} connections in a closed loop.",
    "connections": f"One worker, uploads of {CASE.events} events, every connection busy all the time.",
    OF_TENANTS: f"One worker, {CASE.connections} connections, uploads of {CASE.events} events; the tenants take turns, "
    "each with its own key and quota. The sink writes files of each tenant.",
    BY_HOUR: f"One worker, {CASE.connections} connections, uploads of {CASE.events} events; the tenants take turns, "
    "each with its own key and quota. The sink writes files of all tenants.",
    "workers": f"{WORKERS_CASE.connections} connections, uploads of {WORKERS_CASE.events} events, two cores for the "
    "workers",
}
#: Of which sweeps it is known what the best would be: a rate that grows with it, or stays; the cost stays.
_IDEALS = {OF_TENANTS: False, BY_HOUR: False, "workers": True}
#: Files whose name is not the first word of what is drawn.
_FILES = {BY_HOUR: "tenants-by-hour"}
_REFERENCE = "Reference: an empty WSGI app on stock gunicorn gevent."


def draw(folder: Path, scaling: Scaling | None, memory: Memory | None) -> list[Path]:
    """Write a file for each plot that can be drawn, and return them."""
    files = []
    for name, text in plots(scaling, memory):
        folder.mkdir(parents=True, exist_ok=True)
        file = folder / f"{name}.svg"
        file.write_text(text)
        files.append(file)
    return files


def plots(scaling: Scaling | None, memory: Memory | None) -> Iterator[tuple[str, str]]:
    """Draw each plot; its name, and its SVG."""
    for sweep in scaling.sweeps if scaling else ():
        if scaling and len(sweep.points) > 1:
            yield _FILES.get(sweep.what, sweep.what.partition(" ")[0]), _scaling(scaling, sweep)
    if memory and len(memory.samples) > 1:
        yield "memory", _memory(memory)


def _scaling(scaling: Scaling, sweep: Sweep) -> str:
    words = _WORDS[sweep.what]
    if sweep.what == "workers" and scaling.cores_of_two:
        words += f"; {scaling.cores_of_two.shared}." if scaling.cores_of_two.shared else ", a third one for the load."
    hollow = frozenset(float(point.at) for point in sweep.points if refused_part(point.collector) >= REFUSED_PART)
    panels = [_rates(sweep, hollow), _latencies(sweep, hollow), _costs(sweep, hollow)]
    return figure(f"By {sweep.what}", words, panels, feet=[*_feet(sweep, refused=bool(hollow))])


def _feet(sweep: Sweep, *, refused: bool) -> Iterator[str]:
    """Say what the lines are, and what spoils them."""
    lines = [_REFERENCE] if any(point.reference for point in sweep.points) else []
    lines += ["Ideal: as good as the first point."] if sweep.what in _IDEALS else []
    lines += [f"Empty points: over {REFUSED_PART:.0%} of the uploads were refused."] if refused else []
    foreign = max(cell.others_busy for point in sweep.points for cell in (point.collector, point.reference) if cell)
    yield from filter(None, [" ".join(lines)])
    if foreign > OTHERS_LIMIT:
        yield f"Something else used up to {foreign:.0%} of a core of the server's: trust the CPU, and not the rates."


def _rates(sweep: Sweep, hollow: frozenset[float]) -> Panel:
    lines = _pair(sweep, hollow, lambda _, cell: cell.events_per_s)
    if sweep.what in _IDEALS:
        first = sweep.points[0]
        grows = _IDEALS[sweep.what]
        lines.append(_ideal(sweep, first.collector.events_per_s, lambda at: at / first.at if grows else 1.0))
    return Panel("Events a second", _across(sweep), _scale(sweep)("", _heights(lines)), lines)


def _latencies(sweep: Sweep, hollow: frozenset[float]) -> Panel:
    lines = [
        Line("p99", OURS, _along(sweep, lambda _, cell: cell.p99_ms), hollow=hollow),
        Line("p50", OURS_SOFT, _along(sweep, lambda _, cell: cell.p50_ms), hollow=hollow),
        Line("ref. p99", THEIRS, _along(sweep, lambda _, cell: cell.p99_ms, theirs=True), dashed=True),
        Line("ref. p50", THEIRS_SOFT, _along(sweep, lambda _, cell: cell.p50_ms, theirs=True), dashed=True),
    ]
    return Panel("Latency at the peak rate, ms", _across(sweep), log("", _heights(lines)), lines)


def _costs(sweep: Sweep, hollow: frozenset[float]) -> Panel:
    lines = _pair(sweep, hollow, cpu_us_per_event)
    if sweep.what in _IDEALS:
        first = sweep.points[0]
        lines.append(_ideal(sweep, cpu_us_per_event(first, first.collector), lambda _: 1.0))
    return Panel("CPU an event, µs", _across(sweep), _scale(sweep)("", _heights(lines)), lines)


def _pair(sweep: Sweep, hollow: frozenset[float], of: Callable[[Point, Cell], float]) -> list[Line]:
    return [
        Line("Collector", OURS, _along(sweep, of), hollow=hollow),
        Line("reference", THEIRS, _along(sweep, of, theirs=True), dashed=True),
    ]


def _ideal(sweep: Sweep, first: float, times: Callable[[int], float]) -> Line:
    points = [(float(point.at), first * times(point.at)) for point in sweep.points]
    return Line("ideal", MARK, points, dashed=True, marks=False)


def _scale(sweep: Sweep) -> Callable[[str, Iterable[float]], Axis]:
    """Return what to measure rates and costs on: they follow the events over two decades, and little else."""
    return log if sweep.what == "events an upload" else plain


def _along(sweep: Sweep, of: Callable[[Point, Cell], float], *, theirs: bool = False) -> list[tuple[float, float]]:
    cells = [(point, point.reference if theirs else point.collector) for point in sweep.points]
    return [(float(point.at), of(point, cell)) for point, cell in cells if cell is not None]


def _across(sweep: Sweep) -> Axis:
    """Return the axis of what was varied: on a log scale, as its values are spaced, or the few of them alone."""
    values = [float(point.at) for point in sweep.points]
    if sweep.what == "workers":
        return Axis(sweep.what, min(values) - 0.5, max(values) + 0.5, only=values)
    return log(sweep.what, values)


def _heights(lines: Sequence[Line]) -> list[float]:
    return [y for line in lines for _, y in line.points]


def _memory(memory: Memory) -> str:
    unit_s, unit = (60.0, "minutes") if memory.seconds >= 120 else (1.0, "seconds")
    resident = [(one.at_s / unit_s, one.resident_bytes / _MIB) for one in memory.samples]
    lines = [Line("RSS", OURS, resident, marks=False)]
    across = Axis(f"{unit} under full load", 0.0, max(x for x, _ in resident))
    limit = LIMIT_BYTES / _MIB
    lines.append(Line(f"{limit:g} MiB", MARK, [(0.0, limit), (across.high, limit)], dashed=True, marks=False))
    words = (
        f"One worker, {memory.requests_per_s:,.0f} uploads a second of {MEMORY_CASE.events} events over "
        f"{MEMORY_CASE.connections} connections; peak {memory.peak_bytes / _MIB:.1f} MiB"
    )
    if memory.line and memory.growth_mib_per_min is not None:
        slope, start = memory.line
        ends = [memory.settled[0].at_s, memory.settled[-1].at_s]
        fit = [(at_s / unit_s, (start + slope * at_s) / _MIB) for at_s in ends]
        lines.append(Line("trend", THEIRS, fit, dashed=True, marks=False))
        words += f", trend {memory.growth_mib_per_min:+.2f} MiB a minute"
    panel = Panel("Resident set of the worker, MiB", across, plain("", _heights(lines)), lines)
    return figure("Memory over time", f"{words}.", [panel])
