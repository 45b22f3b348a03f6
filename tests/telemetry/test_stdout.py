"""The standard output gets whole lines in their order, is never waited for, and what it does not take is counted."""

from __future__ import annotations

import errno
import fcntl
import json
import os
import pty
import signal
import socket
import subprocess
import sys
import textwrap
from contextlib import suppress
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from collector.telemetry.logs import build_logger
from collector.telemetry.stdout import LIMIT_BYTES, LineStream, Lost, unblock, unblocked
from tests.fakes import FakeClock

PIPE_BYTES = 4096


def stream_to(fd: int, *, clock: FakeClock | None = None, limit_bytes: int = LIMIT_BYTES) -> LineStream:
    return LineStream(clock=clock or FakeClock(), fd=fd, limit_bytes=limit_bytes)


def line(number: int, size: int = 100) -> bytes:
    return b'{"n":%d,"x":"%b"}\n' % (number, b"x" * (size - 20))


def fill(fd: int) -> int:
    """Make a pipe small, and fill it; return how many bytes that took."""
    fcntl.fcntl(fd, fcntl.F_SETPIPE_SZ, PIPE_BYTES)
    os.set_blocking(fd, False)
    written = 0
    try:
        while True:
            written += os.write(fd, b"." * 512)
    except BlockingIOError:
        os.set_blocking(fd, True)
        return written


def read_all(fd: int) -> bytes:
    """Read what is there."""
    os.set_blocking(fd, False)
    parts = []
    while True:
        try:
            part = os.read(fd, 65536)
        except BlockingIOError:
            break
        if not part:
            break
        parts.append(part)
    return b"".join(parts)


def test_a_line_is_one_write(pipe: tuple[int, int], monkeypatch: pytest.MonkeyPatch) -> None:
    """Lines of several workers share one pipe, and a line in two writes mixes with others."""
    reader, writer = pipe
    sizes = []
    write = os.write

    def watched(fd: int, data: bytes) -> int:
        sizes.append(len(data))
        return write(fd, data)

    monkeypatch.setattr(os, "write", watched)

    build_logger(stream_to(writer), "info").info("a.b", route="default")

    assert [len(os.read(reader, 65536))] == sizes


def test_a_broken_pipe_loses_each_line_counts_it_and_raises_nothing(pipe: tuple[int, int]) -> None:
    """A log driver that dies must not take uploads with it."""
    reader, writer = pipe
    os.close(reader)
    stream = stream_to(writer)
    logger = build_logger(stream, "info")

    logger.info("a.b")
    logger.error("a.c")

    assert 2 == stream.lost


def test_a_closed_descriptor_loses_the_line_and_raises_nothing(pipe: tuple[int, int]) -> None:
    """A process started without stdout has none."""
    _, writer = pipe
    os.close(writer)
    stream = stream_to(writer)

    stream.write(b"{}\n")

    assert 1 == stream.lost


def test_a_pipe_that_nobody_reads_holds_nobody_up_and_its_lines_come_once_somebody_does(
    pipe: tuple[int, int],
) -> None:
    """A plain write to it would not return, and a worker's loop stands still with it."""
    reader, writer = pipe
    before = fill(writer)
    stream = stream_to(writer)

    for n in range(20):
        stream.write(line(n))

    assert 0 == stream.lost
    assert before == len(os.read(reader, 65536))
    stream.flush()
    assert [*range(20)] == [json.loads(one)["n"] for one in read_all(reader).splitlines()]


def test_the_newest_lines_lose_when_too_many_wait_and_are_counted_with_their_times(pipe: tuple[int, int]) -> None:
    """What waits is bounded, and the first lines of an incident are those that matter."""
    reader, writer = pipe
    before = fill(writer)
    clock = FakeClock()
    stream = stream_to(writer, clock=clock, limit_bytes=1000)
    start_us = clock.now_us()

    for n in range(15):
        stream.write(line(n))
        clock.advance(1)

    assert 5 == stream.lost
    assert Lost(5, start_us + 10_000_000, start_us + 14_000_000) == stream.take_lost()
    assert stream.take_lost() is None
    os.read(reader, before)
    stream.flush()
    assert [*range(10)] == [json.loads(one)["n"] for one in read_all(reader).splitlines()]


