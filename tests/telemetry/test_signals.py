"""Each signal is one declared line and a declared metric, and strangers can't make it a flood."""

from __future__ import annotations

import errno
import inspect
import io
import json
import threading
from collections.abc import Iterator
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from collector.outcome import Outcome, Reason
from collector.telemetry.catalogue import METRICS, SIGNALS, SPAN, Kind, Signal
from collector.telemetry.gathering import MAX_KEYS
from collector.telemetry.logs import LEVELS, build_logger, is_withheld, rfc3339
from collector.telemetry.metrics import OVERFLOW, Metrics, Snapshot
from collector.telemetry.signals import Signals
from collector.telemetry.stdout import LineStream
from tests.fakes import FakeClock, RecordingSignals

STARTED = "2026-01-02T03:04:05.678901Z"

# What an argument is called on the line, where it is not called the same.
FIELD = {"tenant_id": "tenant", "code": "reason", "first_us": "first", "last_us": "last"}

# Arguments for every signal. A signal with two levels is here twice.
CALLS: list[tuple[str, dict[str, Any], str | None]] = [
    ("worker.started", {"pid": 7, "owner": "w1"}, "info"),
    (
        "drain.done",
        {
            "scope": "worker", "accepted": 5, "delivered": 4, "rescued": 1, "rejected_by_sink": 0, "dropped": 0,
            "deduplicated": 0, "left": 0, "owner": "w1",
        },
        "info",
    ),
    (
        "drain.done",
        {
            "scope": "task", "accepted": 5, "delivered": 4, "rescued": 0, "rejected_by_sink": 0, "dropped": 0,
            "deduplicated": 0, "left": 1,
        },
        "warning",
    ),
    ("batch.throttled", {"route": "default"}, "warning"),
    ("batch.in_doubt", {"route": "default", "count": 3}, "warning"),
    (
        "events.refused",
        {"route": "default", "reason": Reason.SINK_INVALID, "parked": True, "cause": "no text", "count": 2},
        "warning",
    ),
    ("event.claimed", {"route": "default"}, "info"),
    ("batch.rescued", {"route": "default", "cause": "drain", "count": 3}, "warning"),
    ("rescue.unreadable", {"place": "/rescue/route=default/a.ndjson.zst", "cause": "torn"}, "error"),
    ("replay.done", {"found": 3, "delivered": 3, "rejected": 0, "left": 0}, "info"),
    ("replay.done", {"found": 3, "delivered": 1, "rejected": 1, "left": 1}, "warning"),
    ("upload.accepted", {"tenant_id": "acme", "protocol": "native", "events": 3, "bytes": 90}, None),
    ("upload.refused", {"tenant_id": "acme", "protocol": "native", "reason": Reason.OVER_QUOTA}, "warning"),
    ("upload.refused", {"tenant_id": None, "protocol": "native", "reason": Reason.UNKNOWN_KEY}, "warning"),
    ("connection.evicted", {"state": "idle"}, "warning"),
    (
        "upload.unconfirmed",
        {"tenant_id": "acme", "protocol": "native", "receipt": "01a20600-c614-70ea-9b7c-7d6350bd5503", "events": 3},
        "warning",
    ),
    (
        "events.rejected",
        {"tenant_id": "acme", "protocol": "native", "code": Reason.TOO_LARGE, "count": 2},
        "warning",
    ),
    ("events.deduplicated", {"tenant_id": "acme", "protocol": "native", "count": 2}, None),
    ("dedupe.unchecked", {"tenant_id": "acme", "cause": "No space left on device", "count": 2}, "error"),
    ("dedupe.shortened", {"count": 2}, "warning"),
    ("memory.short", {"used_bytes": 480, "limit_bytes": 512, "held_bytes": 64}, "error"),
    ("memory.recovered", {"used_bytes": 400, "limit_bytes": 512}, "info"),
    ("batch.delivered", {"route": "default", "events": 3, "bytes": 90, "seconds": 0.25}, "debug"),
    ("batch.failed", {"route": "default", "error": "503", "attempts": 3, "retry_in_s": 0.5}, "warning"),
    (
        "events.lost",
        {
            "tenant_id": "acme", "outcome": Outcome.DROPPED, "reason": Reason.CORRUPT_FRAME, "count": 2,
            "segment": "default.1",
        },
        "error",
    ),
    (
        "events.lost",
        {
            "tenant_id": "acme", "outcome": Outcome.REJECTED_BY_SINK, "reason": Reason.SINK_INVALID, "count": 2,
            "segment": "default.1",
        },
        "warning",
    ),
    ("spool.refusing", {"cause": "no space left"}, "error"),
    ("spool.recovered", {}, "info"),
    ("segment.adopted", {"owner": "w2", "segments": 2, "events": 10}, "warning"),
    ("frame.corrupt", {"segment": "default.1", "offset": 4096}, "error"),
    ("tail.cut", {"segment": "default.1", "bytes": 17}, "warning"),
    ("ledger.imbalance", {"tenant_id": "acme", "accepted": 5, "accounted": 4}, "error"),
    ("tenants.loaded", {"count": 2, "version": "abc123"}, "info"),
    ("tenants.rejected", {"problems": ["tenants.a.share: give a number over 0"]}, "error"),
    ("generation.ready", {"generation": 2, "pid": 7, "workers": 2, "seconds": 0.5}, "info"),
    ("generation.ended", {"generation": 1, "pid": 7, "status": 0, "killed": False, "seconds": 0.5}, "info"),
    ("generation.ended", {"generation": 1, "pid": 7, "status": -9, "killed": True, "seconds": 25.0}, "warning"),
    ("reload.done", {"generation": 2, "seconds": 1.5}, "info"),
    ("reload.rejected", {"stage": "preflight", "problem": "COLLECTOR_WORKERS: 'many' is no number"}, "error"),
    ("master.died", {"generation": 1, "pid": 7, "status": -9, "restart_in_s": 0.0}, "warning"),
    ("stdout.lost", {"count": 3, "first_us": 1_767_323_045_000_000, "last_us": 1_767_323_045_500_000}, "error"),
    (
        "hec.dropped",
        {"reason": "full", "count": 3, "first_us": 1_767_323_045_000_000, "last_us": 1_767_323_045_500_000},
        "error",
    ),
    ("hec.failing", {"cause": "503: server is busy", "retry_in_s": 3.5}, "warning"),
    ("hec.refused", {"cause": "403: invalid (code 4)", "retry_in_s": 60.0}, "error"),
    ("hec.unconfirmed", {"cause": "its token does not use them"}, "error"),
    ("hec.recovered", {"seconds": 12.5}, "info"),
    (
        "intake.report",
        {
            "tenant_id": "acme", "seconds": 60.0, "uploads": 3, "events": 9, "bytes": 810, "refused": 1, "rejected": 2,
            "deduplicated": 0,
        },
        "info",
    ),
    (
        "route.report",
        {
            "route": "default", "seconds": 60.0, "batches": 3, "events": 9, "bytes": 810, "failures": 1, "throttled": 0,
            "in_doubt": 0, "width": 4,
        },
        "info",
    ),
    (
        "worker.report",
        {
            "connections": 12, "lag_s": 0.001, "resident_bytes": 60 << 20, "memory_used_bytes": 200 << 20,
            "memory_limit_bytes": 512 << 20, "spool_bytes": 4096, "spool_budget_bytes": 64 << 20,
            "spool_refusing": False,
        },
        "info",
    ),
    (
        "ledger.report",
        {
            "accepted": 9, "delivered": 8, "rescued": 0, "rejected_by_sink": 0, "dropped": 0, "deduplicated": 0,
            "pending": 1, "balanced": True,
        },
        "info",
    ),
    (
        "hec.report",
        {
            "emitted": 100, "delivered": 90, "dropped": 2, "queued": 5, "in_flight": 3, "held_bytes": 3200,
            "buffer_bytes": 16 << 20, "high_water_bytes": 9000, "oldest_age_s": 0.5, "bytes_in": 40_000,
            "bytes_wire": 8_000, "requests": 4, "retries": 1, "possible_duplicates": 0,
        },
        "info",
    ),
    ("internal.error", {"where": "receiver.app", "error": RuntimeError("broken")}, "error"),
]  # fmt: skip


