"""The handler takes whatever comes, waits for nothing, and at the end each line is there or counted."""

from __future__ import annotations

import json
import logging
import random
import threading
from collections.abc import Callable, Iterator
from typing import Any

import pytest
import splunk_handler
from hypothesis import given
from hypothesis import strategies as st

from collector.clock import SystemClock
from collector.control.hec.endpoint import Rules
from collector.control.hec.exchange import Head
from collector.control.hec.faults import Answer, Line
from collector.control.hec.simulated import SimulatedHec
from collector.telemetry.hec.handler import MAX_LINE_BYTES, HecHandler
from collector.telemetry.hec.options import Account, HecOptions
from collector.telemetry.hec.sender import Hooks
from tests.fakes import FakeClock

Make = Callable[..., HecHandler]
#: For what should take no time; a test that fails waits for it.
LONG_S = 20.0


@pytest.fixture(name="hec")
def _hec() -> Iterator[SimulatedHec]:
    with SimulatedHec() as hec:
        yield hec


@pytest.fixture(name="make")
def _make(hec: SimulatedHec) -> Iterator[Make]:
    handlers: list[HecHandler] = []

    def make(*, hooks: Hooks | None = None, clock: Any = None, is_started: bool = True, **options: Any) -> HecHandler:
        defaults: dict[str, Any] = {"url": hec.url, "token": hec.token, "linger_s": 0.01}
        handler = HecHandler(
            HecOptions(**(defaults | options)), clock=clock or SystemClock(), rng=random.Random(0),
            **({"hooks": hooks} if hooks else {}),
        )  # fmt: skip
        handlers.append(handler)
        if is_started:
            handler.start()
        return handler

    yield make
    hec.stand(None)
    hec.listen()
    for handler in handlers:
        handler.shutdown(0.1)


def until(condition: Callable[[], object]) -> None:
    """Look again and again until it is so."""
    pause = threading.Event()
    for _ in range(4000):
        if condition():
            return
        pause.wait(0.005)
    raise AssertionError("it never came to that")


def record(message: object, *args: object, name: str = "lib", level: int = logging.INFO) -> logging.LogRecord:
    return logging.LogRecord(name, level, __file__, 1, message, args, None)


def lines(count: int, start: int = 0) -> list[bytes]:
    return [b'{"event":"x","seq":%d}' % number for number in range(start, start + count)]


def ended(handler: HecHandler) -> Account:
    handler.shutdown(LONG_S)
    account = handler.account()
    assert account.is_exact
    assert (0, 0, 0) == (account.queued, account.in_flight, account.held_bytes)
    return account


# -- what arrives


def test_all_lines_arrive_once_and_in_order(make: Make, hec: SimulatedHec) -> None:
    """Through batches, of whatever size they happen to be."""
    handler = make(batch_lines=37)
    for line in lines(2000):
        handler.put(line, "info")
    account = ended(handler)

    books = hec.books()
    assert lines(2000) == hec.lines
    assert (2000, 2000, {}, 0) == (account.emitted, account.delivered, account.dropped, account.possible_duplicates)
    assert account.bytes_in == books.body_bytes
    assert account.requests == books.bodies > 2000 // 37
    assert books.wire_bytes < account.bytes_wire < books.body_bytes


def test_a_line_stands_in_an_envelope_with_when_and_from_whom(make: Make, hec: SimulatedHec) -> None:
    """Splunk takes time, host, source and index from there, and drops all that follows an unknown key."""
    handler = make(clock=Frozen(), host="task-1", index="collector", source="s")
    handler.put(b'{"a":1}', "info")
    handler.shutdown(LONG_S)

    (event,) = hec.events
    assert (b'{"a":1}', 1_767_323_045.678901, "task-1", "s", "collector:log", "collector") == (
        event.line, event.time, event.host, event.source, event.sourcetype, event.index,
    )  # fmt: skip


class Frozen(SystemClock):
    """The wall clock stands still, and not the other."""

    def now_us(self) -> int:
        return 1_767_323_045_678_901


