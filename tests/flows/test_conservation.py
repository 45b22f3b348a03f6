"""Nothing that was appended is lost, and the books balance, whatever fails and whoever dies."""

from __future__ import annotations

import random
import tempfile
from pathlib import Path

from hypothesis import settings
from hypothesis import strategies as st
from hypothesis.stateful import RuleBasedStateMachine, initialize, invariant, rule

from collector.buffer.room import Bounds
from collector.buffer.spool import Spool
from collector.delivery.flusher import Flusher
from collector.delivery.retry import Backoff
from collector.outcome import Reason
from tests.fakes import FakeClock, RecordingSignals, ScriptedSink

BOUNDS = Bounds(task_bytes=1 << 30, worker_bytes=1 << 30, segment_bytes=2_000)


class Conservation(RuleBasedStateMachine):
    """
    Two workers share a spool. Events come, sinks fail in every way they may, workers die at any step between two
    system calls that matter, and others take over.
    """

    @initialize(seed=st.integers(0, 2**32), blocking=st.booleans())
    def begin(self, seed: int, *, blocking: bool) -> None:
        self.folder = tempfile.TemporaryDirectory(dir="/dev/shm")
        self.root = Path(self.folder.name)
        self.clock = FakeClock()
        self.signals = RecordingSignals()
        self.rng = random.Random(seed)
        self.sink = ScriptedSink()
        # One that blocks gets the batches of a segment together.
        self.sink.blocking = blocking
        self.appended: list[bytes] = []
        self.refused: set[bytes] = set()
        self.names = 0
        self.workers: list[tuple[Spool, Flusher]] = []
        self.start_worker()
        self.start_worker()

    def teardown(self) -> None:
        for spool, _ in getattr(self, "workers", []):
            spool.close()
        if hasattr(self, "folder"):
            self.folder.cleanup()

    def start_worker(self) -> None:
        self.names += 1
        spool = Spool(self.root, f"w{self.names:03d}", BOUNDS, clock=self.clock, signals=self.signals)
        flusher = Flusher(
            spool,
            {"default": self.sink},
            backoff=Backoff(rng=self.rng, cap_s=1.0),
            clock=self.clock,
            signals=self.signals,
            max_age_s=1.0,
            concurrency=2,
        )
        spool.start()
        self.workers.append((spool, flusher))

    @rule(worker=st.integers(0, 1), tenant=st.sampled_from(["a", "b", "c"]), events=st.integers(1, 9))
    def upload(self, worker: int, tenant: str, events: int) -> None:
        first = len(self.appended)
        lines = [b"%d" % n for n in range(first, first + events)]
        payload = b"".join(line + b"\n" for line in lines)
        self.workers[worker][0].append("default", tenant, payload, events=events, received_us=self.clock.now_us())
        self.appended += lines

    @rule(worker=st.integers(0, 1), seconds=st.sampled_from([0.0, 0.5, 2.0, 3600.0]))
    def tick(self, worker: int, seconds: float) -> None:
        self.clock.advance(seconds)
        spool, flusher = self.workers[worker]
        spool.tick()
        flusher.tick()

    @rule()
    def sink_fails(self) -> None:
        self.sink.fail()

    @rule()
    def sink_keeps_and_fails(self) -> None:
        self.sink.fail_after_keeping()

    @rule(data=st.data())
    def sink_takes_a_part(self, data: st.DataObject) -> None:
        self.sink.retry(0)

    @rule()
    def sink_refuses_one(self) -> None:
        self.sink.reject(0, reason=Reason.SINK_INVALID)

    @rule(worker=st.integers(0, 1))
    def worker_dies(self, worker: int) -> None:
        """As kill -9 does it: no method of ours runs, the kernel closes the files and frees the lock."""
        spool, _ = self.workers.pop(worker)
        for holding in list(spool._holdings()):
            holding.close()
        self.start_worker()

    @rule(worker=st.integers(0, 1))
    def worker_leaves(self, worker: int) -> None:
        spool, flusher = self.workers.pop(worker)
        flusher.tick()
        spool.close()
        self.start_worker()

    @invariant()
    def the_books_balance(self) -> None:
        if not hasattr(self, "workers"):
            return
        totals = self.workers[0][0].books.totals()

        assert totals.balanced
        assert len(self.appended) == totals.total.get("accepted", 0)
        assert not self.signals.named("ledger_imbalance")
        assert not self.signals.named("internal_error")

    @rule()
    def everything_arrives(self) -> None:
        for _ in range(40):
            for spool, flusher in self.workers:
                self.clock.advance(2.0)
                spool.tick()
                flusher.tick()
        total = self.workers[0][0].books.totals().total
        rejected = total.get("rejected_by_sink:sink_invalid", 0)

        assert total.get("pending", 0) == 0
        assert set(self.sink.lines) <= set(self.appended)
        assert len(set(self.appended)) - len(set(self.sink.lines)) <= rejected
        assert total.get("delivered", 0) + rejected == len(self.appended)


Conservation.TestCase.settings = settings(max_examples=60, stateful_step_count=40, deadline=None)
test_conservation = Conservation.TestCase
