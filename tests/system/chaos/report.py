"""The table: one row an attack, and under it what does not hold."""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterable

from tests.system.chaos.run import Row
from tests.system.chaos.world import CUSTOMERS

COLUMNS = (
    "fault", "times", "s", "acknowledged", "missing", "altered", "invented",
    "sent again", "lost answer", "killed writer", "unexplained", "not repeated",
    "failed on a killed connection", "failed", "nobody listened", "refused", "slowest answer",
)  # fmt: skip
ACKS = ("spool", "sink")
#: Of a sentence about what does not hold; its first examples are in it.
LONGEST = 2000


def cells(row: Row) -> tuple[str, ...]:
    """Write one row."""
    finding, twice = row.finding, row.finding.duplicates
    return (
        row.name, str(sum(row.done.values())), f"{row.seconds:.0f}", f"{finding.acknowledged:,}", str(finding.missing),
        str(finding.altered), str(finding.invented), str(twice.sent_again), str(twice.lost_answer),
        str(twice.killed_writer), str(twice.unexplained), str(finding.deduplicated), str(finding.failed_allowed),
        str(finding.failed), str(finding.nobody_listened), refusals(row), f"{finding.slowest_s:.2f} s",
    )  # fmt: skip


def refusals(row: Row) -> str:
    """Write how many uploads were sent away, by reason."""
    reasons: Counter[str] = Counter()
    for name, times in row.refusals.items():
        reasons[name.split()[1]] += times
    return ", ".join(f"{times} {reason}" for reason, times in sorted(reasons.items())) or "0"


def header() -> str:
    """Write the table's head: after `invented` duplicates by their cause, then those that a window kept back."""
    return f"{line(COLUMNS)}\n{line(['---'] * len(COLUMNS))}"


def line(words: Iterable[str]) -> str:
    """Write one line of the table."""
    return f"| {' | '.join(words)} |"


def by_ack(rows: Iterable[Row]) -> str:
    """Write a second table: of each attack, what became of events under each promise."""
    words = [["fault"], ["---"]]
    for ack in ACKS:
        words[0] += [f"`{ack}`: acknowledged", "lost", "delivered twice", "uploads sent away"]
        words[1] += ["---"] * 4
    for row in rows:
        words.append([row.name])
        for ack in ACKS:
            tallies = [row.finding.tenants[one.name] for one in CUSTOMERS if one.ack == ack]
            words[-1] += [
                f"{sum(tally.acknowledged for tally in tallies):,}",
                str(sum(tally.missing for tally in tallies)),
                str(sum(tally.duplicates for tally in tallies)),
                str(sum(tally.refused for tally in tallies)),
            ]
    return "\n".join(map(line, words))


def broken(row: Row) -> list[str]:
    """Say what does not hold, each with the name of its attack; then what was done when."""
    sentences = [f"{row.name}: {sentence[:LONGEST]}" for sentence in row.finding.broken]
    return [*sentences, f"{row.name}: {'; '.join(row.acts)}"] if sentences else []


def ingredients(row: Row) -> str:
    """Say what an attack was made of."""
    return ", ".join(f"{times} {name}" for name, times in sorted(row.done.items()))