def test_times_before_a_tenth_of_a_second_keep_their_zeros(make: Make) -> None:
    """Microseconds without them would be another time."""

    class Early(FakeClock):
        def now_us(self) -> int:
            return 5_000_042

    handler = make(clock=Early(), is_started=False)
    handler.put(b"{}", "info")
    batch = handler.buffer.take(1000, 10)

    assert batch is not None
    assert b'"time":5.000042,"event":{}}' in batch.lines[0].data


def test_what_is_not_set_is_left_to_the_token(make: Make, hec: SimulatedHec) -> None:
    """An empty index is another index."""
    handler = make()
    handler.put(b"{}", "info")
    handler.shutdown(LONG_S)

    assert (None, None, "collector") == ((event := hec.events[0]).index, event.host, event.source)


@pytest.mark.parametrize("level", ["warning", "error", "critical", "info", "debug", "notice"])
def test_warnings_and_worse_may_use_the_reserve(make: Make, level: str) -> None:
    """They tell why the buffer is full."""
    handler = make(is_started=False, buffer_bytes=8000)
    while not handler.account().dropped:
        handler.put(b'{"filling":"' + b"x" * 100 + b'"}', "info")
    handler.put(b'{"small":1}', "info")
    before = handler.account().lost
    handler.put(b'{"filling":"' + b"x" * 100 + b'"}', level)

    assert (0 if level in {"warning", "error", "critical"} else 1) == handler.account().lost - before


def test_a_line_that_is_too_large_is_dropped_and_counted(make: Make) -> None:
    """HEC would refuse it, and the whole body with it."""
    handler = make(is_started=False)
    handler.put(b"x" * (MAX_LINE_BYTES + 1), "info")
    handler.put(b"x" * MAX_LINE_BYTES, "info")

    account = handler.account()
    assert ({"oversize": 1}, 1, 2) == (account.dropped, account.queued, account.emitted)
    assert [("oversize", 1)] == [(loss.reason, loss.count) for loss in handler.take_losses()]


def test_a_full_batch_wakes_the_sender(make: Make, hec: SimulatedHec) -> None:
    """With a linger of minutes, a burst leaves all the same."""
    handler = make(batch_lines=10, linger_s=600.0)
    until(lambda: handler._sender.wants_lines)
    for line in lines(10):
        handler.put(line, "info")

    until(lambda: hec.books().indexed == 10)


# -- records of logging


class Hostile:
    def __str__(self) -> str:
        raise ZeroDivisionError

    __repr__ = __str__


@pytest.mark.parametrize(
    ("made", "expected"),
    [
        (lambda: record("plain %s", 1), "plain 1"),
        (lambda: record("caf\u00e9 \u2028 \U0001f600"), "caf\u00e9 \u2028 \U0001f600"),
        (lambda: record("lone \ud800 surrogate"), "lone \\ud800 surrogate"),
        (lambda: record("nan %s", float("nan")), "nan nan"),
        (lambda: record(float("inf")), "inf"),
        (lambda: record(b"bytes"), "b'bytes'"),
        (lambda: record(b'1},{"event":2'), """b'1},{"event":2'"""),
        (lambda: record(b'{"cut":'), """b'{"cut":'"""),
        (lambda: record(b'{"a":1}{"b":2}'), """b'{"a":1}{"b":2}'"""),
        (lambda: record(b'{"bad":"\xff"}'), """b'{"bad":"\\xff"}'"""),
        (lambda: record("with \x00 and \n"), "with \x00 and \n"),
    ],
)
def test_a_record_of_anybody_becomes_a_line(
    make: Make, hec: SimulatedHec, made: Callable[[], logging.LogRecord], expected: str
) -> None:
    """A library's words are worth as much as ours, and must not spoil a batch."""
    handler = make()
    handler.emit(made())
    handler.put(b'{"after":1}', "info")
    account = ended(handler)

    line, after = map(json.loads, hec.lines)
    assert ("info", "log", "lib", expected) == (line["level"], line["event"], line["logger"], line["message"])
    assert ({"after": 1}, {}) == (after, account.dropped)


def test_bytes_that_are_an_object_are_a_line_as_they_are(make: Make, hec: SimulatedHec) -> None:
    """Our own logger has written them, and nothing is to be written twice."""
    handler = make()
    handler.emit(record(b'{"event" : "x", "n":1.50}'))
    handler.shutdown(LONG_S)

    assert [b'{"event" : "x", "n":1.50}'] == hec.lines


