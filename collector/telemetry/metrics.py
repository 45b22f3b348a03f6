"""
Metrics of one worker as plain numbers, and their sum over workers.

A worker counts in a `Metrics`; the runtime writes its `snapshot()` beside the spool once a second; whoever is asked
for `/metrics` reads all snapshots, `merge`s them and renders the sum as a `page`. Every metric is declared in
`catalogue`.
"""

from __future__ import annotations

import os
from bisect import bisect_left
from collections.abc import Callable, Iterable
from math import isfinite
from pathlib import Path
from typing import TypeVar

import msgspec

from collector.telemetry.catalogue import METRICS, Kind, Labels

#: Of the shape of `Snapshot`. A worker counts what it finds in another shape as ignored.
SCHEMA = 1
#: Series that one metric may have; more are counted together as `OVERFLOW`. A thousand tenants with ten each.
MAX_SERIES = 10_000
#: The label value of what is counted together. No tenant or route may have such a name.
OVERFLOW = "(overflow)"
#: Histograms add up in whole millionths, so that a sum is exact and the same in any order.
MICRO = 1_000_000

Series = TypeVar("Series")


_C, _H, _SUM, _EACH = Kind.COUNTER, Kind.HISTOGRAM, Kind.GAUGE_SUM, Kind.GAUGE_EACH


class Histogram(msgspec.Struct, frozen=True):
    """Series of a histogram: a count for each bucket, one for what is above all bounds, the sum in millionths."""

    bounds: tuple[float, ...]
    series: list[tuple[Labels, list[int]]]


class Snapshot(msgspec.Struct, frozen=True):
    """The metrics of one worker at one moment, or of several merged; `ignored` counts metrics unknown to who merged."""

    schema: int = SCHEMA
    counters: dict[str, list[tuple[Labels, int]]] = msgspec.field(default_factory=dict)
    gauges: dict[str, list[tuple[Labels, int | float]]] = msgspec.field(default_factory=dict)
    histograms: dict[str, Histogram] = msgspec.field(default_factory=dict)
    ignored: int = 0


class Metrics:
    """
    What one worker counts. `labels` are values in the declared order.

    A name that is not declared, of another kind, or with other labels is a mistake of the caller's: AssertionError.
    """

    def __init__(self, *, worker: str = "") -> None:
        self._worker = worker
        kinds = {name: metric.kind for name, metric in METRICS.items()}
        self._counters: dict[str, dict[Labels, int]] = {name: {} for name, kind in kinds.items() if kind is _C}
        self._histograms: dict[str, dict[Labels, list[int]]] = {n: {} for n, kind in kinds.items() if kind is _H}
        self._gauges: dict[str, dict[Labels, int | float]] = {
            name: {} for name, kind in kinds.items() if kind not in (_C, _H)
        }
        self._uploads = self._counters["collector_uploads_total"]
        self._upload_events = self._counters["collector_upload_events_total"]
        self._upload_bytes = self._counters["collector_upload_bytes_total"]
        for name, counters in self._counters.items():
            if not METRICS[name].labels:
                counters[()] = 0

    def inc(self, name: str, labels: Labels = (), n: int = 1) -> None:
        """Add `n`, which is not negative, to a counter; 0.3 µs, for it is on the way of every upload."""
        if n < 0:
            raise AssertionError(f"{name} can't count down by {n}")
        try:
            self._counters[name][labels] += n
        except KeyError:
            series, labels = self._place(self._counters, name, labels)
            series[labels] = series.get(labels, 0) + n

    def add_upload(self, labels: Labels, events: int, size: int) -> None:
        """Count an upload that was taken, of a tenant and a protocol: three counters in one step."""
        if labels in self._upload_bytes:
            self._uploads[labels] += 1
            self._upload_events[labels] += events
            self._upload_bytes[labels] += size
        else:
            self.inc("collector_uploads_total", labels)
            self.inc("collector_upload_events_total", labels, events)
            self.inc("collector_upload_bytes_total", labels, size)

    def observe(self, name: str, labels: Labels, value: float) -> None:
        """Add a finite value, in the unit of the name, to a histogram."""
        micros = round(value * MICRO)
        try:
            cells = self._histograms[name][labels]
        except KeyError:
            series, labels = self._place(self._histograms, name, labels)
            cells = series.setdefault(labels, [0] * (len(METRICS[name].bounds) + 2))
        cells[bisect_left(METRICS[name].bounds, value)] += 1
        cells[-1] += micros

    def set(self, name: str, value: int | float, labels: Labels = ()) -> None:
        """Set a gauge to a finite value."""
        if not isfinite(value):
            raise AssertionError(f"{name} can't be {value}")
        series, labels = self._place(self._gauges, name, labels)
        series[labels] = value

    def value(self, name: str, labels: Labels = ()) -> int | float:
        """Return a counter or gauge as it stands here, 0 if it was never touched, or a histogram's count."""
        if METRICS[name].kind is _H:
            return sum(self._histograms[name].get(labels, [0])[:-1])
        return (self._counters.get(name) or self._gauges.get(name, {})).get(labels, 0)

    def _place(
        self, kind: dict[str, dict[Labels, Series]], name: str, labels: Labels
    ) -> tuple[dict[Labels, Series], Labels]:
        """Return where a series lies and under which labels, its own or the overflow's."""
        metric = METRICS.get(name)
        if metric is None:
            raise AssertionError(f"{name} is not declared in METRICS")
        series = kind.get(name)
        if series is None:
            raise AssertionError(f"{name} is a {metric.kind.value}")
        if labels in series:
            return series, labels
        if not isinstance(labels, tuple) or len(labels) != len(metric.labels):
            raise AssertionError(f"{name} has the labels {metric.labels}, not {labels!r}")
        if not all(isinstance(label, str) for label in labels):
            raise AssertionError(f"{name} has labels that are not text: {labels!r}")
        if len(series) >= MAX_SERIES or not all(map(_encodable, labels)):
            self.inc("collector_metric_series_folded_total")
            return series, (OVERFLOW,) * len(labels)
        return series, labels

    def snapshot(self) -> Snapshot:
        """Copy everything."""
        worker = self._worker
        gauges = {
            name: [
                ((*labels, worker) if METRICS[name].kind is _EACH else labels, n) for labels, n in list(series.items())
            ]
            for name, series in self._gauges.items()
            if series
        }
        return Snapshot(
            counters={name: list(series.items()) for name, series in self._counters.items() if series},
            gauges=gauges,
            histograms={
                name: Histogram(METRICS[name].bounds, [(labels, cells[:]) for labels, cells in list(series.items())])
                for name, series in self._histograms.items()
                if series
            },
        )


