"""
What a metric and a signal are.
"""

from __future__ import annotations

from enum import StrEnum

import msgspec

Labels = tuple[str, ...]


class Kind(StrEnum):
    """What a metric is, and of a gauge also how the values of several workers become one."""

    COUNTER = "counter"
    HISTOGRAM = "histogram"
    GAUGE_SUM = "gauge, summed over workers"
    GAUGE_MAX = "gauge, the highest of all workers"
    GAUGE_EACH = "gauge of each worker, labelled with it"


class Metric(msgspec.Struct, frozen=True):
    """One declared metric. The unit is in its name; `bounds` are the upper bounds of a histogram's buckets."""

    name: str
    kind: Kind
    help: str
    labels: Labels = ()
    bounds: tuple[float, ...] = ()

    @property
    def series_labels(self) -> Labels:
        """Name the labels that its series carry in a snapshot and on the page."""
        return (*self.labels, "worker") if self.kind is Kind.GAUGE_EACH else self.labels


#: The fields of a line that stands for several occurrences.
SPAN = ("count", "first", "last")


class Signal(msgspec.Struct, frozen=True):
    """One declared signal. `name` is the line's `event`, and with `_` the method's name; no level, no line."""

    name: str
    levels: tuple[str, ...]
    metrics: tuple[str, ...]
    fields: tuple[str, ...]
    help: str

    @property
    def method(self) -> str:
        """Name the method of `Signals`."""
        return self.name.replace(".", "_")

    @property
    def aggregated(self) -> bool:
        """Tell whether its lines stand for several occurrences: `count` of them, the `first` and the `last` time."""
        return self.fields[-3:] == SPAN

    @property
    def is_report(self) -> bool:
        """Tell whether it only says, from time to time, what its metrics have come to, and counts nothing itself."""
        return self.name.endswith(".report")
