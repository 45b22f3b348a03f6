"""
The operator's door: `collector check`, `key`, `settings`, `serve`, `ledger`, `replay`, `parked`, `tail` and others.

Every command ends with 0, or with 1 and sentences on standard error; `watch` alone also with 2. Nothing here
imports Flask, gevent or gunicorn; rich is imported where a person looks at a table.
"""

from __future__ import annotations

import click

from collector.cli.configuration import check, key, settings_command
from collector.cli.hec import hec
from collector.cli.parked import parked
from collector.cli.replay import replay_command
from collector.cli.running import ledger
from collector.cli.serve import rehearse, serve
from collector.cli.tail import tail
from collector.cli.watch import watch


@click.group(context_settings={"help_option_names": ["-h", "--help"]})
@click.version_option(package_name="collector", message="%(prog)s %(version)s")
def main() -> None:
    """Collector: the front door for device events."""


for command in (check, key, settings_command, serve, rehearse, ledger, replay_command, parked, hec, tail, watch):
    main.add_command(command)
