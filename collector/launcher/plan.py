"""
What passes from whoever read the settings to the launcher, and from there to gunicorn and its workers.

A handoff is three lines: the snapshot of the settings for the workers, gunicorn's own settings, and the plan.
"""

from __future__ import annotations

import msgspec

from collector.settings import Settings, to_json
from collector.settings.gunicorn import gunicorn_settings


class Plan(msgspec.Struct, frozen=True):
    """
    What the launcher must know of the settings: of a version of the code that may be newer than its own.

    `binds` are the addresses in the order of gunicorn's listeners. Times are in seconds.
    """

    binds: tuple[str, ...]
    backlog: int
    workers: int
    lame_duck_s: float
    drain_s: float


class Handoff(msgspec.Struct, frozen=True):
    """The settings of one generation: as bytes for those who come, and what the launcher knows of them."""

    data: bytes
    plan: Plan


def write_handoff(settings: Settings) -> bytes:
    """Render the settings as a handoff."""
    told = gunicorn_settings(settings)
    plan = Plan(
        binds=tuple(told["bind"]),
        backlog=told["backlog"],
        workers=settings.workers,
        lame_duck_s=settings.lame_duck_s,
        drain_s=settings.drain_s,
    )
    return b"\n".join([to_json(settings), msgspec.json.encode(told), msgspec.json.encode(plan)]) + b"\n"


def read_handoff(data: bytes) -> Handoff:
    """Take a handoff that another process wrote; raises ValueError when it is none."""
    lines = data.splitlines()
    if len(lines) != 3 or not data.endswith(b"\n"):
        raise ValueError(f"a handoff has three lines, not {len(lines)}")
    return Handoff(data, msgspec.json.decode(lines[2], type=Plan))
