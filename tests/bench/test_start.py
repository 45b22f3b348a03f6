"""The part of the benchmark about starts: what is added up, and what is said of it."""

from __future__ import annotations

from bench.start import Package, Start, packages, render

SAID = """\
import time: self [us] | cumulative | imported package
import time:       100 |        100 |   zipimport
import time:      1000 |       1100 | site
---
import time:      2000 |       2000 |     flask.json
import time:       500 |       2500 |   flask
import time:       700 |        700 |   json.decoder
import time:        40 |        740 | json
{"event":"a line of somebody else's"}
import time:      4000 |       9000 | collector.bootstrap
"""


def test_what_modules_cost_is_added_up_by_package() -> None:
    """A package is what somebody can decide to leave out; cumulative times would count a module once for each floor."""
    assert [
        Package("collector", 1, 4.0), Package("flask", 2, 2.5), Package("(Python's own)", 2, 0.74),
    ] == packages(SAID.splitlines())  # fmt: skip


def test_without_a_mark_everything_is_added_up() -> None:
    """A process that nobody forks has loaded all of it itself."""
    found = packages([line for line in SAID.splitlines() if line != "---"])

    assert ("(Python's own)", 4, 1.84) == (found[2].name, found[2].modules, found[2].cost_ms)


def test_the_table_shows_the_best_the_median_and_the_worst_start() -> None:
    """On a machine that others use the best says what the code can do, and the median what the machine did."""
    starts = [Start(0.9, 0.5), Start(0.5, 0.6), Start(0.6, 0.4)]

    page = render({1: starts}, {})

    assert "| 1 | 3 | **0.50** | 0.60 | 0.90 | 0.40 | 0.50 |" in page
    assert "No start" not in page


def test_a_start_that_never_keeps_the_promise_is_told() -> None:
    """A reader of a table overlooks what a sentence says."""
    page = render({1: [Start(0.5, 0.5)], 2: [Start(1.2, 1.0), Start(1.1, 1.0)]}, {})

    assert "No start with 2 workers was ready within 1 s" in page


def test_what_is_not_shown_of_the_packages_is_in_their_sum() -> None:
    """A list that is cut short must not look cheaper than what it lists."""
    loaded = [Package(f"p{number}", 2, 100.0 - number) for number in range(15)]

    page = render({1: [Start(0.5, 0.5)]}, {"worker": loaded})

    assert "| 3 more | 6 | 261.0 |" in page
    assert "| **all** | 30 | 1395.0 |" in page
