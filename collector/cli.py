"""
The operator's door: `collector check`, `key`, `settings`, `serve`, `ledger`.

Every command ends with 0, or with 1 and sentences on standard error. Nothing here imports Flask, gevent or gunicorn;
rich is imported where a person looks at a table.
"""

from __future__ import annotations

import http.client
import json
import os
import secrets
import sys
from collections.abc import Callable, Iterable, Sequence
from hashlib import sha256
from pathlib import Path
from typing import Any, NoReturn
from urllib.parse import unquote

import click

from collector.clock import SystemClock
from collector.errors import SettingsError
from collector.settings import (
    DEV_KEY,
    DEV_TENANT,
    Settings,
    environment,
    load_with_sources,
    locate,
    memory_limit_bytes,
    mount_size_bytes,
    spool_budget,
    to_json,
)
from collector.settings.gunicorn import gunicorn_settings
from collector.settings.places import file_system_type, nearest_existing
from collector.settings.values import NAME, host_and_port
from collector.sinks.registry import open_sink

APP = "collector.bootstrap:create_app()"
#: Bytes of chance in an ingest key: 192 bits can't be guessed.
_KEY_BYTES = 24
#: How long an answer of the admin listener is waited for.
_ASK_TIMEOUT_S = 10.0
#: Width of a table that goes to no terminal: so much that nothing is folded which is searched for.
_PIPED_COLUMNS = 1000
_KIB = 1024


@click.group(context_settings={"help_option_names": ["-h", "--help"]})
@click.version_option(package_name="collector", message="%(prog)s %(version)s")
def main() -> None:
    """Collector: the front door for device events."""


@main.command()
def check() -> None:
    """Check all settings and show what they come to. Ends with 1 if anything is wrong."""
    settings, sources = _load_or_exit()
    shown = {name: value for name, value in settings.shown().items() if name not in {"routes", "tenants"}}
    rows = [(name, _readable(name, value), sources.get(name, "default")) for name, value in shown.items()]
    _print_table("Settings", ("setting", "value", "from"), rows)
    mount_bytes = mount_size_bytes(settings.spool_dir)
    budget_bytes = spool_budget(settings, mount_bytes=mount_bytes, memory_limit=memory_limit_bytes())
    _print_table(
        "What they come to",
        ("", ""),
        [
            ("tenants", f"{len(settings.tenants)}: {_few(tenant.id for tenant in settings.tenants)}"),
            ("routes", _few(f"{name} to {sink}" for name, sink in settings.routes.items())),
            ("spool", f"{_size(budget_bytes)} of a mount of {_size(mount_bytes)} that holds {settings.spool_dir}"),
            ("memory", _size(memory_limit_bytes())),
            ("graceful timeout", f"{settings.graceful_timeout_s} s; stop grace must be longer"),
        ],
    )
    for note in _notes(settings):
        click.secho(f"Note: {note}", fg="yellow")
    click.secho("The settings are sound.", fg="green")


@main.command()
@click.argument("tenant", required=False)
def key(tenant: str | None) -> None:
    """Make an ingest key, and print it with the line for the settings file. It is stored nowhere."""
    if tenant is not None and not NAME.fullmatch(tenant):
        _fail([f"{tenant!r} can't be a tenant's id: it is 1 to 64 of A-Z, a-z, 0-9, _ and -"])
    plain = f"clk_{secrets.token_urlsafe(_KEY_BYTES)}"
    digest = sha256(plain.encode()).hexdigest()
    click.echo("The key, for whoever builds the client. It is shown this once:\n")
    click.echo(f"    {plain}\n")
    click.echo("Its line for the settings file (a tenant may have several keys in its list):\n")
    click.echo(f"    [tenants.{tenant or '<id>'}]")
    click.echo(f'    keys = ["{digest}"]')


@main.command("settings")
@click.option("--json", "form", flag_value="json", help="One line of JSON, secrets and all, for Collector's own use.")
@click.option("--gunicorn", "form", flag_value="gunicorn", help="That line, and one of gunicorn's settings.")
def settings_command(form: str | None) -> None:
    """Print the checked settings, one a line."""
    settings, _ = _load_or_exit()
    if form is None:
        for name, value in settings.shown().items():
            click.echo(f"{name} = {value if value is not None else '-'}")
    elif sys.stdout.isatty():
        _fail([f"--{form} prints the admin token too: send it to another program, or leave --{form} out"])
    else:
        click.echo(to_json(settings))
        if form == "gunicorn":
            click.echo(json.dumps(gunicorn_settings(settings)))


@main.command()
def serve() -> None:
    """Check the settings, then become gunicorn with Collector in it."""
    settings, _ = _load_or_exit()
    try:
        configuration = locate("gunicorn.conf.py")
    except SettingsError as error:
        _fail(error.problems)
    for note in _notes(settings):
        click.echo(f"Note: {note}", err=True)
    if settings.tenants == (DEV_TENANT,):
        click.echo(_first_steps(settings, Path.cwd()))
    arguments = [sys.executable, "-m", "gunicorn", "-c", str(configuration), APP]
    os.execv(sys.executable, arguments)  # noqa: S606 -- our own interpreter, no shell


