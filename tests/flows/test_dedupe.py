"""Copies come twice neither through a death, nor through a race, nor through another worker."""

from __future__ import annotations

import json
import os
import random
import sys
from collections import Counter
from collections.abc import Callable
from pathlib import Path
from types import FrameType
from typing import Any

import zstandard

from collector.admission.dedupe import Dedupe
from collector.buffer.room import Bounds
from collector.buffer.spool import Spool
from collector.clock import Clock, SystemClock
from collector.delivery.flusher import Flusher
from collector.delivery.retry import Backoff
from collector.event import Event
from collector.sinks.registry import open_sink
from tests.fakes import FakeClock, RecordingSignals
from tests.server import Server, tenant, upload

BOUNDS = Bounds(task_bytes=1 << 30, worker_bytes=1 << 30, segment_bytes=300)
WATCHED = tuple(os.sep + os.path.join("collector", part) + os.sep for part in ("admission", "buffer", "telemetry"))
UPLOADS = 10


class Worker:
    """A worker in process: spool, dedupe, flusher, and a file sink that all share."""

    def __init__(self, root: Path, name: str, clock: Clock) -> None:
        self.signals = RecordingSignals()
        self.clock = clock
        self.spool = Spool(root / "spool", name, BOUNDS, clock=clock, signals=self.signals)
        self.dedupe = Dedupe(self.spool, size_bytes=1 << 20, clock=clock, signals=self.signals)
        self.spool.may_adopt = self.dedupe.may_adopt
        self.flusher = Flusher(
            self.spool,
            {"default": open_sink(f"file:{root}/data?fsync=0", writer_id=name)},
            backoff=Backoff(rng=random.Random(1)),
            clock=clock,
            signals=self.signals,
            max_age_s=1.0,
            concurrency=2,
        )

    def upload(self, *tokens: str) -> bool:
        """Take an upload as the receiver does, and tell whether it was answered as accepted."""
        events = [Event(n, f'"{token}"'.encode(), b"{}") for n, token in enumerate(tokens)]

        def append(new: list[Event]) -> None:
            lines = b"".join(b'{"id":' + event.id + b"}\n" for event in new)
            self.spool.append("default", "dev", lines, events=len(new), received_us=self.clock.now_us())

        claim = self.dedupe.claim("dev", "default", 3600.0, events, append)
        if claim is not None and claim.duplicates:
            self.spool.mine().count_duplicates("dev", claim.duplicates)
        return claim is not None

    def deliver(self) -> None:
        self.spool.tick()
        self.flusher.tick()


def tokens_of(n: int) -> list[str]:
    """Uploads overlap: each has an event of the one before, as of a queue that was sent in part."""
    return [f"e{n}", f"e{n}-b", f"e{n - 1}-b"] if n else ["e0", "e0-b", "e0"]


def work(root: Path, name: str, first: int, answers: int) -> None:
    """One worker's life: what was not answered is sent again first, and now and then what was."""
    clock = FakeClock(monotonic=1000.0 * int(name[1:]))
    worker = Worker(root, name, clock)
    worker.spool.start()
    # What the dead left goes on its way, and is gone, before anything is sent again.
    for _ in range(2):
        clock.advance(2.0)
        worker.deliver()
    for n in range(first, UPLOADS):
        if n % 3 == 1:
            worker.upload(*tokens_of(n - 1))
        if worker.upload(*tokens_of(n)):
            os.write(answers, b"%d\n" % n)
        if n % 2:
            clock.advance(2.0)
            worker.deliver()
    worker.spool.close()


def life(root: Path, name: str, first: int, line: int) -> tuple[bool, int]:
    """Let a worker live in a process of its own until that line; return whether it died, and what comes next."""
    read, write = os.pipe()
    pid = os.fork()
    if not pid:
        try:
            os.close(read)
            sys.settrace(die_at(line))
            work(root, name, first, write)
            os._exit(0)
        except BaseException:  # noqa: BLE001 - what a child meets is told by its exit code
            os._exit(1)
    os.close(write)
    with os.fdopen(read, "rb") as answers:
        answered = [int(one) for one in answers]
    code = os.waitstatus_to_exitcode(os.waitpid(pid, 0)[1])
    assert code in (0, 9)
    return code == 9, answered[-1] + 1 if answered else first


def die_at(line: int) -> Any:
    """Return a tracer that ends the process, as kill -9 would, before the n-th line of the watched code."""
    left = line

    def trace(frame: FrameType, event: str, _: object) -> Any:
        nonlocal left
        if not any(part in frame.f_code.co_filename for part in WATCHED):
            return None
        if event == "line":
            left -= 1
            if left == 0:
                os._exit(9)
        return trace

    return trace


