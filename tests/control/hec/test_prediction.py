"""The arithmetic of buffers: it holds for all numbers, and agrees with the sender that it is about."""

from __future__ import annotations

import math
import random

import pytest
from hypothesis import given
from hypothesis import strategies as st

from collector.control.hec import prediction
from collector.telemetry.hec.buffer import HecBuffer
from collector.telemetry.hec.pace import MAX_PAUSE_S, Pace
from tests.fakes import FakeClock

SIZES = st.integers(1, 1 << 31)
RATES = st.floats(1.0, 1e9)
TIMES = st.floats(1e-3, 1e5)


@given(SIZES)
def test_a_buffer_for_so_much_is_the_smallest_that_holds_it(usable: int) -> None:
    """One byte less would lose a line, and a MiB more is memory for nothing."""
    buffer_bytes = prediction.buffer_for(usable)

    assert prediction.usable_bytes(buffer_bytes) >= usable
    assert prediction.usable_bytes(buffer_bytes - 1) < usable


@pytest.mark.parametrize("buffer_bytes", [64 << 10, 1_000_003, 8 << 20, 12 << 20])
def test_what_is_usable_is_what_the_sender_really_uses(buffer_bytes: int) -> None:
    """The reserve for warnings is the sender's own number, and may change there."""
    buffer = HecBuffer(buffer_bytes, clock=FakeClock())
    line = b"x" * 1009
    while buffer.put(line, is_severe=False):
        pass
    usable = buffer.account().held_bytes
    while buffer.put(line, is_severe=True):
        pass

    assert usable <= prediction.usable_bytes(buffer_bytes) < usable + len(line)
    assert buffer.account().held_bytes <= buffer_bytes < buffer.account().held_bytes + len(line)


@given(SIZES, RATES, TIMES)
def test_loss_starts_where_the_first_drop_meets_the_end_of_the_silence(
    usable: int, rate: float, silent_s: float
) -> None:
    """Rate, outage and buffer are one equation, whichever is looked for."""
    starts = prediction.loss_starts_at(usable, silent_s)

    assert prediction.first_drop_s(usable, starts) == pytest.approx(silent_s)
    assert prediction.outage_bytes(starts, silent_s) == pytest.approx(usable)
    assert (prediction.first_drop_s(usable, rate) < silent_s) == (rate > starts) or rate == pytest.approx(starts)


@given(SIZES, RATES, TIMES, st.floats(0.0, 1.0))
def test_the_part_that_is_lost_is_what_does_not_fit(
    buffer_bytes: int, rate: float, silent_s: float, severe: float
) -> None:
    """It grows with rate and outage, and warnings have the reserve to themselves."""
    lost = prediction.loss_part(buffer_bytes, rate, silent_s, severe_part=severe)
    comes = rate * silent_s

    assert 0.0 <= lost < 1.0
    assert (lost == 0.0) == (comes <= prediction.usable_bytes(buffer_bytes)) or lost == pytest.approx(0.0, abs=1e-9)
    assert (1 - lost) * comes <= buffer_bytes + 1e-6 * comes or lost == 0.0
    assert lost <= prediction.loss_part(buffer_bytes, rate, 2 * silent_s, severe_part=severe) + 1e-12
    assert lost <= prediction.loss_part(buffer_bytes, rate, silent_s) + 1e-12


@given(RATES, RATES, TIMES)
def test_a_backlog_goes_only_when_more_leaves_than_comes(rate: float, drain: float, burst_s: float) -> None:
    """A buffer does not help against a HEC that is too slow: it only makes it last a while."""
    backlog = prediction.burst_bytes(rate, burst_s, drain=drain)
    recovery_s = prediction.recovery_s(1000.0, rate, drain=drain)

    assert (backlog > 0) == (rate > drain)
    assert math.isinf(recovery_s) == (drain <= rate)
    assert math.isinf(prediction.first_drop_s(1000.0, rate, drain=drain)) == (drain >= rate)
    assert 0.0 == prediction.recovery_s(0.0, rate, drain=drain)
    if backlog:
        assert prediction.first_drop_s(backlog, rate, drain=drain) == pytest.approx(burst_s)


def test_warnings_go_on_into_the_reserve_and_others_do_not() -> None:
    """Of 800 bytes 700 are for all; of 700 more that come, a tenth are warnings."""
    assert 0.5 == prediction.loss_part(800, 1400, 1.0)
    assert prediction.loss_part(800, 1400, 1.0, severe_part=0.1) == pytest.approx(1 - 770 / 1400)
    assert prediction.loss_part(800, 1400, 1.0, severe_part=1.0) == pytest.approx(1 - 800 / 1400)


def test_the_worked_numbers_come_out() -> None:
    """They are what documents quote: 256 KiB in 50 ms, and four workers of 400 KB/s through 30 s."""
    assert 5.2e6 == pytest.approx(prediction.ceiling(256 << 10, answer_s=0.048, gzip_s=0.002), rel=0.01)
    assert 12e6 == prediction.outage_bytes(1000 * 400, 30)
    assert math.isinf(prediction.ceiling(1, answer_s=0, gzip_s=0))
    # 4 * (16 MiB + 512 KiB + 49 KiB + 2.5 MB of 41943 records) * 1.3.
    cost = prediction.memory_bytes(16 << 20, batch_bytes=256 << 10, line_bytes=400, workers=4)
    assert 103.1e6 == pytest.approx(cost, rel=0.01)


@given(st.integers(0, 200), st.floats(0.1, 40), st.sampled_from([0.0, 10.0]))
def test_attempts_are_those_that_the_sender_makes(seed: int, until_s: float, attempt_s: float) -> None:
    """Runs are cut to fall between them; the sender's own pauses decide, and not a copy of them."""
    clock = FakeClock(monotonic=0.0)
    pace = Pace(clock=clock, rng=random.Random(seed))
    times = prediction.attempts_s(seed, until_s=until_s, attempt_s=attempt_s)

    for time_s in times:
        clock.advance(attempt_s)
        pace.failed()
        clock.advance(pace.wait_s())
        assert time_s == pytest.approx(clock.monotonic(), abs=1e-3)
    assert times[-1] >= until_s
    assert all(time_s < until_s for time_s in times[:-1])


def test_the_end_of_an_outage_goes_unnoticed_for_as_long_as_a_pause() -> None:
    """It is up to the longest pause, and has to be counted to the outage that was asked about."""
    usual, worst = prediction.unnoticed_s(30.0, part=0.5), prediction.unnoticed_s(30.0)

    assert 0 < usual < worst <= MAX_PAUSE_S
    assert prediction.unnoticed_s(0.5) < worst
    assert worst == prediction.unnoticed_s(30.0)
    # In a black hole the attempt itself goes on after the end.
    assert prediction.unnoticed_s(1.0, part=0.01, attempt_s=10.0) >= 9.0
