"""Memory and threads under sinks that hang: bounded, and refused before the kernel kills."""

from __future__ import annotations

import contextlib
import gzip
import itertools
import json
import os
import random
import shutil
import threading
from collections import Counter
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest

from collector.settings.places import memory_groups
from tests.server import ROOT, Reply, Server, tenant, upload, wait_for

pytestmark = pytest.mark.system

MIB = 1 << 20
#: Of one cgroup, and the budget of the spool in it: with what the processes need more than there is.
LIMIT_BYTES, SPOOL_BYTES = 192 * MIB, 150 * MIB
#: What a worker may take beyond its spool while a sink hangs: 4 segments of 4 MiB that are read, as much again for the
#: batches out of them, and the bodies and answers of the uploads that come meanwhile.
MOST_GROWTH_BYTES = 48 * MIB
UPLOAD_BYTES = MIB // 2

_HANG = """

from gevent.monkey import get_original as _original

_write, _sleep = LocalSink.write, _original("time", "sleep")


def _hang(self, batch):
    while self._root.with_name("hang").exists():
        _sleep(0.02)
    return _write(self, batch)


LocalSink.write = _hang
"""


class Sink:
    """The `file:` sink of a copy of the program, which hangs for as long as a file is there."""

    def __init__(self, folder: Path) -> None:
        self._mark = folder / "hang"
        self._tree = folder / "tree"
        shutil.copytree(ROOT / "collector", self._tree / "collector", ignore=shutil.ignore_patterns("__pycache__"))
        for name in ("gunicorn.conf.py", "wsgi.py", "tmpfs-mounts.json"):
            shutil.copy(ROOT / name, self._tree / name)
        with (self._tree / "collector/sinks/local.py").open("a") as file:
            file.write(_HANG)

    def command(self, procs: Path | None = None) -> tuple[str, ...]:
        """Start the copy, in a cgroup if the file of its processes is named."""
        enter = f"open({str(procs)!r}, 'w').write(str(os.getpid()));" if procs else ""
        start = "os.execv(sys.executable, [sys.executable, '-m', 'collector', 'serve'])"
        return ("-c", f"import os, sys; {enter} os.environ['PYTHONPATH'] = {str(self._tree)!r}; {start}")

    def hang(self) -> None:
        self._mark.touch()

    def go_on(self) -> None:
        self._mark.unlink()


class Cage:
    """A cgroup of our own below the one of this process, with a limit of memory and no swap; gone after the block."""

    def __init__(self, folder: Path, version: int) -> None:
        self.folder = folder
        self._version = version
        self.procs = folder / "cgroup.procs"

    @classmethod
    @contextlib.contextmanager
    def make(cls, limit_bytes: int) -> Iterator[Cage]:
        """Make one, or skip the test and say why there is none to be had."""
        if os.geteuid() != 0:
            pytest.skip("needs root, to make a cgroup")
        groups = memory_groups()
        if not groups:
            pytest.skip("no cgroup that accounts for memory is to be seen here")
        cage = cls(groups[-1].folder / f"collector-test-{os.getpid()}", groups[-1].version)
        limits = ("memory.max", "memory.swap.max") if cage._version == 2 else ("memory.limit_in_bytes",)
        try:
            cage.folder.mkdir()
        except OSError as error:
            pytest.skip(f"cgroups can't be made here: {error}")
        try:
            for name, bytes_ in zip(limits, (limit_bytes, 0), strict=False):
                try:
                    (cage.folder / name).write_text(str(bytes_))
                except OSError as error:
                    pytest.skip(f"a cgroup made here has no limit of memory: {error}")
            yield cage
        finally:
            # The kernel takes a moment to see that the last process is gone.
            wait_for(cage._remove, "the cgroup to be empty")

    def _remove(self) -> bool:
        with contextlib.suppress(OSError):
            self.folder.rmdir()
        return not self.folder.exists()

    def kills(self) -> int:
        """Return how many of its processes the kernel has killed for their memory."""
        name = "memory.events" if self._version == 2 else "memory.oom_control"
        rows = dict(row.split() for row in (self.folder / name).read_text().splitlines())
        return int(rows["oom_kill"])


