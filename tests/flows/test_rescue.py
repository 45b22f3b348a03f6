"""Spool, flusher, rescue sink and replay together: each event arrives, under one name, whatever fails and who dies."""

from __future__ import annotations

import random
import tempfile
import threading
from collections import Counter
from pathlib import Path
from types import SimpleNamespace
from typing import cast

from hypothesis import settings
from hypothesis import strategies as st
from hypothesis.stateful import RuleBasedStateMachine, initialize, invariant, rule

from collector.buffer.room import Bounds
from collector.buffer.spool import Spool
from collector.delivery.flusher import Flusher
from collector.delivery.replayer import Replayer
from collector.delivery.retry import Backoff
from collector.errors import TransientSinkError
from collector.event import Batch
from collector.outcome import Receipt
from collector.sinks.local import LocalSink, Options
from collector.sinks.local_source import LocalSource
from collector.telemetry.homecoming import Homecoming
from tests.fakes import FakeClock, RecordingSignals, ScriptedSink

BOUNDS = Bounds(task_bytes=1 << 30, worker_bytes=1 << 30, segment_bytes=600)


class Place(LocalSink):
    """A rescue sink on tmpfs that fails as it is told to, before or after it kept the batch."""

    def __init__(self, folder: Path, clock: FakeClock) -> None:
        super().__init__(folder, clock=clock, fsync=False)
        self.script: list[str] = []

    def write(self, batch: Batch) -> Receipt:
        fate = self.script.pop(0) if self.script else "well"
        if fate != "fail":
            receipt = super().write(batch)
        if fate != "well":
            raise TransientSinkError(f"the script says {fate}")
        return receipt


class Rescue(RuleBasedStateMachine):
    """One worker after the other has the spool; their sink is up or down, and replays come at any time."""

    @initialize(seed=st.integers(0, 2**32))
    def begin(self, seed: int) -> None:
        self.folder = tempfile.TemporaryDirectory(dir="/dev/shm")
        self.root = Path(self.folder.name)
        self.clock = FakeClock()
        self.signals = RecordingSignals()
        self.rng = random.Random(seed)
        self.sink = ScriptedSink()
        self.place = Place(self.root / "rescue/route=default", self.clock)
        self.source = LocalSource(self.root / "rescue", clock=self.clock, options=Options(fsync=False))
        self.appended: list[bytes] = []
        self.owners = 0
        Homecoming(self.root).start()
        self.start_worker()

    def teardown(self) -> None:
        if hasattr(self, "folder"):
            self.spool.close()
            self.folder.cleanup()

    def start_worker(self) -> None:
        self.owners += 1
        self.spool = Spool(self.root, f"w{self.owners:03d}", BOUNDS, clock=self.clock, signals=self.signals)
        self.flusher = Flusher(
            self.spool,
            {"default": self.sink},
            backoff=Backoff(rng=self.rng, cap_s=1.0),
            clock=self.clock,
            signals=self.signals,
            max_age_s=1.0,
            concurrency=2,
            rescues={"default": self.place},
            rescue_after_s=5.0,
        )
        self.spool.start()
        wake = SimpleNamespace(wait=self.wait, set=lambda: None, clear=lambda: None)
        self.flusher._wake = cast("threading.Event", wake)

    def wait(self, timeout: float | None = None) -> bool:
        """Let time pass; nobody waits but a drain."""
        self.clock.advance(timeout or 0.0)
        return False

    @rule(tenant=st.sampled_from("ab"), events=st.integers(1, 9), seconds=st.sampled_from([0.0, 0.5, 2.0]))
    def upload(self, tenant: str, events: int, seconds: float) -> None:
        lines = [b"%d" % n for n in range(len(self.appended), len(self.appended) + events)]
        payload = b"".join(line + b"\n" for line in lines)
        self.spool.append("default", tenant, payload, events=events, received_us=self.clock.now_us())
        self.appended += lines
        self.tick(seconds)

    @rule(seconds=st.sampled_from([0.0, 1.0, 6.0, 3600.0]))
    def tick(self, seconds: float) -> None:
        self.clock.advance(seconds)
        self.spool.tick()
        self.flusher.tick()

    @rule(times=st.integers(1, 30))
    def sink_is_down(self, times: int) -> None:
        self.sink.fail(times)

    @rule(tenant=st.sampled_from("ab"), events=st.integers(1, 9))
    def outage(self, tenant: str, events: int) -> None:
        """Let the sink be away for so long that what comes is rescued."""
        self.sink.fail(100)
        self.upload(tenant, events, 0.0)
        for _ in range(4):
            self.tick(6.0)
        self.sink._script.clear()

    @rule()
    def sink_keeps_and_fails(self) -> None:
        self.sink.fail_after_keeping()

    @rule(fate=st.sampled_from(["fail", "keep and fail"]), times=st.integers(1, 5))
    def rescue_sink_fails(self, fate: str, times: int) -> None:
        self.place.script += [fate] * times

    @rule()
    def worker_dies(self) -> None:
        for holding in list(self.spool._holdings()):
            holding.close()
        self.start_worker()

    @rule()
    def worker_drains(self) -> None:
        self.flusher.drain(8.0)
        self.spool.close()
        self.start_worker()

    @rule()
    def replay(self) -> None:
        Replayer(
            self.source,
            {"default": self.sink},
            signals=self.signals,
            spawn=lambda run: run(),
            rest=lambda _: None,
            offload=lambda run: run(),
            spool=self.spool,
        ).tick()

    @invariant()
    def the_books_balance(self) -> None:
        if hasattr(self, "spool"):
            totals = self.spool.books.totals()

            assert totals.balanced
            assert len(self.appended) == totals.total.get("accepted", 0)
            assert all(count >= 0 for count in totals.total.values())
            assert not self.signals.named("internal_error")

    @rule()
    def everything_arrives_once(self) -> None:
        self.sink._script.clear()
        self.place.script.clear()
        for _ in range(30):
            self.tick(2.0)
        self.replay()
        self.replay()
        total = self.spool.books.totals().total

        assert total.get("pending", 0) == 0
        assert (len(self.appended), 0) == (total.get("delivered", 0), total.get("rescued", 0))
        assert dict.fromkeys(self.appended, 1) == Counter(line for kept in self.sink.objects.values() for line in kept)
        assert [] == list((self.root / "rescue").rglob("*.zst"))


Rescue.TestCase.settings = settings(max_examples=50, stateful_step_count=40, deadline=None)
test_rescue = Rescue.TestCase
