"""
`[tenants.<id>]`: how the tables of the settings file become tenants, at the start and at every reload.
"""

from __future__ import annotations

import re
import tomllib
from collections.abc import Collection, Mapping
from hashlib import sha256
from typing import Any

from collector.errors import SettingsError
from collector.settings.values import (
    NAME,
    Parse,
    choice,
    did_you_mean,
    number,
    rate_of_bytes,
    seconds,
    size,
    text,
    yes_no,
)
from collector.tenant import Ack, Tenant

#: The key of the tenant that is there without a settings file. It is printed in the README: loopback only.
DEV_KEY = "dev-key"
DEV_TENANT = Tenant(id="dev", keys=(sha256(DEV_KEY.encode()).hexdigest(),))

_KEY_DIGEST = re.compile(r"[0-9a-fA-F]{64}")


_FIELDS: dict[str, Parse] = {
    "enabled": yes_no,
    "ack": choice(*Ack),
    "route": text,
    "events_per_s": number(at_least=0),
    "bytes_per_s": rate_of_bytes,
    "burst_s": seconds(above=0),
    "share": number(above=0),
    "max_event_bytes": size(at_least=1),
    "anonymise_ip": yes_no,
    "dedupe_window_s": seconds(at_least=0),
    "clevertap_account": text,
}


def parse_toml(content: str) -> dict[str, Any]:
    """Parse a settings file; raises SettingsError with one sentence that says where it stops being TOML."""
    try:
        return tomllib.loads(content)
    except tomllib.TOMLDecodeError as error:
        raise SettingsError([f"the file is not TOML: {error}"]) from None
    except RecursionError:
        raise SettingsError(["the file is not TOML that can be read: it is nested too deep"]) from None


def parse_tenants(
    source: str | Mapping[str, Any], routes: Collection[str], *, fallback: tuple[Tenant, ...] | None = None
) -> tuple[Tenant, ...]:
    """
    Read the tenants of a settings file, given as its text or as its parsed top table, in the file's order.

    `routes` are the names a tenant may send to. `fallback` stands in for a file without `[tenants]`; None
    refuses one. Raises SettingsError with all problems.
    """
    top = parse_toml(source) if isinstance(source, str) else source
    tables = top.get("tenants")
    if tables is None or tables == {}:
        if fallback is not None:
            return fallback
        raise SettingsError(["the file has no [tenants.<id>] table: add one, `collector key` prints its first line"])
    if not isinstance(tables, dict):
        raise SettingsError(["`tenants` must be tables: write [tenants.<id>] with the settings of one tenant below"])
    problems: list[str] = []
    tenants = [
        _parse_tenant(tenant_id, table, problems)
        for tenant_id, table in tables.items()
        if _is_tenant_table(tenant_id, table, problems)
    ]
    _check_routes(tenants, routes, top.get("routes"), problems)
    _check_keys(tenants, problems)
    _check_accounts(tenants, problems)
    if problems:
        raise SettingsError(problems)
    return tuple(tenants)


def _is_tenant_table(tenant_id: str, table: object, problems: list[str]) -> bool:
    if not NAME.fullmatch(tenant_id):
        problems.append(
            f"[tenants.{tenant_id[:80]!r}]: a tenant's id is 1 to 64 of A-Z, a-z, 0-9, _ and -; write it in these"
        )
        return False
    if not isinstance(table, dict):
        problems.append(f"tenants.{tenant_id} must be a table: write [tenants.{tenant_id}] with its settings below")
        return False
    return True


def _parse_tenant(tenant_id: str, table: dict[str, Any], problems: list[str]) -> Tenant:
    """Read one table; a field with a problem keeps its default, so that the later checks can go on."""
    values: dict[str, Any] = {}
    for field, raw in table.items():
        if field == "keys":
            continue
        parse = _FIELDS.get(field)
        if parse is None:
            hint = did_you_mean(field, ("keys", *_FIELDS)) or f"; a tenant has {', '.join(('keys', *_FIELDS))}"
            problems.append(f"[tenants.{tenant_id}] {field[:80]}: no such field{hint}")
            continue
        try:
            values[field] = parse(raw)
        except ValueError as error:
            problems.append(f"[tenants.{tenant_id}] {field}: {error}")
    keys = _parse_keys(tenant_id, table.get("keys"), problems)
    if isinstance(values.get("ack"), str):
        values["ack"] = Ack(values["ack"])
    return Tenant(id=tenant_id, keys=keys, **values)


def _parse_keys(tenant_id: str, raw: object, problems: list[str]) -> tuple[str, ...]:
    """Read the digests. What is no digest is never quoted: it is most likely somebody's key."""
    at = f"[tenants.{tenant_id}] keys"
    if not isinstance(raw, list) or not raw:
        problems.append(f"{at}: must list the SHA-256 of at least one key: run `collector key {tenant_id}`")
        return ()
    digests = []
    for index, key in enumerate(raw):
        if isinstance(key, str) and _KEY_DIGEST.fullmatch(key):
            digests.append(key.lower())
        else:
            problems.append(
                f"{at}[{index}]: looks like a plain key: run `collector key {tenant_id}` and write the line it prints"
            )
    return tuple(digests)


def _check_routes(tenants: list[Tenant], routes: Collection[str], in_file: object, problems: list[str]) -> None:
    new = in_file if isinstance(in_file, dict) else {}
    for tenant in tenants:
        if tenant.route in routes:
            continue
        at = f"[tenants.{tenant.id}] route: {tenant.route[:80]!r}"
        if tenant.route in new:
            problems.append(f"{at} is not running yet: routes are read at the start, so reload with SIGHUP")
        else:
            problems.append(f"{at} is no route{did_you_mean(tenant.route, routes) or '; there is ' + _listed(routes)}")


def _check_keys(tenants: list[Tenant], problems: list[str]) -> None:
    """Refuse a digest that stands twice; it is quoted in part, which tells no key."""
    owners: dict[str, str] = {}
    for tenant in tenants:
        for digest in tenant.keys:
            owner = owners.setdefault(digest, tenant.id)
            if owner != tenant.id:
                problems.append(
                    f"[tenants.{tenant.id}] keys: {digest[:8]}… is a key of [tenants.{owner}] too: "
                    f"give each its own, run `collector key {tenant.id}`"
                )
        if len(set(tenant.keys)) != len(tenant.keys):
            problems.append(f"[tenants.{tenant.id}] keys: one key stands twice; leave one of the two out")


def _check_accounts(tenants: list[Tenant], problems: list[str]) -> None:
    owners: dict[str, str] = {}
    for tenant in tenants:
        account = tenant.clevertap_account or tenant.id
        owner = owners.setdefault(account, tenant.id)
        if owner != tenant.id:
            problems.append(
                f"[tenants.{tenant.id}] clevertap_account: {account!r} is the account of [tenants.{owner}] too; "
                "write another (without one, a tenant's id is its account)"
            )


def _listed(names: Collection[str]) -> str:
    return ", ".join(sorted(names))
