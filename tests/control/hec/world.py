"""A world for the stress test without a socket: a sender with a buffer, a HEC that can be out, time that is made."""

from __future__ import annotations

from collections import deque
from typing import Any

from collector.control.hec.cells import Cell
from collector.control.hec.driving import Bench
from collector.control.hec.lines import Lines
from collector.control.hec.prediction import usable_bytes
from collector.control.hec.relay import Counted
from collector.telemetry.hec.options import Account
from tests.fakes import FakeClock

#: What an envelope adds to a line, here.
ENVELOPE_BYTES = 100


class World:
    """
    `drain` bytes a second leave while HEC is there, and nothing for `unnoticed_s` after it has come back.

    `put_s` is what a line costs the machine that makes it. Each kind of lie makes the accounts wrong.
    """

    def __init__(self, *, drain: float = 5e6, unnoticed_s: float = 0.0, put_s: float = 0.0, lie: str = "") -> None:
        self.clock = FakeClock()
        self.drain = drain
        self.unnoticed_s = unnoticed_s
        self.put_s = put_s
        self.lie = lie
        self.arrived = 0
        self.silent_until = 0.0
        self.is_out = False
        self.waits = 0
        self.senders: list[FakeSender] = []
        self.bench = Bench(
            self, self.sender, Lines(now_us=self.clock.now_us()), clock=self.clock, wait=self.wait, cpu_s=lambda: 0.0
        )

    def sender(self, cell: Cell) -> FakeSender:
        self.senders.append(FakeSender(self, cell))
        return self.senders[-1]

    def wait(self, seconds: float) -> None:
        # Time goes on even when nobody waits for long: a look at the clock takes some.
        self.waits += 1
        self.clock.advance(max(seconds, 1e-4))
        for one in self.senders:
            one.send(max(seconds, 1e-4))

    # -- the target

    def begin(self) -> None:
        self.arrived = 0
        self.is_out = False
        self.silent_until = 0.0

    def fail(self) -> None:
        self.is_out = True

    def recover(self) -> None:
        if self.is_out:
            self.is_out = False
            self.silent_until = self.clock.monotonic() + self.unnoticed_s

    def counted(self) -> Counted:
        return Counted(self.arrived + {"too few": -1, "too many": 1}.get(self.lie, 0), 0)

    def busy_s(self) -> float | None:
        return None


class FakeSender:
    """Keeps lines until they leave, with exact accounts."""

    def __init__(self, world: World, cell: Cell) -> None:
        self.world = world
        self.cell = cell
        self.started = False
        self.queue: deque[int] = deque()
        self.held = self.emitted = self.delivered = self.full = self.bytes_in = self.high = self.shut = 0
        self.credit = 0.0

    def start(self) -> None:
        self.started = True

    def put(self, line: bytes, level: str) -> None:
        size = len(line) + ENVELOPE_BYTES
        self.world.clock.advance(self.world.put_s)
        self.emitted += 1
        self.bytes_in += size
        room = usable_bytes(self.cell.buffer_bytes) if level == "info" else self.cell.buffer_bytes
        if self.held + size > room:
            self.full += 1
            return
        self.queue.append(size)
        self.held += size
        self.high = max(self.high, self.held)

    def send(self, seconds: float) -> None:
        world = self.world
        if not self.started or world.is_out or world.clock.monotonic() < world.silent_until:
            return
        self.credit += world.drain * seconds
        while self.queue and self.credit >= self.queue[0]:
            size = self.queue.popleft()
            self.credit -= size
            self.held -= size
            self.delivered += 1
            world.arrived += 1
        if not self.queue:
            self.credit = 0.0

    def account(self) -> Account:
        lie = 1 if self.world.lie == "inexact" else 0
        dropped = {"full": self.full} if self.full else {}
        if self.shut:
            dropped["shutdown"] = self.shut
        return Account(
            emitted=self.emitted + lie, delivered=self.delivered, dropped=dropped, queued=len(self.queue),
            held_bytes=self.held, high_water_bytes=self.high, bytes_in=self.bytes_in, requests=self.delivered // 100,
            bytes_wire=self.delivered * 50,
        )  # fmt: skip

    def shutdown(self, deadline_s: float = 1.0) -> None:
        if self.started:
            self.world.silent_until = 0.0
            self.send(deadline_s)
        self.shut += len(self.queue)
        self.queue.clear()
        self.held = 0


def cell(**more: Any) -> Cell:
    """Make a cell whose numbers matter only as far as a test says."""
    usual = {
        "buffer_bytes": 256 << 10, "batch_bytes": 16 << 10, "batch_lines": 100, "linger_s": 0.05, "lines_per_s": 1000.0,
        "outage_s": 1.0,
    }  # fmt: skip
    return Cell(**(usual | more))