class Devices:
    """Devices that upload half a MiB at a time, and come again when they are refused."""

    def __init__(self, server: Server, *fields: str) -> None:
        self._server = server
        self._fields = fields
        self._numbers = itertools.count()
        self._lock = threading.Lock()
        self.acknowledged: list[str] = []
        self.refused: list[Reply] = []

    def send(self) -> Reply:
        """Upload once, and note the answer."""
        with self._lock:
            number = next(self._numbers)
        chance = random.Random(number)
        events = [{"id": f"e{number}-{n}", "noise": chance.randbytes(UPLOAD_BYTES // 8).hex()} for n in range(4)]
        reply = self._server.ask(upload(json.dumps(events).encode(), *self._fields))
        with self._lock:
            if reply.status == 200:
                self.acknowledged += [str(event["id"]) for event in events]
            else:
                self.refused.append(reply)
        return reply

    def send_until(self, condition: Callable[[], object], what: str, *, connections: int = 8) -> None:
        """Upload from several connections until a condition holds."""
        done = threading.Event()

        def run() -> None:
            while not done.is_set():
                if self.send().status != 200:
                    done.wait(0.05)

        threads = [threading.Thread(target=run, daemon=True) for _ in range(connections)]
        for one in threads:
            one.start()
        try:
            wait_for(condition, what)
        finally:
            done.set()
            for one in threads:
                one.join(60)


def workers(server: Server) -> list[int]:
    return [int(line["pid"]) for line in server.logged("worker.started")]


def resident_bytes(pid: int) -> int:
    """Return what a process holds of its own, without the pages of files and of the spool that it maps."""
    rows = dict(row.split(":") for row in Path(f"/proc/{pid}/status").read_text().splitlines() if row[:3] == "Rss")
    return int(rows["RssAnon"].split()[0]) * 1024


def reasons(server: Server) -> Any:
    """Return why the server is unready, if it is."""
    ready = server.readyz()
    return ready.json["reasons"] if ready.status == 503 else []


def account(server: Server, devices: Devices) -> None:
    """Check that each event that was answered for has arrived once, and none that was refused."""
    ledger = server.settled()
    found = Counter(event["id"] for event in server.events())

    assert sorted(devices.acknowledged) == sorted(found.elements())
    assert len(devices.acknowledged) == ledger["accepted"] == ledger["delivered"]


@pytest.mark.parametrize("ack", ["spool", "sink"])
def test_a_sink_that_hangs_grows_no_memory_beyond_the_spool(tmp_path: Path, ack: str) -> None:
    """What is waiting must wait in the spool, which has a budget, and in no buffer, queue or answer beside it."""
    sink = Sink(tmp_path)
    sink.hang()
    with Server(tmp_path, command=sink.command(), spool_bytes=64 * MIB, ack_timeout_s=1) as server:
        (worker,) = workers(server)
        before = resident_bytes(worker)
        devices = Devices(server, f"Collector-Ack: {ack}")
        # With `sink` an upload is refused after a second, its events kept: together they fill the spool the same.
        devices.send_until(
            lambda: "watermark" in str(reasons(server)), "the spool to be full", connections=8 if ack == "spool" else 32
        )
        growth = resident_bytes(worker) - before

        assert growth < MOST_GROWTH_BYTES, f"it grew by {growth / MIB:.0f} MiB"
        assert workers(server) == [worker]

        sink.go_on()
        wait_for(lambda: devices.send().status == 200, "uploads to be taken again")
        if ack == "spool":
            account(server, devices)
        else:
            server.settled()
            arrived = Counter(event["id"] for event in server.events())
            assert not set(devices.acknowledged) - set(arrived)
            assert {1} == set(arrived.values())


def test_a_task_at_its_limit_refuses_and_is_not_killed(tmp_path: Path) -> None:
    """The kernel's kill takes the whole task, and with it what every device was told is safe."""
    sink = Sink(tmp_path)
    sink.hang()
    with (
        Cage.make(LIMIT_BYTES) as cage,
        Server(tmp_path, command=sink.command(cage.procs), spool_bytes=SPOOL_BYTES) as server,
    ):
        started = workers(server)
        assert LIMIT_BYTES == server.readyz().json["memory"]["limit_bytes"]

        devices = Devices(server)
        devices.send_until(lambda: "short of memory" in str(reasons(server)), "it to be short of memory")

        assert {503} == {reply.status for reply in devices.refused}
        assert {"backpressure"} == {reply.json["error"] for reply in devices.refused}
        assert {True} == {1 <= int(reply.headers["retry-after"]) <= 5 for reply in devices.refused}
        assert 200 == server.admin("/healthz").status
        assert server.logged("memory.short")
        held = server.readyz().json["spool"]
        assert held["used_bytes"] < held["limit_bytes"] * 0.9, "the spool was full first: nothing is shown"
        assert held["used_bytes"] > LIMIT_BYTES / 4, "it refused with most of its memory free"

        sink.go_on()
        wait_for(lambda: devices.send().status == 200, "uploads to be taken again")
        wait_for(lambda: 200 == server.readyz().status, "it to be ready again")
        account(server, devices)

        assert server.logged("memory.recovered")
        assert started == workers(server)
        assert 0 == cage.kills()


def test_sinks_that_hang_hold_up_no_upload(tmp_path: Path) -> None:
    """Each batch that hangs holds a thread, and large compressed uploads need one, too: there must be some left."""
    sink = Sink(tmp_path)
    sink.hang()
    names = ("one", "two", "three", "four")
    toml = "".join(
        f'[routes.{name}]\nsink = "file:{tmp_path}/{name}"\n' + tenant(name, f"{name}-key", route=name)
        for name in names
    )
    noise = random.Random(1).randbytes(60_000).hex()
    large = upload(
        gzip.compress(json.dumps({"id": "large", "noise": noise}).encode()), "Content-Encoding: gzip", key="one-key"
    )
    with Server(tmp_path, toml=toml, command=sink.command()) as server:
        (worker,) = workers(server)
        number = itertools.count()

        def hanging() -> bool:
            """Upload to each route, and tell whether more threads hang than gevent has by itself."""
            for name in names:
                assert 200 == server.post([{"id": f"{name}-{next(number)}"}], key=f"{name}-key").status
            return len(os.listdir(f"/proc/{worker}/task")) > 14

        wait_for(hanging, "the threads to hang")
        with server.link(timeout_s=20) as link:
            reply = link.send(large).must_reply()

        assert 200 == reply.status
        sink.go_on()
        assert server.settled()["accepted"] == next(number) + 1
