"""
`python -m bench`: measure, print the tables, draw the plots, end with 1 if an event was lost.
"""

from __future__ import annotations

import signal
import sys
from collections.abc import Callable, Iterator
from pathlib import Path
from time import monotonic
from typing import NoReturn

import click
import msgspec

from bench import (
    memory,
    overload,
    overload_table,
    pace,
    scaling,
    scaling_table,
    sinks,
    sinks_table,
    splunk,
    splunk_table,
    targets,
)
from bench.cell import Plan
from bench.links import LoadError
from bench.plots import draw
from bench.run import Report, run
from bench.servers import ROOT, ServerError
from bench.table import render
from bench.uploads import Case
from collector.errors import ChildError

CASES = (
    *(Case(events, encoding) for events in (1, 5, 50, 100) for encoding in ("plain", "gzip")),
    # Answers that wait for the sink overlap more: they need more devices at once, and so does what they are held to.
    Case(5, connections=64),
    Case(5, connections=64, ack="sink"),
)
PARTS = ("throughput", "pace", "scaling", "sinks", "splunk", "memory", "overload")
PLOTS = ROOT / "docs" / "bench"
QUICK = (Case(5), Case(100), Case(5, "gzip"), Case(5, connections=64), Case(5, connections=64, ack="sink"))
QUICK_RANGES = scaling.Ranges((1, 10, 100), (1, 32, 256), (1, 100), (1, 2))
#: How long each cell is measured, in seconds: that all parts together take eleven minutes.
SECONDS, QUICK_SECONDS = 2.5, 1.0
#: How often reference and Collector take turns at a case, and how long a turn is, in parts of a cell. On a shared
#: machine two long turns of the same case were a fifth apart: targets were met in one run and missed in the next.
_ROUNDS, _ROUND_PART = 5, 0.5
#: A point of a curve, in parts of a cell: its neighbours say whether it is an accident.
_POINT_PART = 0.6
#: A round of a sink, in parts of a cell: long enough for several segments to leave meanwhile.
_SINK_PART = 0.6
#: A round of a state of Splunk, in parts of a cell, and how many: there are ten states.
_SPLUNK_PART, _SPLUNK_ROUNDS = 0.4, 4
MEMORY_S, QUICK_MEMORY_S = 30.0, 5.0


class Results(msgspec.Struct, frozen=True):
    """What `--json` writes: the parts that were run."""

    throughput: Report | None = None
    pace: pace.Pace | None = None
    scaling: scaling.Scaling | None = None
    sinks: sinks.Sinks | None = None
    splunk: splunk.Splunk | None = None
    memory: memory.Memory | None = None
    overload: overload.Overload | None = None
    targets: list[targets.Target] = []

    @property
    def problems(self) -> list[str]:
        """Say what a result must not have, of all parts."""
        parts = (self.throughput, self.pace, self.scaling, self.sinks, self.splunk, self.memory, self.overload)
        return [problem for part in parts if part is not None for problem in part.problems]

    def tables(self) -> Iterator[str]:
        """Render the parts that were run."""
        if self.throughput is not None:
            yield render(self.throughput)
        if self.pace is not None:
            yield pace.render(self.pace)
        if self.scaling is not None:
            yield scaling_table.render(self.scaling)
        if self.sinks is not None:
            yield sinks_table.render(self.sinks)
        if self.splunk is not None:
            yield splunk_table.render(self.splunk)
        if self.memory is not None:
            yield memory.render(self.memory)
        if self.overload is not None:
            yield overload_table.render(self.overload)
        if any(target.measured is not None for target in self.targets):
            yield targets.render(self.targets)


@click.command()
@click.option(
    "--seconds",
    type=click.FloatRange(min=0.1),
    help="How long each cell is measured (2.5; quick: 1); all of memory (30).",
)
@click.option("--quick", is_flag=True, help="Few cases, one round: two minutes, and not to be quoted.")
@click.option("--only", type=click.Choice(PARTS), help="One part of it.")
@click.option("--json", "json_file", type=click.Path(dir_okay=False, path_type=Path), help="Write all numbers there.")
@click.option("--plots", type=click.Path(file_okay=False, path_type=Path), help="Draw there, and not in docs/bench.")
def main(seconds: float | None, quick: bool, only: str | None, json_file: Path | None, plots: Path | None) -> None:
    """Measure Collector against an empty application on stock gunicorn, and print tables in Markdown."""
    # As for Ctrl-C: what was started is ended, and the folder in memory removed.
    signal.signal(signal.SIGTERM, _end)
    began = monotonic()

    def tell(text: str) -> None:
        click.echo(f"[{monotonic() - began:4.0f} s] {text}", err=True)

    try:
        results = _measure(only, tell, quick=quick, seconds=seconds)
    except (ServerError, LoadError, ChildError, OSError) as error:
        click.echo(f"The run failed: {error}", err=True)
        sys.exit(1)
    if json_file is not None:
        json_file.write_bytes(msgspec.json.format(msgspec.json.encode(results), indent=2) + b"\n")
    for text in results.tables():
        click.echo(text)
    # A quick run is not to be looked at later.
    if plots is not None or not quick:
        # Half a minute of memory is no plot, and would lie over the one of ten.
        for file in draw(plots or PLOTS, results.scaling, results.memory if only == "memory" else None):
            tell(f"drawn: {file}")
    for problem in results.problems:
        click.echo(problem, err=True)
    sys.exit(bool(results.problems))


def _measure(only: str | None, tell: Callable[[str], None], *, quick: bool, seconds: float | None) -> Results:
    cell_s = seconds or (QUICK_SECONDS if quick else SECONDS)
    plan = Plan(QUICK, cell_s, 0.5, 1) if quick else Plan(CASES, cell_s, 0.5, _ROUNDS)
    points = msgspec.structs.replace(plan, cases=[], seconds=cell_s * _POINT_PART, rounds=1)
    wanted = {only} if only else {*PARTS}
    rounds = plan if quick else msgspec.structs.replace(plan, seconds=cell_s * _ROUND_PART)
    throughput = run(rounds, tell) if "throughput" in wanted else None
    paced = pace.run(plan, tell) if "pace" in wanted else None
    curves = scaling.run(points, tell, QUICK_RANGES if quick else None) if "scaling" in wanted else None
    turns = msgspec.structs.replace(plan, seconds=cell_s * _SINK_PART)
    by_sink = sinks.run(turns, tell) if "sinks" in wanted else None
    states = msgspec.structs.replace(plan, seconds=cell_s * _SPLUNK_PART, rounds=min(plan.rounds, _SPLUNK_ROUNDS))
    by_state = splunk.run(states, tell) if "splunk" in wanted else None
    alone_s = seconds if only == "memory" else None
    grown = memory.run(alone_s or (QUICK_MEMORY_S if quick else MEMORY_S), tell) if "memory" in wanted else None
    storms = overload.run(plan, tell) if "overload" in wanted else None
    judged = targets.targets(throughput, paced, curves, grown, by_sink)
    return Results(throughput, paced, curves, by_sink, by_state, grown, storms, judged)


def _end(number: int, _frame: object) -> NoReturn:
    sys.exit(128 + number)


if __name__ == "__main__":
    main()
