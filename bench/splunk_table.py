"""
What a dead Splunk costs, as Markdown.
"""

from __future__ import annotations

from collections.abc import Iterator

from bench.run import best
from bench.splunk import AGAIN, CASE, HEALTHY, PROBES_PER_S, Row, Splunk
from bench.table import LOAD_LIMIT, OTHERS_LIMIT, table
from bench.targets import MET, MISSED

#: Intake in that with a healthy Splunk, unless the noise is larger; and what a health check may take, in ms.
INTAKE, HEALTH_MS = 0.95, 100.0
_COLUMNS = (
    "Splunk", "uploads/s", "÷ healthy", "of the rounds", "CPU µs/upload", "healthy ÷ it", "log lines/s",
    "/healthz p99 ms", "stop s", "lines", "in Splunk", "dropped, told", "accounts", "verdict",
)  # fmt: skip


def verdict(splunk: Splunk, row: Row) -> str:
    """Judge a state: intake, health checks, accounts."""
    missed = []
    if row.state != HEALTHY and splunk.ratio(row) < min(INTAKE, splunk.noise):
        missed.append("intake")
    if row.health_p99_ms >= HEALTH_MS or any(row.unhealthy):
        missed.append("health")
    if row.lines is not None and row.lines.problems:
        missed.append("accounts")
    return f"**{MISSED}**: {', '.join(missed)}" if missed else MET


def render(splunk: Splunk) -> str:
    """Return the table, and in sentences what it needs to be read."""
    rows = [_numbers(splunk, row) for row in splunk.rows]
    notes = "\n".join(f"- {note}" for note in _notes(splunk))
    return "\n\n".join(["", "### By the state of Splunk", table(_COLUMNS, rows, words=1), notes, ""])


def _numbers(splunk: Splunk, row: Row) -> list[str]:
    cell, lines, rounds = best(row.cells), row.lines, splunk.ratios(row)
    of_healthy = row.state == HEALTHY
    return [
        row.state,
        f"{cell.requests_per_s:,.0f}",
        "" if of_healthy else f"**{splunk.ratio(row):.2f}**",
        "" if of_healthy else f"{min(rounds):.2f} to {max(rounds):.2f}",
        f"{cell.cpu_us:.0f}",
        "" if of_healthy else f"{splunk.ratio_by_cpu(row):.2f}",
        f"{row.lines_per_s:.0f}" if lines else "",
        f"{row.health_p99_ms:.1f}",
        f"{row.stop_s:.1f}",
        *((f"{lines.emitted:,}", f"{lines.delivered:,}", f"{lines.dropped:,}") if lines else ("", "", "")),
        "" if lines is None else "inexact" if lines.problems else "exact",
        verdict(splunk, row),
    ]


def _notes(splunk: Splunk) -> Iterator[str]:
    plan, cells = splunk.plan, [cell for row in splunk.rows for cell in row.cells]
    yield splunk.machine
    yield (
        f"A worker for each state, pinned to core {splunk.cores.server}, one at a time under load: {CASE.connections} "
        f"connections in a closed loop, uploads of {CASE.events} events, {plan.seconds:g} s after a warm-up of "
        f"{plan.warm_up_s:g} s, {plan.rounds} rounds, the states in turn. Uploads a second and CPU are of the best "
        "round, their ratios the medians of the rounds: CPU tells what is of the state from what is of the machine."
    )
    yield (
        f"Noise: `{AGAIN}` differs in nothing from `{HEALTHY}`. Asked is at least {INTAKE:g} of a healthy Splunk's "
        f"intake, or the least that one of the two reached in the other: {splunk.noise:.2f}. Asked of a health check, "
        f"{PROBES_PER_S:.0f} times a second under that load, is a p99 under {HEALTH_MS:g} ms; the load and the "
        "simulated HEC share its core."
    )
    yield (
        "The log is at `debug` and says a line for each batch of 64 KiB at most. Lines, and what became of them, are "
        "those of the worker at its end; what Splunk has, and what each process said on its standard output, is "
        "counted beside that, and all of it has to agree."
    )
    yield (
        "The stop is from SIGTERM to the exit, with nothing left to deliver; all stop side by side. Worker, last word "
        "and launcher each give Splunk three seconds, one after the other."
    )
    if splunk.cores.shared:
        yield f"**{splunk.cores.shared[0].upper()}{splunk.cores.shared[1:]}.**"
    if any(cell.load_busy > LOAD_LIMIT for cell in cells):
        yield f"**The load used over {LOAD_LIMIT:.0%} of its core**: the worker may be able to do more than this."
    foreign = max(cell.others_busy for cell in cells)
    if foreign > OTHERS_LIMIT:
        yield f"**Something else used up to {foreign:.0%} of the worker's core**: trust the ratios, and not the rates."
    yield "**Something was lost or does not add up.**" if splunk.problems else "No event lost, none twice."
