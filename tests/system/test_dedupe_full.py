"""The ids on a real tmpfs that is full: nobody dies by SIGBUS, and no event is refused for want of room for ids."""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path

import pytest

from tests.server import ROOT
from tests.system.server import missing

pytestmark = [pytest.mark.system, pytest.mark.skipif(bool(missing()), reason=missing())]

# What runs in a mount namespace of its own, with a tmpfs of 2 MiB at the path that it is given.
PROGRAM = """
import os, subprocess, sys
from contextlib import suppress
from pathlib import Path

from collector.clock import SystemClock
from tests.admission.test_dedupe import One

root = Path(sys.argv[1])
subprocess.run(["mount", "-t", "tmpfs", "-o", "size=2m", "test", str(root)], check=True)

def stranger_fills():
    with (root / "stranger").open("wb", buffering=0) as file, suppress(OSError):
        while file.write(bytes(4096)):
            pass

# More than there is: events pass unchecked, and what was laid out of it is given back.
one = One(root, "w1", SystemClock(), size_bytes=4 << 20)
assert ["a"] == one.taken("a")
assert ["a"] == one.taken("a")
assert one.signals.named("dedupe_unchecked")
one.close()

# There is room, and then there is none: every row of the table was laid out, and can be written.
one = One(root, "w2", SystemClock(), size_bytes=1 << 19)
assert ["a"] == one.taken("a")
stranger_fills()
assert 0 == os.statvfs(root).f_bavail
for n in range(0, 20_000, 500):
    tokens = [str(k) for k in range(n, n + 500)]
    claim = one.claim(*tokens, append=lambda new: [event.id for event in new])
    assert 500 == len(claim.new)
assert 100 == one.claim(*tokens[-100:], append=lambda new: 1 / 0).duplicates

# A worker that starts now maps what is there.
other = One(root, "w3", SystemClock(), size_bytes=1 << 19)
assert 100 == other.claim(*tokens[-100:], append=lambda new: 1 / 0).duplicates
"""


def test_a_full_tmpfs_costs_neither_a_worker_nor_an_event(tmp_path: Path) -> None:
    """A store to a page of a mapping that tmpfs can't give is a SIGBUS, and every connection of the worker is gone."""
    mount = tmp_path / "tmpfs"
    mount.mkdir()
    run = subprocess.run(
        ["unshare", "--mount", "--propagation", "private", sys.executable, "-c", PROGRAM, str(mount)],
        cwd=ROOT,
        capture_output=True,
        text=True,
        check=False,
    )

    assert (0, "") == (run.returncode, run.stderr)
