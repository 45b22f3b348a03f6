"""
Whether an upload may come in: memory, quota, share of the spool, room.

The spool is shared by dynamic thresholds (Choudhury and Hahne, 1998): a tenant may hold as many bytes as
`SHARE_FACTOR` times its share times what is free now. One hot tenant alone gets 4/5 of the spool and then is
refused, while a newcomer still finds room; n hot tenants hold equal parts (or parts as their shares), and what
an idle tenant does not use is lent to the others without any account of who is active. It costs the same for one
tenant and for ten thousand.
"""

from __future__ import annotations

import math
import random
from collections.abc import Callable

from collector.admission.memory import Memory
from collector.admission.quota import Quota, retry_after_s
from collector.buffer.spool import Spool
from collector.clock import Clock
from collector.outcome import ADMITTED, Reason, Verdict
from collector.tenant import Tenant

#: A choice: 1 would leave half of the spool to newcomers and so waste it on a single tenant, 9 a tenth.
SHARE_FACTOR = 4.0
#: The bounds of Retry-After with a 503, in seconds: longer ones make some SDKs drop their batch at once.
LEAST_RETRY_S, MOST_RETRY_S = 1, 5
#: What is asked of devices while they are too many, before chance is added: they must not all come back at once.
_LAG_RETRY_S = 2.0
#: The part of a new measurement in a tenant's drain rate, with one measurement a second. A guess.
_DRAIN_WEIGHT = 0.3


