"""
The settings: one frozen object, filled from `COLLECTOR_*` over an optional TOML file, every mistake told at once.

This is the only place that reads the environment (`gunicorn.conf.py` apart).
"""

from __future__ import annotations

import os
from collections.abc import Callable, Mapping
from pathlib import Path

from collector.errors import SettingsError
from collector.settings.checks import check
from collector.settings.model import SNAPSHOT, Settings, dedupe_budget, from_json, spool_budget, to_json
from collector.settings.places import locate, memory_limit_bytes, mount_size_bytes
from collector.settings.reading import Reading
from collector.settings.tenants import DEV_KEY, DEV_TENANT, parse_tenants
from collector.settings.values import SINK_SCHEMES, is_loopback

__all__ = [
    "DEV_KEY",
    "DEV_TENANT",
    "SINK_SCHEMES",
    "SNAPSHOT",
    "Settings",
    "dedupe_budget",
    "environment",
    "from_json",
    "is_loopback",
    "load",
    "load_for_worker",
    "load_with_sources",
    "locate",
    "memory_limit_bytes",
    "mount_size_bytes",
    "parse_tenants",
    "spool_budget",
    "to_json",
]


def environment() -> Mapping[str, str]:
    """Return the process's environment, for the roots to hand on."""
    return os.environ


def load(
    environ: Mapping[str, str], *, cwd: Path, cores: int | None = None, read_at_s: float | None = None
) -> Settings:
    """
    Read and check the settings; an empty variable counts as unset.

    `cwd` is where relative paths start. `cores` is the default of `workers`: None asks the machine. `read_at_s` is
    kept as it is. Raises SettingsError with all problems.
    """
    return load_with_sources(environ, cwd=cwd, cores=cores, read_at_s=read_at_s)[0]


def load_with_sources(
    environ: Mapping[str, str],
    *,
    cwd: Path,
    cores: int | None = None,
    read_at_s: float | None = None,
    more_checks: Callable[[Settings, Callable[[str], str]], list[str]] = lambda _, __: [],
) -> tuple[Settings, dict[str, str]]:
    """
    Load, and say of each setting that was written where: its variable, or its key in the file.

    `more_checks` knows what the settings can't, and returns problems to tell with the others. It is given the
    settings, with the default where a value did not parse, and what names a setting as it was written.
    """
    reading = Reading(cwd)
    reading.values["workers"] = cores or len(os.sched_getaffinity(0))
    reading.read(environ)
    settings = Settings(**reading.values, read_at_s=read_at_s)
    check(settings, reading)
    reading.problems += more_checks(settings, reading.name)
    if reading.problems:
        raise SettingsError(reading.problems)
    return settings, reading.names


def load_for_worker(environ: Mapping[str, str] | None = None) -> Settings:
    """
    Return the settings this generation was started with, else load them; None is the process's environment.

    The variable SNAPSHOT holds them, or `fd://N`: they are the first line of an inherited file, for a program can't be
    started with more than 128 KiB in one variable.
    """
    given = os.environ if environ is None else environ
    snapshot = given.get(SNAPSHOT, "").encode()
    if snapshot.startswith(b"fd://"):
        fd = int(snapshot.removeprefix(b"fd://"))
        snapshot = os.pread(fd, os.fstat(fd).st_size, 0).partition(b"\n")[0]
    return from_json(snapshot) if snapshot else load(given, cwd=Path.cwd())
