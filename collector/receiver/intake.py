"""
What an upload needs on its way, and the steps that it takes there, alone or together with others.
"""

from __future__ import annotations

import threading
from collections import Counter
from collections.abc import Callable
from dataclasses import dataclass, field

import msgspec

from collector.admission.auth import TenantTable
from collector.admission.dedupe import Dedupe
from collector.admission.gate import Gate
from collector.buffer.spool import Spool
from collector.clock import Clock
from collector.errors import BadUpload, SpoolError
from collector.event import Envelope, Event
from collector.outcome import Reason, Rejection, Verdict
from collector.protocols.base import Decoded, DecodeLimits, Protocol, Reply, Request
from collector.receiver.addresses import anonymous
from collector.receiver.lines import LINE_OVERHEAD_BYTES
from collector.receiver.unpacking import unpack
from collector.telemetry.metrics import Metrics
from collector.telemetry.signals import Signals
from collector.tenant import Ack, Tenant
from collector.uuid7 import Uuid7

#: How many such bodies may be held at once: with 16 MiB each, half of what a worker may have.
_INFLATED_AT_ONCE = 4
_FAILED = "Collector failed at this upload: send it again; if it was kept before it failed, it arrives twice"


class UploadLimits(msgspec.Struct, frozen=True):
    """What one upload may be, in bytes and events, and how long an answer waits for a sink, in seconds."""

    max_inflated_bytes: int
    max_events: int
    ack_timeout_s: float


@dataclass(frozen=True)
class Intake:
    """The collaborators of `receive`; one a worker. `offload` runs a function off the hub."""

    tenants: Callable[[], TenantTable]
    gate: Gate
    dedupe: Dedupe
    spool: Spool
    wake_flusher: Callable[[], None]
    new_id: Uuid7
    limits: UploadLimits
    clock: Clock
    signals: Signals
    metrics: Metrics
    offload: Callable[[Callable[[], bytes]], bytes]
    inflating: threading.Semaphore = field(default_factory=lambda: threading.Semaphore(_INFLATED_AT_ONCE))


def decode(intake: Intake, protocol: Protocol, request: Request, tenant: Tenant, body: bytes) -> Decoded:
    """Split an inflated body into events; raises BadUpload."""
    limits = DecodeLimits(intake.limits.max_events, tenant.max_event_bytes)
    return protocol.decode(request, body, limits, intake.new_id.many)


def admit(intake: Intake, tenant: Tenant, events: int, size: int) -> Verdict:
    """Say whether so many events of a body of `size` bytes may come in, and charge the tenant for them if so."""
    return intake.gate.admit(tenant, events=events, size_bytes=size + events * LINE_OVERHEAD_BYTES, sent_bytes=size)


def put_in_envelope(
    intake: Intake, protocol: Protocol, request: Request, tenant: Tenant, events: list[Event]
) -> Envelope:
    """Put events in an envelope, with a receipt and the time."""
    return Envelope(
        tenant.id,
        protocol.name,
        intake.new_id(),
        intake.clock.now_us(),
        anonymous(request.remote_ip) if tenant.anonymise_ip else request.remote_ip,
        events,
    )


def count_rejected(intake: Intake, protocol: Protocol, tenant: Tenant, rejected: list[Rejection]) -> None:
    """Count the events of an upload that were not taken, while others may have been."""
    for code, times in Counter(rejection.code for rejection in rejected).items():
        intake.signals.events_rejected(tenant.id, protocol.name, code, times)


def wanted_ack(request: Request, tenant: Tenant) -> Ack:
    """Return what the answer is to promise; raises BadUpload for a wish that nobody understands."""
    named = request.headers.get("collector-ack")
    if named is None:
        return tenant.ack
    try:
        return Ack(named.strip().lower())
    except ValueError:
        raise BadUpload(
            Reason.MALFORMED, "the header Collector-Ack must be 'spool' or 'sink'", "leave it out for the tenant's own"
        ) from None


def window_s_of(protocol: Protocol, tenant: Tenant) -> float:
    """Return for how long an event that comes again is not delivered again, in seconds."""
    return protocol.dedupe_window_s if tenant.dedupe_window_s is None else tenant.dedupe_window_s


def unpacked(intake: Intake, request: Request) -> bytes:
    """Return the body as its sender had it; raises BadUpload."""
    return unpack(request, intake.limits.max_inflated_bytes, intake.offload)


def verdict_on(intake: Intake, error: Exception) -> Verdict:
    """Say what to answer to an error; one that nobody expected is told."""
    if isinstance(error, BadUpload):
        return Verdict.refused(Reason(error.reason), error.message, detail=error.detail)
    if isinstance(error, SpoolError):
        return intake.gate.no_room(str(error))
    intake.signals.internal_error("receive", error)
    return Verdict.refused(Reason.INTERNAL, _FAILED)


def refuse(
    intake: Intake, protocol: Protocol, verdict: Verdict, request: Request | None = None, tenant: Tenant | None = None
) -> Reply:
    """Count a refusal and put it in the protocol's words; `request` and `tenant` as far as they are known."""
    if verdict.reason is not None:
        intake.signals.upload_refused(tenant.id if tenant else None, protocol.name, verdict.reason)
    return protocol.refuse(verdict, request)
