"""The search for where loss starts, and what is recommended from it."""

from __future__ import annotations

import math
from typing import Any
from xml.etree import ElementTree as ET

import msgspec
import pytest
from hypothesis import given
from hypothesis import strategies as st

from collector.control.hec import plots, prediction
from collector.control.hec.cells import Flood
from collector.control.hec.drivers import AWS_SEEN, ECS_DEFAULT_BYTES, drivers_for
from collector.control.hec.lines import Lines
from collector.control.hec.planning import (
    THOROUGH_S,
    USUAL_S,
    Effort,
    Goal,
    Scale,
    effort_for,
    seconds_for,
    steady,
)
from collector.control.hec.preflight import Look
from collector.control.hec.recommending import recommend, worst_correction
from collector.control.hec.searching import AROUND, bracket, narrowed
from collector.control.hec.tuning import Found, Point, Tuning, ceiling_limits
from collector.errors import TuneError
from tests.control.hec.world import World

EFFORT = Effort(outage_s=0.5, flood_s=0.5, halvings=2, above=(2.0,))
GOAL = Goal(lines_per_s=1000.0, outage_s=30.0, workers=4)
LOOK = Look(round_trip_s=0.01, answer_s=0.05, gzip_s=0.001, batch_bytes=200_000, sent_lines=0)


@given(st.floats(1.0, 1e6), st.floats(0.3, 3.0), st.integers(0, 8))
def test_the_search_ends_around_where_loss_starts(threshold: float, off: float, halvings: int) -> None:
    """However wrong the guess was, clean is below and lossy above."""
    clean, lossy = bracket(lambda rate: rate > threshold, threshold * off, most=math.inf)
    clean, lossy = narrowed(lambda rate: rate > threshold, clean, lossy, halvings=halvings)

    assert lossy is not None
    assert clean <= threshold < lossy
    assert (
        lossy / clean <= (AROUND**2) ** (0.5**halvings) * (1 + 1e-9) or lossy / clean <= 1.5 ** (0.5**halvings) * 1.001
    )


def test_a_machine_that_drives_no_loss_says_so_and_does_not_go_on() -> None:
    """The rate at which loss starts is then above what can be tried, and nobody knows where."""
    tried: list[float] = []

    def is_lossy(rate: float) -> bool:
        tried.append(rate)
        return False

    assert (700.0, None) == bracket(is_lossy, 500.0, most=700.0)
    assert max(tried) == 700.0
    assert (700.0, None) == narrowed(is_lossy, 700.0, None, halvings=3)
    assert (300.0, None) == bracket(is_lossy, 500.0, most=300.0)


def test_loss_at_any_rate_is_not_blamed_on_the_buffer() -> None:
    """A HEC that is slower than the lines come loses them with any buffer."""
    with pytest.raises(TuneError, match="something else than its size decides"):
        bracket(lambda _: True, 500.0, most=1000.0)


def found(world: World, goal: Goal = GOAL, effort: Effort = EFFORT) -> tuple[Tuning, Found, list[tuple[str, str]]]:
    told: list[tuple[str, str]] = []
    tuning = Tuning(world.bench, goal, effort, tell=lambda what, came: told.append((what, came)))
    return tuning, tuning.find(LOOK, Lines(now_us=0, seed=1)), told


