"""Metrics count in one worker, add up over all, and come out as Prometheus reads them."""

from __future__ import annotations

import json
import random
import re
import threading
from collections.abc import Callable
from pathlib import Path

import msgspec
import pytest
from hypothesis import given
from hypothesis import strategies as st
from prometheus_client.exposition import CONTENT_TYPE_PLAIN_0_0_4
from prometheus_client.parser import text_string_to_metric_families

from collector.outcome import FATES, Reason
from collector.telemetry import metrics as module
from collector.telemetry.catalogue import METRICS, Kind, Metric
from collector.telemetry.metrics import (
    OVERFLOW,
    SCHEMA,
    Histogram,
    Metrics,
    Snapshot,
    decode,
    encode,
    merge,
    resident_bytes,
    without_gauges,
)
from collector.telemetry.page import CONTENT_TYPE, ledger, render

UPLOADS = "collector_uploads_total"
REQUESTS = "collector_request_seconds"
ACME = ("acme", "native")

Samples = dict[tuple[str, frozenset[tuple[str, str]]], float]


def samples(page: bytes) -> Samples:
    """Parse a page as Prometheus would: (name, labels) to value."""
    return {
        (sample.name, frozenset(sample.labels.items())): sample.value
        for family in text_string_to_metric_families(page.decode())
        for sample in family.samples
    }


def at(found: Samples, name: str, **labels: str) -> float:
    return found[name, frozenset(labels.items())]


# -- the table --------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("metric", METRICS.values(), ids=lambda metric: metric.name)
def test_every_metric_is_named_and_described_as_prometheus_wants_it(metric: Metric) -> None:
    """Names can't be changed once a dashboard has them."""
    assert re.fullmatch("collector_[a-z]+(_[a-z]+)*", metric.name)
    assert (metric.kind is Kind.COUNTER) == metric.name.endswith("_total")
    assert re.fullmatch(r"[A-Z].*\.", metric.help)
    assert len(set(metric.series_labels)) == len(metric.series_labels)
    assert all(re.fullmatch("[a-z]+", label) and label != "le" for label in metric.series_labels)
    assert (metric.kind is Kind.HISTOGRAM) == bool(metric.bounds)
    assert sorted(set(metric.bounds)) == list(metric.bounds)
    if metric.kind is Kind.HISTOGRAM:
        assert metric.name.endswith(("_seconds", "_bytes"))


# -- one worker -------------------------------------------------------------------------------------------------


def test_a_counter_starts_at_nothing_and_adds_up_for_each_set_of_labels() -> None:
    """Two tenants in one number are no metric."""
    metrics = Metrics()

    metrics.inc(UPLOADS, ACME)
    metrics.inc(UPLOADS, ACME, 4)
    metrics.inc(UPLOADS, ("acme", "clevertap"), 2)

    assert 5 == metrics.value(UPLOADS, ACME)
    assert 2 == metrics.value(UPLOADS, ("acme", "clevertap"))
    assert 0 == metrics.value(UPLOADS, ("other", "native"))


def test_a_counter_without_labels_is_on_the_page_before_anything_happens() -> None:
    """An alarm on the first corrupt frame needs the 0 before it."""
    found = samples(render(Metrics().snapshot()))

    assert 0 == at(found, "collector_frames_corrupt_total")
    assert 0 == at(found, "collector_log_lines_lost_total")


def test_a_gauge_holds_what_was_set_last() -> None:
    """It is a level, not a sum."""
    metrics = Metrics()

    metrics.set("collector_spool_bytes", 10)
    metrics.set("collector_spool_bytes", 7)

    assert 7 == metrics.value("collector_spool_bytes")


def test_an_observation_falls_into_the_bucket_whose_bound_it_does_not_pass() -> None:
    """Prometheus buckets are `le`: a value on a bound is within it."""
    metrics = Metrics()
    for seconds in (0.001, 0.0011, 0.5, 20.0, 20.1):
        metrics.observe(REQUESTS, ("native",), seconds)

    found = samples(render(metrics.snapshot()))

    assert 5 == metrics.value(REQUESTS, ("native",))
    buckets = {le: at(found, f"{REQUESTS}_bucket", protocol="native", le=le) for le in ("0.0005", "0.001", "0.0025")}
    assert {"0.0005": 0, "0.001": 1, "0.0025": 2} == buckets
    assert 4 == at(found, f"{REQUESTS}_bucket", protocol="native", le="20.0")
    assert 5 == at(found, f"{REQUESTS}_bucket", protocol="native", le="+Inf")
    assert 5 == at(found, f"{REQUESTS}_count", protocol="native")
    assert 40.6021 == at(found, f"{REQUESTS}_sum", protocol="native")


