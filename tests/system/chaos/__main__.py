"""
Attack Collector, and count.

    python -m tests.system.chaos --seconds 600 --seed 7 --faults hup,kill-worker

Each fault alone, then faults mixed for the rest of the time, in rounds. Ends with 1 if any promise is broken.
"""

from __future__ import annotations

import argparse
import sys
import time
from pathlib import Path

from tests.server import ROOT
from tests.system.chaos import report
from tests.system.chaos.faults import FAULTS
from tests.system.chaos.run import Row, alone, chosen, mixed
from tests.system.chaos.world import Target

#: One round of mixed faults, in seconds: what the oracle holds in memory is bounded by it.
ROUND_S = 45.0


def say(text: str) -> None:
    """Print, at once: a run is watched."""
    print(text, flush=True)  # noqa: T201 - its product


def main() -> int:
    """Attack, print the table, and tell by the exit status whether all held."""
    parser = argparse.ArgumentParser(description="Do faults to Collector at full load, and account for every event.")
    parser.add_argument("--seconds", type=float, default=300.0, help="for all of it; each fault is done once anyway")
    parser.add_argument("--times", type=int, default=2, help="how often each fault is done alone")
    parser.add_argument("--seed", type=int, default=int(time.time()))
    parser.add_argument("--faults", type=lambda text: text.split(","), default=list(FAULTS), metavar="NAME,NAME")
    parser.add_argument("--tree", type=Path, default=ROOT, help="the checkout to attack, when it is not this one")
    parser.add_argument("--plain", action="store_true", help="plain gunicorn, without what only the launcher survives")
    asked = parser.parse_args()
    if unknown := set(asked.faults) - set(FAULTS):
        parser.error(f"no such faults: {', '.join(sorted(unknown))}; there are {', '.join(FAULTS)}")
    faults = [fault for fault in chosen(asked.faults) if not (asked.plain and fault.needs_launcher)]
    target = Target(asked.tree, asked.plain)
    wrong = 0
    rows: list[Row] = []

    def show(row: Row) -> None:
        nonlocal wrong
        say(report.line(report.cells(row)))
        rows.append(row)
        wrong += len(row.finding.broken)
        for sentence in report.broken(row):
            say(f"    {sentence}")

    say(f"seed {asked.seed}\n\n{report.header()}")
    until = time.monotonic() + asked.seconds
    for fault in faults:
        show(alone(fault, seed=asked.seed, times=asked.times, target=target))
    seed = asked.seed
    while len(faults) > 1 and (left := until - time.monotonic()) > 0:
        show(mixed(faults, seed=seed, seconds=min(ROUND_S, left), target=target))
        seed += 1
    for row in rows:
        if len(row.done) > 1:
            say(f"\nmixed: {report.ingredients(row)}")
    say(f"\n{report.by_ack(rows)}")
    held = "All that was acknowledged arrived as it was sent, and every failure and repeat has its cause."
    say(f"\n{wrong} promises are broken." if wrong else f"\n{held}")
    return 1 if wrong else 0


if __name__ == "__main__":
    sys.exit(main())
