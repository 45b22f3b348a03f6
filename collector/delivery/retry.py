"""
When to try again.
"""

from __future__ import annotations

import random

#: After this many failures the bound of the delay grows no more; 2**30 half-seconds is 17 years.
_MOST_DOUBLINGS = 30


class Backoff:
    """Full jitter: a delay drawn evenly from zero to a bound that doubles with each failure up to a cap."""

    def __init__(self, *, rng: random.Random, base_s: float = 0.25, cap_s: float = 15.0) -> None:
        self._rng = rng
        self._base_s = base_s
        self._cap_s = cap_s

    def delay_s(self, failures: int) -> float:
        """Return the seconds to wait after so many failures in a row (1 is the first)."""
        doublings = min(max(failures - 1, 0), _MOST_DOUBLINGS)
        return self._rng.uniform(0.0, min(self._cap_s, self._base_s * 2.0**doublings))
