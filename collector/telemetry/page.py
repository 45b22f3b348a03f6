"""
The page that Prometheus reads: a merged snapshot, and the ledger.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from itertools import accumulate
from typing import TYPE_CHECKING

from collector.telemetry.catalogue import METRICS, Kind, Labels, Metric
from collector.telemetry.metrics import MICRO, Snapshot

if TYPE_CHECKING:
    from prometheus_client.metrics_core import Metric as Family

#: As prometheus_client's CONTENT_TYPE_PLAIN_0_0_4.
CONTENT_TYPE = "text/plain; version=0.0.4; charset=utf-8"

#: A gauge or counter with its series.
Numbers = tuple[Metric, Sequence[tuple[Labels, int | float]]]

# What no worker counts, and is on the page alone.
_IGNORED = Metric(
    "collector_metrics_ignored",
    Kind.GAUGE_SUM,
    "Metrics left out of this page, for they are of workers with another version of the code.",
)
_LEDGER_EVENTS = Metric(
    "collector_ledger_events",
    Kind.GAUGE_SUM,
    "Events of the ledger by what became of them.",
    ("tenant", "state", "reason"),
)
_LEDGER_BALANCED = Metric(
    "collector_ledger_balanced",
    Kind.GAUGE_SUM,
    "1 if accepted is the sum of what became of it, pending included, for every tenant, else 0.",
)


class _Page:
    """What prometheus_client wants to collect from."""

    def __init__(self, families: list[Family]) -> None:
        self._families = families

    def collect(self) -> list[Family]:
        return self._families


def render(merged: Snapshot, extra: Iterable[Numbers] = ()) -> bytes:
    """Render the page (`CONTENT_TYPE`): a merged snapshot, then numbers that come from elsewhere."""
    # 20 ms of a start, with the server of HTTP that it brings; a worker is asked for its metrics later, if at all.
    from prometheus_client import generate_latest  # noqa: PLC0415 -- see above
    from prometheus_client.metrics_core import (  # noqa: PLC0415 -- as above
        CounterMetricFamily,
        GaugeMetricFamily,
        HistogramMetricFamily,
    )
    from prometheus_client.utils import floatToGoString  # noqa: PLC0415 -- as above

    def numbers(metric: Metric, series: Sequence[tuple[Labels, int | float]]) -> Family:
        make = CounterMetricFamily if metric.kind is Kind.COUNTER else GaugeMetricFamily
        family = make(metric.name, metric.help, labels=metric.series_labels)
        for labels, value in series:
            family.add_metric(labels, value)
        return family

    def histogram(metric: Metric, series: Sequence[tuple[Labels, list[int]]]) -> Family:
        family = HistogramMetricFamily(metric.name, metric.help, labels=metric.series_labels)
        bounds = [*map(floatToGoString, metric.bounds), "+Inf"]
        for labels, cells in series:
            counts = accumulate(cells[:-1])
            family.add_metric(labels, list(zip(bounds, counts, strict=True)), sum_value=cells[-1] / MICRO)
        return family

    families = [numbers(METRICS[name], series) for name, series in merged.counters.items()]
    families += [numbers(METRICS[name], series) for name, series in merged.gauges.items()]
    families += [histogram(METRICS[name], one.series) for name, one in merged.histograms.items()]
    families += [numbers(_IGNORED, [((), merged.ignored)]), *(numbers(*one) for one in extra)]
    names = [family.name for family in families]
    if len(set(names)) != len(names):
        raise AssertionError(f"a metric is on the page twice: {sorted(names)}")
    return generate_latest(_Page(families))


def ledger(totals: Mapping[str, Mapping[str, int]]) -> list[Numbers]:
    """
    Make numbers of the ledger: by tenant, a number for `accepted`, `pending` and each `outcome.Fate.name`.

    They are gauges, for `pending` falls. A loss that a tenant never had has no line: there may be many tenants.
    """
    events: list[tuple[Labels, int]] = []
    for tenant_id, row in sorted(totals.items()):
        for column, count in row.items():
            state, _, reason = column.partition(":")
            if count or not reason:
                events.append(((tenant_id, state, reason), count))
    balanced = all(2 * row.get("accepted", 0) == sum(row.values()) for row in totals.values())
    return [(_LEDGER_EVENTS, events), (_LEDGER_BALANCED, [((), int(balanced))])]