class Gate:
    """
    Admission of one worker.

    `slot_of` tells a tenant's place in the shared quota file, `is_sole` whether there is no other tenant whom a
    share would protect. An upload that would wait longer than `max_lag_s` for its turn is refused.
    """

    def __init__(
        self,
        spool: Spool,
        quota: Quota,
        *,
        memory: Memory,
        slot_of: Callable[[str], int],
        is_sole: Callable[[], bool],
        max_lag_s: float,
        clock: Clock,
        rng: random.Random,
    ) -> None:
        self._spool = spool
        self._quota = quota
        self.memory = memory
        self._slot_of = slot_of
        self._is_sole = is_sole
        self._max_lag_s = max_lag_s
        self._clock = clock
        self._rng = rng
        self._drain_bytes_s: dict[str, float] = {}
        self._measured_at = 0.0
        #: Set when the worker is to stop: unready, but uploads are still taken; then every upload is refused; then
        #: those that wait for their sink have no more time.
        self.leaving = False
        self.draining = False
        self.gone = False

    def open(self, lag_s: float = 0.0) -> Verdict:
        """Say whether any upload may come in now, if it waits `lag_s` for its turn: asked before a body is read."""
        spool = self._spool
        used = spool.used_bytes
        # On the way of every upload, twice and more: all that can close the gate is a number or a flag.
        if (
            used < spool.full_at_bytes
            and used < self.memory.ceiling_bytes
            and lag_s <= self._max_lag_s
            and not (self.draining or spool.trouble or self.memory.is_short)
        ):
            return ADMITTED
        return self._closed(lag_s)

    def _closed(self, lag_s: float) -> Verdict:
        """Say what keeps uploads out."""
        if self.draining:
            return Verdict.refused(
                Reason.DRAINING, "this server is going away: send again, another one will answer", retry_after_s=1
            )
        if self._spool.is_full:
            detail = self._spool.trouble or "the spool is above its high watermark"
            return self._backpressure("the spool has no room: send again later", detail, MOST_RETRY_S)
        if trouble := self.memory.trouble:
            return self._backpressure("the task is short of memory: send again later", trouble, MOST_RETRY_S)
        if lag_s > self._max_lag_s:
            detail = f"it would wait {lag_s:.2f} s for its turn"
            return self._backpressure("too many uploads come at once: send again later", detail, _LAG_RETRY_S)
        return ADMITTED

    def admit(self, tenant: Tenant, *, events: int, size_bytes: int, sent_bytes: int) -> Verdict:
        """
        Say whether these events may be appended, and charge the tenant's quota if so.

        `size_bytes` is what they take in the spool, about; `sent_bytes`, the inflated upload, is what is charged.
        """
        verdict = self.open()
        if verdict is not ADMITTED:
            return verdict
        spool = self._spool
        held = spool.used_by.get(tenant.id, 0)
        free = spool.limit_bytes - spool.used_bytes
        share = SHARE_FACTOR * tenant.share * free - held
        if size_bytes > free or (size_bytes > share and not self._is_sole()):
            limit = free if self._is_sole() else min(free, share)
            return self._backpressure(
                f"tenant {tenant.id} holds its share of the spool until its sink takes more: send again later",
                f"{held} bytes wait, {size_bytes} more do not fit",
                self._drain_s(tenant.id, size_bytes - limit),
            )
        if tenant.events_per_s or tenant.bytes_per_s:
            return _by_rate(
                tenant, self._quota.take(self._slot_of(tenant.id), tenant, events=events, bytes_=sent_bytes)
            )
        return ADMITTED

    def foresee(self, tenant: Tenant) -> Verdict:
        """Say whether a tenant is over its rate already, and charge nothing: asked before its upload is inflated."""
        if tenant.events_per_s or tenant.bytes_per_s:
            return _by_rate(tenant, self._quota.peek(self._slot_of(tenant.id), tenant))
        return ADMITTED

    def no_room(self, error: str) -> Verdict:
        """Say that the file system refused an append that was admitted."""
        return self._backpressure("the spool has no room: send again later", error, MOST_RETRY_S)

    def held_up(self) -> Verdict:
        """Say that another worker is at the ids of events, and does not go on."""
        return self._backpressure("another part of this server is held up: send again later", "", LEAST_RETRY_S)

    def unconfirmed(self) -> Verdict:
        """Say that the sink did not confirm in time; what was kept is delivered all the same."""
        return self._backpressure(
            "the sink has not confirmed the events in time: they are kept and will be delivered; sent again, they "
            "may arrive twice",
            "",
            MOST_RETRY_S,
        )

    def tick(self) -> None:
        """Look at the memory, and measure how fast each tenant's bytes leave; called a few times a second."""
        self.memory.tick()
        now = self._clock.monotonic()
        passed_s = now - self._measured_at
        if passed_s < 1.0:
            return
        self._measured_at = now
        freed, self._spool.freed_by = self._spool.freed_by, {}
        for tenant_id in {**self._drain_bytes_s, **freed}:
            rate = self._drain_bytes_s.get(tenant_id, 0.0)
            rate += _DRAIN_WEIGHT * (freed.get(tenant_id, 0) / passed_s - rate)
            if rate < 1.0:
                self._drain_bytes_s.pop(tenant_id, None)
            else:
                self._drain_bytes_s[tenant_id] = rate

    def _drain_s(self, tenant_id: str, excess_bytes: float) -> float:
        rate = self._drain_bytes_s.get(tenant_id, 0.0)
        return excess_bytes / rate if rate else MOST_RETRY_S

    def _backpressure(self, message: str, detail: str, wait_s: float) -> Verdict:
        # A little chance keeps devices that were refused together from coming back together.
        whole = math.ceil(wait_s * self._rng.uniform(1.0, 1.5))
        retry = min(MOST_RETRY_S, max(LEAST_RETRY_S, whole))
        return Verdict.refused(Reason.BACKPRESSURE, message, detail=detail, retry_after_s=retry)


def _by_rate(tenant: Tenant, wait_s: float) -> Verdict:
    if not wait_s:
        return ADMITTED
    return Verdict.refused(
        Reason.OVER_QUOTA,
        f"tenant {tenant.id} is over its rate: send again after the time in Retry-After",
        retry_after_s=retry_after_s(wait_s),
    )
