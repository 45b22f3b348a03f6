"""
Memory over time: one worker under full load, its resident set looked at each second, and whether it grows.
"""

from __future__ import annotations

import threading
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from functools import partial
from statistics import linear_regression
from time import monotonic

import msgspec

from bench import proc
from bench.account import Account, Stock, await_delivery
from bench.cell import DELIVERY_PATIENCE_S, read_ledger, room
from bench.load import drive
from bench.servers import CollectorServer, collector
from bench.uploads import Case, requests

CASE = Case(5, connections=64)
#: What a worker may take, in bytes: the target's own words, and what `collector check` reckons with.
LIMIT_BYTES = 120 << 20
#: How long it must stay flat, in seconds: the target's own words.
FULL_S = 600.0
#: The first part fills caches and pools and is no growth.
SETTLING_PART = 0.2
#: Growth over the rest that is none. A segment of 4 MiB is read, rendered and compressed as a whole, so where in
#: that the run begins and ends moves the line by about half of one. In ten minutes it is 0.25 MiB/min: 4 bytes an
#: upload at 1,000 uploads/s, less than any object takes that somebody forgets to let go.
GROWTH_BYTES = 2 << 20
_SAMPLE_S = 1.0
_WARM_UP_S = 1.0
_MIB = 1 << 20


class Sample(msgspec.Struct, frozen=True, array_like=True):
    """The resident set `at_s` seconds after the load began."""

    at_s: float
    resident_bytes: int


class Memory(msgspec.Struct, frozen=True):
    """The whole run. `peak_bytes` is the kernel's own peak, which no sample may have met."""

    machine: str
    cores: proc.Cores
    seconds: float
    requests_per_s: float
    load_busy: float
    peak_bytes: int
    samples: list[Sample]
    account: Account

    @property
    def settled(self) -> list[Sample]:
        """Return the samples that may show growth."""
        return [sample for sample in self.samples if sample.at_s >= SETTLING_PART * self.seconds]

    @property
    def line(self) -> tuple[float, float] | None:
        """Return the fitted line through them, in bytes a second and bytes at the beginning; None for too few."""
        settled = self.settled
        if len(settled) < 3:
            return None
        fit = linear_regression([one.at_s for one in settled], [float(one.resident_bytes) for one in settled])
        return fit.slope, fit.intercept

    @property
    def growth_mib_per_min(self) -> float | None:
        """Return the slope of the line; None for too few samples."""
        return self.line[0] * 60 / _MIB if self.line else None

    @property
    def problems(self) -> list[str]:
        """Say which events were lost or came twice; nothing if none."""
        return [f"memory: {problem}" for problem in self.account.problems]


def limit_mib_per_min(seconds: float) -> float:
    """Return the slope that makes `GROWTH_BYTES` of a run of so many seconds."""
    return GROWTH_BYTES / _MIB / ((1 - SETTLING_PART) * seconds / 60)


def run(seconds: float, tell: Callable[[str], None]) -> Memory:
    """Measure for so many seconds; raises ServerError or LoadError."""
    tell(f"memory: {seconds:g} s of full load")
    cores, uploads = proc.choose_cores(), requests(CASE)
    with room() as folder, collector(folder / "collector", cores.server) as server, proc.pinned(cores.load):
        ledger, stock = partial(read_ledger, server), Stock(server.sink, events=CASE.events)
        before = ledger()
        proc.reset_peak(*server.workers)
        with _sampled(server, stock) as samples:
            traffic = drive(
                server.address, uploads,
                connections=CASE.connections, seconds=seconds, warm_up_s=_WARM_UP_S,
                expected=f'"accepted":{CASE.events},"rejected":[],"ack":"{CASE.ack}"'.encode(),
            )  # fmt: skip
        after = await_delivery(ledger, DELIVERY_PATIENCE_S)
        stock.take()
        account = stock.settle(before, after, uploads=traffic.acknowledged)
        return Memory(
            proc.machine(), cores, seconds, traffic.per_s, traffic.busy, proc.peak_bytes(*server.workers),
            samples, account,
        )  # fmt: skip


@contextmanager
def _sampled(server: CollectorServer, stock: Stock) -> Iterator[list[Sample]]:
    """Look at the worker each second, and clear its sink away, until the block is left."""
    samples: list[Sample] = []
    ended, began = threading.Event(), monotonic()

    def look() -> None:
        while not ended.wait(_SAMPLE_S):
            samples.append(Sample(monotonic() - began, proc.resident_bytes(*server.workers)))
            stock.take()

    thread = threading.Thread(target=look)
    thread.start()
    try:
        yield samples
    finally:
        ended.set()
        thread.join()


def render(memory: Memory) -> str:
    """Say in sentences what was found."""
    resident = [sample.resident_bytes / _MIB for sample in memory.settled]
    notes = [
        f"One worker on core {memory.cores.server} under full load for {memory.seconds:g} s: "
        f"{memory.requests_per_s:,.0f} uploads/s of {CASE.events} events over {CASE.connections} connections.",
        f"Peak {memory.peak_bytes / _MIB:.1f} MiB of resident set."
    ]  # fmt: skip
    if resident and memory.growth_mib_per_min is not None:
        notes.append(
            f"After the first {SETTLING_PART:.0%}: {min(resident):.1f} to {max(resident):.1f} MiB, on a line that "
            f"grows by {memory.growth_mib_per_min:+.2f} MiB/min; {limit_mib_per_min(memory.seconds):.2f} of them, "
            f"{GROWTH_BYTES / _MIB:g} MiB in all, are half of a segment and no growth."
        )
    notes.append("; ".join(memory.problems) or f"{memory.account.acknowledged:,} events, none lost, none twice.")
    return "\n".join(["", "### Memory under full load", "", *(f"- {note}" for note in notes), ""])
