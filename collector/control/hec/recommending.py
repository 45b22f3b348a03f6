"""
From what was measured to what to write into the settings, in real sizes, with the reasons.
"""

from __future__ import annotations

import math

import msgspec

from collector.control.hec import prediction
from collector.control.hec.drivers import DriverSettings, drivers_for
from collector.control.hec.planning import Goal
from collector.control.hec.tuning import Found
from collector.telemetry.hec.options import MAX_BATCH_BYTES

_MIB = 1 << 20
#: What is added to what arithmetic and measurement ask for. A choice.
MARGIN = 1.1
#: What leaves should be so many times what comes, or a backlog takes for ever to go: section "sizing" of docs/hec.md.
DRAIN_OF_RATE = 2.0
_BATCHES = (256 << 10, 512 << 10, MAX_BATCH_BYTES)
#: Outages of about the goal's length.
_ABOUT = (0.7, 0.8, 0.9, 1.0)
#: A sender waits so long for a connection, and for an answer: what an attempt in a black hole takes.
ATTEMPT_S = {"refusing": 0.0, "answering": 0.0, "reset": 0.0, "black-hole": 10.0}


class Recommendation(msgspec.Struct, frozen=True, kw_only=True):
    """
    What to set, and what it costs.

    The sender is silent for `outage_s` and up to `unnoticed_s` more; `correction` is by how much less the runs held
    than was predicted, at the worst. `ceiling` is what one connection carries with these batches, in bytes a second;
    after the outage the backlog is gone in `recovery_s`, infinite if never. `memory_bytes` are of the whole task.
    `cautions` are sentences on what a buffer can't mend.
    """

    buffer_bytes: int
    batch_bytes: int
    batch_lines: int
    linger_s: float
    outage_s: float
    unnoticed_s: float
    correction: float
    rate: float
    line_bytes: float
    ceiling: float
    recovery_s: float
    memory_bytes: float
    batch_fills_s: float
    drivers: DriverSettings
    cautions: list[str]

    @property
    def silent_s(self) -> float:
        """Return how long nothing leaves, at the worst."""
        return self.outage_s + self.unnoticed_s

    @property
    def environment(self) -> dict[str, str]:
        """Return the variables to set."""
        return {
            "COLLECTOR_HEC_BUFFER_BYTES": str(self.buffer_bytes),
            "COLLECTOR_HEC_BATCH_BYTES": str(self.batch_bytes),
            "COLLECTOR_HEC_LINGER_S": f"{self.linger_s:g}",
        }


def recommend(found: Found, goal: Goal, *, text_bytes: float, how: str) -> Recommendation:
    """
    Return what outlives the goal; `how` is the way of the outage, a key of `ATTEMPT_S`.

    `text_bytes` is a line as it is written, without its envelope.
    """
    line_bytes = found.flood.line_bytes
    rate = goal.lines_per_s * line_bytes
    # Where in an attempt an outage ends decides much, and nobody knows its length to the second.
    unnoticed_s = max(prediction.unnoticed_s(goal.outage_s * part, attempt_s=ATTEMPT_S[how]) for part in _ABOUT)
    correction = worst_correction(found)
    batch_bytes, carried = _batch(found, rate, goal)
    # One batch is under way when an outage begins, and another is filled.
    held = 2 * _filled(batch_bytes, found, goal)
    needed = prediction.outage_bytes(rate, goal.outage_s + unnoticed_s) * correction * MARGIN + held
    buffer_bytes = max(1, math.ceil(prediction.buffer_for(needed) / _MIB)) * _MIB
    backlog = prediction.usable_bytes(buffer_bytes)
    recovery_s = prediction.recovery_s(backlog, rate, drain=carried)
    return Recommendation(
        buffer_bytes=buffer_bytes,
        batch_bytes=batch_bytes,
        batch_lines=goal.batch_lines,
        linger_s=goal.linger_s,
        outage_s=goal.outage_s,
        unnoticed_s=unnoticed_s,
        correction=correction,
        rate=rate,
        line_bytes=line_bytes,
        ceiling=carried,
        recovery_s=recovery_s,
        memory_bytes=prediction.memory_bytes(
            buffer_bytes, batch_bytes=batch_bytes, line_bytes=line_bytes, workers=goal.workers
        ),
        batch_fills_s=_filled(batch_bytes, found, goal) / rate,
        drivers=drivers_for(
            goal.lines_per_s, text_bytes=text_bytes, workers=goal.workers, outage_s=goal.outage_s + unnoticed_s
        ),
        cautions=_cautions(rate, carried),
    )


def worst_correction(found: Found) -> float:
    """
    Return by how much less the runs held than was predicted, at the worst; 1 when they held as much or more.

    What was held when an outage began is no part of it; and of a rate only what is lossy for certain is.
    """
    worst = 1.0
    for point in found.points:
        usable = prediction.usable_bytes(point.buffer_bytes)
        if point.lossy_per_s:
            worst = max(worst, point.predicted_per_s * (1 - point.held_bytes / usable) / point.lossy_per_s)
        if point.first_drop_s:
            worst = max(worst, point.predicted_drop_s * (1 - point.drop_held_bytes / usable) / point.first_drop_s)
    return worst


def _filled(batch_bytes: int, found: Found, goal: Goal) -> float:
    """Return what such a batch comes to: it ends with so many lines, too, and there is no setting for that."""
    return min(batch_bytes, goal.batch_lines * found.flood.line_bytes)


def _batch(found: Found, rate: float, goal: Goal) -> tuple[int, float]:
    """Return the smallest batch with which one connection carries twice what comes, and what it carries."""
    tried = [goal.batch_bytes, *(size for size in _BATCHES if size > goal.batch_bytes)]
    carried = [_carried(found, _filled(size, found, goal)) for size in tried]
    for size, one in zip(tried, carried, strict=True):
        if one >= DRAIN_OF_RATE * rate:
            return size, one
    best = max(range(len(tried)), key=carried.__getitem__)
    return tried[best], carried[best]


def _carried(found: Found, batch_bytes: float) -> float:
    """Return what one connection carries with such batches: as predicted, times how the measured one stood to that."""
    look = found.look
    part = batch_bytes / look.batch_bytes
    answer_s = look.round_trip_s + max(0.0, look.answer_s - look.round_trip_s) * part
    predicted = prediction.ceiling(batch_bytes, answer_s=answer_s, gzip_s=look.gzip_s * part)
    return predicted * found.flood.rate / found.predicted_rate


def _cautions(rate: float, carried: float) -> list[str]:
    if carried <= rate:
        return [
            f"More comes ({rate / 1e6:.2g} MB/s) than one connection carries ({carried / 1e6:.2g} MB/s): a buffer of"
            " any size fills, and lines are lost without an outage. Say less, spread it over more workers, or mend HEC"
        ]
    if carried < DRAIN_OF_RATE * rate:
        return [
            f"One connection carries {carried / rate:.2g} times what comes; with less than {DRAIN_OF_RATE:g} times the"
            " backlog of an outage goes slowly, and a second outage meets it"
        ]
    return []
