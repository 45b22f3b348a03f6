"""The plots and the tables of the curves, from numbers that are made up."""

from __future__ import annotations

from pathlib import Path
from xml.etree import ElementTree as ET

import pytest
from msgspec.structs import replace

from bench.cell import Plan
from bench.memory import Memory, Sample
from bench.plots import draw, plots
from bench.proc import Cores
from bench.scaling import CASE, Point, Scaling, Sweep
from bench.scaling_table import cpu_us_per_event, refused_part, render
from bench.uploads import Case
from tests.bench.test_run import ACCOUNT, CELL

CORES = Cores(0, 1)
OURS = replace(CELL, account=ACCOUNT)
REFUSING = replace(OURS, unexpected={"503": 10}, cpu_us=500.0)
SWEEPS = [
    Sweep("events an upload", [Point(n, Case(n), OURS, CELL) for n in (1, 10, 100)]),
    Sweep("connections", [Point(1, CASE, OURS, CELL), Point(1000, CASE, REFUSING)]),
    Sweep("tenants", [Point(1, CASE, OURS), Point(10_000, CASE, OURS)]),
    Sweep("workers", [Point(1, CASE, OURS, CELL), Point(2, CASE, OURS, CELL)]),
]
SCALING = Scaling("a machine", CORES, Cores(0, 1, "the load shares", (1,)), Plan([], 1.5, 0.5, 1), SWEEPS)
MEMORY = Memory("a machine", CORES, 600.0, 1000.0, 0.1, 60 << 20, [Sample(n, 50 << 20) for n in range(600)], ACCOUNT)


def test_there_is_a_plot_for_each_thing_that_was_varied_and_for_the_memory(tmp_path: Path) -> None:
    """The text about them names these files."""
    files = draw(tmp_path / "new", SCALING, MEMORY)

    assert ["events.svg", "connections.svg", "tenants.svg", "workers.svg", "memory.svg"] == [one.name for one in files]
    for file in files:
        assert "svg" in ET.fromstring(file.read_text()).tag


def test_nothing_measured_draws_nothing(tmp_path: Path) -> None:
    """A run of one part leaves the plots of the others as they are."""
    assert [] == draw(tmp_path / "new", None, None)
    assert not (tmp_path / "new").exists()
    assert [] == draw(tmp_path, Scaling("", CORES, None, SCALING.plan, [Sweep("tenants", SWEEPS[2].points[:1])]), None)


def test_the_same_run_draws_the_same_plots() -> None:
    """A diff of the plots is a diff of the numbers."""
    assert list(plots(SCALING, MEMORY)) == list(plots(SCALING, MEMORY))


def test_what_a_plot_needs_to_be_read_is_in_it() -> None:
    """It is looked at without the text around it."""
    drawn = dict(plots(SCALING, MEMORY))

    assert "Reference: an empty WSGI app" in drawn["events"]
    assert "Empty points: over 1% of the uploads were refused" in drawn["connections"]
    assert "Empty points" not in drawn["events"]
    assert "the load shares" in drawn["workers"]
    assert ">ideal<" in drawn["tenants"]
    assert ">120 MiB<" in drawn["memory"]
    assert "minutes under full load" in drawn["memory"]


def test_a_plot_of_a_busy_machine_says_so() -> None:
    """Its curves are those of whatever else ran there."""
    busy = Sweep("connections", [Point(1, CASE, OURS, replace(CELL, others_busy=0.4)), Point(9, CASE, OURS)])
    words = "Something else used up to 40% of a core"

    assert words in dict(plots(replace(SCALING, sweeps=[busy]), None))["connections"]
    assert words not in dict(plots(SCALING, None))["connections"]


def test_refusals_are_on_the_account_of_the_events_that_were_taken() -> None:
    """Else a server that refuses nearly all would have the cheapest events."""
    point = Point(1000, CASE, REFUSING)

    # Of 20 answers of 500 us each, 10 took 5 events.
    assert 200.0 == pytest.approx(cpu_us_per_event(point, REFUSING))
    assert 180.0 == pytest.approx(cpu_us_per_event(point, OURS))
    assert (0.5, 0.0) == (refused_part(REFUSING), refused_part(OURS))


def test_the_tables_hold_what_the_plots_show() -> None:
    """A curve can't be quoted."""
    text = render(SCALING)

    for sweep in SWEEPS:
        assert f"### By {sweep.what}" in text
    assert "| 10,000 |" in text
    assert "50.0%" in text
    assert "The reference broke connections off at 1,000 connections." in text
    assert "**the load shares**" in text
    assert "None lost, none twice." in text
