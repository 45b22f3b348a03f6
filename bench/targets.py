"""
The targets: what was asked of Collector, what this run measured, and whether that is enough.
"""

from __future__ import annotations

from collections.abc import Iterator
from statistics import median

import msgspec

from bench.cell import Cell
from bench.memory import FULL_S, LIMIT_BYTES, Memory, limit_mib_per_min
from bench.pace import CASE as PACE_CASE
from bench.pace import Pace
from bench.run import Report, best
from bench.scaling import BY_HOUR, OF_TENANTS, WORKERS_CASE, Scaling, Sweep
from bench.sinks import FILE, OTHERS, Sinks
from bench.table import LOAD_LIMIT, OTHERS_LIMIT, table
from bench.uploads import Case

MET, MISSED, UNTOLD = "met", "missed", "can't tell"
#: The rate in multiples of the reference's, by events an upload.
RATES = {1: 2.5, 5: 2.5, 100: 1.2}
#: Uploads in gzip, in plain ones.
GZIP_CASE, GZIP = Case(100, "gzip"), 0.8
#: Answers that wait for the sink, in such that wait for the spool.
SINK_CASE, SINK = Case(5, connections=64, ack="sink"), 0.5
#: The p99 in medians, at half of the peak.
SPREAD = 10.0
#: The rate of two workers, in that of one.
TWO_WORKERS = 1.8
#: What an upload may cost with any number of tenants, in what it costs with one. It must not grow; two measurements
#: of the same thing were up to 17 % apart on a machine with nothing else to do.
TENANTS = 1.2
#: Intake with another sink, in that with files: the flusher may slow it by a quarter, on one core.
INTAKE = 0.75
_MIB = 1 << 20
_TIMES = "times"
_NOT_RUN = "not measured in this run"


class Target(msgspec.Struct, frozen=True):
    """
    One target, in a unit of its own.

    `measured` is nothing when nothing was, and `untold` says why no verdict follows from it. `note` is what else one
    should know.
    """

    what: str
    asked: float
    unit: str
    measured: float | None
    verdict: str
    untold: str = ""
    note: str = ""
    at_most: bool = False


def judge(
    what: str, asked: float, unit: str, measured: float | None,
    *, at_most: bool = False, untold: str = "", note: str = "",
) -> Target:  # fmt: skip
    """Hold a measurement against what was asked; a number that is not told is never met."""
    if measured is None:
        return Target(what, asked, unit, None, UNTOLD, untold or _NOT_RUN, note, at_most)
    enough = measured <= asked if at_most else measured >= asked
    verdict = UNTOLD if untold else MET if enough else MISSED
    return Target(what, asked, unit, measured, verdict, untold, note, at_most)


def targets(
    throughput: Report | None,
    pace: Pace | None,
    scaling: Scaling | None,
    memory: Memory | None,
    sinks: Sinks | None = None,
) -> list[Target]:
    """Judge what was measured; what was not is there too, as such."""
    return [
        *_rates(throughput),
        _spread(pace),
        _two_workers(scaling),
        _tenants(scaling, OF_TENANTS),
        _tenants(scaling, BY_HOUR),
        *_intake(sinks),
        *_memory(throughput, scaling, memory),
    ]


def _rates(report: Report | None) -> Iterator[Target]:
    for events, asked in RATES.items():
        case = Case(events)
        ours, theirs = _cell(report, case, "collector"), _cell(report, case, "reference")
        what = f"rate at {events} {'event' if events == 1 else 'events'} an upload ÷ reference"
        yield _rate(what, asked, ours, theirs)
    plain = Case(GZIP_CASE.events)
    yield _rate(
        f"rate of gzip ÷ plain, {GZIP_CASE.events} events", GZIP,
        _cell(report, GZIP_CASE, "collector"), _cell(report, plain, "collector"),
    )  # fmt: skip
    spool = msgspec.structs.replace(SINK_CASE, ack="spool")
    yield _rate(
        f"rate of `ack: sink` ÷ `ack: spool`, {SINK_CASE.connections} connections", SINK,
        _cell(report, SINK_CASE, "collector"), _cell(report, spool, "collector"),
    )  # fmt: skip


def _cell(report: Report | None, case: Case, side: str) -> Cell | None:
    """Return the better round of a case."""
    rows = [row for row in report.rows if row.case == case] if report else []
    return best(rows[0].collector if side == "collector" else rows[0].reference) if rows else None


def _rate(what: str, asked: float, ours: Cell | None, other: Cell | None) -> Target:
    """Compare two rates; a generator at its limit has found neither of them."""
    if ours is None or other is None or not other.requests_per_s:
        return judge(what, asked, _TIMES, None)
    ratio = ours.requests_per_s / other.requests_per_s
    # One that was held down may be higher: that spoils a miss of the first, and a hit of the second.
    limited = ours if ratio < asked else other
    untold = f"the load used {limited.load_busy:.0%} of its core" if limited.load_busy > LOAD_LIMIT else ""
    foreign = max(ours.others_busy, other.others_busy)
    note = f"by CPU a request {other.cpu_us / ours.cpu_us:.2f} times"
    note += f"; others used up to {foreign:.0%} of the server's core" if foreign > OTHERS_LIMIT else ""
    return judge(what, asked, _TIMES, ratio, untold=untold, note=note)


