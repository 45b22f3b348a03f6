"""
What the launcher says of generations of workers and of reloads: a part of `signals.Signals`.
"""

from __future__ import annotations

from collector.telemetry.part import SignalsPart, flag


class GenerationSignals(SignalsPart):
    """The signals of generations."""

    def generation_ready(self, generation: int, pid: int, workers: int, seconds: float) -> None:
        """All workers of a generation accept, so many seconds after its start; `pid` is its master's."""
        self._metrics.inc("collector_generations_ready_total")
        self._say["info"](
            "generation.ready", generation=generation, pid=pid, workers=workers, seconds=round(seconds, 3)
        )

    def generation_ended(self, generation: int, pid: int, status: int, killed: bool, seconds: float) -> None:
        """All processes of a generation are gone; `status` is its master's exit, negative of a signal."""
        self._metrics.inc("collector_generations_ended_total", (flag(killed),))
        self._say["warning" if killed else "info"](
            "generation.ended", generation=generation, pid=pid, status=status, killed=killed,
            seconds=round(seconds, 3),
        )  # fmt: skip

    def reload_done(self, generation: int, seconds: float) -> None:
        """A reload has put a generation in the place of the one before."""
        self._metrics.inc("collector_reloads_total", ("done",))
        self._say["info"]("reload.done", generation=generation, seconds=round(seconds, 3))

    def reload_rejected(self, stage: str, problem: str) -> None:
        """A reload was given up; `stage` is where: preflight, bind, or generation."""
        self._metrics.inc("collector_reloads_total", ("rejected",))
        self._say["error"]("reload.rejected", stage=stage, problem=problem)

    def master_died(self, generation: int, pid: int, status: int, restart_in_s: float) -> None:
        """A master ended without having been told to."""
        self._metrics.inc("collector_masters_died_total")
        self._say["warning"](
            "master.died", generation=generation, pid=pid, status=status, restart_in_s=round(restart_in_s, 3)
        )
