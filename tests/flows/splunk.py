"""A Collector whose log goes to a simulated Splunk, and what its lines say once it has ended."""

from __future__ import annotations

import os
import subprocess
import sys
from collections import Counter
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any, NamedTuple

import msgspec

from collector.control.hec.simulated import SimulatedHec
from collector.telemetry.books import Books
from collector.telemetry.metrics import Snapshot
from tests.server import SERVE, Server, head, wait_for
from tests.uploaders import TENANTS, Uploader

#: Often enough for some of it in a short test. Lines of the level debug come with every batch.
REPORT_S = 0.5
#: What is said of a Splunk without TLS, which the simulated one is; nothing else is said there.
IN_THE_CLEAR = "Note: COLLECTOR_HEC_URL is http, and the token goes over the network in the clear: use https"


class Talking(Server):
    """
    A server that sends its log to `hec`, with two workers, and much of it; what it writes to stderr stands alone.

    `is_muted`: its standard output is a pipe that is full before it starts, and read by nobody until it has ended.
    """

    def __init__(
        self,
        folder: Path,
        hec: SimulatedHec,
        *,
        is_muted: bool = False,
        command: tuple[str, ...] = SERVE,
        **settings: object,
    ) -> None:
        folder.mkdir(exist_ok=True)
        splunk = {"hec_url": hec.url, "hec_token": hec.token, "hec_linger_s": 0.1}
        usual = {"workers": 2, "log_level": "debug", "report_s": REPORT_S}
        super().__init__(folder, toml=TENANTS, command=command, **{**usual, **splunk, **settings})
        self._pipe = os.pipe() if is_muted else None
        self.filler = 0

    def start(self) -> None:
        """Start it, and wait until each worker has said so, or, when none can be heard, until it answers."""
        with (self.folder / "output").open("ab") as output, (self.folder / "errors").open("ab") as errors:
            if self._pipe is not None:
                self.filler = stuff(self._pipe[1])
            self._process = subprocess.Popen(
                [sys.executable, *self._command],
                env=self._env,
                cwd=self.folder,
                stdin=subprocess.DEVNULL,
                stdout=output if self._pipe is None else self._pipe[1],
                stderr=errors,
            )
        heard = 0 if self._pipe else self._workers
        wait_for(lambda: self._is_ready(heard), "the server to be ready")

    def stop(self) -> int:
        """End it, and read what its pipe holds by then."""
        status = super().stop()
        if self._pipe is not None:
            read, write = self._pipe
            os.close(write)
            with os.fdopen(read, "rb") as rest:
                (self.folder / "output").write_bytes(rest.read()[self.filler :])
            self._pipe = None
        return status

    @property
    def errors(self) -> str:
        """Return what it wrote to the standard error, where nothing has a place."""
        return (self.folder / "errors").read_text()

    def counted(self) -> Snapshot:
        """Return what its workers, all of which have ended, have counted in their lives."""
        return Books(self.spool).metrics(but="")

    def results(self) -> Counter[str]:
        """Count what came of requests to Splunk so far, of all workers."""
        name = "collector_hec_requests_total"
        page = self.admin("/metrics").body.decode()
        found = [line.removeprefix(name) for line in page.splitlines() if line.startswith(name + "{")]
        return Counter({line.split('"')[1]: int(float(line.rpartition(" ")[2])) for line in found})


def total(counters: Mapping[str, list[tuple[Any, int]]], name: str) -> int:
    """Add up a counter under all of its labels."""
    return sum(value for _, value in counters.get(name, []))


def stuff(fd: int) -> int:
    """Fill a pipe to its last byte; return how many went in."""
    os.set_blocking(fd, False)
    went = 0
    for size in (4096, 1):
        try:
            while True:
                went += os.write(fd, b"\n" * size)
        except BlockingIOError:
            continue
    os.set_blocking(fd, True)
    return went


def stands(server: Server) -> None:
    """Hold that it is alive and ready, by both of its doors."""
    for path in ("/healthz", "/readyz"):
        assert 200 == server.admin(path).status, path
    for path in ("/healthz", "/readyz"):
        assert 200 == server.ask(head(path, "Connection: close", method="GET", key=None)).status, path


def under_load(server: Server, uploaders: list[Uploader], until: Callable[[], object], what: str) -> None:
    """Ask how it is until so much is true and each device has had 5 more answers."""
    goals = [one.acknowledged + 5 for one in uploaders]

    def look() -> bool:
        stands(server)
        return bool(until()) and all(one.acknowledged >= goal for one, goal in zip(uploaders, goals, strict=True))

    wait_for(look, what)


