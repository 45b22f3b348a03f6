"""
What happens to an upload between its last byte and the first byte of its answer.

`receive` is one plain function from request parts to reply parts. It knows neither Flask nor gunicorn; every
door calls it.
"""

from __future__ import annotations

import ipaddress
from collections import Counter
from collections.abc import Callable
from dataclasses import dataclass
from datetime import UTC, datetime
from functools import lru_cache

import msgspec

from collector.admission.auth import TenantTable
from collector.admission.gate import Gate
from collector.buffer.spool import Spool
from collector.clock import Clock
from collector.errors import BadUpload, SpoolError
from collector.event import Envelope
from collector.outcome import Reason, Rejection, Verdict
from collector.protocols.base import DecodeLimits, Protocol, Reply, Request, Result
from collector.protocols.encoding import inflate
from collector.telemetry.metrics import Metrics
from collector.telemetry.signals import Signals
from collector.tenant import Ack, Tenant
from collector.uuid7 import Uuid7

#: What a line adds to an event, about: id, tenant, time, protocol, receipt and address. Measured on a real line.
LINE_OVERHEAD_BYTES = 230
#: Bodies above this are inflated off the hub, in bytes as sent: a thread's round trip costs 50 µs, this much
#: gzip about 300 µs.
_INFLATE_APART_BYTES = 32 * 1024
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
    spool: Spool
    wake_flusher: Callable[[], None]
    new_id: Uuid7
    limits: UploadLimits
    clock: Clock
    signals: Signals
    metrics: Metrics
    offload: Callable[[Callable[[], bytes]], bytes]


def receive(intake: Intake, protocol: Protocol, request: Request) -> Reply:
    """
    Take one upload and answer it; the answer is true when this returns.

    Every way out is an answer: a refusal is a value, and whatever surprises us is a 500 that is counted and told.
    """
    started = intake.clock.monotonic()
    reply = _answer(intake, protocol, request)
    intake.metrics.observe("collector_request_seconds", (protocol.name,), intake.clock.monotonic() - started)
    return reply


def _answer(intake: Intake, protocol: Protocol, request: Request) -> Reply:
    tenant: Tenant | None = None
    try:
        body = _inflated(intake, request) if protocol.key_in_body else None
        credentials = protocol.credentials(request, body)
        found = intake.tenants().authenticate(credentials.key, credentials.account)
        if isinstance(found, Verdict):
            return refuse(intake, protocol, found, request)
        tenant = found
        return _take(intake, protocol, request, tenant, _inflated(intake, request) if body is None else body)
    except BadUpload as bad:
        verdict = Verdict.refused(Reason(bad.reason), bad.message, detail=bad.detail)
    except SpoolError as error:
        verdict = intake.gate.no_room(str(error))
    except Exception as error:  # noqa: BLE001 - the device must get an answer that it can read, whatever broke
        intake.signals.internal_error("receive", error)
        verdict = Verdict.refused(Reason.INTERNAL, _FAILED)
    return refuse(intake, protocol, verdict, request, tenant)


def refuse(
    intake: Intake, protocol: Protocol, verdict: Verdict, request: Request | None = None, tenant: Tenant | None = None
) -> Reply:
    """Count a refusal and put it in the protocol's words; `request` and `tenant` as far as they are known."""
    if verdict.reason is not None:
        intake.signals.upload_refused(tenant.id if tenant else None, protocol.name, verdict.reason)
    return protocol.refuse(verdict, request)


