"""A real Collector on a stage of its own, and what a test may do to it from outside."""

from __future__ import annotations

import http.client
import json
import os
import shutil
import signal
import subprocess
import sys
from pathlib import Path, PurePosixPath
from typing import Any, NamedTuple, Self

import zstandard

from tests.server import PATIENCE_S, free_ports, wait_for

ROOT = Path(__file__).resolve().parent.parent.parent
STAGE = Path(__file__).with_name("stage.py")
UID = 10001  # the user of the image


def missing(*programs: str) -> str:
    """Say why a stage can't be built here; empty when it can."""
    if os.geteuid() != 0:
        return "needs root, to mount and to change the user"
    absent = [name for name in ("unshare", "nsenter", "setpriv", "mount", *programs) if shutil.which(name) is None]
    if absent:
        return f"needs {', '.join(absent)}"
    probe = subprocess.run(
        ["unshare", "--mount", "--propagation", "private", "mount", "-t", "tmpfs", "probe", "/mnt"],
        capture_output=True, text=True, check=False,
    )  # fmt: skip
    return f"mount namespaces are not to be had here: {probe.stderr.strip()}" if probe.returncode else ""


class Reply(NamedTuple):
    """What came back: `body` is the JSON, or None where there was none."""

    status: int
    headers: dict[str, str]
    body: Any