def test_after_much_was_written_and_some_was_lost_as_many_lines_may_wait_as_before(pipe: tuple[int, int]) -> None:
    """What has gone, either way, takes no room: else a worker that lives for weeks could keep nothing waiting."""
    reader, writer = pipe
    stream = stream_to(writer, limit_bytes=1000)
    for n in range(100):
        stream.write(line(n))
        os.read(reader, 65536)
    before = fill(writer)
    for n in range(50):
        stream.write(line(n))
    assert 40 == stream.lost
    os.read(reader, before)
    stream.flush()
    read_all(reader)
    before = fill(writer)

    for n in range(10):
        stream.write(line(n))

    assert 40 == stream.lost
    os.read(reader, before)
    stream.flush()
    assert [*range(10)] == [json.loads(one)["n"] for one in read_all(reader).splitlines()]


@given(
    sizes=st.lists(st.integers(30, 9000), min_size=1, max_size=40), reads=st.lists(st.integers(0, 8192), max_size=80)
)
def test_whatever_the_reader_takes_at_a_time_it_gets_whole_lines_in_order_and_the_rest_are_counted(
    sizes: list[int], reads: list[int]
) -> None:
    """A line of which only a part went out must not spoil the next one, nor may its end be lost."""
    reader, writer = os.pipe()
    try:
        fcntl.fcntl(writer, fcntl.F_SETPIPE_SZ, PIPE_BYTES)
        os.set_blocking(reader, False)
        stream = stream_to(writer, limit_bytes=20_000)
        got, takes = b"", iter(reads)
        for n, size in enumerate(sizes):
            stream.write(line(n, size))
            if take := next(takes, 0):
                with suppress(BlockingIOError):
                    got += os.read(reader, take)
        stream.flush()
        while part := read_all(reader):
            got += part
            stream.flush()
        numbers = [json.loads(one)["n"] for one in got.splitlines()]
        assert sorted(set(numbers)) == numbers
        assert len(sizes) == len(numbers) + stream.lost
    finally:
        os.close(reader)
        os.close(writer)


def test_losses_are_told_once_lines_get_through_again_or_once_a_minute(pipe: tuple[int, int]) -> None:
    """While nobody reads, a line that says so would be lost too, and counted, and told again."""
    reader, writer = pipe
    before = fill(writer)
    clock = FakeClock()
    stream = stream_to(writer, clock=clock, limit_bytes=100)
    assert stream.may_tell()
    stream.write(line(1))
    stream.write(line(2))

    assert not stream.may_tell()
    clock.advance(61)
    assert stream.may_tell()
    assert not stream.may_tell()
    os.read(reader, before)
    stream.flush()
    assert stream.may_tell()


def test_the_end_waits_half_a_second_for_the_reader_and_counts_what_is_left(pipe: tuple[int, int]) -> None:
    """The last lines are about the drain; and an exit that waits for a reader who is gone is none."""
    reader, writer = pipe
    before = fill(writer)
    clock = FakeClock()
    stream = stream_to(writer, clock=clock)
    stream.write(line(1))
    waits: list[float] = []

    def rest(seconds: float) -> None:
        clock.advance(seconds)
        waits.append(seconds)
        if len(waits) == 3:
            os.read(reader, before)

    stream.close(rest)

    assert 3 == len(waits)
    assert line(1) == read_all(reader)
    fill(writer)
    stream.write(line(2))
    stream.close(clock.advance)
    assert 1 == stream.lost
    assert 53 > len(waits)


