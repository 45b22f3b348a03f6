"""
What an upload waits for where a service should run: at half of its peak, with uploads that come when they come.
"""

from __future__ import annotations

from collections.abc import Callable
from contextlib import ExitStack

import msgspec

from bench import proc
from bench.cell import Cell, Plan, measure, problems_of, room
from bench.paced import paced
from bench.servers import Server, collector, reference
from bench.table import OTHERS_LIMIT, table
from bench.uploads import Case, requests

CASE = Case(5)
#: Of the peak; the target's own words.
PART = 0.5
#: The peak is measured right before, for so much of the time that the rest of it takes.
_PEAK_PART = 0.5
#: What is told of the latencies.
QUANTILES = (0.5, 0.9, 0.99, 0.999)
#: A rate this far below the one that was to be offered is said to be so.
_SHORT = 0.95


class Paced(msgspec.Struct, frozen=True):
    """A server: at its `peak`, in a closed loop, and at `PART` of that, with its latencies at the `QUANTILES`."""

    peak: Cell
    half: Cell
    quantiles_ms: list[float]

    @property
    def wanted_per_s(self) -> float:
        """Return the rate that was to be offered."""
        return self.peak.requests_per_s * PART

    @property
    def spread(self) -> float:
        """Return the p99 in medians; 0.0 if nothing was answered."""
        return self.half.p99_ms / self.half.p50_ms if self.half.p50_ms else 0.0


class Pace(msgspec.Struct, frozen=True):
    """The whole run."""

    machine: str
    cores: proc.Cores
    plan: Plan
    reference: Paced
    collector: Paced

    @property
    def problems(self) -> list[str]:
        """Say which events were lost or came twice; nothing if none."""
        return [
            *problems_of("the peak", self.collector.peak),
            *problems_of("half of the peak", self.collector.half),
        ]


def run(plan: Plan, tell: Callable[[str], None]) -> Pace:
    """Measure; of the plan, the cases and the rounds are not asked. Raises ServerError or LoadError."""
    cores = proc.choose_cores()
    with room() as folder, ExitStack() as stack:
        theirs = stack.enter_context(reference(folder / "reference", cores.server))
        ours = stack.enter_context(collector(folder / "collector", cores.server))
        stack.enter_context(proc.pinned(cores.load))
        tell("half of the peak: the reference, then Collector")
        return Pace(proc.machine(), cores, plan, *(_pace(server, plan, cores) for server in (theirs, ours)))


def _pace(server: Server, plan: Plan, cores: proc.Cores) -> Paced:
    uploads = requests(CASE)
    short = msgspec.structs.replace(plan, seconds=plan.seconds * _PEAK_PART)
    peak, _ = measure(server, CASE, uploads, short, cores)
    # A server that answers nothing at its peak is asked once a second.
    load = paced(max(1.0, peak.requests_per_s * PART))
    half, traffic = measure(server, CASE, uploads, plan, cores, load=load)
    return Paced(peak, half, [traffic.latency_s(part) * 1e3 for part in QUANTILES])


def render(pace: Pace) -> str:
    """Return the table, and in sentences what it needs to be read."""
    columns = ("server", "peak/s", "wanted/s", "got/s", *(f"p{part * 100:g} ms" for part in QUANTILES), "p99 ÷ p50")
    rows = [
        [
            title, f"{one.peak.requests_per_s:,.0f}", f"{one.wanted_per_s:,.0f}",
            f"{one.half.requests_per_s:,.0f}", *(f"{ms:.2f}" for ms in one.quantiles_ms), f"{one.spread:.1f}",
        ]
        for title, one in (("reference", pace.reference), ("**Collector**", pace.collector))
    ]  # fmt: skip
    notes = [
        f"Uploads of {CASE.events} events come as a Poisson process at half of the server's own peak, for "
        f"{pace.plan.seconds:g} s over {CASE.connections} connections. A latency runs from the moment at which its "
        "upload should have been sent: waiting for a connection counts, and so does the generator's own lateness."
    ]
    for title, one in (("The reference", pace.reference), ("Collector", pace.collector)):
        if one.half.requests_per_s < _SHORT * one.wanted_per_s:
            notes.append(f"**{title} got fewer than it was to get**: its latencies are not those of half of its peak.")
        if one.half.unexpected:
            told = ", ".join(f"{count:,} with status {status}" for status, count in one.half.unexpected.items())
            notes.append(f"**{title} did not take all of them**: {told}.")
        if one.half.others_busy > OTHERS_LIMIT:
            notes.append(f"**Something else used {one.half.others_busy:.0%} of the core of {title}** meanwhile.")
    return "\n\n".join(
        ["", "### At half of the peak", table(columns, rows, words=1), "\n".join(f"- {n}" for n in notes), ""]
    )
