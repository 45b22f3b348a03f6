"""
The measurement: each case on the reference and on Collector in turn, and the better of the rounds.
"""

from __future__ import annotations

import os
import shutil
import tempfile
from collections.abc import Callable, Sequence
from contextlib import ExitStack
from functools import partial
from pathlib import Path
from time import monotonic, process_time

import msgspec

from bench import proc
from bench.account import Account, Ledger, await_delivery, settle, take_stock
from bench.load import Load, Traffic, drive
from bench.servers import CollectorServer, Server, ServerError, collector, get, reference
from bench.uploads import Case, requests

SHM = Path("/dev/shm")  # noqa: S108 - the kernel's own tmpfs, where Collector's spool is by default
#: The folder of a run is called this, and by its process.
PREFIX = "collector-bench-"
#: What the spool and the sink take at the most, about: measured 0.5 GiB.
SHM_BYTES = 1 << 30
#: How long the flusher may take after the load has ended, in seconds.
DELIVERY_PATIENCE_S = 30.0


class Plan(msgspec.Struct, frozen=True):
    """What is measured: `rounds` times each case, for so many seconds after the warm-up."""

    cases: Sequence[Case]
    seconds: float
    warm_up_s: float
    rounds: int


class Cell(msgspec.Struct, frozen=True):
    """
    One measurement of one server.

    `cpu_us` is what the workers used for one request in microseconds, user and system, from the first request until
    its events were in the sink. `server_busy` and `load_busy` are parts of a core; `others_busy` is what anybody else
    took of the server's cores, in cores. `delivery_s` is how long after the load's end the last event was in the sink.
    """

    requests_per_s: float
    events_per_s: float
    cpu_us: float
    p50_ms: float
    p99_ms: float
    peak_bytes: int
    server_busy: float
    load_busy: float
    others_busy: float
    unexpected: dict[str, int]
    delivery_s: float = 0.0
    account: Account | None = None


class Row(msgspec.Struct, frozen=True):
    """All cells of a case, by round."""

    case: Case
    reference: list[Cell]
    collector: list[Cell]


class Report(msgspec.Struct, frozen=True):
    """The whole run."""

    machine: str
    cores: proc.Cores
    plan: Plan
    rows: list[Row]

    @property
    def problems(self) -> list[str]:
        """Say which events were lost or came twice; nothing if none."""
        return [
            f"{row.case.title}: {problem}"
            for row in self.rows
            for cell in row.collector
            if cell.account is not None
            for problem in cell.account.problems
        ]


def best(cells: Sequence[Cell]) -> Cell:
    """Return the cell with the highest rate: whatever else runs on a machine only ever slows down."""
    return max(cells, key=lambda cell: cell.requests_per_s)


def run(plan: Plan, tell: Callable[[str], None]) -> Report:
    """Measure; `tell` hears how far it is. Raises ServerError or LoadError."""
    if shutil.disk_usage(SHM).free < SHM_BYTES:
        raise ServerError(f"{SHM} has less than {SHM_BYTES >> 30} GiB free: the spool and the sink of this run need it")
    cores = proc.choose_cores()
    cells: dict[Case, tuple[list[Cell], list[Cell]]] = {case: ([], []) for case in plan.cases}
    with tempfile.TemporaryDirectory(prefix=f"{PREFIX}{os.getpid()}-", dir=SHM) as folder, ExitStack() as stack:
        theirs = stack.enter_context(reference(Path(folder, "reference"), cores.server))
        ours = stack.enter_context(collector(Path(folder, "collector"), cores.server))
        stack.enter_context(proc.pinned(cores.load))
        for case in plan.cases:
            uploads = requests(case)
            for turn in range(plan.rounds):
                tell(f"{case.title}: round {turn + 1} of {plan.rounds}")
                cells[case][0].append(measure(theirs, case, uploads, plan, cores)[0])
                cells[case][1].append(measure_collector(ours, case, uploads, plan, cores))
    return Report(proc.machine(), cores, plan, [Row(case, *cells[case]) for case in plan.cases])


def measure_collector(
    server: CollectorServer,
    case: Case,
    uploads: Sequence[bytes],
    plan: Plan,
    cores: proc.Cores,
    *,
    load: Load = drive,
) -> Cell:
    """Measure Collector, and hold what it acknowledged against its ledger and its sink."""
    ledger = partial(read_ledger, server)
    before = ledger()
    expected = f'"accepted":{case.events},"rejected":[],"ack":"{case.ack}"'.encode()
    cell, traffic = measure(
        server, case, uploads, plan, cores,
        load=load, expected=expected, until=lambda: await_delivery(ledger, DELIVERY_PATIENCE_S),
    )  # fmt: skip
    account = settle(before, ledger(), take_stock(server.sink), uploads=traffic.acknowledged, events=case.events)
    return msgspec.structs.replace(cell, account=account)


def read_ledger(server: CollectorServer) -> Ledger:
    """Ask Collector what became of all events; raises ServerError."""
    status, body = get(server.admin, "/ledger")
    if status != 200:
        raise ServerError(f"/ledger answered {status}: {body[:500]!r}")
    return msgspec.json.decode(body, type=Ledger)


def measure(
    server: Server,
    case: Case,
    uploads: Sequence[bytes],
    plan: Plan,
    cores: proc.Cores,
    *,
    load: Load = drive,
    expected: bytes = b"",
    until: Callable[[], object] = lambda: None,
) -> tuple[Cell, Traffic]:
    """Measure a server under the load of a case; what it still does `until` returns is on its account."""
    proc.reset_peak(*server.workers)
    began, cpu_s, own_s = monotonic(), proc.cpu_s(*server.workers), process_time()
    core_s = proc.core_busy_s(*cores.servers)
    traffic = load(
        server.address, uploads,
        connections=case.connections, seconds=plan.seconds, warm_up_s=plan.warm_up_s, expected=expected,
    )  # fmt: skip
    ended, busy_s = monotonic(), proc.cpu_s(*server.workers) - cpu_s
    others_s = proc.core_busy_s(*cores.servers) - core_s - busy_s
    if cores.load in cores.servers:
        others_s -= process_time() - own_s
    until()
    answers = traffic.acknowledged + sum(traffic.unexpected.values())
    cell = Cell(
        requests_per_s=traffic.per_s,
        events_per_s=traffic.per_s * case.events,
        cpu_us=(proc.cpu_s(*server.workers) - cpu_s) * 1e6 / answers,
        p50_ms=traffic.latency_s(0.50) * 1e3,
        p99_ms=traffic.latency_s(0.99) * 1e3,
        peak_bytes=proc.peak_bytes(*server.workers),
        server_busy=busy_s / (ended - began),
        load_busy=traffic.busy,
        others_busy=max(0.0, others_s / (ended - began)),
        unexpected=traffic.unexpected,
        delivery_s=monotonic() - ended,
    )
    return cell, traffic
