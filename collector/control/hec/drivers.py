"""
The same outage for those whose lines leave by an ECS log driver instead: `mode` and `max-buffer-size`.

A driver's buffer is a ring of message text, of one container, and bounds what all workers write to standard output
together. When it is full, new messages are dropped: no line says so, and no metric.
"""

from __future__ import annotations

import math

import msgspec

#: What ECS takes when a task definition names none, since 2025-06-25: non-blocking, and so many bytes. Before, and in
#: Docker by itself, a full buffer blocks whoever writes, health checks included.
ECS_DEFAULT_BYTES = 10_000_000
_UNIT = 1_000_000


class Seen(msgspec.Struct, frozen=True):
    """What AWS saw at up to so many bytes a second of log text: the least buffer without loss, None: none was."""

    up_to_rate: float
    clean_bytes: int | None
    words: str


#: Of some 17,000 runs of awslogs in its own Region (AWS containers blog, 2023-08-03; moby issue 45999). No outages: it
#: is what a buffer needs to carry a rate at all.
AWS_SEEN = (
    Seen(1.2e6, 1_000_000, "no loss was seen with 1 MB"),
    Seen(2e6, 4_000_000, "13.4 % were lost with 1 MB, none with 2; AWS advises 4 MB or more"),
    Seen(3e6, 6_000_000, "6.8 % were lost with 2 MB, 1.4 % with 4, none with 6"),
    Seen(4e6, 6_000_000, "24.5 % were lost with 1 MB, 7 % with 2, none with 4; as for 3 MB/s, 6 MB are safer"),
    Seen(5e6, 25_000_000, "33.7 % were lost with 1 MB and 10.2 % with 2; AWS advises 25 MB or more"),
    Seen(math.inf, None, "over 5 MB/s, or to another Region, no buffer was reliable: use FireLens, or HEC directly"),
)  # fmt: skip


class DriverSettings(msgspec.Struct, frozen=True, kw_only=True):
    """
    What to write into `logConfiguration.options`.

    `buffer_bytes` of text hold the outage; `seen` is AWS's own experience at this rate.
    """

    rate: float
    buffer_bytes: int
    seen: Seen

    @property
    def options(self) -> dict[str, str]:
        """Return the options; they are the same for `awslogs`, `splunk` and `awsfirelens`."""
        return {"mode": "non-blocking", "max-buffer-size": f"{math.ceil(self.buffer_bytes / _UNIT)}m"}

    @property
    def is_over_default(self) -> bool:
        """Tell whether ECS's own default is too small for it."""
        return self.buffer_bytes > ECS_DEFAULT_BYTES


def drivers_for(lines_per_s: float, *, text_bytes: float, workers: int, outage_s: float) -> DriverSettings:
    """
    Return the settings that outlive the same outage; `text_bytes` is a line as it is written, without an envelope.

    The buffer is no smaller than what AWS saw no loss with at this rate.
    """
    rate = lines_per_s * text_bytes * workers
    seen = next(one for one in AWS_SEEN if rate <= one.up_to_rate)
    needed = max(rate * outage_s, seen.clean_bytes or 0.0, 1.0)
    return DriverSettings(rate=rate, buffer_bytes=math.ceil(needed / _UNIT) * _UNIT, seen=seen)