@pytest.mark.parametrize(
    "made",
    [
        lambda: record("%s", Hostile()),
        lambda: record(Hostile()),
        lambda: record("too %s %s", 1),
        lambda: record("none", 1),
        lambda: record("%d", "x"),
        lambda: record("x", name=None),  # type: ignore[arg-type]  # anything may come
        lambda: logging.makeLogRecord({"msg": "x", "levelname": 5}),
        lambda: logging.makeLogRecord({"msg": "x", "name": 5}),
    ],
)
def test_a_record_that_can_not_be_read_is_counted(
    make: Make, made: Callable[[], logging.LogRecord], capfd: pytest.CaptureFixture[str]
) -> None:
    """An error in an error message must not reach who has the error."""
    handler = make(is_started=False)
    handler.handle(made())

    account = handler.account()
    assert ({"format": 1}, 1) == (account.dropped, account.emitted)
    assert ("", "") == capfd.readouterr()


def test_an_exit_in_a_message_is_no_error_of_ours(make: Make) -> None:
    """A program that ends while it speaks ends."""

    class Leaving:
        def __str__(self) -> str:
            raise SystemExit

    handler = make(is_started=False)
    with pytest.raises(SystemExit):
        handler.emit(record("%s", Leaving()))


def test_a_huge_record_is_cut_to_what_a_value_may_have(make: Make, hec: SimulatedHec) -> None:
    """Its beginning says what it was about; a line of 100 MB says nothing to anybody."""
    handler = make()
    handler.emit(record("begin " + "x" * 5_000_000))
    handler.shutdown(LONG_S)

    assert json.loads(hec.lines[0])["message"].startswith("begin xxx")
    assert len(hec.lines[0]) < 16 << 10


def test_a_secret_in_a_records_words_is_withheld(make: Make, hec: SimulatedHec) -> None:
    """As it is on the standard output; a library logs a URL with a key in it soon enough."""
    handler = make()
    handler.emit(record("GET http://x/y?token=hunter2&z=1 Authorization: Splunk hunter2"))
    handler.shutdown(LONG_S)

    assert b"hunter2" not in hec.lines[0]
    assert b"[withheld]" in hec.lines[0]


@given(st.text() | st.binary() | st.integers() | st.floats() | st.lists(st.text()), st.lists(st.text() | st.none()))
def test_whatever_is_logged_is_counted_and_raises_nothing(message: object, args: list[object]) -> None:
    """Who logs does not expect an answer."""
    handler = HecHandler(HecOptions(url="http://x", token="t"), clock=FakeClock(), rng=random.Random(0))

    handler.emit(record(message, *args))

    account = handler.account()
    assert 1 == account.emitted == account.queued + account.lost
    batch = handler.buffer.take(10**9, 10)
    assert batch is None or isinstance(json.loads(batch.lines[0].data)["event"], dict)
    handler.shutdown(0)


def test_what_its_own_libraries_say_is_no_line(make: Make, hec: SimulatedHec) -> None:
    """Each request would be the cause of the next."""
    handler = make()
    root = logging.getLogger()
    was = root.level
    root.addHandler(handler)
    root.setLevel(logging.DEBUG)
    try:
        logging.getLogger("urllib3.connectionpool").debug("POST")
        logging.getLogger("somebody.else").debug("a word")
        until(lambda: hec.books().indexed)
        account = ended(handler)
    finally:
        root.removeHandler(handler)
        root.setLevel(was)

    # What was said while it was sent would have been a second.
    assert ([b"a word"], 1) == ([json.loads(line)["message"].encode() for line in hec.lines], account.emitted)


def test_other_loggers_stay_as_they_were(make: Make) -> None:
    """The base class silences them for the whole process, and all their other handlers with it."""
    loggers = [logging.getLogger(name) for name in ("urllib3", "requests", "splunk_handler")]
    loggers[1].propagate = False
    try:
        make(is_started=False)
        assert [True, False, True] == [logger.propagate for logger in loggers]
    finally:
        loggers[1].propagate = True


