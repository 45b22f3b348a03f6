"""
`collector serve`.
"""

from __future__ import annotations

import os
import sys
from pathlib import Path
from urllib.parse import unquote

import click

from collector.cli.loading import load_or_exit, notes
from collector.cli.screen import fail
from collector.errors import SettingsError
from collector.settings import DEV_KEY, DEV_TENANT, Settings, locate

APP = "collector.bootstrap:create_app()"


@click.command()
def serve() -> None:
    """Check the settings, then become gunicorn with Collector in it."""
    settings, _ = load_or_exit()
    try:
        configuration = locate("gunicorn.conf.py")
    except SettingsError as error:
        fail(error.problems)
    for note in notes(settings):
        click.echo(f"Note: {note}", err=True)
    if settings.tenants == (DEV_TENANT,):
        click.echo(_first_steps(settings, Path.cwd()))
    arguments = [sys.executable, "-m", "gunicorn", "-c", str(configuration), APP]
    os.execv(sys.executable, arguments)  # noqa: S606 -- our own interpreter, no shell


def _first_steps(settings: Settings, cwd: Path) -> str:
    """Write what to try first, for a run with the tenant everybody knows."""
    curl = (
        f"curl -sS http://{settings.bind}/v1/events -H 'Authorization: Bearer {DEV_KEY}' "
        """-H 'Content-Type: application/json' -d '{"event":"hello"}'"""
    )
    if not settings.sink.startswith("file:"):
        return f"Try it:\n\n{curl}\n\nThe event comes out of {settings.sink}\n"
    directory = Path(unquote(settings.sink.removeprefix("file:").partition("?")[0]))
    shown = directory.relative_to(cwd) if directory.is_relative_to(cwd) else directory
    return f"Try it:\n\n{curl}\n\nThe event is then in {shown}/tenant=dev/date=…/hour=…/*.ndjson.zst\n"
