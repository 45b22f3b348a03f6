"""From `put` to the index and back into the accounts, in every state that a HEC can be in, with acks and without."""

from __future__ import annotations

import random
import threading
from collections import Counter
from collections.abc import Callable
from typing import Any

import pytest

from collector.clock import SystemClock
from collector.control.hec.endpoint import CLOUD_BYTES, Rules
from collector.control.hec.faults import Answer, Fault, Line, Slow, redirect
from collector.control.hec.simulated import SimulatedHec
from collector.telemetry.hec import transport
from collector.telemetry.hec.handler import HecHandler
from collector.telemetry.hec.options import Account, HecOptions
from collector.telemetry.hec.sender import Hooks

LONG_S = 30.0
ACKS = pytest.mark.parametrize("ack", [False, True], ids=["plain", "acks"])


class Quick(random.Random):
    """No pause but what HEC asks for."""

    def uniform(self, a: float, b: float) -> float:
        return 0.0 if a == 0 else 0.001


@pytest.fixture(autouse=True)
def _short(monkeypatch: pytest.MonkeyPatch) -> None:
    """A silent HEC is given up soon, and what is held is tried again soon."""
    monkeypatch.setattr(transport, "_READ_S", 0.1)
    monkeypatch.setattr("collector.telemetry.hec.pace.HELD_S", 1.0)
    monkeypatch.setattr("collector.telemetry.hec.acks.POLL_S", 0.02)


class Flow:
    """A handler before a simulated HEC, looked at by a thread of its own all the while."""

    def __init__(self, hec: SimulatedHec, **options: Any) -> None:
        self.told: list[str] = []
        self.hec = hec
        self.inexact: list[Account] = []
        defaults: dict[str, Any] = {"url": hec.url, "token": hec.token, "linger_s": 0.005, "batch_lines": 20}
        self.handler = HecHandler(
            HecOptions(**(defaults | options)), clock=SystemClock(), rng=Quick(0),
            hooks=Hooks(
                failing=lambda *_: self.told.append("failing"), refused=lambda *_: self.told.append("refused"),
                recovered=lambda *_: self.told.append("recovered"),
                unconfirmed=lambda *_: self.told.append("unconfirmed"),
                defect=lambda error: self.told.append(repr(error)),
            ),
        )  # fmt: skip
        self.count = 0
        self._over = threading.Event()
        self._watcher = threading.Thread(target=self._watch)
        self._watcher.start()
        self.handler.start()

    def _watch(self) -> None:
        while not self._over.wait(0.001):
            account = self.handler.account()
            if not account.is_exact or account.held_bytes > self.handler.options.buffer_bytes:
                self.inexact.append(account)

    def put(self, count: int) -> None:
        for number in range(self.count, self.count + count):
            self.handler.put(b'{"seq":%d}' % number, "info")
        self.count += count

    def until(self, condition: Callable[[Account], object]) -> None:
        pause = threading.Event()
        for _ in range(6000):
            if condition(self.handler.account()):
                return
            pause.wait(0.005)
        raise AssertionError(f"it never came to that: {self.handler.account()}, {self.told}")

    def end(self) -> Account:
        self.handler.shutdown(LONG_S)
        self._over.set()
        self._watcher.join()
        account = self.handler.account()
        assert [] == self.inexact
        assert (True, self.count, 0, 0) == (account.is_exact, account.emitted, account.queued, account.in_flight)
        return account


def expected(count: int) -> list[bytes]:
    return [b'{"seq":%d}' % number for number in range(count)]


