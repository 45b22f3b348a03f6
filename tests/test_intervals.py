"""Half-open ranges against the plainest model there is: a set of numbers."""

from __future__ import annotations

from itertools import pairwise

from hypothesis import given
from hypothesis import strategies as st

from collector.intervals import Intervals

RANGES = st.lists(st.tuples(st.integers(0, 60), st.integers(0, 60)), max_size=30)


@given(ranges=RANGES, first=st.integers(0, 60), last=st.integers(0, 60))
def test_intervals_are_a_set_of_whole_numbers(ranges: list[tuple[int, int]], first: int, last: int) -> None:
    """What is settled twice must count once, in whatever order and overlap it came."""
    intervals, model = Intervals(), set[int]()
    for a, b in ranges:
        new = intervals.add(a, b)
        assert len(set(range(a, b)) - model) == new
        model |= set(range(a, b))

    assert model == {n for a, b in intervals for n in range(a, b)}
    assert len(model) == len(intervals)
    assert set(range(first, last)) - model == {n for a, b in intervals.gaps(first, last) for n in range(a, b)}


@given(ranges=RANGES)
def test_ranges_are_in_order_and_never_touch(ranges: list[tuple[int, int]]) -> None:
    """Ranges that touch are one range, or a long outage would grow the list without end."""
    intervals = Intervals()
    for a, b in ranges:
        intervals.add(a, b)
    stored = list(intervals)

    assert all(a < b for a, b in stored)
    assert all(before[1] < after[0] for before, after in pairwise(stored))
