"""
Log lines of the real shape, made by the same code that makes the real ones, as fast as a load needs them.
"""

from __future__ import annotations

import math
import random
from collections.abc import Callable

import msgspec

from collector.errors import LinesSpent
from collector.outcome import Outcome, Reason
from collector.telemetry.logs import build_logger
from collector.telemetry.metrics import Metrics
from collector.telemetry.signals import Signals

#: Different lines that are made before the first is sent. A choice: 300 KB of them, ten times the window of gzip, so
#: that they compress as lines do that are all different.
_TEMPLATES = 1024
#: Stands where the number of a line will be.
_NUMBER = 8_888_888_888
_PLACE = str(_NUMBER).encode()
_OWNER = "collector-tune"
_STEP_US = 137_731


class _Clock:
    """Time that goes on by a step with each look, so that no two lines have the same."""

    def __init__(self, now_us: int) -> None:
        self._now_us = now_us

    def now_us(self) -> int:
        self._now_us += _STEP_US
        return self._now_us

    def monotonic(self) -> float:
        return self._now_us / 1_000_000


class _Level(msgspec.Struct):
    level: str


class _Template(msgspec.Struct, frozen=True):
    before: bytes
    after: bytes
    level: str


class _Catch:
    """A stream that keeps what is written to it."""

    def __init__(self) -> None:
        self.lines: list[bytes] = []

    def write(self, line: bytes, /) -> None:
        self.lines.append(line.rstrip(b"\n"))


class Lines:
    """
    An endless supply of lines, each with a number of its own in `seq`, so that none is like another.

    They are what a loaded worker says: reports, batches that fail or are slow, uploads that are refused, now and then
    an error with its traceback. Their `owner` is `collector-tune`. The same `seed` makes the same lines; `now_us` is
    the time that the first of them bears. There are `limit` of them at the most.
    """

    def __init__(self, *, now_us: int, seed: int = 0, limit: float = math.inf) -> None:
        self._templates = _templates(now_us, random.Random(seed))
        self._limit = limit
        self._next = 0

    def next(self) -> tuple[bytes, str]:
        """Return a line, without a newline, and its level; raises `LinesSpent`."""
        number = self._next
        if number >= self._limit:
            raise LinesSpent("as many lines were sent as may be; raise --max-lines, or ask for a lower --rate")
        self._next += 1
        template = self._templates[number % len(self._templates)]
        return b"%b%d%b" % (template.before, number, template.after), template.level

    @property
    def made(self) -> int:
        """Return how many lines were made."""
        return self._next

    @property
    def severe_part(self) -> float:
        """Return which part of their bytes is of warnings and worse."""
        sizes = [(len(one.before) + len(one.after), one.level != "info") for one in self._templates]
        return sum(size for size, is_severe in sizes if is_severe) / sum(size for size, _ in sizes)

    def sample(self, count: int) -> list[bytes]:
        """Return so many lines, to be measured or compressed; they are not counted as made."""
        some = [self._templates[n % len(self._templates)] for n in range(count)]
        return [b"%b%d%b" % (one.before, n, one.after) for n, one in enumerate(some)]


def _templates(now_us: int, rng: random.Random) -> list[_Template]:
    caught = _Catch()
    clock = _Clock(now_us)
    logger = build_logger(caught, "info", clock=clock, pid=4242, owner=_OWNER, seq=_NUMBER)
    signals = Signals(logger, Metrics(), clock=clock)
    while len(caught.lines) < _TEMPLATES:
        rng.choices(_SAYINGS, _WEIGHTS)[0](signals, rng)
        signals.flush()
    decoder = msgspec.json.Decoder(_Level)
    made = []
    for line in caught.lines[:_TEMPLATES]:
        before, _, after = line.partition(_PLACE)
        made.append(_Template(before, after, decoder.decode(line).level))
    return made


_Saying = Callable[[Signals, random.Random], None]


def _tenant(rng: random.Random) -> str:
    return f"tenant-{rng.randrange(400):03d}"


