"""A run, over a sender and a HEC of which everything is known: what is measured is what was made."""

from __future__ import annotations

import random
import threading

import pytest

from collector.clock import SystemClock
from collector.control.hec import prediction
from collector.control.hec.cells import Cell
from collector.control.hec.child import HecChild, used_cpu_s
from collector.control.hec.driving import Bench
from collector.control.hec.flooding import flood, makes_per_s
from collector.control.hec.lines import Lines
from collector.control.hec.relay import ChildTarget
from collector.errors import TuneError
from collector.telemetry.hec.handler import HecHandler
from collector.telemetry.hec.options import HecOptions
from tests.control.hec.world import World, cell

TICK_S = 0.02


def test_a_run_without_loss_says_how_long_it_was_silent() -> None:
    """The outage is ours, and the silence the sender's: it is the latter that fills the buffer."""
    world = World(unnoticed_s=0.25)
    run = world.bench.run(cell(lines_per_s=300.0))

    assert (0, {}, None) == (run.lost, run.lost_otherwise, run.first_drop_s)
    assert run.emitted == run.delivered == run.arrived
    assert run.silent_s == pytest.approx(1.25, abs=TICK_S)
    assert run.silent_lines == pytest.approx(300 * 1.25, abs=10)
    assert run.backlog_bytes == pytest.approx(run.silent_lines * run.line_bytes, rel=0.2)
    assert run.drained_s is not None
    assert run.per_s == pytest.approx(300, rel=0.03)
    assert run.kept_pace


def test_what_does_not_fit_is_lost_when_and_as_much_as_predicted() -> None:
    """The prediction is of this very arithmetic, so here the two have to meet."""
    world = World(unnoticed_s=0.2)
    run = world.bench.run(cell(lines_per_s=2000.0))
    rate = run.per_s * run.line_bytes
    severe = world.bench.lines.severe_part

    assert run.first_drop_s == pytest.approx(
        prediction.first_drop_s(prediction.usable_bytes(256 << 10), rate), abs=0.05
    )
    assert run.loss_part == pytest.approx(
        prediction.loss_part(256 << 10, rate, run.silent_s, severe_part=severe), abs=0.03
    )
    assert run.emitted == run.delivered + run.lost
    assert run.high_water_bytes <= 256 << 10


def test_an_outage_can_last_until_the_first_drop_and_no_longer() -> None:
    """It is how the outage is found at which loss starts: in one run."""
    world = World(unnoticed_s=5.0)
    run = world.bench.run(cell(lines_per_s=1000.0, outage_s=60.0), until_drop=True)
    expected_s = prediction.first_drop_s(prediction.usable_bytes(256 << 10), run.per_s * run.line_bytes)

    assert run.first_drop_s == pytest.approx(expected_s, abs=0.1)
    assert run.silent_s == pytest.approx(run.first_drop_s, abs=TICK_S)
    assert run.lost < 20
    short = world.bench.run(cell(lines_per_s=10.0, outage_s=0.5), until_drop=True)
    assert (None, 0) == (short.first_drop_s, short.lost)
    assert short.silent_s == pytest.approx(0.5, abs=TICK_S)


def test_a_machine_that_can_not_make_so_many_lines_is_told_of() -> None:
    """Else the buffer would be praised for what never came."""
    run = World(put_s=0.002).bench.run(cell(lines_per_s=5000.0, outage_s=0.2))

    assert run.per_s == pytest.approx(500, rel=0.1)
    assert not run.kept_pace


@pytest.mark.parametrize(
    ("world", "said"),
    [
        (World(lie="inexact"), "do not add up"),
        (World(lie="too few"), "were delivered, and"),
        (World(lie="too many"), "were delivered, and"),
        (World(drain=0.0), "no line has arrived at HEC within 30 s"),
        (World(unnoticed_s=500.0), "no line has arrived at HEC after the outage"),
    ],
    ids=["inexact", "too few", "too many", "nobody there", "never back"],
)
def test_accounts_that_do_not_add_up_are_a_defect_and_no_measurement(world: World, said: str) -> None:
    """A sender that loses without counting looks the best of all."""
    with pytest.raises(TuneError, match=said):
        world.bench.run(cell())
    assert world.senders[-1].queue == world.senders[-1].queue.__class__()


def test_a_flood_finds_what_one_connection_carries() -> None:
    """Lines come as fast as they leave, and none is dropped for it."""
    world = World(drain=2e6)
    found = flood(world.bench, cell(buffer_bytes=1 << 20), 2.0)

    assert found.rate == pytest.approx(2e6, rel=0.05)
    assert found.line_bytes > 300
    assert 0 == world.senders[0].full
    assert found.target_busy is None
    with pytest.raises(TuneError, match="no line has arrived"):
        flood(World(drain=0.0).bench, cell(), 1.0)


def test_the_machine_is_measured_without_a_single_line_that_leaves() -> None:
    """It is asked how many lines it could make, not how many HEC would take."""
    world = World(put_s=0.0001)
    spare = Lines(now_us=0, seed=1)

    assert makes_per_s(world.bench, cell(), spare) == pytest.approx(10_000, rel=0.01)
    assert (0, 0) == (world.arrived, world.bench.lines.made)


def test_a_run_with_the_real_sender_and_a_hec_beside_it_adds_up() -> None:
    """All else is arithmetic: here are a socket, a process, a thread and an outage."""
    clock = SystemClock()
    with HecChild(latency_s=0.002) as child:

        def sender(one: Cell) -> HecHandler:
            options = HecOptions(
                url=child.url, token=child.token, buffer_bytes=one.buffer_bytes, batch_bytes=one.batch_bytes,
                batch_lines=one.batch_lines, linger_s=one.linger_s, source="collector-tune",
            )  # fmt: skip
            return HecHandler(options, clock=clock, rng=random.Random(one.seed))

        lines = Lines(now_us=clock.now_us())
        bench = Bench(ChildTarget(child), sender, lines, clock=clock, wait=threading.Event().wait, cpu_s=used_cpu_s)
        lossy = bench.run(cell(buffer_bytes=64 << 10, lines_per_s=2000.0, outage_s=0.4))
        clean = bench.run(cell(buffer_bytes=8 << 20, lines_per_s=500.0, outage_s=0.2))
        found = flood(bench, cell(buffer_bytes=1 << 20), 0.3)

    assert 0 < lossy.lost < lossy.emitted == lossy.delivered + lossy.lost + sum(lossy.lost_otherwise.values())
    assert lossy.first_drop_s is not None
    assert (0, {}) == (clean.lost, clean.lost_otherwise)
    assert clean.arrived is not None
    assert clean.repeated is not None
    assert clean.emitted == clean.delivered <= clean.arrived - clean.repeated
    assert found.rate > 0
    assert found.target_busy is not None
    assert 0 < found.wire_part < 0.5
