"""
The verbs: `python -m dashboards package|pictures|catalogue`.
"""

from __future__ import annotations

from pathlib import Path

import click

from dashboards import catalogue as catalogue_page
from dashboards import package as packaging
from dashboards import picture
from dashboards.views import APP


@click.group()
def main() -> None:
    """The Splunk app of Collector, and what is made from it and from the catalogue of signals."""


@main.command()
@click.option("--into", default="dist", type=click.Path(path_type=Path), help="The folder for the package.")
def package(into: Path) -> None:
    """Package the app for Splunk."""
    try:
        click.echo(packaging.package(APP, into))
    except (ValueError, OSError) as wrong:
        raise click.ClickException(str(wrong)) from wrong


@main.command()
def pictures() -> None:
    """Draw the dashboards on sample data into docs/dashboards."""
    for file in picture.draw(picture.FOLDER):
        click.echo(file)


@main.command()
def catalogue() -> None:
    """Write the catalogue of signals and metrics into docs/logging.md."""
    try:
        catalogue_page.write()
    except (ValueError, OSError) as wrong:
        raise click.ClickException(str(wrong)) from wrong


if __name__ == "__main__":
    main(prog_name="python -m dashboards")
