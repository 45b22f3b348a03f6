"""
The servers: an empty application on stock gunicorn, the floor below it, and Collector with everything on.
"""

from __future__ import annotations

import http.client
import os
import signal
import socket
import subprocess
import sys
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager, suppress
from hashlib import sha256
from pathlib import Path
from time import monotonic, sleep

import msgspec

from bench import proc
from bench.uploads import key, names

ROOT = Path(__file__).resolve().parent.parent
_HOST = "127.0.0.1"
#: For a start or a stop, in seconds; a stop drains.
_PATIENCE_S = 40.0
_POLL_S = 0.05
#: What the shipped tmpfs-mounts.json leaves for the spool: 90 % of 512 MiB.
_SPOOL_BYTES = "460 MiB"
#: A rate that no run reaches, so that quotas are counted and refuse nobody; and another tenant, or nothing would be
#: shared.
_TENANT = """
[tenants.{name}]
keys = ["{digest}"]
events_per_s = 10_000_000
bytes_per_s = "16 GiB"
"""
_IDLE = """
[tenants.idle]
keys = ["{digest}"]
"""


class ServerError(Exception):
    """Raised when a server does not start, or does not end."""


class Server(msgspec.Struct, frozen=True):
    """One that runs: where it listens, and the workers that do the work."""

    name: str
    address: tuple[str, int]
    workers: tuple[int, ...]


class CollectorServer(Server, frozen=True):
    """Collector: with the admin listener, and the directories of its spool and of its sink."""

    admin: tuple[str, int]
    spool: Path
    sink: Path


@contextmanager
def reference(folder: Path, *cores: int, workers: int = 1) -> Iterator[Server]:
    """Run `bench.reference` on stock gunicorn, with its own choice of a parser, until the block is left."""
    with _on_gunicorn("reference", "gevent", folder, cores, workers) as server:
        yield server


@contextmanager
def floor(folder: Path, *cores: int) -> Iterator[Server]:
    """Run `bench.floor`, which is a worker of gunicorn's, until the block is left."""
    with _on_gunicorn("floor", "bench.floor.Floor", folder, cores, 1) as server:
        yield server


@contextmanager
def _on_gunicorn(name: str, worker_class: str, folder: Path, cores: Sequence[int], workers: int) -> Iterator[Server]:
    folder.mkdir()
    (port,) = free_ports(1)
    command = [sys.executable, "-m", "gunicorn", "--worker-class", worker_class, "--workers", str(workers),
               "--bind", f"{_HOST}:{port}", "--worker-tmp-dir", str(folder), "--no-control-socket",
               "bench.reference:app"]  # fmt: skip
    with _running(name, command, {}, folder, cores, (_HOST, port), workers=workers) as pids:
        yield Server(name, (_HOST, port), pids)


@contextmanager
def collector(
    folder: Path,
    *cores: int,
    workers: int = 1,
    tenants: int = 1,
    sink_options: str = "",
    others: Mapping[str, str] | None = None,
    environ: Mapping[str, str] | None = None,
    stdout: int | None = None,
) -> Iterator[CollectorServer]:
    """
    Run `collector serve` with authentication, quota, shares, spool, ledger, flusher and a `file:` sink.

    Of its tenants `names(tenants)` upload, and one more never does. `others` are settings beside these or instead of
    them, named as the variables are, without COLLECTOR_ and small; `environ` are variables that are no settings. Its
    standard output goes to `stdout`, an open file, or else to `output` in its folder, where its errors go anyway.
    """
    folder.mkdir()
    port, admin_port = free_ports(2)
    settings = folder / "collector.toml"
    known = "".join(_TENANT.format(name=name, digest=_digest(name)) for name in names(tenants))
    settings.write_text(known + _IDLE.format(digest=_digest("idle")))
    variables = {
        **(environ or {}),
        "COLLECTOR_BIND": f"{_HOST}:{port}",
        "COLLECTOR_ADMIN_BIND": f"{_HOST}:{admin_port}",
        "COLLECTOR_WORKERS": str(workers),
        "COLLECTOR_CONFIG": str(settings),
        "COLLECTOR_SPOOL_DIR": str(folder / "spool"),
        "COLLECTOR_SPOOL_BYTES": _SPOOL_BYTES,
        "COLLECTOR_SINK": f"file:{folder / 'sink'}{sink_options}",
        # Nothing is measured while it ends.
        "COLLECTOR_LAME_DUCK_S": "0",
        **{f"COLLECTOR_{name.upper()}": value for name, value in (others or {}).items()},
    }
    command = [sys.executable, "-m", "collector", "serve"]
    admin = (_HOST, admin_port)
    with _running(
        "Collector", command, variables, folder, cores, admin, workers=workers, ready="/readyz", stdout=stdout
    ) as pids:
        yield CollectorServer("Collector", (_HOST, port), pids, admin, folder / "spool", folder / "sink")


