"""A process's log goes to the standard output and to Splunk, and what either did not take is told."""

from __future__ import annotations

import json
import logging
import os
import socket
import threading
from collections.abc import Iterator
from contextlib import suppress
from typing import Any

import pytest

from collector.clock import SystemClock
from collector.control.hec.faults import Answer
from collector.control.hec.simulated import SimulatedHec
from collector.settings import Settings
from collector.telemetry.hec.options import HecOptions
from collector.telemetry.logbook import Logbook
from collector.telemetry.metrics import Metrics
from collector.telemetry.stdout import LineStream
from tests.server import wait_for

TOKEN = "00000000-0000-4000-8000-000000000000"


class MovedClock(SystemClock):
    """The machine's clock, moved on: others wait for real sockets by it."""

    moved_s = 0.0

    def now_us(self) -> int:
        """Return microseconds since the epoch, UTC."""
        return super().now_us() + round(self.moved_s * 1_000_000)

    def monotonic(self) -> float:
        """Return seconds that never go back."""
        return super().monotonic() + self.moved_s

    def advance(self, seconds: float) -> None:
        """Let so much time have passed."""
        self.moved_s += seconds


class Book:
    """A log whose standard output is a pipe."""

    def __init__(self, settings: Settings, writer: int) -> None:
        self.clock = MovedClock()
        self.counts = Metrics(worker="w1")
        self.log = Logbook(settings, clock=self.clock, counts=self.counts, rest=self.clock.advance, owner="w1")
        self.log.stdout = LineStream(clock=self.clock, fd=writer, limit_bytes=2000)
        self.events = 0

    def wait(self, seconds: float) -> None:
        """Let so much time have passed for who waits for it by the system's own clock, too."""
        assert self.log.hec is not None
        self.clock.advance(seconds)
        self.log.hec._wake.set()

    def say(self, count: int = 1) -> None:
        for _ in range(count):
            self.log.signals.segment_adopted("w2", segments=1, events=self.events)
            self.events += 1


@pytest.fixture
def hec() -> Iterator[SimulatedHec]:
    with SimulatedHec() as server:
        yield server


def settings_of(hec: SimulatedHec, **more: Any) -> Settings:
    return Settings(hec_url=hec.url, hec_token=TOKEN, hec_linger_s=0.01, task="task-1", **more)


def shown(reader: int) -> list[dict[str, Any]]:
    os.set_blocking(reader, False)
    try:
        return [json.loads(line) for line in os.read(reader, 1 << 20).splitlines()]
    except BlockingIOError:
        return []


def arrived(hec: SimulatedHec) -> list[dict[str, Any]]:
    return [json.loads(line) for line in hec.lines]


def test_a_line_is_the_same_in_both_places_with_its_process_and_a_number(
    hec: SimulatedHec, pipe: tuple[int, int]
) -> None:
    """An analyst who sees a gap in Splunk finds the line in the container's output."""
    book = Book(settings_of(hec), pipe[1])
    book.log.start()

    book.say(3)
    book.log.close()

    lines = [line for line in shown(pipe[0]) if line["event"] == "segment.adopted"]
    assert [1, 2, 3] == [line["seq"] for line in lines]
    assert {book.log.boot} == {line["boot"] for line in lines}
    assert lines == [line for line in arrived(hec) if line["event"] == "segment.adopted"]


def test_two_logs_have_different_boots_and_each_counts_for_itself(pipe: tuple[int, int]) -> None:
    """A worker that is replaced begins anew, and its numbers must not be taken for repeats."""
    first, second = Book(Settings(), pipe[1]), Book(Settings(), pipe[1])

    first.say(2)
    second.say(1)

    assert first.log.boot != second.log.boot
    assert [1, 2, 1] == [line["seq"] for line in shown(pipe[0])]


def test_without_a_splunk_nothing_of_it_is_there(pipe: tuple[int, int]) -> None:
    """Whoever has none should not see its metrics move, nor its reports."""
    book = Book(Settings(), pipe[1])
    book.log.start()
    book.say()
    book.clock.advance(120)
    book.log.tick()
    book.log.close()

    assert ["segment.adopted"] == [line["event"] for line in shown(pipe[0])]
    assert 0 == book.counts.value("collector_hec_emitted_lines_total")


def test_what_splunk_gets_is_counted_as_its_accounts_say(hec: SimulatedHec, pipe: tuple[int, int]) -> None:
    """The page and the handler must not differ, or one of them lies."""
    book = Book(settings_of(hec), pipe[1])
    book.log.start()
    book.say(50)
    wait_for(lambda: len(hec.lines) == 50, "all lines")
    book.log.look()
    book.say(5)
    book.log.close()

    assert book.log.hec is not None
    account = book.log.hec.account()
    assert account.is_exact
    value = book.counts.value
    assert len(hec.lines) == account.delivered == value("collector_hec_delivered_lines_total")
    assert account.emitted == value("collector_hec_emitted_lines_total")
    assert account.bytes_wire == value("collector_hec_wire_bytes_total") > 0
    assert account.bytes_in == value("collector_hec_line_bytes_total")
    assert account.requests == value("collector_hec_requests_total", ("taken",))
    assert 0 == value("collector_hec_held_bytes")


