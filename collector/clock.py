"""
The only place that reads the clock.
"""

from __future__ import annotations

import time
from typing import Protocol


class Clock(Protocol):
    """What the rest of Collector knows of time; tests have a fake."""

    def now_us(self) -> int:
        """Return microseconds since the epoch, UTC."""

    def monotonic(self) -> float:
        """Return seconds that never go back, from an arbitrary start, shared by all processes of the host."""


class SystemClock:
    """The machine's own clocks."""

    def now_us(self) -> int:
        """Return microseconds since the epoch, UTC."""
        return time.time_ns() // 1000

    def monotonic(self) -> float:
        """Return CLOCK_MONOTONIC in seconds."""
        return time.monotonic()


def pause(seconds: float) -> None:
    """Let a thread wait so long; whoever has a loop to go on waits by that."""
    time.sleep(seconds)
