"""
Bytes by the minute, and what is wrong when there are none to be had.

A minute is a number: minutes since the epoch, UTC. The minute m is the time from m to m + 1.
"""

from __future__ import annotations

import re
from collections.abc import Mapping, Sequence
from datetime import UTC, datetime, timedelta

import msgspec

from collector.errors import CannotLook

DAY = 24 * 60
EXAMPLE = "2026-01-02T03:04Z"

_EPOCH = datetime.fromtimestamp(0, UTC)
_MINUTE = timedelta(minutes=1)
_METRIC = re.compile(r"(?P<namespace>[^:/,][^:,]*)/(?P<name>[^/,]+)(?P<dimensions>(,[^=,]+=[^,]+)*)")


class Series(msgspec.Struct, frozen=True):
    """Bytes of each minute from `start` on; None where nobody knows them. `has_data`: anything was reported at all."""

    start: int
    values: Sequence[float | None]
    has_data: bool = True

    @property
    def end(self) -> int:
        """The first minute after the last one."""
        return self.start + len(self.values)


class Metric(msgspec.Struct, frozen=True):
    """A metric of CloudWatch; the dimensions are those with which it is put, all of them."""

    namespace: str
    name: str
    dimensions: tuple[tuple[str, str], ...] = ()

    @classmethod
    def parse(cls, text: str) -> Metric:
        """Read `NAMESPACE/NAME[,Dimension=Value…]`; the last slash parts the name. Raises `CannotLook`."""
        match = _METRIC.fullmatch(text)
        if match is None:
            raise CannotLook(
                f"{text!r} names no metric: write NAMESPACE/NAME, and its dimensions after commas, such as "
                "Collector/HecWireBytes,Service=collector"
            )
        pairs = [pair.partition("=") for pair in match["dimensions"].split(",")[1:]]
        return cls(match["namespace"], match["name"], tuple((name, value) for name, _, value in pairs))

    def __str__(self) -> str:
        return ",".join([f"{self.namespace}/{self.name}", *("=".join(pair) for pair in self.dimensions)])


def filled(points: Mapping[int, float], *, start: int, end: int, is_gap_zero: bool) -> Series:
    """
    Make a series of the minutes from `start` to before `end` out of those that were reported.

    A load balancer reports nothing of a minute without traffic: there a gap is zero. Of a counter that nobody has read
    a gap is unknown.
    """
    gap = 0.0 if is_gap_zero else None
    values = [points.get(minute, gap) for minute in range(start, end)]
    return Series(start, values, has_data=any(start <= minute < end for minute in points))


def minute_of(moment: datetime) -> int:
    """Return the minute of a moment, which has a zone."""
    return (moment - _EPOCH) // _MINUTE


def moment_of(minute: int) -> datetime:
    """Return the moment at which a minute begins, in UTC."""
    return _EPOCH + minute * _MINUTE


def stamp(minute: int) -> str:
    """Write a minute: `2026-01-02T03:04Z`."""
    return f"{moment_of(minute):%Y-%m-%dT%H:%MZ}"


def parse_minute(text: str) -> int:
    """Read a time with its zone, down to the minute; raises `ValueError`."""
    moment = datetime.fromisoformat(text)
    if moment.tzinfo is None:
        raise ValueError("it has no zone")
    return minute_of(moment)
