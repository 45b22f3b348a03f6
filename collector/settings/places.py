"""
Where things lie on this machine: the files Collector ships, the tmpfs mounts it may write to, and the memory it has.
"""

from __future__ import annotations

import os
import re
import sys
from collections.abc import Iterable
from contextlib import suppress
from pathlib import Path

import msgspec

from collector.errors import SettingsError

#: Where a loopback run may keep its spool without a mount of its own.
DEV_SHM = "/dev/shm"  # noqa: S108 -- the kernel's own tmpfs, by its name
#: The part of a limit of memory at which uploads are refused. What lies above is for what nobody counts: a body while
#: it is inflated and split, a batch while it is packed. 10 % of 512 MiB, the smallest task that Fargate has, are
#: 51 MiB; the largest uploads there can be, 16 MiB and four at once, took 69 in a worker (measured), others under 25.
CLOSE_PART = 0.90
#: What a worker may take beside the spool: what we promise. An idle one has 42 MiB, 12 of them shared with the others,
#: and the largest uploads there can be have brought it to 115 (measured).
WORKER_BYTES = 120 << 20
#: Rows of a cgroup's `memory.stat` that the kernel frees before it kills. Pages of tmpfs are in none of them.
_TAKEN_BACK = ("inactive_file", "active_file", "slab_reclaimable")
_LIBRARY_FOLDERS = frozenset({"site-packages", "dist-packages"})


class Mount(msgspec.Struct, frozen=True, rename="camel"):
    """One entry of `tmpfs-mounts.json`, in the shape of ECS `linuxParameters.tmpfs`; `size` is in MiB."""

    container_path: str
    size: int
    mount_options: tuple[str, ...] = ()


def locate(name: str) -> Path:
    """
    Find a file that Collector ships beside the package: in the checkout, else where the installation put it.

    Raises SettingsError when it is in neither place.
    """
    checkout = Path(__file__).resolve().parents[2]
    places = [Path(sys.prefix) / "share" / "collector" / name]
    if checkout.name not in _LIBRARY_FOLDERS:
        places.insert(0, checkout / name)
    for place in places:
        if place.is_file():
            return place
    raise SettingsError([f"{name} is missing from {' and '.join(map(str, places))}: install Collector again"])


def read_mounts(path: Path) -> tuple[Mount, ...]:
    """Read a `tmpfs-mounts.json`; raises SettingsError with a sentence."""
    try:
        mounts = msgspec.json.decode(path.read_bytes(), type=tuple[Mount, ...])
    except OSError as error:
        raise SettingsError([f"{path} can't be read: {error.strerror}"]) from None
    except msgspec.DecodeError as error:
        raise SettingsError([f'{path} is not a list of {{"containerPath": …, "size": MiB}} objects: {error}']) from None
    if wrong := [mount.container_path for mount in mounts if not mount.container_path.startswith("/")]:
        raise SettingsError([f"{path}: containerPath {wrong[0]!r} is not absolute; write it from / on"])
    return mounts


def is_on_one_of(directory: str, mounts: Iterable[str]) -> bool:
    """Tell whether a directory lies on one of the mounts, or is one, after symlinks and `..` are resolved."""
    real = Path(os.path.realpath(directory))
    return any(real.is_relative_to(os.path.realpath(mount)) for mount in mounts)


def nearest_existing(directory: str) -> Path:
    """Return the directory itself or the nearest folder above it that exists, as far as this user may look."""
    place = Path(os.path.realpath(directory))
    while not os.path.exists(place):
        place = place.parent
    return place


def mount_size_bytes(directory: str) -> int:
    """Return the whole size of the file system that holds a directory, or will hold it once it is made."""
    status = os.statvfs(nearest_existing(directory))
    return status.f_frsize * status.f_blocks


