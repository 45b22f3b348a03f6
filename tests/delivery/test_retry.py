"""When to try again."""

from __future__ import annotations

import random

from hypothesis import given
from hypothesis import strategies as st

from collector.delivery.retry import Backoff


@given(failures=st.integers(0, 10_000), seed=st.integers())
def test_a_delay_is_between_zero_and_its_bound(failures: int, seed: int) -> None:
    """Full jitter; a long outage must neither overflow nor wait for ever."""
    delay = Backoff(rng=random.Random(seed), base_s=0.5, cap_s=30.0).delay_s(failures)

    assert 0.0 <= delay <= min(30.0, 0.5 * 2 ** max(0, min(failures, 40) - 1))


def test_workers_that_failed_together_do_not_come_back_together() -> None:
    """A sink that comes up again must not be met by everybody at once."""
    delays = [Backoff(rng=random.Random(n), base_s=0.5, cap_s=30.0).delay_s(10) for n in range(200)]

    assert min(delays) < 3.0
    assert max(delays) > 27.0
