"""
How much one connection carries at the most, and how fast this machine makes lines: what bounds every run.
"""

from __future__ import annotations

import math
from collections.abc import Callable

from collector.control.hec.cells import Cell, Flood, fates
from collector.control.hec.driving import END_S, PATIENCE_S, TICK_S, Bench
from collector.control.hec.lines import Lines
from collector.control.hec.prediction import usable_bytes
from collector.errors import TuneError
from collector.telemetry.hec.options import Account

#: Lines that are made to see how fast that goes, and between two looks at full speed. Choices: 0.1 s, and 1 ms.
_MADE_LINES, _BURST_LINES = 20_000, 100


def makes_per_s(bench: Bench, cell: Cell, lines: Lines) -> float:
    """Return how many lines a second this machine makes and puts into a sender that is not started: none leaves."""
    sender = bench.make_sender(cell)
    started_s = bench.clock.monotonic()
    for _ in range(_MADE_LINES):
        sender.put(*lines.next())
    took_s = bench.clock.monotonic() - started_s
    sender.shutdown(0.0)
    return _MADE_LINES / took_s if took_s > 0 else math.inf


def flood(bench: Bench, cell: Cell, seconds: float, *, looks: Callable[[], None] | None = None) -> Flood:
    """Send for so long as fast as can be, with no outage and nothing dropped. Raises `TuneError`."""
    bench.target.begin()
    sender = bench.make_sender(cell)
    sender.start()
    level = usable_bytes(cell.buffer_bytes) // 2
    first: Account | None = None
    started_s = until_s = began_cpu_s = 0.0
    began_target_s: float | None = None
    began_s = bench.clock.monotonic()
    try:
        while True:
            seen, now_s = sender.account(), bench.clock.monotonic()
            if looks is not None:
                looks()
            if first is None and seen.delivered:
                first, started_s, until_s = seen, now_s, now_s + seconds
                began_cpu_s, began_target_s = bench.cpu_s(), bench.target.busy_s()
            if first is None and now_s - began_s > PATIENCE_S:
                raise TuneError(f"no line has arrived at HEC within {PATIENCE_S:.0f} s: {fates(seen)}")
            if first is not None and now_s >= until_s:
                break
            if seen.held_bytes >= level:
                bench.wait(TICK_S / 5)
                continue
            for _ in range(_BURST_LINES):
                sender.put(*bench.lines.next())
        took_s, used_s, target_s = now_s - started_s, bench.cpu_s() - began_cpu_s, bench.target.busy_s()
    finally:
        sender.shutdown(END_S)
    theirs_s = None if target_s is None or began_target_s is None else target_s - began_target_s
    line_bytes = seen.bytes_in / seen.emitted
    return Flood(
        rate=(seen.delivered - first.delivered) * line_bytes / took_s,
        line_bytes=line_bytes,
        wire_part=(seen.bytes_wire - first.bytes_wire) / max(1.0, (seen.delivered - first.delivered) * line_bytes),
        batch_bytes=(seen.delivered - first.delivered) * line_bytes / max(1, seen.requests - first.requests),
        busy=used_s / took_s,
        target_busy=None if theirs_s is None else theirs_s / took_s,
    )
