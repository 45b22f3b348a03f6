"""
How much a tenant may upload: rates of events and of bytes, counted over all workers of the task.

Each rate is a meter of the generic cell rate algorithm: one number, the theoretical arrival time (TAT), at
which all that was admitted so far would have come in at exactly the rate. A TAT ahead of the clock by up to
`burst_s` seconds is credit in use; further ahead it is debt. A tenant not in debt is admitted, whatever the
size of the upload, and may run into debt by it; a tenant in debt is refused, and not charged, until the debt
has run off. So in any stretch of T seconds a tenant gets at most rate * (T + burst_s) events and one upload.

The meters lie in one file on tmpfs that all workers map: a slot a tenant, two doubles a slot, in seconds of
CLOCK_MONOTONIC, which all processes of a host share. A charge holds the kernel's lock on its tenant's slot, for
a microsecond; the kernel frees it when its holder dies. A holder that is stopped in the middle does not stop the
others: after some tries they charge without the lock, and then the later of two stores wins. That is always to
the tenant's advantage, and never more than a burst and one upload for each time it happens.
"""

from __future__ import annotations

import math
import mmap
import os
from errno import ENOSPC
from fcntl import LOCK_EX, LOCK_NB, LOCK_UN, lockf
from pathlib import Path

from collector.clock import Clock
from collector.errors import SpoolBroken, SpoolFull
from collector.tenant import Tenant

#: Words of a slot: the TAT of events, the TAT of bytes.
WORDS = 2
SLOT_BYTES = 8 * WORDS
#: The file grows by so many slots: four pages.
SLOTS_STEP = 1024
#: A slot beyond is a mistake of the caller, not a tenant: 16 MiB of meters.
MAX_SLOTS = 1024 * 1024
#: How often a lock is asked for that another worker has, at about a microsecond each.
LOCK_TRIES = 50
#: A debt below this, in seconds, is what adding doubles leaves over, and no debt.
ROUNDING_S = 1e-6
#: No wait is longer, however small a rate.
HORIZON_S = 366 * 86_400.0


_LOCK = LOCK_EX | LOCK_NB