class World:
    """Signals with all that they speak to."""

    def __init__(self, *, level: str = "debug", max_keys: int = MAX_KEYS) -> None:
        self.out = io.BytesIO()
        self.clock = FakeClock()
        self.metrics = Metrics(worker="w1")
        logger = build_logger(self.out, level, clock=self.clock)
        self.signals = Signals(logger, self.metrics, clock=self.clock, max_keys=max_keys)

    def lines(self) -> list[dict[str, Any]]:
        """Return the lines since the last look."""
        lines = [json.loads(line) for line in self.out.getvalue().splitlines()]
        self.out.seek(0)
        self.out.truncate()
        return lines

    def prepare(self, name: str) -> None:
        """Let happen what a signal needs to have something to say."""
        before = {
            "spool.recovered": lambda: self.signals.spool_refusing("a cause"),
            "memory.recovered": lambda: self.signals.memory_short(480, 512, 64),
            "hec.recovered": lambda: self.signals.hec_failing("503", 1.0),
        }
        if name in before:
            before[name]()
            self.lines()

    def say(self, name: str, arguments: dict[str, Any]) -> None:
        self.prepare(name)
        getattr(self.signals, SIGNALS[name].method)(**arguments)


@pytest.fixture
def world() -> World:
    return World()


def moved(before: Snapshot, after: Snapshot) -> Iterator[str]:
    """Name the metrics that changed or appeared."""
    for kind in ("counters", "gauges", "histograms"):
        old, new = getattr(before, kind), getattr(after, kind)
        yield from (name for name in new if old.get(name) != new[name])