def get(address: tuple[str, int], path: str) -> tuple[int, bytes]:
    """Ask a server, and return the status and the body of its answer; raises OSError."""
    link = http.client.HTTPConnection(*address, timeout=_PATIENCE_S)
    try:
        link.request("GET", path)
        answer = link.getresponse()
        return answer.status, answer.read()
    except http.client.HTTPException as error:
        raise ConnectionError(str(error)) from error
    finally:
        link.close()


def free_ports(count: int) -> list[int]:
    """Return ports of loopback that nobody listens on."""
    links = [socket.create_server((_HOST, 0)) for _ in range(count)]
    ports = [int(link.getsockname()[1]) for link in links]
    for link in links:
        link.close()
    return ports


@contextmanager
def _running(
    name: str,
    command: Sequence[str],
    environ: Mapping[str, str],
    folder: Path,
    cores: Sequence[int],
    address: tuple[str, int],
    *,
    workers: int,
    ready: str = "/",
    stdout: int | None = None,
) -> Iterator[tuple[int, ...]]:
    """Start a server on its cores, give the ids of its workers when all are there, and end it."""
    words = folder / "output"
    # Only what is said here: the caller's COLLECTOR_* variables are no part of the measurement, nor is his
    # gunicorn.conf.py, so the server runs in a folder of its own.
    inherited = {variable: os.environ[variable] for variable in ("PATH", "LANG", "HOME") if variable in os.environ}
    with words.open("wb") as output, proc.pinned(*cores):
        process = subprocess.Popen(
            command,
            cwd=folder,
            env={**inherited, "PYTHONPATH": str(ROOT), "TMPDIR": str(folder), **environ},
            stdin=subprocess.DEVNULL,
            stdout=output if stdout is None else stdout,
            stderr=output,
        )
    try:
        _await_ready(name, process, address, ready, words)
        yield _await_workers(name, process.pid, workers, words)
        process.terminate()
        try:
            process.wait(_PATIENCE_S)
        except subprocess.TimeoutExpired:
            raise ServerError(f"{name} does not end; its last words:\n{_tail(words)}") from None
        if process.returncode:
            raise ServerError(f"{name} ended with {process.returncode}; its last words:\n{_tail(words)}")
    finally:
        kill(process)


def _await_ready(name: str, process: subprocess.Popen[bytes], address: tuple[str, int], path: str, words: Path) -> None:
    deadline = monotonic() + _PATIENCE_S
    while monotonic() < deadline:
        if process.poll() is not None:
            raise ServerError(f"{name} ended with {process.returncode} at its start; its last words:\n{_tail(words)}")
        try:
            if get(address, path)[0] == 200:
                return
        except OSError:
            pass
        sleep(_POLL_S)
    raise ServerError(f"{name} is not ready after {_PATIENCE_S:.0f} s; its last words:\n{_tail(words)}")


def _digest(name: str) -> str:
    return sha256(key(name).encode()).hexdigest()


def _tail(words: Path) -> str:
    return words.read_text(errors="replace")[-2000:]


def _await_workers(name: str, pid: int, count: int, words: Path) -> tuple[int, ...]:
    """Find the workers, which have nobody below them, once there are so many; the first of them may be ready alone."""
    deadline = monotonic() + _PATIENCE_S
    while monotonic() < deadline:
        with suppress(FileNotFoundError):  # one has ended meanwhile
            found = tuple(one for one in proc.below(pid) if not proc.children(one))
            if len(found) == count:
                return found
        sleep(_POLL_S)
    raise ServerError(f"{name} has no {count} workers after {_PATIENCE_S:.0f} s; its last words:\n{_tail(words)}")


def kill(process: subprocess.Popen[bytes]) -> None:
    """End what is left of a server and its workers, by their ids."""
    if process.poll() is not None:
        return
    # It may start others while it lives.
    process.send_signal(signal.SIGSTOP)
    left = [*proc.below(process.pid)]
    process.kill()
    process.wait()
    for pid in left:
        try:
            os.kill(pid, 9)
        except ProcessLookupError:
            continue
