"""The `stdout:` sink before real pipes: slow, stuck, gone, non-blocking, and shared with others."""

from __future__ import annotations

import fcntl
import os
import resource
import select
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest

from collector.errors import TransientSinkError
from collector.sinks.stdout import PIPE_BUF, StdoutSink
from tests.fakes import batch

ROOT = Path(__file__).resolve().parents[2]


def shut(fd: int) -> None:
    """Close at once, also where os.close is gevent's and waits for its loop."""
    os.closerange(fd, fd + 1)


class Pipe:
    """A pipe, a sink on its one end, and a process that reads the other once it is told to."""

    def __init__(self, directory: Path, *, stall_s: float = 60.0, pages: int = 1) -> None:
        self.read_fd, self.write_fd = os.pipe()
        # One page is the smallest there is: it is full after 4096 bytes, and then everything is in pieces.
        fcntl.fcntl(self.write_fd, fcntl.F_SETPIPE_SZ, pages * PIPE_BUF)
        self.sink = StdoutSink(self.write_fd, stall_s=stall_s)
        self.sink.start()
        self._came = directory / "came"
        self._reader: subprocess.Popen[bytes] | None = None

    def read_along(self) -> None:
        """Begin to read."""
        with self._came.open("wb") as came:
            self._reader = subprocess.Popen(["cat"], stdin=self.read_fd, stdout=came)

    def everything(self) -> bytes:
        """Close the writing ends and return all that came."""
        assert self._reader is not None
        self.sink.close()
        shut(self.write_fd)
        assert 0 == self._reader.wait()
        return self._came.read_bytes()

    def hang_up(self) -> None:
        """Close the reading end."""
        shut(self.read_fd)


@pytest.fixture
def pipe(tmp_path: Path) -> Iterator[Pipe]:
    made = Pipe(tmp_path)
    yield made
    made.sink.close()
    for fd in (made.read_fd, made.write_fd):
        shut(fd)


def lines_of(*lengths: int) -> list[bytes]:
    return [b"%06d-" % number + b"x" * length for number, length in enumerate(lengths)]


@pytest.mark.parametrize("blocking", [True, False])
def test_lines_of_any_length_pass_a_small_slow_pipe_whole(pipe: Pipe, blocking: bool) -> None:
    """Whoever reads the output decides how fast; supervisors hand over non-blocking pipes, too."""
    os.set_blocking(pipe.write_fd, blocking)
    lines = lines_of(0, 10, 4087, 4088, 4089, 4090, 3, 100_000, 5, *[360] * 300)
    pipe.read_along()

    receipt = pipe.sink.write(batch(*lines))

    assert len(lines) == receipt.delivered
    assert () == receipt.retryable
    assert lines == pipe.everything().split(b"\n")[:-1]


def test_the_process_own_output_is_the_default() -> None:
    """`stdout:` means file descriptor 1, whatever Python's sys.stdout is by then."""
    program = """
import os, sys
from collector.sinks.registry import open_sink
from tests.fakes import batch
sys.stdout = None
sink = open_sink("stdout:", writer_id="w1")
sink.start()
os.close(1)
sink.write(batch(b"one", b"two"))
sink.close()
"""
    done = subprocess.run([sys.executable, "-c", program], cwd=ROOT, capture_output=True, check=False)

    assert (b"one\ntwo\n", b"") == (done.stdout, done.stderr)


def test_a_reader_that_is_gone_is_transient(pipe: Pipe) -> None:
    """EPIPE: whoever restarts the reader gets the batch then."""
    pipe.hang_up()

    with pytest.raises(TransientSinkError, match="Broken pipe"):
        pipe.sink.write(batch(b"one"))


def test_a_reader_that_takes_nothing_is_given_up_on(pipe: Pipe) -> None:
    """A blocked write would hold its thread, and the drain, for ever."""
    sink = StdoutSink(pipe.write_fd, stall_s=0.01)
    sink.start()
    os.write(pipe.write_fd, b"x" * PIPE_BUF)

    with pytest.raises(TransientSinkError, match=r"nothing was read from it for 0\.01 s"):
        sink.write(batch(b"one"))
    sink.close()