# -- the table --------------------------------------------------------------------------------------------------


def test_every_method_is_declared_and_every_declared_signal_is_a_method() -> None:
    """The table is what operators read; a signal that is not in it does not exist for them."""
    methods = {name for name, _ in inspect.getmembers(Signals, inspect.isfunction) if not name.startswith("_")}

    assert methods - {"flush"} == {signal.method for signal in SIGNALS.values()}


def test_the_calls_of_these_tests_cover_every_signal_at_each_of_its_levels() -> None:
    """A signal that no test calls can differ from its declaration."""
    called = {(name, level) for name, _, level in CALLS}

    assert {(s.name, level) for s in SIGNALS.values() for level in s.levels or (None,)} == called


@pytest.mark.parametrize("signal", SIGNALS.values(), ids=lambda signal: signal.name)
def test_every_declaration_is_sound(signal: Signal) -> None:
    """Names must not change, metrics must exist, and no field may be one that is withheld."""
    assert 2 == len(signal.name.split("."))
    assert set(signal.levels) <= set(LEVELS)
    assert signal.metrics
    assert set(signal.metrics) <= set(METRICS)
    assert not [field for field in signal.fields if is_withheld(field)]
    assert len(set(signal.fields)) == len(signal.fields)
    assert not {"ts", "level", "event"} & set(signal.fields)
    assert signal.help.endswith(".")


def test_what_counts_as_a_counter_of_a_signal_is_counted_by_one_signal_alone() -> None:
    """Two signals in one counter can't be told apart; loads that fail or succeed have a label for it."""
    owners: dict[str, list[str]] = {}
    for signal in SIGNALS.values():
        for name in signal.metrics:
            if METRICS[name].kind is Kind.COUNTER and not signal.is_report:
                owners.setdefault(name, []).append(signal.name)

    shared = {name: signals for name, signals in owners.items() if len(signals) > 1}
    assert {
        "collector_tenants_reloads_total": ["tenants.loaded", "tenants.rejected"],
        "collector_reloads_total": ["reload.done", "reload.rejected"],
    } == shared


@pytest.mark.parametrize(("name", "arguments", "level"), CALLS)
def test_a_signal_is_the_line_and_the_metrics_that_are_declared(
    world: World, name: str, arguments: dict[str, Any], level: str | None
) -> None:
    """The line says what was passed, no field more or less, and what was to be counted is counted."""
    world.prepare(name)
    before = world.metrics.snapshot()

    getattr(world.signals, SIGNALS[name].method)(**arguments)
    world.signals.flush()

    counted = set(moved(before, world.metrics.snapshot()))
    assert (set() if SIGNALS[name].is_report else set(SIGNALS[name].metrics)) == counted
    lines = world.lines()
    assert ([] if level is None else [(name, level)]) == [(line["event"], line["level"]) for line in lines]
    for line in lines:
        assert {"ts", "level", "event", *SIGNALS[name].fields} == set(line)
        said = {field: value for field, value in arguments.items() if name != "internal.error" or field != "error"}
        said |= {field: rfc3339(value) for field, value in said.items() if field in ("first_us", "last_us")}
        assert {FIELD.get(name, name): value for name, value in said.items()} == {
            FIELD.get(name, name): line[FIELD.get(name, name)] for name in said
        }


