"""The targets: met, missed, or not to be told from what was measured."""

from __future__ import annotations

import pytest
from msgspec.structs import replace

from bench.cell import Cell, Plan
from bench.memory import Memory, Sample
from bench.pace import Pace, Paced
from bench.proc import Cores
from bench.run import Report
from bench.run import Row as CaseRow
from bench.scaling import BY_HOUR, CASE, OF_TENANTS, WORKERS_CASE, Point, Scaling, Sweep
from bench.sinks import Row, Sinks
from bench.targets import MET, MISSED, UNTOLD, Target, judge, render, targets
from bench.uploads import Case
from tests.bench.test_run import ACCOUNT, CELL

CORES, PLAN = Cores(0, 1), Plan([], 1.0, 0.5, 1)
SLOW = replace(CELL, requests_per_s=400.0)


def rates(ours: Cell, theirs: Cell, *cases: Case) -> Report:
    return Report("a machine", CORES, PLAN, [CaseRow(case, [theirs], [ours]) for case in cases])


def find(found: list[Target], words: str) -> Target:
    (target,) = (one for one in found if words in one.what)
    return target


def of_rates(report: Report, words: str) -> Target:
    return find(targets(report, None, None, None), words)


@pytest.mark.parametrize(
    ("measured", "at_most", "verdict"),
    [
        (2.5, False, MET), (2.49, False, MISSED), (None, False, UNTOLD),
        (2.5, True, MET), (2.51, True, MISSED), (None, True, UNTOLD),
    ],
)  # fmt: skip
def test_a_target_is_met_at_what_was_asked_and_no_further(measured: float | None, at_most: bool, verdict: str) -> None:
    """The edge is where one is tempted."""
    assert verdict == judge("rate", 2.5, "times", measured, at_most=at_most).verdict


def test_a_number_that_tells_nothing_is_neither_met_nor_missed() -> None:
    """A generator that can't keep up has measured itself."""
    assert UNTOLD == judge("rate", 2.5, "times", 9.0, untold="the load was too slow").verdict


def test_a_rate_is_held_against_the_reference_of_its_own_case() -> None:
    """Of another case, or of another run, it would be a ratio of nothing."""
    report = rates(CELL, SLOW, Case(5))

    assert (2.5, MET) == ((one := of_rates(report, "at 5 events")).measured, one.verdict)
    assert (None, UNTOLD) == ((one := of_rates(report, "at 1 event")).measured, one.verdict)
    assert MISSED == of_rates(rates(CELL, replace(SLOW, requests_per_s=401.0), Case(5)), "at 5 events").verdict


def test_gzip_and_the_sink_are_held_against_our_own_plain_figures() -> None:
    """The reference does not inflate, and has no sink."""
    rows = [
        CaseRow(Case(100), [SLOW], [CELL]), CaseRow(Case(100, "gzip"), [SLOW], [replace(CELL, requests_per_s=790.0)]),
        CaseRow(Case(5, connections=64), [SLOW], [CELL]),
        CaseRow(Case(5, connections=64, ack="sink"), [SLOW], [replace(CELL, requests_per_s=510.0)]),
    ]  # fmt: skip
    report = Report("a machine", CORES, PLAN, rows)

    assert (0.79, MISSED) == ((one := of_rates(report, "gzip")).measured, one.verdict)
    assert (0.51, MET) == ((one := of_rates(report, "ack: sink")).measured, one.verdict)


@pytest.mark.parametrize(
    ("ours", "theirs", "verdict"),
    [
        (replace(CELL, load_busy=0.95), CELL, UNTOLD),  # missed, and ours may be more
        (CELL, replace(CELL, load_busy=0.95), MISSED),  # missed, and theirs may be more still
        (replace(CELL, load_busy=0.95), SLOW, MET),  # met, and ours may be more still
        (CELL, replace(SLOW, load_busy=0.95), UNTOLD),  # met, and theirs may be more
    ],
)
def test_a_load_at_its_limit_spoils_what_it_may_have_decided(ours: Cell, theirs: Cell, verdict: str) -> None:
    """The more a server can do, the likelier it is that the generator is what is measured."""
    assert verdict == of_rates(rates(ours, theirs, Case(5)), "at 5 events").verdict


def pace(p99_ms: float, cores: Cores = CORES) -> Pace:
    half = replace(CELL, p50_ms=2.0, p99_ms=p99_ms, account=ACCOUNT)
    one = Paced(CELL, half, [2.0, 3.0, p99_ms, p99_ms])
    return Pace("a machine", cores, PLAN, one, one)


def test_the_spread_is_of_the_run_at_half_of_the_peak() -> None:
    """At the peak every server has a queue."""
    assert MET == find(targets(None, pace(20.0), None, None), "p99").verdict
    assert MISSED == find(targets(None, pace(20.2), None, None), "p99").verdict
    assert UNTOLD == find(targets(None, pace(20.0, Cores(0, 0, "one core")), None, None), "p99").verdict