@pytest.mark.parametrize("blocking", [True, False])
def test_what_fitted_is_delivered_and_the_rest_is_given_back(blocking: bool, tmp_path: Path) -> None:
    """Lines that are out can't be called back; to write them again would double them."""
    pipe = Pipe(tmp_path, stall_s=0.01)
    os.set_blocking(pipe.write_fd, blocking)
    lines = lines_of(*[1000] * 10)

    receipt = pipe.sink.write(batch(*lines))
    pipe.read_along()
    pipe.sink._stall_s = 60.0
    rest = [lines[index] for index in receipt.retryable]
    again = pipe.sink.write(batch(*rest))

    # Four lines of 1008 bytes fit into the one page of the pipe.
    assert (4, (4, 5, 6, 7, 8, 9)) == (receipt.delivered, receipt.retryable)
    assert 6 == again.delivered
    assert lines == pipe.everything().split(b"\n")[:-1]
    pipe.hang_up()


def test_a_line_torn_by_a_stall_is_ended_before_the_next(tmp_path: Path) -> None:
    """The reader drops one broken line; were the next glued to it, it would drop one that counts as delivered."""
    # The first line fills a page, a piece of the second the other, and there is no room for a third.
    pipe = Pipe(tmp_path, stall_s=0.01, pages=2)
    lines = lines_of(10, 3 * PIPE_BUF)

    receipt = pipe.sink.write(batch(*lines))
    pipe.read_along()
    pipe.sink._stall_s = 60.0
    again = pipe.sink.write(batch(lines[1]))

    came = pipe.everything().split(b"\n")
    assert (1, (1,)) == (receipt.delivered, receipt.retryable)
    assert 1 == again.delivered
    assert [lines[0], lines[1][:PIPE_BUF], lines[1], b""] == came
    pipe.hang_up()


def test_a_full_disk_behind_the_output_gives_back_what_was_torn(tmp_path: Path) -> None:
    """An output is often a file; a line cut by its end is not delivered."""
    path = tmp_path / "out"
    fd = os.open(path, os.O_WRONLY | os.O_CREAT | os.O_APPEND)
    sink = StdoutSink(fd)
    sink.start()
    soft, hard = resource.getrlimit(resource.RLIMIT_FSIZE)
    resource.setrlimit(resource.RLIMIT_FSIZE, (2500, hard))
    try:
        receipt = sink.write(batch(*lines_of(*[992] * 4)))
    finally:
        resource.setrlimit(resource.RLIMIT_FSIZE, (soft, hard))
    sink.write(batch(b"after"))
    sink.close()
    os.close(fd)

    assert (2, (2, 3)) == (receipt.delivered, receipt.retryable)
    assert [b"after"] == path.read_bytes().split(b"\n")[3:-1]


def test_short_lines_leave_in_writes_that_no_stranger_can_split(pipe: Pipe) -> None:
    """The log goes to the same output, and takes no lock of ours; up to PIPE_BUF the kernel keeps writes whole."""
    noise = b"n" * 100
    program = f"import os\nwhile True: os.write(1, {noise!r} + bytes([10]))"
    stranger = subprocess.Popen([sys.executable, "-c", program], stdout=pipe.write_fd)
    assert select.select([pipe.read_fd], [], [], 60)[0], "the stranger writes nothing"
    lines = lines_of(*(length % 2000 for length in range(0, 400_000, 401)))
    pipe.read_along()

    receipt = pipe.sink.write(batch(*lines))
    stranger.kill()
    stranger.wait()

    came = pipe.everything().split(b"\n")[:-1]
    assert len(lines) == receipt.delivered
    assert lines == [line for line in came if line != noise]
    assert noise in came[came.index(lines[0]) : came.index(lines[-1])]