@pytest.mark.parametrize(("name", "arguments"), [call[:2] for call in CALLS])
def test_a_signal_on_a_broken_stdout_is_still_counted_and_raises_nothing(
    name: str, arguments: dict[str, Any], pipe: tuple[int, int], monkeypatch: pytest.MonkeyPatch
) -> None:
    """The log driver is not on the way of an event."""

    def refuse(fd: int, data: bytes) -> int:
        raise OSError(errno.EAGAIN if "upload" in name else errno.EPIPE, "no")

    _, writer = pipe

    monkeypatch.setattr("collector.telemetry.stdout.os.write", refuse)
    metrics = Metrics()
    clock = FakeClock()
    stream = LineStream(clock=clock, fd=writer)
    signals = Signals(build_logger(stream, "debug"), metrics, clock=FakeClock())
    if name == "spool.recovered":
        signals.spool_refusing("a cause")
    if name == "memory.recovered":
        signals.memory_short(480, 512, 64)
    if name == "hec.recovered":
        signals.hec_failing("503", 1.0)
    before = metrics.snapshot()

    getattr(signals, SIGNALS[name].method)(**arguments)
    signals.flush()
    stream.close(clock.advance)

    assert SIGNALS[name].is_report or set(SIGNALS[name].metrics) <= set(moved(before, metrics.snapshot()))
    assert stream.lost >= len(SIGNALS[name].levels[:1])


# -- one by one -------------------------------------------------------------------------------------------------


def test_an_upload_that_was_taken_is_never_a_line(world: World) -> None:
    """Lines must not grow with traffic."""
    for _ in range(1000):
        world.signals.upload_accepted("acme", "native", 5, 1800)
    world.signals.flush()

    assert [] == world.lines()
    labels = ("acme", "native")
    assert 1000 == world.metrics.value("collector_uploads_total", labels)
    assert 5000 == world.metrics.value("collector_upload_events_total", labels)
    assert 1_800_000 == world.metrics.value("collector_upload_bytes_total", labels)


def test_a_delivered_batch_is_a_line_only_for_who_debugs() -> None:
    """At four batches a second a worker it is noise to everybody else."""
    world = World(level="info")

    world.signals.batch_delivered("default", events=10, bytes=3600, seconds=0.02)

    assert [] == world.lines()
    assert 1 == world.metrics.value("collector_batches_delivered_total", ("default",))
    assert 1 == world.metrics.value("collector_batch_seconds", ("default",))


def test_refusals_are_counted_at_once_and_told_once_a_flush_with_count_and_times(world: World) -> None:
    """A stranger with a wrong key and a loop must not write our log."""
    for _ in range(3):
        world.signals.upload_refused(None, "native", Reason.UNKNOWN_KEY)
        world.clock.advance(0.25)
    world.signals.upload_refused("acme", "native", Reason.OVER_QUOTA)

    assert [] == world.lines()
    assert 3 == world.metrics.value("collector_uploads_refused_total", ("", "native", "unknown_key"))
    world.signals.flush()
    strangers, acme = world.lines()
    assert (None, "unknown_key", 3) == (strangers["tenant"], strangers["reason"], strangers["count"])
    assert STARTED == strangers["first"]
    assert "2026-01-02T03:04:06.178901Z" == strangers["last"]
    assert ("acme", "over_quota", 1) == (acme["tenant"], acme["reason"], acme["count"])


def test_a_flush_starts_the_count_anew_and_one_without_news_says_nothing(world: World) -> None:
    """A line's count is what happened since the last one."""
    world.signals.upload_refused("acme", "native", Reason.DRAINING)
    world.signals.flush()
    world.lines()

    world.signals.flush()

    assert [] == world.lines()
    world.signals.upload_refused("acme", "native", Reason.DRAINING)
    world.signals.flush()
    assert [1] == [line["count"] for line in world.lines()]


def test_rejected_events_are_told_by_their_sum(world: World) -> None:
    """The count is of events, not of uploads."""
    world.signals.events_rejected("acme", "native", Reason.TOO_LARGE, 3)
    world.signals.events_rejected("acme", "native", Reason.TOO_LARGE, 4)
    world.signals.events_rejected("acme", "native", Reason.NOT_AN_OBJECT, 1)
    world.signals.flush()

    assert [("too_large", 7), ("not_an_object", 1)] == [(line["reason"], line["count"]) for line in world.lines()]
    assert 7 == world.metrics.value("collector_events_rejected_total", ("acme", "native", "too_large"))


