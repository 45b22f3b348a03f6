"""
What every sink keeps to: one suite, run over each of them (`cases.CASES`).
"""

from __future__ import annotations

import os
import random
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager, suppress
from pathlib import Path

import pytest

from collector.errors import TransientSinkError
from collector.event import Batch, Span
from collector.sinks.base import Sink
from collector.sinks.registry import SCHEMES
from tests.contracts.cases import CASES, Case
from tests.fakes import HOUR, batch
from tests.server import wait_for

MIB = 1024 * 1024


@pytest.fixture(params=list(CASES))
def case(request: pytest.FixtureRequest, tmp_path: Path) -> Iterator[Case]:
    with contextmanager(CASES[request.param])(tmp_path) as made:
        yield made
        made.sink.close()


@pytest.fixture
def sink(case: Case) -> Sink:
    case.sink.start()
    return case.sink


def lines_of(size_bytes: int, *, line_bytes: int = 360, seed: int = 1) -> list[bytes]:
    """Make lines that with their newlines fill so many bytes exactly, and that don't compress to nothing."""
    rng = random.Random(seed)
    lines = [rng.randbytes((line_bytes - 1) // 2).hex().encode().ljust(line_bytes - 1) for _ in range(7)]
    whole = (size_bytes - line_bytes) // line_bytes
    last = size_bytes - whole * line_bytes
    return [*(lines[index % 7] for index in range(whole)), b"x" * (last - 1)]


def test_every_scheme_of_the_registry_is_tried_here() -> None:
    """A sink that nobody held to the contract must not ship."""
    assert {*SCHEMES, "scripted"} == {name.replace(",", " ").split()[0] for name in CASES}


def test_every_line_arrives_byte_for_byte_and_in_order(case: Case, sink: Sink) -> None:
    """Lines are opaque: what a device sent must not change on its last stretch either."""
    lines = [b'{"id":"1"}', "ünïcode 🦩 \u2028 \u0085".encode(), b" \t", b" "]
    if not case.is_text:
        lines += [b"\xff\xfe not utf-8", b"\x00\r\t\x1b", b""]

    receipt = sink.write(batch(*lines))

    assert len(lines) == receipt.delivered
    assert () == receipt.retryable
    assert () == receipt.rejected
    assert lines == case.read_back()


def test_limits_are_such_as_the_flusher_can_cut_to(case: Case) -> None:
    """It is wired with them before the start, and splits to them; a limit of nothing would split for ever."""
    limits = case.sink.limits

    assert limits.max_events >= 1
    assert 0 < limits.max_event_bytes <= limits.max_bytes


def test_a_batch_of_exactly_the_most_bytes_is_taken(case: Case, sink: Sink) -> None:
    """A declared limit is a promise, and an off-by-one at it is an event that never leaves."""
    line_bytes = max(360, sink.limits.max_bytes // sink.limits.max_events + 1)
    lines = lines_of(sink.limits.max_bytes, line_bytes=min(line_bytes, sink.limits.max_event_bytes))

    receipt = sink.write(batch(*lines))

    assert sink.limits.max_bytes == sum(len(line) + 1 for line in lines)
    assert len(lines) == receipt.delivered
    assert lines == case.read_back()


def test_a_batch_of_exactly_the_most_events_is_taken(case: Case, sink: Sink) -> None:
    """As for bytes: the flusher cuts there and nowhere before."""
    lines = [b"%d" % number for number in range(sink.limits.max_events)]

    receipt = sink.write(batch(*lines))

    assert len(lines) == receipt.delivered
    assert lines == case.read_back()


def test_an_event_of_exactly_the_most_bytes_is_taken(case: Case, sink: Sink) -> None:
    """One byte more is settled as rejected before it comes here, so this one must pass."""
    line = random.Random(2).randbytes(sink.limits.max_event_bytes // 2).hex().encode()
    line = line[: sink.limits.max_event_bytes - 1]

    receipt = sink.write(batch(line))

    assert sink.limits.max_event_bytes == len(line) + 1
    assert 1 == receipt.delivered
    assert [line] == case.read_back()


def test_a_whole_segment_is_taken_in_one_write(case: Case, sink: Sink) -> None:
    """4 MiB is what a segment holds; a sink that needs less says so in its limits."""
    lines = lines_of(min(4 * MIB, sink.limits.max_bytes))[-sink.limits.max_events :]

    receipt = sink.write(batch(*lines))

    assert len(lines) == receipt.delivered
    assert lines == case.read_back()


def test_a_batch_written_again_is_delivered_again(case: Case, sink: Sink) -> None:
    """An answer that was lost is retried: that must succeed, and where objects have names, leave one."""
    lines = [b"one", b"two"]

    receipts = [sink.write(batch(*lines)) for _ in range(3)]

    assert [2, 2, 2] == [receipt.delivered for receipt in receipts]
    assert lines * (1 if case.repeats_replace else 3) == case.read_back()


def test_batches_written_at_once_arrive_whole(case: Case, sink: Sink) -> None:
    """The flusher writes several batches at a time, from several threads."""
    batches = [
        batch(
            *(b"%d-%d-" % (number, line) + b"x" * (line * 97 % 9000) for line in range(60)),
            name=f"w1-{number:08d}",
            tenant_id=f"tenant-{number % 3}",
            hour=HOUR + number % 2,
        )
        for number in range(24)
    ]

    with ThreadPoolExecutor(max_workers=8) as threads:
        receipts = list(threads.map(sink.write, batches))

    expected = sorted(line for one in batches for line in one.lines())
    assert [60] * 24 == [receipt.delivered for receipt in receipts]
    assert expected == sorted(case.read_back())


def test_the_same_batch_written_at_once_arrives_whole(case: Case, sink: Sink) -> None:
    """A write that was given up on may still run while its retry does; neither may spoil the other."""
    lines = lines_of(256 * 1024)
    delivered = []

    def write(_: int) -> None:
        with suppress(TransientSinkError):
            delivered.append(sink.write(batch(*lines)).delivered)

    with ThreadPoolExecutor(max_workers=8) as threads:
        list(threads.map(write, range(32)))

    assert [len(lines)] * len(delivered) == delivered
    assert delivered
    # What takes several calls may lie between each other's; nothing of one may be missing.
    assert sorted(lines * (1 if case.repeats_replace else len(delivered))) == sorted(case.read_back())


def test_a_receipt_adds_up_when_a_batch_holds_several_spans(case: Case, sink: Sink) -> None:
    """Events settled earlier leave gaps, so a batch may be of several spans of its partition."""
    spans = (Span("dev", HOUR, 4, 6), Span("dev", HOUR, 9, 10))
    gapped = Batch(name="w1-1-4", segment="w1-1", spans=spans, pieces=(b"four\nfive\nnine\n",))

    receipt = sink.write(gapped)

    assert len(gapped) == receipt.delivered + len(receipt.retryable) + len(receipt.rejected)
    assert [b"four", b"five", b"nine"] == case.read_back()


def test_a_sink_without_partitions_takes_several_tenants_at_once(case: Case, sink: Sink) -> None:
    """That is what `partitioned` says; the other sinks get one tenant and hour a batch."""
    if sink.limits.partitioned:
        pytest.skip("partitioned: it gets one tenant and hour at a time")
    spans = (Span("a", HOUR, 0, 1), Span("b", HOUR if sink.limits.hourly else HOUR + 1, 0, 1))

    receipt = sink.write(Batch(name="w1-1-0", segment="w1-1", spans=spans, pieces=(b"one\ntwo\n",)))

    assert 2 == receipt.delivered
    assert [b"one", b"two"] == case.read_back()


def test_an_empty_batch_is_delivered_and_leaves_nothing(case: Case, sink: Sink) -> None:
    """There is none, by rights; if there were, an empty object would be a riddle to its reader."""
    receipt = sink.write(batch())

    assert 0 == receipt.delivered
    assert [] == case.read_back()


def test_a_destination_that_refuses_is_transient_and_keeps_nothing(case: Case, sink: Sink) -> None:
    """The flusher puts the batch back and writes it later: what was kept of it would arrive twice, or torn."""
    lines = lines_of(64 * 1024)
    sink.write(batch(b"before", name="w1-00000000"))

    with case.refusing(), pytest.raises(TransientSinkError):
        sink.write(batch(*lines))

    assert [b"before"] == case.read_back()

    sink.write(batch(*lines))

    assert [b"before", *lines] == case.read_back()


def test_a_sink_closes_before_its_start_and_twice(case: Case) -> None:
    """A start that failed half-way closes everything, and a drain may be told twice to end."""
    case.sink.close()
    case.sink.start()
    case.sink.write(batch(b"one"))
    case.sink.close()
    case.sink.close()

    assert [b"one"] == case.read_back()


def test_a_sink_started_twice_works_and_closes_once(case: Case, sink: Sink) -> None:
    """Two routes may share a sink, and neither knows of the other's start."""
    before = len(os.listdir("/proc/self/fd"))

    sink.start()

    assert before == len(os.listdir("/proc/self/fd"))
    assert 1 == sink.write(batch(b"one")).delivered
    assert [b"one"] == case.read_back()


def test_a_sink_holds_nothing_open_after_its_close(case: Case) -> None:
    """A reload makes new sinks in the same process; what each leaves open adds up."""
    before = len(os.listdir("/proc/self/fd"))

    case.sink.start()
    case.sink.write(batch(b"one"))
    case.sink.close()

    # What lies between a sink and its server is in this process too, and hears of the end a moment later.
    wait_for(lambda: before == len(os.listdir("/proc/self/fd")), "all that was opened to be closed", 5.0)
