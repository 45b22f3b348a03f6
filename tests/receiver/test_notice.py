"""What the launcher tells its workers, through memory that both have open."""

from __future__ import annotations

import os
import subprocess
import sys
from collections.abc import Iterator

import msgspec
import pytest

from collector.receiver import notice
from collector.receiver.notice import LAUNCHED, MAX_PROBLEM_BYTES, Board, Inherited, Notice, Reader, Rejection
from tests.server import ROOT

FULL = Notice(
    leaving=True,
    reload=Rejection('"' * MAX_PROBLEM_BYTES, "2026-01-02T03:04:05.678901Z"),
    counters={f"collector_of_some_length_{n}_total": [((label,), 2**63) for label in "ab"] for n in range(20)},
)


@pytest.fixture
def board() -> Iterator[Board]:
    board = Board()
    yield board
    board.close()


def test_what_was_written_last_is_read(board: Board) -> None:
    """A shorter notice after a longer one leaves nothing of it."""
    reader = Reader(board.fd)
    seen = [reader.read()]
    for said in (FULL, Notice(leaving=True), Notice(leaving=True), Notice()):
        board.write(said)
        seen.append(reader.read())

    assert [Notice(), FULL, Notice(leaving=True), Notice(leaving=True), Notice()] == seen


def test_a_board_that_is_being_written_is_not_believed(board: Board) -> None:
    """The first half of one notice and the second of another are no notice."""
    reader = Reader(board.fd)
    board.write(FULL)
    assert FULL == reader.read()
    os.pwrite(board.fd, b"x", 100)

    assert FULL == reader.read()
    board.write(Notice())
    assert Notice() == reader.read()


def test_words_of_another_version_are_passed_over(board: Board) -> None:
    """After a reload the launcher is older than its workers."""
    reader = Reader(board.fd)

    class Later(msgspec.Struct):
        leaving: bool = True
        mood: str = "fine"

    board.write(Later())  # type: ignore[arg-type]
    assert Notice(leaving=True) == reader.read()

    class Other(msgspec.Struct):
        leaving: str = "soon"

    board.write(Other())  # type: ignore[arg-type]
    assert Notice(leaving=True) == reader.read()


def test_without_a_launcher_there_is_nothing_to_read_and_nobody_to_tell() -> None:
    """Plain gunicorn runs the same worker."""
    assert not notice.has_launcher()
    assert Notice() == notice.read()
    notice.tell_ready()


def test_a_worker_reads_and_tells_through_what_it_inherits(board: Board) -> None:
    """The numbers of the open files come in one variable."""
    board.write(Notice(leaving=True))
    ready, tell = os.pipe()
    inherited = Inherited(settings=0, notice=board.fd, ready=tell, binds=())
    program = "from collector.receiver import notice as n; n.tell_ready(); print(n.has_launcher(), n.read().leaving)"
    environ = {**os.environ, "PYTHONPATH": str(ROOT), LAUNCHED: msgspec.json.encode(inherited).decode()}
    with subprocess.Popen(
        [sys.executable, "-c", program], env=environ, pass_fds=(board.fd, tell), stdout=subprocess.PIPE, text=True
    ) as worker:
        said = worker.communicate()[0]
    os.close(tell)
    told = os.read(ready, 100)
    os.close(ready)

    assert "True True\n" == said
    assert b"%d\n" % worker.pid == told
