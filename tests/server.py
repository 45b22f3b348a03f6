"""A real Collector, started as anybody starts it, and what a test may do to it from outside."""

from __future__ import annotations

import contextlib
import json
import os
import random
import shutil
import signal
import socket
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable, Iterable, Mapping
from hashlib import sha256
from pathlib import Path
from typing import Any, NamedTuple, Self, TypeVar

import zstandard

ROOT = Path(__file__).resolve().parent.parent
#: Generous: two busy cores must pass. Nothing waits this long unless it has failed.
PATIENCE_S = 60.0
#: Where a loopback run may have its spool.
SHM = Path("/dev/shm")

#: What `make run` starts, after the interpreter.
SERVE = ("-m", "collector", "serve")

#: Not the tests' own chance, which a seed repeats in each process.
_CHANCE = random.SystemRandom()

T = TypeVar("T")


def wait_for(condition: Callable[[], T | None], what: str, patience_s: float = PATIENCE_S) -> T:
    """Ask until the answer is true, and return it; fail with `what` was waited for, and the last answer."""
    deadline = time.monotonic() + patience_s
    while not (answer := condition()):
        assert time.monotonic() < deadline, f"waited {patience_s:.0f} s for {what}; the last answer was {answer!r}"
        time.sleep(0.02)
    return answer


def free_ports(count: int) -> list[int]:
    """
    Return ports of loopback that nobody listens on, and that no connection to somewhere else is given meanwhile.

    Whoever asks at the same time draws others, as a rule.
    """
    ephemeral = int(Path("/proc/sys/net/ipv4/ip_local_port_range").read_text().split()[0])
    links: list[socket.socket] = []
    while len(links) < count:
        with contextlib.suppress(OSError):
            links.append(socket.create_server(("127.0.0.1", _CHANCE.randrange(ephemeral - 16_000, ephemeral))))
    ports = [int(link.getsockname()[1]) for link in links]
    for link in links:
        link.close()
    return ports


def tenant(tenant_id: str, key: str, **fields: object) -> str:
    """Write a tenant's table; a field's value is written as JSON, which TOML reads the same."""
    lines = [f'[tenants.{tenant_id}]\nkeys = ["{sha256(key.encode()).hexdigest()}"]']
    return "\n".join([*lines, *(f"{name} = {json.dumps(value)}" for name, value in fields.items())]) + "\n"


class Reply(NamedTuple):
    """One HTTP answer; names of headers in lower case, repeated ones joined by a comma."""

    status: int
    headers: dict[str, str]
    body: bytes

    @property
    def json(self) -> Any:
        """Read the body."""
        return json.loads(self.body)


class NotHttp(AssertionError):
    """The server sent what is no HTTP answer."""


