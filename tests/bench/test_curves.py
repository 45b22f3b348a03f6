"""The parts beside the rates, run: half of the peak, the curves, and memory over time."""

from __future__ import annotations

import json
import os
from pathlib import Path

import pytest
from click.testing import CliRunner
from msgspec.structs import replace

import bench.__main__ as program
from bench import memory, pace, proc, scaling
from bench.cell import Cell, Plan
from bench.links import LoadError
from bench.memory import GROWTH_BYTES, Memory, Sample, limit_mib_per_min
from bench.pace import Pace
from bench.proc import Cores
from bench.scaling import BY_HOUR, CASE, OF_TENANTS, Point, Ranges, Scaling, Sweep
from bench.scaling_table import render
from tests.bench.test_run import ACCOUNT, CELL
from tests.bench.test_targets import pace as made_up

PLAN = Plan([], 0.3, 0.1, 1)


@pytest.fixture(scope="module")
def curves() -> Scaling:
    """One short run with a few points, for all tests of what is in it."""
    with pytest.MonkeyPatch.context() as patch:
        # Whether the settings have been read again is no matter here.
        patch.setattr(scaling, "_SETTLING_S", 0.0)
        return scaling.run(PLAN, lambda text: None, Ranges((2,), (3,), (700,), (2,)))


def test_each_point_of_a_curve_accounts_for_its_events(curves: Scaling) -> None:
    """With many tenants or many workers an event can get lost as well."""
    assert [] == curves.problems
    for sweep in curves.sweeps:
        for point in sweep.points:
            assert point.collector.account is not None
            assert 0 < point.collector.account.acknowledged == point.collector.account.stored


def test_each_point_of_a_curve_measures_all_that_is_drawn(curves: Scaling) -> None:
    """A number that is always zero is one that nobody measured."""
    assert {"events an upload", "connections", OF_TENANTS, BY_HOUR} <= {sweep.what for sweep in curves.sweeps}
    for sweep in curves.sweeps:
        for point in sweep.points:
            assert (point.reference is None) == (sweep.what in {OF_TENANTS, BY_HOUR})
            for cell in filter(None, (point.collector, point.reference)):
                assert 0 < cell.requests_per_s
                assert 0 < cell.cpu_us
                assert 0 < cell.p50_ms <= cell.p99_ms


def test_every_tenant_has_uploaded_before_a_point_of_tenants_is_measured(curves: Scaling) -> None:
    """What a tenant costs once would be taken for what its uploads cost."""
    for sweep in curves.sweeps:
        for point in sweep.points:
            assert (point.opening is not None) == (sweep.what in {OF_TENANTS, BY_HOUR})
            if point.opening is not None:
                assert point.opening.account is not None
                assert point.at <= point.opening.account.uploads_acknowledged

    assert 2 == render(curves).count("With the first of each, an upload of 700 ")


def test_tenants_that_are_not_all_heard_of_in_time_are_an_error(monkeypatch: pytest.MonkeyPatch) -> None:
    """Else the measurement would be of a mixture, and nobody would know."""
    asked: list[float] = []

    def measured(*args: object) -> tuple[Cell, None]:
        asked.append(args[3].seconds)  # type: ignore[attr-defined]  # a Plan
        return replace(CELL, account=replace(ACCOUNT, uploads_acknowledged=699)), None

    monkeypatch.setattr(scaling, "measure", measured)
    monkeypatch.setattr(proc, "await_idle", lambda *pids, patience_s: None)
    with pytest.raises(LoadError, match="700 uploads did not come to be acknowledged"):
        scaling.run(PLAN, lambda text: None, Ranges((), (), (700,), ()))
    assert [PLAN.seconds * times for times in (1, 2, 4, 8, 16, 32)] == asked


def test_events_that_are_lost_before_a_point_is_measured_are_told_too(curves: Scaling) -> None:
    """An acknowledged event is one, whenever it was."""
    point = Point(1, CASE, CELL, opening=replace(CELL, account=replace(ACCOUNT, stored=ACCOUNT.stored - 1)))

    assert 1 == len(replace(curves, sweeps=[Sweep(OF_TENANTS, [point])]).problems)


@pytest.fixture(scope="module")
def paced() -> Pace:
    """One short run, for all tests of what is in it."""
    return pace.run(PLAN, lambda text: None)


def test_half_of_the_peak_is_offered_and_accounted_for(paced: Pace) -> None:
    """An answer that came too late to be measured is still one that is owed."""
    assert [] == paced.problems
    assert paced.collector.half.account is not None
    assert 0 < paced.collector.half.account.acknowledged
    for one in (paced.reference, paced.collector):
        assert 0 < one.half.requests_per_s
        assert one.quantiles_ms == sorted(one.quantiles_ms)
        assert one.quantiles_ms[0] == one.half.p50_ms


