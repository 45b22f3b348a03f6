"""
Become a program whose only writable places are a list of tmpfs mounts, as in a container with a read-only root.

    unshare --mount --propagation private python stage.py '{"mounts": […], …}' program argument…

The one JSON argument holds `mounts` (the shape of tmpfs-mounts.json), `keep` (directories to be seen
still, read-only, where a mount would hide them), `uid` to run as, `ready_fd` to which a
byte is written when all is mounted, and `go_fd` from which a byte is awaited before the program starts, so that
a tracer can take hold of it. The process keeps its id throughout. Works on the mount namespace it is in: run it
nowhere else than under unshare.
"""

from __future__ import annotations

import json
import os
import subprocess
import sys
from pathlib import Path
from typing import Any


def mount(*arguments: str) -> None:
    """Call the mount program, whose message is ours when it fails."""
    subprocess.run(["mount", *arguments], check=True)


def mount_points() -> list[str]:
    """Return where something is mounted, oldest first, as this namespace sees it."""
    rows = Path("/proc/self/mountinfo").read_text().splitlines()
    return [row.split()[4].encode().decode("unicode_escape") for row in rows]


def make_places(places: list[Path]) -> None:
    """Make the directories that mounts go on, on a tmpfs of our own, so that the machine's disk stays as it is."""
    ours: set[Path] = set()
    for place in places:
        if place.is_dir():
            continue
        parent = next(parent for parent in place.parents if parent.is_dir())
        if parent == Path("/"):
            sys.exit(f"nothing above {place} but the root exists: it can't be made without touching the disk")
        if not any(parent.is_relative_to(own) for own in ours):
            mount("-t", "tmpfs", "-o", "size=64k,mode=0755", "stage", str(parent))
            ours.add(parent)
        place.mkdir(parents=True)


def build(mounts: list[dict[str, Any]], keep: list[str]) -> None:
    """Mount the writable places, and make everything else read-only; /proc stays, being no file system on a disk."""
    hidden = [place for place in keep if any(Path(place).is_relative_to(row["containerPath"]) for row in mounts)]
    kept = {place: os.open(place, os.O_PATH | os.O_DIRECTORY) for place in hidden}
    make_places([Path(row["containerPath"]) for row in mounts])
    for row in mounts:
        options = ",".join([f"size={row['size']}m", *row.get("mountOptions", [])])
        mount("-t", "tmpfs", "-o", options, "stage", row["containerPath"])
    for place, fd in kept.items():
        Path(place).mkdir(parents=True, exist_ok=True)
        # Not by its path, which leads to the empty directory by now.
        mount("--no-canonicalize", "--bind", f"/proc/{os.getpid()}/fd/{fd}", place)
        os.close(fd)
    writable = {row["containerPath"] for row in mounts}

    def to_change() -> list[str]:
        places = [place for place in mount_points() if place not in writable and place != "/proc"]
        return [place for place in places if not os.statvfs(place).f_flag & os.ST_RDONLY]

    for place in to_change():
        mount("-o", "remount,bind,ro", place)
    if left := to_change():
        sys.exit(f"still writable: {left}")


def main() -> None:
    """Build the stage, report, wait, and become the program."""
    plan = json.loads(sys.argv[1])
    build(plan["mounts"], plan["keep"])
    os.write(plan["ready_fd"], b"+")
    os.close(plan["ready_fd"])
    if not os.read(plan["go_fd"], 1):
        sys.exit("the test went away")
    os.close(plan["go_fd"])
    # The user of the image, without a right to write past file modes; but one to read past them, because the
    # interpreter may lie in somebody's home.
    caps = "-all,+dac_read_search"
    os.execvp(
        "setpriv",
        [
            "setpriv",
            f"--reuid={plan['uid']}",
            f"--regid={plan['uid']}",
            "--clear-groups",
            f"--inh-caps={caps}",
            f"--ambient-caps={caps}",
            f"--bounding-set={caps}",
            "--no-new-privs",
            *sys.argv[2:],
        ],
    )


if __name__ == "__main__":
    main()