def test_loss_starts_where_arithmetic_has_it_for_each_buffer() -> None:
    """Over a sender that does nothing but what arithmetic says, all that is left is the search itself."""
    tuning, seen, told = found(World(drain=50e6, unnoticed_s=0.1, put_s=2e-6))

    assert 3 == len(seen.points)
    for point in seen.points:
        assert point.starts_per_s is not None
        assert point.first_drop_s is not None
        assert point.starts_per_s == pytest.approx(point.predicted_per_s, rel=0.12)
        assert point.first_drop_s == pytest.approx(point.predicted_drop_s, rel=0.15)
        assert point.clean_per_s < (point.lossy_per_s or 0) <= point.clean_per_s * 1.2
        assert any(run.loss_part > 0.3 for run in point.runs)
        assert all(run.cell.seed == point.runs[0].cell.seed for run in point.runs)
    small, usual, large = seen.points
    # Each lies in the middle of a bracket whose ends are up to a fifth apart.
    assert usual.starts_per_s == pytest.approx(2 * (small.starts_per_s or 0), rel=0.2)
    assert large.buffer_bytes == pytest.approx(4 * small.buffer_bytes, rel=0.01)
    assert [] == seen.limits
    assert any("lost" in came for _, came in told)
    # The runs stand for the goal: what is halfway is the goal's own need.
    assert seen.scale.shorter == pytest.approx(60)
    need = prediction.buffer_for(1000 * seen.flood.line_bytes * 30)
    assert usual.buffer_bytes / seen.scale.of_buffer == pytest.approx(need, rel=0.1)
    run = tuning.confirm(prediction.buffer_for(1000 * seen.flood.line_bytes * 33), 30.0, seen.scale)
    assert run.first_drop_s is None
    run = tuning.confirm(prediction.buffer_for(1000 * seen.flood.line_bytes * 20), 30.0, seen.scale)
    assert run.first_drop_s is not None
    assert run.first_drop_s * seen.scale.shorter == pytest.approx(20, rel=0.15)


def test_a_rate_that_this_machine_can_not_make_is_scaled_down_and_told() -> None:
    """The buffer must not be blamed, nor praised, for what the load generator could not do."""
    _, seen, _ = found(World(put_s=1e-3), Goal(lines_per_s=20_000.0, outage_s=30.0, workers=1))

    assert seen.scale.faster < 1
    assert "This machine makes 1,000 lines a second at the most" in "".join(seen.limits)
    assert all(run.cell.lines_per_s <= 1000 for point in seen.points for run in point.runs)


def test_a_load_that_falls_behind_in_a_run_is_told() -> None:
    """A machine may be fast when it is asked, and busy with something else a moment later."""

    class Disturbed(World):
        def fail(self) -> None:
            self.put_s = 0.02
            super().fail()

    _, seen, _ = found(Disturbed(drain=50e6, put_s=2e-6))

    assert any("it was the limit there, not HEC and not the buffer" in limit for limit in seen.limits)


def test_who_wants_real_sizes_gets_them_however_small() -> None:
    """Else a rate of its own would be a claim about another one."""
    effort = Effort(outage_s=2.0, flood_s=0.5, halvings=0, is_real=True)
    _, seen, _ = found(World(drain=50e6, put_s=2e-6), Goal(lines_per_s=100.0, outage_s=2.0, workers=1), effort)

    assert (1.0, 1.0) == (seen.scale.shorter, seen.scale.faster)
    need = prediction.buffer_for(100 * seen.flood.line_bytes * 2)
    assert [need * part for part in (0.5, 1, 2)] == pytest.approx([one.buffer_bytes for one in seen.points], rel=0.01)


def flooded(**more: Any) -> Flood:
    usual = {
        "rate": 5e6, "line_bytes": 400.0, "wire_part": 0.2, "batch_bytes": 200_000.0, "busy": 0.2, "target_busy": 0.1,
    }  # fmt: skip
    return Flood(**(usual | more))


@pytest.mark.parametrize(
    ("flood", "said"),
    [
        (flooded(), ""),
        (flooded(busy=0.95), "this machine was the limit"),
        (flooded(target_busy=0.95), "the simulated HEC was busy"),
        (flooded(target_busy=None), ""),
        (flooded(rate=2e6), "nobody here was busy"),
    ],
)
def test_what_bounded_a_connection_is_named(flood: Flood, said: str) -> None:
    """A ceiling that is this machine's is no property of HEC."""
    limits = ceiling_limits(flood, 5.2e6)

    assert bool(said) == bool(limits)
    assert not limits or said in limits[0]


@given(st.floats(20.0, 3600.0))
def test_the_time_there_is_is_used_and_not_exceeded(seconds: float) -> None:
    """Who gives ten minutes wants longer outages, and who gives twenty seconds wants an end."""
    effort = effort_for(seconds)

    assert seconds_for(effort) <= seconds * 1.15
    assert seconds_for(effort) >= seconds * 0.8
    assert effort_for(seconds, outage_s=0.1).outage_s == 0.1
    assert (effort_for(USUAL_S).halvings, effort_for(THOROUGH_S).halvings) == (2, 4)


