"""A start is short: what each process loads before it is ready, and what it does not do meanwhile. Seconds: bench."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from pathlib import Path

import pytest

from bench.start import PROGRAMS

ROOT = Path(__file__).resolve().parent.parent

#: What nobody needs before a server is ready. (structlog brings asyncio, werkzeug http.server, gunicorn http.client.)
_NOBODY = {
    "boto3", "botocore", "splunk_handler", "rich", "pygments", "prometheus_client", "multiprocessing", "xml", "sqlite3",
    "unittest", "pkg_resources", "setuptools",
}  # fmt: skip
_SERVER = {"flask", "werkzeug", "jinja2", "structlog", "asyncio"}
UNWANTED = {
    # It has started gunicorn when it loads structlog.
    "launcher": _NOBODY | _SERVER | {"gevent", "gunicorn", "http", "ssl", "email", "secrets"},
    # What it has loaded no reload of gunicorn's own can change.
    "master": _NOBODY | _SERVER | {"msgspec", "click"},
    "worker": _NOBODY,
}
_AND_SAY = "\nimport json, sys\nprint(json.dumps(sorted(sys.modules)))"


def said_by(program: str, folder: Path) -> list[str]:
    """Run a program in a fresh interpreter, and return the lines that it said."""
    environ = {**os.environ, "PYTHONPATH": str(ROOT)}
    ran = subprocess.run(
        [sys.executable, "-c", program], cwd=folder, env=environ, capture_output=True, text=True, check=False
    )

    assert 0 == ran.returncode, ran.stderr

    return ran.stdout.splitlines()


@pytest.mark.parametrize("process", PROGRAMS)
def test_nothing_is_loaded_before_ready_that_is_not_needed_for_it(process: str, tmp_path: Path) -> None:
    """A start is mostly imports, of three processes in a row; what is listed was 5 to 100 ms, or would be."""
    loaded = json.loads(said_by(PROGRAMS[process] + _AND_SAY, tmp_path)[-1])

    assert "gunicorn" in loaded or process == "launcher"
    assert set() == UNWANTED[process] & set(loaded)


def test_the_master_loads_nothing_of_collector_but_the_worker_s_class(tmp_path: Path) -> None:
    """What it has loaded, the workers inherit, and a reload of gunicorn's own would bring no new code."""
    loaded = json.loads(said_by(PROGRAMS["master"] + _AND_SAY, tmp_path)[-1])

    assert ["collector", "collector.receiver", "collector.receiver.worker"] == [
        name for name in loaded if name.partition(".")[0] == "collector"
    ]


def test_the_launcher_has_its_logger_when_a_generation_was_started(tmp_path: Path) -> None:
    """It is loaded while gunicorn starts, and not for the first line: by then what is on the disk may be broken."""
    program = """
import sys
from collector.launcher import task
from collector.settings import Settings

class Machine:
    def __init__(self, *_, **__): pass

class Launcher(task.Launcher):
    ticks = 0
    exit_status = property(lambda self: 0 if self.ticks > 1 else None)
    def tick(self):
        self.ticks += 1
        print("structlog" in sys.modules)

task.Launcher, task.Machine = Launcher, Machine
task._BUSY_S = 0
task.run(Settings(), configuration=None, environ={})
"""
    assert ["False", "True"] == said_by(program, tmp_path)


def test_structlog_alone_does_not_get_rich(tmp_path: Path) -> None:
    """A command that prints a table after it has logged must still find it."""
    program = """
import io, sys
from collector.telemetry.logs import build_logger
build_logger(io.BytesIO(), "info").info("a.b")
hidden = "rich" not in sys.modules
import rich
print(hidden, rich.__name__)
"""
    assert ["True rich"] == said_by(program, tmp_path)


