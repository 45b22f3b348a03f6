"""
How long a start takes, from exec to the first 200 of `/readyz`, and what its imports cost: `python -m bench.start`.
"""

from __future__ import annotations

import os
import re
import shutil
import signal
import socket
import subprocess
import sys
import tempfile
from collections.abc import Iterable, Iterator, Sequence
from contextlib import suppress
from pathlib import Path
from statistics import median
from time import monotonic, sleep

import click
import msgspec

from bench import proc
from bench.servers import free_ports, kill
from bench.table import table

ROOT = Path(__file__).resolve().parent.parent
_HOST = "127.0.0.1"
#: What is promised, in seconds.
PROMISED_S = 1.0
#: For a start or a stop, in seconds.
_PATIENCE_S = 40.0
#: Between two tries to connect; once the port is open, the answer itself is waited for.
_POLL_S = 0.002
_READY = b"GET /readyz HTTP/1.1\r\nHost: start.bench\r\nConnection: close\r\n\r\n"
#: Packages shown of those that a process loads.
_SHOWN = 12

_LINE = re.compile(r"import time:\s*(\d+) \|\s*\d+ \|\s*([\w.]+)$")
_FROM_HERE = "---"
#: What each of our processes loads before it is ready, as programs; what stands before the mark another has loaded.
PROGRAMS = {
    "launcher": """
import collector.cli
from collector.launcher import task
""",
    "master": """
import gunicorn.app.wsgiapp, gunicorn.arbiter, gunicorn.glogging
import collector.receiver.worker
""",
    "worker": f"""
import gc, sys
import gunicorn.app.wsgiapp, gunicorn.arbiter, gunicorn.glogging
import collector.receiver.worker
print("{_FROM_HERE}", file=sys.stderr, flush=True)
gc.disable()
from gevent import monkey
monkey.patch_all()
from collector.bootstrap import create_app
from collector.receiver import connection, notice, roster, turns
create_app()
""",
}


class Start(msgspec.Struct, frozen=True):
    """One start: seconds from exec to the first 200, and the CPU time of all its processes until then."""

    ready_s: float
    cpu_s: float


class Package(msgspec.Struct, frozen=True):
    """What the modules of one package cost to load, without what they load of others."""

    name: str
    modules: int
    cost_ms: float


@click.command()
@click.option("--starts", type=click.IntRange(min=1), default=20, help="How many of each kind (20).")
def main(starts: int) -> None:
    """Start Collector time and again, and print tables in Markdown."""
    found = {workers: [start(workers) for _ in range(starts)] for workers in (1, 2)}
    costs = {process: packages(import_times(program)) for process, program in PROGRAMS.items()}
    click.echo(render(found, costs))


def start(workers: int) -> Start:
    """Start Collector with its own spool and sink in memory, wait until it is ready, and end it."""
    folder = Path(tempfile.mkdtemp(prefix="collector-start-", dir="/dev/shm"))
    try:
        with (folder / "output").open("wb") as output:
            port, admin_port = free_ports(2)
            began = monotonic()
            process = subprocess.Popen(
                [sys.executable, "-m", "collector", "serve"],
                cwd=folder,
                env={
                    **_environ(folder),
                    "COLLECTOR_BIND": f"{_HOST}:{port}",
                    "COLLECTOR_ADMIN_BIND": f"{_HOST}:{admin_port}",
                    "COLLECTOR_WORKERS": str(workers),
                },
                stdin=subprocess.DEVNULL,
                stdout=output,
                stderr=subprocess.STDOUT,
            )
        try:
            _await_ready(process, (_HOST, admin_port), folder / "output")
            ready_s = monotonic() - began
            cpu_s = sum(proc.cpu_s(pid) for pid in (process.pid, *proc.below(process.pid)))
        finally:
            _end(process)
    finally:
        shutil.rmtree(folder)
    return Start(ready_s, cpu_s)


def _environ(folder: Path) -> dict[str, str]:
    # Only what is said here: the caller's COLLECTOR_* variables are no part of the measurement.
    inherited = {variable: os.environ[variable] for variable in ("PATH", "LANG", "HOME") if variable in os.environ}
    return {
        **inherited,
        "PYTHONPATH": str(ROOT),
        "COLLECTOR_SPOOL_DIR": str(folder / "spool"),
        "COLLECTOR_SINK": f"file:{folder / 'sink'}",
        # Nothing is measured while it ends.
        "COLLECTOR_LAME_DUCK_S": "0",
    }


