"""The figures of the watch, on fewer weeks than the table in the documentation has: the same seeds, the same bounds."""

from __future__ import annotations

import pytest

from bench.watch import NAMED, NUISANCES, Seen, alarms_of, row_of_change, row_of_quiet, seen_of, traffic_of
from collector.control.watch.weeks import Change, Kind, make

SEEDS = range(8)


@pytest.mark.parametrize(
    ("kind", "least_seen", "median_min"),
    [
        (Kind.ZERO, 8, 15),
        (Kind.STEP_DOWN, 6, 75),
        (Kind.STEP_UP, 7, 65),
        (Kind.LEAK, 8, 125),
        (Kind.LUMPS, 7, 60),
    ],
)
def test_what_is_planted_is_seen_and_in_time(kind: Kind, least_seen: int, median_min: int) -> None:
    """A bound that is loosened by mistake makes a watch that is quiet and blind."""
    seen = [seen_of(kind, seed) for seed in SEEDS]
    delays = sorted(one.delay for one in seen if one.delay is not None)

    assert len(delays) >= least_seen
    assert delays[len(delays) // 2] <= median_min
    assert sum(one.is_named for one in seen) >= least_seen - 1


@pytest.mark.parametrize(("number", "most"), [(0, 4), (3, 5)])
def test_weeks_without_a_change_are_quiet(number: int, most: int) -> None:
    """A bound that is tightened by mistake makes a watch that is switched off."""
    alarms = [alarms_of(NUISANCES[number], seed) for seed in range(4)]

    assert sum(map(len, alarms)) <= most


def test_the_same_seed_makes_the_same_weeks_and_another_seed_others() -> None:
    """The table has to come out the same on another machine."""
    first, again, other = (make(traffic_of(seed, days=1), Change()) for seed in (1, 1, 2))

    assert first == again
    assert first != other


def test_each_change_that_can_be_planted_is_measured() -> None:
    """A kind that is left out of the table has no figures, and nobody misses them."""
    assert set(Kind) - {Kind.CLEAN} == set(NAMED)


def test_a_row_has_what_was_seen_and_when() -> None:
    """A change that was not seen has no delay, and is no zero."""
    seen = [Seen(10, True), Seen(30, False), Seen(None, False), Seen(20, True)]

    assert ("4", "75.0%", "20", "20", "50.0%") == row_of_change(Kind.ZERO, seen)[1:]
    assert ("1", "0.0%", "", "", "0.0%") == row_of_change(Kind.ZERO, [Seen(None, False)])[1:]
    assert ("none", "2", "1.500", "50.0%", "2 a, 1 b") == row_of_quiet(NUISANCES[0], [[], ["a", "b", "a"]])
