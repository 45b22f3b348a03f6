"""A server in a tree of its own, whose processes may be told apart, stopped and killed; and what was done to them."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
import threading
import time
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from pathlib import Path
from typing import NamedTuple

from tests.server import ROOT, SERVE, Server, tenant, wait_for
from tests.system.chaos.oracle import Kill, Window
from tests.system.chaos.tree import Tree

#: How long a task may take to be whole again after anything.
PATIENCE_S = 60.0


#: Quick turns, so that much happens in little time. A drain must outlast an answer that waits for its sink.
SETTINGS: dict[str, object] = {
    "flush_interval_s": 0.2, "ack_timeout_s": 2, "lame_duck_s": 0.5, "drain_s": 3, "spool_bytes": 256 << 20
}  # fmt: skip
PLAIN = ("-m", "gunicorn")


class Target(NamedTuple):
    """What is attacked: the checkout, and whether plain gunicorn runs it or `collector serve`."""

    source: Path = ROOT
    is_plain: bool = False


HERE = Target()


class Customer(NamedTuple):
    """One tenant: who confirms, where to, and how fast it may be."""

    name: str
    ack: str = "spool"
    route: str = "default"
    share: float = 1.0
    events_per_s: int = 0
    dedupe_window_s: int = 0

    @property
    def key(self) -> str:
        """What it uploads under."""
        return f"{self.name}-key"


#: Both acknowledgements, three routes, one with a quota, and two whose repeats are not to be delivered again.
CUSTOMERS = (
    Customer("red"),
    Customer("green", share=2.0),
    Customer("blue", ack="sink"),
    Customer("amber", route="stream"),
    Customer("violet", ack="sink", route="stream"),
    Customer("lime", events_per_s=1500),
    Customer("grey", route="second", share=0.5),
    Customer("once", route="second", dedupe_window_s=3600),
    Customer("sole", ack="sink", route="stream", dedupe_window_s=3600),
)
#: The routes whose sink misbehaves when told to; the default one is the `file:` sink as it is.
ROUTES = ("stream", "second")


def toml(folder: Path) -> str:
    """Write the settings file."""
    routes = "".join(f'[routes.{name}]\nsink = "chaos:{folder / name}"\n' for name in ROUTES)
    rows = (
        tenant(
            one.name,
            one.key,
            ack=one.ack,
            route=one.route,
            share=one.share,
            dedupe_window_s=one.dedupe_window_s,
            **({"events_per_s": one.events_per_s} if one.events_per_s else {}),
        )
        for one in CUSTOMERS
    )
    return routes + "".join(rows)


class World(Server):
    """One task under fire, run from a copy of the tree; what is done to its processes is written down."""

    def __init__(self, folder: Path, target: Target, *, workers: int = 2, **settings: object) -> None:
        self.tree = Tree(folder / "tree", target.source)
        for route in ROUTES:
            (folder / f"{route}.mode").write_text("ok")
        super().__init__(
            folder,
            toml=toml(folder),
            command=(*PLAIN, "-c", str(self.tree.root / "gunicorn.conf.py"), "wsgi:app") if target.is_plain else SERVE,
            workers=workers,
            **SETTINGS | settings,
        )
        self.config = folder / "collector.toml"
        self._env["PYTHONPATH"] = str(self.tree.root)
        self.workers_wanted = workers
        self.kills: list[Kill] = []
        self.windows: list[Window] = []
        #: What was done and when, in words.
        self.acts: list[str] = []

    def note(self, act: str) -> None:
        """Write down what is done to it."""
        self.acts.append(f"{time.monotonic():.3f} {act}")

    # -- the sinks

    def set_mode(self, mode: str, *routes: str) -> None:
        """Tell sinks how to behave; all of those that listen, unless some are named."""
        for route in routes or ROUTES:
            file = self.folder / f"{route}.mode"
            # Hands are threads, and two of them may tell a sink at once.
            new = file.with_suffix(f".{threading.get_ident()}")
            new.write_text(mode)
            new.replace(file)

    @contextmanager
    def files_away(self) -> Iterator[None]:
        """Let the `file:` sink find a file where its directory was: the one way in which root meets a refusal too."""
        away = self.data.with_name("data.away")
        self.data.rename(away)
        self.data.touch()
        try:
            yield
        finally:
            self.data.unlink()
            away.rename(self.data)

    # -- what it says

    def has_object(self, part: str) -> bool:
        """Tell whether the name of any object holds this."""
        return any(part in file.name for route in ROUTES for file in self.objects(route))

    def objects(self, route: str) -> list[Path]:
        """List the complete objects in a sink that listens."""
        return sorted((self.folder / route).rglob("tenant=*/date=*/hour=*/*.ndjson.zst"))

    def is_refusing(self) -> bool:
        """Tell whether a worker is unready."""
        return 503 == self.readyz().status

    def rejected_reloads(self) -> int:
        """Count the reloads that the log calls rejected."""
        return len(self.logged("reload.rejected"))

    # -- its processes

    def family(self) -> list[int]:
        """Return every living process of the task, the first one first."""
        children: dict[int, list[int]] = {}
        for entry in os.scandir("/proc"):
            if entry.name.isdigit():
                with suppress(OSError):
                    state, parent = Path(entry.path, "stat").read_text().rpartition(")")[2].split()[:2]
                    if state != "Z":
                        children.setdefault(int(parent), []).append(int(entry.name))
        found = [self.pid] if self.is_running else []
        for pid in found:
            found += children.get(pid, [])
        return found

    def worker_pids(self) -> list[int]:
        """Return the workers that have said that they started, and live; the youngest last."""
        family = set(self.family())
        return [pid for line in self.logged("worker.started") if (pid := int(line["pid"])) in family]

    def master_pid(self) -> int:
        """Return gunicorn's master, the parent of the youngest worker."""
        worker = wait_for(self.worker_pids, "a worker")[-1]
        return int(Path(f"/proc/{worker}/stat").read_text().rpartition(")")[2].split()[1])

    @property
    def has_launcher(self) -> bool:
        """Tell whether a process stands above gunicorn's master."""
        return self.master_pid() != self.pid

    def await_whole(self, *, without: frozenset[int] = frozenset()) -> None:
        """Wait until as many workers live as there should be, none of them of `without`, and they say they are well."""

        def is_whole() -> bool:
            now = set(self.worker_pids())
            return len(now) == self.workers_wanted and not now & without and self._is_healthy()

        wait_for(is_whole, f"{self.workers_wanted} workers, new ones", PATIENCE_S)

    # -- what is done to it

    def kill_these(self, pids: list[int]) -> None:
        """End some processes, which are stopped first, so that it is known which connections they had."""
        for pid in pids:
            os.kill(pid, signal.SIGSTOP)
        ports = self._ports(pids)
        at = time.monotonic()
        for pid in pids:
            os.kill(pid, signal.SIGKILL)
        wait_for(lambda: not any(_lives(pid) for pid in pids), "the killed to be dead")
        self.kills.append(Kill(at=at, until=time.monotonic(), pids=frozenset(pids), ports=frozenset(ports)))

    def kill_task(self) -> None:
        """End every process of the task at one stroke, as a machine that kills a container does."""
        pids: list[int] = []
        # The first one first, so that nobody is started in the meantime whom nobody would kill.
        while left := [pid for pid in self.family() if pid not in pids]:
            for pid in left:
                os.kill(pid, signal.SIGSTOP)
            pids += left
        at = time.monotonic()
        for pid in pids:
            os.kill(pid, signal.SIGKILL)
        self.end()
        wait_for(lambda: not any(_lives(pid) for pid in pids), "the task to be dead")
        self.kills.append(Kill(at=at, until=time.monotonic(), pids=frozenset(pids), ports=None))

    @contextmanager
    def nobody_listens(self, *, queue_is_lost: bool = False) -> Iterator[None]:
        """Write down a time in which nobody listens, or stops to; it ends well when the task is back."""
        since = time.monotonic()
        yield
        self.windows.append(Window(since=since, until=time.monotonic(), queue_is_lost=queue_is_lost))

    def end(self) -> int:
        """Wait until the first process has ended, and return its exit status."""
        assert self._process is not None
        return self._process.wait(PATIENCE_S)

    def replay(self) -> None:
        """Send on what is in the rescue sink, as an operator does when the task has ended."""
        said = subprocess.run(
            [sys.executable, "-m", "collector", "replay"],
            env=self._env,
            cwd=self.folder,
            capture_output=True,
            text=True,
            check=False,
        )
        assert 0 == said.returncode, said.stdout + said.stderr

    def start_again(self) -> None:
        """Start it over the spool that is there, and wait until it is whole."""
        self.start()
        self.await_whole()

    def kill(self) -> None:
        """End all of it, however it fell apart: also what has lost its first process."""
        left = [pid for pid in {int(line["pid"]) for line in self.logged("worker.started")} if self._is_ours(pid)]
        for pid in {*self.family(), *left}:
            with suppress(ProcessLookupError):
                os.kill(pid, signal.SIGKILL)
        self.end()

    def _is_ours(self, pid: int) -> bool:
        try:
            return str(self.spool).encode() in Path(f"/proc/{pid}/environ").read_bytes()
        except OSError:
            return False

    def _clean_up(self) -> None:
        if self._process is not None:
            self.kill()
        super()._clean_up()

    def await_silence(self, pids: list[int]) -> None:
        """Wait until the processes have gone by themselves."""
        wait_for(lambda: not any(_lives(pid) for pid in pids), f"{pids} to go by themselves", PATIENCE_S)

    def _ports(self, pids: list[int]) -> set[int]:
        """Return the devices' ends of the connections that processes hold."""
        held = set()
        for pid in pids:
            for entry in os.scandir(f"/proc/{pid}/fd"):
                with suppress(OSError):
                    target = os.readlink(entry.path)
                    if target.startswith("socket:["):
                        held.add(target[8:-1])
        rows = [line.split() for line in Path("/proc/net/tcp").read_text().splitlines()[1:]]
        return {
            int(row[2].partition(":")[2], 16)
            for row in rows
            if row[9] in held and int(row[1].partition(":")[2], 16) == self.port
        }


def _lives(pid: int) -> bool:
    try:
        return Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()[0] != "Z"
    except OSError:
        return False
