"""
A sink that misbehaves when told to, and is otherwise the `file:` sink without its repeats written over the first.

It is copied into the tree that a run serves from, as `collector/sinks/chaos.py`. `chaos:DIR` writes below DIR, and
does what the one word in the file `DIR.mode` says:

    ok      write
    down    refuse
    slow    write after half a second
    part    write two of three events, and give the others back
    hang    write once the mode is another
    lost    write, and in half of the cases fail nevertheless, as a destination whose answer is lost

An object's name says who wrote it, in which generation of the code, and whether the write was confirmed; so a
duplicate can be traced to its cause.
"""

from __future__ import annotations

import itertools
import os
import random
from pathlib import Path

from gevent.monkey import get_original

from collector.clock import Clock
from collector.errors import TransientSinkError
from collector.event import Batch
from collector.outcome import Receipt
from collector.sinks.base import Limits, Offload
from collector.sinks.local import LocalSink
from collector.sinks.url import SinkUrl

#: A reload with good code raises it, so that a line in the sink shows which code wrote it.
GENERATION = 0
SLOW_S = 0.5
#: Smaller than a segment, so that a worker can die with a segment half delivered.
LIMITS = Limits(max_events=500, max_bytes=1 << 20, max_event_bytes=1 << 20, partitioned=True)

# A write runs in a native thread of gevent's pool, where gevent's own sleep would make a hub.
_sleep = get_original("time", "sleep")


def from_url(url: SinkUrl, writer_id: str, clock: Clock, offload: Offload) -> ChaosSink:
    """Make the sink of a `chaos:` URL."""
    return ChaosSink(Path(url.path), clock=clock)


class ChaosSink:
    """Writes into a directory, as its mode says."""

    limits = LIMITS
    blocking = True

    def __init__(self, root: Path, *, clock: Clock) -> None:
        self._mode = root.with_name(f"{root.name}.mode")
        self._inner = LocalSink(root, clock=clock, fsync=False)
        self._writes = itertools.count()
        self._chance = random.Random()

    def start(self) -> None:
        """Make the directory."""
        self._inner.start()

    def close(self) -> None:
        """Let go."""
        self._inner.close()

    def write(self, batch: Batch) -> Receipt:
        """Do as told."""
        mode = self._read_mode()
        while mode == "hang":
            _sleep(0.05)
            mode = self._read_mode()
        if mode == "down":
            raise TransientSinkError("chaos: the destination is away")
        if mode == "slow":
            _sleep(SLOW_S)
        if mode == "part" and len(batch) > 1:
            return self._write_part(batch)
        if mode == "lost" and self._chance.random() < 0.5:
            self._put(batch, batch.payload, "lost")
            raise TransientSinkError("chaos: the destination's answer was lost")
        self._put(batch, batch.payload, "kept")
        return Receipt(delivered=len(batch))

    def _write_part(self, batch: Batch) -> Receipt:
        skipped = self._chance.randrange(3)
        lines = batch.lines()
        retryable = tuple(range(skipped, len(lines), 3))
        kept = [line + b"\n" for n, line in enumerate(lines) if n % 3 != skipped]
        if kept:
            self._put(batch, b"".join(kept), "kept")
        return Receipt(delivered=len(kept), retryable=retryable)

    def _put(self, batch: Batch, payload: bytes, fate: str) -> None:
        name = f"{batch.name}.p{os.getpid()}.g{GENERATION}.n{next(self._writes)}.{fate}"
        self._inner.write(Batch(name=name, segment=batch.segment, spans=batch.spans, pieces=(payload,)))

    def _read_mode(self) -> str:
        return self._mode.read_text().strip()
