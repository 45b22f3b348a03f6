"""
What the kernel says of processes and cores, from /proc and /sys.
"""

from __future__ import annotations

import os
import platform
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from importlib.metadata import version
from pathlib import Path
from time import monotonic, sleep

import msgspec

_TICK_S = 1 / os.sysconf("SC_CLK_TCK")
#: /proc/PID/clear_refs, proc(5): begin the peak of the resident set anew.
_RESET_PEAK = "5"
#: Of a line of /proc/stat: idle and iowait. All else but `guest`, which `user` holds already, is work.
_IDLE = (3, 4)
_KINDS = 8
#: Idle is who uses less than this part of a core for so many seconds: longer than the second between two looks at
#: the settings.
_IDLE_S, _IDLE_PART = 1.25, 0.1
_PACKAGES = ("gunicorn", "gunicorn_h1c", "gevent", "flask")


class Cores(msgspec.Struct, frozen=True):
    """
    Where the server and the load run; `shared` says why that is not a whole core each, or nothing.

    `more` are further cores of the server, for more than one worker.
    """

    server: int
    load: int
    shared: str = ""
    more: tuple[int, ...] = ()

    @property
    def servers(self) -> tuple[int, ...]:
        """Return all cores of the server."""
        return (self.server, *self.more)

    @property
    def loads(self) -> tuple[int, ...]:
        """Return where the load may run: among the server's cores it goes wherever there is room."""
        return self.servers if self.load in self.servers else (self.load,)


def choose_cores() -> Cores:
    """Choose two cores that we may use and that are not two threads of one, if there are."""
    allowed = sorted(os.sched_getaffinity(0))
    server = allowed[0]
    if len(allowed) == 1:
        return Cores(server, server, "one core for the server and the load: what the load takes, the server has not")
    twins = _twins(server)
    apart = [core for core in allowed[1:] if core not in twins]
    if apart:
        return Cores(server, apart[0])
    return Cores(server, allowed[1], "the two cores are two threads of one: each slows the other down")


def choose_cores_of_two() -> Cores | None:
    """Choose two cores for two workers and a third for the load, of which no two are threads of one, if there are."""
    allowed = sorted(os.sched_getaffinity(0))
    apart: list[int] = []
    for core in allowed:
        if not _twins(core).intersection(apart):
            apart.append(core)
    if len(apart) > 2:
        return Cores(apart[0], apart[2], more=(apart[1],))
    if len(allowed) == 1:
        return None
    first, second = (apart if len(apart) == 2 else allowed)[:2]
    threads = "" if len(apart) == 2 else ", which are two threads of one"
    return Cores(first, second, f"the load generator shares the two cores{threads}", (second,))


def _twins(core: int) -> set[int]:
    """Return the threads of the same physical core; unknown ones are none."""
    with suppress(OSError, ValueError):
        text = Path(f"/sys/devices/system/cpu/cpu{core}/topology/thread_siblings_list").read_text().strip()
        ranges = (part.partition("-") for part in text.split(","))
        return {one for first, _, last in ranges for one in range(int(first), int(last or first) + 1)}
    return {core}


@contextmanager
def pinned(*cores: int) -> Iterator[None]:
    """Run on these cores alone; what is started inside stays there."""
    before = os.sched_getaffinity(0)
    os.sched_setaffinity(0, cores)
    try:
        yield
    finally:
        os.sched_setaffinity(0, before)


def children(pid: int) -> list[int]:
    """Return the processes that a process has started and that still run."""
    return [int(word) for word in Path(f"/proc/{pid}/task/{pid}/children").read_text().split()]


def below(pid: int) -> Iterator[int]:
    """Give every process below one, the upper ones first."""
    for child in children(pid):
        yield child
        yield from below(child)


def cpu_s(*pids: int) -> float:
    """Return the CPU time that processes have used, user and system, in seconds."""
    return sum(_ticks(f"/proc/{pid}/stat") for pid in pids) * _TICK_S


def main_thread_s(pid: int) -> float:
    """Return the CPU time that the main thread of a process has used of it, in seconds."""
    return _ticks(f"/proc/{pid}/task/{pid}/stat") * _TICK_S


def _ticks(stat: str) -> int:
    # The name, in brackets, may hold spaces and brackets.
    fields = Path(stat).read_text().rpartition(")")[2].split()
    return int(fields[11]) + int(fields[12])


def await_idle(*pids: int, patience_s: float) -> bool:
    """Wait until processes have nearly nothing to do, which a server may not be when it is ready; tell whether so."""
    deadline, used_s = monotonic() + patience_s, cpu_s(*pids)
    while monotonic() < deadline:
        sleep(_IDLE_S)
        before_s, used_s = used_s, cpu_s(*pids)
        if used_s - before_s <= _IDLE_PART * _IDLE_S:
            return True
    return False


def core_busy_s(*cores: int) -> float:
    """Return how long cores have worked since the boot, for anybody, in seconds; what a hypervisor took counts."""
    names, ticks = {f"cpu{core}" for core in cores}, 0
    for line in Path("/proc/stat").read_text().splitlines():
        name, *times = line.split()
        if name in names:
            ticks += sum(int(time) for n, time in enumerate(times[:_KINDS]) if n not in _IDLE)
    return ticks * _TICK_S


def reset_peak(*pids: int) -> None:
    """Begin the peak of the resident sets anew; a kernel that can't goes on with the old one."""
    for pid in pids:
        with suppress(OSError):
            Path(f"/proc/{pid}/clear_refs").write_text(_RESET_PEAK)


def peak_bytes(*pids: int) -> int:
    """Return the highest peak of the resident sets (VmHWM)."""
    return max(_status_bytes(pid, "VmHWM") for pid in pids)


def resident_bytes(pid: int) -> int:
    """Return the resident set of this moment (VmRSS), what is shared with other processes included."""
    return _status_bytes(pid, "VmRSS")


def _status_bytes(pid: int, field: str) -> int:
    for line in Path(f"/proc/{pid}/status").read_text().splitlines():
        if line.startswith(f"{field}:"):
            return int(line.split()[1]) * 1024
    return 0


def machine() -> str:
    """Say in a line on what this was measured."""
    model = platform.machine()
    with suppress(OSError):
        lines = Path("/proc/cpuinfo").read_text().splitlines()
        model = next((line.partition(":")[2].strip() for line in lines if line.startswith("model name")), model)
    packages = ", ".join(f"{name} {version(name)}" for name in _PACKAGES)
    return f"{model}, Linux {platform.release()}, CPython {platform.python_version()}, {packages}"
