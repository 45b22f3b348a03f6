"""
One measurement of one server under one load, and what its books say.
"""

from __future__ import annotations

import os
import shutil
import tempfile
from collections import Counter
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from functools import partial
from pathlib import Path
from time import monotonic, process_time

import msgspec

from bench import proc
from bench.account import Account, Ledger, await_delivery, settle, take_stock
from bench.load import Load, Traffic, drive
from bench.servers import CollectorServer, Server, ServerError, get
from bench.uploads import Case
from collector.telemetry.books import Books

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
    took of the server's cores, in cores. `delivery_s` is how long after the load's end the last event was in the sink,
    and `confirmed_per_s` how many events were by then for each second since the first request.
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
    confirmed_per_s: float = 0.0
    account: Account | None = None


def problems_of(what: str, cell: Cell | None) -> list[str]:
    """Say which events of a cell were lost or came twice; nothing if none, or if nobody counts them."""
    account = cell.account if cell else None
    return [f"{what}: {problem}" for problem in account.problems] if account else []


@contextmanager
def room() -> Iterator[Path]:
    """Give a folder in memory that is gone afterwards; raises ServerError where there is no room for one."""
    if shutil.disk_usage(SHM).free < SHM_BYTES:
        raise ServerError(f"{SHM} has less than {SHM_BYTES >> 30} GiB free: the spool and the sink of this run need it")
    with tempfile.TemporaryDirectory(prefix=f"{PREFIX}{os.getpid()}-", dir=SHM) as name:
        yield Path(name)


def read_ledger(server: CollectorServer) -> Ledger:
    """Ask Collector what became of all events; raises ServerError."""
    status, body = get(server.admin, "/ledger")
    if status != 200:
        raise ServerError(f"/ledger answered {status}: {body[:500]!r}")
    return msgspec.json.decode(body, type=Ledger)


def look_into_books(server: CollectorServer) -> Ledger:
    """
    Read the same in the files that it is made of, which costs the server nothing; raises OSError or LedgerError.

    To answer for ten thousand tenants took as much of the server as thousands of uploads: what waits for delivery
    while the CPU is counted must not ask it.
    """
    totals = Books(server.spool).totals()
    return msgspec.convert({"balanced": totals.balanced, **totals.outcomes()}, Ledger)


def measure(
    server: Server,
    case: Case,
    uploads: Sequence[bytes],
    plan: Plan,
    cores: proc.Cores,
    *,
    load: Load = drive,
    stock: Callable[[], Counter[bytes]] | None = None,
) -> tuple[Cell, Traffic]:
    """
    Measure a server under a load; what Collector acknowledged is held against its ledger and its sink.

    `stock` counts what has come to a sink by its receipts, each line once; without it the sink's files are counted.
    """
    if not isinstance(server, CollectorServer):
        return _measure(server, case, uploads, plan, cores, load)
    ledger = partial(read_ledger, server)
    before = ledger()
    cell, traffic = _measure(
        server, case, uploads, plan, cores, load,
        expected=f'"accepted":{case.events},"rejected":[],"ack":"{case.ack}"'.encode(),
        until=lambda: await_delivery(partial(look_into_books, server), DELIVERY_PATIENCE_S),
    )  # fmt: skip
    lines = stock() if stock else take_stock(server.sink)
    account = settle(before, ledger(), lines, uploads=traffic.acknowledged, events=case.events)
    return msgspec.structs.replace(cell, account=account), traffic


def _measure(
    server: Server,
    case: Case,
    uploads: Sequence[bytes],
    plan: Plan,
    cores: proc.Cores,
    load: Load,
    *,
    expected: bytes = b"",
    until: Callable[[], object] = lambda: None,
) -> tuple[Cell, Traffic]:
    """Measure; what the server still does `until` returns is on its account."""
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
    confirmed = monotonic()
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
        delivery_s=confirmed - ended,
        confirmed_per_s=traffic.acknowledged * case.events / (confirmed - began),
    )
    return cell, traffic
