"""
Gathers what strangers can cause at will, so that it is logged once a flush for each kind and not once each.
"""

from __future__ import annotations

import threading
from collections.abc import Collection

from collector.clock import Clock
from collector.telemetry.metrics import OVERFLOW

#: Kinds between two flushes; more are logged as one, `OVERFLOW`. A line costs 60 to 100 µs (measured), so that a
#: flush holds up the loop for 50 ms at the worst.
MAX_KEYS = 500

Values = tuple[str | int | None, ...]


class Kind:
    """Occurrences of one kind since the last flush; `values` are the fields of the first one."""

    __slots__ = ("count", "first_us", "last_us", "values")

    def __init__(self, values: Values, now_us: int) -> None:
        self.values = values
        self.count = 0
        self.first_us = now_us
        self.last_us = now_us


class Gathering:
    """What was gathered since the last flush. Safe to use from any thread or greenlet."""

    def __init__(self, clock: Clock, *, max_keys: int) -> None:
        self._clock = clock
        self._max_keys = max_keys
        self._lock = threading.Lock()
        self._kinds: dict[tuple[str | None, ...], Kind] = {}

    def add(
        self,
        name: str,
        key: tuple[str | None, ...],
        values: Values,
        count: int,
        *,
        span_us: tuple[int, int] | None = None,
    ) -> bool:
        """
        Put `count` occurrences of the signal `name` to their like; return whether they had to be folded.

        They are of now, or the first and the last of them of `span_us`.
        """
        first_us, last_us = span_us or (self._clock.now_us(),) * 2
        with self._lock:
            kind = self._kinds.get((name, *key))
            folded = kind is None and len(self._kinds) >= self._max_keys
            if folded:
                key, values = (OVERFLOW,), (OVERFLOW,) * len(values)
                kind = self._kinds.get((name, *key))
            if kind is None:
                kind = self._kinds[(name, *key)] = Kind(values, first_us)
            kind.count += count
            kind.last_us = last_us
        return folded

    def take(self, hold: Collection[str] = ()) -> list[tuple[str, Kind]]:
        """Return what was gathered, with the signals' names, and begin anew; those of the names `hold` stay."""
        with self._lock:
            kinds = self._kinds
            self._kinds = {key: kind for key, kind in kinds.items() if key[0] in hold}
        return [(str(name), kind) for (name, *_), kind in kinds.items() if name not in hold]
