"""
How Collector scales: one thing is varied at a time, and the rate, the latencies and the CPU are looked at.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from contextlib import ExitStack

import msgspec

from bench import proc
from bench.cell import Cell, Plan, measure, problems_of, room
from bench.links import LoadError
from bench.servers import Server, collector, reference
from bench.uploads import Case, requests

EVENTS = (1, 2, 5, 10, 20, 50, 100, 200)
CONNECTIONS = (1, 4, 16, 32, 64, 128, 256, 512, 1000)
TENANTS = (1, 10, 100, 1000, 10_000)
WORKERS = (1, 2)
#: What the sweeps of tenants are called: files of each tenant, as the `file:` sink writes them, and files of all.
OF_TENANTS, BY_HOUR = "tenants", "tenants, files by hour"
CASE = Case(5)
#: How long a server may take until it has nothing to do, in seconds.
_SETTLING_S = 10.0
#: How often the time in which each tenant is to upload is doubled.
_MOST_OPENINGS = 6
#: Enough that each of two workers has as many as one has elsewhere.
WORKERS_CASE = Case(5, connections=64)


class Point(msgspec.Struct, frozen=True):
    """
    What was found `at` one value; of the reference nothing where it has no such thing, or broke a connection off.

    `opening` is what was found before, while each tenant's first upload was among the others.
    """

    at: int
    case: Case
    collector: Cell
    reference: Cell | None = None
    opening: Cell | None = None


class Sweep(msgspec.Struct, frozen=True):
    """One thing varied: `what` it is, and a point for each of its values."""

    what: str
    points: list[Point]

    def at(self, value: int) -> Point | None:
        """Return the point of a value, if it was measured."""
        return next((point for point in self.points if point.at == value), None)


class Ranges(msgspec.Struct, frozen=True):
    """Which values are measured; a sweep without any is left out."""

    events: Sequence[int] = EVENTS
    connections: Sequence[int] = CONNECTIONS
    tenants: Sequence[int] = TENANTS
    workers: Sequence[int] = WORKERS


class Scaling(msgspec.Struct, frozen=True):
    """The whole run; `cores_of_two` is where the sweep of workers ran."""

    machine: str
    cores: proc.Cores
    cores_of_two: proc.Cores | None
    plan: Plan
    sweeps: list[Sweep]

    def sweep(self, what: str) -> Sweep | None:
        """Return a sweep by what it varied, if it was made."""
        return next((sweep for sweep in self.sweeps if sweep.what == what), None)

    @property
    def problems(self) -> list[str]:
        """Say which events were lost or came twice; nothing if none."""
        return [
            problem
            for sweep in self.sweeps
            for point in sweep.points
            for cell in (point.opening, point.collector)
            for problem in problems_of(f"{point.at:,} {sweep.what}", cell)
        ]


def run(plan: Plan, tell: Callable[[str], None], ranges: Ranges | None = None) -> Scaling:
    """Measure; of the plan, the cases and the rounds are not asked. Raises ServerError or LoadError."""
    ranges = ranges or Ranges()
    cores, of_two = proc.choose_cores(), proc.choose_cores_of_two()
    sweeps = [*_of_cases(plan, tell, cores, ranges)]
    if ranges.tenants:
        for what, options in ((OF_TENANTS, ""), (BY_HOUR, "?by=hour")):
            sweeps.append(Sweep(what, [_tenants(plan, tell, cores, count, options) for count in ranges.tenants]))
    if ranges.workers and of_two:
        sweeps.append(Sweep("workers", [_workers(plan, tell, of_two, count) for count in ranges.workers]))
    return Scaling(proc.machine(), cores, of_two, plan, sweeps)


def _of_cases(plan: Plan, tell: Callable[[str], None], cores: proc.Cores, ranges: Ranges) -> Iterator[Sweep]:
    """Vary what needs no other server."""
    cases = {
        "events an upload": [(count, Case(count)) for count in ranges.events],
        "connections": [(count, Case(CASE.events, connections=count)) for count in ranges.connections],
    }
    with room() as folder, ExitStack() as stack:
        theirs = stack.enter_context(reference(folder / "reference", cores.server))
        ours = stack.enter_context(collector(folder / "collector", cores.server))
        stack.enter_context(proc.pinned(cores.load))
        for what, values in cases.items():
            points = []
            for at, case in values:
                tell(f"scaling: {at:,} {what}")
                uploads = requests(case)
                points.append(Point(at, case, _cell(ours, case, uploads, plan, cores), _try(theirs, case, plan, cores)))
            if points:
                yield Sweep(what, points)


def _tenants(plan: Plan, tell: Callable[[str], None], cores: proc.Cores, count: int, options: str) -> Point:
    """Let so many tenants take turns, each with its own key and its own quota."""
    tell(f"scaling: {count:,} tenants, file:{options}")
    uploads = requests(CASE, tenants=count)
    with (
        room() as folder,
        collector(folder / "collector", cores.server, tenants=count, sink_options=options) as server,
        proc.pinned(cores.load),
    ):
        # What a start leaves to do, a worker does soon after it is ready.
        proc.await_idle(*server.workers, patience_s=_SETTLING_S)
        opening = _open(server, uploads, plan, cores)
        return Point(count, CASE, _cell(server, CASE, uploads, plan, cores), opening=opening)


def _open(server: Server, uploads: Sequence[bytes], plan: Plan, cores: proc.Cores) -> Cell:
    """
    Measure until each tenant has uploaded: the first time makes it an account, counters and directories.

    That is a cost of a tenant, once in a worker's life, and not one of its uploads. Raises LoadError if it takes too
    long.
    """
    for seconds in (plan.seconds * 2**n for n in range(_MOST_OPENINGS)):
        cell = _cell(server, CASE, uploads, msgspec.structs.replace(plan, seconds=seconds), cores)
        if cell.account is not None and cell.account.uploads_acknowledged >= len(uploads):
            return cell
    raise LoadError(f"{len(uploads):,} uploads did not come to be acknowledged in {seconds:g} s")


def _workers(plan: Plan, tell: Callable[[str], None], cores: proc.Cores, count: int) -> Point:
    """Let so many workers have the same two cores: one is measured where two are."""
    tell(f"scaling: {count:,} workers")
    uploads = requests(WORKERS_CASE)
    with room() as folder:
        with collector(folder / "collector", *cores.servers, workers=count) as ours, proc.pinned(*cores.loads):
            cell = _cell(ours, WORKERS_CASE, uploads, plan, cores)
        with reference(folder / "reference", *cores.servers, workers=count) as theirs, proc.pinned(*cores.loads):
            return Point(count, WORKERS_CASE, cell, _try(theirs, WORKERS_CASE, plan, cores))


def _cell(server: Server, case: Case, uploads: Sequence[bytes], plan: Plan, cores: proc.Cores) -> Cell:
    return measure(server, case, uploads, plan, cores)[0]


def _try(server: Server, case: Case, plan: Plan, cores: proc.Cores) -> Cell | None:
    """Measure the reference; stock gunicorn breaks off connections that it lets wait for longer than a keep-alive."""
    try:
        return _cell(server, case, requests(case), plan, cores)
    except LoadError:
        return None
