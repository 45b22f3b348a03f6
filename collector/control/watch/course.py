"""
Windows of five minutes: what a series is judged by, and where each lies in the day and in the week.

A minute alone is told late, or in its neighbour; an hour is too long to wait for.
"""

from __future__ import annotations

from collections.abc import Sequence
from datetime import timedelta
from functools import lru_cache
from zoneinfo import ZoneInfo, ZoneInfoNotFoundError

import msgspec

from collector.control.watch.series import DAY, Series, moment_of
from collector.errors import CannotLook

#: Minutes of a window, windows of an hour and of a day. CloudWatch keeps minutes for 15 days and five minutes for 63.
WINDOW = 5
HOUR, SLOTS = 60 // WINDOW, DAY // WINDOW
#: The epoch was a Thursday.
_THURSDAY = 3
#: Zones whose days shift by an hour, each by another rule; where one has shifted, users of some part of the world have.
_SHIFTING = ("America/New_York", "Europe/Berlin", "America/Santiago", "Australia/Sydney", "Pacific/Auckland")


class Course(msgspec.Struct, frozen=True):
    """
    What went through, window by window: bytes that the load balancer `processed`, and that the tasks `sent`.

    Of `sent` a window is None where a minute of it is unknown; all of it is None where nobody was asked. The windows
    from `judged` on are judged, by what those before it were.
    """

    start: int
    processed: Sequence[float]
    sent: Sequence[float | None] | None
    judged: int

    def minute(self, window: int) -> int:
        """Return the minute at which a window begins."""
        return self.start + window * WINDOW


class Place(msgspec.Struct, frozen=True):
    """Where a window lies: its day, counted from the epoch, the window of that day, and the day of the week from 0."""

    day: int
    slot: int
    weekday: int


def course_of(processed: Series, sent: Series | None, *, end: int, recent: int) -> Course:
    """
    Cut series into windows, the last of which ends with the minute before `end`; the last `recent` minutes are judged.

    What both have in common is taken, unless only one is there.
    """
    count = (end - processed.start) // WINDOW
    start = end - count * WINDOW
    flowed = _windows(processed, start, count)
    judged = max(count - max(recent // WINDOW, 1), 0)
    return Course(
        start, [value or 0.0 for value in flowed], None if sent is None else _windows(sent, start, count), judged
    )


def _windows(series: Series, start: int, count: int) -> list[float | None]:
    before = max(series.start - start, 0)
    values = [*([None] * before), *series.values[max(start - series.start, 0) :]]
    values += [None] * (count * WINDOW - len(values))
    sums: list[float | None] = []
    for at in range(0, count * WINDOW, WINDOW):
        minutes = values[at : at + WINDOW]
        sums.append(None if None in minutes else sum(minutes))  # type: ignore[arg-type]
    return sums


class Calendar:
    """
    Days as the users have them: of one zone, or UTC, which is what a load balancer's clock shows.

    Raises `CannotLook` for a zone that is not known here.
    """

    def __init__(self, zone: str = "") -> None:
        self._zone = _zone(zone) if zone else None
        self.is_given = bool(zone)

    def place(self, minute: int) -> Place:
        """Say where a minute lies."""
        day, rest = divmod(minute + (self._offset(minute // 60) if self._zone else 0), DAY)
        return Place(day, rest // WINDOW, (day + _THURSDAY) % 7)

    def may_be_shifted(self, minute: int, *, within: int) -> bool:
        """Tell whether users' clocks somewhere were set by an hour in so many minutes before, and ours were not."""
        return not self.is_given and any(_has_shifted(name, minute // 60, within // 60) for name in _SHIFTING)

    @lru_cache(maxsize=4096)  # noqa: B019 -- a calendar lives as long as a command
    def _offset(self, hour: int) -> int:
        offset = moment_of(hour * 60).astimezone(self._zone).utcoffset() or timedelta()
        return offset // timedelta(minutes=1)


def _zone(name: str) -> ZoneInfo:
    try:
        return ZoneInfo(name)
    except (ZoneInfoNotFoundError, ValueError, OSError) as error:
        raise CannotLook(
            f"--timezone {name!r} is no zone that this machine knows; write one such as Europe/Berlin"
        ) from error


@lru_cache(maxsize=4096)
def _has_shifted(name: str, hour: int, within: int) -> bool:
    try:
        zone = ZoneInfo(name)
    except (ZoneInfoNotFoundError, OSError):
        return False
    now, then = (moment_of(one * 60).astimezone(zone).utcoffset() for one in (hour, hour - within))
    return now != then