class Link:
    """One connection, as a stranger holds it: any bytes in, answers out. A context manager."""

    def __init__(self, port: int, *, timeout_s: float = PATIENCE_S, receive_buffer: int = 0) -> None:
        self._buffer = b""
        self.sock = socket.socket()
        if receive_buffer:
            self.sock.setsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF, receive_buffer)
        self.sock.settimeout(timeout_s)
        try:
            self.sock.connect(("127.0.0.1", port))
        except OSError:
            self.sock.close()
            raise
        self.sock.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *exc: object) -> None:
        self.sock.close()

    def send(self, *data: bytes) -> Self:
        """Send all of it."""
        self.sock.sendall(b"".join(data))
        return self

    def half_close(self) -> Self:
        """Say that no more comes."""
        self.sock.shutdown(socket.SHUT_WR)
        return self

    def reset(self) -> None:
        """Hang up as a process that dies with unread data does."""
        self.sock.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, b"\1\0\0\0\0\0\0\0")
        self.sock.close()

    def reply(self, *, to_head: bool = False) -> Reply | None:
        """Return the next answer, 1xx ones too; None when the server closed instead. Raises NotHttp and OSError."""
        while b"\r\n\r\n" not in self._buffer:
            if not self._more():
                if self._buffer:
                    raise NotHttp(f"the server sent {self._buffer[:200]!r} and closed")
                return None
        head, _, self._buffer = self._buffer.partition(b"\r\n\r\n")
        line, *fields = head.decode("latin-1").split("\r\n")
        version, _, rest = line.partition(" ")
        status = rest[:3]
        if version not in {"HTTP/1.1", "HTTP/1.0"} or not (status.isdigit() and rest[3:4] in {" ", ""}):
            raise NotHttp(f"the server sent {line[:200]!r}")
        headers: dict[str, str] = {}
        for field in fields:
            name, colon, value = field.partition(":")
            if not colon or not name or name != name.strip():
                raise NotHttp(f"the server sent the field {field[:200]!r}")
            name, value = name.lower(), value.strip()
            headers[name] = f"{headers[name]}, {value}" if name in headers else value
        length = 0 if to_head or status[0] == "1" or status in {"204", "304"} else int(headers["content-length"])
        while len(self._buffer) < length:
            if not self._more():
                raise NotHttp(f"the server closed {length - len(self._buffer)} bytes before the end of an answer")
        body, self._buffer = self._buffer[:length], self._buffer[length:]
        return Reply(int(status), headers, body)

    def must_reply(self) -> Reply:
        """Return the next answer, which there must be."""
        reply = self.reply()
        assert reply is not None, "the server closed the connection without an answer"
        return reply

    def replies(self) -> list[Reply]:
        """Return every answer up to the end of the connection."""
        found = []
        while (reply := self.reply()) is not None:
            found.append(reply)
        return found

    def _more(self) -> bool:
        data = self.sock.recv(65536)
        self._buffer += data
        return bool(data)


def head(
    path: str = "/v1/events",
    *fields: str,
    method: str = "POST",
    key: str | None = "dev-key",
    length: int | None = None,
    version: str = "1.1",
) -> bytes:
    """Write the head of an upload."""
    lines = [f"{method} {path} HTTP/{version}", "Host: collector.test", *fields]
    if key is not None:
        lines.append(f"Authorization: Bearer {key}")
    if length is not None:
        lines.append(f"Content-Length: {length}")
    return ("\r\n".join(lines) + "\r\n\r\n").encode("latin-1")


def upload(body: bytes, *fields: str, path: str = "/v1/events", key: str | None = "dev-key") -> bytes:
    """Write a whole upload."""
    return head(path, *fields, key=key, length=len(body)) + body


def ids(events: Iterable[Mapping[str, Any]], reply: Reply) -> list[str]:
    """Return the ids of the events that an answer says are kept."""
    if reply.status != 200:
        return []
    rejected = {one["index"] for one in reply.json["rejected"]}
    return [event["id"] for index, event in enumerate(events) if index not in rejected]


