"""A worker may die between any two lines while it rescues and sends on: the books balance, and every event arrives."""

from __future__ import annotations

import os
import random
import sys
from collections import Counter
from pathlib import Path

from collector.buffer.room import Bounds
from collector.buffer.spool import Spool
from collector.delivery.flusher import Flusher
from collector.delivery.replayer import Replayer
from collector.delivery.retry import Backoff
from collector.errors import TransientSinkError
from collector.event import Batch
from collector.outcome import Reason, Receipt
from collector.sinks.local import LocalSink, Options
from collector.sinks.local_source import LocalSource
from collector.telemetry.books import Totals
from tests.fakes import FakeClock, RecordingSignals
from tests.flows.test_death import delivered, die_at

BOUNDS = Bounds(task_bytes=1 << 30, worker_bytes=1 << 30, segment_bytes=200)
EVENTS = 24


class Own(LocalSink):
    """A sink that is away while it is told so, and then refuses what says `bad`."""

    def __init__(self, folder: Path) -> None:
        super().__init__(folder, clock=FakeClock(), fsync=False)
        self.is_away = True

    def write(self, batch: Batch) -> Receipt:
        if self.is_away:
            raise TransientSinkError("away")
        bad = [n for n, line in enumerate(batch.lines()) if b"bad" in line]
        super().write(batch)
        return Receipt(len(batch) - len(bad), rejected=tuple((n, Reason.SINK_INVALID) for n in bad))


class World:
    """One worker over the spool and the rescue sink of those before it."""

    def __init__(self, root: Path, name: str) -> None:
        self.clock, self.signals = FakeClock(), RecordingSignals()
        self.spool = Spool(root / "spool", name, BOUNDS, clock=self.clock, signals=self.signals)
        self.own = Own(root / "data")
        self.flusher = Flusher(
            self.spool,
            {"default": self.own},
            backoff=Backoff(rng=random.Random(1)),
            clock=self.clock,
            signals=self.signals,
            max_age_s=1.0,
            concurrency=2,
            rescues={"default": LocalSink(root / "rescue/route=default", clock=self.clock, fsync=False)},
            rescue_after_s=1.0,
        )
        self.replayer = Replayer(
            LocalSource(root / "rescue", clock=self.clock, options=Options(fsync=False)),
            {"default": self.own},
            signals=self.signals,
            spawn=lambda run: run(),
            rest=lambda _: self.replayer.close(),
            offload=lambda run: run(),
            spool=self.spool,
        )

    def begin(self) -> None:
        self.spool.start()
        # Its first rest closes it: it has made ready, and looks when it is told to.
        self.replayer.run()

    def tick(self, times: int) -> None:
        for _ in range(times):
            self.clock.advance(2.0)
            self.spool.tick()
            self.flusher.tick()

    def send_on(self) -> None:
        self.replayer._closed = False
        self.replayer.tick()


def work(root: Path, name: str) -> None:
    """Take uploads, rescue them, and send them on."""
    world = World(root, name)
    world.begin()
    for n in range(0, EVENTS, 3):
        what = "bad" if n % 2 else "good"
        payload = b"".join(b'{"id":"%s-%s-%d"}\n' % (name.encode(), what.encode(), n + k) for k in range(3))
        world.spool.append("default", "ab"[n // 3 % 2], payload, events=3, received_us=world.clock.now_us())
    world.tick(12)
    world.own.is_away = False
    world.send_on()
    world.spool.close()


def life(root: Path, name: str, line: int) -> bool:
    """Let a worker live in a process of its own until that line; return whether it got there."""
    pid = os.fork()
    if not pid:
        try:
            sys.settrace(die_at(line))
            work(root, name)
            os._exit(0)
        except BaseException:  # noqa: BLE001 - what a child meets is told by its exit code
            os._exit(1)
    code = os.waitstatus_to_exitcode(os.waitpid(pid, 0)[1])
    assert code in (0, 9)
    return code == 9


def end(root: Path, name: str) -> tuple[Totals, Totals, World]:
    """Let a last worker do the rest; return the books before and after."""
    world = World(root, name)
    world.begin()
    # Adopted: a row of the counters that its writer left in the middle is whole again.
    before = world.spool.books.totals()
    world.own.is_away = False
    world.tick(20)
    world.send_on()
    world.tick(2)
    after = world.spool.books.totals()
    world.spool.close()
    return before, after, world


def lines_of_a_life(tmp_path: Path) -> int:
    low, high = 1, 200_000
    while low < high:
        middle = (low + high) // 2
        died = life(tmp_path / f"probe{middle}", "p", middle)
        low, high = (middle + 1, high) if died else (low, middle)
    return low


def test_what_was_rescued_and_sent_on_is_delivered_in_the_books(tmp_path: Path) -> None:
    """Nobody died: then they say exactly what became of each event, and so do they when the worker is gone."""
    assert not life(tmp_path, "w1", 1_000_000)
    before, after, world = end(tmp_path, "w2")

    assert {"accepted": EVENTS, "delivered": 12, "rejected_by_sink": 12, "rescued": 0} == {
        name: count for name, count in before.outcomes().items() if count or name == "rescued"
    }
    assert before.tenants == after.tenants == world.spool.books.totals().tenants


def test_a_worker_that_dies_at_any_line_leaves_books_that_balance_and_events_that_arrive_once(tmp_path: Path) -> None:
    """They may say rescued of what has come home since; they never say delivered twice, or of what is not there."""
    rng = random.Random(20261127)
    length = lines_of_a_life(tmp_path)
    endings: Counter[str] = Counter()
    for line in sorted(rng.sample(range(length // 4, length), 120)):
        root = tmp_path / f"at{line}"
        died = life(root, "w1", line)
        before, after, world = end(root, "w2")
        outcomes = after.outcomes()

        assert died
        assert before.balanced, f"after a death at line {line}"
        assert after.balanced, f"after a death at line {line}"
        assert all(count >= 0 for row in (before.total, after.total) for count in row.values())
        assert len(delivered(root)) == outcomes["accepted"]
        assert {1} == set(delivered(root).values())
        assert not list((root / "rescue/route=default").rglob("*.zst"))
        assert outcomes["delivered"] <= 12
        assert not world.signals.named("ledger_imbalance")
        assert not [one for one in world.signals.named("internal_error") if one["where"] != "rescue.replay"]
        endings["rescued" if outcomes["rescued"] else "settled"] += 1

    # What a death leaves as rescued is one batch, at one of a few steps.
    assert endings["settled"] > 2 * endings["rescued"] > 0