class Server:
    """
    One run of `collector serve`.

    `mounts` are its only writable places, in the shape of tmpfs-mounts.json. `watch` names a file for what
    strace sees of all its processes. A context manager: what it started is gone when the block is left.
    """

    def __init__(
        self, folder: Path, mounts: list[dict[str, Any]], settings: dict[str, str], *, watch: Path | None = None
    ) -> None:
        self._folder = folder
        self._mounts = mounts
        self._watch = watch
        self._tracer: subprocess.Popen[bytes] | None = None
        self._process: subprocess.Popen[bytes] | None = None
        self._pins: dict[str, int] = {}  # the mounts go with their last user; the test is one
        self.port, self.admin_port = free_ports(2)
        self._env = {
            "PATH": os.environ["PATH"],
            "LANG": "C.UTF-8",
            "PYTHONDONTWRITEBYTECODE": "1",
            "TMPDIR": "/tmp",
            "COLLECTOR_BIND": f"127.0.0.1:{self.port}",
            "COLLECTOR_ADMIN_BIND": f"127.0.0.1:{self.admin_port}",
            "COLLECTOR_WORKERS": "2",
            "COLLECTOR_LAME_DUCK_S": "0",
            "COLLECTOR_SPOOL_DIR": "/run/collector/spool",
            **settings,
        }

    def __enter__(self) -> Self:
        try:
            self._start([str(Path(sys.executable).with_name("collector")), "serve"])
            wait_for(self._is_ready, "the server to be ready")
        except BaseException:
            self._end()
            raise
        return self

    def __exit__(self, *exc: object) -> None:
        self._end()

    # -- the process

    @property
    def pid(self) -> int:
        assert self._process is not None
        return self._process.pid

    @property
    def output(self) -> str:
        """All that it has written to stdout and stderr."""
        return (self._folder / "output").read_text(errors="replace")

    def run(self, *program: str) -> int:
        """Run another program on the stage, in the server's place, to its end."""
        self._start(list(program))
        return self._await_end()

    def stop(self) -> int:
        """Ask it to end, wait until it has, and return its exit status."""
        os.kill(self.pid, signal.SIGTERM)
        return self._await_end()

    def workers(self) -> set[int]:
        """Return the ids of the workers: the first process is the launcher, below it are gunicorn's masters."""
        return {worker for master in _children(self.pid) for worker in _children(master)}

    # -- inside

    def inside(self, path: str) -> Path:
        """Return a path by which the test reaches what lies at `path` of a mount, even after the server's end."""
        (place,) = [place for place in self._pins if PurePosixPath(path).is_relative_to(place)]
        return Path(f"/proc/self/fd/{self._pins[place]}", PurePosixPath(path).relative_to(place))

    def enter(self, *command: str) -> subprocess.CompletedProcess[str]:
        """Run a command inside, as a shell of `docker exec` would be."""
        return subprocess.run(
            ["nsenter", "--target", str(self.pid), "--mount", *command], capture_output=True, text=True, check=False
        )

    def must_enter(self, *command: str) -> str:
        """Run a command inside that is to succeed, and return its output."""
        done = self.enter(*command)
        assert 0 == done.returncode, f"{command}: {done.stderr}"
        return done.stdout

    def set_mount(self, path: str, mode: str) -> None:
        """Make one mount `ro` or `rw`; a file open for writing on it makes the first wait."""
        wait_for(lambda: 0 == self.enter("mount", "-o", f"remount,bind,{mode}", path).returncode, f"{path} {mode}")

    # -- its two listeners

    def request(
        self, method: str, path: str, body: bytes = b"", headers: dict[str, str] | None = None, *, admin: bool = False
    ) -> Reply:
        link = http.client.HTTPConnection("127.0.0.1", self.admin_port if admin else self.port, timeout=PATIENCE_S)
        try:
            link.request(method, path, body or None, headers or {})
            answer = link.getresponse()
            raw = answer.read()
            fields = {name.lower(): value for name, value in answer.getheaders()}
        finally:
            link.close()
        is_json = "json" in fields.get("content-type", "")
        return Reply(answer.status, fields, json.loads(raw) if is_json else None)

    def upload(self, events: list[dict[str, Any]], **headers: str) -> Reply:
        """Send events as the tenant of a development run."""
        fields = {"Authorization": "Bearer dev-key", "Content-Type": "application/json", **headers}
        return self.request("POST", "/v1/events", json.dumps(events).encode(), fields)

    def ledger(self) -> dict[str, Any]:
        return dict(self.request("GET", "/ledger", admin=True).body)

    def await_delivery(self) -> dict[str, Any]:
        """Wait until nothing is pending, and return the ledger."""

        def settled() -> dict[str, Any] | None:
            ledger = self.ledger()
            return ledger if ledger["balanced"] and 0 == ledger["pending"] and 0 < ledger["accepted"] else None

        ledger: dict[str, Any] = wait_for(settled, "the spool to be delivered")
        return ledger

    def delivered(self, path: str) -> list[dict[str, Any]]:
        """Return each line that the `file:` sink at `path` has written, in no order."""
        files = self.inside(path).rglob("tenant=*/**/*.ndjson.zst")
        texts = (zstandard.ZstdDecompressor().decompressobj().decompress(file.read_bytes()) for file in files)
        return [json.loads(line) for text in texts for line in text.splitlines()]

    # -- own business

    def _is_ready(self) -> bool:
        assert self._process is not None
        assert self._process.poll() is None, f"it ended with {self._process.returncode}:\n{self.output}"
        try:
            return 200 == self.request("GET", "/readyz").status
        except OSError:
            return False

    def _start(self, program: list[str]) -> None:
        ready, ready_fd = os.pipe()
        go_fd, go = os.pipe()
        plan = {
            "mounts": self._mounts,
            "keep": [str(ROOT), sys.prefix, sys.base_prefix],
            "uid": UID,
            "ready_fd": ready_fd,
            "go_fd": go_fd,
        }
        command = ["unshare", "--mount", "--propagation", "private", sys.executable, str(STAGE), json.dumps(plan)]
        with (self._folder / "output").open("wb") as output:
            self._process = subprocess.Popen(
                [*command, *program], env=self._env, cwd="/", stdin=subprocess.DEVNULL, stdout=output,
                stderr=subprocess.STDOUT, pass_fds=(ready_fd, go_fd),
            )  # fmt: skip
        os.close(ready_fd)
        os.close(go_fd)
        try:
            assert os.read(ready, 1), f"the stage could not be built:\n{self.output}"
            if self._watch is not None:
                self._trace(self._watch)
            self._pins = {
                place: os.open(f"/proc/{self.pid}/root{place}", os.O_RDONLY | os.O_DIRECTORY)
                for place in (mount["containerPath"] for mount in self._mounts)
            }
            os.write(go, b"+")
        finally:
            os.close(ready)
            os.close(go)

    def _trace(self, into: Path) -> None:
        """Take hold of the process before it becomes the server; nothing it does afterwards goes unseen."""
        words = self._folder / "strace"
        with words.open("wb") as log:
            self._tracer = subprocess.Popen(
                ["strace", "-ff", "-y", "-e", "trace=%file,bind", "-o", str(into), "-p", str(self.pid)],
                stdin=subprocess.DEVNULL, stdout=log, stderr=log,
            )  # fmt: skip
        wait_for(lambda: b"attached" in words.read_bytes(), "strace to attach")

    def _await_end(self) -> int:
        assert self._process is not None
        status = self._process.wait(PATIENCE_S)
        if self._tracer is not None:
            self._tracer.wait(PATIENCE_S)
        return status

    def _end(self) -> None:
        """End what is left of our own processes, by their ids, and let the mounts go."""
        while self._pins:
            os.close(self._pins.popitem()[1])
        if self._process is None:
            return
        # The launcher first: it would start others in their place.
        left = (self.pid, *_children(self.pid), *self.workers()) if self._process.poll() is None else ()
        for pid in left:
            try:
                os.kill(pid, signal.SIGKILL)
            except ProcessLookupError:
                continue
        self._process.wait(PATIENCE_S)
        if self._tracer is not None:
            self._tracer.wait(PATIENCE_S)


def _children(pid: int) -> list[int]:
    """Return the processes that a process has started and that still run."""
    try:
        tasks = list(Path(f"/proc/{pid}/task").iterdir())
        return [int(word) for task in tasks for word in (task / "children").read_text().split()]
    except OSError:  # it ended while we looked
        return []
