"""
The lines that wait for Splunk: bounded by bytes, with an account of each.

A line is queued, then in flight in one batch, then delivered or dropped under a reason: each step moves it in the
accounts under one short lock, so that they add up at any moment. Nothing here does I/O.
"""

from __future__ import annotations

import threading
from collections import defaultdict, deque
from collections.abc import Sequence
from enum import StrEnum

import msgspec

from collector.clock import Clock
from collector.telemetry.hec.options import Account

#: The part of the buffer that only warnings and worse may use, and its bound. Choices: a worker says some 300 bytes of
#: them at a time, at most 500 kinds of them a second.
_RESERVE_PART, _MAX_RESERVE_BYTES = 8, 1 << 20
#: So long after losses began they are told, if the queue has not had room again before that; in seconds. A choice.
_TELL_AFTER_S = 60.0


class Drop(StrEnum):
    """Why a line does not get to Splunk."""

    FULL = "full"
    OVERSIZE = "oversize"
    FORMAT = "format"
    REJECTED = "rejected"
    UNCONFIRMED = "unconfirmed"
    SHUTDOWN = "shutdown"


class Line(msgspec.Struct, frozen=True, gc=False):
    """One line in its envelope, and when it came, on the monotonic clock."""

    data: bytes
    at_s: float


class Loss(msgspec.Struct, frozen=True):
    """So many lines were dropped for a reason, the first and the last at these times, in µs since the epoch."""

    reason: Drop
    count: int
    first_us: int
    last_us: int


class Batch(msgspec.Struct, gc=False):
    """
    Lines that go together, in `attempts` requests so far.

    `is_out`: a request with them is on its way. `in_doubt`: they may have arrived with one that was before.
    """

    lines: Sequence[Line]
    size: int
    attempts: int = 0
    in_doubt: bool = False
    is_out: bool = False

    def part(self, lines: Sequence[Line]) -> Batch:
        """Make a batch of some of its lines, with its past."""
        size = sum([len(line.data) for line in lines])
        return Batch(lines, size, self.attempts, self.in_doubt)

    def __len__(self) -> int:
        return len(self.lines)