def _encodable(label: str) -> bool:
    """Tell whether UTF-8 can hold it: one lone surrogate would cost the whole page."""
    return label.isascii() or all(not "\ud800" <= char <= "\udfff" for char in label)


def resident_bytes(statm: Path = Path("/proc/self/statm")) -> int:
    """Return this process's resident memory as the kernel tells it; raises OSError."""
    return int(statm.read_bytes().split()[1]) * os.sysconf("SC_PAGE_SIZE")


def encode(snapshot: Snapshot) -> bytes:
    """Render as JSON."""
    return msgspec.json.encode(snapshot)


def decode(data: bytes) -> Snapshot:
    """Read what `encode` made; in another schema, only that something was there. Raises msgspec.DecodeError."""
    if msgspec.json.decode(data, type=_Version).schema != SCHEMA:
        return Snapshot(ignored=1)
    return msgspec.json.decode(data, type=Snapshot)


class _Version(msgspec.Struct):
    schema: int


def without_gauges(snapshot: Snapshot) -> Snapshot:
    """Keep what remains true of a worker that is dead."""
    return msgspec.structs.replace(snapshot, gauges={})


def merge(snapshots: Iterable[Snapshot]) -> Snapshot:
    """
    Make one of many, the same in any order and grouping.

    Counters and histograms add up; gauges do as declared. What another version of the code counted, and this one
    does not know or knows in another shape, is left out and counted in `ignored`, metric by metric.
    """
    counters: dict[str, dict[Labels, int]] = {}
    gauges: dict[str, dict[Labels, int | float]] = {}
    histograms: dict[str, dict[Labels, list[int]]] = {}
    ignored = 0
    for snapshot in snapshots:
        ignored += snapshot.ignored
        if snapshot.schema != SCHEMA:
            ignored += 1
            continue
        for name, counts in snapshot.counters.items():
            if _fits(name, counts, _C):
                _fold(counters.setdefault(name, {}), counts, lambda a, b: a + b)
            else:
                ignored += 1
        for name, values in snapshot.gauges.items():
            if _fits(name, values, _SUM, Kind.GAUGE_MAX, _EACH):
                _fold(gauges.setdefault(name, {}), values, (lambda a, b: a + b) if METRICS[name].kind is _SUM else max)
            else:
                ignored += 1
        for name, histogram in snapshot.histograms.items():
            width = len(histogram.bounds) + 2
            known = _fits(name, histogram.series, _H) and METRICS[name].bounds == histogram.bounds
            if known and all(len(cells) == width for _, cells in histogram.series):
                _fold(histograms.setdefault(name, {}), histogram.series, lambda a, b: list(map(int.__add__, a, b)))
            else:
                ignored += 1
    return Snapshot(
        counters={name: sorted(series.items()) for name, series in sorted(counters.items())},
        gauges={name: sorted(series.items()) for name, series in sorted(gauges.items())},
        histograms={
            name: Histogram(METRICS[name].bounds, sorted(series.items())) for name, series in sorted(histograms.items())
        },
        ignored=ignored,
    )


def _fits(name: str, series: list[tuple[Labels, Series]], *kinds: Kind) -> bool:
    metric = METRICS.get(name)
    if metric is None or metric.kind not in kinds:
        return False
    return all(len(labels) == len(metric.series_labels) for labels, _ in series)


def _fold(
    into: dict[Labels, Series], series: list[tuple[Labels, Series]], join: Callable[[Series, Series], Series]
) -> None:
    for labels, value in series:
        into[labels] = join(into[labels], value) if labels in into else value