@pytest.mark.parametrize(
    ("act", "says"),
    [
        (lambda m: m.inc("collector_nothing_total"), "not declared"),
        (lambda m: m.set("collector_nothing", 1), "not declared"),
        (lambda m: m.observe("collector_nothing_seconds", (), 1), "not declared"),
        (lambda m: m.inc("collector_spool_bytes"), "is a gauge"),
        (lambda m: m.set(UPLOADS, 1, ACME), "is a counter"),
        (lambda m: m.observe(UPLOADS, ACME, 1), "is a counter"),
        (lambda m: m.inc(REQUESTS, ("native",)), "is a histogram"),
        (lambda m: m.inc(UPLOADS), "has the labels"),
        (lambda m: m.inc(UPLOADS, ("acme",)), "has the labels"),
        (lambda m: m.inc(UPLOADS, (*ACME, "more")), "has the labels"),
        (lambda m: m.inc(UPLOADS, "ab"), "has the labels"),
        (lambda m: m.set("collector_spool_bytes", 1, ("acme",)), "has the labels"),
        (lambda m: m.inc(UPLOADS, (None, "native")), "not text"),
        (lambda m: m.inc(UPLOADS, ACME, -1), "count down"),
        (lambda m: m.set("collector_spool_bytes", float("nan")), "can't be nan"),
        (lambda m: m.set("collector_spool_bytes", float("inf")), "can't be inf"),
    ],
)
def test_a_mistake_in_a_call_raises_at_the_call(act: Callable[[Metrics], None], says: str) -> None:
    """A metric that is not there is missed in the night that it was for; a test misses it by day."""
    metrics = Metrics()

    with pytest.raises(AssertionError, match=says):
        act(metrics)

    assert Metrics().snapshot() == metrics.snapshot()


@pytest.mark.parametrize("value", [float("nan"), float("inf")])
def test_an_observation_that_is_no_number_leaves_the_histogram_as_it_was(value: float) -> None:
    """Count and sum must not part."""
    metrics = Metrics()

    with pytest.raises((ValueError, OverflowError)):
        metrics.observe(REQUESTS, ("native",), value)

    assert 0 == metrics.value(REQUESTS, ("native",))


def test_series_beyond_the_bound_are_counted_together_and_nothing_is_lost(monkeypatch: pytest.MonkeyPatch) -> None:
    """Memory has a bound whatever labels come, and the sum stays right."""
    monkeypatch.setattr(module, "MAX_SERIES", 3)
    metrics = Metrics()

    for n in range(5):
        metrics.inc(UPLOADS, (f"tenant{n}", "native"), 10)
        metrics.observe(REQUESTS, (f"protocol{n}",), 1.0)
    metrics.inc(UPLOADS, ("tenant0", "native"), 1)

    assert 20 == metrics.value(UPLOADS, (OVERFLOW, OVERFLOW))
    assert 11 == metrics.value(UPLOADS, ("tenant0", "native"))
    assert 2 == metrics.value(REQUESTS, (OVERFLOW,))
    assert 4 == metrics.value("collector_metric_series_folded_total")
    assert re.fullmatch("[A-Za-z0-9_-]{1,64}", OVERFLOW) is None


def test_a_label_that_utf8_cannot_hold_does_not_cost_the_page() -> None:
    """One lone surrogate would make every later scrape fail."""
    metrics = Metrics()

    metrics.inc(UPLOADS, ("\ud800", "native"))

    found = samples(render(merge([decode(encode(metrics.snapshot()))])))
    assert 1 == at(found, UPLOADS, tenant=OVERFLOW, protocol=OVERFLOW)


