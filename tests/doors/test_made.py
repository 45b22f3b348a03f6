"""Requests that nobody has thought of mean the same at both doors; `make fuzz` asks the same for longer."""

from __future__ import annotations

import pytest
from hypothesis import HealthCheck, given, settings

from tests.doors import made
from tests.doors.heads import Heads
from tests.doors.pair import Case, Pair

# Both servers are asked over sockets: examples are few here, and the fixture is the same for all.
few = settings(max_examples=200, suppress_health_check=[HealthCheck.function_scoped_fixture, HealthCheck.too_slow])


@few
@given(case=made.cases())
def test_requests_made_by_chance_mean_the_same(doors: Pair, case: Case) -> None:
    """From nearly sound to broken, in the words that requests are made of."""
    doors.agree(case)


@few
@given(case=made.changed())
def test_bytes_changed_by_chance_mean_the_same(doors: Pair, case: Case) -> None:
    """Of real requests and of odd ones, wherever it hits."""
    doors.agree(case)


@pytest.fixture(scope="module", name="heads", params=[0, 1, 2], ids="{} proxies in front".format)
def _heads(request: pytest.FixtureRequest) -> Heads:
    return Heads(trusted_hops=request.param)


def test_a_head_that_the_hot_door_takes_is_read_by_the_other_in_the_same_way(heads: Heads) -> None:
    """Each of those that the servers are asked, without their bodies: what differs here says which field it is."""
    assert [] == [(data, parted) for data in made.corpus() if (parted := heads.differ(data))]


@few
@given(case=made.changed())
def test_a_changed_head_that_the_hot_door_takes_is_read_by_the_other_in_the_same_way(heads: Heads, case: Case) -> None:
    """Far more of them than could be asked over sockets."""
    assert heads.differ(case.data) is None
