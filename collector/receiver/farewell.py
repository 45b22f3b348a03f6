"""
The task's last word: what became of everything, once all its workers have stopped.
"""

from __future__ import annotations

from pathlib import Path

from collector.clock import SystemClock, pause
from collector.settings import Settings, load_for_worker
from collector.telemetry.books import Books
from collector.telemetry.logbook import Logbook
from collector.telemetry.metrics import Metrics


def tell_drain_done(settings: Settings | None = None) -> None:
    """
    Say in one line what the ledger of the whole task says, after its last worker.

    For gunicorn's master, or a child of the launcher; `settings` None means: those that it was started with.
    """
    settings = settings or load_for_worker()
    log = Logbook(settings, clock=SystemClock(), counts=Metrics(), rest=pause)
    total = Books(Path(settings.spool_dir)).totals().outcomes()
    log.signals.drain_done(
        scope="task",
        accepted=total["accepted"],
        delivered=total["delivered"],
        rescued=total["rescued"],
        rejected_by_sink=total["rejected_by_sink"],
        dropped=total["dropped"],
        deduplicated=total["deduplicated"],
        left=total["pending"],
    )
    log.close()
