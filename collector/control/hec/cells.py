"""
What the stress test is made of: a sender, a target, what one run is asked to do, and what came of it.
"""

from __future__ import annotations

from typing import Protocol

import msgspec

from collector.control.hec.relay import Counted
from collector.telemetry.hec.options import Account

#: A load below this part of what was asked for is not the load that was asked for. A choice.
KEPT_PART = 0.95


class Sender(Protocol):
    """What takes lines to HEC: `telemetry.hec.handler.HecHandler`, or a test's."""

    def start(self) -> None:
        """Begin to send."""

    def put(self, line: bytes, level: str) -> None:
        """Take a line; never waits, never raises."""

    def account(self) -> Account:
        """Look at the accounts of all lines."""

    def shutdown(self, deadline_s: float = ...) -> None:
        """Send what there is for so long, and drop the rest."""


class Target(Protocol):
    """Where lines go, and what can be made to be out: a simulated HEC in a child, or a relay before a real one."""

    def begin(self) -> None:
        """Count anew, from nothing."""

    def fail(self) -> None:
        """Be out."""

    def recover(self) -> None:
        """Be there again."""

    def counted(self) -> Counted:
        """Return what has arrived."""

    def busy_s(self) -> float | None:
        """Return how much CPU it has used, in seconds; None if that is not known."""


class Cell(msgspec.Struct, frozen=True, kw_only=True):
    """What one run is made of; sizes in bytes with envelopes, before compression. `seed` is of the sender's chance."""

    buffer_bytes: int
    batch_bytes: int
    batch_lines: int
    linger_s: float
    lines_per_s: float
    outage_s: float
    seed: int = 0


class Run(msgspec.Struct, frozen=True, kw_only=True):
    """
    What became of a cell.

    `silent_s` from the begin of the outage to the first line that arrived after it, or to the end of the run if that
    was to be the first drop, and `silent_lines` emitted in it; `held_bytes` were in the buffer when it began;
    `first_drop_s` from its begin, None when nothing was dropped. `lost` are lines dropped for want of room, and
    `lost_otherwise` all others. `drained_s` from the first arrival until the backlog was gone, None when it never was.
    `per_s` is the rate as it came out, `busy` the part of a core that load and sender took together; `arrived` lines
    are at HEC, `repeated` of them again, None if untold.
    """

    cell: Cell
    emitted: int
    delivered: int
    lost: int
    lost_otherwise: dict[str, int]
    possible_duplicates: int
    arrived: int | None
    repeated: int | None
    line_bytes: float
    high_water_bytes: int
    held_bytes: int
    silent_s: float
    silent_lines: int
    backlog_bytes: int
    first_drop_s: float | None
    drained_s: float | None
    per_s: float
    busy: float

    @property
    def loss_part(self) -> float:
        """Return which part of the lines that came in the silence was lost."""
        return min(1.0, self.lost / self.silent_lines) if self.silent_lines else 0.0

    @property
    def kept_pace(self) -> bool:
        """Tell whether the load was as it was asked for; if not, this machine was the limit."""
        return self.per_s >= KEPT_PART * self.cell.lines_per_s


class Flood(msgspec.Struct, frozen=True, kw_only=True):
    """
    What one connection carries: `rate` in bytes a second before compression, and `wire_part` of it on the wire.

    `line_bytes` and `batch_bytes` as they were on average; `busy` and `target_busy` are the parts of a core that this
    process and the target took.
    """

    rate: float
    line_bytes: float
    wire_part: float
    batch_bytes: float
    busy: float
    target_busy: float | None


def fates(seen: Account) -> str:
    """Say what became of lines, in a sentence's end."""
    dropped = "".join(f", {count:,} dropped ({reason})" for reason, count in sorted(seen.dropped.items()))
    results = ", ".join(f"{count} {result}" for result, count in sorted(seen.results.items())) or "none"
    return (
        f"{seen.emitted:,} emitted, {seen.delivered:,} delivered{dropped}, {seen.queued:,} queued, "
        f"{seen.in_flight:,} in flight; requests: {results}"
    )