def test_a_search_that_fits_into_no_time_is_refused() -> None:
    """Half a search recommends something all the same."""
    with pytest.raises(TuneError, match=r"5 s are too few for a search; give --seconds 20 or more"):
        effort_for(5)


@given(st.floats(0.3, 60.0))
def test_an_outage_ends_between_two_attempts(outage_s: float) -> None:
    """At an attempt, one run would find HEC back at once and the next a pause later: they could not be compared."""
    chosen = steady(outage_s)
    attempts = prediction.attempts_s(chosen.seed, until_s=chosen.silent_s)

    assert outage_s == chosen.outage_s
    assert chosen.silent_s == attempts[-1]
    assert all(abs(one - outage_s) >= 0.08 - 1e-9 for one in attempts)
    assert chosen.silent_s < 1.6 * outage_s + 0.2


def point(**more: Any) -> Point:
    usual: dict[str, Any] = {
        "buffer_bytes": 8 << 20, "outage_s": 1.0, "silent_s": 1.0, "clean_per_s": 950.0, "lossy_per_s": 1050.0,
        "predicted_per_s": 1000.0, "at_per_s": 1000.0, "first_drop_s": 1.0, "predicted_drop_s": 1.0, "held_bytes": 0.0,
        "drop_held_bytes": 0, "runs": [],
    }  # fmt: skip
    return Point(**(usual | more))


def measured(*points: Point, rate: float = 5e6, predicted: float = 5e6) -> Found:
    return Found(
        look=LOOK, flood=flooded(rate=rate), machine_per_s=1e5, predicted_rate=predicted,
        scale=Scale(shorter=30.0, faster=1.0), severe_part=0.5, points=list(points or [point()]), limits=[],
    )  # fmt: skip


