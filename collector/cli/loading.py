"""
Loads the settings for a command, or ends it with everything that is wrong with them.
"""

from __future__ import annotations

import os
from collections.abc import Callable
from functools import partial
from importlib.util import find_spec
from pathlib import Path
from urllib.parse import urlsplit

from collector.cli.screen import fail, size
from collector.clock import SystemClock
from collector.errors import SettingsError
from collector.settings import (
    Settings,
    dedupe_budget,
    environment,
    load_with_sources,
    memory_limit_bytes,
    mount_size_bytes,
    spool_budget,
)
from collector.settings.places import CLOSE_PART, WORKER_BYTES, file_system_type, nearest_existing
from collector.sinks.registry import can_be_read_back, open_claim_store, open_rescue_sink, open_sink


def load_or_exit() -> tuple[Settings, dict[str, str]]:
    """Load the settings and hold them against this machine; end with all problems if there are any."""
    try:
        return load_with_sources(
            environment(), cwd=Path.cwd(), read_at_s=SystemClock().monotonic(), more_checks=_machine_problems
        )
    except SettingsError as error:
        fail(error.problems)


def sink_of(route: str) -> str:
    """Return the URL of the sink that a route of the settings has; raises `ValueError` for a route they do not name."""
    settings, _ = load_or_exit()
    if route not in settings.routes:
        raise ValueError(f"there is no route {route!r}; the routes are {', '.join(settings.routes)}")
    return settings.routes[route]


def _machine_problems(settings: Settings, name_of: Callable[[str], str]) -> list[str]:
    """Say what only this machine and the sinks themselves can tell."""
    problems = []
    sinks = {f"[routes.{name}] sink": url for name, url in settings.routes.items() if name != "default"}
    sinks |= {name_of("sink"): settings.sink}
    openings: dict[str, Callable[[], object]] = {
        name: partial(open_sink, url, writer_id="check") for name, url in sinks.items()
    }
    if settings.rescue_sink:
        openings[name_of("rescue_sink")] = partial(
            open_rescue_sink, settings.rescue_sink, route="default", writer_id="check"
        )
    if settings.claim_sink:
        openings[name_of("claim_sink")] = partial(open_claim_store, settings.claim_sink, writer_id="check")
    for name, opening in openings.items():
        try:
            opening()
        except ValueError as error:
            problems.append(f"{name}: {error}")
    problems += _splunk_problems(settings, name_of)
    place = nearest_existing(settings.spool_dir)
    if not place.is_dir() or not os.access(place, os.W_OK | os.X_OK):
        problems.append(f"{name_of('spool_dir')}: {place} is no directory that this user may write to; write another")
    try:
        mount_bytes = mount_size_bytes(settings.spool_dir)
        spool_budget(settings, mount_bytes=mount_bytes, memory_limit=memory_limit_bytes())
        dedupe_budget(settings, mount_bytes=mount_bytes, memory_limit=memory_limit_bytes())
    except SettingsError as error:
        problems += error.problems
    return problems


def _splunk_problems(settings: Settings, name_of: Callable[[str], str]) -> list[str]:
    if settings.hec_url is None:
        return []
    problems = []
    if find_spec("splunk_handler") is None:
        problems.append(
            f"{name_of('hec_url')}: needs the extra `splunk`, which is not installed: pip install 'collector[splunk]'"
        )
    if settings.hec_ca_file is not None:
        import ssl  # noqa: PLC0415 -- 5 ms of a start, for those who have a certificate of their own

        try:
            ssl.create_default_context(cafile=settings.hec_ca_file)
        except OSError as error:
            problems.append(f"{name_of('hec_ca_file')}: {settings.hec_ca_file} holds no certificates: {error.strerror}")
    return problems


def notes(settings: Settings) -> list[str]:
    """Say what is no mistake and yet may surprise."""
    notes = []
    if (kind := file_system_type(settings.spool_dir)) != "tmpfs":
        notes.append(f"{settings.spool_dir} is on {kind}, not on tmpfs: every upload waits for that")
    limit = memory_limit_bytes()
    budget = spool_budget(settings, mount_bytes=mount_size_bytes(settings.spool_dir), memory_limit=limit)
    if settings.workers * WORKER_BYTES + budget > limit * CLOSE_PART:
        notes.append(
            f"{settings.workers} workers of up to {size(WORKER_BYTES)} and a spool of {size(budget)} are more than "
            f"{CLOSE_PART:.0%} of the {size(limit)} of memory, from where on uploads are refused: give it more memory, "
            "or fewer workers"
        )
    if settings.rescue_sink is not None and not can_be_read_back(settings.rescue_sink):
        notes.append(f"COLLECTOR_RESCUE_SINK is {settings.rescue_sink}, and no replay can send on what went there")
    if settings.hec_url is not None and urlsplit(settings.hec_url).scheme == "http":
        notes.append("COLLECTOR_HEC_URL is http, and the token goes over the network in the clear: use https")
    return notes
