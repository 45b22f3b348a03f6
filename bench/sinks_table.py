"""
What sending on costs, as Markdown.
"""

from __future__ import annotations

from collections.abc import Iterator
from statistics import median

from bench.run import best
from bench.sinks import CASE, FILE, Row, Sinks
from bench.table import LOAD_LIMIT, OTHERS_LIMIT, table

_MIB = 1 << 20
_COLUMNS = (
    "sink", "before", "uploads/s", "÷ `file:`", "of the rounds", "events/s to the end", "CPU µs/event",
    "÷ `file:`", "p50 ms", "p99 ms", "peak RSS MiB",
)  # fmt: skip


def render(sinks: Sinks) -> str:
    """Return the table, and in sentences what it needs to be read."""
    rows = [_numbers(sinks, row) for row in sinks.rows]
    notes = "\n".join(f"- {note}" for note in _notes(sinks))
    return "\n\n".join(["", "### By sink", table(_COLUMNS, rows, words=2), notes, ""])


def _numbers(sinks: Sinks, row: Row) -> list[str]:
    cell, file = best(row.cells), best(sinks.rows[0].cells)
    rounds = sinks.ratios(row)
    of_file = row.sink == FILE
    return [
        f"`{row.sink}:`",
        row.before,
        f"{cell.requests_per_s:,.0f}",
        "" if of_file else f"**{median(rounds):.2f}**",
        "" if of_file else f"{min(rounds):.2f} to {max(rounds):.2f}",
        f"{cell.confirmed_per_s:,.0f}",
        f"{cell.cpu_us / CASE.events:.1f}",
        "" if of_file else f"{cell.cpu_us / file.cpu_us:.2f}",
        f"{cell.p50_ms:.1f}",
        f"{cell.p99_ms:.1f}",
        f"{max(one.peak_bytes for one in row.cells) / _MIB:.0f}",
    ]


def _notes(sinks: Sinks) -> Iterator[str]:
    plan, cells = sinks.plan, [cell for row in sinks.rows for cell in row.cells]
    yield sinks.machine
    yield (
        f"A worker for each sink, pinned to core {sinks.cores.server}, one at a time under load: {CASE.connections} "
        f"connections in a closed loop, uploads of {CASE.events} events, {plan.seconds:g} s after a warm-up of "
        f"{plan.warm_up_s:g} s. Shown is the best of {plan.rounds} rounds, the sinks in turn, and of the ratios of "
        "the rounds the median, the least and the most."
    )
    yield (
        f"What stands before the sinks runs on core {sinks.cores.load}, beside the load, and its CPU is not counted: "
        "SeaweedFS, and for the streams the tests' engine, which has AWS's limits, in a process of its own."
    )
    yield (
        "To the end: from the first upload until the last event is confirmed, for which it may wait a second for its "
        "segment to be due. CPU is counted until then, too."
    )
    if sinks.cores.shared:
        yield f"**{sinks.cores.shared[0].upper()}{sinks.cores.shared[1:]}.**"
    if any(cell.load_busy > LOAD_LIMIT for cell in cells):
        yield f"**The load used over {LOAD_LIMIT:.0%} of its core**: the worker may be able to do more than this."
    if any(cell.unexpected for cell in cells):
        yield "**Some uploads were not taken**; the rates leave them out."
    foreign = max(cell.others_busy for cell in cells)
    if foreign > OTHERS_LIMIT:
        yield (
            f"**Something else used up to {foreign:.0%} of the worker's core**: trust the CPU and its ratio, then the "
            "rates' ratio, and not the rates."
        )
    yield "**Events were lost or came twice.**" if sinks.problems else "None lost, none twice."
