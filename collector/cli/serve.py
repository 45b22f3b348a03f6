"""
`collector serve`, and what its launcher runs to see whether a reload would do.
"""

from __future__ import annotations

import importlib
import os
import pkgutil
import sys
from pathlib import Path

import click

import collector
from collector.cli.loading import load_or_exit, notes
from collector.cli.screen import fail
from collector.errors import SettingsError
from collector.settings import DEV_KEY, DEV_TENANT, Settings, environment, locate
from collector.sinks import url
from collector.sinks.layout import for_people
from collector.sinks.objects import template_of

#: Modules that may need the extra `splunk`.
_OF_SPLUNK = "collector.telemetry.hec."


@click.command()
def serve() -> None:
    """Check the settings, then run Collector until it is told to stop."""
    settings, _ = load_or_exit()
    try:
        configuration = locate("gunicorn.conf.py")
    except SettingsError as error:
        fail(error.problems)
    for note in notes(settings):
        click.echo(f"Note: {note}", err=True)
    if settings.tenants == (DEV_TENANT,):
        click.echo(_first_steps(settings, Path.cwd()))
    from collector.launcher import task  # noqa: PLC0415 -- what it stands on no other command needs

    status, problem = task.run(settings, configuration=configuration, environ=environment())
    if problem is not None:
        fail([problem])
    sys.exit(status)


@click.command(hidden=True)
@click.option("--fd", type=int, required=True, help="The open file that takes the settings.")
def rehearse(fd: int) -> None:
    """Load the settings and build a worker, as a reload will; open nothing. For the launcher."""
    settings, _ = load_or_exit()
    from collector import bootstrap  # noqa: PLC0415 -- it brings gevent and Flask
    from collector.launcher.plan import write_handoff  # noqa: PLC0415 -- as in serve
    from collector.telemetry import metrics, page  # noqa: PLC0415 -- as in serve

    for module in pkgutil.walk_packages(collector.__path__, "collector."):
        is_needed = settings.hec_url is not None or not module.name.startswith(_OF_SPLUNK)
        if is_needed and module.name != "collector.__main__":
            importlib.import_module(module.name)
    bootstrap.build(settings)
    # What a worker loads later than its start is found missing now.
    page.render(metrics.Snapshot())
    os.pwrite(fd, write_handoff(settings), 0)


def _first_steps(settings: Settings, cwd: Path) -> str:
    """Write what to try first, for a run with the tenant everybody knows."""
    curl = (
        f"curl -sS http://{settings.bind}/v1/events -H 'Authorization: Bearer {DEV_KEY}' "
        """-H 'Content-Type: application/json' -d '{"event":"hello"}'"""
    )
    if not settings.sink.startswith("file:"):
        return f"Try it:\n\n{curl}\n\nThe event comes out of {settings.sink}\n"
    sink = url.parse(settings.sink)
    directory = Path(sink.path)
    shown = directory.relative_to(cwd) if directory.is_relative_to(cwd) else directory
    place = for_people(template_of(sink), DEV_TENANT.id)
    return f"Try it:\n\n{curl}\n\nThe event is then in {shown}/{place}/*.ndjson.zst\n"
