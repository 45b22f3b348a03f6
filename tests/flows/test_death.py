"""A worker may die between any two lines of the code that holds its events: nothing is lost, nothing miscounted."""

from __future__ import annotations

import os
import random
import sys
from collections import Counter
from pathlib import Path
from types import FrameType
from typing import Any

import zstandard

from collector.buffer.room import Bounds
from collector.buffer.spool import Spool
from collector.delivery.flusher import Flusher
from collector.delivery.retry import Backoff
from collector.sinks.registry import open_sink
from tests.fakes import FakeClock, RecordingSignals

BOUNDS = Bounds(task_bytes=1 << 30, worker_bytes=1 << 30, segment_bytes=600)
WATCHED = tuple(os.sep + os.path.join("collector", part) + os.sep for part in ("buffer", "delivery", "telemetry"))
TENANTS = ("a", "b")


def worker(root: Path, name: str) -> tuple[Spool, Flusher, FakeClock, RecordingSignals]:
    clock, signals = FakeClock(), RecordingSignals()
    spool = Spool(root / "spool", name, BOUNDS, clock=clock, signals=signals)
    flusher = Flusher(
        spool,
        {"default": open_sink(f"file:{root}/data?fsync=0", writer_id=name)},
        backoff=Backoff(rng=random.Random(1)),
        clock=clock,
        signals=signals,
        max_age_s=1.0,
        concurrency=2,
    )
    return spool, flusher, clock, signals


def work(root: Path, name: str, acked: int) -> None:
    """One worker's life: adopt, take uploads, deliver, leave. Each upload's last number goes out as its answer."""
    spool, flusher, clock, _ = worker(root, name)
    spool.start()
    n = 0
    for upload in range(12):
        tenant = TENANTS[upload % 2]
        events = 1 + upload % 3
        payload = b"".join(b'{"id":"%s-%d"}\n' % (name.encode(), n + k) for k in range(events))
        spool.append("default", tenant, payload, events=events, received_us=clock.now_us())
        n += events
        os.write(acked, b"%s %d %d\n" % (name.encode(), n - events, n))
        if upload % 4 == 3:
            clock.advance(2.0)
            flusher.tick()
            spool.tick()
    spool.close()


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


def life(root: Path, name: str, line: int) -> tuple[bool, list[bytes]]:
    """Let a worker live in a process of its own until that line; return whether it got there, and its answers."""
    read, write = os.pipe()
    pid = os.fork()
    if not pid:
        try:
            os.close(read)
            sys.settrace(die_at(line))
            work(root, name, write)
            os._exit(0)
        except BaseException:  # noqa: BLE001 - what a child meets is told by its exit code
            os._exit(1)
    os.close(write)
    with os.fdopen(read, "rb") as answers:
        acked = [
            b"%s-%d" % (who, n)
            for who, first, last in (line.split() for line in answers)
            for n in range(int(first), int(last))
        ]
    _, status = os.waitpid(pid, 0)
    code = os.waitstatus_to_exitcode(status)
    assert code in (0, 9)
    return code == 9, acked


def delivered(root: Path) -> Counter[bytes]:
    found: Counter[bytes] = Counter()
    for path in (root / "data").rglob("*.ndjson.zst"):
        for line in zstandard.ZstdDecompressor().decompress(path.read_bytes()).splitlines():
            found[line[7:-2]] += 1
    return found


def lines_of_a_life(tmp_path: Path) -> int:
    low, high = 1, 200_000
    while low < high:
        middle = (low + high) // 2
        died, _ = life(tmp_path / f"probe{middle}", "p", middle)
        low, high = (middle + 1, high) if died else (low, middle)
    return low


def test_a_worker_that_dies_at_any_line_loses_nothing_and_its_books_are_exact(
    tmp_path: Path,
) -> None:
    """`kill -9` comes between two instructions; the answer that was given before it must stay true."""
    rng = random.Random(20261123)
    length = lines_of_a_life(tmp_path)
    for line in sorted(rng.sample(range(1, length), 150)):
        root = tmp_path / f"at{line}"
        died, acked = life(root, "w1", line)
        # The next one dies too, often in the middle of adoption.
        _, more = life(root, "w2", rng.randrange(1, length))
        spool, flusher, clock, signals = worker(root, "w3")
        spool.start()
        for _ in range(20):
            clock.advance(2.0)
            spool.tick()
            flusher.tick()
        totals = spool.books.totals()
        spool.close()
        found = delivered(root)

        assert died
        assert not set(acked + more) - set(found), f"lost after a death at line {line}"
        assert set(found.values()) <= {1}, f"delivered twice after a death at line {line}"
        assert totals.balanced
        assert len(found) == totals.outcomes()["accepted"] == totals.outcomes()["delivered"]
        assert not signals.named("ledger_imbalance")
        assert not signals.named("events_lost")
        assert totals.tenants == spool.books.totals().tenants