def test_threads_that_count_at_once_lose_nothing() -> None:
    """Sinks run on threads and count there."""
    metrics = Metrics()

    def count() -> None:
        for _ in range(20_000):
            metrics.inc(UPLOADS, ("acme", Reason.MALFORMED))

    threads = [threading.Thread(target=count) for _ in range(4)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()

    assert 80_000 == metrics.value(UPLOADS, ("acme", "malformed"))


def test_a_snapshot_does_not_move_with_what_is_counted_later() -> None:
    """It is written while others count."""
    metrics = Metrics(worker="w1")
    metrics.inc(UPLOADS, ACME)
    metrics.observe(REQUESTS, ("native",), 1.0)
    snapshot = metrics.snapshot()
    before = encode(snapshot)

    metrics.inc(UPLOADS, ACME)
    metrics.observe(REQUESTS, ("native",), 1.0)
    metrics.set("collector_spool_bytes", 1)

    assert before == encode(snapshot)


def test_resident_memory_is_read_from_the_kernel(tmp_path: Path) -> None:
    """It is the number that the memory limit of the task is held against."""
    statm = tmp_path / "statm"
    statm.write_text("500 25 10 1 0 100 0\n")

    page = resident_bytes(statm) // 25
    assert page in {4096, 16384, 65536}
    assert 5_000_000 < resident_bytes() < 10_000_000_000


# -- many workers -----------------------------------------------------------------------------------------------


def test_counters_and_histograms_add_up_and_gauges_do_as_declared() -> None:
    """A page answered by one worker speaks for all."""
    one, two = Metrics(worker="w1"), Metrics(worker="w2")
    for metrics, n in ((one, 1), (two, 2)):
        metrics.inc(UPLOADS, ACME, n)
        metrics.observe(REQUESTS, ("native",), 0.25 * n)
        metrics.set("collector_spool_bytes", 100 * n)
        metrics.set("collector_tenants", 10 - n)
        metrics.set("collector_worker_resident_memory_bytes", n)

    found = samples(render(merge([one.snapshot(), two.snapshot()])))

    assert 3 == at(found, UPLOADS, tenant="acme", protocol="native")
    assert 2 == at(found, f"{REQUESTS}_count", protocol="native")
    assert 0.75 == at(found, f"{REQUESTS}_sum", protocol="native")
    assert 300 == at(found, "collector_spool_bytes")
    assert 9 == at(found, "collector_tenants")
    assert 1 == at(found, "collector_worker_resident_memory_bytes", worker="w1")
    assert 2 == at(found, "collector_worker_resident_memory_bytes", worker="w2")


def test_the_counts_of_a_dead_worker_remain_and_its_gauges_do_not() -> None:
    """Counters that fall when a worker dies look like a restart; a dead worker's spool would count twice."""
    dead, alive = Metrics(worker="w1"), Metrics(worker="w2")
    for metrics in (dead, alive):
        metrics.inc(UPLOADS, ACME)
        metrics.observe(REQUESTS, ("native",), 1.0)
        metrics.set("collector_spool_bytes", 10)

    merged = merge([without_gauges(dead.snapshot()), alive.snapshot()])

    found = samples(render(merged))
    assert 2 == at(found, UPLOADS, tenant="acme", protocol="native")
    assert 2 == at(found, f"{REQUESTS}_count", protocol="native")
    assert 10 == at(found, "collector_spool_bytes")


def test_what_another_version_counted_is_left_out_and_counted() -> None:
    """During a deploy two versions share a spool; neither may fail on the other, or hide that it did."""
    mine = Metrics()
    mine.inc(UPLOADS, ACME)
    bounds = METRICS[REQUESTS].bounds
    theirs = Snapshot(
        counters={
            UPLOADS: [(("acme", "native", "a new label"), 5)],
            "collector_new_total": [((), 1), ((), 2)],
            "collector_spool_bytes": [((), 3)],
            "collector_frames_corrupt_total": [((), 4)],
        },
        gauges={"collector_new": [((), 1)], "collector_tenants": [((), 6)], UPLOADS: [(ACME, 1)]},
        histograms={
            REQUESTS: Histogram((1.0, 2.0), [(("native",), [0, 0, 0, 0])]),
            "collector_batch_seconds": Histogram(METRICS["collector_batch_seconds"].bounds, [(("r",), [1])]),
            "collector_new_seconds": Histogram(bounds, []),
        },
    )

    merged = merge([mine.snapshot(), decode(encode(theirs))])

    assert 8 == merged.ignored
    found = samples(render(merged))
    assert 8 == at(found, "collector_metrics_ignored")
    assert 1 == at(found, UPLOADS, tenant="acme", protocol="native")
    assert 4 == at(found, "collector_frames_corrupt_total")
    assert 6 == at(found, "collector_tenants")


def test_a_snapshot_of_another_schema_is_ignored_whatever_its_shape() -> None:
    """A later version may write what this one can't read at all."""
    data = json.dumps({"schema": SCHEMA + 1, "counters": ["another", "shape"], "ignored": "x"}).encode()

    assert 1 == merge([decode(data), Snapshot()]).ignored
    assert 1 == merge([Snapshot(schema=SCHEMA + 1, counters={UPLOADS: [(ACME, 1)]})]).ignored


@pytest.mark.parametrize("data", [b"", b"{", b"[]", b"{}", b'{"schema":"1"}', b'{"schema":1,"counters":3}', b"\xff"])
def test_a_file_that_is_no_snapshot_is_told_apart_from_an_empty_one(data: bytes) -> None:
    """Whoever reads a worker's file decides; silence would make its counts vanish from the page."""
    with pytest.raises(msgspec.DecodeError):
        decode(data)


labels = st.text(max_size=6)
actions = st.one_of(
    st.tuples(st.just("inc"), st.just(UPLOADS), st.tuples(labels, labels), st.integers(0, 2**70)),
    st.tuples(st.just("inc"), st.just("collector_frames_corrupt_total"), st.just(()), st.integers(0, 9)),
    st.tuples(st.just("observe"), st.just(REQUESTS), st.tuples(labels), st.floats(0, 1e6)),
    st.tuples(st.just("set"), st.just("collector_spool_bytes"), st.just(()), st.integers(0, 2**50)),
    st.tuples(st.just("set"), st.just("collector_tenants"), st.just(()), st.integers(0, 9) | st.floats(0, 9)),
    st.tuples(st.just("set"), st.just("collector_worker_start_time_seconds"), st.just(()), st.floats(0, 2e9)),
)


@st.composite
def snapshots(draw: st.DrawFn) -> Snapshot:
    """What a worker may have counted, sometimes one of another version."""
    metrics = Metrics(worker=draw(st.sampled_from(["w1", "w2", "w3"])))
    for verb, name, label_values, value in draw(st.lists(actions, max_size=8)):
        if verb == "set":
            metrics.set(name, value)
        else:
            getattr(metrics, verb)(name, label_values, value)
    snapshot = metrics.snapshot()
    if draw(st.booleans()):
        snapshot = msgspec.structs.replace(snapshot, counters={**snapshot.counters, "collector_new_total": [((), 1)]})
    if draw(st.integers(0, 9)) == 0:
        snapshot = msgspec.structs.replace(snapshot, schema=SCHEMA + 1)
    return snapshot


@given(st.lists(snapshots(), max_size=5), st.integers(0, 5), st.randoms(use_true_random=False))
def test_a_merge_is_the_same_in_any_order_and_grouping(found: list[Snapshot], cut: int, chance: random.Random) -> None:
    """The dead are merged when they die, the living when asked, in whatever order a directory lists them."""
    expected = merge(found)
    shuffled = list(found)
    chance.shuffle(shuffled)

    assert expected == merge(shuffled)
    assert expected == merge([merge(found[:cut]), merge(found[cut:])])
    assert expected == merge([expected])
    assert expected == merge([expected, Snapshot(), merge([])])


@given(snapshots())
def test_a_snapshot_survives_its_file(snapshot: Snapshot) -> None:
    """What a killed worker counted is what its file says."""
    if snapshot.schema == SCHEMA:
        assert snapshot == decode(encode(snapshot))
    assert merge([snapshot]) == merge([decode(encode(snapshot))])


# -- the page ---------------------------------------------------------------------------------------------------


@given(st.lists(snapshots(), max_size=3))
def test_whatever_was_counted_prometheus_reads_back(found: list[Snapshot]) -> None:
    """One label that is not escaped costs the whole page."""
    merged = merge(found)

    parsed = samples(render(merged))

    for name, counts in merged.counters.items():
        for values, count in counts:
            named = dict(zip(METRICS[name].labels, values, strict=True))
            assert float(count) == at(parsed, name, **named)
    for name, levels in merged.gauges.items():
        for values, level in levels:
            named = dict(zip(METRICS[name].series_labels, values, strict=True))
            assert float(level) == at(parsed, name, **named)
    for name, histogram in merged.histograms.items():
        for values, cells in histogram.series:
            named = dict(zip(METRICS[name].labels, values, strict=True))
            assert sum(cells[:-1]) == at(parsed, f"{name}_count", **named)


def test_a_label_with_every_odd_character_comes_back_as_it_was() -> None:
    """Quotes, backslashes and newlines are what the format is made of."""
    odd = 'a"b\\c\nd\\ne{f}=,g\\\\"\té€\u2028'
    metrics = Metrics()
    metrics.inc(UPLOADS, (odd, ""))

    assert 1 == at(samples(render(metrics.snapshot())), UPLOADS, tenant=odd, protocol="")


def test_the_page_says_of_each_metric_what_it_is() -> None:
    """Types and help are what a person sees first."""
    metrics = Metrics(worker="w1")
    metrics.inc(UPLOADS, ACME)
    metrics.set("collector_spool_bytes", 1)
    metrics.observe(REQUESTS, ("native",), 1.0)

    page = render(metrics.snapshot()).decode()

    assert f"# HELP {UPLOADS} {METRICS[UPLOADS].help}\n# TYPE {UPLOADS} counter\n" in page
    assert "# TYPE collector_spool_bytes gauge\n" in page
    assert f"# TYPE {REQUESTS} histogram\n" in page
    assert CONTENT_TYPE_PLAIN_0_0_4 == CONTENT_TYPE


def test_numbers_from_elsewhere_are_on_the_page_but_no_metric_twice() -> None:
    """Prometheus refuses a page with the same metric twice, as a whole."""
    extra = (Metric("collector_extra", Kind.GAUGE_SUM, "More."), [((), 3)])

    assert 3 == at(samples(render(Snapshot(), [extra])), "collector_extra")
    with pytest.raises(AssertionError, match="twice"):
        render(Snapshot(), [extra, extra])


def test_the_ledger_is_on_the_page_by_tenant_state_and_reason() -> None:
    """The identity must be checkable by whoever has only the metrics."""
    row = {"accepted": 10, "pending": 1, "delivered": 5, "rescued": 2, "rejected_by_sink:sink_invalid": 1}
    totals = {"acme": {**row, "dropped:corrupt_frame": 1}, "other": {"accepted": 0}}

    found = samples(render(Snapshot(), ledger(totals)))

    name = "collector_ledger_events"
    assert 10 == at(found, name, tenant="acme", state="accepted", reason="")
    assert 1 == at(found, name, tenant="acme", state="pending", reason="")
    assert 1 == at(found, name, tenant="acme", state="rejected_by_sink", reason="sink_invalid")
    assert 1 == at(found, name, tenant="acme", state="dropped", reason="corrupt_frame")
    assert 1 == at(found, "collector_ledger_balanced")


@pytest.mark.parametrize("column", ["accepted", "pending", *(fate.name for fate in FATES)])
def test_a_ledger_that_is_off_by_one_anywhere_is_not_balanced(column: str) -> None:
    """One tenant that gains what another loses is two defects, not none."""
    fine = {"accepted": 5 + len(FATES), "pending": 5, **{fate.name: 1 for fate in FATES}}
    off = {**fine, column: fine[column] + 1}
    opposite = {**fine, column: fine[column] - 1}

    balanced = [
        at(samples(render(Snapshot(), ledger(totals))), "collector_ledger_balanced")
        for totals in ({}, {"a": fine}, {"a": fine, "b": off}, {"a": off, "b": opposite}, {"a": off, "b": fine})
    ]

    assert [1, 1, 0, 0, 0] == balanced
