"""
From the spool to an engine that fails as AWS does: nothing is lost, and what is there twice was in doubt, and counted.
"""

from __future__ import annotations

import json
from collections import Counter
from collections.abc import Iterator
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import cast

import pytest
import zstandard

from collector import aws
from collector.buffer.room import Bounds
from collector.delivery.aside import Parking
from collector.errors import TransientSinkError
from collector.outcome import Reason
from collector.sinks.base import at_once
from collector.sinks.records import records_of
from collector.sinks.registry import open_sink
from collector.sinks.sqs import Sqs
from tests.delivery.test_flusher import World
from tests.fakes import FakeClock, RecordingSignals, ScriptedSink, batch
from tests.server import free_ports
from tests.standins.engine import Engine
from tests.standins.faults import (
    BROKEN,
    DOWN,
    EMPTY,
    ERROR_IN_200,
    NO_JSON,
    PROXY_PAGE,
    THROTTLED,
    Failure,
    Fault,
    Line,
    Page,
    Refusal,
    Some,
    TooFew,
    every,
    holding,
)
from tests.standins.sdk import ACCESS_KEY, ENVIRON

PLACES = {
    "kinesis": "kinesis://a",
    "kinesis, singly": "kinesis://a?aggregate_kib=0",
    "firehose": "firehose://a",
    "sqs": "sqs://a",
    "sqs, fifo": "sqs://a.fifo",
    "s3": "s3://bucket/a",
}
#: By what a repeat is known where it arrives, so that it is there once.
ONCE = {"sqs, fifo", "s3"}
EVENTS = 40
TENANTS = 3


@dataclass(frozen=True)
class Trouble:
    """
    A fault; one that `keeps` has its effect all the same, so that events come again.

    One `throttles`; after one that leaves all `in_doubt` nobody could know whether it had its effect.
    """

    fault: Fault
    keeps: bool = False
    throttles: bool = False
    in_doubt: bool = True


TROUBLES = {
    "the whole call came too fast": Trouble(THROTTLED, throttles=True, in_doubt=False),
    "it is broken inside": Trouble(BROKEN),
    "it is down": Trouble(DOWN, in_doubt=False),
    "it hangs": Trouble(Line.HANG, keeps=True),
    "it resets before the body": Trouble(Line.RESET_BEFORE_BODY),
    "it resets after the body": Trouble(Line.RESET_AFTER_BODY),
    "its answer is lost": Trouble(Line.REPLY_LOST, keeps=True),
    "an error in a 200": Trouble(ERROR_IN_200),
    "an empty 200": Trouble(EMPTY),
    "a 200 of nonsense": Trouble(NO_JSON),
    "a 200 of nonsense after the write": Trouble(Page(200, b"{}", keeps=True), keeps=True),
    "a proxy's page": Trouble(PROXY_PAGE),
    "it is not allowed": Trouble(Refusal(403, "AccessDeniedException"), in_doubt=False),
    "it is not there": Trouble(Refusal(400, "ResourceNotFoundException"), in_doubt=False),
    "its key is disabled": Trouble(Refusal(400, "KMSDisabledException"), in_doubt=False),
}
#: What only a call of several records can meet.
PARTIAL = {
    "some came too fast": Trouble(
        Some(Failure("ProvisionedThroughputExceededException"), every(2)), throttles=True, in_doubt=False
    ),
    "some are too many for it": Trouble(
        Some(Failure("ServiceUnavailableException"), every(2)), throttles=True, in_doubt=False
    ),
    "some broke inside": Trouble(Some(Failure("InternalFailure"), every(3))),
    "the answer forgets one": Trouble(TooFew(1), keeps=True),
}


@pytest.fixture(name="engine")
def _engine(monkeypatch: pytest.MonkeyPatch) -> Iterator[Engine]:
    for name, value in ENVIRON.items():
        monkeypatch.setenv(name, value)
    # Whoever hangs is given up after so many seconds.
    monkeypatch.setattr(aws, "_READ_S", 0.3)
    with Engine() as running:
        yield running