#: Each with whether lines arrive with it, so that they come twice.
STATES: dict[str, tuple[Fault, bool]] = {
    "silent": (Line.BLACK_HOLE, False),
    "reset": (Line.RESET, False),
    "closing before": (Line.CLOSE_BEFORE, False),
    "losing answers": (Line.LOSE_ANSWER, True),
    "cutting answers": (Line.CUT_ANSWER, True),
    "busy": (Answer(code=9), False),
    "unhealthy": (Answer(code=18), False),
    "shutting down": (Answer(code=23), False),
    "at capacity": (Answer(code=26), False),
    "acks at capacity": (Answer(code=27), False),
    "internal error": (Answer(code=8), False),
    "internal error, taken": (Answer(code=8, takes=True), True),
    "token disabled": (Answer(code=1), False),
    "token invalid": (Answer(code=4), False),
    "index": (Answer(code=7), False),
    "gateway": (Answer(status=502, body=b"<html>"), False),
    "gateway, taken": (Answer(status=504, body=b"<html>", takes=True), True),
    "missing": (Answer(status=404, body=b"<html>"), False),
    "redirecting": (redirect("http://127.0.0.1:1/"), False),
    "somebody else's 200": (Answer(status=200, body=b"<html>"), False),
    "empty 200": (Answer(status=200, body=b""), False),
    "204": (Answer(status=204, body=b""), False),
}


@ACKS
@pytest.mark.parametrize("state", STATES)
def test_an_outage_costs_no_line(state: str, ack: bool) -> None:
    """It is put through it all the while; afterwards all is there, and what may be there twice was said to be."""
    fault, comes_twice = STATES[state]
    with SimulatedHec(Rules(ack=ack)) as hec:
        flow = Flow(hec, ack=ack)
        flow.put(60)
        flow.until(lambda account: account.delivered == 60)
        with hec.outage(fault):
            flow.put(60)
            flow.until(lambda account: account.requests >= 3 + 2 and account.retries)
        flow.put(60)
        flow.until(lambda account: account.delivered == 180)
        account = flow.end()

        indexed = Counter(hec.lines)
        assert set(expected(180)) == set(indexed)
        repeated = sum(indexed.values()) - 180
        assert repeated == hec.books().repeated
        assert (180, {}) == (account.delivered, account.dropped)
        assert account.possible_duplicates >= repeated
        assert comes_twice is (repeated > 0)
        if not account.possible_duplicates:
            assert expected(180) == hec.lines


@ACKS
def test_a_hec_that_is_not_there_costs_no_line(ack: bool) -> None:
    """Nothing has left, so nothing can be there twice."""
    with SimulatedHec(Rules(ack=ack)) as hec:
        flow = Flow(hec, ack=ack)
        flow.put(20)
        flow.until(lambda account: account.delivered == 20)
        with hec.outage():
            flow.put(100)
            flow.until(lambda account: account.results.get("unsent", 0) >= 5 and "failing" in flow.told)
        flow.until(lambda account: account.delivered == 120)
        account = flow.end()

        assert ["failing", "recovered"] == flow.told
        assert expected(120) == hec.lines
        assert 0 == account.possible_duplicates


@ACKS
def test_a_slow_hec_is_waited_for(ack: bool, monkeypatch: pytest.MonkeyPatch) -> None:
    """Slow is not away."""
    monkeypatch.setattr(transport, "_READ_S", 10.0)
    with SimulatedHec(Rules(ack=ack)) as hec:
        hec.script(*[Slow(0.05)] * 4)
        flow = Flow(hec, ack=ack)
        flow.put(100)
        account = flow.end()

        assert (expected(100), 0, 100) == (hec.lines, account.retries, account.delivered)


@ACKS
def test_a_token_that_is_changed_is_found_out_and_mended(ack: bool) -> None:
    """Lines wait for the human, and the alarm is raised once."""
    with SimulatedHec(Rules(ack=ack)) as hec:
        flow = Flow(hec, ack=ack)
        token = hec.token
        hec.rules = Rules(ack=ack, token="another")
        flow.put(50)
        flow.until(lambda account: account.results.get("held", 0) >= 3)
        hec.rules = Rules(ack=ack, token=token)
        account = flow.end()

        assert (["refused", "recovered"], expected(50), 0) == (flow.told, hec.lines, account.possible_duplicates)


@pytest.mark.parametrize(("limit", "status"), [(2000, 413), (2000, 400)])
def test_a_limit_that_nobody_told_is_found(limit: int, status: int) -> None:
    """Enterprise says 413, and Cloud that the first line is bad."""
    with SimulatedHec(Rules(max_content_length=limit, oversize_status=status)) as hec:
        flow = Flow(hec, batch_lines=500)
        flow.put(300)
        account = flow.end()

        assert (expected(300), 300, 0, {}) == (
            hec.lines, account.delivered, account.possible_duplicates, account.dropped,
        )  # fmt: skip


