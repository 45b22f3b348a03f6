"""
Where things lie on this machine: the files Collector ships, the tmpfs mounts it may write to, and the memory it has.
"""

from __future__ import annotations

import os
import re
import sys
from collections.abc import Iterable
from pathlib import Path

import msgspec

from collector.errors import SettingsError

#: Where a loopback run may keep its spool without a mount of its own.
DEV_SHM = "/dev/shm"  # noqa: S108 -- the kernel's own tmpfs, by its name
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


def memory_limit_bytes(root: str = "/") -> int:
    """
    Return how much memory this process may use: the tightest cgroup limit (v2, v1) above it, at most all there is.

    `root` is where `/proc` and `/sys` are looked for.
    """
    limits = [_total_memory_bytes(root)]
    for line in _lines(Path(root, "proc/self/cgroup")):
        _, controllers, path = line.split(":", 2)
        if not controllers:
            limits += _limits_up(Path(root, "sys/fs/cgroup"), path, "memory.max")
        elif "memory" in controllers.split(","):
            limits += _limits_up(Path(root, "sys/fs/cgroup/memory"), path, "memory.limit_in_bytes")
    return min(limits)


def _limits_up(top: Path, path: str, name: str) -> list[int]:
    """
    Read a limit in a cgroup and in all that hold it, as far as they can be seen.

    A container sees its own cgroup at the top of the tree while `path` may name it from outside: folders that
    are not there are passed over, the top is always read.
    """
    parts = [part for part in path.split("/") if part not in {"", ".", ".."}]
    folders = [top.joinpath(*parts[:depth]) for depth in range(len(parts) + 1)]
    words = [word for folder in folders for word in _lines(folder / name)]
    return [int(word) for word in words if word.strip().isdigit()]


def _total_memory_bytes(root: str) -> int:
    for line in _lines(Path(root, "proc/meminfo")):
        if line.startswith("MemTotal:"):
            return int(line.split()[1]) * 1024
    raise SettingsError([f"{Path(root, 'proc/meminfo')} does not say how much memory there is"])


def _lines(path: Path) -> list[str]:
    try:
        return path.read_text().splitlines()
    except OSError:
        return []