class Pipeline:
    """A spool, its flusher, and a sink before the engine."""

    def __init__(self, root: Path, signals: RecordingSignals, place: str, engine: Engine) -> None:
        mark = "&" if "?" in place else "?"
        self.sink = open_sink(f"{place}{mark}endpoint=http://127.0.0.1:{engine.port}", writer_id="w1")
        self.parked = ScriptedSink()
        bounds = Bounds(task_bytes=16 << 20, worker_bytes=16 << 20, segment_bytes=1 << 20)
        parking = Parking(lambda *_: self.parked, offload=at_once)
        self.world = World(root, FakeClock(), signals, bounds=bounds, parking=parking, default=self.sink)
        self.signals = signals
        self.engine = engine
        self.sent: list[str] = []

    def put(self, events: int = EVENTS, *, size: int = 20_000) -> None:
        """Take so many events of several tenants, of so many bytes in all."""
        for number in range(events):
            tenant = f"t{number % TENANTS}"
            self.sent.append(f"{len(self.sent)}")
            line = {"id": self.sent[-1], "tenant": tenant, "event": {"noise": "x" * (size // events)}}
            self.world.put(json.dumps(line).encode(), tenant=tenant)

    def until_empty(self, most: int = 80) -> None:
        for _ in range(most):
            self.world.tick(16.0)
            if self.world.spool.is_empty:
                return
        raise AssertionError(f"events are left: {self.signals.named('batch_failed')[-1]}")

    def arrived(self) -> Counter[str]:
        """Count by its id each event that the engine has kept."""
        lines: list[bytes] = []
        for one in self.engine.taken:
            payload = one.payload
            if one.service == "s3":
                payload = zstandard.ZstdDecompressor().decompress(payload)
            lines += payload.split(b"\n")
        return Counter(json.loads(line)["id"] for line in lines if line)

    def account(self, *, may_repeat: bool) -> None:
        """Hold what arrived, what was said and what was counted against each other."""
        arrived = self.arrived()
        repeats = arrived.total() - len(arrived)
        doubted = sum(told["count"] for told in self.signals.named("batch_in_doubt"))
        total = self.world.total

        assert set(self.sent) == set(arrived)
        assert repeats <= (doubted if may_repeat else 0)
        assert (len(self.sent), 0) == (total["delivered"], total["pending"])
        assert self.world.spool.books.totals().balanced
        assert not self.signals.named("internal_error")


@contextmanager
def pipeline(root: Path, place: str, engine: Engine) -> Iterator[Pipeline]:
    made = Pipeline(root, RecordingSignals(), place, engine)
    with ExitStack() as ending:
        ending.callback(made.sink.close)
        ending.callback(made.world.spool.close)
        yield made


@pytest.mark.parametrize("place", PLACES)
@pytest.mark.parametrize("name", [*TROUBLES, *PARTIAL])
def test_whatever_goes_wrong_for_a_while_all_arrives(root: Path, engine: Engine, place: str, name: str) -> None:
    """The fault meets what is under way, what is retried, and what comes meanwhile; then it is over."""
    if name in PARTIAL and place == "s3":
        pytest.skip("s3: a call has one object, and no parts that could fail by themselves")
    trouble = {**TROUBLES, **PARTIAL}[name]
    with pipeline(root, PLACES[place], engine) as line:
        line.put()
        with engine.fault(trouble.fault):
            for _ in range(3):
                line.world.tick(16.0)
            line.put(10)
            line.world.tick(16.0)
        line.until_empty()

        line.account(may_repeat=trouble.keeps and place not in ONCE)
        assert line.signals.named("batch_failed")
        assert trouble.throttles == bool(line.signals.named("batch_throttled"))
        assert (trouble.in_doubt and place != "s3") == bool(line.signals.named("batch_in_doubt"))


def test_a_connection_that_never_came_about_leaves_nothing_in_doubt(root: Path, engine: Engine) -> None:
    """Nothing was sent: an outage of an hour is not an hour of possible duplicates."""
    (engine.port,) = free_ports(1)
    with pipeline(root, "kinesis://a", engine) as line:
        line.put()
        line.world.tick(16.0)

        assert "Could not connect" in line.signals.named("batch_failed")[0]["error"]
        assert not line.signals.named("batch_in_doubt")


@pytest.mark.parametrize("place", PLACES)
def test_credentials_that_run_out_in_the_middle_cost_nothing(
    root: Path, engine: Engine, place: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Whoever hands them out is late by some minutes."""
    with pipeline(root, PLACES[place], engine) as line:
        engine.expire(ACCESS_KEY, after=1)
        for _ in range(4):
            line.put(10)
            line.world.tick(16.0)
        told = line.signals.named("batch_failed")[-1]["error"]

        assert "ExpiredToken" in told
        assert "the credentials have run out" in told

        # A client of the chain's would renew them; this one has those of the environment, and is made anew.
        monkeypatch.setenv("AWS_ACCESS_KEY_ID", "AKIDANOTHER")
        line.sink.close()
        line.until_empty()
        line.account(may_repeat=False)


@pytest.mark.parametrize("place", PLACES)
def test_a_clock_that_is_wrong_costs_nothing_and_is_told(root: Path, engine: Engine, place: str) -> None:
    """AWS refuses what is signed minutes ago, until somebody sets the clock."""
    with pipeline(root, PLACES[place], engine) as line:
        line.put()
        engine.clock_ahead_s = 3600.0
        line.world.tick(16.0)
        told = line.signals.named("batch_failed")[-1]["error"]

        assert "clock" in told

        engine.clock_ahead_s = 0.0
        line.until_empty()
        line.account(may_repeat=False)


@pytest.mark.parametrize("place", [name for name in PLACES if name != "s3"])
def test_an_event_that_is_refused_for_good_is_parked_alone(root: Path, engine: Engine, place: str) -> None:
    """Those that went in the same record arrive, each once, and the ledger says which did not."""
    with pipeline(root, PLACES[place], engine) as line:
        line.put()
        poison = b'{"id":"poison","tenant":"t1","event":{}}'
        line.world.put(poison, tenant="t1")
        with engine.fault(Some(Failure("InvalidMessageContents", sender_fault=True), holding(b'"poison"'))):
            line.until_empty()
        line.account(may_repeat=False)

        assert [poison] == line.parked.lines
        assert 1 == line.world.total["rejected_by_sink:sink_invalid"]
        (told,) = line.signals.named("events_refused")
        assert (Reason.SINK_INVALID, True, 1) == (told["reason"], told["parked"], told["count"])
        assert told["cause"].startswith("InvalidMessageContents")


@pytest.mark.parametrize("place", ["kinesis", "firehose"])
def test_a_code_that_nobody_knows_is_a_refusal_for_good(root: Path, engine: Engine, place: str) -> None:
    """What is not known to pass is not tried for ever; what it was lies parked, under the code that it had."""
    with pipeline(root, PLACES[place], engine) as line:
        line.put(4)
        with engine.fault(Some(Failure("NeverHeardOfException"), holding(b'"2"'))):
            line.until_empty()

        assert ["2"] == [json.loads(one)["id"] for one in line.parked.lines]
        assert {"0", "1", "3"} == set(line.arrived())
        assert ["NeverHeardOfException: A sentence of theirs."] == [
            told["cause"] for told in line.signals.named("events_refused")
        ]


def test_no_text_for_sqs_is_parked_and_the_rest_of_its_message_arrives(root: Path, engine: Engine) -> None:
    """JSON may hold a character as it is that a message may not."""
    with pipeline(root, "sqs://a", engine) as line:
        line.put(9)
        odd = '{"id":"odd","tenant":"t1","event":{"text":"\ufffe"}}'.encode()
        line.world.put(odd, tenant="t1")
        line.until_empty()
        line.account(may_repeat=False)

        assert [odd] == line.parked.lines


def test_what_is_no_text_is_not_sent_to_sqs_at_all(root: Path, engine: Engine) -> None:
    """It is known before: a call for it is a call for nothing."""
    with pipeline(root, "sqs://a", engine) as line:
        for odd in (b'{"id":"1","event":"\xff"}', '{"id":"2","event":"\uffff"}'.encode(), b'{"id":"3","event":"\x00"}'):
            line.world.put(odd)
            line.until_empty()

        assert 3 == len(line.parked.lines)
        assert 0 == engine.calls["SendMessageBatch"]


def test_a_queue_that_was_made_anew_is_looked_for_again(root: Path, engine: Engine) -> None:
    """Its URL may be another then; without it the queue's sink would have to be started anew."""
    with pipeline(root, "sqs://a", engine) as line:
        line.put(2)
        line.until_empty()
        engine.script(Refusal(400, "QueueDoesNotExist"))
        line.put(2)
        line.until_empty()
        line.account(may_repeat=False)

        assert 2 == engine.calls["GetQueueUrl"]
        assert "create the queue, or name another one" in line.signals.named("batch_failed")[-1]["error"]


def test_a_queue_of_another_account_is_asked_for_by_its_owner() -> None:
    """Of the same name there may be one of our own, which would take everything without a word."""
    asked: dict[str, str] = {}

    class Client:
        def get_queue_url(self, **arguments: str) -> dict[str, str]:
            asked.update(arguments)
            return {}

    with pytest.raises(TransientSinkError, match="the answer has no QueueUrl"):
        Sqs("jobs", account="123456789012").send(cast("aws.Client", Client()), records_of(batch(b"one"), 0))

    assert {"QueueName": "jobs", "QueueOwnerAWSAccountId": "123456789012"} == asked


def test_a_busy_tenants_records_go_to_many_keys_and_its_groups_to_one(root: Path, engine: Engine) -> None:
    """No shard is hot of one tenant, and no tenant's backlog is before another's."""
    with pipeline(root, "kinesis://a?aggregate_kib=1", engine) as line:
        line.put(60)
        line.until_empty()
        keys = [one.key for one in engine.taken]

    assert len(keys) == len(set(keys)) > TENANTS
    assert {"t0", "t1", "t2"} == {key.partition("/")[0] for key in keys}

    engine.taken.clear()
    with pipeline(root / "sqs", "sqs://a?aggregate_kib=1", engine) as line:
        line.put(60)
        line.until_empty()

    assert {"t0", "t1", "t2"} == {one.key for one in engine.taken}
    assert len(engine.taken) > TENANTS
