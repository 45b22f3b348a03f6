"""What the file system refuses once costs nothing later: each a fault that `flows/test_faulty_disk.py` found."""

from __future__ import annotations

import errno
import random
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import pytest
from xxhash import xxh3_64_hexdigest

from collector.buffer.room import Bounds
from collector.buffer.spool import Spool
from collector.delivery.flusher import Flusher
from collector.delivery.retry import Backoff
from collector.errors import SpoolError
from collector.telemetry.counters import CounterFile, columns_of, read
from collector.telemetry.journal import Journal, Settlement
from collector.telemetry.journal import read as read_journal
from tests.fakes import FakeClock, RecordingSignals, ScriptedSink
from tests.flows.faults import Fate, FaultyDisk, Plan, Process

BOUNDS = Bounds(task_bytes=1 << 30, worker_bytes=1 << 30, segment_bytes=1 << 20)


class World:
    """Workers on a disk that fails when a test says so."""

    def __init__(self, root: Path) -> None:
        self.root = root
        self.clock = FakeClock()
        self.signals = RecordingSignals()
        self.sink = ScriptedSink()
        self.disk = FaultyDisk()
        self.processes: dict[str, Process] = {}

    def spool(self, owner: str) -> Spool:
        self.processes[owner] = Process()
        return Spool(self.root, owner, BOUNDS, clock=self.clock, signals=self.signals)

    @contextmanager
    def failing(self, spool: Spool, *calls: str, fate: Fate = Fate.FAIL, error: int = errno.EIO) -> Iterator[None]:
        """Let every one of these calls of a worker fail."""
        plan = Plan(fate, first=0, count=1000, error=error, calls=frozenset(calls))
        with self.disk.running(self.processes[spool.owner], plan):
            yield

        assert plan.met, f"none of {calls} was called"

    @contextmanager
    def running(self, spool: Spool) -> Iterator[None]:
        with self.disk.running(self.processes[spool.owner]):
            yield

    def started(self, owner: str) -> Spool:
        spool = self.spool(owner)
        with self.running(spool):
            spool.start()
        return spool

    def append(self, spool: Spool, line: bytes = b"1") -> None:
        spool.append("default", "a", line + b"\n", events=1, received_us=self.clock.now_us())

    def deliver(self, spool: Spool, *, closing: bool = False) -> None:
        flusher = Flusher(
            spool,
            {"default": self.sink},
            backoff=Backoff(rng=random.Random(1)),
            clock=self.clock,
            signals=self.signals,
            max_age_s=1.0,
            concurrency=2,
        )
        for _ in range(4):
            self.clock.advance(2.0)
            spool.tick()
            flusher.tick()
        if closing:
            spool.close()


@pytest.fixture
def world(root: Path) -> Iterator[World]:
    world = World(root)
    with world.disk.installed():
        yield world


def test_what_was_refused_and_could_not_be_cut_off_is_not_delivered(world: World) -> None:
    """The device sends it again: delivered now, it would arrive twice, and the books would have more out than in."""
    spool = world.started("w1")
    world.append(spool, b"kept")
    with (
        world.failing(spool, "write", "ftruncate", fate=Fate.AFTER),
        pytest.raises(SpoolError),
    ):
        world.append(spool, b"refused")
    with world.running(spool):
        world.deliver(spool)

    assert [b"kept"] == world.sink.lines
    assert {"accepted": 1, "delivered": 1}.items() <= spool.books.totals().total.items()
    assert not world.signals.named("events_lost")
    spool.close()


def test_a_worker_whose_directory_fails_once_is_in_the_books_later(world: World) -> None:
    """What was half made under its name was folded away as one that is gone, and its events counted nowhere."""
    spool = world.spool("w1")
    with world.failing(spool, "posix_fallocate", "rmdir", error=errno.ENOSPC):
        spool._try_open()
    for _ in range(2):
        world.clock.advance(2.0)
        with world.running(spool):
            spool.tick()
    other = world.started("w2")
    with world.running(spool):
        world.append(spool)
    world.clock.advance(2.0)
    with world.running(other):
        other.tick()

    assert 1 == other.books.totals().total["accepted"]
    spool.close()
    other.close()


@pytest.mark.parametrize("calls", [("posix_fallocate",), ("pwrite",), ("rename",), ("mmap",)])
def test_a_directory_that_can_not_be_made_leaves_no_file_open(world: World, calls: tuple[str, ...]) -> None:
    """It is tried four times a second: a file left open each time is the end of the worker within minutes."""
    spool = world.spool("w1")
    for _ in range(3):
        with world.failing(spool, *calls):
            spool.start()
        world.clock.advance(2.0)

    assert not world.processes["w1"].fds


