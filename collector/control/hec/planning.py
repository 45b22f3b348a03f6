"""
What the stress test is asked for, and how runs are cut so that they fit into the time that there is.
"""

from __future__ import annotations

import math
from collections.abc import Sequence

import msgspec

from collector.control.hec import prediction
from collector.errors import TuneError

#: Buffers that are tried, as parts of what the goal needs.
BUFFERS = (0.5, 1.0, 2.0)
#: An outage of a run ends so far from the sender's attempts before and after it, in seconds: batches leave every 0.05 s
#: then, so each run of it is as long for the sender. A choice.
_AWAY_S = 0.08
_SEEDS = 500


class Goal(msgspec.Struct, frozen=True, kw_only=True):
    """What is to be outlived without loss: lines a second of each worker, an outage in seconds, how many workers."""

    lines_per_s: float
    outage_s: float
    workers: int
    batch_bytes: int = 256 << 10
    batch_lines: int = 500
    linger_s: float = 1.0


class Effort(msgspec.Struct, frozen=True, kw_only=True):
    """
    How much is done: seconds of a run's outage and of a flood, halvings of a search, and rates above it as factors.

    `is_real`: at the goal's own rate and with its own buffers, however small.
    """

    outage_s: float
    flood_s: float
    halvings: int
    above: tuple[float, ...] = ()
    is_real: bool = False


#: The seconds that these take before a HEC that answers at once; `effort_for` has those in between.
QUICK_S, USUAL_S, THOROUGH_S = 20.0, 50.0, 480.0
#: What a run takes beside its outage, and how much longer than its outage a sender is silent. Measured.
_RUN_S, _SILENT_PER_OUTAGE = 0.6, 1.35


def effort_for(seconds: float, *, outage_s: float = math.inf) -> Effort:
    """
    Return what fits into so many seconds; raises `TuneError` when nothing does.

    `outage_s`: no run's outage is longer. The number of runs grows with the time, and then the outage does.
    """
    if seconds < QUICK_S:
        raise TuneError(f"{seconds:g} s are too few for a search; give --seconds {QUICK_S:.0f} or more")
    halvings = 0 if seconds < USUAL_S else 2 if seconds < THOROUGH_S else 4
    above = () if seconds < USUAL_S else (2.0,) if seconds < THOROUGH_S else (1.6, 2.5)
    flood_s = max(1.0, min(8.0, seconds / 25))
    each_s = (seconds - flood_s) / runs_of(halvings, above) - _RUN_S
    return Effort(
        outage_s=min(outage_s, max(0.3, each_s / _SILENT_PER_OUTAGE)), flood_s=flood_s, halvings=halvings, above=above
    )


def runs_of(halvings: int, above: Sequence[float]) -> int:
    """Return how many runs such a search makes, usually: it may widen where it looks."""
    return len(BUFFERS) * (4 + halvings + len(above)) + 1


def seconds_for(effort: Effort) -> float:
    """Return about how long a search takes; the inverse of `effort_for`."""
    each_s = effort.outage_s * _SILENT_PER_OUTAGE + _RUN_S
    return effort.flood_s + runs_of(effort.halvings, effort.above) * each_s


class Scale(msgspec.Struct, frozen=True, kw_only=True):
    """By what a run's outage is shorter than the goal's, and its rate higher (or, below 1, lower)."""

    shorter: float
    faster: float

    @property
    def of_buffer(self) -> float:
        """Return what part of a real buffer a run's is."""
        return self.faster / self.shorter


class Steady(msgspec.Struct, frozen=True, kw_only=True):
    """An outage whose end no run's sender notices sooner or later than another's, all with the same `seed`."""

    outage_s: float
    seed: int
    silent_s: float


def steady(outage_s: float, *, attempt_s: float = 0.0) -> Steady:
    """
    Return an outage of about this length, and the chance for the sender's pauses, that make runs alike.

    A sender pauses by chance, longer each time. With the same chance its pauses are the same in each run, and the
    outage ends well between two attempts: of all such, the one after which the sender is silent for the shortest time.
    """
    found = [one for seed in range(_SEEDS) if (one := _between(outage_s, seed, attempt_s)) is not None]
    return min(found, key=lambda one: one.silent_s, default=Steady(outage_s=outage_s, seed=0, silent_s=2 * outage_s))


def _between(outage_s: float, seed: int, attempt_s: float) -> Steady | None:
    before_s = 0.0
    for after_s in prediction.attempts_s(seed, until_s=2 * outage_s, attempt_s=attempt_s):
        if before_s + _AWAY_S <= outage_s <= after_s - _AWAY_S:
            return Steady(outage_s=outage_s, seed=seed, silent_s=after_s)
        before_s = after_s
    return None
