"""
The settings object: what an operator may set, with its defaults, and what follows from it.

Times are in seconds, sizes in bytes.
"""

from __future__ import annotations

import math
from typing import Any

import msgspec

from collector.errors import SettingsError
from collector.settings.tenants import DEV_TENANT
from collector.tenant import Tenant

#: Carries `to_json` from gunicorn's configuration to the workers, so that all of a generation read the same; or
#: `fd://N`, where it is the first line.
SNAPSHOT = "COLLECTOR_SETTINGS_SNAPSHOT"

#: Where events go when nothing is said; `load` makes the directory absolute.
DEFAULT_SINK = "file:data"
#: Between the last answer on an idle connection and the end of accepting: two polls of a worker (gunicorn 27).
_POLLS_S = 2.0
#: Fargate's longest stopTimeout. gunicorn must be done before it.
MAX_STOP_GRACE_S = 120
#: How long the last log lines of a process may wait for Splunk, in seconds. A choice.
HEC_DRAIN_S = 3.0
#: Of the mount, the spool leaves room for the ledger, metrics and tenants that share it (a guess, ample).
_MOUNT_PART = 0.90
#: Of the memory, which tmpfs counts against: the workers need the rest (a guess, from 120 MiB a worker).
_MEMORY_PART = 0.25
#: What the ids of dedupe may take of either, and at most: two million rows, a million ids and more (choices).
_DEDUPE_PART, _DEDUPE_BYTES = 0.05, 64 << 20
#: Fields that tell of the reading, and that no operator sets.
_NOT_SET = frozenset({"read_at_s", "text_sha256"})


class Settings(msgspec.Struct, frozen=True, kw_only=True, omit_defaults=True):
    """
    Everything an operator may set, checked. `Settings()` is a loopback run with the tenant `dev`.

    `routes` names each route's sink and always has `default`, which is `sink`. `spool_bytes` None means: derive it,
    see `spool_budget`. After SIGTERM a task is unready and answers on for `lame_duck_s`, then drains for `drain_s`. A
    batch whose sink fails for `rescue_after_s` goes to the rescue sink. An event that is too large for its sink lies in
    `claim_sink`, if there is one, and a claim of it takes its place. Uploads that would wait longer than
    `max_lag_s` for their turn are refused. Without `hot_door` all go through gunicorn's parser and Flask, to the same
    answers. Every `report_s` a worker says in the log how it stands; 0 means never. `task` is the host in Splunk, None
    for the name that the system has. `trusted_hops` counts the proxies in front that append to X-Forwarded-For.
    `aws_keys_allowed` are boto3's names, with commas between them, of the providers whose long-lived keys are wanted.
    `read_at_s` is CLOCK_MONOTONIC at the reading of the settings file, None when it is not known; `text_sha256` is of
    the file's text, empty without a file.
    """

    bind: str = "127.0.0.1:8080"
    admin_bind: str = "127.0.0.1:8081"
    workers: int = 1
    config: str | None = None
    spool_dir: str = "/dev/shm/collector"  # noqa: S108 -- the contract's default, on the kernel's own tmpfs
    spool_bytes: int | None = None
    sink: str = DEFAULT_SINK
    rescue_sink: str | None = None
    claim_sink: str | None = None
    admin_token: str | None = None
    admin_token_file: str | None = None
    hec_url: str | None = None
    hec_token: str | None = None
    hec_token_file: str | None = None
    hec_buffer_bytes: int = 16 << 20
    hec_batch_bytes: int = 256 << 10
    hec_linger_s: float = 1.0
    hec_ack: bool = False
    hec_index: str | None = None
    hec_ca_file: str | None = None
    task: str | None = None
    report_s: float = 60.0
    drain_s: float = 20.0
    lame_duck_s: float = 3.0
    rescue_after_s: float = 60.0
    max_lag_s: float = 0.25
    hot_door: bool = True
    dedupe_bytes: int | None = None
    segment_bytes: int = 4 << 20
    flush_interval_s: float = 1.0
    flush_concurrency: int = 4
    ack_timeout_s: float = 10.0
    max_upload_bytes: int = 4 << 20
    max_inflated_bytes: int = 16 << 20
    max_events: int = 10_000
    body_deadline_s: float = 20.0
    max_header_bytes: int = 16 << 10
    keepalive_s: float = 65.0
    worker_connections: int = 2_000
    trusted_hops: int = 0
    log_level: str = "info"
    tmpfs_mounts: str | None = None
    aws_keys_allowed: str | None = None
    routes: dict[str, str] = msgspec.field(default_factory=dict)
    tenants: tuple[Tenant, ...] = (DEV_TENANT,)
    read_at_s: float | None = None
    text_sha256: str = ""

    def __post_init__(self) -> None:
        if "default" not in self.routes:
            msgspec.structs.force_setattr(self, "routes", {"default": self.sink, **self.routes})

    def __repr__(self) -> str:
        return f"Settings({', '.join(f'{name}={value!r}' for name, value in self.shown().items())})"

    @property
    def graceful_timeout_s(self) -> int:
        """
        How long gunicorn lets a worker finish: idle connections and uploads on their way first, then the drain.

        An upload may take its body's deadline and then wait for its sink, and the last log lines may wait for Splunk.
        Whole seconds, as gunicorn wants them.
        """
        last_answer_s = max(self.keepalive_s, self.body_deadline_s + self.ack_timeout_s)
        last_lines_s = 0.0 if self.hec_url is None else HEC_DRAIN_S
        return math.floor(self.lame_duck_s + last_answer_s + _POLLS_S + self.drain_s + last_lines_s) + 1

    def shown(self) -> dict[str, Any]:
        """Return what was set, in order and fit for a log or a screen: secrets masked, tenants counted."""
        values = {field: getattr(self, field) for field in self.__struct_fields__ if field not in _NOT_SET}
        for secret in ("admin_token", "hec_token"):
            if values[secret] is not None:
                values[secret] = "••••"
        values["tenants"] = len(self.tenants)
        return values