def test_a_batch_is_never_near_clouds_limit() -> None:
    """The largest that may be asked for."""
    with SimulatedHec(Rules(max_content_length=CLOUD_BYTES, oversize_status=400)) as hec:
        flow = Flow(hec, batch_lines=100_000, batch_bytes=100_000_000, buffer_bytes=64 << 20)
        for _ in range(200):
            flow.handler.put(b'{"x":"' + b"x" * 60_000 + b'"}', "info")
        flow.count = 200
        account = flow.end()

        assert 200 == account.delivered
        assert max(request.body_bytes for request in hec.requests) <= 1_000_000


@ACKS
def test_lines_that_hec_refuses_cost_no_other(ack: bool) -> None:
    """What stands in an envelope and is no JSON is cut out of its batch."""
    with SimulatedHec(Rules(ack=ack)) as hec:
        flow = Flow(hec, ack=ack)
        for number in range(100):
            flow.handler.put(b'{"broken":' if number % 9 == 4 else b'{"seq":%d}' % number, "info")
        flow.count = 100
        account = flow.end()

        good = [b'{"seq":%d}' % number for number in range(100) if number % 9 != 4]
        assert Counter(good) == Counter(hec.lines)
        assert ({"rejected": 100 - len(good)}, len(good)) == (account.dropped, account.delivered)


def test_a_hec_that_restarts_and_counts_anew_gets_what_it_forgot() -> None:
    """It had answered for the lines, and its indexers had not confirmed them."""
    with SimulatedHec(Rules(ack=True, ack_after_s=600.0)) as hec:
        flow = Flow(hec, ack=True, batch_lines=10)
        flow.put(30)
        flow.until(lambda account: account.results.get("taken", 0) >= 3)
        # Another process in its place: nothing of the first is there any more.
        first = dict(hec._endpoint._channels)
        hec.forget()
        hec._endpoint._channels.clear()
        hec._endpoint._next_ack.clear()
        hec.rules = Rules(ack=True)
        assert first
        flow.put(30)
        flow.until(lambda account: account.delivered == 60)
        account = flow.end()

        assert set(expected(60)) == set(hec.lines)
        assert {} == account.dropped


def test_a_token_without_acks_is_said_and_lines_go_on() -> None:
    """Waiting for what never comes would fill the buffer."""
    with SimulatedHec() as hec:
        flow = Flow(hec, ack=True)
        flow.put(100)
        account = flow.end()

        assert (["unconfirmed"], expected(100), 100) == (flow.told, hec.lines, account.delivered)


def test_a_stale_connection_costs_no_line() -> None:
    """A busy Splunk closes those that were idle."""
    with SimulatedHec() as hec:
        hec.script(*[Line.CLOSE_AFTER] * 5)
        flow = Flow(hec)
        for _ in range(6):
            before = flow.count
            flow.put(10)
            flow.until(lambda account, before=before: account.delivered == before + 10)  # type: ignore[misc]  # a default is a way to bind
        account = flow.end()

        assert set(expected(60)) == set(hec.lines)
        assert account.possible_duplicates >= len(hec.lines) - 60


def test_a_full_buffer_loses_the_newest_and_says_how_many() -> None:
    """All that was promised to be kept is there when HEC is back."""
    with SimulatedHec() as hec, hec.outage():
        flow = Flow(hec, buffer_bytes=20_000)
        flow.put(1000)
        flow.handler.put(b'{"seq":"w"}', "warning")
        flow.count += 1
        lost = flow.handler.account().dropped["full"]
        kept = 1000 - lost
        assert not flow.handler.buffer.may_tell()
        hec.listen()
        flow.until(lambda account: account.delivered == kept + 1)
        assert flow.handler.buffer.may_tell()
        (loss,) = flow.handler.take_losses()
        account = flow.end()

        assert (lost, {"full": lost}) == (loss.count, account.dropped)
        assert account.high_water_bytes <= 20_000
        assert [*expected(kept), b'{"seq":"w"}'] == hec.lines
