"""
The rates: each case on the reference and on Collector in turn, and the best of the rounds.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from contextlib import ExitStack

import msgspec

from bench import proc
from bench.cell import Cell, Plan, measure, problems_of, room
from bench.servers import collector, reference
from bench.uploads import Case, requests


class Row(msgspec.Struct, frozen=True):
    """All cells of a case, by round."""

    case: Case
    reference: list[Cell]
    collector: list[Cell]


class Report(msgspec.Struct, frozen=True):
    """The whole run."""

    machine: str
    cores: proc.Cores
    plan: Plan
    rows: list[Row]

    @property
    def problems(self) -> list[str]:
        """Say which events were lost or came twice; nothing if none."""
        return [problem for row in self.rows for cell in row.collector for problem in problems_of(row.case.title, cell)]


def best(cells: Sequence[Cell]) -> Cell:
    """Return the cell with the highest rate: whatever else runs on a machine only ever slows down."""
    return max(cells, key=lambda cell: cell.requests_per_s)


def run(plan: Plan, tell: Callable[[str], None]) -> Report:
    """Measure; `tell` hears how far it is. Raises ServerError or LoadError."""
    cores = proc.choose_cores()
    rows = [Row(case, [], []) for case in plan.cases]
    with room() as folder, ExitStack() as stack:
        theirs = stack.enter_context(reference(folder / "reference", cores.server))
        ours = stack.enter_context(collector(folder / "collector", cores.server))
        stack.enter_context(proc.pinned(cores.load))
        for row in rows:
            uploads = requests(row.case)
            for turn in range(plan.rounds):
                tell(f"{row.case.title}: round {turn + 1} of {plan.rounds}")
                row.reference.append(measure(theirs, row.case, uploads, plan, cores)[0])
                row.collector.append(measure(ours, row.case, uploads, plan, cores)[0])
    return Report(proc.machine(), cores, plan, rows)
