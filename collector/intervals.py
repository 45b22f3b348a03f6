"""
Half-open ranges of whole numbers, merged as they are added: which events of a partition are settled.
"""

from __future__ import annotations

from bisect import bisect_left
from collections.abc import Iterator


class Intervals:
    """A set of whole numbers that is stored as disjoint ranges [first, last) in order."""

    __slots__ = ("_ranges",)

    def __init__(self) -> None:
        self._ranges: list[tuple[int, int]] = []

    def __iter__(self) -> Iterator[tuple[int, int]]:
        return iter(self._ranges)

    def __len__(self) -> int:
        return sum(last - first for first, last in self._ranges)

    def add(self, first: int, last: int) -> int:
        """Add [first, last) and return how many of its numbers are new."""
        if first >= last:
            return 0
        # In order and without a gap, as nearly always.
        ranges = self._ranges
        if not ranges or ranges[-1][1] <= first:
            begin = ranges.pop()[0] if ranges and ranges[-1][1] == first else first
            ranges.append((begin, last))
            return last - first
        new = sum(b - a for a, b in self.gaps(first, last))
        # Every range that overlaps or touches [first, last) is merged into it.
        start = bisect_left(self._ranges, first, key=lambda one: one[1])
        stop = start
        while stop < len(self._ranges) and self._ranges[stop][0] <= last:
            first = min(first, self._ranges[stop][0])
            last = max(last, self._ranges[stop][1])
            stop += 1
        self._ranges[start:stop] = [(first, last)]
        return new

    def gaps(self, first: int, last: int) -> list[tuple[int, int]]:
        """Return the ranges of [first, last) that are not in the set."""
        missing = []
        at = first
        start = bisect_left(self._ranges, first + 1, key=lambda one: one[1])
        for a, b in self._ranges[start:]:
            if a >= last:
                break
            if a > at:
                missing.append((at, a))
            at = max(at, b)
        if at < last:
            missing.append((at, last))
        return missing
