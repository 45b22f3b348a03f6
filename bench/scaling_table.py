"""
How Collector scales, as Markdown: what the plots show, in numbers.
"""

from __future__ import annotations

from collections.abc import Iterator

from bench.cell import Cell
from bench.scaling import BY_HOUR, CASE, OF_TENANTS, WORKERS_CASE, Point, Scaling, Sweep
from bench.table import OTHERS_LIMIT, table

_COLUMNS = (
    "requests/s", "events/s", "p50 ms", "p99 ms", "CPU µs/request", "CPU µs/event", "peak RSS MiB", "refused",
    "reference requests/s", "CPU µs/request",
)  # fmt: skip
_MIB = 1 << 20


def cpu_us_per_event(point: Point, cell: Cell) -> float:
    """Return the CPU for each event that was taken, in microseconds; the refusals beside it are on its account."""
    answers, refused = cell.cpu_us, sum(cell.unexpected.values())
    if cell.account is None:
        return cell.cpu_us / point.case.events
    taken = cell.account.uploads_acknowledged
    return answers * (taken + refused) / max(1, taken) / point.case.events


def refused_part(cell: Cell) -> float:
    """Return which part of Collector's answers took no upload, from 0 to 1."""
    refused = sum(cell.unexpected.values())
    taken = cell.account.uploads_acknowledged if cell.account else 0
    return refused / (refused + taken) if refused else 0.0


def render(scaling: Scaling) -> str:
    """Return the tables, and in sentences what they need to be read."""
    parts = [part for sweep in scaling.sweeps for part in (f"### By {sweep.what}", _table(sweep))]
    return "\n\n".join(["", *parts, "\n".join(f"- {note}" for note in _notes(scaling)), ""])


def _table(sweep: Sweep) -> str:
    return table((sweep.what, *_COLUMNS), (_row(point) for point in sweep.points), words=1)


def _row(point: Point) -> list[str]:
    ours, theirs = point.collector, point.reference
    refused = refused_part(ours)
    return [
        f"{point.at:,}", f"{ours.requests_per_s:,.0f}", f"{ours.events_per_s:,.0f}", f"{ours.p50_ms:.1f}",
        f"{ours.p99_ms:.1f}", f"{ours.cpu_us:,.0f}", f"{cpu_us_per_event(point, ours):,.1f}",
        f"{ours.peak_bytes / _MIB:.0f}", f"{refused:.1%}" if refused else "",
        f"{theirs.requests_per_s:,.0f}" if theirs else "", f"{theirs.cpu_us:,.0f}" if theirs else "",
    ]  # fmt: skip


def _openings(scaling: Scaling) -> str:
    """Say what an upload cost while the first one of each tenant was among them."""
    return " ".join(
        f"With the first of each, an upload of {point.at:,} {sweep.what} cost {point.opening.cpu_us:,.0f} µs."
        for sweep in scaling.sweeps
        for point in sweep.points[-1:]
        if point.opening is not None
    )


def _notes(scaling: Scaling) -> Iterator[str]:
    yield (
        f"Each point {scaling.plan.seconds:g} s after a warm-up of {scaling.plan.warm_up_s:g} s, in a closed loop; "
        f"{CASE.connections} connections and uploads of {CASE.events} events where nothing else is said. CPU is "
        "counted until the last event is in the sink."
    )
    if scaling.sweep(OF_TENANTS):
        yield (
            "Tenants: each with its own key and quota, and uploads of all of them in turn. The `file:` sink writes "
            "files of each tenant, or, by hour, files of all. Each tenant had uploaded before, which makes it an "
            f"account, counters and directories. {_openings(scaling)}"
        )
    if scaling.sweep("workers") and (cores := scaling.cores_of_two):
        told = " and ".join(map(str, cores.servers))
        where = f"**{cores.shared}**" if cores.shared else f"the load on core {cores.load}"
        yield f"Workers: {WORKERS_CASE.connections} connections; one and two on the cores {told}; {where}."
    points = [point for sweep in scaling.sweeps for point in sweep.points]
    if any(point.collector.unexpected for point in points):
        yield (
            "Refused: the part of the answers that took no upload, because it would have waited for too long. The CPU "
            "a request is that of all answers; the CPU an event has the refusals on its account."
        )
    if broken := [
        f"{point.at:,} {sweep.what}"
        for sweep in scaling.sweeps
        if sweep.what not in {OF_TENANTS, BY_HOUR}
        for point in sweep.points
        if point.reference is None
    ]:
        yield f"The reference broke connections off at {', '.join(broken)}."
    foreign = max((point.collector.others_busy for point in points), default=0.0)
    if foreign > OTHERS_LIMIT:
        yield f"**Something else used up to {foreign:.0%} of a core of the server's**: trust the CPU, not the rates."
    yield "; ".join(scaling.problems) or "None lost, none twice."