def _spread(pace: Pace | None) -> Target:
    what = f"p99 ÷ median at half of the peak, {PACE_CASE.events} events"
    if pace is None or not pace.collector.spread:
        return judge(what, SPREAD, _TIMES, None, at_most=True)
    half = pace.collector.half
    note = f"p50 {half.p50_ms:.2f} ms, p99 {half.p99_ms:.2f} ms; reference {pace.reference.spread:.1f} times"
    untold = "the load and the server share a core" if pace.cores.load == pace.cores.server else ""
    return judge(what, SPREAD, _TIMES, pace.collector.spread, at_most=True, untold=untold, note=note)


def _two_workers(scaling: Scaling | None) -> Target:
    what = f"rate of two workers ÷ one, {WORKERS_CASE.connections} connections"
    sweep = scaling.sweep("workers") if scaling else None
    one, two = (sweep.at(1), sweep.at(2)) if sweep else (None, None)
    if scaling is None or one is None or two is None or not one.collector.requests_per_s:
        alone = scaling is not None and scaling.cores_of_two is None
        return judge(what, TWO_WORKERS, _TIMES, None, untold="there is one core" if alone else "")
    ratio = two.collector.requests_per_s / one.collector.requests_per_s
    # What two workers could do with a core each, as far as CPU decides.
    fair = 2 * one.collector.cpu_us / two.collector.cpu_us
    shared = scaling.cores_of_two.shared if scaling.cores_of_two else ""
    untold = shared if ratio < TWO_WORKERS else ""
    return judge(what, TWO_WORKERS, _TIMES, ratio, untold=untold, note=f"by CPU a request {fair:.2f} times")


def _tenants(scaling: Scaling | None, name: str) -> Target:
    sweep: Sweep | None = scaling.sweep(name) if scaling else None
    if sweep is None or len(sweep.points) < 2:
        return judge(f"CPU an upload with many {name} ÷ one", TENANTS, _TIMES, None, at_most=True)
    first, *others = sweep.points
    dearest = max(others, key=lambda point: point.collector.cpu_us)
    costs = [point.collector.cpu_us for point in (first, dearest)]
    what = f"CPU an upload with {dearest.at:,} {name} ÷ {first.at:,}"
    note = f"the dearest of {others[0].at:,} to {others[-1].at:,}: {costs[0]:,.0f} µs and {costs[1]:,.0f} µs"
    if dearest.opening is not None:
        note += f"; {dearest.opening.cpu_us:,.0f} µs with the first upload of each"
    return judge(what, TENANTS, _TIMES, costs[1] / costs[0], at_most=True, note=note)


def _intake(sinks: Sinks | None) -> Iterator[Target]:
    """Compare the uploads that came in with each sink with those that did with files, in the median round."""
    for sink in OTHERS:
        what = f"intake with `{sink}:` ÷ `{FILE}:`, one core"
        row = sinks.row(sink) if sinks else None
        if sinks is None or row is None:
            yield judge(what, INTAKE, _TIMES, None)
            continue
        ours, files = ([cell.cpu_us for cell in one.cells] for one in (row, sinks.rows[0]))
        rounds = sinks.ratios(row)
        note = f"{min(rounds):.2f} to {max(rounds):.2f}; by CPU {median(files) / median(ours):.2f} times"
        yield judge(what, INTAKE, _TIMES, median(rounds), note=note)


def _memory(report: Report | None, scaling: Scaling | None, memory: Memory | None) -> Iterator[Target]:
    peaks = [(row.case.title, cell.peak_bytes) for row in (report.rows if report else ()) for cell in row.collector]
    for sweep in scaling.sweeps if scaling else ():
        peaks += [(f"{point.at:,} {sweep.what}", point.collector.peak_bytes) for point in sweep.points]
    peaks += [(f"{memory.seconds:g} s of load", memory.peak_bytes)] if memory else []
    where, peak = max(peaks, key=lambda one: one[1], default=("", 0))
    yield judge(
        "peak RSS a worker under full load", LIMIT_BYTES / _MIB, "MiB", peak / _MIB if peaks else None,
        at_most=True, note=f"at {where}" if peaks else "",
    )  # fmt: skip
    what = f"growth of it over {FULL_S / 60:g} minutes"
    if memory is None or memory.growth_mib_per_min is None:
        yield judge(what, round(limit_mib_per_min(FULL_S), 2), "MiB/min", None, at_most=True)
        return
    short = memory.seconds < FULL_S
    yield judge(
        what, round(limit_mib_per_min(memory.seconds), 2), "MiB/min", memory.growth_mib_per_min,
        at_most=True, untold=f"it ran for {memory.seconds:g} s; see `make bench-memory`" if short else "",
    )  # fmt: skip


def render(found: list[Target]) -> str:
    """Return the table."""
    rows = [
        [
            target.what,
            f"{'at most' if target.at_most else 'at least'} {target.asked:g} {target.unit}",
            "" if target.measured is None else f"{target.measured:.2f} {target.unit}",
            f"**{target.verdict}**" if target.verdict == MISSED else target.verdict,
            "; ".join(filter(None, (target.untold, target.note))),
        ]
        for target in found
    ]
    told = [sum(target.verdict == verdict for target in found) for verdict in (MET, MISSED, UNTOLD)]
    counts = f"{told[0]} met, {told[1]} missed, {told[2]} not told by this run."
    columns = ("target", "asked", "measured", "verdict", "beside it")
    return "\n\n".join(["", "### Targets", table(columns, rows, words=5), counts, ""])
