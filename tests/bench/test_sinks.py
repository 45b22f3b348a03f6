"""What sending on costs, measured: every sink before its stand-in, real load, and a table."""

from __future__ import annotations

import pytest
from msgspec.structs import replace

from bench.cell import Plan
from bench.proc import Cores
from bench.sinks import OTHERS, Row, Sinks, run
from bench.sinks_table import render
from tests.bench.test_run import ACCOUNT, CELL

PLAN = Plan([], 1.0, 0.5, 2)


@pytest.fixture(scope="module")
def measured() -> Sinks:
    """One short round, for all tests of what is in it."""
    return run(Plan([], 0.3, 0.1, 1), lambda text: None)


def sinks(*kinesis_per_s: float) -> Sinks:
    files = [replace(CELL, requests_per_s=1000.0 * turn, account=ACCOUNT) for turn in (1, 2)]
    cells = [replace(CELL, requests_per_s=rate, cpu_us=1800.0, account=ACCOUNT) for rate in kinesis_per_s]
    return Sinks(
        "a machine", Cores(0, 1), PLAN, [Row("file", "files", files), Row("kinesis", "an engine", cells)]
    )  # fmt: skip


def test_every_event_is_found_again_behind_every_sink(measured: Sinks) -> None:
    """A sink that is fast because it forgets would win."""
    assert ["file", *OTHERS] == [row.sink for row in measured.rows]
    assert [] == measured.problems
    for row in measured.rows:
        (cell,) = row.cells
        assert cell.account is not None
        assert 0 < cell.account.stored == cell.account.acknowledged
        assert 0 < cell.confirmed_per_s
        assert {} == cell.unexpected


def test_a_ratio_is_that_of_neighbours_in_the_median_round() -> None:
    """What else a machine does changes from minute to minute, and two neighbours share it."""
    made = sinks(900.0, 1200.0)

    assert [0.9, 0.6] == made.ratios(made.rows[1])
    assert "| 1,200 | **0.75** | 0.60 to 0.90 |" in render(made)
    assert "| 360.0 | 2.00 |" in render(made)


def test_what_was_lost_behind_a_sink_is_told_with_its_name() -> None:
    """It ends the run with 1, and is said under the table, too."""
    made = sinks(900.0, 1500.0)
    made.rows[1].cells[1] = replace(made.rows[1].cells[1], account=replace(ACCOUNT, stored=49))

    assert made.problems[0].startswith("kinesis: ")
    assert "Events were lost or came twice" in render(made)
    assert "Events were lost or came twice" not in render(sinks(900.0, 1500.0))