@main.command()
@click.option("--json", "as_json", is_flag=True, help="Print the answer as it came.")
def ledger(as_json: bool) -> None:
    """Ask the running Collector what became of every accepted event. Ends with 1 if the ledger does not balance."""
    settings, _ = _load_or_exit()
    if settings.admin_bind.startswith("fd://"):
        _fail([f"COLLECTOR_ADMIN_BIND is {settings.admin_bind}: where that listens is not known here; write host:port"])
    answer = _ask(settings, "/ledger")
    if as_json:
        click.echo(json.dumps(answer))
    else:
        columns = [name for name in answer if name not in {"balanced", "reasons", "tenants"}]
        rows = [*sorted(answer["tenants"].items()), ("total", answer)]
        cells = [(tenant, *(f"{row[name]:,}" for name in columns), _few(_reasons(row))) for tenant, row in rows]
        _print_table("Ledger", ("tenant", *columns, "of them"), cells, numbers=len(columns))
    if not answer["balanced"]:
        _fail(["the ledger does not balance: that is a defect of Collector; keep its log and its spool"])


# -- settings ----------------------------------------------------------------------------------------------


def _load_or_exit() -> tuple[Settings, dict[str, str]]:
    """Load the settings and hold them against this machine; end with all problems if there are any."""
    try:
        return load_with_sources(
            environment(), cwd=Path.cwd(), read_at_s=SystemClock().monotonic(), more_checks=_machine_problems
        )
    except SettingsError as error:
        _fail(error.problems)


def _machine_problems(settings: Settings, name_of: Callable[[str], str]) -> list[str]:
    """Say what only this machine and the sinks themselves can tell."""
    problems = []
    sinks = {f"[routes.{name}] sink": url for name, url in settings.routes.items() if name != "default"}
    sinks |= {name_of("sink"): settings.sink, name_of("rescue_sink"): settings.rescue_sink or ""}
    for name, url in sinks.items():
        try:
            if url:
                open_sink(url, writer_id="check")
        except ValueError as error:
            problems.append(f"{name}: {error}")
    place = nearest_existing(settings.spool_dir)
    if not place.is_dir() or not os.access(place, os.W_OK | os.X_OK):
        problems.append(f"{name_of('spool_dir')}: {place} is no directory that this user may write to; write another")
    try:
        mount_bytes = mount_size_bytes(settings.spool_dir)
        spool_budget(settings, mount_bytes=mount_bytes, memory_limit=memory_limit_bytes())
    except SettingsError as error:
        problems += error.problems
    return problems


def _notes(settings: Settings) -> list[str]:
    """Say what is no mistake and yet may surprise."""
    notes = []
    if (kind := file_system_type(settings.spool_dir)) != "tmpfs":
        notes.append(f"{settings.spool_dir} is on {kind}, not on tmpfs: every upload waits for that")
    if settings.rescue_sink is not None:
        notes.append("COLLECTOR_RESCUE_SINK has no effect in this build: a batch waits in the spool for its own sink")
    if settings.hec_url is not None:
        notes.append("COLLECTOR_HEC_URL has no effect in this build: logs go to the standard output only")
    return notes


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


# -- the running Collector ---------------------------------------------------------------------------------


def _ask(settings: Settings, path: str) -> dict[str, Any]:
    """Get JSON from the admin listener, or end with a sentence that says why there is none."""
    host, port = host_and_port(settings.admin_bind)
    # What listens on every interface listens on this one.
    host = {"0.0.0.0": "127.0.0.1", "::": "::1"}.get(host, host)  # noqa: S104 -- compared with, not bound
    headers = {"Authorization": f"Bearer {settings.admin_token}"} if settings.admin_token else {}
    connection = http.client.HTTPConnection(host, port, timeout=_ASK_TIMEOUT_S)
    at = f"http://{settings.admin_bind}{path}"
    try:
        connection.request("GET", path, headers=headers)
        response = connection.getresponse()
        status, body = response.status, response.read()
    except (OSError, http.client.HTTPException) as error:
        _fail([f"{at} does not answer ({error}): is Collector running, with the same COLLECTOR_ADMIN_BIND?"])
    finally:
        connection.close()
    if status in {401, 403}:
        _fail([f"{at} wants another token: set COLLECTOR_ADMIN_TOKEN to the one Collector was started with"])
    try:
        answer = json.loads(body)
    except ValueError:
        answer = None
    if not isinstance(answer, dict) or status != 200:
        said = answer.get("message", "") if isinstance(answer, dict) else "no JSON object"
        _fail([f"{at} answered {status}: {said}"])
    return answer


def _reasons(row: dict[str, Any]) -> list[str]:
    return [f"{name} {count:,}" for name, count in row["reasons"].items()]


# -- what a person sees ------------------------------------------------------------------------------------


def _fail(problems: Sequence[str]) -> NoReturn:
    """Print sentences on standard error and end with 1."""
    if len(problems) > 1:
        click.secho(f"{len(problems)} mistakes:", fg="red", err=True)
    for problem in problems:
        click.echo(f"{'- ' if len(problems) > 1 else ''}{problem}", err=True)
    sys.exit(1)


def _print_table(title: str, columns: Sequence[str], rows: Iterable[Sequence[str]], *, numbers: int = 0) -> None:
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


def _readable(name: str, value: object) -> str:
    """Show a value of a setting: sizes with their unit, what is unset as a dash."""
    if value is None:
        return "-"
    if name.endswith("_bytes") and isinstance(value, int):
        return _size(value)
    return str(value)


def _size(value: int) -> str:
    """Write a number of bytes with the largest unit that keeps it at least 1."""
    amount, units = float(value), ["B", "KiB", "MiB", "GiB", "TiB"]
    while amount >= _KIB and len(units) > 1:
        amount, units = amount / _KIB, units[1:]
    return f"{amount:.4g} {units[0]}"


def _few(words: Iterable[str], most: int = 10) -> str:
    """List some words, and count the rest."""
    listed = list(words)
    rest = f" and {len(listed) - most} more" if len(listed) > most else ""
    return ", ".join(listed[:most]) + rest