def test_an_adoption_that_fails_leaves_no_file_open(world: World) -> None:
    """As above, once a second."""
    dead = world.started("w1")
    world.append(dead)
    world.disk.kill(world.processes["w1"])
    spool = world.started("w2")
    world.disk.kill(world.processes["w2"])
    spool = world.spool("w3")
    with world.failing(spool, "fstat", "stat"):
        spool.start()
    open_files = len(world.processes["w3"].fds)
    with world.running(spool):
        world.deliver(spool)

    assert open_files <= 3
    assert [b"1"] == world.sink.lines
    spool.close()


def test_a_segment_that_can_not_be_unlinked_is_unlinked_later(world: World) -> None:
    """What it held is settled: no reason to end a tick in the middle, or to leave a worker's other files open."""
    spool = world.started("w1")
    world.append(spool)
    (segment,) = spool.open_segments()
    with world.failing(spool, "unlink"):
        world.deliver(spool, closing=True)
    assert segment.path.exists()
    assert not world.processes["w1"].fds

    other = world.started("w2")
    with world.running(other):
        world.deliver(other, closing=True)

    assert not segment.path.exists()
    assert [b"1"] == world.sink.lines


def test_what_can_not_be_adopted_keeps_no_other_from_it(world: World) -> None:
    """One directory with books that nobody can read would hold up the events of every dead worker."""
    for owner in ("w1", "w2"):
        dead = world.started(owner)
        world.append(dead, owner.encode())
    for owner in ("w1", "w2"):
        world.disk.kill(world.processes[owner])
    record = b'{"settled":7}'
    line = b"%s %s\n" % (xxh3_64_hexdigest(record).encode(), record)
    (world.root / "owners" / "w1" / "journal").write_bytes(line)
    spool = world.started("w3")
    with world.running(spool):
        world.deliver(spool)

    assert b"w2" in world.sink.lines
    spool.close()


def test_directories_that_can_not_be_listed_end_no_tick(world: World) -> None:
    """What comes after it in the tick is due: the measure of the room, for one."""
    spool = world.started("w1")
    world.clock.advance(2.0)
    with world.failing(spool, "listdir"):
        spool.tick()

    world.append(spool)
    spool.close()


def test_the_ledger_is_read_past_a_directory_without_counters(world: World) -> None:
    """A worker that dies while its directory is made would make the whole task's ledger unreadable."""
    spool = world.started("w1")
    world.append(spool)
    (world.root / "owners" / "half").mkdir()

    assert 1 == spool.books.totals().total["accepted"]
    spool.close()


def test_counters_that_can_not_grow_go_on_counting(world: World) -> None:
    """A new tenant that finds no memory must not take the counters from all others."""
    counters = CounterFile(world.root / "counters")
    counters.start()
    first = counters.row("t0")
    for n in range(1, 16):
        counters.row(f"t{n}")
    with (
        world.disk.running(Process(), Plan(Fate.FAIL, first=0, calls=frozenset({"mmap"}))),
        pytest.raises(OSError, match="memory"),
    ):
        counters.row("t16")
    counters.add(first, 5, 5)

    assert 5 == read(world.root / "counters")["t0"]["accepted"]
    counters.row("t16")
    counters.close()


def test_counters_whose_header_was_cut_short_are_made_anew(world: World) -> None:
    """A header that nobody can read would make the ledger of the whole task unreadable."""
    path = world.root / "counters"
    counters = CounterFile(path)
    with (
        world.disk.running(Process(), Plan(Fate.SHORT, first=0, calls=frozenset({"pwrite"}))),
        pytest.raises(OSError, match="header"),
    ):
        counters.start()
    counters.close()
    path.write_bytes(b'{"columns":["acc'.ljust(16384, b"\0"))

    assert {} == read(path)
    assert () == columns_of(path)
    again = CounterFile(path)
    again.start()
    again.add(again.row("a"), 2, 2)
    assert 2 == read(path)["a"]["accepted"]
    again.close()


def test_a_line_that_the_journal_took_in_part_is_an_error_and_is_written_over(world: World) -> None:
    """It is a file system that refuses like any other: the batch is tried again, and no defect is told."""
    journal = Journal(world.root / "journal")
    journal.start()
    with (
        world.disk.running(Process(), Plan(Fate.SHORT, first=0, calls=frozenset({"pwrite"}))),
        pytest.raises(OSError, match="part of a line"),
    ):
        journal.write(Settlement({"a": {"delivered": 1}}))
    journal.write(Settlement({"a": {"delivered": 2}}))
    journal.close()

    assert {"a": {"delivered": 2}} == read_journal(world.root / "journal")[0].fates


def test_what_a_dead_writer_left_and_can_not_be_removed_costs_no_file(world: World) -> None:
    """It is tried again each second, and a file each time would be the end of the worker."""
    spool = world.started("w1")
    (world.root / "owners" / ".dead").mkdir()
    held = set(world.processes["w1"].fds)
    with world.failing(spool, "rmdir"):
        spool.adopt()

    assert held == world.processes["w1"].fds
