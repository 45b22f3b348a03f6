"""Nothing that was appended is lost, and the books balance, on a file system that fails at any call."""

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
from collector.errors import SpoolError
from tests.fakes import FakeClock, RecordingSignals, ScriptedSink
from tests.flows.faults import ERRNOS, Fate, FaultyDisk, Plan, Process

BOUNDS = Bounds(task_bytes=1 << 30, worker_bytes=1 << 30, segment_bytes=2_000)

PLANS = st.one_of(
    st.none(),
    st.builds(
        Plan,
        st.sampled_from(Fate),
        first=st.integers(0, 40),
        count=st.sampled_from([1, 1, 2, 1000]),
        error=st.sampled_from(ERRNOS),
    ),
)


class Worker:
    """A spool and its flusher in a process of its own, as far as the kernel can tell."""

    def __init__(self, spool: Spool, flusher: Flusher) -> None:
        self.spool = spool
        self.flusher = flusher
        self.process = Process()


class FaultyConservation(RuleBasedStateMachine):
    """Two workers share a spool. Any system call of theirs may fail, be cut short, or be their last."""

    @initialize(seed=st.integers(0, 2**32))
    def begin(self, seed: int) -> None:
        self.folder = tempfile.TemporaryDirectory(dir="/dev/shm")
        self.root = Path(self.folder.name)
        self.disk = FaultyDisk()
        self.installed = self.disk.installed()
        self.installed.__enter__()
        self.clock = FakeClock()
        self.signals = RecordingSignals()
        self.rng = random.Random(seed)
        self.sink = ScriptedSink()
        self.acked: set[bytes] = set()
        self.unanswered: set[bytes] = set()
        self.names = 0
        self.lines = 0
        self.workers: list[Worker] = []
        self.start_worker(None)
        self.start_worker(None)

    def teardown(self) -> None:
        if not hasattr(self, "workers"):
            return
        try:
            for worker in self.workers:
                with self.disk.running(worker.process):
                    worker.spool.close()
        finally:
            self.installed.__exit__(None, None, None)
            self.folder.cleanup()

    def start_worker(self, plan: Plan | None) -> None:
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
        worker = Worker(spool, flusher)
        with self.disk.running(worker.process, plan):
            spool.start()
        self.workers.append(worker)
        self.restart_the_dead()

    def restart_the_dead(self) -> None:
        dead = [worker for worker in self.workers if worker.process.is_dead]
        for worker in dead:
            self.workers.remove(worker)
            self.start_worker(None)

    @rule(number=st.integers(0, 1), tenant=st.sampled_from(["a", "b", "c"]), events=st.integers(1, 9), plan=PLANS)
    def upload(self, number: int, tenant: str, events: int, plan: Plan | None) -> None:
        worker = self.workers[number]
        lines = [b"%d" % n for n in range(self.lines, self.lines + events)]
        self.lines += events
        payload = b"".join(line + b"\n" for line in lines)
        answered = False
        with self.disk.running(worker.process, plan):
            try:
                worker.spool.append("default", tenant, payload, events=events, received_us=self.clock.now_us())
            except SpoolError:
                # What could neither be kept whole nor cut off, whoever adopts it takes for kept.
                answered = "ftruncate" not in (plan.met if plan else ())
            else:
                answered = True
                self.acked |= set(lines)
        if not answered:
            self.unanswered |= set(lines)
        self.restart_the_dead()

    @rule(number=st.integers(0, 1), seconds=st.sampled_from([0.0, 0.5, 2.0, 3600.0]), plan=PLANS)
    def tick(self, number: int, seconds: float, plan: Plan | None) -> None:
        self.clock.advance(seconds)
        worker = self.workers[number]
        with self.disk.running(worker.process, plan):
            worker.spool.tick()
            worker.flusher.tick()
        self.restart_the_dead()

    @rule()
    def sink_fails(self) -> None:
        self.sink.fail()

    @rule()
    def sink_takes_a_part(self) -> None:
        self.sink.retry(0)

    @rule(number=st.integers(0, 1), plan=PLANS)
    def worker_dies(self, number: int, plan: Plan | None) -> None:
        self.disk.kill(self.workers.pop(number).process)
        self.start_worker(plan)

    @rule(number=st.integers(0, 1), plan=PLANS)
    def worker_leaves(self, number: int, plan: Plan | None) -> None:
        worker = self.workers.pop(number)
        with self.disk.running(worker.process, plan):
            worker.flusher.tick()
            worker.spool.close()
        self.disk.kill(worker.process)
        self.start_worker(None)

    @invariant()
    def the_books_balance(self) -> None:
        if not hasattr(self, "workers"):
            return
        totals = self.workers[0].spool.books.totals()

        assert totals.balanced, totals.tenants
        accepted = totals.total.get("accepted", 0)
        assert len(self.acked) <= accepted <= len(self.acked) + len(self.unanswered)
        assert not self.signals.named("ledger_imbalance")
        assert not self.signals.named("events_lost")
        assert not self.signals.named("frame_corrupt")
        # What nobody expected: not a file system that refuses, which is tried again.
        assert not [call for call in self.signals.named("internal_error") if not isinstance(call["error"], OSError)]

    @rule()
    def everything_arrives(self) -> None:
        for _ in range(40):
            for worker in self.workers:
                self.clock.advance(2.0)
                with self.disk.running(worker.process):
                    worker.spool.tick()
                    worker.flusher.tick()
        for worker in self.workers:
            holdings = list(worker.spool._holdings())
            books_and_lock = 3
            files = books_and_lock * len(holdings) + len(worker.spool.open_segments())
            assert files == len(worker.process.fds), "files that nobody closes"
        total = self.workers[0].spool.books.totals().total
        arrived = set(self.sink.lines)

        assert total.get("pending", 0) == 0
        assert not self.acked - arrived, "lost"
        assert not arrived - self.acked - self.unanswered, "refused, and there nevertheless"
        assert total.get("delivered", 0) == total.get("accepted", 0) == len(arrived)


FaultyConservation.TestCase.settings = settings(max_examples=80, stateful_step_count=30, deadline=None)
test_conservation_on_a_faulty_disk = FaultyConservation.TestCase
