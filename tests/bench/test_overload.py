"""The part of the benchmark above the rates: the open loop, the probe, and what is said of them."""

from __future__ import annotations

import math
import socket
from pathlib import Path

import pytest
from click.testing import CliRunner
from msgspec.structs import replace

import bench.__main__ as program
from bench import arrivals, overload
from bench.account import Account
from bench.arrivals import Harvest, Offer, arrive
from bench.cell import Cell, Plan
from bench.overload import Overload, Refusals, Storm
from bench.overload_table import render
from bench.probe import beside
from bench.proc import Cores
from tests.bench.test_load import OK, REQUEST, server

REFUSAL = b"HTTP/1.1 503 Busy\r\nRetry-After: %d\r\nContent-Length: 2\r\n\r\nno"
CLOSED, STEADY = Offer(math.inf, 4, fresh=False), Offer(200.0, 50, fresh=False)


def load(address: tuple[str, int], offer: Offer, seconds: float = 0.3) -> Harvest:
    return arrive(address, [REQUEST], offer, seconds=seconds, warm_up_s=0.05, expected=b'"ok"')


@pytest.mark.parametrize("offer", [CLOSED, STEADY, replace(STEADY, fresh=True)])
def test_every_request_is_counted_by_its_answer(offer: Offer) -> None:
    """The count is held against the ledger: one answer too few looks like an event too many."""
    numbers: list[int] = []
    with server(lambda body, number: (numbers.append(number) or [OK], True)) as (address, answers):  # type: ignore[func-returns-value]
        harvest = load(address, offer)

    assert len(answers.bodies) == harvest.acknowledged == len(harvest.latencies_s)
    assert 0 < harvest.accepted <= harvest.acknowledged
    assert 0.0 < harvest.latency_s(0.5) <= harvest.latency_s(0.99)
    assert ({}, {}, 0) == (harvest.wrong, harvest.failures, harvest.unknown)
    # A connection for each, or the same ones again.
    assert offer.fresh == (max(numbers) == 0)


def test_no_more_comes_than_the_rate_says() -> None:
    """A load that catches up in a burst measures the burst."""
    with server(lambda body, number: ([OK], True)) as (address, _):
        harvest = load(address, STEADY, 0.5)

    assert harvest.sent <= STEADY.per_s * (harvest.seconds + 0.05) + 1


@pytest.mark.parametrize(
    ("answer", "refused", "wrong"),
    [
        (REFUSAL % 1, True, set()),
        (REFUSAL % 5, True, set()),
        (REFUSAL % 0, False, {"503"}),
        (REFUSAL % 60, False, {"503"}),
        (b"HTTP/1.1 503 Busy\r\nContent-Length: 0\r\n\r\n", False, {"503"}),
        (b"HTTP/1.1 429 Slow\r\nRetry-After: 1\r\nContent-Length: 0\r\n\r\n", False, {"429"}),
        (b"HTTP/1.1 200 OK\r\nContent-Length: 4\r\n\r\nnone", False, {"200"}),
        (b"HTTP/1.1 200 OK\r\n\r\n", False, {"no HTTP"}),
    ],
)
def test_a_refusal_is_a_503_that_says_when_to_come_again(answer: bytes, refused: bool, wrong: set[str]) -> None:
    """Any other answer under load is a broken promise, and must not pass for a cheap refusal."""
    with server(lambda body, number: ([answer], True)) as (address, answers):
        harvest = load(address, CLOSED)

    assert 0 == harvest.acknowledged
    assert refused == (harvest.turned_away > 0)
    assert wrong == set(harvest.wrong)
    assert len(answers.bodies) == harvest.answers


def test_what_has_no_answer_is_counted_and_may_be_there(monkeypatch: pytest.MonkeyPatch) -> None:
    """The server may have kept such an upload: the books must leave room for it."""
    monkeypatch.setattr(arrivals, "PATIENCE_S", 0.2)
    with server(lambda body, number: ([], False)) as (address, _):
        closed = load(address, CLOSED)
    with socket.create_server(("127.0.0.1", 0)) as silent:
        unanswered = load(silent.getsockname(), CLOSED)

    assert {"closed"} == set(closed.failures)
    assert {"no answer"} == set(unanswered.failures)
    for harvest in (closed, unanswered):
        assert 0 == harvest.answers
        assert sum(harvest.failures.values()) == harvest.unknown > 0


def test_what_never_connected_is_nowhere() -> None:
    """Nothing of it can be in the sink."""
    with socket.create_server(("127.0.0.1", 0)) as gone:
        address = gone.getsockname()
    harvest = load(address, STEADY)

    assert {"ECONNREFUSED", "ConnectionRefusedError"} >= set(harvest.failures) > set()
    assert 0 == harvest.unknown


