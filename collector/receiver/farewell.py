"""
The task's last word: what became of everything, once all its workers have stopped.
"""

from __future__ import annotations

from pathlib import Path

from collector.clock import SystemClock
from collector.settings import load_for_worker
from collector.telemetry.books import Books
from collector.telemetry.logs import LineStream, build_logger
from collector.telemetry.metrics import Metrics
from collector.telemetry.signals import Signals


def tell_drain_done() -> None:
    """Say in one line what the ledger of the whole task says; for gunicorn's master, after its last worker."""
    settings = load_for_worker()
    clock, counts = SystemClock(), Metrics()
    signals = Signals(build_logger(LineStream(counts), settings.log_level, clock=clock), counts, clock=clock)
    total = Books(Path(settings.spool_dir)).totals().outcomes()
    signals.drain_done(
        accepted=total["accepted"],
        delivered=total["delivered"],
        rescued=total["rescued"],
        rejected_by_sink=total["rejected_by_sink"],
        dropped=total["dropped"],
        left=total["pending"],
    )