def _take(intake: Intake, protocol: Protocol, request: Request, tenant: Tenant, body: bytes) -> Reply:
    ack = _wanted_ack(request, tenant)
    limits = DecodeLimits(max_events=intake.limits.max_events, max_event_bytes=tenant.max_event_bytes)
    decoded = protocol.decode(request, body, limits, intake.new_id.many)
    count, size = len(decoded.events), len(body)
    verdict = intake.gate.admit(tenant, events=count, size_bytes=size + count * LINE_OVERHEAD_BYTES, sent_bytes=size)
    if not verdict.admitted:
        return refuse(intake, protocol, verdict, request, tenant)
    envelope = Envelope(
        tenant_id=tenant.id,
        protocol=protocol.name,
        receipt=intake.new_id(),
        received_us=intake.clock.now_us(),
        remote_ip=anonymous(request.remote_ip) if tenant.anonymise_ip else request.remote_ip,
        events=decoded.events,
    )
    rejected = decoded.rejected
    if rejected:
        for code, times in Counter(rejection.code for rejection in rejected).items():
            intake.signals.events_rejected(tenant.id, protocol.name, code, times)
    if count:
        refused = _keep(intake, tenant, envelope, wanted=ack is Ack.SINK)
        if isinstance(refused, Verdict):
            return refuse(intake, protocol, refused, request, tenant)
        rejected = sorted((*rejected, *refused), key=lambda one: one.index)
        count -= len(refused)
        intake.signals.upload_accepted(tenant.id, protocol.name, len(envelope.events), size)
    return protocol.render(Result(accepted=count, rejected=rejected, ack=ack, receipt=envelope.receipt), decoded)


def _keep(intake: Intake, tenant: Tenant, envelope: Envelope, *, wanted: bool) -> list[Rejection] | Verdict:
    """Append the events and, if the answer promises it, wait for the sink; return what the sink refused."""
    segment, span = intake.spool.append(
        tenant.route,
        tenant.id,
        lines(envelope),
        events=len(envelope.events),
        received_us=envelope.received_us,
        wanted=wanted,
    )
    if not wanted:
        return []
    ticket = segment.ticket(span)
    intake.wake_flusher()
    if not ticket.wait(intake.limits.ack_timeout_s):
        intake.signals.upload_unconfirmed(tenant.id, envelope.protocol, envelope.receipt, len(envelope.events))
        return intake.gate.unconfirmed()
    return [
        Rejection(envelope.events[n].index, reason, "the sink refuses this event for good")
        for n, reason in ticket.rejected()
    ]


def _wanted_ack(request: Request, tenant: Tenant) -> Ack:
    named = request.headers.get("collector-ack")
    if named is None:
        return tenant.ack
    try:
        return Ack(named.strip().lower())
    except ValueError:
        raise BadUpload(
            Reason.MALFORMED, "the header Collector-Ack must be 'spool' or 'sink'", "leave it out for the tenant's own"
        ) from None


def _inflated(intake: Intake, request: Request) -> bytes:
    encoding, limit = request.headers.get("content-encoding", ""), intake.limits.max_inflated_bytes
    if len(request.body) > _INFLATE_APART_BYTES and (encoding or request.body[:2] == b"\x1f\x8b"):
        return intake.offload(lambda: inflate(request.body, encoding, limit))
    return inflate(request.body, encoding, limit)


def lines(envelope: Envelope) -> bytes:
    """Render the finished NDJSON lines of an upload, each ended by a newline; events go in byte for byte."""
    head = msgspec.json.encode(
        {
            "tenant": envelope.tenant_id,
            "received_at": timestamp(envelope.received_us),
            "protocol": envelope.protocol,
            "receipt": envelope.receipt,
            "remote_ip": envelope.remote_ip,
        }
    )
    between = b"," + head[1:-1] + b',"event":'
    return b"".join([b'{"id":' + event.id + between + event.body + b"}\n" for event in envelope.events])


def timestamp(epoch_us: int) -> str:
    """Return RFC 3339 in UTC with microseconds."""
    seconds, us = divmod(epoch_us, 1_000_000)
    return f"{_second(seconds)}.{us:06d}Z"


# Uploads of one second share it: strftime costs 10 µs.
@lru_cache(maxsize=4)
def _second(epoch_s: int) -> str:
    return f"{datetime.fromtimestamp(epoch_s, UTC):%Y-%m-%dT%H:%M:%S}"


def anonymous(address: str) -> str:
    """Zero what tells a person: the last octet of IPv4, all but the first 48 bits of IPv6; keep no odd text."""
    try:
        ip = ipaddress.ip_address(address)
    except ValueError:
        return ""
    kept = 24 if ip.version == 4 else 48
    return str(ipaddress.ip_network(f"{ip}/{kept}", strict=False).network_address)
