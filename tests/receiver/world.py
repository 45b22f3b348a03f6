"""The intake of one worker in process, with a real spool, and what tests send to it."""

from __future__ import annotations

import json
import random
import threading
from collections.abc import Callable
from hashlib import sha256
from pathlib import Path
from typing import Any

from collector.admission.auth import TenantTable
from collector.admission.dedupe import Dedupe
from collector.admission.gate import Gate
from collector.admission.memory import Memory
from collector.admission.quota import Quota
from collector.buffer.room import Bounds
from collector.buffer.spool import Spool
from collector.delivery.flusher import Flusher
from collector.delivery.retry import Backoff
from collector.protocols.base import Protocol, Reply, Request
from collector.protocols.native import Native
from collector.receiver.intake import Intake, UploadLimits
from collector.receiver.upload import receive, take
from collector.telemetry.metrics import Metrics
from collector.tenant import Ack, Tenant
from collector.uuid7 import Uuid7
from tests.fakes import FakeClock, RecordingSignals, ScriptedSink

#: How long a thread of a test waits for another; only a failure takes so long.
PATIENCE_S = 30.0


def tenant(tenant_id: str, **fields: Any) -> Tenant:
    """Build a tenant whose key is its id and "-key"."""
    return Tenant(id=tenant_id, keys=(sha256(f"{tenant_id}-key".encode()).hexdigest(),), **fields)


TENANTS = (
    tenant("dev"),
    tenant("careful", ack=Ack.SINK),
    tenant("private", anonymise_ip=True),
    tenant("slow", events_per_s=1.0, burst_s=1.0),
    tenant("off", enabled=False),
    tenant("small", max_event_bytes=64),
    tenant("once", dedupe_window_s=60.0),
    tenant("sure", dedupe_window_s=60.0, ack=Ack.SINK),
    tenant("twice", dedupe_window_s=0.0),
)


class World:
    """One worker's intake with its spool, sink and flusher; the flusher runs when a test says so."""

    def __init__(
        self,
        root: Path,
        *,
        tenants: tuple[Tenant, ...] = TENANTS,
        spool_bytes: int = 1 << 20,
        ack_timeout_s: float = PATIENCE_S,
    ) -> None:
        self.clock = FakeClock()
        self.signals = RecordingSignals()
        self.sink = ScriptedSink()
        bounds = Bounds(task_bytes=spool_bytes, worker_bytes=spool_bytes, segment_bytes=1 << 20)
        self.spool = Spool(root, "w1", bounds, clock=self.clock, signals=self.signals)
        self.spool.start()
        quota = Quota(root / "quota", self.clock)
        quota.start()
        self._quota = quota
        self.table = TenantTable(tenants)
        self.flusher = Flusher(
            self.spool,
            {"default": self.sink},
            backoff=Backoff(rng=random.Random(1)),
            clock=self.clock,
            signals=self.signals,
            max_age_s=1.0,
            concurrency=2,
        )
        self.waits = threading.Semaphore(0)
        self.dedupe = Dedupe(self.spool, size_bytes=1 << 16, clock=self.clock, signals=self.signals)
        self.spool.may_adopt = self.dedupe.may_adopt
        self.intake = Intake(
            tenants=lambda: self.table,
            gate=Gate(
                self.spool,
                quota,
                memory=Memory(held=int, workers=1, clock=self.clock, signals=self.signals),
                slot_of={one.id: slot for slot, one in enumerate(tenants)}.__getitem__,
                is_sole=lambda: True,
                max_lag_s=0.25,
                clock=self.clock,
                rng=random.Random(1),
            ),
            dedupe=self.dedupe,
            spool=self.spool,
            wake_flusher=self.waits.release,
            new_id=Uuid7(self.clock),
            limits=UploadLimits(max_inflated_bytes=1 << 20, max_events=100, ack_timeout_s=ack_timeout_s),
            clock=self.clock,
            signals=self.signals,
            metrics=Metrics(),
            offload=lambda run: run(),
        )

    def close(self) -> None:
        """Close all that is open."""
        self.flusher.close()
        self.spool.close()
        self._quota.close()
        self.dedupe.close()

    def request(
        self, body: object, *, key: str = "dev", remote: str = "192.0.2.77", path: str = "/v1/events", **headers: str
    ) -> Request:
        """Build an upload; names of headers with underscores, those of a key beside the others."""
        fields = {"authorization": f"Bearer {key}-key"} | {
            name.replace("_", "-"): value for name, value in headers.items()
        }
        return Request(
            method="POST",
            path=path,
            query="",
            headers=fields,
            body=body if isinstance(body, bytes) else json.dumps(body).encode(),
            remote_ip=remote,
        )

    def upload(
        self,
        body: object,
        *,
        key: str = "dev",
        remote: str = "192.0.2.77",
        protocol: Protocol | None = None,
        **headers: str,
    ) -> Reply:
        """Upload, and return the answer."""
        return receive(self.intake, protocol or Native(), self.request(body, key=key, remote=remote, **headers))

    def take(self, body: bytes, **headers: str) -> Callable[[], Reply]:
        """Take an upload whose answer waits for the sink, and let go of the request."""
        return take(self.intake, Native(), self.request(body, key="careful", **headers))

    def deliver(self) -> list[bytes]:
        """Move all to the sink, and return all that it has."""
        self.clock.advance(2.0)
        for _ in range(5):
            self.flusher.tick()
            self.clock.advance(60.0)
        return self.sink.lines

    def beside(self, run: Callable[[], Reply]) -> tuple[threading.Thread, list[Reply]]:
        """Run an upload in a thread, and return once it waits for the sink."""
        replies: list[Reply] = []
        thread = threading.Thread(target=lambda: replies.append(run()))
        thread.start()
        assert self.waits.acquire(timeout=PATIENCE_S), "the upload never came to wait for its sink"
        return thread, replies

    @property
    def accepted(self) -> int:
        """The events that were accepted."""
        return self.spool.books.totals().outcomes()["accepted"]


def fields(reply: Reply) -> dict[str, Any]:
    """Read an answer."""
    return dict(json.loads(reply.body))


def retry_after(reply: Reply) -> int:
    """Return after how many seconds to send again."""
    return int(dict(reply.headers)["Retry-After"])