def test_the_probe_asks_from_a_process_of_its_own() -> None:
    """Beside a busy generator its clock would tell how busy that is."""
    with (
        server(lambda body, number: ([OK], True)) as (address, answers),
        beside(address, "/healthz", per_s=100, seconds=0.3, after_s=0.01) as probe,
    ):
        found = probe.result()

    assert len(answers.bodies) == found.acknowledged == len(found.latencies_s) > 0


@pytest.fixture(scope="module")
def measured() -> Overload:
    """One short run with a small crowd, for all tests of what is in it."""
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(overload, "CONNECTIONS", 200)
        return overload.run(Plan([], 0.3, 0.1, 1), lambda text: None)


def test_a_run_loses_nothing_and_keeps_its_promises(measured: Overload) -> None:
    """Under too much load above all: what was acknowledged is in the sink, and what was not says when to come again."""
    assert [] == measured.problems
    assert 0 < measured.refusals.harvest.turned_away
    for storm in measured.storms:
        assert 0 < storm.account.acknowledged == storm.account.stored


def test_a_run_measures_all_that_the_tables_show(measured: Overload) -> None:
    """A number that is always zero is one that nobody measured."""
    assert 0 < measured.calm.accepted
    assert 0 < measured.refusals.cpu_us
    assert [False, True] == [storm.fresh for storm in measured.storms]
    for cell in (measured.reference, measured.collector):
        assert 0 < cell.p50_ms <= cell.p99_ms
    for storm in measured.storms:
        assert 1 < storm.sustainable_per_s < storm.wanted_per_s
        assert 0 < storm.offered_per_s
        assert 0 < storm.pulse.answers
        assert 0 < storm.harvest.busy


HARVEST = Harvest(8.0, 40_000, 8000, 32_000, 8000, 32_000, {}, {}, 0, 0.5, [])
ACCOUNT = Account(50, 10, 50, 50, 0, balanced=True, stored=50, uploads_stored=10, uploads_torn=0)
CELL = Cell(1000.0, 5000.0, 900.0, 30.0, 45.0, 40 << 20, 0.99, 0.1, 0.0, {}, account=ACCOUNT)
STORM = Storm(False, 1000.0, HARVEST, HARVEST, 100.0, 0.0, ACCOUNT)
REPORT = Overload(
    "a machine", Cores(0, 1), Plan([], 4.0, 1.0, 1), CELL, CELL, HARVEST, Refusals(HARVEST, 90.0, ACCOUNT), [STORM]
)


@pytest.mark.parametrize(
    ("change", "words"),
    [
        ({"harvest": replace(HARVEST, sent=8000, busy=0.99)}, "it offered 1.0 times as much, because its core was 99%"),
        ({"harvest": replace(HARVEST, sent=8000)}, "because all its 1,500 connections waited for answers"),
        ({"harvest": replace(HARVEST, failures={"closed": 7})}, "closed: 7"),
        ({"pulse": replace(HARVEST, failures={"no answer": 3}, turned_away=0)}, "3 health checks failed"),
        ({"others_busy": 0.4}, "Something else used up to 40% of the server's core"),
        ({"harvest": replace(HARVEST, wrong={"500": 2})}, "2 answers with 500"),
        ({"account": replace(ACCOUNT, stored=49)}, "the sink holds 49"),
    ],
)
def test_what_spoils_a_number_is_said_beneath_the_tables(change: dict[str, object], words: str) -> None:
    """A table is quoted without the circumstances; those that matter must be in it."""
    calm = replace(STORM, pulse=replace(HARVEST, turned_away=0))

    assert words in render(replace(REPORT, storms=[replace(calm, **change)]))
    assert words not in render(replace(REPORT, storms=[calm]))


@pytest.mark.parametrize(("wrong", "status"), [({}, 0), ({"500": 1}, 1)])
def test_a_broken_promise_fails_the_run(
    monkeypatch: pytest.MonkeyPatch, tmp_path: Path, wrong: dict[str, int], status: int
) -> None:
    """Whoever calls this from a script sees no table, only the status."""
    report = replace(REPORT, storms=[replace(STORM, harvest=replace(HARVEST, wrong=wrong))])
    monkeypatch.setattr(overload, "run", lambda plan, tell: report)
    monkeypatch.setattr(program, "run", lambda plan, tell: pytest.fail("only one part was wanted"))

    done = CliRunner().invoke(program.main, ["--only", "overload", "--json", str(tmp_path / "numbers.json")])

    assert status == done.exit_code
    assert '"throughput": null' in (tmp_path / "numbers.json").read_text()
    assert "| **Collector** | 32 |" in done.stdout


def test_no_price_is_told_of_what_was_hardly_refused() -> None:
    """What is left of the CPU is then divided by next to nothing: it was said to be three seconds once."""
    few = replace(HARVEST, refused=1)
    told = render(replace(REPORT, storms=[replace(STORM, harvest=few, refusal_cpu_us=3e6)]))

    assert "refused, nearly all that come" in told
    assert "3,000,000" not in told
    assert "| refused, 5 times too much, connections that stay | 100 |" in render(REPORT)