def test_a_file_a_terminal_and_a_socket_take_lines_as_a_pipe_does(tmp_path: Path) -> None:
    """Where a task's output goes is the platform's choice: a shell, journald, a log driver."""
    terminal, side = pty.openpty()
    ours, theirs = socket.socketpair()
    file = os.open(tmp_path / "log", os.O_WRONLY | os.O_CREAT)
    try:
        for fd in (file, side, theirs.fileno()):
            stream = stream_to(fd)
            stream.write(line(1))
            stream.write(line(2))
            assert 0 == stream.lost
        assert [1, 2] == [json.loads(one)["n"] for one in (tmp_path / "log").read_bytes().splitlines()]
        assert [1, 2] == [json.loads(one)["n"] for one in os.read(terminal, 65536).splitlines()]
        assert [1, 2] == [json.loads(one)["n"] for one in ours.recv(65536).splitlines()]
        assert not os.get_blocking(theirs.fileno())
    finally:
        for fd in (terminal, side, file):
            os.close(fd)
        ours.close()
        theirs.close()


def test_others_who_hold_the_same_pipe_or_terminal_still_block_on_it(pipe: tuple[int, int]) -> None:
    """A shell whose terminal stops to block behaves oddly long after we are gone."""
    _, writer = pipe
    terminal, side = pty.openpty()
    try:
        opened = [unblocked(fd) for fd in (writer, side)]

        assert [False, False] == [os.get_blocking(fd) for fd in opened]
        assert [True, True] == [os.get_blocking(fd) for fd in (writer, side)]
        for fd in opened:
            os.close(fd)
    finally:
        os.close(terminal)
        os.close(side)


def test_a_file_is_not_opened_anew_for_its_writers_share_one_place_in_it(tmp_path: Path) -> None:
    """Two places in one file write over each other."""
    file = os.open(tmp_path / "log", os.O_WRONLY | os.O_CREAT)
    try:
        assert file == unblocked(file)
    finally:
        os.close(file)


def test_what_can_not_be_opened_anew_is_made_not_to_block(
    pipe: tuple[int, int], monkeypatch: pytest.MonkeyPatch
) -> None:
    """A pipe that another user made may be written to and not opened."""
    _, writer = pipe

    def refuse(path: str, flags: int) -> int:
        raise PermissionError(errno.EACCES, "no", path, flags)

    monkeypatch.setattr("collector.telemetry.stdout.os.open", refuse)

    assert writer == unblocked(writer)
    assert not os.get_blocking(writer)


def test_an_unblocked_descriptor_is_inherited_as_such(pipe: tuple[int, int]) -> None:
    """gunicorn's master and everything that prints in a worker has it from the launcher."""
    reader, writer = pipe
    os.set_inheritable(writer, True)

    unblock(writer)

    program = f"import os; print(os.get_blocking({writer}))"
    child = subprocess.run(
        [sys.executable, "-c", program], capture_output=True, text=True, pass_fds=(writer,), check=True
    )
    assert "False" == child.stdout.strip()
    os.write(writer, b"x")
    assert b"x" == os.read(reader, 10)


def test_a_process_with_a_full_pipe_goes_on_and_ends_when_it_is_told_to(pipe: tuple[int, int]) -> None:
    """The whole of it, with a real process: a hundred times what a pipe holds, and nobody reads."""
    reader, writer = pipe
    fill(writer)
    program = textwrap.dedent("""
        import sys, time
        from collector.clock import SystemClock
        from collector.telemetry.logs import build_logger
        from collector.telemetry.stdout import LineStream
        stream = LineStream(clock=SystemClock())
        logger = build_logger(stream, "info")
        for n in range(4000):
            logger.info("a.b", n=n, x="x" * 100)
        stream.close(time.sleep)
        print(stream.lost, file=sys.stderr)
    """)
    child = subprocess.Popen([sys.executable, "-c", program], stdout=writer, stderr=subprocess.PIPE, text=True)
    try:
        _, told = child.communicate(timeout=60)
    finally:
        child.send_signal(signal.SIGKILL)

    assert 0 == child.returncode
    assert 4000 == int(told)
    assert b"." * 512 == os.read(reader, 512)
