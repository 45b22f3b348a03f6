"""A minute or two in the life of a task to which everything happens at once."""

from __future__ import annotations

import os

import pytest

from tests.system.chaos import report
from tests.system.chaos.faults import FAULTS
from tests.system.chaos.run import Row, alone, mixed

pytestmark = pytest.mark.system

#: Another one each time is for `make chaos`; this one can be had again.
SEED = int(os.environ.get("CHAOS_SEED", "20261124"))


def show(row: Row) -> None:
    table = "\n".join([report.header(), report.line(report.cells(row)), *report.broken(row)])
    print(f"seed {SEED}: {report.ingredients(row)}\n{table}")  # noqa: T201 - pytest shows it with -s, and with a failure


def test_nothing_that_was_acknowledged_is_lost_whatever_happens_to_the_task() -> None:
    """The promise of an answer, held against every fault we know how to make, at full load."""
    row = mixed(list(FAULTS.values()), seed=SEED, seconds=0.0)
    show(row)

    assert [] == row.finding.broken
    assert {fault.name for fault in FAULTS.values() if not fault.settings} == set(row.done)


@pytest.mark.parametrize("name", [fault.name for fault in FAULTS.values() if fault.settings])
def test_a_fault_that_needs_a_task_of_its_own_loses_nothing(name: str) -> None:
    """A spool without room, and destinations that are away for too long, are what the settings decide about."""
    row = alone(FAULTS[name], seed=SEED)
    show(row)

    assert [] == row.finding.broken