def scaling(*sweeps: Sweep, of_two: Cores | None = None) -> Scaling:
    return Scaling("a machine", CORES, of_two, PLAN, list(sweeps))


def workers(two_per_s: float) -> Sweep:
    two = replace(CELL, requests_per_s=two_per_s, cpu_us=1000.0)
    return Sweep("workers", [Point(1, WORKERS_CASE, CELL), Point(2, WORKERS_CASE, two)])


@pytest.mark.parametrize(
    ("two_per_s", "shared", "verdict"),
    [(1800.0, "", MET), (1790.0, "", MISSED), (1790.0, "the load shares", UNTOLD), (1800.0, "the load shares", MET)],
)
def test_two_workers_are_judged_where_the_load_leaves_them_two_cores(
    two_per_s: float, shared: str, verdict: str
) -> None:
    """On two cores the load takes from both of them what it needs."""
    found = targets(None, None, scaling(workers(two_per_s), of_two=Cores(0, 2, shared, (1,))), None)
    target = find(found, "two workers")

    assert verdict == target.verdict
    assert "by CPU a request 1.80 times" in target.note
    assert (shared in target.untold) or verdict == MET


@pytest.mark.parametrize("what", [OF_TENANTS, BY_HOUR])
def test_the_dearest_number_of_tenants_is_held_against_one(what: str) -> None:
    """It must not grow with them, however the sink writes its files."""

    def sweep(dearest_us: float) -> Sweep:
        cells = {1: CELL, 1000: replace(CELL, cpu_us=dearest_us), 10_000: CELL}
        return Sweep(what, [Point(at, CASE, cell) for at, cell in cells.items()])

    assert MET == find(targets(None, None, scaling(sweep(900.0)), None), f"{what} ÷").verdict
    assert MISSED == find(targets(None, None, scaling(sweep(1800.0)), None), f"{what} ÷").verdict


def by_sink(*, kinesis_per_s: float) -> Sinks:
    slow = replace(CELL, requests_per_s=kinesis_per_s)
    worse, better = replace(slow, requests_per_s=1.0), replace(slow, requests_per_s=9000.0)
    rows = [Row("file", "files", [CELL] * 3), Row("kinesis", "an engine", [better, slow, worse])]
    return Sinks("a machine", CORES, PLAN, rows)


@pytest.mark.parametrize(("kinesis_per_s", "verdict"), [(750.0, MET), (749.0, MISSED)])
def test_intake_with_a_sink_is_held_against_that_with_files(kinesis_per_s: float, verdict: str) -> None:
    """In the median round, for the best of each may be minutes apart; a sink that was not measured is told as such."""
    found = targets(None, None, None, None, by_sink(kinesis_per_s=kinesis_per_s))

    assert verdict == find(found, "intake with `kinesis:`").verdict
    assert UNTOLD == find(found, "intake with `sqs:`").verdict


def memory(seconds: float, mib_per_min: float, *, peak_mib: int = 60) -> Memory:
    samples = [Sample(at, int((50 + mib_per_min * at / 60) * (1 << 20))) for at in range(1, int(seconds))]
    return Memory("a machine", CORES, seconds, 1000.0, 0.1, peak_mib << 20, samples, ACCOUNT)


@pytest.mark.parametrize(
    ("seconds", "mib_per_min", "verdict"),
    [(600.0, 0.2, MET), (600.0, 0.3, MISSED), (600.0, -5.0, MET), (30.0, 0.0, UNTOLD)],
)
def test_memory_is_flat_when_it_was_looked_at_for_ten_minutes(seconds: float, mib_per_min: float, verdict: str) -> None:
    """Half a minute shows no leak, and no lack of one."""
    target = find(targets(None, None, None, memory(seconds, mib_per_min)), "growth")

    assert verdict == target.verdict
    assert mib_per_min == pytest.approx(target.measured, abs=0.01)


def test_the_peak_is_the_highest_of_all_that_was_measured() -> None:
    """A worker that is small at most loads is killed at the other one."""
    large = replace(CELL, peak_bytes=130 << 20)

    assert MET == find(targets(None, None, None, memory(30.0, 0.0)), "peak RSS").verdict
    assert MISSED == find(targets(rates(large, CELL, Case(5)), None, None, memory(30.0, 0.0)), "peak RSS").verdict
    assert MISSED == find(targets(None, None, None, memory(30.0, 0.0, peak_mib=121)), "peak RSS").verdict


def test_every_target_is_in_the_table_whatever_was_measured() -> None:
    """One that is left out looks like one that was never set."""
    nothing = targets(None, None, None, None)
    some = targets(rates(CELL, CELL, Case(5)), None, None, None)

    assert len(nothing) == len(some) == 15
    assert {UNTOLD} == {target.verdict for target in nothing}
    assert "at least 2.5 times | 1.00 times | **missed** |" in render(some)
    assert "0 met, 0 missed, 15 not told by this run." in render(nothing)