def test_what_runs_held_less_than_predicted_is_made_up_for() -> None:
    """And only that: what the buffer held when the outage began is another matter, and a doubt is no finding."""
    usable = prediction.usable_bytes(8 << 20)

    assert 1.0 == worst_correction(measured(point()))
    assert 1.0 == worst_correction(measured(point(lossy_per_s=None, first_drop_s=None)))
    assert 1.25 == worst_correction(measured(point(), point(first_drop_s=0.8)))
    assert 1.25 == worst_correction(measured(point(lossy_per_s=800.0)))
    assert 1.0 == pytest.approx(worst_correction(measured(point(first_drop_s=0.8, drop_held_bytes=usable // 5))))
    assert 1.0 == pytest.approx(worst_correction(measured(point(lossy_per_s=800.0, held_bytes=usable / 5))))


def test_a_recommendation_holds_the_outage_and_what_comes_after_it() -> None:
    """The sender finds out late, and up to then lines come and none leaves."""
    seen = measured()
    one = recommend(seen, GOAL, text_bytes=300.0, how="refusing")
    worse = recommend(measured(point(first_drop_s=0.5)), GOAL, text_bytes=300.0, how="refusing")

    need = 1000 * 400 * (30 + prediction.unnoticed_s(30.0)) * 1.1
    assert need <= prediction.usable_bytes(one.buffer_bytes) <= need + (2 << 20)
    assert 0 == one.buffer_bytes % (1 << 20)
    assert worse.buffer_bytes > 1.8 * one.buffer_bytes
    assert str(one.buffer_bytes) == one.environment["COLLECTOR_HEC_BUFFER_BYTES"]
    assert ("262144", "1") == (one.environment["COLLECTOR_HEC_BATCH_BYTES"], one.environment["COLLECTOR_HEC_LINGER_S"])
    assert one.memory_bytes > 4 * one.buffer_bytes
    # It has 500 lines of 400 bytes, whatever bytes it may have.
    assert one.batch_fills_s == pytest.approx(0.5)
    assert one.recovery_s == pytest.approx(prediction.usable_bytes(one.buffer_bytes) / (one.ceiling - 400_000))
    assert [] == one.cautions
    # 300 bytes of text of each worker, and no envelope.
    assert one.drivers.rate == 1000 * 300 * 4
    assert one.drivers.buffer_bytes >= one.drivers.rate * one.silent_s
    hole = recommend(seen, GOAL, text_bytes=300.0, how="black-hole")
    assert hole.unnoticed_s > 6
    short = recommend(seen, Goal(lines_per_s=1000.0, outage_s=2.0, workers=1), text_bytes=300.0, how="refusing")
    assert short.unnoticed_s < one.unnoticed_s


def test_a_larger_batch_is_taken_when_the_usual_one_is_too_slow() -> None:
    """Twice what comes has to leave, or a backlog takes for ever to go."""
    fast = Goal(lines_per_s=8000.0, outage_s=1.0, workers=1)
    slow = msgspec.structs.replace(LOOK, round_trip_s=0.048, answer_s=0.05)
    usual = recommend(measured(), GOAL, text_bytes=300.0, how="refusing")
    short = recommend(msgspec.structs.replace(measured(), look=slow), fast, text_bytes=300.0, how="refusing")
    long = msgspec.structs.replace(measured(), look=slow, flood=flooded(line_bytes=4000.0))
    one = recommend(long, msgspec.structs.replace(fast, lines_per_s=800.0), text_bytes=300.0, how="refusing")

    assert 256 << 10 == usual.batch_bytes < one.batch_bytes <= 1_000_000
    assert one.ceiling >= 2 * one.rate
    # Where a batch ends with its lines, more bytes would change nothing.
    assert 256 << 10 == short.batch_bytes
    assert short.cautions


def test_a_hec_that_is_too_slow_is_no_matter_of_buffers() -> None:
    """The honest answer to more than leaves is not a larger number."""
    narrow = recommend(measured(rate=0.6e6), GOAL, text_bytes=300.0, how="refusing")
    never = recommend(measured(rate=0.2e6), GOAL, text_bytes=300.0, how="refusing")

    assert "backlog of an outage goes slowly" in narrow.cautions[0]
    assert "a buffer of any size fills" in never.cautions[0]
    assert math.isinf(never.recovery_s)


@pytest.mark.parametrize(
    ("lines_per_s", "outage_s", "size"),
    # 1 MB/s is clean with 1 MB, 2 MB/s with 4, 3 with 6, 5 with 25; and then outages.
    [
        (1000, 0.1, "1m"),
        (2000, 0.1, "4m"),
        (3000, 0.1, "6m"),
        (5000, 0.1, "25m"),
        (1000, 30, "30m"),
        (5000, 30, "150m"),
    ],
)
def test_a_log_driver_gets_what_the_outage_and_aws_ask_for(lines_per_s: float, outage_s: float, size: str) -> None:
    """Its ring is of one container, of text alone, and drops in silence."""
    one = drivers_for(lines_per_s, text_bytes=250.0, workers=4, outage_s=outage_s)

    assert {"mode": "non-blocking", "max-buffer-size": size} == one.options
    assert one.is_over_default == (int(size[:-1]) > 10)


def test_a_rate_that_no_ring_carried_is_said_to_be_one() -> None:
    """AWS saw loss at 6 MB/s with 40 MB; a number would pretend otherwise."""
    one = drivers_for(10_000, text_bytes=1000, workers=1, outage_s=1)

    assert one.seen.clean_bytes is None
    assert "FireLens" in one.seen.words
    assert sorted(AWS_SEEN, key=lambda seen: seen.up_to_rate) == list(AWS_SEEN)
    assert 10_000_000 == ECS_DEFAULT_BYTES


def test_a_plot_has_each_run_and_each_buffer() -> None:
    """A run that is not drawn is a claim without its evidence."""
    _, seen, _ = found(World(drain=50e6, put_s=2e-6))
    text = plots.draw(seen, embedded=True)
    words = [one.text or "" for one in ET.fromstring(text).iter("{http://www.w3.org/2000/svg}text")]
    circles = text.count("<circle")

    assert sum(len(one.runs) for one in seen.points) + 3 == circles
    assert {"measured", "predicted", "lines a second of one worker"} <= set(words)
    assert 3 == sum(word.endswith("iB") and word[0].isdigit() for word in words)
    assert any("simulated" in word for word in words)
    assert text == plots.draw(seen, embedded=True)
    assert "a real HEC" in plots.draw(seen, embedded=False)