class Process(NamedTuple):
    """
    The lines of one process: what it said by its `stdout`, and how often each number arrived in Splunk.

    Without a standard output only Splunk's are known.
    """

    said: dict[int, dict[str, Any]]
    arrived: Counter[int]

    @property
    def last(self) -> int:
        """The number of its last line."""
        return max([*self.said, *self.arrived])

    @property
    def missing(self) -> int:
        """Count the lines that Splunk did not get: what its dashboard counts, too."""
        return self.last - len(self.arrived)

    def lines(self, event: str) -> list[dict[str, Any]]:
        """Return its lines of one name, in their order."""
        return [line for _, line in sorted(self.said.items()) if line["event"] == event]

    @property
    def dropped(self) -> int:
        """Count the lines that it told to be dropped."""
        return sum(line["count"] for line in self.lines("hec.dropped"))

    @property
    def unconfirmed(self) -> int:
        """Count those of them that had been sent: Splunk may have them, if it was cut off before it answered."""
        return sum(line["count"] for line in self.lines("hec.dropped") if line["reason"] == "unconfirmed")

    @property
    def possible_duplicates(self) -> int:
        """Count the lines that it told to be sent again in doubt."""
        return max([0, *(int(line["possible_duplicates"]) for line in self.lines("hec.report"))])

    @property
    def late(self) -> list[str]:
        """
        Name the lines that it said when it could send no more: of what it dropped at the end, and gunicorn's last word.

        They stand in the standard output alone, and in nobody's account.
        """
        (*_, report) = self.lines("hec.report")
        after = [line for line in self.said.values() if line["seq"] > report["seq"] and line["seq"] not in self.arrived]
        return [line["event"] for line in after if line["event"] in {"hec.dropped", "gunicorn"}]


def processes(server: Talking, hec: SimulatedHec) -> dict[str, Process]:
    """Return the lines of each process by its boot, of those that have a number."""
    found: dict[str, Process] = {}
    for line in [line for line in server.log if "boot" in line]:
        found.setdefault(line["boot"], Process({}, Counter())).said[line["seq"]] = line
    for data in hec.lines:
        line = msgspec.json.decode(data)
        found.setdefault(line["boot"], Process({}, Counter())).arrived[line["seq"]] += 1
    return found


def adds_up(boot: str, process: Process) -> None:
    """Hold that a process said each line once, and that each of its accounts has all lines before it, with a fate."""
    assert [*range(1, process.last + 1)] == sorted(process.said), f"{boot} said a line twice, or none"
    for report in process.lines("hec.report"):
        fates = report["delivered"] + report["dropped"] + report["queued"] + report["in_flight"]
        assert report["emitted"] == fates == report["seq"] - 1, report


def sums_up(server: Talking, hec: SimulatedHec, *, in_doubt: bool = False) -> dict[str, Process]:
    """
    Hold every account of a server that has ended against what stdout and Splunk have; return the processes.

    `in_doubt`: Splunk may have taken lines, or taken them twice, whose answer did not come.
    """
    found = processes(server, hec)
    for boot, process in found.items():
        adds_up(boot, process)
        lost = process.dropped + len(process.late)
        if in_doubt:
            assert process.missing <= lost
        else:
            told = f"{boot} misses {process.missing}, and told: {process.lines('hec.dropped')}"
            assert lost - process.unconfirmed <= process.missing <= lost, told
            twice = process.arrived.total() - len(process.arrived)
            assert twice <= process.possible_duplicates, f"{boot} has lines twice"
    workers = {line["boot"] for line in server.logged("worker.started")}
    counters = server.counted().counters
    fates = ("emitted", "delivered", "dropped")
    emitted, delivered, dropped = (total(counters, f"collector_hec_{fate}_lines_total") for fate in fates)
    assert emitted == delivered + dropped
    # The last page is written before gunicorn's last word.
    assert emitted == sum(found[boot].last - found[boot].late.count("gunicorn") for boot in workers)
    assert dropped == sum(found[boot].dropped + found[boot].late.count("hec.dropped") for boot in workers)
    arrived = sum(len(found[boot].arrived) for boot in workers)
    unconfirmed = sum(found[boot].unconfirmed for boot in workers)
    assert in_doubt or arrived - unconfirmed <= delivered <= arrived
    assert {*server.errors.splitlines()} <= {IN_THE_CLEAR}
    assert not [line for line in server.output().splitlines() if not line.startswith("{")]
    return found