def _await_ready(process: subprocess.Popen[bytes], address: tuple[str, int], words: Path) -> None:
    deadline = monotonic() + _PATIENCE_S
    while process.poll() is None and monotonic() < deadline:
        with suppress(OSError), socket.create_connection(address, _PATIENCE_S) as link:
            link.sendall(_READY)
            if link.recv(1024).startswith(b"HTTP/1.1 200 "):
                return
        sleep(_POLL_S)
    raise SystemExit(
        f"Collector did not come to be ready; its last words:\n{words.read_text(errors='replace')[-2000:]}"
    )


def _end(process: subprocess.Popen[bytes]) -> None:
    """Let it drain; end what does not, by its ids."""
    process.send_signal(signal.SIGTERM)
    try:
        process.wait(_PATIENCE_S)
    except subprocess.TimeoutExpired:
        kill(process)
        raise SystemExit("Collector does not end") from None


# -- imports -----------------------------------------------------------------------------------------------


def import_times(program: str) -> list[str]:
    """Run a program with `-X importtime`, twice so that its caches are warm, and return what Python said."""
    folder = Path(tempfile.mkdtemp(prefix="collector-start-", dir="/dev/shm"))
    try:
        for _ in range(2):
            ran = subprocess.run(
                [sys.executable, "-X", "importtime", "-c", program],
                cwd=folder, env=_environ(folder), capture_output=True, text=True, check=True,
            )  # fmt: skip
    finally:
        shutil.rmtree(folder)
    return ran.stderr.splitlines()


def packages(lines: Sequence[str]) -> list[Package]:
    """Add up what `-X importtime` said after the mark, or all of it, by package; the dearest first."""
    if _FROM_HERE in lines:
        lines = lines[lines.index(_FROM_HERE) + 1 :]
    costs: dict[str, list[int]] = {}
    for match in filter(None, map(_LINE.match, lines)):
        top = match[2].partition(".")[0]
        # Python's own names that no list has are its frozen and private modules.
        is_own = top in sys.stdlib_module_names or top in {"zipimport", "site"}
        costs.setdefault("(Python's own)" if is_own else top, []).append(int(match[1]))
    found = [Package(name, len(costs_us), sum(costs_us) / 1000) for name, costs_us in costs.items()]
    return sorted(found, key=lambda package: (-package.cost_ms, package.name))


# -- the report --------------------------------------------------------------------------------------------


def render(found: dict[int, list[Start]], costs: dict[str, list[Package]]) -> str:
    """Return the tables, and what they need to be read."""
    columns = ("workers", "starts", "best s", "median s", "worst s", "CPU s, best", "CPU s, median")
    rows = [(str(workers), *_numbers(starts)) for workers, starts in found.items()]
    parts = ["", table(columns, rows, words=1), "", *(f"- {note}" for note in _notes(found)), ""]
    for process, loaded in costs.items():
        rows = [(package.name, str(package.modules), f"{package.cost_ms:.1f}") for package in _shown(loaded)]
        parts += [table((f"loaded by the {process}", "modules", "ms"), rows, words=1), ""]
    return "\n".join(parts)


def _numbers(starts: Iterable[Start]) -> tuple[str, ...]:
    ready, cpu = [one.ready_s for one in starts], [one.cpu_s for one in starts]
    return (
        str(len(ready)), f"**{min(ready):.2f}**", f"{median(ready):.2f}", f"{max(ready):.2f}",
        f"{min(cpu):.2f}", f"{median(cpu):.2f}",
    )  # fmt: skip


def _shown(loaded: list[Package]) -> list[Package]:
    """Return the dearest, the rest as one, and the sum."""
    rest, summed = loaded[_SHOWN:], _sum("**all**", loaded)
    return [*loaded[:_SHOWN], *([_sum(f"{len(rest)} more", rest)] if rest else []), summed]


def _sum(name: str, loaded: list[Package]) -> Package:
    return Package(name, sum(one.modules for one in loaded), sum(one.cost_ms for one in loaded))


def _notes(found: dict[int, list[Start]]) -> Iterator[str]:
    yield proc.machine()
    yield (
        "From exec to the first 200 of `/readyz` on the admin listener, with warm caches. CPU is that of all processes "
        "until then; with others on the machine, trust it and the best, and not the median."
    )
    late = [workers for workers, starts in found.items() if min(one.ready_s for one in starts) > PROMISED_S]
    if late:
        told = " and ".join(map(str, late))
        yield f"**No start with {told} workers was ready within {PROMISED_S:g} s**, which is what is promised."
    yield "What is loaded was timed by `-X importtime`, which makes an import take up to twice as long."


if __name__ == "__main__":
    main()
