"""
`python -m bench`: measure, print the table, end with 1 if an event was lost.
"""

from __future__ import annotations

import signal
import sys
from pathlib import Path
from time import monotonic
from typing import NoReturn

import click
import msgspec

from bench import overload, overload_table
from bench.cell import Plan
from bench.links import LoadError
from bench.run import Report, run
from bench.servers import ServerError
from bench.table import render
from bench.uploads import Case

CASES = (
    *(Case(events, encoding) for events in (1, 5, 50, 100) for encoding in ("plain", "gzip")),
    # Answers that wait for the sink overlap more: they need more devices at once.
    Case(5, connections=64, ack="sink"),
)
PARTS = ("throughput", "overload")
QUICK = (Case(5), Case(100), Case(5, "gzip"), Case(5, connections=64, ack="sink"))


class Results(msgspec.Struct, frozen=True):
    """What `--json` writes: the parts that were run."""

    throughput: Report | None
    overload: overload.Overload | None

    @property
    def problems(self) -> list[str]:
        """Say what a result must not have, of all parts."""
        return [problem for part in (self.throughput, self.overload) if part is not None for problem in part.problems]


@click.command()
@click.option("--seconds", type=click.FloatRange(min=0.1), help="How long each cell is measured (4; quick: 1).")
@click.option("--quick", is_flag=True, help="Four cases, one round: under half a minute, and not to be quoted.")
@click.option("--only", type=click.Choice(PARTS), help="One part of it: the rates, or what happens above them.")
@click.option("--json", "json_file", type=click.Path(dir_okay=False, path_type=Path), help="Write all numbers there.")
def main(seconds: float | None, quick: bool, only: str | None, json_file: Path | None) -> None:
    """Measure Collector against an empty application on stock gunicorn, and print tables in Markdown."""
    # As for Ctrl-C: what was started is ended, and the folder in memory removed.
    signal.signal(signal.SIGTERM, _end)
    began = monotonic()
    plan = Plan(QUICK, seconds or 1.0, 0.5, 1) if quick else Plan(CASES, seconds or 4.0, 1.0, 2)

    def tell(text: str) -> None:
        click.echo(f"[{monotonic() - began:4.0f} s] {text}", err=True)

    try:
        results = Results(
            run(plan, tell) if only in {None, "throughput"} else None,
            overload.run(plan, tell) if only in {None, "overload"} else None,
        )
    except (ServerError, LoadError, OSError) as error:
        click.echo(f"The run failed: {error}", err=True)
        sys.exit(1)
    if json_file is not None:
        json_file.write_bytes(msgspec.json.format(msgspec.json.encode(results), indent=2) + b"\n")
    if results.throughput is not None:
        click.echo(render(results.throughput))
    if results.overload is not None:
        click.echo(overload_table.render(results.overload))
    for problem in results.problems:
        click.echo(problem, err=True)
    sys.exit(bool(results.problems))


def _end(number: int, _frame: object) -> NoReturn:
    sys.exit(128 + number)


if __name__ == "__main__":
    main()