class Server:
    """
    One run of `python -m collector serve` on ports of its own, with a spool and a sink of its own.

    `command` is another way to start it. `settings` are names without COLLECTOR_, in lower case; `toml` is the
    settings file, none without it. A context manager: it is ready inside, and what it started is gone after it. A
    block that ends well ends the server by SIGTERM and holds that it exits with 0; its log is shown when the block
    fails.
    """

    def __init__(self, folder: Path, *, toml: str = "", command: tuple[str, ...] = SERVE, **settings: object) -> None:
        self.folder = folder
        self._command = command
        self.data = folder / "data"
        self.spool = Path(tempfile.mkdtemp(prefix="collector-test-", dir=SHM))
        self.port, self.admin_port = free_ports(2)
        if toml:
            (folder / "collector.toml").write_text(toml)
            settings["config"] = folder / "collector.toml"
        wanted = {
            "bind": f"127.0.0.1:{self.port}",
            "admin_bind": f"127.0.0.1:{self.admin_port}",
            "workers": 1,
            "spool_dir": self.spool,
            # What a power cut would take is not asked about here, and the disk of a test machine is slow.
            "sink": f"file:{self.data}?fsync=0",
            "flush_interval_s": 0.1,
            "drain_s": 4,
            # A busy machine is no overload.
            "max_lag_s": 60,
            "lame_duck_s": 0,
            **settings,
        }
        self._workers = int(str(wanted["workers"]))
        inherited = {name: value for name, value in os.environ.items() if not name.startswith("COLLECTOR_")}
        self._env = inherited | {
            "PYTHONPATH": str(ROOT),
            "PYTHONDONTWRITEBYTECODE": "1",
            **{f"COLLECTOR_{name.upper()}": str(value) for name, value in wanted.items()},
        }
        self._process: subprocess.Popen[bytes] | None = None
        self._read_files: set[Path] = set()

    def __enter__(self) -> Self:
        try:
            self.start()
        except BaseException:
            self._clean_up()
            raise
        return self

    def __exit__(self, kind: type[BaseException] | None, *exc: object) -> None:
        try:
            if kind is None and self._process is not None:
                assert 0 == self.stop(), f"it ended with {self._process.returncode}:\n{self.tail()}"
            elif kind is not None:
                print(self.tail())  # noqa: T201 - pytest shows it with the failure
        finally:
            self._clean_up()

    # -- the process

    def start(self) -> None:
        """Start it, once more if need be, and wait until it is ready; AssertionError with its log when it is not."""
        started = len(self.logged("worker.started"))
        with (self.folder / "output").open("ab") as output:
            self._process = subprocess.Popen(
                [sys.executable, *self._command],
                env=self._env,
                cwd=self.folder,
                stdin=subprocess.DEVNULL,
                stdout=output,
                stderr=subprocess.STDOUT,
            )
        wait_for(lambda: self._is_ready(started + self._workers), "the server to be ready")

    def _is_ready(self, workers: int) -> bool:
        assert self._process is not None
        assert self._process.poll() is None, f"it ended with {self._process.returncode}:\n{self.tail()}"
        return len(self.logged("worker.started")) >= workers and self._is_healthy()

    def _is_healthy(self) -> bool:
        try:
            return 200 == self.admin("/healthz").status
        except OSError:
            return False

    @property
    def pid(self) -> int:
        """The first process's: of the launcher, or of gunicorn's master where `command` starts gunicorn alone."""
        assert self._process is not None
        return self._process.pid

    @property
    def is_running(self) -> bool:
        """Tell whether the first process lives."""
        return self._process is not None and self._process.poll() is None

    def master_pids(self) -> list[int]:
        """Return gunicorn's masters that live, of generations that drain too; the youngest last."""
        pids = [int(line["pid"]) for line in self.log if "Starting gunicorn" in str(line.get("message"))]
        return [pid for pid in pids if pid == self.pid or _parent(pid) == self.pid]

    def worker_pids(self) -> list[int]:
        """Return the workers that have said that they started, and live under a master; the youngest last."""
        masters = self.master_pids()
        pids = [int(line["pid"]) for line in self.logged("worker.started")]
        return [pid for pid in pids if _parent(pid) in masters]

    def signal(self, number: int) -> None:
        """Send the first process a signal."""
        os.kill(self.pid, number)

    def stop(self) -> int:
        """Ask it to end, wait until it has, and return its exit status."""
        assert self._process is not None
        if self._process.poll() is None:
            self.signal(signal.SIGTERM)
        return self._process.wait(PATIENCE_S)

    def kill(self) -> None:
        """End all of it at one stroke, as a machine that kills a container does."""
        assert self._process is not None
        # Nobody may start anything in between.
        self.signal(signal.SIGSTOP)
        pids = [self.pid, *self.master_pids(), *self.worker_pids()]
        for master in self.master_pids():
            if master != self.pid:
                os.killpg(master, signal.SIGKILL)
        for pid in pids:
            with contextlib.suppress(ProcessLookupError):
                os.kill(pid, signal.SIGKILL)
        self._process.wait(PATIENCE_S)
        # The orphans are init's to reap: dead is dead, if a name of them is left for a while.
        wait_for(lambda: not any(_parent(pid) is not None for pid in pids), "the workers to be dead")

    def _clean_up(self) -> None:
        if self._process is not None and self._process.poll() is None:
            self.kill()
        shutil.rmtree(self.spool, ignore_errors=True)

    # -- what it says

    @property
    def log(self) -> list[dict[str, Any]]:
        """Every line that it wrote, of those that are JSON objects."""
        path = self.folder / "output"
        lines = path.read_bytes().splitlines() if path.exists() else []
        return [json.loads(line) for line in lines if line.startswith(b"{") and line.endswith(b"}")]

    def logged(self, event: str) -> list[dict[str, Any]]:
        """Return the log's lines of one name."""
        return [line for line in self.log if line.get("event") == event]

    def output(self) -> str:
        """Return all that it wrote."""
        return (self.folder / "output").read_text(errors="replace")

    def tail(self) -> str:
        """Return the end of all that it wrote."""
        return self.output()[-8000:]

    # -- its two listeners

    def link(self, *, timeout_s: float = PATIENCE_S, receive_buffer: int = 0) -> Link:
        """Connect as a device does."""
        return Link(self.port, timeout_s=timeout_s, receive_buffer=receive_buffer)

    def raw(self, *data: bytes) -> list[Reply]:
        """Send bytes over a connection of their own, half-close, and return every answer up to its end."""
        with self.link() as link:
            return link.send(*data).half_close().replies()

    def ask(self, data: bytes) -> Reply:
        """Send a request over a connection of its own, which stays open, and return the answer."""
        with self.link() as link:
            return link.send(data).must_reply()

    def post(self, body: bytes | list[dict[str, Any]], *fields: str, key: str | None = "dev-key") -> Reply:
        """Upload."""
        return self.ask(upload(body if isinstance(body, bytes) else json.dumps(body).encode(), *fields, key=key))

    def admin(self, path: str, *fields: str, method: str = "GET") -> Reply:
        """Ask the admin listener."""
        with Link(self.admin_port) as link:
            return link.send(head(path, *fields, "Connection: close", method=method, key=None)).must_reply()

    def ledger(self) -> dict[str, Any]:
        """Return the ledger as it is now."""
        return dict(self.admin("/ledger").json)

    def readyz(self) -> Reply:
        """Ask whether it wants traffic."""
        return self.admin("/readyz")

    def settled(self) -> dict[str, Any]:
        """Wait until nothing is pending and the books balance, and return the ledger."""

        def look() -> dict[str, Any] | None:
            ledger = self.ledger()
            return ledger if ledger["balanced"] and not ledger["pending"] else None

        return wait_for(look, f"a settled ledger, which is now {self.ledger()}") or {}

    # -- what arrived

    def files(self) -> list[Path]:
        """List the complete files in the sink."""
        return sorted(self.data.rglob("tenant=*/date=*/hour=*/*.ndjson.zst"))

    def lines(self, *, fresh: bool = False) -> list[bytes]:
        """Return the lines in the sink, without their newlines: all, or those in files not read by this before."""
        found: list[bytes] = []
        for file in self.files():
            if fresh and file in self._read_files:
                continue
            if fresh:
                self._read_files.add(file)
            text = zstandard.ZstdDecompressor().decompressobj().decompress(file.read_bytes())
            assert text.endswith(b"\n"), f"{file} does not end with a newline"
            found += text[:-1].split(b"\n")
        return found

    def events(self, *, fresh: bool = False) -> list[dict[str, Any]]:
        """Return the lines in the sink as objects."""
        return [json.loads(line) for line in self.lines(fresh=fresh)]


def _parent(pid: int) -> int | None:
    """Return the parent of a process that lives; None of one that is dead, even if it is not reaped."""
    try:
        state, parent = Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()[:2]
    except (FileNotFoundError, ProcessLookupError):
        return None
    return None if state == "Z" else int(parent)
