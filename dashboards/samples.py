"""
Numbers and names that are nobody's, for pictures of what a dashboard looks like: the same ones each time.

By the name of a column, so that a column that a search gains has to be given one here.
"""

from __future__ import annotations

import math
import zlib
from collections.abc import Sequence

from collector.telemetry.catalogue import SIGNALS

#: Points of a course over time.
POINTS = 48
#: Rows of a table that has no say in it.
ROWS = 5

_REFUSALS = ("over_quota", "unknown_key", "backpressure", "too_large", "malformed")
#: Reasons, by what they are reasons of.
_REASONS = {
    "upload.refused": _REFUSALS,
    "events.rejected": ("too_large", "not_an_object"),
    "events.lost": ("sink_too_large", "sink_invalid"),
    "events.refused": ("sink_too_large", "sink_invalid"),
    "hec.dropped": ("full", "rejected"),
}
_CAUSES = {
    "batch.failed": ("ServiceUnavailable: 503",),
    "events.refused": ("over 1 MiB", "no UTF-8"),
    "hec.failing": ("503, code 9: Server is busy", "timed out"),
    "hec.refused": ("403, code 4: Invalid token",),
    "rescue.unreadable": ("the checksum does not match",),
}

_TEXTS: dict[str, tuple[str, ...]] = {
    "_raw": ('{"ts":"2026-03-14T11:58:02.114023Z","level":"info","event":"worker.report","boot":"9c1f0a77e2b4", …}',),
    "balanced": ("true",),
    "boot": ("9c1f0a77e2b4", "51d2c8e9a003", "e07b44f1c6d8", "02aa91be5f37"),
    "data.token_name": ("collector-eu", "collector-us", "other"),
    "detail": ("the store of ids is too small", "acme: No space left on device"),
    "error": ("SlowDown: reduce your request rate", "timed out after 10 s", "ServiceUnavailable: 503"),
    "event_message": ("Failed processing http input, token name=collector-eu, reply=9", "Server is busy"),
    "fate": ("rejected_by_sink: sink_too_large",),
    "host": ("task-7f3a", "task-b209", "task-1ce4", "task-90d1", "task-5a6e"),
    "killed": ("false",),
    "level": ("info", "info", "warning", "info"),
    "log_level": ("ERROR", "WARN"),
    "message": ("Worker exiting (pid: 31)", "Handling signal: term"),
    "outcome": ("rejected_by_sink",),
    "owner": ("w-7f21", "w-04bc", "w-9ae0", "w-c113"),
    "parked": ("true", "true"),
    "place": ("flusher", "s3://rescue/route=default/0198…zst", "agent"),
    "problem": ("COLLECTOR_SINK names no sink: kinesiss://…",),
    "problems": ("-", "[tenants.acme] keys: 'abc' is no SHA-256", "-"),
    "protocol": ("native", "clevertap"),
    "refusing": ("false",),
    "route": ("default", "audit", "archive"),
    "scope": ("worker", "worker", "task", "worker"),
    "stage": ("preflight",),
    "state": ("idle", "head", "body"),
    "tenant": ("acme", "globex", "initech", "hooli", "(others)"),
    "traceback": ("…/flusher.py, line 88, in tick … OSError: [Errno 28] No space left on device",),
    "version": ("5be1c0", "5be1c0", "41d09a"),
    "way": ("taken", "sent on"),
    "why": ("default: unavailable", "audit: drain"),
}
#: What the biggest of a column is about; 0 where all is well.
_NUMBERS: dict[str, float] = {
    "1 of 100, or more": 3.9, "_time": 0, "accepted": 48_211_930, "age_s": 0.8, "as lines": 62, "batches": 21_840,
    "before": 0, "budget": 4096, "bytes": 3_100_000, "confirmed": 41.6, "connections": 1840, "count": 420,
    "data.num_of_errors": 3, "data.num_of_events": 190, "dead_workers": 1, "deduplicated": 5120,
    "delivered": 48_190_411, "dropped": 0, "emitted": 241_904, "events": 11_400, "events_per_batch": 522,
    "events_per_s": 11_412, "failures": 14, "fill": 34, "found": 5200, "fullest_spool_percent": 34.2,
    "generation": 12, "generations": 0, "half of them": 1.4, "held": 610, "high_water_percent": 8.4, "imbalances": 0,
    "in_doubt": 0, "in_flight": 240, "inside": 0, "lag_s": 0.004, "last": 0, "latest": 6.2, "left": 0,
    "lines": 14_520, "longest_wait_s": 8.1, "lost": 0, "masters": 0, "mean": 1.1, "mib": 8.4, "mib_per_s": 8.41,
    "missing": 0, "most_attempts": 4, "on the wire": 12, "pending": 3120, "pid": 31, "places": 2,
    "possible_duplicates": 0, "processes": 5, "queued": 60, "refused": 1284, "refused_percent": 0.31,
    "refusing_workers": 0, "rejected": 37, "rejected_by_sink": 12, "reloads": 0, "requests": 4210, "rescued": 5200,
    "resident_mib": 96, "restart_in_s": 0.5, "retries": 3, "retry_in_s": 4.2, "seconds": 2.1, "segments": 3,
    "sent on, and confirmed": 11_460, "seq": 14_520, "slowest": 1.6, "spool_percent": 31.4, "status": 0,
    "taken": 11_500, "tasks": 5, "tenants": 212, "throttled": 6, "times": 14, "to go": 41.6, "unaccounted": 0,
    "unbalanced": 0, "uploads": 640, "uploads_per_s": 641.3, "used": 58, "width": 8, "workers": 4,
    "worst_lag_s": 0.012,
}  # fmt: skip
#: The same, of one panel: a small trouble, told alike wherever it shows. The first is the panel's title.
_OF_PANEL: dict[tuple[str, str], float] = {
    ("Events rejected by a sink", "lost"): 48,
    ("Events refused for good", "events"): 48,
    ("Losses, by tenant", "events"): 48,
    ("Refused by sinks for good", "events"): 31,
    ("Events lost, by outcome and reason", "count"): 9,
    ("Events rescued", "events"): 5200,
    ("Events sent twice, perhaps", "events"): 0,
    ("Uploads whose sink did not confirm in time", "uploads"): 7,
    ("Uploads whose sink did not confirm in time", "events"): 350,
    ("Fullest HEC buffer now", "fill"): 6,
    ("Fill of HEC buffers: the fullest process of each task", "fill"): 6,
    ("Lines dropped, by reason", "count"): 0,
    ("What happened", "count"): 6,
    ("Accounts of each process, as it last reported", "delivered"): 241_604,
    ("Tenants", "events"): 41_200_000,
    ("Tenants", "uploads"): 2_310_000,
    ("Tenants", "mib"): 15_120,
    ("Routes", "events"): 164_000_000,
    ("Routes", "mib"): 59_800,
}
#: What a task says that has a little trouble and no great one.
_ERRORS = ("stdout.lost", "reload.rejected")
#: Numbers that are names.
_PLAIN = {"pid", "generation", "status", "seq"}
_TIMES = {"_time", "first", "last", "first_time", "last_time", "until"}