def file_system_type(directory: str, *, root: str = "/") -> str:
    """Return the type of the file system that holds a directory (`tmpfs`, `ext4`), by `/proc/self/mountinfo`."""
    real = nearest_existing(directory)
    found, depth = "unknown", -1
    try:
        lines = Path(root, "proc/self/mountinfo").read_text().splitlines()
    except OSError:
        return found
    for line in lines:
        before, _, after = line.partition(" - ")
        # The kernel writes blanks in a path as octal, \040.
        point = Path(re.sub(r"\\([0-7]{3})", lambda octal: chr(int(octal[1], 8)), before.split()[4]))
        # Not less, equal too: of mounts over one another the last line is on top.
        if real.is_relative_to(point) and len(point.parts) >= depth:
            found, depth = after.split()[0], len(point.parts)
    return found


class MemoryGroup(msgspec.Struct, frozen=True):
    """A cgroup that holds this process: its folder, and how its version names what is in it."""

    folder: Path
    version: int

    def limit_bytes(self) -> int | None:
        """
        Return what all its processes together may use, or None without a limit; raises OSError.

        In version 1 the limits of the cgroups above count too, those that can't be seen among them: a container of
        Fargate has its limit on the task.
        """
        if self.version == 2:
            words = [(self.folder / "memory.max").read_text()]
        else:
            words = [(self.folder / "memory.limit_in_bytes").read_text()]
            words.append(str(self.statistics().get("hierarchical_memory_limit", "")))
        return min((int(word) for word in words if word.strip().isdigit()), default=None)

    def used_bytes(self) -> int:
        """
        Return what its processes use and the kernel can't take back at once, tmpfs included; raises OSError.

        The cache of files is not in it, and neither is what the kernel notes of files (version 2 alone tells).
        """
        usage = int((self.folder / ("memory.current" if self.version == 2 else "memory.usage_in_bytes")).read_text())
        # In version 1 rows of a cgroup and of all below it begin with `total_`.
        before = "" if self.version == 2 else "total_"
        rows = self.statistics()
        return usage - sum(rows.get(before + row, 0) for row in _TAKEN_BACK)

    def statistics(self) -> dict[str, int]:
        """Return the rows of `memory.stat`, none if it can't be read."""
        rows = (row.split() for row in _lines(self.folder / "memory.stat"))
        return {row[0]: int(row[1]) for row in rows if len(row) == 2}


def memory_groups(root: str = "/") -> list[MemoryGroup]:
    """
    List the cgroups (v2, v1) that hold this process and account for memory, as far as they can be seen.

    A container sees its own cgroup at the top of the tree while its path may name it from outside: folders that
    are not there are passed over, the top is always looked at.
    """
    groups = []
    for line in _lines(Path(root, "proc/self/cgroup")):
        _, controllers, path = line.split(":", 2)
        if not controllers:
            top, version, name = Path(root, "sys/fs/cgroup"), 2, "memory.max"
        elif "memory" in controllers.split(","):
            top, version, name = Path(root, "sys/fs/cgroup/memory"), 1, "memory.limit_in_bytes"
        else:
            continue
        parts = [part for part in path.split("/") if part not in {"", ".", ".."}]
        folders = [top.joinpath(*parts[:depth]) for depth in range(len(parts) + 1)]
        groups += [MemoryGroup(folder, version) for folder in folders if (folder / name).exists()]
    return groups


def memory_limit_bytes(root: str = "/") -> int:
    """
    Return how much memory this process may use: the tightest cgroup limit (v2, v1) above it, at most all there is.

    `root` is where `/proc` and `/sys` are looked for.
    """
    limits = [machine_memory_bytes(root)[0]]
    for group in memory_groups(root):
        with suppress(OSError):
            limits += [limit for limit in (group.limit_bytes(),) if limit is not None]
    return min(limits)


def machine_memory_bytes(root: str = "/") -> tuple[int, int]:
    """Return how much memory the machine has, and how much of it could be had without swapping."""
    found = {}
    for line in _lines(Path(root, "proc/meminfo")):
        name, _, value = line.partition(":")
        if name in {"MemTotal", "MemAvailable"}:
            found[name] = int(value.split()[0]) * 1024
    if "MemTotal" not in found:
        raise SettingsError([f"{Path(root, 'proc/meminfo')} does not say how much memory there is"])
    return found["MemTotal"], found.get("MemAvailable", found["MemTotal"])


def _lines(path: Path) -> list[str]:
    try:
        return path.read_text().splitlines()
    except OSError:
        return []
