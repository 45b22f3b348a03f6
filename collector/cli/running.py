"""
Asks the running Collector over its admin listener: `collector ledger`.
"""

from __future__ import annotations

import json
from typing import Any

import click

from collector.cli.loading import load_or_exit
from collector.cli.screen import fail, few, print_table
from collector.settings import Settings
from collector.settings.values import host_and_port

#: How long an answer of the admin listener is waited for.
_ASK_TIMEOUT_S = 10.0


@click.command()
@click.option("--json", "as_json", is_flag=True, help="Print the answer as it came.")
def ledger(as_json: bool) -> None:
    """Ask the running Collector what became of every accepted event. Ends with 1 if the ledger does not balance."""
    settings, _ = load_or_exit()
    if settings.admin_bind.startswith("fd://"):
        fail([f"COLLECTOR_ADMIN_BIND is {settings.admin_bind}: where that listens is not known here; write host:port"])
    answer = _ask(settings, "/ledger")
    if as_json:
        click.echo(json.dumps(answer))
    else:
        columns = [name for name in answer if name not in {"balanced", "reasons", "tenants"}]
        rows = [*sorted(answer["tenants"].items()), ("total", answer)]
        cells = [(tenant, *(f"{row[name]:,}" for name in columns), few(_reasons(row))) for tenant, row in rows]
        print_table("Ledger", ("tenant", *columns, "of them"), cells, numbers=len(columns))
    if not answer["balanced"]:
        fail(["the ledger does not balance: that is a defect of Collector; keep its log and its spool"])


def _ask(settings: Settings, path: str) -> dict[str, Any]:
    """Get JSON from the admin listener, or end with a sentence that says why there is none."""
    import http.client  # noqa: PLC0415 -- 25 ms, with ssl and email, that a start need not wait for

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
        fail([f"{at} does not answer ({error}): is Collector running, with the same COLLECTOR_ADMIN_BIND?"])
    finally:
        connection.close()
    if status in {401, 403}:
        fail([f"{at} wants another token: set COLLECTOR_ADMIN_TOKEN to the one Collector was started with"])
    try:
        answer = json.loads(body)
    except ValueError:
        answer = None
    if not isinstance(answer, dict) or status != 200:
        said = answer.get("message", "") if isinstance(answer, dict) else "no JSON object"
        fail([f"{at} answered {status}: {said}"])
    return answer


def _reasons(row: dict[str, Any]) -> list[str]:
    return [f"{name} {count:,}" for name, count in row["reasons"].items()]