def noise(key: str) -> float:
    """Return a number from 0 to 1 that depends on the key alone."""
    return zlib.crc32(key.encode()) % 10_007 / 10_007


def number_of(name: str, panel: str = "") -> float:
    """Return about how much a column of a panel comes to; KeyError of one that was given no number."""
    return _OF_PANEL[panel, name] if (panel, name) in _OF_PANEL else _NUMBERS[name]


def names_of(field: str, signals: frozenset[str]) -> Sequence[str]:
    """Return what a field may say, on events of these signals."""
    if field == "event":
        return (
            sorted(signals) if 0 < len(signals) < len(SIGNALS) // 2 else ("batch.failed", "worker.report", "drain.done")
        )
    by_signal = {"reason": _REASONS, "cause": _CAUSES}.get(field, {})
    for signal in sorted(signals & set(by_signal)):
        return by_signal[signal]
    return _TEXTS[field] if field in _TEXTS else ("-",) if by_signal else _TEXTS[field]


def course(key: str, height: float, *, spiky: bool = False) -> list[float]:
    """Return a course over time that is about so high; a spiky one is nothing but for some moments."""
    phase = noise(key) * math.tau
    if spiky:
        return [
            height * (0.25 + 0.75 * noise(f"{key}{n}")) if noise(f"{key}/{n}") > 0.72 else 0.0 for n in range(POINTS)
        ]
    return [height * (0.8 + 0.13 * math.sin(phase + n / POINTS * 5) + 0.07 * noise(f"{key}{n}")) for n in range(POINTS)]


def cell(name: str, row: int, signals: frozenset[str], panel: str = "") -> str:
    """Return what stands in a table; KeyError of a column that was given nothing to say."""
    if name in _TIMES:
        minute = 59 - row * 7 if name != "first" else 3 + row
        return f"2026-03-14 11:{minute:02}:{int(noise(f'{name}{row}') * 60):02}"
    if name in _NUMBERS:
        return number(name, number_of(name, panel) * (1 - 0.17 * row), row)
    words = names_of(name, signals)
    return words[row % len(words)]


def number(name: str, value: float, row: int = 0) -> str:
    """Write a number as a table does."""
    if name in _PLAIN:
        return f"{_NUMBERS[name] + row * (1 if _NUMBERS[name] else 0):.0f}"
    if value == 0 or _NUMBERS[name] == int(_NUMBERS[name]):
        return f"{value:,.0f}"
    return f"{value:,.3f}" if _NUMBERS[name] < 0.1 else f"{value:,.1f}"
