"""
Reads the tenants of the settings file, for `TenantBook`. It takes a second for ten thousand, and touches nothing.
"""

from __future__ import annotations

from collections.abc import Collection, Mapping
from hashlib import sha256
from pathlib import Path

import msgspec

from collector.errors import SettingsError
from collector.settings import parse_tenants
from collector.tenant import Tenant


class Found(msgspec.Struct, frozen=True):
    """What the file held: its tenants, or its problems in sentences. `text_sha256` tells its text from others."""

    text_sha256: str
    tenants: tuple[Tenant, ...] = ()
    problems: tuple[str, ...] = ()


def read(
    config: Path,
    routes: Collection[str],
    *,
    fallback: tuple[Tenant, ...] | None,
    known: Mapping[str, tuple[Tenant, ...]],
) -> Found:
    """Read the file; one whose text is `known`, by its SHA-256, is not parsed again."""
    try:
        content = config.read_bytes()
    except OSError as error:
        return Found(f"errno {error.errno}", problems=(f"{config} can't be read: {error.strerror}",))
    digest = sha256(content).hexdigest()
    tenants = known.get(digest)
    if tenants is not None:
        return Found(digest, tenants)
    try:
        return Found(digest, parse_tenants(content.decode(), routes, fallback=fallback))
    except UnicodeDecodeError:
        return Found(digest, problems=(f"{config.name}: the file is not UTF-8; save it as UTF-8 text",))
    except SettingsError as error:
        return Found(digest, problems=tuple(f"{config.name}: {problem}" for problem in error.problems))
