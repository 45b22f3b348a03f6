"""The paced load: when its requests come, and from when a latency runs."""

from __future__ import annotations

import time
from itertools import pairwise

import pytest

from bench.links import LoadError
from bench.load import Traffic
from bench.paced import moments_of, paced
from tests.bench.test_load import OK, REQUEST, server


def load(address: tuple[str, int], *, per_s: float = 200.0, connections: int = 4) -> Traffic:
    return paced(per_s)(
        address, [REQUEST], connections=connections, seconds=0.3, warm_up_s=0.05, expected=b'"ok"'
    )  # fmt: skip


def test_the_same_seed_gives_the_same_moments() -> None:
    """Two runs that are compared must have had the same crowds and the same lulls."""
    moments = moments_of(1000.0, 2.0, seed=7)

    assert moments == moments_of(1000.0, 2.0, seed=7) != moments_of(1000.0, 2.0, seed=8)
    assert sorted(moments) == moments
    assert moments[-1] < 2.0
    assert 2000 == pytest.approx(len(moments), rel=0.1)


def test_moments_come_in_crowds_as_devices_do() -> None:
    """Evenly spaced requests never meet, and would find no queue."""
    moments = moments_of(1000.0, 2.0, seed=7)
    gaps = [after - before for before, after in pairwise(moments)]

    # Of a Poisson process, about a tenth of the gaps are below a tenth of the mean.
    assert 0.05 < sum(gap < 0.0001 for gap in gaps) / len(gaps) < 0.15


def test_every_request_comes_and_is_counted_by_its_answer() -> None:
    """The count is held against the ledger: one answer too few looks like an event too many."""
    with server(lambda body, number: ([OK], True)) as (address, answers):
        traffic = load(address)

    assert len(moments_of(200.0, 0.35, seed=1)) == traffic.acknowledged == len(answers.bodies)
    assert 0 < len(traffic.latencies_s) < traffic.acknowledged
    assert {} == traffic.unexpected


def test_who_comes_while_the_server_stands_still_has_waited_as_well() -> None:
    """A load that waits politely sees one slow answer where a hundred devices would have seen one each."""
    stalls_s = [0.25]

    def stall_once(body: bytes, number: int) -> tuple[list[bytes], bool]:
        if number == 5 and stalls_s:
            time.sleep(stalls_s.pop())
        return [OK], True

    with server(stall_once) as (address, _):
        traffic = load(address, connections=1)

    assert 10 < sum(latency_s > 0.1 for latency_s in traffic.latencies_s)


def test_a_refusal_is_counted_and_its_connection_replaced() -> None:
    """At half of its peak a server that refuses is no faster for it."""
    refusal = b"HTTP/1.1 503 Busy\r\nConnection: close\r\nContent-Length: 2\r\n\r\nno"
    with server(lambda body, number: ([OK], True) if number < 3 else ([refusal], False)) as (address, answers):
        traffic = load(address)

    assert {"503"} == set(traffic.unexpected)
    assert len(answers.bodies) == traffic.acknowledged + traffic.unexpected["503"]


@pytest.mark.parametrize(("pieces", "words"), [([], "closed"), ([b"HTTP/1.1 200 OK\r\n\r\n"], "Content-Length")])
def test_a_server_that_breaks_http_ends_the_run(pieces: list[bytes], words: str) -> None:
    """What became of such a request nobody knows, so no count that holds it can be true."""
    with server(lambda body, number: (pieces, False)) as (address, _), pytest.raises(LoadError, match=words):
        load(address)
