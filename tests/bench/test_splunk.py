"""What a dead Splunk costs, measured: every state of it, real load, and accounts that have to agree."""

from __future__ import annotations

import json
from pathlib import Path

import pytest
from msgspec.structs import replace

from bench.cell import Cell, Plan
from bench.proc import Cores
from bench.splunk import AGAIN, HEALTHY, MUTED, STATES, WITHOUT, Lines, Row, Splunk, expectation, run
from bench.splunk_table import render, verdict
from collector.control.hec.child import HecChild
from tests.bench.test_run import ACCOUNT, CELL

#: All ten take half a minute.
SHORT = (WITHOUT, HEALTHY, "black hole", MUTED)
PLAN = Plan([], 1.0, 0.5, 2)
LINES = Lines(emitted=100, delivered=90, dropped=10, indexed=95, spoken=100, expected=93, unsure=2)


@pytest.fixture(scope="module")
def measured() -> Splunk:
    """One short round of a state of each kind, for all tests of what is in it."""
    return run(Plan([], 0.3, 0.1, 1), lambda text: None, SHORT)


def cells(*per_s: float) -> list[Cell]:
    return [replace(CELL, requests_per_s=rate, account=ACCOUNT) for rate in per_s]


def splunk(
    again: tuple[float, float] = (990.0, 1980.0),
    ours: tuple[float, float] = (1000.0, 2000.0),
    *,
    lines: Lines = LINES,
    slow_ms: float = 3.0,
    sick: int = 0,
) -> Splunk:
    """Make a run of two rounds, of which the second was twice as fast."""
    pulses = [[0.001] * 98, [slow_ms / 1e3] * 2]
    rows = [
        Row(HEALTHY, cells(1000.0, 2000.0), pulses, [0, 0], lines=LINES),
        Row(AGAIN, cells(*again), pulses, [0, 0], lines=LINES),
        Row("black hole", cells(*ours), pulses, [0, sick], lines=lines),
    ]
    return Splunk("a machine", Cores(0, 1), PLAN, rows)


def judged(made: Splunk) -> str:
    return verdict(made, made.row("black hole"))


def test_no_event_and_no_line_is_unaccounted_for_in_any_state(measured: Splunk) -> None:
    """A server that is fast because it forgets would win."""
    assert [*SHORT] == [row.state for row in measured.rows]
    assert [] == measured.problems
    for row in measured.rows:
        assert all(0 < one for pulse in row.pulses_s for one in pulse)
        assert row.pulses_s[0]
        assert row.stop_s > 0
        assert (row.lines is None) == (row.state == WITHOUT)
        if row.lines is not None:
            assert 0 < row.lines.emitted
            assert (row.lines.spoken is None) == ("stdout" in row.state)