def test_nothing_of_the_base_class_prints_or_sends(make: Make, capfd: pytest.CaptureFixture[str]) -> None:
    """Its ways are why this class exists."""
    handler = make(is_started=False, url="http://127.0.0.1:1")
    handler.put(b"{}", "info")
    handler.flush()
    handler.force_flush()
    handler.wait_until_empty()
    handler.start_worker_thread()
    handler.write_log("x")
    handler.write_debug_log("x")
    splunk_handler.force_flush()
    splunk_handler.wait_until_empty()

    assert handler.empty_queue()
    assert (1, ("", "")) == (handler.account().queued, tuple(capfd.readouterr()))
    with pytest.raises(AssertionError):
        handler._splunk_worker()
    assert handler.token not in repr(handler) + repr(handler.options)


# -- its end


def test_a_stop_sends_what_is_there(make: Make, hec: SimulatedHec) -> None:
    """With a linger of minutes, and nobody who works."""
    started, idle = make(linger_s=600.0), make(linger_s=600.0, is_started=False)
    started.put(b'{"n":1}', "info")
    idle.put(b'{"n":2}', "info")

    assert (1, 1) == (ended(started).delivered, ended(idle).delivered)
    assert [b'{"n":1}', b'{"n":2}'] == hec.lines


@pytest.mark.parametrize("is_started", [True, False])
@pytest.mark.parametrize("trouble", [Line.BLACK_HOLE, Line.RESET, Line.LOSE_ANSWER, Line.CUT_ANSWER, "refused"])
@pytest.mark.parametrize("ack", [False, True])
def test_a_stop_ends_whatever_hec_does(
    make: Make, hec: SimulatedHec, is_started: bool, trouble: str, ack: bool
) -> None:
    """Its deadline is the only thing that it waits for, and what is left is counted."""
    hec.rules = Rules(ack=ack)
    if trouble == "refused":
        hec.refuse()
    else:
        hec.stand(Line(trouble))
    handler = make(is_started=is_started, batch_lines=10, ack=ack)
    for line in lines(100):
        handler.put(line, "info")
    clock = SystemClock()
    start_s = clock.monotonic()
    handler.shutdown(0.3)
    took_s = clock.monotonic() - start_s

    account = handler.account()
    assert (True, 100, 0, 0) == (account.is_exact, account.emitted, account.queued, account.in_flight)
    assert 100 == account.lost + account.delivered
    assert set(account.dropped) <= {"shutdown", "unconfirmed"}
    if trouble == "refused":
        assert {"shutdown": 100} == account.dropped
    # A request that had begun has its own timeouts, of ten seconds; a stop does not wait for those.
    assert took_s < 3


def test_what_waits_for_its_acks_at_a_stop_is_asked_for(make: Make, hec: SimulatedHec) -> None:
    """Ten seconds are too long then."""
    hec.rules = Rules(ack=True)
    handler = make(ack=True)
    for line in lines(20):
        handler.put(line, "info")
    until(lambda: handler.account().in_flight == 20)

    assert (20, {}) == ((account := ended(handler)).delivered, account.dropped)


def test_what_is_never_confirmed_is_unconfirmed_at_a_stop(make: Make, hec: SimulatedHec) -> None:
    """It may well be there: that is another loss than of what never left."""
    hec.rules = Rules(ack=True, ack_after_s=600.0)
    handler = make(ack=True, batch_lines=20)
    for line in lines(20):
        handler.put(line, "info")
    handler.shutdown(0.5)

    assert {"unconfirmed": 20} == handler.account().dropped


def test_a_second_stop_and_what_comes_after_the_first_change_nothing_that_was_told(
    make: Make, hec: SimulatedHec
) -> None:
    """Exit handlers call it again, in whatever order."""
    handler = make()
    handler.put(b"{}", "info")
    handler.shutdown(LONG_S)
    handler.shutdown()
    handler.close()
    handler.start()
    splunk_handler.perform_exit()
    handler.put(b"{}", "info")
    handler.emit(record("late"))

    account = handler.account()
    assert (3, 1, {"shutdown": 2}, True) == (account.emitted, account.delivered, account.dropped, account.is_exact)
    assert 1 == hec.books().indexed
    assert handler not in splunk_handler.instances


