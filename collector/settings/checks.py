"""
How the settings go together: what no single value can tell.
"""

from __future__ import annotations

from pathlib import Path

from collector.errors import SettingsError
from collector.settings.model import HEC_DRAIN_S, MAX_STOP_GRACE_S, Settings
from collector.settings.places import DEV_SHM, is_on_one_of, locate, read_mounts
from collector.settings.reading import Reading
from collector.settings.tenants import DEV_TENANT
from collector.settings.values import host_and_port, is_loopback

#: Hosts that take a port on every interface.
#: A stop waits for it one after the other: in the workers, in the task's last word, and in the launcher.
_WAITS_FOR_SPLUNK = 3
_WILDCARDS = frozenset({"0.0.0.0", "::"})  # noqa: S104 -- compared with, not bound


def check(settings: Settings, reading: Reading) -> None:
    """Add what is wrong with the settings as a whole to the problems of their reading."""
    _check_reach(settings, reading)
    _check_ports(settings, reading)
    _check_timeouts(settings, reading)
    _check_sizes(settings, reading)
    _check_sinks(settings, reading)
    _check_splunk(settings, reading)
    _check_spool_place(settings, reading)


def _check_reach(settings: Settings, reading: Reading) -> None:
    """Hold what is open to others against what protects it."""
    for setting in ("bind", "admin_bind"):
        address = getattr(settings, setting)
        if is_loopback(address):
            continue
        if settings.tenants == (DEV_TENANT,):
            reading.wrong(
                setting,
                f"{address} can be reached by others, and the only tenant is dev, whose key everyone knows; write "
                "127.0.0.1 for the host, or name a TOML file with your [tenants.<id>] in COLLECTOR_CONFIG",
                "tenants",
            )
        else:
            _check_known_key(settings, reading, setting)
    if not is_loopback(settings.admin_bind) and settings.admin_token is None:
        reading.wrong(
            "admin_bind",
            f"{settings.admin_bind} can be reached by others, and there is no token; write COLLECTOR_ADMIN_TOKEN, "
            "or 127.0.0.1 for the host",
            "admin_token",
        )


def _check_known_key(settings: Settings, reading: Reading, setting: str) -> None:
    for tenant in settings.tenants:
        if DEV_TENANT.keys[0] in tenant.keys:
            reading.wrong(
                setting,
                f"{getattr(settings, setting)} can be reached by others, and a key of [tenants.{tenant.id}] is the "
                f"one that the manual prints; run `collector key {tenant.id}` and write the line it prints instead",
                "tenants",
            )


def _check_ports(settings: Settings, reading: Reading) -> None:
    if settings.bind.startswith("fd://") or settings.admin_bind.startswith("fd://"):
        clash = settings.bind == settings.admin_bind
    else:
        (host, port), (admin_host, admin_port) = host_and_port(settings.bind), host_and_port(settings.admin_bind)
        clash = port == admin_port and (host == admin_host or bool(_WILDCARDS & {host, admin_host}))
    if clash:
        at_fault, other = ("bind", "admin_bind") if "bind" in reading.names else ("admin_bind", "bind")
        reading.wrong(
            at_fault,
            f"{getattr(settings, at_fault)} collides with {reading.name(other)} ({getattr(settings, other)}); "
            "the two listeners need different ports",
            other,
        )


