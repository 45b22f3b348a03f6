"""
What a person sees: sentences on standard error, and tables.
"""

from __future__ import annotations

import sys
from collections.abc import Iterable, Sequence
from typing import NoReturn

import click

#: Width of a table that goes to no terminal: so much that nothing is folded which is searched for.
_PIPED_COLUMNS = 1000
_KIB = 1024


def fail(problems: Sequence[str]) -> NoReturn:
    """Print sentences on standard error and end with 1."""
    if len(problems) > 1:
        click.secho(f"{len(problems)} mistakes:", fg="red", err=True)
    for problem in problems:
        click.echo(f"{'- ' if len(problems) > 1 else ''}{problem}", err=True)
    sys.exit(1)


def print_table(title: str, columns: Sequence[str], rows: Iterable[Sequence[str]], *, numbers: int = 0) -> None:
    """Print a table; `numbers` columns after the first are set to the right."""
    from rich.box import SIMPLE_HEAD  # noqa: PLC0415 -- 60 ms that `settings --json` need not wait for
    from rich.console import Console  # noqa: PLC0415 -- same
    from rich.table import Table  # noqa: PLC0415 -- same
    from rich.text import Text  # noqa: PLC0415 -- same

    table = Table(title=title, title_justify="left", box=SIMPLE_HEAD, show_header=any(columns))
    for place, column in enumerate(columns):
        table.add_column(column, justify="right" if 0 < place <= numbers else "left", overflow="fold")
    for row in rows:
        # As text: a path in brackets is no markup.
        table.add_row(*(Text(cell) for cell in row))
    Console(width=None if sys.stdout.isatty() else _PIPED_COLUMNS).print(table)


def readable(name: str, value: object) -> str:
    """Show a value of a setting: sizes with their unit, what is unset as a dash."""
    if value is None:
        return "-"
    if name.endswith("_bytes") and isinstance(value, int):
        return size(value)
    return str(value)


def size(value: int) -> str:
    """Write a number of bytes with the largest unit that keeps it at least 1."""
    amount, units = float(value), ["B", "KiB", "MiB", "GiB", "TiB"]
    while amount >= _KIB and len(units) > 1:
        amount, units = amount / _KIB, units[1:]
    return f"{amount:.4g} {units[0]}"


def few(words: Iterable[str], most: int = 10) -> str:
    """List some words, and count the rest."""
    listed = list(words)
    rest = f" and {len(listed) - most} more" if len(listed) > most else ""
    return ", ".join(listed[:most]) + rest