def test_the_corrupt_frames_of_a_segment_are_one_line_with_the_first_place(world: World) -> None:
    """A segment overwritten with rubbish holds thousands of them."""
    for offset in (100, 200, 300):
        world.signals.frame_corrupt("default.1", offset)
    world.signals.frame_corrupt("default.2", 0)
    world.signals.flush()

    expected = [("default.1", 100, 3), ("default.2", 0, 1)]
    assert expected == [(line["segment"], line["offset"], line["count"]) for line in world.lines()]
    assert 4 == world.metrics.value("collector_frames_corrupt_total")


@given(st.lists(st.tuples(st.integers(0, 12), st.sampled_from(list(Reason)), st.booleans()), max_size=60))
def test_however_many_kinds_there_are_lines_are_bounded_and_counts_add_up(
    refusals: list[tuple[int, Reason, bool]],
) -> None:
    """What is folded together is still all there."""
    world = World(max_keys=5)
    for tenant, reason, rejected in refusals:
        if rejected:
            world.signals.events_rejected(f"t{tenant}", "native", reason, 1)
        else:
            world.signals.upload_refused(f"t{tenant}", "native", reason)
    world.signals.flush()

    lines = world.lines()
    # Beside the five, one overflow for each of the two signals.
    assert len(lines) <= 7
    assert len(refusals) == sum(line["count"] for line in lines)
    folded = sum(line["count"] for line in lines if line["tenant"] == OVERFLOW)
    assert folded == world.metrics.value("collector_log_keys_folded_total")
    assert all({"ts", "level", "event", *SIGNALS[line["event"]].fields} == set(line) for line in lines)


def test_a_refusing_spool_says_so_on_a_change_only(world: World) -> None:
    """Who asks a full spool a thousand times a second must not be told as often."""
    signals, gauge = world.signals, "collector_spool_refusing"
    states = [world.metrics.value(gauge)]
    for act in (signals.spool_recovered, lambda: signals.spool_refusing("full"), lambda: signals.spool_refusing("b")):
        act()
        states.append(world.metrics.value(gauge))
    signals.spool_recovered()
    signals.spool_recovered()
    signals.spool_refusing("read-only")

    assert [0, 0, 1, 1] == states
    assert [("spool.refusing", "full"), ("spool.recovered", None), ("spool.refusing", "read-only")] == [
        (line["event"], line.get("cause")) for line in world.lines()
    ]


def test_whether_the_spool_refuses_is_on_the_page_from_the_start(world: World) -> None:
    """An alarm on a metric that is not there does not ring."""
    assert [((), 0)] == world.metrics.snapshot().gauges["collector_spool_refusing"]


def test_the_first_internal_error_comes_at_once_and_its_like_are_counted_until_the_flush(world: World) -> None:
    """A defect on the way of every request would else be a traceback for each of them."""
    for n in range(5):
        world.signals.internal_error("receiver.app", RuntimeError(f"broken {n}"))
    world.signals.internal_error("receiver.app", OSError("another"))

    first, other = world.lines()
    assert ("RuntimeError", 1) == (first["error"], first["count"])
    assert "RuntimeError: broken 0\n" == first["traceback"]
    assert "OSError" == other["error"]
    world.signals.flush()
    (rest,) = world.lines()
    assert ("receiver.app", "RuntimeError", 4) == (rest["where"], rest["error"], rest["count"])
    assert {"ts", "level", "event", "where", "error", *SPAN} == set(rest)
    world.signals.internal_error("receiver.app", RuntimeError("again"))
    assert [1] == [line["count"] for line in world.lines()]
    assert 7 == world.metrics.value("collector_internal_errors_total", ("receiver.app",))


def test_kinds_of_internal_errors_are_bounded_too() -> None:
    """An error's class may be made at run time."""
    world = World(max_keys=3)

    for n in range(10):
        world.signals.internal_error("here", type(f"Error{n}", (Exception,), {})())
    told = len(world.lines())
    world.signals.flush()

    assert 3 == told
    lines = world.lines()
    assert 4 == len(lines)
    assert 7 == sum(line["count"] for line in lines)


