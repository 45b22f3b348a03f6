"""Processes of the launcher: none is left behind, and none is left a zombie."""

from __future__ import annotations

import json
import os
import signal
import subprocess
import sys
from pathlib import Path

from tests.server import ROOT, wait_for

# A launcher in small, in a process of its own, for what it becomes can't be undone. Its child leaves an orphan, which
# says its pid, lives until it is told to end, and is nobody's but the launcher's then.
LAUNCHER = """
import json, os, select, signal, sys
from collector.launcher.children import Children

ORPHAN = "import os; print(os.getpid(), os.getpgid(0), flush=True); os.read(0, 1)"
CHILD = f"import subprocess, sys; subprocess.Popen([sys.executable, '-c', {ORPHAN!r}], stdin=int(sys.argv[1]))"

children = Children()
children.adopt_orphans()
gate, key = os.pipe()
child = children.start([sys.executable, "-c", CHILD, str(gate)], environ=dict(os.environ), fds=(gate,),
                       at_our_death=signal.SIGKILL)
os.close(gate)
while child.status is None:
    children.reap()
print("child", child.status, os.getpid(), flush=True)
sys.stdin.readline()
os.close(key)
while True:
    children.reap()
    select.select([], [], [], 0.01)
"""


def state(pid: int) -> tuple[str, int] | None:
    """Return a process's state and parent; None when there is none of that number."""
    try:
        first, parent = Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()[:2]
    except (FileNotFoundError, ProcessLookupError):
        return None
    return first, int(parent)


def test_an_orphan_comes_to_the_launcher_and_is_reaped(tmp_path: Path) -> None:
    """PID 1 of a container inherits whatever its children leave; zombies fill the table of processes."""
    environ = {**os.environ, "PYTHONPATH": str(ROOT), "PYTHONDONTWRITEBYTECODE": "1"}
    with subprocess.Popen(
        [sys.executable, "-c", LAUNCHER], stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True, env=environ
    ) as launcher:
        assert launcher.stdin is not None
        assert launcher.stdout is not None
        try:
            lines = [launcher.stdout.readline().split() for _ in range(2)]
            ((orphan, group),) = [map(int, line) for line in lines if line[0] != "child"]

            assert ["child", "0", str(launcher.pid)] in lines
            wait_for(lambda: (state(orphan) or ("", 0))[1] == launcher.pid, "the orphan to come to the launcher")
            assert os.getpgid(launcher.pid) != group
            launcher.stdin.write("\n")
            launcher.stdin.flush()
            wait_for(lambda: state(orphan) is None, "the orphan to be reaped")
        finally:
            launcher.kill()


TIED = """
import json, os, select, signal, sys
from collector.launcher.children import Children

child = Children().start([sys.executable, "-c", "import time; time.sleep(600)"], environ=dict(os.environ),
                         at_our_death=signal.SIGTERM)
print(json.dumps(child.pid), flush=True)
select.select([], [], [])
"""


def test_a_child_hears_of_the_death_of_its_launcher(tmp_path: Path) -> None:
    """kill -9 runs no code of ours; the kernel tells the master, which drains."""
    environ = {**os.environ, "PYTHONPATH": str(ROOT)}
    with subprocess.Popen([sys.executable, "-c", TIED], stdout=subprocess.PIPE, text=True, env=environ) as launcher:
        assert launcher.stdout is not None
        child = json.loads(launcher.stdout.readline())
        assert state(child) is not None
        launcher.send_signal(signal.SIGKILL)

    wait_for(lambda: (state(child) or ("Z", 0))[0] == "Z", "the child to end")