def length_of_a_life(root: Path) -> int:
    low, high = 1, 100_000
    while low < high:
        middle = (low + high) // 2
        died, _ = life(root / f"probe{middle}", "w1", 0, middle)
        low, high = (middle + 1, high) if died else (low, middle)
    return low


def delivered(root: Path) -> Counter[str]:
    found: Counter[str] = Counter()
    for path in (root / "data").rglob("*.ndjson.zst"):
        for line in zstandard.ZstdDecompressor().decompress(path.read_bytes()).splitlines():
            found[json.loads(line)["id"]] += 1
    return found


def test_whenever_a_worker_dies_what_is_sent_again_arrives_once(root: Path) -> None:
    """It dies between any two lines, often twice in a row; each device sends again until it has its answer."""
    rng = random.Random(20261124)
    length = length_of_a_life(root)
    everything = {token for n in range(UPLOADS) for token in tokens_of(n)}
    for line in sorted(rng.sample(range(1, length), 80)):
        place = root / f"at{line}"
        died, following = life(place, "w1", 0, line)
        _, following = life(place, "w2", following, rng.randrange(1, length))
        clock = FakeClock(monotonic=3000.0)
        worker = Worker(place, "w3", clock)
        worker.spool.start()
        for n in [*range(following, UPLOADS), *rng.sample(range(UPLOADS), 3)]:
            assert worker.upload(*tokens_of(n))
        for _ in range(10):
            clock.advance(2.0)
            worker.deliver()
        totals = worker.spool.books.totals()
        worker.spool.close()
        found = delivered(place)

        assert died
        assert everything == set(found), f"lost after a death at line {line}"
        assert {1} == set(found.values()), f"twice after a death at line {line}"
        assert totals.balanced
        assert len(found) == totals.outcomes()["delivered"]
        assert not worker.signals.named("ledger_imbalance")
        assert not worker.signals.named("internal_error")


def in_children(count: int, run: Callable[[int], None]) -> list[int]:
    """Run a function in so many processes at once, and return how they ended."""
    pids = []
    for n in range(count):
        pid = os.fork()
        if not pid:
            try:
                run(n)
                os._exit(0)
            except BaseException:  # noqa: BLE001 - as above
                os._exit(1)
        pids.append(pid)
    return [os.waitstatus_to_exitcode(os.waitpid(pid, 0)[1]) for pid in pids]


def test_processes_that_take_the_same_events_at_once_keep_each_once(root: Path) -> None:
    """A device whose answer is late sends again while its first upload is still on its way."""
    uploads = [[f"e{n + k}" for k in range(10)] for n in range(0, 3000, 7)]

    def run(n: int) -> None:
        worker = Worker(root, f"w{n}", SystemClock())
        worker.spool.start()
        # The same uploads, nearly in step.
        for first in range(0, len(uploads), 8):
            some = uploads[first : first + 8]
            random.Random(n).shuffle(some)
            assert all(worker.upload(*tokens) for tokens in some)

    assert [0, 0, 0] == in_children(3, run)

    clock = FakeClock(monotonic=SystemClock().monotonic())
    worker = Worker(root, "last", clock)
    worker.spool.start()
    for _ in range(10):
        clock.advance(2.0)
        worker.deliver()
    totals = worker.spool.books.totals()
    worker.spool.close()
    found = delivered(root)

    assert {token for tokens in uploads for token in tokens} == set(found)
    assert {1} == set(found.values())
    assert 30 * len(uploads) == totals.outcomes()["accepted"]
    assert totals.balanced


def test_an_upload_that_comes_again_over_another_connection_arrives_once(tmp_path: Path) -> None:
    """A device knows nothing of workers; the ledger says what came twice."""
    toml = tenant("once", "once-key", dedupe_window_s=600) + tenant("all", "all-key")
    body = json.dumps([{"id": f"e{n}"} for n in range(20)]).encode()
    with Server(tmp_path, toml=toml, workers=2) as server:
        links = [server.link() for _ in range(12)]
        for link in links:
            link.send(upload(body, key="once-key"))
        replies = [link.must_reply() for link in links]
        for link in links:
            link.sock.close()
        for _ in range(2):
            server.post(body, key="all-key")
        ledger = server.settled()

        assert [(200, 20)] * 12 == [(reply.status, reply.json["accepted"]) for reply in replies]
        arrived = Counter(json.loads(line)["tenant"] for line in server.lines())
        assert {"once": 20, "all": 40} == arrived
        once = ledger["tenants"]["once"]
        assert (240, 20, 220) == (once["accepted"], once["delivered"], once["deduplicated"])
        assert 0 == ledger["tenants"]["all"]["deduplicated"]
        page = server.admin("/metrics").body.decode()
        assert 'collector_ledger_events{reason="",state="deduplicated",tenant="once"} 220.0' in page
        assert "collector_ledger_balanced 1.0" in page
    assert 220 == server.logged("drain.done")[-1]["deduplicated"]