def to_json(settings: Settings) -> bytes:
    """Render a snapshot, secrets included: it goes from one of our processes to another and nowhere else."""
    return msgspec.json.encode(settings)


def from_json(snapshot: bytes) -> Settings:
    """Read a snapshot back; raises SettingsError when it is none of ours."""
    try:
        return msgspec.json.decode(snapshot, type=Settings)
    except msgspec.DecodeError as error:
        raise SettingsError([f"{SNAPSHOT} is no snapshot of settings ({error}): unset it"]) from None


def dedupe_budget(settings: Settings, *, mount_bytes: int, memory_limit: int) -> int:
    """
    Return how many bytes of the mount the ids of dedupe may take; they are taken when the first tenant needs them.

    It is what `dedupe_bytes` says, else the least of 64 MiB, 5 % of the mount and 5 % of the memory. A mount of 0 bytes
    is one without a limit of its own. Raises SettingsError when more is asked for than half of the mount.
    """
    if settings.dedupe_bytes is None:
        by_memory = int(memory_limit * _DEDUPE_PART)
        return min(_DEDUPE_BYTES, by_memory, int(mount_bytes * _DEDUPE_PART) if mount_bytes else by_memory)
    if mount_bytes and settings.dedupe_bytes > mount_bytes // 2:
        raise SettingsError(
            [
                f"COLLECTOR_DEDUPE_BYTES: {settings.dedupe_bytes} is more than half of the {mount_bytes} bytes of the "
                f"mount that holds {settings.spool_dir}; write less, or leave it out to use {_DEDUPE_PART:.0%} of it"
            ]
        )
    return settings.dedupe_bytes


def spool_budget(settings: Settings, *, mount_bytes: int, memory_limit: int) -> int:
    """
    Return the spool's budget for the whole task, in bytes.

    It is what `spool_bytes` says, else the least of 90 % of the mount and 25 % of the memory. A mount of 0 bytes is
    one without a limit of its own. Raises SettingsError when more is asked for than the mount has.
    """
    if settings.spool_bytes is None:
        by_memory = int(memory_limit * _MEMORY_PART)
        return min(by_memory, int(mount_bytes * _MOUNT_PART)) if mount_bytes else by_memory
    if mount_bytes and settings.spool_bytes > mount_bytes:
        raise SettingsError(
            [
                f"COLLECTOR_SPOOL_BYTES: {settings.spool_bytes} is more than the {mount_bytes} bytes of the mount that "
                f"holds {settings.spool_dir}; write less, or leave it out to use {_MOUNT_PART:.0%} of the mount"
            ]
        )
    return settings.spool_bytes
