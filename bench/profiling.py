"""
Where the time of an upload goes: Collector and the floor below it, each measured, and then sampled at the same load.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from contextlib import ExitStack
from pathlib import Path

import msgspec

from bench import proc
from bench.cell import Cell, Plan, measure, problems_of, room
from bench.sampler import sampling
from bench.servers import Server, collector, floor
from bench.stages import Stack, spread, stacks_of
from bench.uploads import Case, requests

CASES = (Case(1), Case(5), Case(100), Case(100, "gzip"))
#: A server is measured in this part of the seconds in which it is sampled: samples need more.
MEASURED_PART = 0.4


class Profile(msgspec.Struct, frozen=True):
    """
    What an upload costs a server, and on what it spends that.

    `cell` is without the sampler, which makes everything slower; `us` are its CPU microseconds by the names of the
    stages, spread by so many `samples`, which were taken during `sampled`.
    """

    cell: Cell
    us: dict[str, float]
    samples: int
    sampled: Cell

    @property
    def cpu_us(self) -> float:
        """Return the whole."""
        return self.cell.cpu_us


class Row(msgspec.Struct, frozen=True):
    """A case."""

    case: Case
    collector: Profile
    floor: Profile


class Report(msgspec.Struct, frozen=True):
    """The whole run."""

    machine: str
    cores: proc.Cores
    plan: Plan
    rows: list[Row]

    @property
    def problems(self) -> list[str]:
        """Say which events were lost or came twice; nothing if none."""
        return [
            problem
            for row in self.rows
            for cell in (row.collector.cell, row.collector.sampled)
            for problem in problems_of(row.case.title, cell)
        ]


def title(case: Case) -> str:
    """Name a case in a few words."""
    return f"{case.events} {'event' if case.events == 1 else 'events'}, {case.encoding}"


def run(plan: Plan, tell: Callable[[str], None]) -> tuple[Report, str]:
    """Measure and sample; return the report, and all stacks, folded. Raises ServerError or LoadError."""
    cores = proc.choose_cores()
    rows, folded = [], []
    with room() as folder, ExitStack() as stack:
        ours = stack.enter_context(collector(folder / "collector", cores.server))
        theirs = stack.enter_context(floor(folder / "floor", cores.server))
        stack.enter_context(proc.pinned(cores.load))
        for case in plan.cases:
            uploads, profiles = requests(case), []
            for server in (ours, theirs):
                tell(f"{title(case)}: {server.name}")
                profile, stacks = _profile(server, case, uploads, plan, cores, folder)
                profiles.append(profile)
                folded += [fold(f"{server.name}, {title(case)}", one) for one in stacks]
            rows.append(Row(case, *profiles))
    return Report(proc.machine(), cores, plan, rows), "".join(folded)


def _profile(
    server: Server, case: Case, uploads: Sequence[bytes], plan: Plan, cores: proc.Cores, folder: Path
) -> tuple[Profile, list[Stack]]:
    (pid,) = server.workers
    short = msgspec.structs.replace(plan, seconds=plan.seconds * MEASURED_PART)
    before_s, main_before_s = proc.cpu_s(pid), proc.main_thread_s(pid)
    cell, _ = measure(server, case, uploads, short, cores)
    all_s, main_s = proc.cpu_s(pid) - before_s, proc.main_thread_s(pid) - main_before_s
    with sampling(pid, folder) as file:
        sampled, _ = measure(server, case, uploads, plan, cores)
    stacks = stacks_of(file.read_text())
    main_part = min(1.0, main_s / all_s)
    used = {True: cell.cpu_us * main_part, False: cell.cpu_us * (1 - main_part)}
    return Profile(cell, spread(stacks, used, main=pid), sum(one.samples for one in stacks), sampled), stacks


def fold(root: str, stack: Stack) -> str:
    """Write a stack as a line, as a flame graph is made from them."""
    return f"{';'.join((root, *stack.frames))} {stack.samples}\n"
