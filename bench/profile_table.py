"""
The profile as Markdown.
"""

from __future__ import annotations

import math
from collections.abc import Iterator

from bench.profiling import MEASURED_PART, Profile, Report, Row, title
from bench.sampler import RATE
from bench.stages import STAGES
from bench.table import LOAD_LIMIT, OTHERS_LIMIT, table


def render(report: Report) -> str:
    """Return the table, and in sentences what it needs to be read."""
    columns = ["CPU µs an upload"]
    for row in report.rows:
        columns += [title(row.case), "floor"]
    lines = [[stage.name, *_cells(report, stage.name)] for stage in STAGES]
    lines.append(["**all**", *_both(report, "{0.cpu_us:,.0f}")])
    lines.append(["uploads/s, not sampled", *_both(report, "{0.cell.requests_per_s:,.0f}")])
    return "\n".join(["", table(columns, lines, words=1), "", *(f"- {note}" for note in _notes(report)), ""])


def _cells(report: Report, stage: str) -> Iterator[str]:
    for row in report.rows:
        us, whole = row.collector.us[stage], row.collector.cpu_us
        yield f"{us:,.1f} ({us / whole:.0%})" if us else ""
        yield f"{row.floor.us[stage]:,.1f}" if row.floor.us[stage] else ""


def _both(report: Report, words: str) -> Iterator[str]:
    return (words.format(profile) for row in report.rows for profile in (row.collector, row.floor))


def _profiles(rows: list[Row]) -> list[Profile]:
    return [profile for row in rows for profile in (row.collector, row.floor)]


def _notes(report: Report) -> Iterator[str]:
    plan, profiles = report.plan, _profiles(report.rows)
    fewest = min(one.samples for one in profiles)
    yield report.machine
    yield (
        f"One worker, pinned to core {report.cores.server}; the load is one thread on core {report.cores.load}, in a "
        f"closed loop over {plan.cases[0].connections} connections. Collector has all features on, and delivers to "
        "files on tmpfs; its CPU is counted until the last event is there."
    )
    if report.cores.shared:
        yield f"**{report.cores.shared[0].upper()}{report.cores.shared[1:]}.**"
    yield (
        f"The whole is from /proc, of {plan.seconds * MEASURED_PART:g} s without the sampler. The parts are those of "
        f"the stacks that py-spy met at the same load in {plan.seconds:g} s after it, {RATE} times a second: "
        f"{fewest:,} or more for each column, so that a stage of 5% may be {_off(0.05, fewest):.1%} more or less. The "
        "main thread and the flusher's are spread apart, each by its own CPU time. While it was sampled, an upload "
        f"cost {_dearer(report):+.0%}."
    )
    yield (
        "Floor: recv, `parse_request_fast`, (gzip: inflate,) split into `msgspec.Raw`, one write to tmpfs and one "
        "send, on gunicorn's gevent worker: no key, no limits, no counts, no flusher."
    )
    yield (
        "Beware of `send`: where the load generator sleeps, waking it on the other core (an interrupt from core to "
        "core) costs the sender 10 to 25 µs, which can be most of a send. The faster the server, the less its client "
        "sleeps: the load used "
        f"{max(row.floor.cell.load_busy for row in report.rows):.0%} of its core at the floor's best rate, and "
        f"{max(row.collector.cell.load_busy for row in report.rows):.0%} at Collector's, so the floor's sends, and its "
        "waits, are the cheaper ones."
    )
    if any(one.cell.load_busy > LOAD_LIMIT for one in profiles):
        yield f"**The load used over {LOAD_LIMIT:.0%} of its core**: the server may be able to do more than this."
    if refused := sum(sum(cell.unexpected.values()) for one in profiles for cell in (one.cell, one.sampled)):
        yield f"{refused:,} uploads were not taken whole, and have cost what a refusal costs."
    foreign = max(one.cell.others_busy for one in profiles)
    if foreign > OTHERS_LIMIT:
        yield (
            f"**Something else used up to {foreign:.0%} of the server's core**: trust the parts and the floor's ratio, "
            "then the µs, and not the rates."
        )


def _off(part: float, samples: int) -> float:
    """Return how far such a part of so many samples is from the truth at the most, nineteen times of twenty."""
    return 2 * math.sqrt(part * (1 - part) / samples)


def _dearer(report: Report) -> float:
    """Return by which part the sampler made an upload dearer, over all of Collector's cases."""
    whole = sum(row.collector.cell.cpu_us for row in report.rows)
    return sum(row.collector.sampled.cpu_us for row in report.rows) / whole - 1