@pytest.mark.parametrize(
    ("change", "words"),
    [
        ({"requests_per_s": 100.0}, "Collector got fewer than it was to get"),
        ({"unexpected": {"503": 7}}, "Collector did not take all of them**: 7 with status 503"),
        ({"others_busy": 0.4}, "Something else used 40% of the core of Collector"),
    ],
)
def test_what_spoils_a_latency_is_said_beneath_the_table(change: dict[str, object], words: str) -> None:
    """A table is quoted without the circumstances; those that matter must be in it."""
    found = made_up(20.0)
    spoilt = replace(found.collector, half=replace(found.collector.half, **change))

    assert words in pace.render(replace(found, collector=spoilt))
    assert words not in pace.render(found)


def test_memory_is_looked_at_under_load_whose_events_all_arrive(monkeypatch: pytest.MonkeyPatch) -> None:
    """The sink is cleared away meanwhile, and what was in it still counts."""
    monkeypatch.setattr(memory, "_SAMPLE_S", 0.1)
    monkeypatch.setattr(memory, "_WARM_UP_S", 0.1)
    found = memory.run(0.5, lambda text: None)

    assert [] == found.problems
    assert 0 < found.account.acknowledged == found.account.stored
    assert 3 <= len(found.samples)
    # The kernel counts pages on each core, and adds them up when it likes: a sample may be a little above its peak.
    most = found.peak_bytes + (1 << 20)
    assert all(10 << 20 < sample.resident_bytes <= most for sample in found.samples)


def test_growth_is_that_of_the_line_after_the_beginning() -> None:
    """Caches that fill in the first minute are no leak; what comes after them is."""
    samples = [Sample(n, (20 + min(n, 10) + n // 10) << 20) for n in range(100)]
    found = Memory("a machine", Cores(0, 1), 100.0, 1000.0, 0.1, 60 << 20, samples, ACCOUNT)

    assert 6.0 == pytest.approx(found.growth_mib_per_min, rel=0.02)
    assert f"grows by {found.growth_mib_per_min:+.2f} MiB/min" in memory.render(found)
    assert replace(found, samples=samples[:2]).growth_mib_per_min is None


def test_the_longer_it_was_looked_at_the_less_it_may_grow() -> None:
    """The same two MiB, whose cause is where in its round a run ends."""
    assert limit_mib_per_min(600.0) == pytest.approx(0.25)
    assert GROWTH_BYTES == pytest.approx(limit_mib_per_min(30.0) * 0.4 * (1 << 20))


@pytest.mark.parametrize(
    ("allowed", "twins", "expected"),
    [
        ({0, 1, 2}, {}, Cores(0, 2, more=(1,))),
        ({0, 1, 2, 3}, {0: {0, 1}, 1: {0, 1}, 2: {2, 3}, 3: {2, 3}}, Cores(0, 2, "the load", (2,))),
        ({4, 7}, {}, Cores(4, 7, "the load", (7,))),
        ({4, 5}, {4: {4, 5}, 5: {4, 5}}, Cores(4, 5, "two threads of one", (5,))),
        ({3}, {}, None),
    ],
)
def test_two_workers_get_a_core_each_and_the_load_a_third_if_there_is_one(
    monkeypatch: pytest.MonkeyPatch, allowed: set[int], twins: dict[int, set[int]], expected: Cores | None
) -> None:
    """Where it has none, the rate of two workers says little, and the report must know it."""
    monkeypatch.setattr(os, "sched_getaffinity", lambda pid: allowed)
    monkeypatch.setattr(proc, "_twins", lambda core: twins.get(core, {core}))

    found = proc.choose_cores_of_two()

    if expected is None or found is None:
        assert expected == found
        return
    assert replace(expected, shared="") == replace(found, shared="")
    assert bool(expected.shared) == bool(found.shared)
    assert expected.shared in found.shared
    assert found.loads == (found.servers if found.shared else (found.load,))


def test_a_missed_target_is_told_and_does_not_fail_the_run(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    """A slow machine is no defect; a lost event is."""
    monkeypatch.setattr(pace, "run", lambda plan, tell: made_up(900.0))

    done = CliRunner().invoke(
        program.main, ["--only", "pace", "--json", str(tmp_path / "numbers.json"), "--plots", str(tmp_path / "plots")]
    )
    numbers = json.loads((tmp_path / "numbers.json").read_text())

    assert 0 == done.exit_code, done.output
    assert "| **missed** |" in done.stdout
    assert "missed" in {target["verdict"] for target in numbers["targets"]}
    assert numbers["throughput"] is None
