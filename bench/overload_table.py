"""
What overload does, as Markdown.
"""

from __future__ import annotations

from collections.abc import Iterator

from bench.overload import CASE, CONNECTIONS, FACTOR, HEALTH, PROBES_PER_S, Overload, Storm, name
from bench.table import LOAD_LIMIT, OTHERS_LIMIT, table

#: A load this far below what was wanted is said to be so.
_SHORT = 0.95
#: With fewer refusals than this part of what was accepted, what is left for them says nothing of their price.
_TELLING_PART = 0.1


def render(report: Overload) -> str:
    """Return the tables, and in sentences what they need to be read."""
    parts = [
        "### Fairness",
        table(("server", "links", "requests/s", "p50 ms", "p99 ms", "p99 ÷ p50"), _fairness(report), words=1),
        "### The price of a refusal",
        table(("upload", "CPU µs", "÷ accepted"), _prices(report), words=1),
        f"### {FACTOR:g} times too much",
        table(
            ("connections", "sustainable/s", "offered/s", "÷ sust.", "accepted/s", "÷ sust.", "refused/s",
             "no answer", f"{HEALTH} p50 ms", "p99 ms", "load CPU"),
            _storms(report), words=1,
        ),
        "\n".join(f"- {note}" for note in _notes(report)),
    ]  # fmt: skip
    return "\n\n".join(["", *parts, ""])


def _fairness(report: Overload) -> Iterator[list[str]]:
    for title, cell in (("reference", report.reference), ("**Collector**", report.collector)):
        spread = f"{cell.p99_ms / cell.p50_ms:.1f}" if cell.p50_ms else ""
        yield [
            title,
            str(CASE.connections),
            f"{cell.requests_per_s:,.0f}",
            f"{cell.p50_ms:.1f}",
            f"{cell.p99_ms:.1f}",
            spread,
        ]


def _prices(report: Overload) -> Iterator[list[str]]:
    accepted_us = report.collector.cpu_us
    rows = [("accepted, 5 events", accepted_us), ("refused, nearly all that come", report.refusals.cpu_us)]
    rows += [
        (f"refused, {FACTOR:g} times too much, {name(storm)}", storm.refusal_cpu_us)
        for storm in report.storms
        if storm.harvest.refused >= _TELLING_PART * storm.harvest.accepted
    ]
    for title, cpu_us in rows:
        yield [title, f"{cpu_us:,.0f}", f"{cpu_us / accepted_us:.2f}"]


def _storms(report: Overload) -> Iterator[list[str]]:
    calm = report.calm
    for storm in report.storms:
        harvest, pulse = storm.harvest, storm.pulse
        accepted_per_s = harvest.accepted / harvest.seconds
        yield [
            name(storm),
            f"{storm.sustainable_per_s:,.0f}",
            f"{storm.offered_per_s:,.0f}",
            f"{storm.offered_per_s / storm.sustainable_per_s:.1f}",
            f"{accepted_per_s:,.0f}",
            f"{accepted_per_s / storm.sustainable_per_s:.2f}",
            f"{harvest.refused / harvest.seconds:,.0f}",
            f"{sum(harvest.failures.values()):,}",
            f"{pulse.latency_s(0.50) * 1e3:.1f}",
            f"{pulse.latency_s(0.99) * 1e3:.1f}",
            f"{harvest.busy:.0%}",
        ]
    yield ["none", *[""] * 7, f"{calm.latency_s(0.50) * 1e3:.1f}", f"{calm.latency_s(0.99) * 1e3:.1f}", ""]


def _notes(report: Overload) -> Iterator[str]:
    storms = report.storms
    yield report.machine
    yield (
        f"Server: one worker, pinned to core {report.cores.server}. The load, and beside it the health check, are on "
        f"core {report.cores.load}: its times hold what it waits for the load there."
    )
    if report.cores.shared:
        yield f"**{report.cores.shared[0].upper()}{report.cores.shared[1:]}.**"
    yield (
        "Fairness: 32 connections in a closed loop, uploads of 5 events. Sustainable is what the same closed loop "
        "reaches, with connections that stay and with a connection for each upload."
    )
    yield (
        f"{FACTOR:g} times too much: arrivals at a fixed rate for {2 * report.plan.seconds:g} s, over at most "
        f"{CONNECTIONS:,} connections; {HEALTH} on the admin listener {PROBES_PER_S:g} times a second, a connection "
        "each, and none waits for another."
    )
    yield (
        "The price of a refusal is what the accepted uploads leave of the worker's CPU, in the closed loop above of a "
        "server that refuses whatever must wait at all; and in the storms, health checks and connections included."
    )
    foreign = max(report.collector.others_busy, *(storm.others_busy for storm in storms))
    if foreign > OTHERS_LIMIT:
        yield f"**Something else used up to {foreign:.0%} of the server's core**: the times are not the server's alone."
    yield from filter(None, (_short(storm) for storm in storms))
    for storm in storms:
        if storm.harvest.failures:
            told = ", ".join(f"{what}: {count:,}" for what, count in sorted(storm.harvest.failures.items()))
            yield f"Uploads without an answer, {name(storm)}: {told}."
        if failed := sum(storm.pulse.failures.values()) + storm.pulse.turned_away + sum(storm.pulse.wrong.values()):
            yield f"**{failed:,} health checks failed**, {name(storm)}."
    turned_away = report.refusals.harvest.turned_away + sum(storm.harvest.turned_away for storm in storms)
    taken = report.refusals.account.acknowledged + sum(storm.account.acknowledged for storm in storms)
    verdict = "**" + "; ".join(report.problems) + ".**" if report.problems else "None lost, none twice."
    yield (
        f"{turned_away:,} uploads were refused, each with 503 and a Retry-After of 1 to 5 s, and {taken:,} events "
        f"taken meanwhile. {verdict}"
    )


def _short(storm: Storm) -> str:
    """Say that the load could not offer what it was to offer, and why."""
    if storm.offered_per_s >= _SHORT * storm.wanted_per_s:
        return ""
    why = (
        f"its core was {storm.harvest.busy:.0%} busy"
        if storm.harvest.busy > LOAD_LIMIT
        else f"all its {CONNECTIONS:,} connections waited for answers"
    )
    return (
        f"**The load could not offer {FACTOR:g} times the sustainable rate**, {name(storm)}: it offered "
        f"{storm.offered_per_s / storm.sustainable_per_s:.1f} times as much, because {why}."
    )