class Quota:
    """
    The meters of all tenants.

    `max_events` and `max_bytes` are the largest upload there can be. A TAT that is further ahead than such an
    upload and a burst explain is of another boot, another rate or a broken file, and is taken back to that.
    So a raised rate helps at once, and a stale file can't shut a tenant out.
    """

    def __init__(
        self, path: Path, clock: Clock, *, max_events: int = 10_000, max_bytes: int = 16 * 1024 * 1024
    ) -> None:
        self._path = path
        self._clock = clock
        self._max_events = max_events
        self._max_bytes = max_bytes
        self._fd: int | None = None
        self._tats = memoryview(b"").cast("d")
        self._slots = 0

    def start(self) -> None:
        """Open or make the file and map it; raises `SpoolFull` or `SpoolBroken`. Safe to call twice."""
        if self._fd is not None:
            return
        try:
            self._path.parent.mkdir(parents=True, exist_ok=True)
            self._fd = os.open(self._path, os.O_RDWR | os.O_CREAT | os.O_CLOEXEC, 0o600)
        except OSError as exc:
            raise self._refused(exc) from exc
        try:
            self._map(0)
        except BaseException:
            self.close()
            raise

    def take(self, slot: int, tenant: Tenant, *, events: int, bytes_: int) -> float:
        """
        Admit an upload and charge it: 0.0; or say in how many seconds it would be admitted, and charge nothing.

        `slot` is the tenant's own number in all workers, from 0. Raises `SpoolFull` or `SpoolBroken` when
        there is no meter to be had for a new slot.
        """
        if not tenant.events_per_s and not tenant.bytes_per_s:
            return 0.0
        if not 0 <= slot < self._slots:
            self._map(slot)
        at, tats, now = slot * WORDS, self._tats, self._clock.monotonic()
        no_debt = now + tenant.burst_s + ROUNDING_S
        # Keeps other workers from the meter for the µs that a charge takes; the kernel frees it when we die. A worker
        # that is stopped while it has the lock must not stop the others: after some tries they go on without, and then
        # a charge may be lost.
        fd: int = self._fd  # type: ignore[assignment]  # _map has seen that it is open
        is_locked = self._lock(fd, slot)
        try:
            if (tats[at] > no_debt or tats[at + 1] > no_debt) and (wait := self._wait(at, tenant, no_debt)):
                return wait
            # A call of max would take longer than all the rest. A NaN from a broken file is not greater, and is gone.
            if rate := tenant.events_per_s:
                tat = tats[at]
                tats[at] = (tat if tat > now else now) + events / rate  # noqa: FURB136 - as said above
            if rate := tenant.bytes_per_s:
                tat = tats[at + 1]
                tats[at + 1] = (tat if tat > now else now) + bytes_ / rate  # noqa: FURB136 - as said above
        finally:
            if is_locked:
                lockf(fd, LOCK_UN, 1, slot)
        return 0.0

    @staticmethod
    def _lock(fd: int, slot: int) -> bool:
        for _ in range(LOCK_TRIES):
            try:
                lockf(fd, _LOCK, 1, slot)
            except OSError:
                continue
            return True
        return False

    def peek(self, slot: int, tenant: Tenant) -> float:
        """Say in how many seconds an upload would be admitted, 0.0 for now, and charge nothing."""
        if not tenant.events_per_s and not tenant.bytes_per_s:
            return 0.0
        if not 0 <= slot < self._slots:
            self._map(slot)
        at, no_debt = slot * WORDS, self._clock.monotonic() + tenant.burst_s + ROUNDING_S
        if self._tats[at] > no_debt or self._tats[at + 1] > no_debt:
            return self._wait(at, tenant, no_debt)
        return 0.0

    def close(self) -> None:
        """Let go of the file, which stays for the other workers; safe to call twice and before `start`."""
        self._tats = memoryview(b"").cast("d")
        self._slots = 0
        if self._fd is not None:
            os.close(self._fd)
            self._fd = None

    def _wait(self, at: int, tenant: Tenant, no_debt: float) -> float:
        """Say in how many seconds neither meter is in debt, 0.0 for now; a meter without a rate has no say."""
        wait = 0.0
        if tenant.events_per_s and self._tats[at] > no_debt:
            wait = self._debt(at, no_debt, self._max_events / tenant.events_per_s)
        if tenant.bytes_per_s and self._tats[at + 1] > no_debt:
            wait = max(wait, self._debt(at + 1, no_debt, self._max_bytes / tenant.bytes_per_s))
        return wait

    def _debt(self, at: int, no_debt: float, most_s: float) -> float:
        """Say how far a meter is in debt, in seconds; one further than the largest upload explains is put right."""
        debt = self._tats[at] - no_debt
        most_s = min(most_s, HORIZON_S)
        # Written back, or it would stay as far ahead of every later clock.
        if debt > most_s:
            self._tats[at] = no_debt + most_s
        return min(debt, most_s)

    def _map(self, slot: int) -> None:
        """Map the file as far as `slot` and beyond, making it longer if need be."""
        if not 0 <= slot < MAX_SLOTS:
            raise ValueError(f"slot {slot} is not one of 0 to {MAX_SLOTS - 1}")
        if self._fd is None:
            raise SpoolBroken(f"the meters in {self._path} are not open; start comes first")
        slots = (slot // SLOTS_STEP + 1) * SLOTS_STEP
        try:
            # Never ftruncate: another worker may have made it longer meanwhile, and would die by SIGBUS. The
            # memory is taken here, for a store into a hole of a full tmpfs is SIGBUS too.
            os.posix_fallocate(self._fd, 0, slots * SLOT_BYTES)
            self._tats = memoryview(mmap.mmap(self._fd, slots * SLOT_BYTES)).cast("d")
        except OSError as exc:
            raise self._refused(exc) from exc
        self._slots = slots

    def _refused(self, exc: OSError) -> SpoolFull | SpoolBroken:
        kind = SpoolFull if exc.errno == ENOSPC else SpoolBroken
        return kind(f"the meters in {self._path} can't be had: {exc.strerror}")


def retry_after_s(wait: float) -> int:
    """Round a wait up to whole seconds, at least 1, as Retry-After says it."""
    return max(1, math.ceil(wait))
