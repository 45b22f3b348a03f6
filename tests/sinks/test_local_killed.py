"""
The `file:` sink's writer killed with SIGKILL: at random instants, and before every single step that it takes.

The writers are forked by a nursery process, because starting Python anew for each of them takes longer than
all they do, and forking the test process would take its threads' locks along.
"""

from __future__ import annotations

import os
import random
import signal
import subprocess
import sys
from collections.abc import Iterator
from functools import cache
from pathlib import Path

import pytest
import zstandard

from collector.event import Batch
from collector.sinks.local import LocalSink
from tests.fakes import HOUR, FakeClock, batch

ROOT = Path(__file__).resolve().parents[2]
BATCHES = 12
KILLS = 30

NURSERY = """
import fcntl, itertools, os, signal, sys
from pathlib import Path
from tests.fakes import FakeClock
from tests.sinks.test_local_killed import BATCHES, LocalSink, numbered

def die_at(step):
    # Count every call into the file system, and die instead of the one that is named; of a write, do half.
    count = itertools.count()
    def mortal(call, is_write=False):
        def instead(*args, **kwargs):
            if next(count) == step:
                if is_write:
                    call(args[0], args[1][: len(args[1]) // 2])
                os.kill(os.getpid(), signal.SIGKILL)
            return call(*args, **kwargs)
        return instead
    for owner, name in ((os, "open"), (os, "fsync"), (os, "ftruncate"), (os, "close"), (fcntl, "flock"),
                        (Path, "rename"), (Path, "mkdir")):
        setattr(owner, name, mortal(getattr(owner, name)))
    os.write = mortal(os.write, is_write=True)

def write_for_ever(directory):
    sink = LocalSink(directory, clock=FakeClock())
    sink.start()
    tell = sys.stdout.fileno()
    for number in itertools.cycle(range(BATCHES)):
        one = numbered(number)
        os.write(tell, b"writing\\n")
        sink.write(one)

def write_once(directory, step):
    one = numbered(0)
    die_at(step)
    sink = LocalSink(directory, clock=FakeClock())
    sink.start()
    sink.write(one)

for number in range(BATCHES):
    numbered(number)  # made once, here, for all that are forked
for line in sys.stdin:
    directory, step = line.rstrip("\\n").split("\\t")
    pid = os.fork()
    if pid == 0:
        code = 1
        os.write(1, b"%d\\n" % os.getpid())
        try:
            write_for_ever(directory) if step == "any" else write_once(directory, int(step))
            code = 0
        finally:
            os._exit(code)
    os.write(1, b"ended %d\\n" % os.waitstatus_to_exitcode(os.waitpid(pid, 0)[1]))
"""


@cache
def numbered(number: int) -> Batch:
    """Make the batch of a number, always the same: up to 1 MiB that does not compress, so that writing takes time."""
    rng = random.Random(number)
    lines = [rng.randbytes(rng.choice([10, 1000, 100_000])).hex().encode() for _ in range(rng.randint(1, 10))]
    return batch(*lines, name=f"w1-{number:08d}", tenant_id=f"t{number % 2}", hour=HOUR + number % 3)


class Nursery:
    """Forks writers, one at a time, and tells what became of them."""

    def __init__(self) -> None:
        self._process = subprocess.Popen(
            [sys.executable, "-c", NURSERY],
            cwd=ROOT,
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            text=True,
            bufsize=1,
        )
        assert self._process.stdin is not None
        assert self._process.stdout is not None
        self._say, self._hear = self._process.stdin, self._process.stdout

    def bear(self, directory: Path, step: str) -> None:
        """Fork a writer."""
        self._say.write(f"{directory}\t{step}\n")

    def hear(self) -> str:
        """Wait for the next line of the writer or of the nursery."""
        line = self._hear.readline()
        assert line, "the nursery died"
        return line.rstrip("\n")

    def close(self) -> None:
        """End the nursery, which ends when its input does."""
        self._say.close()
        self._hear.close()
        self._process.wait()


@pytest.fixture(scope="module")
def nursery() -> Iterator[Nursery]:
    made = Nursery()
    yield made
    made.close()


def objects_are_whole(directory: Path) -> int:
    """Assert that each object holds exactly the lines of its batch; return how many there are."""
    found = list(directory.rglob("*.ndjson.zst"))
    for path in found:
        expected = numbered(int(path.name.split(".")[0].split("-")[1]))
        assert expected.payload == zstandard.ZstdDecompressor().decompress(path.read_bytes(), allow_extra_data=False), (
            path
        )
    return len(found)


def everything_once(directory: Path, numbers: range) -> None:
    """Write the batches again, as their redelivery does; assert one object each, and nothing else."""
    sink = LocalSink(directory, clock=FakeClock())
    sink.start()
    for number in numbers:
        sink.write(numbered(number))

    assert len(numbers) == objects_are_whole(directory)
    assert len(numbers) == sum(path.is_file() for path in directory.rglob("*"))


def test_a_writer_killed_at_random_instants_leaves_whole_objects(nursery: Nursery, tmp_path: Path) -> None:
    """`kill -9` comes at any instant; a reader may look at the next."""
    rng = random.Random(20260102)
    for _ in range(KILLS):
        nursery.bear(tmp_path, "any")
        pid = int(nursery.hear())
        for _ in range(rng.randint(1, BATCHES)):
            assert "writing" == nursery.hear()
        for _ in range(rng.randint(0, 60_000)):  # up to a few ms: wherever in a write that is
            pass
        os.kill(pid, signal.SIGKILL)
        while (said := nursery.hear()) == "writing":
            pass

        assert f"ended {-signal.SIGKILL}" == said
        objects_are_whole(tmp_path)

    everything_once(tmp_path, range(BATCHES))


def test_a_writer_killed_before_any_of_its_steps_leaves_whole_objects(nursery: Nursery, tmp_path: Path) -> None:
    """Random instants rarely meet the gap between two system calls, so each is tried in turn."""
    outcomes = []
    for step in range(200):
        directory = tmp_path / str(step)
        nursery.bear(directory, str(step))
        pid = int(nursery.hear())
        ended = nursery.hear()
        outcomes.append(objects_are_whole(directory))
        everything_once(directory, range(1))
        if ended == "ended 0":
            break

        assert f"ended {-signal.SIGKILL}" == ended, pid

    # First none, then the object, from the step after its renaming to the end.
    assert sorted(outcomes) == outcomes
    assert {0, 1} == set(outcomes)
    assert 15 < len(outcomes) < 200