def test_long_lines_of_two_workers_do_not_mingle() -> None:
    """Two workers share one output, and an event may be 64 times what the kernel writes in one piece."""
    program = """
import sys
from collector.sinks.stdout import StdoutSink
from tests.fakes import batch
sink = StdoutSink()
sink.start()
for _ in range(20):
    sink.write(batch(*(sys.argv[1].encode() * 20_000 for _ in range(5))))
"""
    read_fd, write_fd = os.pipe()
    workers = [
        subprocess.Popen([sys.executable, "-c", program, letter], cwd=ROOT, stdout=write_fd) for letter in ("a", "b")
    ]
    shut(write_fd)
    with os.fdopen(read_fd, "rb") as output:
        lines = output.read().split(b"\n")
    codes = [worker.wait() for worker in workers]

    assert [0, 0] == codes
    assert sorted([b"", *[b"a" * 20_000] * 100, *[b"b" * 20_000] * 100]) == sorted(lines)


def test_it_works_from_the_threads_of_a_gevent_worker() -> None:
    """There locks and polls are gevent's, while writes run in real threads of its pool."""
    program = """
from gevent import monkey
monkey.patch_all()
import os, sys
import gevent
from gevent.threadpool import ThreadPool
from collector.sinks.stdout import StdoutSink
from tests.fakes import batch
sink = StdoutSink()
sink.start()
pool = ThreadPool(4)
ticks = []
def tick():
    while True:
        ticks.append(1)
        gevent.sleep(0.001)
ticker = gevent.spawn(tick)
def write(number):
    gevent.sleep(0)  # gives the thread a hub, as any waiting in it would; then os.close defers
    return sink.write(batch(*(b"%d" % number * 6000 for _ in range(50))))
writes = [pool.spawn(write, number) for number in range(8)]
delivered = [write.get() for write in writes]
assert all(receipt.delivered == 50 for receipt in delivered), delivered
sys.stderr.write("ticked" if len(ticks) > 1 else "stood still")
"""
    read_fd, write_fd = os.pipe()
    worker = subprocess.Popen([sys.executable, "-c", program], cwd=ROOT, stdout=write_fd, stderr=subprocess.PIPE)
    shut(write_fd)
    with os.fdopen(read_fd, "rb") as output:
        lines = output.read().split(b"\n")
    _, said = worker.communicate()

    assert b"ticked" == said
    assert sorted([b"", *[b"%d" % number * 6000 for number in range(8) for _ in range(50)]]) == sorted(lines)


def test_room_that_another_writer_took_is_waited_for_again(pipe: Pipe, monkeypatch: pytest.MonkeyPatch) -> None:
    """Between the poll and the write of a non-blocking pipe another worker may fill it."""
    real, refusals = os.write, [1, 2, 3]

    def write(fd: int, piece: bytes) -> int:
        if refusals and fd != pipe.write_fd:
            refusals.pop()
            raise BlockingIOError
        return real(fd, piece)

    monkeypatch.setattr(os, "write", write)
    receipt = pipe.sink.write(batch(b"one"))
    pipe.read_along()

    assert [] == refusals
    assert 1 == receipt.delivered
    assert b"one\n" == pipe.everything()


def test_a_write_before_the_start_and_after_the_close_is_put_back(pipe: Pipe) -> None:
    """The order of a drain may be wrong; that must not cost an event."""
    sink = StdoutSink(pipe.write_fd)
    with pytest.raises(TransientSinkError):
        sink.write(batch(b"early"))
    sink.start()
    sink.close()
    with pytest.raises(TransientSinkError):
        sink.write(batch(b"late"))

    pipe.read_along()

    assert b"" == pipe.everything()


def test_an_output_that_is_not_there_is_named_at_the_start() -> None:
    """A daemon may be started with its output closed."""
    fd = os.open(os.devnull, os.O_WRONLY)
    shut(fd)

    with pytest.raises(TransientSinkError, match="is not there"):
        StdoutSink(fd).start()