def test_an_answer_after_the_deadline_changes_no_account(make: Make, hec: SimulatedHec) -> None:
    """The last account has been told; the lines are unconfirmed in it, whatever HEC says then."""
    gate = threading.Event()

    def wait(_head: Head) -> None:
        gate.wait(LONG_S)

    hec.script_by(wait)
    handler = make()
    handler.put(b"{}", "info")
    until(lambda: handler.account().in_flight)
    thread = handler._thread
    handler.shutdown(0.05)
    last = handler.account()
    gate.set()
    assert thread is not None
    thread.join(LONG_S)

    assert not thread.is_alive()
    assert (last, {"unconfirmed": 1}) == (handler.account(), last.dropped)


def test_after_the_end_nothing_is_sent(make: Make, hec: SimulatedHec) -> None:
    """What was counted as dropped must not arrive a moment later, with the thread that wakes up then."""
    clock = FakeClock()
    hec.script(Answer())
    handler = make(is_started=False, clock=clock)
    handler.put(b"{}", "info")
    clock.advance(1)
    handler._step(handler._sender)
    handler.shutdown(0)
    clock.advance(100)
    handler._run()

    assert ({"shutdown": 1}, {"again": 1}) == (handler.account().dropped, handler.account().results)
    assert 1 == len(hec.requests)


def test_all_handlers_of_a_process_are_shut_down_at_its_exit(make: Make, hec: SimulatedHec) -> None:
    """Whoever takes himself out of a list that is being walked lets the next one be passed over."""
    handlers = [make(linger_s=600.0) for _ in range(4)]
    for handler in handlers:
        handler.put(b"{}", "info")

    splunk_handler.perform_exit()

    assert [1] * 4 == [handler.account().delivered for handler in handlers]


def test_the_thread_ends_with_the_handler(make: Make) -> None:
    """One that stays would go on sending what was counted as dropped."""
    handler = make()
    handler.start()
    thread = handler._thread
    handler.shutdown(LONG_S)

    assert thread is not None
    thread.join(LONG_S)
    assert not thread.is_alive()


# -- defects


def test_hooks_that_raise_end_nobody(make: Make, hec: SimulatedHec, monkeypatch: pytest.MonkeyPatch) -> None:
    """The only one who sends must outlive its own defects and those of others."""

    def broken(*_: object) -> None:
        raise ZeroDivisionError

    monkeypatch.setattr("collector.telemetry.hec.handler._DEFECT_S", 0.01)
    handler = make(hooks=Hooks(defect=broken, failing=broken, refused=broken, recovered=broken))
    step = handler._sender.step
    monkeypatch.setattr(handler._sender, "step", broken)
    handler.put(b"{}", "info")
    until(lambda: handler.buffer.oldest_queued_age_s() > 0.1)
    monkeypatch.setattr(handler._sender, "step", step)

    assert 1 == ended(handler).delivered


def test_a_defect_is_told_and_is_no_loop(make: Make, monkeypatch: pytest.MonkeyPatch) -> None:
    """A second between two of them is a line a second, and not a core."""
    told: list[BaseException] = []
    handler = make(is_started=False, hooks=Hooks(defect=told.append))
    error = ZeroDivisionError()

    def broken() -> float:
        raise error

    monkeypatch.setattr(handler._sender, "step", broken)

    assert 1.0 == handler._step(handler._sender)
    assert [error] == told


def test_lines_of_many_threads_arrive_once(make: Make, hec: SimulatedHec) -> None:
    """Each thread's in its own order."""
    handler = make(batch_lines=50)

    def put(number: int) -> None:
        for count in range(300):
            handler.put(b'{"t":%d,"n":%d}' % (number, count), "info")

    threads = [threading.Thread(target=put, args=(number,)) for number in range(6)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    account = ended(handler)

    read = [json.loads(line) for line in hec.lines]
    assert (1800, 1800) == (account.delivered, len(read))
    for number in range(6):
        assert list(range(300)) == [line["n"] for line in read if line["t"] == number]