def test_a_worker_looks_at_what_is_installed_once_when_it_patches(tmp_path: Path) -> None:
    """gevent asks 25 times, each time all metadata is read, and a plugin must be told all the same."""
    folder = tmp_path / "plugin-1.dist-info"
    folder.mkdir()
    (folder / "METADATA").write_text("Metadata-Version: 2.1\nName: plugin\nVersion: 1\n")
    (folder / "entry_points.txt").write_text("[gevent.plugins.monkey.did_patch_all]\nplugin = plugin:told\n")
    (tmp_path / "plugin.py").write_text("def told(event): print(type(event).__name__)\n")
    program = """
import sys; sys.path.insert(0, "")
from importlib import metadata
from collector.receiver.worker import Worker
look, find, found = metadata.entry_points, metadata.distributions, []
metadata.distributions = lambda **wanted: found.append(wanted) or find(**wanted)
worker = Worker.__new__(Worker)
worker.sockets = []
worker.patch()
import socket, gevent.socket
print(len(found), metadata.entry_points is look, socket.socket is gevent.socket.socket)
"""
    assert ["GeventDidPatchAllEvent", "1 True True"] == said_by(program, tmp_path)


def test_a_worker_collects_garbage_when_it_is_ready_and_what_it_loaded_is_none(tmp_path: Path) -> None:
    """Looking through what stays takes a tenth of a start; later it would hold every request of the moment up."""
    program = """
import gc, runpy
from types import SimpleNamespace
hooks = runpy.run_path("{file}")
states = []
runtime = SimpleNamespace(start=lambda: states.append(gc.isenabled()))
worker = SimpleNamespace(age=1, wsgi=SimpleNamespace(runtime=runtime))
hooks["post_fork"](SimpleNamespace(cfg=SimpleNamespace(workers=1)), worker)
hooks["post_worker_init"](worker)
print(states, gc.isenabled(), gc.get_freeze_count() > 1000)
"""
    said = said_by(program.replace("{file}", str(ROOT / "gunicorn.conf.py")), tmp_path)

    assert ["[False] True True"] == said


def test_a_stop_in_the_instant_of_the_fork_ends_the_worker(tmp_path: Path) -> None:
    """It still has its master's handlers, which would note the signal for nobody, and it would serve on for 88 s."""
    program = """
import os, runpy, signal
os.register_at_fork(after_in_child=lambda: os.kill(os.getpid(), signal.SIGTERM))
runpy.run_path("{file}")
runpy.run_path("{file}")
signal.signal(signal.SIGTERM, lambda number, frame: None)
child = os.fork()
if not child:
    os._exit(0)
os.kill(os.getpid(), signal.SIGTERM)
print(os.waitstatus_to_exitcode(os.waitpid(child, 0)[1]), signal.pthread_sigmask(signal.SIG_BLOCK, ()))
"""
    assert ["-15 set()"] == said_by(program.replace("{file}", str(ROOT / "gunicorn.conf.py")), tmp_path)


def test_a_worker_gets_the_interpreter_back_from_its_threads_at_once(tmp_path: Path) -> None:
    """A page of ten thousand tenants is made in a thread; each system call of the loop would wait 5 ms for it."""
    program = (
        "import sys; from collector import bootstrap; bootstrap.build = lambda _: None; bootstrap.create_app(); "
        "print(sys.getswitchinterval() < 0.001)"
    )

    assert ["True"] == said_by(program, tmp_path)


def test_the_loop_looks_at_its_sockets_in_a_breath(tmp_path: Path) -> None:
    """A tick may read for seconds; after a pause of 0 the loop would go on with its callbacks, 50 of them at least."""
    program = """
import gevent
from collector.bootstrap import create_app
from gevent import socket
runtime = create_app().runtime
for breathe in runtime._spool._breathe, runtime._flusher._breathe:
    ours, theirs = socket.socketpair()
    reader = gevent.spawn(ours.recv, 1)
    gevent.sleep(0)
    theirs.send(b"!")
    breaths = 0
    while breaths < 100 and not reader.ready():
        breathe()
        breaths += 1
    print(breaths)
"""
    breaths = [int(line) for line in said_by(program, tmp_path)]

    # The one who breathes may be called before the one who reads.
    assert 2 == len(breaths)
    assert max(breaths) <= 2