def test_a_state_is_what_it_is_called(measured: Splunk) -> None:
    """A dead Splunk that takes lines after all would cost nothing, of course."""
    found = {row.state: row.lines for row in measured.rows if row.lines}

    # The line that tells of the last losses of a blocked standard output can't be sent any more.
    assert (0, 0) == (found[HEALTHY].dropped, found[MUTED].dropped // 2)
    assert found[HEALTHY].indexed
    assert found[MUTED].indexed
    assert (0, found["black hole"].emitted) == (found["black hole"].indexed, found["black hole"].dropped)


def test_each_state_is_one_that_the_simulated_hec_can_be_in() -> None:
    """What it does not understand it does not do, and then it is healthy."""
    with HecChild() as hec:
        for order in STATES.values():
            if order is not None:
                hec.tell(order)


def test_a_ratio_is_that_of_neighbours_in_the_median_round() -> None:
    """What else a machine does changes from minute to minute, and neighbours share it."""
    made = splunk(ours=(900.0, 2120.0))

    assert [0.9, 1.06] == pytest.approx(made.ratios(made.row("black hole")))
    assert "| 2,120 | **0.98** | 0.90 to 1.06 | 900 | 1.00 |" in render(made)


def test_cost_by_cpu_tells_what_is_of_the_state_from_what_is_of_the_machine() -> None:
    """A neighbour takes time from a worker, and makes its work hardly dearer."""
    made = splunk()
    made.rows[2].cells[:] = [
        replace(cell, cpu_us=cost) for cell, cost in zip(cells(1.0, 1.0), (1000.0, 1200.0), strict=True)
    ]

    assert 0.825 == pytest.approx(made.ratio_by_cpu(made.rows[2]))


def test_the_noise_is_what_a_healthy_splunk_differs_from_itself() -> None:
    """A difference that is there without a cause is none."""
    assert "met" == judged(splunk(again=(800.0, 2000.0), ours=(850.0, 1700.0)))
    assert "met" == judged(splunk(again=(1250.0, 2000.0), ours=(850.0, 1700.0)))
    assert "intake" in judged(splunk(again=(1010.0, 1990.0), ours=(940.0, 1880.0)))
    assert "intake" in judged(splunk(again=(990.0, 2000.0), ours=(850.0, 1700.0)))
    assert "met" == judged(splunk(again=(1200.0, 2400.0), ours=(960.0, 1920.0)))


@pytest.mark.parametrize(
    ("made", "missed"),
    [
        (splunk(), []),
        (splunk(slow_ms=99.0), []),
        (splunk(slow_ms=100.0), ["health"]),
        (splunk(sick=1), ["health"]),
        (splunk(ours=(900.0, 1800.0), lines=replace(LINES, dropped=9)), ["intake", "accounts"]),
    ],
)
def test_a_state_is_judged_by_intake_health_and_accounts(made: Splunk, missed: list[str]) -> None:
    """One of them alone would hide the others."""
    assert judged(made) == (f"**missed**: {', '.join(missed)}" if missed else "met")
    assert f"| {judged(made)} |" in render(made)


@pytest.mark.parametrize(
    ("lines", "problem"),
    [
        (LINES, None),
        (replace(LINES, indexed=93), None),
        (replace(LINES, indexed=92), "has 92"),
        (replace(LINES, indexed=96), "has 96"),
        (replace(LINES, dropped=11), "of 100 lines"),
        (replace(LINES, spoken=99), "99 lines were said"),
        (replace(LINES, indexed=89, expected=None), "90 lines were delivered, and Splunk has 89"),
    ],
)
def test_lines_that_do_not_add_up_are_told(lines: Lines, problem: str | None) -> None:
    """They end the run with 1, and are said under the table, too."""
    made = splunk(lines=lines)

    assert all(problem in text for text in made.problems if problem)
    assert bool(problem) == bool(made.problems)
    assert ("does not add up" in render(made)) == bool(problem)


def test_health_checks_without_an_answer_are_told() -> None:
    """A check that is not answered has no latency, and would make the p99 better."""
    assert ["black hole: 3 health checks had no 200"] == splunk(sick=3).problems


def test_events_that_were_lost_are_told_with_the_state() -> None:
    """As in every other part."""
    made = splunk()
    made.rows[2].cells[1] = replace(made.rows[2].cells[1], account=replace(ACCOUNT, stored=49))

    assert made.problems[0].startswith("black hole: ")


def test_what_splunk_should_have_is_read_from_what_each_process_said(tmp_path: Path) -> None:
    """What it dropped, and what it said when it could send no more, are not to be there."""

    def line(boot: str, seq: int, event: str, **fields: object) -> str:
        return json.dumps({"boot": boot, "seq": seq, "event": event, **fields})

    words = [
        line("w", 1, "worker.started"),
        line("w", 2, "batch.delivered"),
        line("l", 1, "generation.ready"),
        '{"event":"gunicorn","message":"the master has no boot"}',
        "no JSON at all",
        line("w", 3, "hec.dropped", count=2, reason="full"),
        line("w", 4, "hec.report"),
        line("l", 2, "hec.report"),
        line("w", 5, "hec.dropped", count=1, reason="unconfirmed"),
        line("w", 6, "gunicorn"),
    ]
    (tmp_path / "output").write_text("\n".join(words))

    # Of the worker 6 lines, less 2 late ones and 3 that were dropped; of the launcher 2.
    assert (5, 3, 1) == expectation(tmp_path / "output")
