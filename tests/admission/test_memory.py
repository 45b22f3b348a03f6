"""When a task is short of memory: by which limit, from when on, until when, and what it says."""

from __future__ import annotations

import ctypes
import os
import subprocess
import sys
from pathlib import Path

import pytest

from collector.admission.memory import LOOK_EVERY_S, MACHINE_CLOSE_PART, OPEN_PART, Memory, Use
from collector.settings.places import CLOSE_PART
from tests.fakes import FakeClock, RecordingSignals

MIB = 1 << 20
TOTAL = 16_000 * MIB
LIMIT = 1000 * MIB
CLOSE, OPEN = int(LIMIT * CLOSE_PART), int(LIMIT * OPEN_PART)
UNLIMITED_V1 = "9223372036854771712"


class Machine:
    """A root with /proc and /sys, in which a test says how much memory is in use."""

    def __init__(self, root: Path, cgroup: str = "0::/task\n") -> None:
        self.root = root
        self.write("proc/self/cgroup", cgroup)
        self.available(TOTAL)

    def write(self, path: str, text: str) -> None:
        file = self.root / path
        file.parent.mkdir(parents=True, exist_ok=True)
        file.write_text(text)

    def available(self, bytes_: int) -> None:
        self.write("proc/meminfo", f"MemTotal: {TOTAL // 1024} kB\nMemAvailable: {bytes_ // 1024} kB\n")

    def v2(self, used: int, *, limit: str = str(LIMIT), cache: int = 0, slab: int = 0, folder: str = "task/") -> None:
        """Say that a cgroup of version 2 uses so much, and beyond it the kernel for files."""
        self.write(f"sys/fs/cgroup/{folder}memory.max", f"{limit}\n")
        self.write(f"sys/fs/cgroup/{folder}memory.current", f"{used + cache + slab}\n")
        rows = {"anon": used, "file": cache, "shmem": 7, "inactive_file": cache // 2, "active_file": cache - cache // 2}
        rows |= {"slab_reclaimable": slab}
        self.write(f"sys/fs/cgroup/{folder}memory.stat", "".join(f"{name} {n}\n" for name, n in rows.items()))

    def v1(self, used: int, *, limit: str, hierarchical: str = UNLIMITED_V1, cache: int = 0) -> None:
        """Say that a cgroup of version 1, seen from inside its container, uses so much."""
        self.write("sys/fs/cgroup/memory/memory.limit_in_bytes", f"{limit}\n")
        self.write("sys/fs/cgroup/memory/memory.usage_in_bytes", f"{used + cache}\n")
        self.write(
            "sys/fs/cgroup/memory/memory.stat",
            f"hierarchical_memory_limit {hierarchical}\ninactive_file 1\ntotal_inactive_file {cache}\n",
        )


class World:
    """A guard on a machine of the test's."""

    def __init__(self, root: Path, cgroup: str = "0::/task\n", *, workers: int = 1) -> None:
        self.machine = Machine(root, cgroup)
        self.clock = FakeClock()
        self.signals = RecordingSignals()
        self.held = 0
        self.memory = Memory(
            held=lambda: self.held, workers=workers, clock=self.clock, signals=self.signals, root=str(root)
        )

    def look(self) -> bool:
        """Let a second pass; return whether uploads may come in."""
        self.clock.advance(LOOK_EVERY_S)
        self.memory.tick()
        return not self.memory.trouble


@pytest.fixture
def world(tmp_path: Path) -> World:
    return World(tmp_path)


def test_intake_closes_at_the_mark_and_opens_well_below_it(world: World) -> None:
    """With one mark for both a task at its limit would be ready and unready by turns."""
    seen = []
    for used in (CLOSE - 1, CLOSE, OPEN, OPEN - 1, CLOSE - 1, CLOSE):
        world.machine.v2(used)
        seen.append(world.look())

    assert [True, False, False, True, True, False] == seen


def test_what_the_kernel_takes_back_by_itself_is_not_in_use(world: World) -> None:
    """A cache of files fills every cgroup sooner or later, and would close a healthy task for good."""
    world.machine.v2(CLOSE - 1, cache=LIMIT // 2, slab=LIMIT // 4)

    assert world.look()
    assert Use(CLOSE - 1, LIMIT) == world.memory.use


def test_the_nearest_of_several_limits_counts(world: World) -> None:
    """A pod has a limit and its container another: the kernel kills at whichever comes first."""
    world.machine.v2(CLOSE - 10, limit=str(LIMIT))
    world.machine.v2(2 * CLOSE, limit=str(2 * LIMIT), folder="")

    assert not world.look()
    assert 2 * LIMIT == world.memory.use.limit_bytes


def test_a_limit_that_only_the_task_has_counts_in_version_1(tmp_path: Path) -> None:
    """A container of Fargate may have no limit of its own; that of its task is in the statistics alone."""
    world = World(tmp_path, "4:memory:/ecs/abc/def\n")
    world.machine.v1(CLOSE, limit=UNLIMITED_V1, hierarchical=str(LIMIT), cache=LIMIT)

    assert not world.look()
    assert Use(CLOSE, LIMIT) == world.memory.use


@pytest.mark.parametrize("limit", ["max", str(2 * TOTAL)])
def test_without_a_limit_the_machines_memory_counts(world: World, limit: str) -> None:
    """The kernel kills there too, only later: on a machine that others share 90 % in use is nothing unusual."""
    world.machine.v2(CLOSE, limit=limit)
    world.machine.available(int(TOTAL * (1 - MACHINE_CLOSE_PART)) + MIB)
    assert world.look()

    world.machine.available(int(TOTAL * (1 - MACHINE_CLOSE_PART)) - MIB)

    assert not world.look()
    assert TOTAL == world.memory.use.limit_bytes


def test_a_limit_may_come_change_and_go_while_the_task_runs(world: World) -> None:
    """Limits are changed in place, by `docker update` and by Kubernetes."""
    seen = []
    for limit in ("max", str(LIMIT), str(2 * LIMIT)):
        world.machine.v2(CLOSE, limit=limit)
        seen.append(world.look())
    (world.machine.root / "sys/fs/cgroup/task/memory.current").unlink()

    assert [True, False, True] == seen
    assert world.look()


def test_memory_is_looked_at_a_few_times_a_second(world: World) -> None:
    """A look is half a millisecond of file reads, and the tick comes four times a second."""
    world.machine.v2(0)
    assert world.look()
    world.machine.v2(CLOSE)
    world.clock.advance(LOOK_EVERY_S / 2)

    world.memory.tick()

    assert not world.memory.trouble
    assert not world.look()


@pytest.mark.parametrize("workers", [1, 4])
def test_between_two_looks_a_worker_takes_no_more_than_its_part_of_the_room(tmp_path: Path, workers: int) -> None:
    """Memory can fill within the second in which nobody looks, and all workers fill the same."""
    world = World(tmp_path, workers=workers)
    world.held = 5 * MIB
    world.machine.v2(CLOSE - 80 * MIB)
    assert world.look()
    part = 80 * MIB // workers

    said = []
    for more in (part - 1, 1):
        world.held += more
        said.append(world.memory.trouble)

    assert ["", "the task is filling its memory too fast"] == said
    world.machine.v2(CLOSE - 40 * MIB)
    assert world.look()
    assert not world.signals.calls


def test_a_shortage_is_told_once_and_so_is_its_end(world: World) -> None:
    """An operator must learn why devices are refused, and a service too small for itself must say so."""
    world.held = 3 * MIB
    for used in (CLOSE, CLOSE + MIB, OPEN - 1, OPEN - 2):
        world.machine.v2(used)
        world.look()

        if used == CLOSE + MIB:
            said = world.memory.trouble

    assert "the task is short of memory: 901 of 1000 MiB are in use, 3 MiB of them for this worker's events" == said
    assert [
        ("memory_short", {"used_bytes": CLOSE, "limit_bytes": LIMIT, "held_bytes": 3 * MIB}),
        ("memory_recovered", {"used_bytes": OPEN - 1, "limit_bytes": LIMIT}),
    ] == world.signals.calls


def test_before_the_first_look_nothing_is_refused(world: World) -> None:
    """A worker that starts looks before it accepts; what can't be read must not keep it from serving."""
    assert not world.memory.trouble


def test_this_machine_can_be_looked_at() -> None:
    """Whatever cgroups a test machine has, the real files read."""
    memory = Memory(held=int, workers=1, clock=FakeClock(), signals=RecordingSignals())
    memory.look()

    assert (
        0
        < memory.use.used_bytes
        < memory.use.limit_bytes
        <= os.sysconf("SC_PAGE_SIZE") * os.sysconf("SC_PHYS_PAGES") + (1 << 20)
    )


_FREE_LARGE_BUFFERS = """
import sys
from pathlib import Path
from collector.admission.memory import return_large_buffers

def resident_mib():
    return int(Path("/proc/self/statm").read_text().split()[1]) * 4096 >> 20

if sys.argv[1] == "yes":
    return_large_buffers()
for size in (8, 16, 24):
    bytearray(size << 20)
before = resident_mib()
kept = [part for _ in range(64) for part in (bytearray(1 << 20), bytes(64))]
top = bytes(100_000)
del kept[::2]
print(resident_mib() - before)
"""


@pytest.mark.skipif(not hasattr(ctypes.CDLL(None), "mallopt"), reason="the C library is not glibc")
def test_large_buffers_go_back_to_the_kernel_when_they_are_freed() -> None:
    """glibc would keep them for good below the next small thing that lives on, and a guard would wait for ever."""

    def held_mib(asked: str) -> int:
        run = subprocess.run(
            [sys.executable, "-c", _FREE_LARGE_BUFFERS, asked], capture_output=True, text=True, check=True
        )
        return int(run.stdout)

    assert held_mib("no") > 32
    assert held_mib("yes") < 8