def test_lines_that_splunk_will_not_get_are_counted_and_told_in_one_line_with_their_times(
    pipe: tuple[int, int],
) -> None:
    """A line for each would be lost as well, and would fill the standard output."""
    with SimulatedHec() as hec:
        gone = hec.url
    settings = Settings(
        hec_url=gone, hec_token=TOKEN, hec_linger_s=0.01, hec_buffer_bytes=64 << 10, hec_batch_bytes=4 << 10
    )
    book = Book(settings, pipe[1])
    log = book.log
    log.start()
    for _ in range(400):
        book.say()
        shown(pipe[0])
        book.clock.advance(0.01)
    assert log.hec is not None
    dropped = log.hec.account().dropped["full"]

    log.tick()

    assert dropped == book.counts.value("collector_hec_dropped_lines_total", ("full",)) > 0
    # Splunk is away still: it is told after a minute, and not each second.
    assert [] == [line for line in shown(pipe[0]) if line["event"] == "hec.dropped"]
    book.clock.advance(61)
    log.tick()
    told = [line for line in shown(pipe[0]) if line["event"] == "hec.dropped"]
    assert [("full", dropped)] == [(line["reason"], line["count"]) for line in told]
    assert told[0]["first"] < told[0]["last"] < told[0]["ts"]
    log.close()
    account = log.hec.account()
    assert account.is_exact
    assert account.lost == sum(
        int(book.counts.value("collector_hec_dropped_lines_total", (reason,))) for reason in account.dropped
    )
    assert {"shutdown"} == {line["reason"] for line in shown(pipe[0]) if line["event"] == "hec.dropped"} - {"full"}


def test_a_warning_gets_through_when_the_buffer_is_full_of_lesser_lines(pipe: tuple[int, int]) -> None:
    """In an incident it is the line that matters."""
    with SimulatedHec() as hec:
        hec.stand(Answer(code=9))
        book = Book(settings_of(hec, hec_buffer_bytes=64 << 10), pipe[1])
        book.log.start()
        for _ in range(600):
            book.log.signals.tenants_loaded(1, "x" * 100)
            shown(pipe[0])
        book.say()
        assert book.log.hec is not None
        assert book.log.hec.account().dropped["full"] > 0
        hec.stand(None)
        book.wait(120)
        wait_for(lambda: hec.lines, "lines to come again")
        book.log.close()

        assert 1 == len([line for line in arrived(hec) if line["event"] == "segment.adopted"])


def test_a_standard_output_that_nobody_reads_is_told_to_splunk_once_it_is_read_again(
    hec: SimulatedHec, pipe: tuple[int, int]
) -> None:
    """Each place tells of what the other did not get."""
    reader, writer = pipe
    os.set_blocking(writer, False)
    while True:
        try:
            os.write(writer, b'{"event":"x"}\n' * 50)
        except BlockingIOError:
            break
    book = Book(settings_of(hec), writer)
    book.log.start()
    book.say(30)
    book.log.tick()
    lost = book.counts.value("collector_log_lines_lost_total")
    assert lost > 0
    os.read(reader, 1 << 20)

    book.log.tick()
    book.log.close()

    told = [line for line in arrived(hec) if line["event"] == "stdout.lost"]
    assert [lost] == [line["count"] for line in told]
    assert 30 == len([line for line in arrived(hec) if line["event"] == "segment.adopted"])


def test_a_refused_token_is_told_once_and_its_end_too(pipe: tuple[int, int]) -> None:
    """Somebody has to mend it, and to see that it is mended."""
    with SimulatedHec() as hec:
        hec.stand(Answer(code=4))
        book = Book(settings_of(hec), pipe[1])
        book.log.start()
        book.say()
        wait_for(lambda: book.counts.value("collector_hec_failing") == 1, "the refusal to be told")
        hec.stand(None)
        book.wait(120)
        wait_for(lambda: hec.lines, "lines to come again")
        wait_for(lambda: book.counts.value("collector_hec_failing") == 0, "the end to be told")
        book.log.close()

        told = [(line["event"], line["level"]) for line in shown(pipe[0]) if line["event"].startswith("hec.re")]
        assert [("hec.refused", "error"), ("hec.recovered", "info")] == [one for one in told if "report" not in one[0]]
        assert "Invalid token" in json.dumps(arrived(hec))
        assert TOKEN not in json.dumps(arrived(hec))


