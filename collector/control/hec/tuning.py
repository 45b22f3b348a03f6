"""
The stress test: which runs are made, and for each buffer the rate and the outage at which loss starts.

Real sizes would take hours, for an outage of half a minute is one of half a minute. What decides is the quotient of
buffer and what comes in an outage, so runs are made with outages that are shorter, and buffers that are smaller, by the
same factor. What is told of them is what was measured; only the recommendation goes back to real sizes.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence

import msgspec

from collector.control.hec import prediction
from collector.control.hec.cells import Cell, Flood, Run
from collector.control.hec.driving import Bench
from collector.control.hec.flooding import flood, makes_per_s
from collector.control.hec.lines import Lines
from collector.control.hec.planning import BUFFERS, Effort, Goal, Scale, steady
from collector.control.hec.preflight import Look
from collector.control.hec.searching import AROUND, bracket, narrowed

#: The least that a run's buffer holds: below it, a single batch is a good part of it. A choice.
_LEAST_BUFFER_BYTES = 256 << 10
#: A run's batch is no more than this part of its buffer: what is under way is held, too. A choice.
_BATCH_OF_BUFFER, _LEAST_BATCH_BYTES = 16, 16 << 10
#: Batches of a run leave so often, in seconds: what is held when an outage begins, and how sharply it begins. A choice.
_MOST_LINGER_S = 0.05
#: Part of what this machine can make that a run may ask for: the sender needs the rest. A choice.
MOST_OF_MACHINE = 0.4
#: So much of a core, and whoever uses it is the limit. A choice.
BUSY = 0.85
#: A ceiling below this part of what was predicted has another cause than HEC. A choice.
_AS_PREDICTED = 0.8

#: Is told what is being done and, when it has been, what came of it.
Progress = Callable[[str, str], None]


class Point(msgspec.Struct, frozen=True, kw_only=True):
    """
    What was found for one buffer: rates in lines a second, in an outage of `outage_s`.

    Loss starts between `clean_per_s` and `lossy_per_s` (None: not even the fastest that could be made was lossy), where
    `predicted_per_s` was predicted for a sender that is silent for as long as these were. At the rate `at_per_s` the
    first line was dropped after `first_drop_s`, where `predicted_drop_s` was predicted. `held_bytes` and
    `drop_held_bytes`: what the buffer held, on average and then, when the outage began; the prediction leaves it out.
    """

    buffer_bytes: int
    outage_s: float
    silent_s: float
    clean_per_s: float
    lossy_per_s: float | None
    predicted_per_s: float
    at_per_s: float
    first_drop_s: float | None
    predicted_drop_s: float
    held_bytes: float
    drop_held_bytes: int
    runs: list[Run]

    @property
    def starts_per_s(self) -> float | None:
        """Return the rate at which loss starts: the middle of where it must be."""
        return None if self.lossy_per_s is None else math.sqrt(self.clean_per_s * self.lossy_per_s)


class Found(msgspec.Struct, frozen=True, kw_only=True):
    """All that was measured; `limits` are sentences about what else than the buffer was the limit."""

    look: Look
    flood: Flood
    machine_per_s: float
    predicted_rate: float
    scale: Scale
    severe_part: float
    points: list[Point]
    limits: list[str]


class Tuning:
    """Makes the runs for a goal; `tell` is told of each, and `looks` called in between. Raises `TuneError`."""

    def __init__(
        self, bench: Bench, goal: Goal, effort: Effort, *, tell: Progress, attempt_s: float = 0.0,
        looks: Callable[[], None] | None = None,
    ) -> None:  # fmt: skip
        self._bench = bench
        self._goal = goal
        self._effort = effort
        self._steady = steady(effort.outage_s, attempt_s=attempt_s)
        self._tell = tell
        self._looks = looks
        self._limits: list[str] = []

    def find(self, look: Look, spare: Lines) -> Found:
        """Measure what one connection and this machine can do, then where loss starts for each buffer."""
        self._tell("how fast this machine makes lines", "")
        full = self._cell(buffer_bytes=8 * self._goal.batch_bytes, lines_per_s=0.0, outage_s=0.0)
        machine_per_s = makes_per_s(self._bench, full, spare)
        self._tell("how much one connection carries", "")
        flooded = flood(self._bench, full, self._effort.flood_s, looks=self._looks)
        predicted_rate = _predicted_rate(look, flooded.batch_bytes)
        self._limits += ceiling_limits(flooded, predicted_rate)
        scale = self.scale(flooded.line_bytes, machine_per_s)
        points = [self._point(part, scale, flooded, machine_per_s) for part in BUFFERS]
        return Found(
            look=look, flood=flooded, machine_per_s=machine_per_s, predicted_rate=predicted_rate, scale=scale,
            severe_part=self._bench.lines.severe_part, points=points, limits=self._limits,
        )  # fmt: skip

    def scale(self, line_bytes: float, machine_per_s: float) -> Scale:
        """Return how runs are scaled: short enough, with buffers that are not too small, and rates that can be made."""
        goal = self._goal
        shorter = max(1.0, goal.outage_s / self._effort.outage_s)
        wanted = goal.lines_per_s * line_bytes * goal.outage_s / shorter * min(BUFFERS)
        faster = 1.0 if self._effort.is_real else max(1.0, _LEAST_BUFFER_BYTES / wanted)
        # The search goes up to twice the rate of the largest buffer, and beyond.
        most_per_s = MOST_OF_MACHINE * machine_per_s / (max(BUFFERS) * AROUND)
        if goal.lines_per_s * faster > most_per_s:
            faster = most_per_s / goal.lines_per_s
            if faster < 1:
                self._limits.append(
                    f"This machine makes {machine_per_s:,.0f} lines a second at the most, so {goal.lines_per_s:,.0f} "
                    f"a second, and more, can't be driven from here: runs have {faster:.2g} times the rate, and what "
                    "is said of the goal is arithmetic on them"
                )
        return Scale(shorter=shorter, faster=faster)

    def confirm(self, buffer_bytes: int, silent_s: float, scale: Scale) -> Run:
        """
        Make a run at the goal with this buffer, scaled; its outage ends so that it is as bad as one of `silent_s`.

        The pauses of a sender do not scale with an outage, so it lasts until as much has come as would have.
        """
        of_run_s = silent_s / scale.shorter
        # What is kept for warnings is another part of a small buffer than of a large one.
        usable = prediction.usable_bytes(buffer_bytes) * scale.of_buffer
        cell = self._cell(
            buffer_bytes=prediction.buffer_for(usable), lines_per_s=self._goal.lines_per_s * scale.faster,
            outage_s=of_run_s,
        )  # fmt: skip
        return self._run(cell, until_drop=True)

    # -- one buffer ----------------------------------------------------------------------------------------

    def _point(self, part: float, scale: Scale, flooded: Flood, machine_per_s: float) -> Point:
        goal, outage_s = self._goal, self._goal.outage_s / scale.shorter
        at_per_s = goal.lines_per_s * scale.faster
        buffer_bytes = prediction.buffer_for(at_per_s * flooded.line_bytes * outage_s * part)
        usable = prediction.usable_bytes(buffer_bytes)
        most_per_s = min(MOST_OF_MACHINE * machine_per_s, 0.8 * flooded.rate / flooded.line_bytes)
        runs: list[Run] = []

        def is_lossy(per_s: float) -> bool:
            runs.append(self._run(self._cell(buffer_bytes=buffer_bytes, lines_per_s=per_s, outage_s=outage_s)))
            return runs[-1].lost > 0

        # The first run says how long such an outage is for the sender.
        guess = prediction.loss_starts_at(usable, self._steady.silent_s) / flooded.line_bytes
        is_lossy(min(guess, most_per_s))
        guess = prediction.loss_starts_at(usable, runs[0].silent_s) / runs[0].line_bytes
        clean, lossy = bracket(is_lossy, guess, most=most_per_s)
        clean, lossy = narrowed(is_lossy, clean, lossy, halvings=self._effort.halvings)
        for factor in self._effort.above if lossy else ():
            is_lossy(min(most_per_s, factor * guess))
        drop = self._run(
            self._cell(buffer_bytes=buffer_bytes, lines_per_s=at_per_s, outage_s=10 * outage_s * part), until_drop=True
        )
        silent_s = sum(run.silent_s for run in runs) / len(runs)
        return Point(
            buffer_bytes=buffer_bytes, outage_s=outage_s, silent_s=silent_s, clean_per_s=clean, lossy_per_s=lossy,
            predicted_per_s=prediction.loss_starts_at(usable, silent_s) / flooded.line_bytes, at_per_s=at_per_s,
            first_drop_s=drop.first_drop_s, drop_held_bytes=drop.held_bytes,
            held_bytes=sum(run.held_bytes for run in runs) / len(runs), runs=runs,
            predicted_drop_s=prediction.first_drop_s(usable, drop.per_s * drop.line_bytes),
        )  # fmt: skip

    def _run(self, cell: Cell, *, until_drop: bool = False) -> Run:
        what = "until the first drop" if until_drop else f"{cell.outage_s:.2g} s out"
        what = f"buffer {cell.buffer_bytes / 1024:,.0f} KiB, {cell.lines_per_s:,.0f} lines/s, {what}"
        self._tell(what, "")
        run = self._bench.run(cell, until_drop=until_drop, looks=self._looks)
        lost = f"{run.lost:,} lost, {run.loss_part:.1%} of what came meanwhile" if run.lost else "nothing lost"
        self._tell(what, f"{lost}; silent for {run.silent_s:.2g} s")
        if not run.kept_pace:
            self._limits.append(
                f"This machine made {run.per_s:,.0f} lines a second of the {cell.lines_per_s:,.0f} that were asked of "
                f"it, and was busy for {run.busy:.0%} of a core: it was the limit there, not HEC and not the buffer"
            )
        return run

    def _cell(self, *, buffer_bytes: int, lines_per_s: float, outage_s: float) -> Cell:
        goal = self._goal
        batch_bytes = min(goal.batch_bytes, max(_LEAST_BATCH_BYTES, buffer_bytes // _BATCH_OF_BUFFER))
        batch_bytes = goal.batch_bytes if not lines_per_s else batch_bytes
        part = batch_bytes / goal.batch_bytes
        return Cell(
            buffer_bytes=buffer_bytes, batch_bytes=batch_bytes, batch_lines=max(1, round(goal.batch_lines * part)),
            linger_s=min(_MOST_LINGER_S, goal.linger_s) if lines_per_s else goal.linger_s, lines_per_s=lines_per_s,
            outage_s=outage_s, seed=self._steady.seed,
        )  # fmt: skip


def ceiling_limits(flooded: Flood, predicted_rate: float) -> Sequence[str]:
    """Say what bounded the most that one connection carried, if it was not HEC and the way to it."""
    said = f"One connection carried {flooded.rate / 1e6:.1f} MB/s, where {predicted_rate / 1e6:.1f} were predicted"
    if flooded.busy >= BUSY:
        return [f"{said}; load and sender were busy for {flooded.busy:.0%} of a core, so this machine was the limit"]
    if flooded.target_busy is not None and flooded.target_busy >= BUSY:
        return [f"{said}; the simulated HEC was busy for {flooded.target_busy:.0%} of a core, so it was the limit"]
    if flooded.rate < _AS_PREDICTED * predicted_rate:
        return [f"{said}, and nobody here was busy: something on the way, or in HEC under load, is slower than alone"]
    return []


def _predicted_rate(look: Look, batch_bytes: float) -> float:
    """Return the predicted ceiling for batches as they came out: answer and gzip grow with what is in them."""
    part = batch_bytes / look.batch_bytes
    answer_s = look.round_trip_s + max(0.0, look.answer_s - look.round_trip_s) * part
    return prediction.ceiling(batch_bytes, answer_s=answer_s, gzip_s=look.gzip_s * part)
