"""
What the parts of `signals.Signals` have in common.
"""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Callable, Mapping

from collector.telemetry.metrics import Metrics


class SignalsPart(ABC):
    """Some signals: they count in `_metrics`, and say a line at once or gather it with its like."""

    _metrics: Metrics
    #: By level.
    _say: Mapping[str, Callable[..., object]]

    @abstractmethod
    def _gather(
        self,
        name: str,
        key: tuple[str | None, ...],
        *,
        values: tuple[str | int | None, ...] | None = None,
        count: int = 1,
        span_us: tuple[int, int] | None = None,
    ) -> None:
        """Log it later, together with its like; `span_us` are the first and the last of them, if not now."""


def flag(value: bool) -> str:
    """Write a truth as a label."""
    return "true" if value else "false"
