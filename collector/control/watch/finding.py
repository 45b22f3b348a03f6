"""
What was found, in figures and in the words that somebody needs who was woken by it.
"""

from __future__ import annotations

from collections.abc import Sequence
from enum import StrEnum

import msgspec

_UNITS = ("B", "kB", "MB", "GB", "TB")
_DROPPED = "collector_hec_dropped_lines_total{reason}"
#: From these parts of what was sent on, the tasks are said to send as ever, or hardly.
_AS_EVER, _HARDLY = 0.8, 0.2


class What(StrEnum):
    """What may be found."""

    SILENT = "silent"
    ZERO = "drop to zero"
    STEP = "step"
    PATTERN = "changed pattern"
    GAP = "widening gap"


class Of(StrEnum):
    """Of what."""

    PROCESSED = "processed"
    SENT = "sent"
    RATIO = "processed ÷ sent"


class Finding(msgspec.Struct, frozen=True):
    """
    One thing that is not as it was.

    Minutes are since the epoch: when it `began`, as far as that can be told, when it could first be `told`, and since
    when it is over, or None while it goes on. `expected` and `came` are bytes a minute, or a ratio of bytes, as the
    middle of that time. `score` is how far off it was at the most, where 1 is the least that is told; 0 where there is
    nothing to measure. `look` says what to look at, the first thing first.
    """

    what: What
    of: Of
    began: int
    told: int
    over: int | None
    expected: float
    came: float
    score: float
    says: str
    look: Sequence[str]

    @property
    def is_on(self) -> bool:
        """Tell whether it goes on."""
        return self.over is None


def amount(bytes_: float) -> str:
    """Write bytes in units of a thousand, as CloudWatch does."""
    units = list(_UNITS)
    while abs(bytes_) >= 999.5 and len(units) > 1:
        bytes_, units = bytes_ / 1000, units[1:]
    return f"{bytes_:.3g} {units[0]}"


def value(of: Of, number: float) -> str:
    """Write what was expected or came, with its unit."""
    return f"{number:.3f}" if of is Of.RATIO else f"{amount(number)}/min"


def change(expected: float, came: float) -> str:
    """Say by which part something is more or less."""
    part = came / expected - 1 if expected else 0.0
    return f"{abs(part):.0%} {'more' if part > 0 else 'less'}"


def look_at_zero(sending: float | None) -> list[str]:
    """Say what to look at when nothing comes; `sending` is the part of what was usual that the tasks still send."""
    if sending is not None and sending > _HARDLY:
        return [
            "The tasks go on sending, and it does not come through this load balancer: see whether its targets are "
            "healthy, whether its listener, certificate, DNS name or security group was changed, and whether "
            "COLLECTOR_HEC_URL still points to it.",
            f"What can't be sent waits in each task and is then dropped: {_DROPPED} says whether it has come to that.",
        ]
    heard = "The tasks send nothing, either" if sending is not None else "What the tasks send is not known here"
    return [
        f"{heard}: see whether they run and take uploads (collector_upload_bytes_total), and what was deployed last.",
        f"If they run, see {_DROPPED}, and whether HEC answers: `curl` its /services/collector/health.",
    ]


def look_at_level(sending: float | None, *, is_more: bool) -> list[str]:
    """Say what to look at when less or more comes, all the time; `sending` as a part of what was usual."""
    if sending is not None and not is_more and sending > _AS_EVER:
        return [
            "The tasks send as much as ever, so it is lost or led elsewhere between them and the load balancer: see "
            "whether some tasks have another COLLECTOR_HEC_URL, and whether connections fail.",
            f"See {_DROPPED}.",
        ]
    if sending is not None and is_more and sending < 1 / _AS_EVER:
        return ["The tasks send no more than ever, so somebody else sends by this load balancer: see its clients."]
    if is_more:
        return [
            "See whether devices send more (collector_upload_bytes_total), or whether a deploy made the log wordier.",
            f"Splunk has to keep up: a rise of {_DROPPED} says that it doesn't.",
        ]
    return [
        f"See {_DROPPED}: a task that drops lines sends fewer bytes.",
        "See how many tasks run, whether devices send less (collector_upload_bytes_total), and whether a deploy made "
        "the log shorter or compresses it better.",
    ]


LOOK_AT_PATTERN = (
    "The amount comes and goes otherwise than at this time of other weeks: see whether a deploy changed the batches or "
    "the linger of HEC, whether HEC stalls and is caught up with in lumps, and whether other users have come.",
    f"See {_DROPPED}, which grows in the stalls if the buffers are too small for them.",
)
LOOK_AT_LOSS = (
    "More and more of what the tasks send does not come through: see whether connections to HEC fail or are retried "
    "(what is sent twice is counted twice by a task), and whether some tasks send past this load balancer.",
    f"See {_DROPPED} and the health of the load balancer's targets.",
)
LOOK_AT_GAIN = (
    "More comes through than the tasks say they send: see whether the metrics of all tasks are read (a task that is "
    "not scraped still sends), and whether others send by this load balancer.",
)
LOOK_AT_SILENCE = (
    "See whether name and region are those of the load balancer: CloudWatch says of a name that it doesn't know what "
    "it says of one without traffic.",
    "See whether anything was ever sent by it: COLLECTOR_HEC_URL of the tasks, and collector_hec_wire_bytes_total.",
)
LOOK_AT_SILENT_TASKS = (
    "See whether the tasks run and their metrics are read: the admin listener's /metrics wants COLLECTOR_ADMIN_TOKEN "
    "when it is not on loopback.",
    "Until they are, a loss between the tasks and the load balancer is not seen.",
)
