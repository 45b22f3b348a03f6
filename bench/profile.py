"""
`python -m bench.profile`: where the time of an upload goes, as a table and a picture, and what the floor is.
"""

from __future__ import annotations

import signal
import sys
from pathlib import Path
from time import monotonic
from typing import NoReturn

import click
import msgspec

from bench.cell import Plan
from bench.links import LoadError
from bench.profile_plot import draw
from bench.profile_table import render
from bench.profiling import CASES, run
from bench.servers import ROOT, ServerError

PLOT = ROOT / "docs" / "bench" / "profile.svg"
_WARM_UP_S = 0.5


@click.command()
@click.option("--seconds", type=click.FloatRange(min=0.5), default=10.0, help="How long each is sampled (10).")
@click.option("--plot", type=click.Path(dir_okay=False, path_type=Path), default=PLOT, help="Draw there, not in docs.")
@click.option("--json", "json_file", type=click.Path(dir_okay=False, path_type=Path), help="Write all numbers there.")
@click.option(
    "--folded", type=click.Path(dir_okay=False, path_type=Path), help="Write all stacks there, for a flame graph."
)
def main(seconds: float, plot: Path, json_file: Path | None, folded: Path | None) -> None:
    """Say where the time of an upload goes, in CPU microseconds, and what the floor is."""
    # As for Ctrl-C: what was started is ended, and the folder in memory removed.
    signal.signal(signal.SIGTERM, _end)
    began = monotonic()

    def tell(text: str) -> None:
        click.echo(f"[{monotonic() - began:4.0f} s] {text}", err=True)

    try:
        report, stacks = run(Plan(CASES, seconds, _WARM_UP_S, 1), tell)
    except (ServerError, LoadError, OSError) as error:
        click.echo(f"The run failed: {error}", err=True)
        sys.exit(1)
    click.echo(render(report))
    plot.parent.mkdir(parents=True, exist_ok=True)
    plot.write_text(draw(report))
    tell(f"drawn: {plot}")
    if json_file is not None:
        json_file.write_bytes(msgspec.json.format(msgspec.json.encode(report), indent=2) + b"\n")
    if folded is not None:
        folded.write_text(stacks)
    for problem in report.problems:
        click.echo(problem, err=True)
    sys.exit(bool(report.problems))


def _end(number: int, _frame: object) -> NoReturn:
    sys.exit(128 + number)


if __name__ == "__main__":
    main()