class HecBuffer:
    """
    Lines queued and in flight, of at most `limit_bytes` together; the newest loses.

    Safe to use from any thread or greenlet. `put` takes some µs, and never waits for more than another's `put`.
    """

    def __init__(self, limit_bytes: int, *, clock: Clock) -> None:
        self._limit_bytes = limit_bytes
        self._common_bytes = limit_bytes - min(limit_bytes // _RESERVE_PART, _MAX_RESERVE_BYTES)
        self._clock = clock
        self.reset()

    def reset(self) -> None:
        """Begin anew, with nothing held and all accounts at 0: what a fork copied belongs to its parent."""
        # Of the kind that its owner may take again: a signal's handler or a finalizer may log while it is held.
        self._lock = threading.RLock()
        self._is_closed = False
        self._queue: deque[Line] = deque()
        self._flying: dict[int, Batch] = {}
        self._queued_bytes = self._held_bytes = self._high_water_bytes = 0
        self._emitted = self._delivered = self._in_flight = self._bytes_in = 0
        self._dropped: defaultdict[Drop, int] = defaultdict(int)
        self._losses: dict[Drop, Loss] = {}
        self._lost_since_s: float | None = None
        self._bytes_wire = self._retries = self._possible_duplicates = 0
        self._results: defaultdict[str, int] = defaultdict(int)

    # -- lines ---------------------------------------------------------------------------------------------

    def put(self, data: bytes, *, is_severe: bool) -> bool:
        """Queue a line in its envelope; return False when there is no room, or all was given up, and it is dropped."""
        size = len(data)
        at_s = self._clock.monotonic()
        with self._lock:
            self._emitted += 1
            self._bytes_in += size
            if self._is_closed:
                self._drop(Drop.SHUTDOWN, 1)
                return False
            if self._held_bytes + size > (self._limit_bytes if is_severe else self._common_bytes):
                self._drop(Drop.FULL, 1)
                return False
            self._queue.append(Line(data, at_s))
            self._queued_bytes += size
            self._held_bytes += size
            self._high_water_bytes = max(self._high_water_bytes, self._held_bytes)
            return True

    def refuse(self, reason: Drop, size: int = 0) -> None:
        """Count a line of so many bytes that can't even be queued."""
        with self._lock:
            self._emitted += 1
            self._bytes_in += size
            self._drop(reason, 1)

    def take(self, max_bytes: int, max_lines: int) -> Batch | None:
        """Take the oldest lines into flight: one at least, if there is one, and no more than fit."""
        with self._lock:
            lines: list[Line] = []
            size = 0
            while self._queue and len(lines) < max_lines:
                more = len(self._queue[0].data)
                if lines and size + more > max_bytes:
                    break
                lines.append(self._queue.popleft())
                size += more
            if not lines:
                return None
            self._queued_bytes -= size
            self._in_flight += len(lines)
            batch = Batch(lines, size)
            self._flying[id(batch)] = batch
            return batch

    def split(self, batch: Batch, parts: Sequence[Sequence[Line]]) -> list[Batch]:
        """Make batches of parts of one in flight, which together are all of it."""
        made = [batch.part(lines) for lines in parts if lines]
        with self._lock:
            if self._flying.pop(id(batch), None) is not None:
                self._flying.update((id(part), part) for part in made)
        return made

    def deliver(self, batch: Batch) -> None:
        """Let a batch have arrived."""
        with self._lock:
            if self._land(batch):
                self._delivered += len(batch)

    def drop(self, batch: Batch, reason: Drop) -> None:
        """Give a batch up."""
        with self._lock:
            if self._land(batch):
                self._drop(reason, len(batch))

    def give_up(self, unsent: Drop, sent: Drop) -> None:
        """
        Drop all that is left, and all that comes: what was sent in vain for one reason, what was not for the other.

        An answer that comes later changes nothing any more.
        """
        with self._lock:
            self._is_closed = True
            if self._queue:
                self._drop(unsent, len(self._queue))
                self._queue.clear()
                self._held_bytes -= self._queued_bytes
                self._queued_bytes = 0
            for batch in list(self._flying.values()):
                self._land(batch)
                if batch.is_out and batch.in_doubt:
                    self._possible_duplicates += len(batch)
                self._drop(sent if batch.in_doubt or batch.is_out else unsent, len(batch))

    def _land(self, batch: Batch) -> bool:
        # A batch that was given up at a shutdown may yet be answered: it has its fate already.
        if self._flying.pop(id(batch), None) is None:
            return False
        self._in_flight -= len(batch)
        self._held_bytes -= batch.size
        return True

    def _drop(self, reason: Drop, count: int) -> None:
        self._dropped[reason] += count
        now_us = self._clock.now_us()
        told = self._losses.get(reason)
        first_us, so_far = (told.first_us, told.count) if told else (now_us, 0)
        self._losses[reason] = Loss(reason, so_far + count, first_us, now_us)
        if self._lost_since_s is None:
            self._lost_since_s = self._clock.monotonic()

    # -- requests ------------------------------------------------------------------------------------------

    def leaving(self, batch: Batch) -> None:
        """Let a batch be in a request that leaves now: until it is answered nobody knows where its lines are."""
        with self._lock:
            if id(batch) in self._flying:
                self._retries += batch.attempts > 0
                batch.attempts += 1
                batch.is_out = True

    def answered(self, batch: Batch, result: str, *, wire_bytes: int, arrived: int, in_doubt: bool) -> None:
        """
        Count what came of it, and the bytes that went.

        So many of its lines may have `arrived` now; `in_doubt`: and nobody knows, or will be told later.
        """
        with self._lock:
            if id(batch) in self._flying:
                self._results[result] += 1
                self._bytes_wire += wire_bytes
                self._possible_duplicates += arrived if batch.in_doubt else 0
                batch.is_out = False
                batch.in_doubt = batch.in_doubt or in_doubt

    def asked(self, wire_bytes: int) -> None:
        """Count a request of so many bytes that has no lines."""
        with self._lock:
            if not self._is_closed:
                self._bytes_wire += wire_bytes

    # -- accounts ------------------------------------------------------------------------------------------

    @property
    def queued_bytes(self) -> int:
        """Bytes that wait for their first request."""
        return self._queued_bytes

    @property
    def queued_lines(self) -> int:
        """Lines that wait for their first request."""
        return len(self._queue)

    def oldest_queued_age_s(self) -> float:
        """Return how long the first of the queue has waited; 0 when there is none."""
        try:
            return self._clock.monotonic() - self._queue[0].at_s
        except IndexError:
            return 0.0

    def account(self) -> Account:
        """Look at all accounts at once."""
        with self._lock:
            oldest = [batch.lines[0].at_s for batch in self._flying.values()]
            if self._queue:
                oldest.append(self._queue[0].at_s)
            return Account(
                emitted=self._emitted,
                delivered=self._delivered,
                dropped={reason.value: count for reason, count in self._dropped.items()},
                queued=len(self._queue),
                in_flight=self._in_flight,
                held_bytes=self._held_bytes,
                high_water_bytes=self._high_water_bytes,
                bytes_in=self._bytes_in,
                bytes_wire=self._bytes_wire,
                requests=sum(self._results.values()),
                results=dict(self._results),
                retries=self._retries,
                possible_duplicates=self._possible_duplicates,
                oldest_age_s=max(0.0, self._clock.monotonic() - min(oldest)) if oldest else 0.0,
            )

    def take_losses(self) -> list[Loss]:
        """Return what was dropped since this was last asked."""
        with self._lock:
            losses, self._losses = self._losses, {}
            return list(losses.values())

    def may_tell(self) -> bool:
        """
        Tell whether losses should be told now: there is room for all lines again, or they go on for a minute.

        Asked once for each telling: a `True` begins the next minute.
        """
        with self._lock:
            if self._lost_since_s is None:
                return True
            has_room = self._held_bytes < self._common_bytes // 2
            if not has_room and self._clock.monotonic() - self._lost_since_s < _TELL_AFTER_S:
                return False
            self._lost_since_s = None if has_room else self._clock.monotonic()
            return True
