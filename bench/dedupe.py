"""
`python -m bench.dedupe`: what it costs to look for copies, an upload, beside what it costs to keep it.

In process, with the real spool and the real table on tmpfs: events of 360 bytes, all of them new, which is the dear
case. "Beside" means that a second process takes uploads of the same size without a pause meanwhile.
"""

from __future__ import annotations

import gc
import os
import shutil
import signal
import statistics
import sys
import tempfile
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from time import perf_counter, process_time

import structlog

from collector.admission.dedupe import Dedupe
from collector.buffer.room import Bounds
from collector.buffer.spool import Spool
from collector.clock import SystemClock
from collector.event import Envelope, Event
from collector.protocols.base import DecodeLimits, Request
from collector.protocols.native import Native
from collector.receiver.lines import lines
from collector.telemetry.metrics import Metrics
from collector.telemetry.signals import Signals
from collector.uuid7 import Uuid7

SIZES = (1, 5, 100)
#: Of the table, the default; and how many ids are in it before anything is measured: as many as it remembers well.
TABLE_BYTES, FILLED_IDS = 64 << 20, 1_000_000
WINDOW_S = 3600.0
_EVENT = b'{"id":"%s-%d","x":"' + b"x" * 330 + b'"}'
_LIMITS = DecodeLimits(max_events=10_000, max_event_bytes=1 << 20)
_ROUNDS, _UPLOADS = 41, 50
_SILENT = 50


class One:
    """One worker's spool and its dedupe."""

    def __init__(self, root: Path, name: str) -> None:
        clock = SystemClock()
        silent = structlog.wrap_logger(None, wrapper_class=structlog.make_filtering_bound_logger(_SILENT))
        signals = Signals(silent, Metrics(), clock=clock)
        bounds = Bounds(task_bytes=8 << 30, worker_bytes=4 << 30, segment_bytes=4 << 20)
        self._clock = clock
        self._new_id = Uuid7(clock)
        self._name = name.encode()
        self._made = 0
        self.spool = Spool(root, name, bounds, clock=clock, signals=signals)
        self.spool.start()
        self.dedupe = Dedupe(self.spool, size_bytes=TABLE_BYTES, clock=clock, signals=signals)

    def body(self, events: int) -> bytes:
        """Make an upload of events that nobody saw."""
        first, self._made = self._made, self._made + events
        return b"[" + b",".join([_EVENT % (self._name, n) for n in range(first, first + events)]) + b"]"

    def take(self, body: bytes, *, window_s: float) -> None:
        """Split an upload, render its lines and keep it; what the receiver does besides costs the same in each case."""
        request = Request("POST", "/v1/events", "", {}, body, "192.0.2.1")
        events = Native().decode(request, body, _LIMITS, self._new_id.many).events
        envelope = Envelope("dev", "native", self._new_id(), self._clock.now_us(), request.remote_ip, events)
        rendered = lines(envelope)

        def append(new: list[Event]) -> None:
            self.spool.append("default", "dev", rendered, events=len(new), received_us=envelope.received_us)

        if not window_s:
            append(events)
        elif self.dedupe.claim("dev", "default", window_s, events, append) is None:
            sys.exit("the other process did not let go of the baton")

    def fill(self) -> None:
        """Remember many ids, without their events."""
        for first in range(0, FILLED_IDS, 1000):
            events = [Event(n, b'"filled-%d"' % n, b"{}") for n in range(first, first + 1000)]
            self.dedupe.claim("dev", "default", WINDOW_S, events, lambda _: None)


def measure(one: One, size: int, *, window_s: float, clock: Callable[[], float] = process_time) -> float:
    """Return what one upload costs, in microseconds of CPU or of another clock: the median of some rounds."""
    rounds = []
    for _ in range(_ROUNDS):
        bodies = [one.body(size) for _ in range(_UPLOADS)]
        began = clock()
        for body in bodies:
            one.take(body, window_s=window_s)
        rounds.append((clock() - began) / _UPLOADS * 1e6)
        one.spool.seal_all()
        for holding, segment in list(one.spool.sealed()):
            # As if it were delivered.
            segment.pending = 0
            one.spool.discard_if_settled(holding, segment)
    return statistics.median(rounds)


@contextmanager
def beside(root: Path, size: int) -> Iterator[None]:
    """Let another process take uploads of this size meanwhile."""
    pid = os.fork()
    if not pid:
        signal.signal(signal.SIGTERM, signal.SIG_DFL)
        other = One(root, f"other{size}")
        while True:
            measure(other, size, window_s=WINDOW_S)
    try:
        yield
    finally:
        os.kill(pid, signal.SIGKILL)
        os.waitpid(pid, 0)


def main() -> None:
    """Measure, and print a table in Markdown."""
    root = Path(tempfile.mkdtemp(prefix="collector-bench-", dir="/dev/shm"))
    try:
        one = One(root, "one")
        one.fill()
        gc.disable()
        print("| events | no window: CPU | with a window: CPU | more | beside another process: CPU | from end to end |")
        print("| ---: | ---: | ---: | ---: | ---: | ---: |")
        for size in SIZES:
            costs = [measure(one, size, window_s=0.0), measure(one, size, window_s=WINDOW_S)]
            costs.append(costs[1] - costs[0])
            with beside(root, size):
                costs.append(measure(one, size, window_s=WINDOW_S))
                costs.append(measure(one, size, window_s=WINDOW_S, clock=perf_counter))
            print(f"| {size} | {' | '.join(f'{cost:.0f} µs' for cost in costs)} |")
    finally:
        shutil.rmtree(root)


if __name__ == "__main__":
    main()
