"""
`collector check`, `key` and `settings`: what was set, and what it comes to.
"""

from __future__ import annotations

import json
import sys
from hashlib import sha256

import click

from collector.cli.credentials import look
from collector.cli.loading import load_or_exit, notes
from collector.cli.probe import PROBE_TENANT, probe
from collector.cli.screen import fail, few, print_table, readable, size
from collector.settings import (
    dedupe_budget,
    environment,
    memory_limit_bytes,
    mount_size_bytes,
    spool_budget,
    to_json,
)
from collector.settings.gunicorn import gunicorn_settings
from collector.settings.values import NAME

#: Bytes of chance in an ingest key: 192 bits can't be guessed.
_KEY_BYTES = 24


@click.command()
@click.option("--sink", "url", metavar="URL", help="Probe this sink instead, and look at no settings.")
@click.option("--route", metavar="NAME", help="Probe the sink of this route of the settings instead.")
@click.option("--tenant", metavar="T", help=f"Whose the event of a probe is.  [default: {PROBE_TENANT}]")
def check(url: str | None, route: str | None, tenant: str | None) -> None:
    """
    Check all settings and show what they come to. Ends with 1 if anything is wrong.

    With --sink or --route: write one event to a sink, read it back, and take it away again. That leaves nothing in
    file:, and nothing in s3: if the role may delete there. In a stream or a queue the event STAYS, and whoever reads
    there gets it: consumers may skip its tenant. It is not read back from Firehose, which hands nothing out, nor from
    SQS, where that would hide others' messages. What the role need not be allowed to do is told, and is no failure.
    """
    if url is not None or route is not None:
        probe(url, route, tenant or PROBE_TENANT)
    if tenant is not None:
        fail(["--tenant goes with --sink or --route"])
    settings, sources = load_or_exit()
    shown = {name: value for name, value in settings.shown().items() if name not in {"routes", "tenants"}}
    rows = [(name, readable(name, value), sources.get(name, "default")) for name, value in shown.items()]
    print_table("Settings", ("setting", "value", "from"), rows)
    mount_bytes = mount_size_bytes(settings.spool_dir)
    budget_bytes = spool_budget(settings, mount_bytes=mount_bytes, memory_limit=memory_limit_bytes())
    ids_bytes = dedupe_budget(settings, mount_bytes=mount_bytes, memory_limit=memory_limit_bytes())
    print_table(
        "What they come to",
        ("", ""),
        [
            ("tenants", f"{len(settings.tenants)}: {few(tenant.id for tenant in settings.tenants)}"),
            ("routes", few(f"{name} to {sink}" for name, sink in settings.routes.items())),
            ("spool", f"{size(budget_bytes)} of a mount of {size(mount_bytes)} that holds {settings.spool_dir}"),
            ("ids of dedupe", f"{size(ids_bytes)} of it, from the first tenant on that has a window"),
            ("memory", size(memory_limit_bytes())),
            ("graceful timeout", f"{settings.graceful_timeout_s} s; stop grace must be longer"),
        ],
    )
    told, problems, more = look(settings, environment())
    if told:
        print_table("AWS", ("", ""), told)
    if problems:
        fail(problems)
    for note in [*notes(settings), *more]:
        click.secho(f"Note: {note}", fg="yellow")
    click.secho("The settings are sound.", fg="green")


@click.command()
@click.argument("tenant", required=False)
def key(tenant: str | None) -> None:
    """Make an ingest key, and print it with the line for the settings file. It is stored nowhere."""
    if tenant is not None and not NAME.fullmatch(tenant):
        fail([f"{tenant!r} can't be a tenant's id: it is 1 to 64 of A-Z, a-z, 0-9, _ and -"])
    import secrets  # noqa: PLC0415 -- 4 ms, with hmac and random, that a start need not wait for

    plain = f"clk_{secrets.token_urlsafe(_KEY_BYTES)}"
    digest = sha256(plain.encode()).hexdigest()
    click.echo("The key, for whoever builds the client. It is shown this once:\n")
    click.echo(f"    {plain}\n")
    click.echo("Its line for the settings file (a tenant may have several keys in its list):\n")
    click.echo(f"    [tenants.{tenant or '<id>'}]")
    click.echo(f'    keys = ["{digest}"]')


@click.command("settings")
@click.option("--json", "form", flag_value="json", help="One line of JSON, secrets and all, for Collector's own use.")
@click.option("--gunicorn", "form", flag_value="gunicorn", help="That line, and one of gunicorn's settings.")
def settings_command(form: str | None) -> None:
    """Print the checked settings, one a line."""
    settings, _ = load_or_exit()
    if form is None:
        for name, value in settings.shown().items():
            click.echo(f"{name} = {value if value is not None else '-'}")
    elif sys.stdout.isatty():
        fail([f"--{form} prints the admin token too: send it to another program, or leave --{form} out"])
    else:
        click.echo(to_json(settings))
        if form == "gunicorn":
            click.echo(json.dumps(gunicorn_settings(settings)))