def _check_timeouts(settings: Settings, reading: Reading) -> None:
    """
    Hold that all ends before the task is killed: what `graceful_timeout_s` adds up, and what comes after the workers.

    The task's last word and then the launcher wait for Splunk as long as each worker does.
    """
    lines_s = 0.0 if settings.hec_url is None else _WAITS_FOR_SPLUNK * HEC_DRAIN_S
    after_s = 0.0 if settings.hec_url is None else lines_s - HEC_DRAIN_S
    if settings.graceful_timeout_s + after_s < MAX_STOP_GRACE_S:
        return
    upload_s = settings.body_deadline_s + settings.ack_timeout_s
    parts = ("keepalive_s",) if settings.keepalive_s >= upload_s else ("body_deadline_s", "ack_timeout_s")
    parts = ("lame_duck_s", *parts, "drain_s")
    longest = max(parts, key=lambda part: float(getattr(settings, part)))
    summed = " + ".join(f"{part} {getattr(settings, part):g}" for part in parts)
    summed += f" + 2 + {lines_s:g} for Splunk" if lines_s else " + 2"
    reading.wrong(
        longest,
        f"{getattr(settings, longest):g} is too long: {summed} must stay under {MAX_STOP_GRACE_S - 1} s, since a "
        f"task is killed {MAX_STOP_GRACE_S} s after it was asked to stop; write less",
        "lame_duck_s",
        "keepalive_s",
        "body_deadline_s",
        "ack_timeout_s",
        "drain_s",
    )


def _check_sizes(settings: Settings, reading: Reading) -> None:
    if settings.max_inflated_bytes < settings.max_upload_bytes:
        reading.wrong(
            "max_inflated_bytes",
            f"{settings.max_inflated_bytes} is below max_upload_bytes ({settings.max_upload_bytes}), and an upload "
            "that is not compressed meets both; write at least as much",
            "max_upload_bytes",
        )
    if settings.spool_bytes is not None and settings.spool_bytes < settings.workers * settings.segment_bytes:
        reading.wrong(
            "spool_bytes",
            f"{settings.spool_bytes} is less than one segment of {settings.segment_bytes} bytes for each of "
            f"{settings.workers} workers; write at least {settings.workers * settings.segment_bytes}",
            "workers",
            "segment_bytes",
        )


def _check_sinks(settings: Settings, reading: Reading) -> None:
    if settings.rescue_sink is None:
        return
    for route, sink in settings.routes.items():
        if _place(sink) == _place(settings.rescue_sink):
            of_route = "" if route == "default" else f" of [routes.{route}]"
            reading.wrong(
                "rescue_sink",
                f"is the same as the sink{of_route}, and a rescue that fails with it is none; write another, or leave "
                "it out",
                "sink" if route == "default" else "routes",
            )


def _place(sink: str) -> str:
    """Return a sink's URL without its options, which say how it writes and not where."""
    return sink.partition("?")[0].rstrip("/")


def _check_splunk(settings: Settings, reading: Reading) -> None:
    if settings.hec_url is not None and settings.hec_token is None:
        reading.wrong("hec_url", "needs a token; write COLLECTOR_HEC_TOKEN or COLLECTOR_HEC_TOKEN_FILE", "hec_token")
    if settings.hec_token is not None and settings.hec_url is None:
        at_fault = "hec_token" if "hec_token" in reading.names else "hec_token_file"
        reading.wrong(
            at_fault, "has no use without COLLECTOR_HEC_URL; write the URL, or leave the token out", "hec_url"
        )


def _check_spool_place(settings: Settings, reading: Reading) -> None:
    """Hold the spool to the list of writable places; a run that nobody else can reach may use /dev/shm."""
    try:
        file = Path(settings.tmpfs_mounts) if settings.tmpfs_mounts else locate("tmpfs-mounts.json")
        mounts = [mount.container_path for mount in read_mounts(file)]
    except SettingsError as error:
        for problem in error.problems:
            reading.wrong("tmpfs_mounts", problem)
        return
    local = is_loopback(settings.bind) and is_loopback(settings.admin_bind)
    if is_on_one_of(settings.spool_dir, [*mounts, DEV_SHM] if local else mounts):
        return
    instead = f"{mounts[0]}/spool" if mounts else f"{DEV_SHM}/collector"
    why = f", and {DEV_SHM} is only for a loopback run" if is_on_one_of(settings.spool_dir, [DEV_SHM]) else ""
    reading.wrong(
        "spool_dir",
        f"{settings.spool_dir} is on no mount of {file.name} ({', '.join(mounts) or 'it is empty'}){why}; write a "
        f"directory on one of them, for example {instead}",
        "bind",
        "admin_bind",
    )
