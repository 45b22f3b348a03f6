"""The benchmark, run: both servers, real load, and a table."""

from __future__ import annotations

import os
from pathlib import Path

import pytest
from click.testing import CliRunner
from msgspec.structs import replace

import bench.__main__ as program
from bench.account import Account
from bench.cell import PREFIX, SHM, Cell, Plan
from bench.proc import Cores
from bench.run import Report, Row, best, run
from bench.table import render
from bench.uploads import Case

CORES = os.sched_getaffinity(0)
CELL = Cell(
    requests_per_s=1000.0, events_per_s=5000.0, cpu_us=900.0, p50_ms=30.0, p99_ms=40.0, peak_bytes=40 << 20,
    server_busy=0.99, load_busy=0.1, others_busy=0.0, unexpected={},
)  # fmt: skip
ACCOUNT = Account(50, 10, 50, 50, 0, balanced=True, stored=50, uploads_stored=10, uploads_torn=0)


def report(reference: Cell, *ours: Cell) -> Report:
    plan = Plan([Case(5)], 1.0, 0.5, len(ours))
    cells = [replace(cell, account=cell.account or ACCOUNT) for cell in ours]
    return Report("a machine", Cores(0, 1), plan, [Row(Case(5), [reference] * len(ours), cells)])


@pytest.fixture(scope="module")
def measured() -> Report:
    """One short run of two cases, for all tests of what is in it."""
    cases = [Case(2, connections=4), Case(2, "gzip", connections=4, ack="sink")]
    return run(Plan(cases, 0.3, 0.1, 1), lambda text: None)


def test_a_run_finds_every_acknowledged_event_in_the_sink(measured: Report) -> None:
    """The point of all of it: rates of a server that loses events are worth nothing."""
    accounts = [cell.account for row in measured.rows for cell in row.collector]

    assert [] == measured.problems
    assert 2 == len(accounts)
    for account in accounts:
        assert account is not None
        assert 0 < account.acknowledged == account.accepted == account.delivered == account.stored


def test_a_run_measures_all_that_the_table_shows(measured: Report) -> None:
    """A number that is always zero is one that nobody measured."""
    for row in measured.rows:
        for cell in (*row.reference, *row.collector):
            assert 0 < cell.p50_ms <= cell.p99_ms
            assert cell.events_per_s == pytest.approx(2 * cell.requests_per_s)
            assert 1 << 20 < cell.peak_bytes
            assert 0 < cell.cpu_us
            assert 0 < cell.load_busy
            assert {} == cell.unexpected


def test_a_run_leaves_nothing_behind(measured: Report) -> None:
    """It is run on machines that have other work, and memory for it."""
    assert [] == list(SHM.glob(f"{PREFIX}{os.getpid()}-*"))
    assert CORES == os.sched_getaffinity(0)


def test_the_ratio_is_of_the_better_rounds_of_both() -> None:
    """Chosen by the same rule for both, or the choice is the result."""
    slow, fast = replace(CELL, requests_per_s=500.0), replace(CELL, requests_per_s=2500.0, cpu_us=450.0)

    text = render(report(CELL, slow, fast))

    assert fast == best([slow, fast])
    assert "| **2.50** | 450 | 0.50 |" in text
    assert "80% at the most" in text


@pytest.mark.parametrize(
    ("change", "words"),
    [
        ({"load_busy": 0.95}, "† The load used over 90% of its core"),
        ({"unexpected": {"503": 7}}, "7 with status 503"),
        ({"others_busy": 0.4}, "Something else used up to 40% of the server's core"),
        ({"account": replace(ACCOUNT, stored=49)}, "Events were lost or came twice"),
    ],
)
def test_what_spoils_a_number_is_said_beside_the_table(change: dict[str, object], words: str) -> None:
    """A table is quoted without the circumstances; those that matter must be in it."""
    assert words in render(report(CELL, replace(CELL, **change)))
    assert words not in render(report(CELL, CELL))


@pytest.mark.parametrize(("stored", "status"), [(50, 0), (49, 1)])
def test_a_lost_event_fails_the_run(monkeypatch: pytest.MonkeyPatch, tmp_path: Path, stored: int, status: int) -> None:
    """Whoever calls this from a script sees no table, only the status."""
    cell = replace(CELL, account=replace(ACCOUNT, stored=stored))
    monkeypatch.setattr(program, "run", lambda plan, tell: report(CELL, cell))

    done = CliRunner().invoke(
        program.main, ["--quick", "--only", "throughput", "--json", str(tmp_path / "numbers.json")]
    )

    assert status == done.exit_code
    assert f'"stored": {stored}' in (tmp_path / "numbers.json").read_text()
    assert "| **Collector** |" in done.stdout
