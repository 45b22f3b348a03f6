"""The table and the picture of the profile, from numbers that are made up."""

from __future__ import annotations

from xml.etree import ElementTree as ET

import pytest
from msgspec.structs import replace

from bench.cell import Plan
from bench.proc import Cores
from bench.profile_plot import draw
from bench.profile_table import render
from bench.profiling import CASES, Profile, Report, Row, fold
from bench.stages import STAGES, Stack
from collector.drawing.svg import WIDTH
from tests.bench.test_run import ACCOUNT, CELL

NAMESPACE = "{http://www.w3.org/2000/svg}"
OURS = Profile(
    replace(CELL, cpu_us=180.0, account=ACCOUNT, others_busy=0.0),
    {stage.name: 10.0 for stage in STAGES},
    900,
    replace(CELL, cpu_us=198.0, account=ACCOUNT),
)
_FLOOR_US = {stage.name: 18.0 if stage.short in {"read", "send"} else 0.0 for stage in STAGES}
FLOOR = Profile(replace(CELL, cpu_us=36.0, others_busy=0.0), _FLOOR_US, 800, CELL)
ROWS = [Row(case, OURS, FLOOR) for case in CASES]
REPORT = Report("a machine", Cores(0, 1), Plan(CASES, 10.0, 0.5, 1), ROWS)


def test_the_picture_has_every_stage_and_every_case() -> None:
    """A stage that is left out is time that nobody looks for."""
    root = ET.fromstring(draw(REPORT))
    words = [one.text for one in root.iter(f"{NAMESPACE}text")]
    told = [(one.text or "").partition(":")[0] for one in root.iter(f"{NAMESPACE}title")]

    assert {stage.name for stage in STAGES} <= set(words)
    assert {"1 event, plain", "5 events, plain", "100 events, plain", "100 events, gzip"} <= set(words)
    # Each bar has its stages, the floor's two as well.
    assert len(CASES) * (len(STAGES) + 2) == len(told)


def test_a_bar_is_as_wide_as_its_stages_together() -> None:
    """Half as wide is read as half the time."""
    root = ET.fromstring(draw(REPORT))
    bars = [one for one in root.iter(f"{NAMESPACE}rect") if one.find(f"{NAMESPACE}title") is not None]
    widths: dict[str, float] = {}
    for bar in bars:
        widths[bar.get("y", "")] = widths.get(bar.get("y", ""), 0.0) + float(bar.get("width", ""))

    assert 2 * len(CASES) == len(widths)
    ours, theirs = list(widths.values())[:2]
    assert 36.0 / 180.0 == pytest.approx(theirs / ours, abs=0.01)
    assert all(float(bar.get("x", "")) + float(bar.get("width", "")) < WIDTH for bar in bars)


def test_a_label_is_written_only_where_it_has_room() -> None:
    """A name that lies over its neighbour's hides two."""
    us = {stage.name: 0.5 for stage in STAGES}
    us["send"] = 180.0 - 0.5 * (len(STAGES) - 1)
    narrow = replace(OURS, us=us)
    root = ET.fromstring(draw(replace(REPORT, rows=[Row(CASES[0], narrow, FLOOR)])))
    words = [one.text for one in root.iter(f"{NAMESPACE}text")]

    assert "quota" not in words
    assert "send" in words


def test_the_same_numbers_draw_the_same_picture() -> None:
    """A diff of the pictures is a diff of the numbers."""
    assert draw(REPORT) == draw(REPORT)


def test_the_table_has_every_stage_in_us_and_in_parts_and_the_floor_beside() -> None:
    """It is what the picture is checked against."""
    lines = render(REPORT).splitlines()

    assert f"| send | {'10.0 (6%) | 18.0 | ' * len(CASES)}".rstrip() in lines
    assert f"| **all** | {'180 | 36 | ' * len(CASES)}".rstrip() in lines
    assert {stage.name for stage in STAGES} <= {line.split(" | ")[0].removeprefix("| ") for line in lines}


def test_the_table_warns_of_what_spoils_it() -> None:
    """Nobody remembers later what else ran, and a small part of a cost is easily taken for a large one."""
    text = render(REPORT)
    busy = replace(OURS, cell=replace(OURS.cell, others_busy=0.4))

    assert "waking it" in text
    assert "+10%" in text
    assert "Something else" not in text
    assert "Something else used up to 40%" in render(replace(REPORT, rows=[Row(CASES[0], busy, FLOOR)]))


def test_events_that_were_lost_are_told() -> None:
    """A profile of a server that loses events is one of another server."""
    lost = replace(ACCOUNT, acknowledged=ACCOUNT.acknowledged + 5)
    bad = replace(OURS, sampled=replace(OURS.sampled, account=lost))

    assert [] == REPORT.problems
    assert replace(REPORT, rows=[Row(CASES[0], bad, FLOOR)]).problems


def test_stacks_are_folded_under_the_case_that_they_are_of() -> None:
    """One file makes one flame graph, in which the cases stand side by side."""
    assert "floor, 1 event;a (a.py:1);b (b.py:2) 3\n" == fold(
        "floor, 1 event", Stack(1, ("a (a.py:1)", "b (b.py:2)"), 3)
    )
