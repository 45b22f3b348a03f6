"""HEC is not asked more often than is good for it, nor so seldom that lines wait for nothing."""

from __future__ import annotations

import random
from collections.abc import Callable

import pytest

from collector.telemetry.hec.pace import HELD_S, MAX_RETRY_AFTER_S, Pace, State
from tests.fakes import FakeClock


class Drawn(random.Random):
    """Draws as told, between the bounds it is asked for, and remembers them."""

    def __init__(self, part: float) -> None:
        super().__init__(0)
        self.part = part
        self.asked: list[tuple[float, float]] = []

    def uniform(self, a: float, b: float) -> float:
        self.asked.append((a, b))
        return a + (b - a) * self.part


def paced(clock: FakeClock, part: float = 1.0) -> tuple[Pace, Drawn]:
    rng = Drawn(part)
    return Pace(clock=clock, rng=rng), rng


def test_without_a_failure_there_is_no_pause(clock: FakeClock) -> None:
    """A full buffer empties as fast as HEC takes it."""
    pace, _ = paced(clock)

    assert (0.0, False, State.WELL) == (pace.wait_s(), pace.is_probing, pace.state)
    assert pace.succeeded() is None
    assert 0.0 == pace.wait_s()


def test_pauses_double_up_to_half_a_minute_and_any_part_of_them_may_be_drawn(clock: FakeClock) -> None:
    """Full jitter: tasks that failed together do not come back together."""
    pace, rng = paced(clock)
    for _ in range(2000):
        pace.failed()

    lows, highs = zip(*rng.asked, strict=True)
    assert {0.0} == set(lows)
    assert [0.2, 0.4, 0.8, 1.6, 3.2, 5.0, 5.0, 5.0, 5.0, 5.0] == [round(high, 6) for high in highs[:10]]
    assert 5.0 == max(highs)
    assert 5.0 == pace.wait_s()


def test_real_chance_stays_within_the_bounds(clock: FakeClock) -> None:
    """Two tasks draw differently, and none more than it may."""
    waits = []
    for seed in range(50):
        pace = Pace(clock=clock, rng=random.Random(seed))
        for _ in range(4):
            pace.failed()
        waits.append(pace.wait_s())

    assert len(set(waits)) == 50
    assert 0.0 <= min(waits)
    assert 1.0 < max(waits) <= 1.6


@pytest.mark.parametrize(("asked", "expected"), [(0.0, 0.0), (3.0, 3.0), (60.0, 60.0), (21600.0, MAX_RETRY_AFTER_S)])
def test_what_hec_asks_for_is_heeded_up_to_a_minute(clock: FakeClock, asked: float, expected: float) -> None:
    """Six hours in one answer must not silence a task, and less than asked for would be rude."""
    pace, rng = paced(clock, part=0.0)

    pace.failed(asked)

    assert expected == pace.wait_s()
    rng.part = 1.0
    pace.failed(asked)
    assert expected + 0.4 == pytest.approx(pace.wait_s())


def test_the_breaker_opens_with_the_fifth_failure_and_is_news_once(clock: FakeClock) -> None:
    """One line for an outage, and none for a hiccup."""
    pace, _ = paced(clock)

    assert [False, False, False, False, True, False, False] == [pace.failed() for _ in range(7)]
    assert (State.FAILING, True) == (pace.state, pace.is_probing)


def test_a_success_between_failures_starts_the_count_anew(clock: FakeClock) -> None:
    """Four of five requests that fail now and then are no outage."""
    pace, _ = paced(clock)
    for _ in range(4):
        pace.failed()
    pace.succeeded()

    assert (0.0, [False] * 4) == (pace.wait_s(), [pace.failed() for _ in range(4)])
    assert State.WELL is pace.state


def test_a_success_closes_the_breaker_and_says_how_long_it_was_open(clock: FakeClock) -> None:
    """From the moment that was told as its beginning."""
    pace, _ = paced(clock)
    for _ in range(5):
        clock.advance(7)
        pace.failed()
    clock.advance(90)
    pace.failed()

    assert 90.0 == pace.succeeded()
    assert (State.WELL, 0.0, None) == (pace.state, pace.wait_s(), pace.succeeded())


def test_a_second_outage_is_told_for_itself(clock: FakeClock) -> None:
    """What was told of the first is over."""
    pace, _ = paced(clock)
    pace.refused()
    clock.advance(10)
    pace.succeeded()
    clock.advance(1000)

    assert pace.refused()
    clock.advance(5)
    assert 5.0 == pace.succeeded()


@pytest.mark.parametrize(("part", "expected"), [(0.0, HELD_S * 0.75), (1.0, HELD_S * 1.25)])
def test_a_refusal_holds_everything_for_about_a_minute(clock: FakeClock, part: float, expected: float) -> None:
    """A wrong token tried each second fills Splunk's log, and locks accounts elsewhere."""
    pace, _ = paced(clock, part)

    assert pace.refused()
    assert (expected, State.REFUSING) == (pace.wait_s(), pace.state)
    assert not pace.refused()


def test_a_page_that_is_missing_five_times_is_for_a_human(clock: FakeClock) -> None:
    """Splunk Cloud answers 404 for moments; a wrong URL does for ever."""
    pace, _ = paced(clock)

    assert [False] * 4 + [True, False] == [pace.failed(is_missing=True) for _ in range(6)]
    assert State.REFUSING is pace.state


def test_an_outage_that_turns_into_a_refusal_is_news_and_one_outage(clock: FakeClock) -> None:
    """A human is needed now; how long lines have waited does not begin anew."""
    pace, _ = paced(clock)
    for _ in range(5):
        pace.failed()
    clock.advance(30)

    assert pace.refused()
    clock.advance(30)
    assert 60.0 == pace.succeeded()


def test_a_nearly_full_hec_is_given_half_a_second(clock: FakeClock) -> None:
    """What it would say next is 429."""
    pace, _ = paced(clock)

    assert pace.succeeded(is_near_capacity=True) is None
    assert 0.5 == pace.wait_s()


@pytest.mark.parametrize(
    "trouble", [lambda pace: pace.refused(), lambda pace: pace.failed(60.0), lambda pace: [pace.failed()] * 9]
)
def test_in_a_hurry_no_pause_is_longer_than_a_tenth_of_a_second(
    clock: FakeClock, trouble: Callable[[Pace], object]
) -> None:
    """A stop has three seconds; but without any pause it would be a loop that takes a core."""
    pace, _ = paced(clock)
    trouble(pace)

    pace.hurry()
    assert pytest.approx(0.1) == pace.wait_s()
    clock.advance(0.06)
    pace.hurry()
    assert pytest.approx(0.04) == pace.wait_s()
    clock.advance(0.05)
    assert 0.0 == pace.wait_s()


def test_a_hurry_without_a_pause_makes_none(clock: FakeClock) -> None:
    """What could leave now leaves now."""
    pace, _ = paced(clock)
    pace.hurry()

    assert 0.0 == pace.wait_s()
