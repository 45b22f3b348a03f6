"""
What a sender's buffer has to hold, and what it costs: arithmetic alone.

Sizes are bytes of lines in their envelopes, before compression, as the sender's own accounts have them; times are
seconds, rates bytes a second of one worker. Where a number comes from stands with it.
"""

from __future__ import annotations

import math
import random

from collector.telemetry.hec.pace import Pace

#: Python's own cost of a line that waits, beside its bytes: the object, its place in the queue, its time. Measured
#: 35 to 60 bytes in CPython 3.11.
RECORD_OVERHEAD_BYTES = 60
#: What the allocator and fragments add to what is held. A rule of thumb, from the same measurement.
ALLOCATOR_FACTOR = 1.3
#: gzip at level 1 takes log lines to about a fifth: 5.1 to 5.2, measured on lines of 368 bytes.
GZIP_RATIO = 5.2
#: Part of the buffer that is kept for warnings and worse, and at the most so many bytes: the sender's own numbers.
_RESERVE_PART, _MAX_RESERVE_BYTES = 8, 1 << 20
#: Outages that are played through to see how long their ends go unnoticed.
_DRAWS = 500


def usable_bytes(buffer_bytes: int) -> int:
    """Return what lines below a warning may fill: loss begins there. The rest is kept for warnings and worse."""
    return buffer_bytes - min(buffer_bytes // _RESERVE_PART, _MAX_RESERVE_BYTES)


def buffer_for(usable: float) -> int:
    """Return the smallest buffer of which so many bytes are usable; the inverse of `usable_bytes`."""
    with_part = math.ceil(usable * _RESERVE_PART / (_RESERVE_PART - 1))
    with_most = math.ceil(usable) + _MAX_RESERVE_BYTES
    found = min(with_part, with_most)
    # A part is rounded down, so one byte less may do.
    return found - 1 if found and usable_bytes(found - 1) >= usable else found


def outage_bytes(rate: float, silent_s: float) -> float:
    """Return what comes while nothing leaves: B >= r * T."""
    return rate * silent_s


def first_drop_s(usable: float, rate: float, *, drain: float = 0.0) -> float:
    """Return how long it takes until a line is dropped: B / (r - drain); infinite when more leaves than comes."""
    return usable / (rate - drain) if rate > drain else math.inf


def burst_bytes(rate: float, burst_s: float, *, drain: float) -> float:
    """Return what is left over from a burst above what leaves: B >= (r - drain) * t."""
    return max(0.0, (rate - drain) * burst_s)


def recovery_s(backlog: float, rate: float, *, drain: float) -> float:
    """Return how long a backlog takes to go while more comes: backlog / (drain - r); infinite when it never does."""
    if backlog <= 0:
        return 0.0
    return backlog / (drain - rate) if drain > rate else math.inf


def ceiling(batch_bytes: float, *, answer_s: float, gzip_s: float) -> float:
    """
    Return the most that one connection carries, with one request at a time: batch / (round trip + server + gzip).

    `answer_s` is round trip and server together. 256 KiB in 50 ms are 5 MB/s.
    """
    took_s = answer_s + gzip_s
    return batch_bytes / took_s if took_s > 0 else math.inf


def loss_part(buffer_bytes: int, rate: float, silent_s: float, *, severe_part: float = 0.0) -> float:
    """
    Return which part of the lines that come while nothing leaves is lost, from 0 to 1.

    `severe_part` of them are warnings and worse, which go on into the reserve when the rest is full.
    """
    comes = outage_bytes(rate, silent_s)
    usable = usable_bytes(buffer_bytes)
    if comes <= usable:
        return 0.0
    kept = usable + min(buffer_bytes - usable, (comes - usable) * severe_part)
    return 1.0 - kept / comes


def loss_starts_at(usable: float, silent_s: float) -> float:
    """Return the rate above which lines are lost in such an outage, in bytes a second: B / T."""
    return usable / silent_s if silent_s > 0 else math.inf


def memory_bytes(buffer_bytes: float, *, batch_bytes: float, line_bytes: float, workers: int) -> float:
    """
    Return what buffers cost a task at the most, in bytes of memory.

    workers * (B + 2 * batch + batch compressed + B / line * overhead) * 1.3: while a batch is sent, its lines are held,
    joined, and compressed.
    """
    records = buffer_bytes / line_bytes * RECORD_OVERHEAD_BYTES
    held = buffer_bytes + 2 * batch_bytes + batch_bytes / GZIP_RATIO + records
    return workers * held * ALLOCATOR_FACTOR


class _Played:
    """A clock that stands where it is put."""

    def __init__(self) -> None:
        self.now_s = 0.0

    def now_us(self) -> int:
        return round(self.now_s * 1_000_000)

    def monotonic(self) -> float:
        return self.now_s


def unnoticed_s(outage_s: float, *, part: float = 0.99, attempt_s: float = 0.0, seed: int = 0) -> float:
    """
    Return how long HEC is back before the sender finds out, in all but `1 - part` of outages of this length.

    The sender pauses between its attempts, longer each time and by chance, and does not look meanwhile. Outages are
    played through with the sender's own pauses; an attempt itself takes `attempt_s`: nothing when the connection is
    refused, the whole timeout in a black hole.
    """
    rng = random.Random(seed)
    found = sorted(_unnoticed_once(outage_s, attempt_s, rng) for _ in range(_DRAWS))
    return found[min(_DRAWS - 1, int(part * _DRAWS))]


def attempts_s(seed: int, *, until_s: float, attempt_s: float = 0.0) -> list[float]:
    """
    Return when a sender whose chance has this seed tries again, in seconds after its first attempt failed.

    The last of them is at or after `until_s`.
    """
    clock = _Played()
    pace = Pace(clock=clock, rng=random.Random(seed))
    times: list[float] = []
    while not times or times[-1] < until_s:
        clock.now_s += attempt_s
        pace.failed()
        clock.now_s += max(pace.wait_s(), 1e-6)
        times.append(clock.now_s)
    return times


def _unnoticed_once(outage_s: float, attempt_s: float, rng: random.Random) -> float:
    clock = _Played()
    pace = Pace(clock=clock, rng=rng)
    while clock.now_s < outage_s:
        clock.now_s += attempt_s
        pace.failed()
        clock.now_s += max(pace.wait_s(), 1e-6)
    return clock.now_s - outage_s