def test_nothing_is_kept_of_an_error_that_was_logged(world: World) -> None:
    """Its frames hold the upload that it happened to, for as long as somebody holds the error."""

    class Watched(Exception):
        gone = 0

        def __del__(self) -> None:
            Watched.gone += 1

    for _ in range(2):
        world.signals.internal_error("here", Watched())

    assert 2 == Watched.gone


def test_the_memory_of_a_flushed_second_is_given_back(world: World) -> None:
    """Aggregates live for a second; whoever keeps them grows."""
    for n in range(100):
        world.signals.upload_refused(f"t{n}", "native", Reason.OVER_QUOTA)
        world.signals.internal_error(f"place{n}", RuntimeError())
    world.signals.flush()

    assert not world.signals._gathering.take()
    assert not world.signals._shown


def test_signals_from_threads_are_all_told_while_another_flushes(world: World) -> None:
    """An occurrence between the look and the reset must be in this line or in the next."""

    def refuse() -> None:
        for _ in range(3000):
            world.signals.upload_refused("acme", "native", Reason.BACKPRESSURE)

    def flush() -> None:
        for _ in range(3000):
            world.signals.flush()

    flusher = threading.Thread(target=flush)
    threads = [threading.Thread(target=refuse) for _ in range(3)]
    for thread in (flusher, *threads):
        thread.start()
    for thread in (flusher, *threads):
        thread.join()
    world.signals.flush()

    counts = [line["count"] for line in world.lines()]
    assert 9000 == sum(counts)
    assert 9000 == world.metrics.value("collector_uploads_refused_total", ("acme", "native", "backpressure"))


# -- secrets ----------------------------------------------------------------------------------------------------

free_texts = st.sampled_from(
    ["Authorization: Bearer {}", "https://h/p?key={}&x=1", "token={}", "Splunk {}", "X-Amz-Signature={}", "s3://k:{}@b"]
)
secrets = st.from_regex(r"[A-Za-z0-9]{24,40}", fullmatch=True)


@given(secrets, free_texts, st.text(max_size=20), st.text(max_size=20))
def test_a_secret_in_any_free_text_of_any_signal_does_not_reach_the_log(
    secret: str, form: str, before: str, after: str
) -> None:
    """Every signal that carries a text may be handed the message of a library, with a URL or a header in it."""
    text = f"{before} {form.format(secret)} {after}"
    tried = set()
    world = World()
    for name, arguments, _ in CALLS:
        for field, value in arguments.items():
            # Ids, routes and segments are names by our own rule, not texts.
            if field in {"error", "cause", "problems", "where", "version"}:
                hostile: Any = RuntimeError(text) if isinstance(value, BaseException) else text
                world.say(name, {**arguments, field: [text, text] if isinstance(value, list) else hostile})
                tried.add((name, field))
    world.signals.flush()

    assert len(tried) >= 6
    assert secret.encode() not in world.out.getvalue()
    assert b"[withheld]" in world.out.getvalue()


@given(secrets, st.sampled_from([ValueError, KeyError, UnicodeError, LookupError, Exception, BaseException]))
def test_the_content_that_an_error_quotes_does_not_reach_the_log(secret: str, kind: type[BaseException]) -> None:
    """Event content is in no form that a search could find; only messages that are known to be clean are shown."""
    world = World()
    cause = kind(f"can't parse {secret}")
    error = RuntimeError("in the way of an upload")
    error.__cause__ = cause
    cause.__context__ = KeyError(secret)

    world.signals.internal_error("receiver.app", error)

    assert secret.encode() not in world.out.getvalue()
    assert b"RuntimeError: in the way of an upload" in world.out.getvalue()


# -- the fake ---------------------------------------------------------------------------------------------------


def test_the_recording_fake_takes_every_signal_as_the_real_one_does() -> None:
    """A test with the fake must not pass on a call that fails in production."""
    fake = RecordingSignals()

    for name, arguments, _ in CALLS:
        getattr(fake, SIGNALS[name].method)(**arguments)
    fake.flush()

    assert [(SIGNALS[name].method, arguments) for name, arguments, _ in CALLS] == fake.calls
    assert 1 == fake.flushes
    assert [{"cause": "no space left"}] == fake.named("spool_refusing")
    with pytest.raises(TypeError):
        fake.tail_cut("default.1")  # type: ignore[call-arg]  # the very mistake