def _intake(signals: Signals, rng: random.Random) -> None:
    uploads = rng.randrange(1, 9000)
    signals.intake_report(
        _tenant(rng), seconds=60.0 + rng.random(), uploads=uploads, events=uploads * rng.randrange(1, 90),
        bytes=uploads * rng.randrange(400, 40_000), refused=rng.randrange(40), rejected=rng.randrange(9),
        deduplicated=rng.randrange(99),
    )  # fmt: skip


def _route(signals: Signals, rng: random.Random) -> None:
    batches = rng.randrange(1, 400)
    signals.route_report(
        rng.choice(_ROUTES), seconds=60.0 + rng.random(), batches=batches, events=batches * rng.randrange(1, 9000),
        bytes=batches * rng.randrange(10_000, 4_000_000), failures=rng.randrange(5), throttled=rng.randrange(5),
        in_doubt=rng.randrange(3), width=rng.randrange(1, 17),
    )  # fmt: skip


def _worker(signals: Signals, rng: random.Random) -> None:
    signals.worker_report(
        connections=rng.randrange(2000), lag_s=rng.random() / 50, resident_bytes=rng.randrange(60 << 20, 120 << 20),
        memory_used_bytes=rng.randrange(1 << 30), memory_limit_bytes=2 << 30, spool_bytes=rng.randrange(64 << 20),
        spool_budget_bytes=64 << 20, spool_refusing=False,
    )  # fmt: skip


def _failed(signals: Signals, rng: random.Random) -> None:
    signals.batch_failed(rng.choice(_ROUTES), rng.choice(_CAUSES), rng.randrange(1, 30), rng.random() * 15)


def _refused(signals: Signals, rng: random.Random) -> None:
    reason = rng.choice([Reason.OVER_QUOTA, Reason.UNKNOWN_KEY, Reason.MALFORMED, Reason.BACKPRESSURE])
    for _ in range(rng.randrange(1, 5)):
        signals.upload_refused(None if reason == Reason.UNKNOWN_KEY else _tenant(rng), "native", reason)


def _lost(signals: Signals, rng: random.Random) -> None:
    segment = f"{rng.randrange(2**40):010x}.{rng.randrange(10**6):06d}"
    signals.events_lost(_tenant(rng), Outcome.DROPPED, Reason.CORRUPT_FRAME, rng.randrange(1, 900), segment)


def _unexpected(signals: Signals, rng: random.Random) -> None:
    try:
        _fall(rng.randrange(1, 7))
    except RuntimeError as error:
        signals.internal_error(f"flusher.{rng.choice(_ROUTES)}", error)


def _fall(depth: int) -> None:
    if depth:
        _fall(depth - 1)
    raise RuntimeError("the writer was closed while a batch was under way")


def _adopted(signals: Signals, rng: random.Random) -> None:
    signals.segment_adopted(f"{rng.randrange(2**48):012x}", rng.randrange(1, 40), rng.randrange(1, 90_000))


def _tenants(signals: Signals, rng: random.Random) -> None:
    signals.tenants_loaded(rng.randrange(1, 9000), f"{rng.randrange(2**64):016x}")


_ROUTES = ("default", "archive", "clickstream", "eu-analytics", "partner-feed")
_CAUSES = (
    "s3.put_object: SlowDown: Please reduce your request rate; the batch is kept and tried again",
    "kinesis.put_records: 37 of 500 records: ProvisionedThroughputExceededException; they are kept and tried again",
    "s3.put_object: the connection was reset before an answer came; the batch is kept and tried again",
    "file: No space left on device; free some or mount a larger disk; the batch is kept and tried again",
)  # fmt: skip
#: What is said, and how often, of a hundred lines. A guess at an hour in which something is wrong: in a calm one there
#: are reports alone, and few of them.
_MIX: tuple[tuple[_Saying, int], ...] = (
    (_intake, 34), (_route, 14), (_worker, 12), (_failed, 16), (_refused, 16), (_lost, 2), (_unexpected, 1),
    (_adopted, 2), (_tenants, 3),
)  # fmt: skip
_SAYINGS = [saying for saying, _ in _MIX]
_WEIGHTS = [weight for _, weight in _MIX]