def test_it_reports_its_accounts_every_so_often_and_at_the_end(hec: SimulatedHec, pipe: tuple[int, int]) -> None:
    """The dashboards are made of these lines."""
    book = Book(settings_of(hec, report_s=60.0), pipe[1])
    book.log.start()
    for _ in range(130):
        book.log.tick()
        book.clock.advance(1)
    book.log.close()

    reports = [line for line in shown(pipe[0]) if line["event"] == "hec.report"]
    assert 3 == len(reports)
    for line in reports:
        assert line["emitted"] == line["delivered"] + line["dropped"] + line["queued"] + line["in_flight"]
        assert 16 << 20 == line["buffer_bytes"]


def test_what_gunicorn_and_libraries_say_is_in_the_log_once_it_has_started(pipe: tuple[int, int]) -> None:
    """gunicorn's own handler would write past everything that keeps the output from blocking."""
    loggers = [logging.getLogger(), logging.getLogger("gunicorn.error")]
    before = [list(logger.handlers) for logger in loggers]
    theirs = logging.NullHandler()
    theirs.set_name("stdout")
    for logger in loggers:
        logger.addHandler(theirs)
    book = Book(Settings(), pipe[1])
    try:
        book.log.start()
        assert not [logger for logger in loggers if theirs in logger.handlers]
        loggers[1].error("worker %s is odd", 7)
        for handler in loggers[0].handlers:
            if handler is not theirs and handler not in before[0]:
                # By itself: pytest's own handler fails a test for such a record.
                handler.emit(logging.makeLogRecord({"name": "some.library", "msg": "no %d", "args": ("fitting",)}))
        logging.getLogger("urllib3.connectionpool").warning("a request to Splunk")
        loggers[1].log(logging.CRITICAL, "Bearer abcdef123456 is in here")
    finally:
        for logger, handlers in zip(loggers, before, strict=True):
            logger.handlers[:] = handlers

    told = [(line["event"], line["level"], line["message"]) for line in shown(pipe[0])]
    assert ("gunicorn", "error", "worker 7 is odd") in told
    assert "no %d" in [one[2] for one in told]
    assert not [one for one in told if "Splunk" in one[2]]
    assert "abcdef123456" not in json.dumps(told)


def test_what_sends_to_splunk_is_set_as_the_settings_say(pipe: tuple[int, int]) -> None:
    """A setting that is read, checked, shown and not heeded is worse than none."""
    ca_file = "/etc/ssl/splunk.pem"
    settings = Settings(
        hec_url="https://splunk.example.com:8088", hec_token=TOKEN, hec_buffer_bytes=1 << 20, hec_batch_bytes=64 << 10,
        hec_linger_s=0.25, hec_ack=True, hec_index="apps", hec_ca_file=ca_file, task="task-1",
    )  # fmt: skip
    book = Book(settings, pipe[1])
    book.say()

    assert book.log.hec is not None
    assert book.log.hec.options == HecOptions(
        url="https://splunk.example.com:8088", token=TOKEN, buffer_bytes=1 << 20, batch_bytes=64 << 10, linger_s=0.25,
        ack=True, index="apps", host="task-1", ca_file=ca_file,
    )  # fmt: skip
    book.log.hec.shutdown(0)


def test_a_batch_is_a_quarter_of_the_buffer_at_the_most_and_the_host_has_its_own_name_without_another(
    pipe: tuple[int, int],
) -> None:
    """While one is under way, others must find room."""
    book = Book(Settings(hec_url="http://127.0.0.1:9", hec_token=TOKEN, hec_buffer_bytes=64 << 10), pipe[1])
    book.say()

    assert book.log.hec is not None
    assert 16 << 10 == book.log.hec.options.batch_bytes
    assert socket.gethostname() == book.log.hec.options.host
    book.log.hec.shutdown(0)


def test_its_last_lines_are_given_time_to_be_read(pipe: tuple[int, int]) -> None:
    """They are about the drain, and the reader may be slow and not gone."""
    reader, writer = pipe
    os.set_blocking(writer, False)
    for size in (512, 1):
        with suppress(BlockingIOError):
            while True:
                os.write(writer, b"." * size)
    book = Book(Settings(), writer)
    rests: list[float] = []

    def rest(seconds: float) -> None:
        rests.append(seconds)
        os.read(reader, 1 << 20)

    book.log = Logbook(Settings(), clock=book.clock, counts=book.counts, rest=rest)
    book.log.stdout = LineStream(clock=book.clock, fd=writer)
    book.log.start()
    book.say()

    book.log.close()

    assert 1 == len(rests)
    assert ["segment.adopted"] == [line["event"] for line in shown(reader)]


def test_its_end_can_be_called_twice_and_what_is_said_later_goes_to_the_standard_output(
    hec: SimulatedHec, pipe: tuple[int, int]
) -> None:
    """gunicorn's last words come after ours."""
    book = Book(settings_of(hec), pipe[1])
    book.log.start()
    book.log.close()
    assert ["hec.report"] == [line["event"] for line in shown(pipe[0])]
    book.log.close()
    assert [] == shown(pipe[0])

    book.say()

    assert ["segment.adopted"] == [line["event"] for line in shown(pipe[0])]
    assert not [thread for thread in threading.enumerate() if thread.name == "hec"]
