"""
What happens to an upload between its last byte and the first byte of its answer.

`receive` is one plain function from request parts to reply parts. It knows neither Flask nor gunicorn; every
door calls it, or its two halves.
"""

from __future__ import annotations

from collections.abc import Callable

import msgspec

from collector.admission.dedupe import Claim
from collector.admission.seen import Place
from collector.buffer.segment import Segment, Ticket
from collector.errors import BadUpload
from collector.event import Envelope, Event, Span
from collector.outcome import ADMITTED, Reason, Rejection, Verdict
from collector.protocols.base import Decoded, Protocol, Reply, Request, Result
from collector.receiver.intake import (
    Intake,
    admit,
    count_rejected,
    decode,
    put_in_envelope,
    refuse,
    unpacked,
    verdict_on,
    window_s_of,
)
from collector.receiver.lines import lines
from collector.receiver.unpacking import is_heavy
from collector.tenant import Ack, Tenant

#: How often an upload that waits for its sink looks whether its worker goes, in seconds.
_LOOK_S = 0.25


class Kept(msgspec.Struct):
    """
    An upload whose answer waits for the sink of its events: what the answer needs, and none of the events.

    `indexes` are of the events that the `ticket` is for, `places` where the first copies of the others lie.
    """

    tenant: Tenant
    receipt: str
    size: int
    accepted: int
    indexes: list[int]
    rejected: list[Rejection]
    decoded: Decoded
    ticket: Ticket | None
    places: frozenset[Place]


def receive(intake: Intake, protocol: Protocol, request: Request) -> Reply:
    """Take one upload and answer it; the answer is true when this returns."""
    return take(intake, protocol, request)()


def take(intake: Intake, protocol: Protocol, request: Request) -> Callable[[], Reply]:
    """
    Take one upload, and return what gives the answer: at once, or when the sink has confirmed the events.

    That holds nothing of the upload, so that a sink which hangs holds up no memory: let go of the request before you
    ask it. Every way out is an answer: a refusal is a value, and whatever surprises us is a 500 that is counted and
    told.
    """
    started = intake.clock.monotonic()
    taken = _answer(intake, protocol, request)

    def answer() -> Reply:
        reply = _confirm(intake, protocol, taken) if isinstance(taken, Kept) else taken
        intake.metrics.observe("collector_request_seconds", (protocol.name,), intake.clock.monotonic() - started)
        return reply

    return answer


def _answer(intake: Intake, protocol: Protocol, request: Request) -> Reply | Kept:
    tenant: Tenant | None = None
    try:
        body = unpacked(intake, request) if protocol.key_in_body else None
        credentials = protocol.credentials(request, body)
        found = intake.tenants().authenticate(credentials.key, credentials.account)
        if isinstance(found, Verdict):
            return refuse(intake, protocol, found, request)
        tenant = found
        if (verdict := intake.gate.foresee(tenant)) is not ADMITTED:
            return refuse(intake, protocol, verdict, request, tenant)
        if body is None and is_heavy(request):
            # What other threads inflate would pile up, at 16 MiB an upload, while it is split here one by one.
            with intake.inflating:
                return _take(intake, protocol, request, tenant, unpacked(intake, request))
        return _take(intake, protocol, request, tenant, unpacked(intake, request) if body is None else body)
    except Exception as error:  # noqa: BLE001 - the device must get an answer that it can read, whatever broke
        return refuse(intake, protocol, verdict_on(intake, error), request, tenant)


def _confirm(intake: Intake, protocol: Protocol, kept: Kept) -> Reply:
    """Wait for the sink, and answer with what it said."""
    try:
        if not _is_confirmed(intake, kept):
            intake.signals.upload_unconfirmed(kept.tenant.id, protocol.name, kept.receipt, kept.accepted)
            return refuse(intake, protocol, intake.gate.unconfirmed(), None, kept.tenant)
        refused = [
            Rejection(kept.indexes[n], reason, "the sink refuses this event for good")
            for n, reason in (kept.ticket.rejected() if kept.ticket else ())
        ]
        rejected = sorted((*kept.rejected, *refused), key=lambda one: one.index)
        intake.signals.upload_accepted(kept.tenant.id, protocol.name, kept.accepted, kept.size)
        accepted = kept.accepted - len(refused)
        return protocol.render(Result(accepted, rejected, Ack.SINK, kept.receipt), kept.decoded)
    except Exception as error:  # noqa: BLE001 - as in _answer
        return refuse(intake, protocol, verdict_on(intake, error), None, kept.tenant)


def _is_confirmed(intake: Intake, kept: Kept) -> bool:
    """Wait until the new events and the first copies of the others met their fate; return whether they did in time."""
    timeout_s = intake.limits.ack_timeout_s
    until = intake.clock.monotonic() + timeout_s
    left_s = timeout_s
    while kept.ticket is not None and not kept.ticket.wait(min(_LOOK_S, left_s)):
        left_s -= _LOOK_S
        # A worker that goes may have less time than the sink.
        if intake.gate.gone or left_s <= 0:
            return False
    return not kept.places or intake.dedupe.wait_for(kept.places, max(0.0, until - intake.clock.monotonic()))


def _take(intake: Intake, protocol: Protocol, request: Request, tenant: Tenant, body: bytes) -> Reply | Kept:
    ack = _wanted_ack(request, tenant)
    decoded = decode(intake, protocol, request, tenant, body)
    count, size = len(decoded.events), len(body)
    verdict = admit(intake, tenant, count, size)
    if verdict is not ADMITTED:
        return refuse(intake, protocol, verdict, request, tenant)
    envelope = put_in_envelope(intake, protocol, request, tenant, decoded.events)
    rejected = decoded.rejected
    if rejected:
        count_rejected(intake, protocol, tenant, rejected)
    if count:
        window_s = window_s_of(protocol, tenant)
        if window_s or ack is Ack.SINK:
            claim = _keep_new(intake, tenant, envelope, window_s, wanted=ack is Ack.SINK)
            if claim is None:
                return refuse(intake, protocol, intake.gate.held_up(), request, tenant)
            if claim.duplicates:
                intake.spool.mine().count_duplicates(tenant.id, claim.duplicates)
                intake.signals.events_deduplicated(tenant.id, protocol.name, claim.duplicates)
            if ack is Ack.SINK:
                return _waiting(intake, tenant, envelope, claim, decoded, size)
        else:
            _keep(intake, tenant, envelope, lines(envelope))
        intake.signals.upload_accepted(tenant.id, protocol.name, count, size)
    return protocol.render(Result(count, rejected, ack, envelope.receipt), decoded)


def _keep(
    intake: Intake, tenant: Tenant, envelope: Envelope, rendered: bytes, *, wanted: bool = False
) -> tuple[Segment, Span]:
    """Append all events of an upload; raises SpoolError."""
    return intake.spool.append(
        tenant.route,
        tenant.id,
        rendered,
        events=len(envelope.events),
        received_us=envelope.received_us,
        wanted=wanted,
    )


def _keep_new(
    intake: Intake, tenant: Tenant, envelope: Envelope, window_s: float, *, wanted: bool
) -> Claim[tuple[Segment, Span]] | None:
    """Append the events, but for those that came before within the window; None is "not now"."""
    # Here, before another worker may have to wait for it.
    rendered = lines(envelope)

    def append(events: list[Event]) -> tuple[Segment, Span]:
        if len(events) == len(envelope.events):
            return _keep(intake, tenant, envelope, rendered, wanted=wanted)
        new = msgspec.structs.replace(envelope, events=events)
        return _keep(intake, tenant, new, lines(new), wanted=wanted)

    if not window_s:
        return Claim(envelope.events, append(envelope.events))
    return intake.dedupe.claim(tenant.id, tenant.route, window_s, envelope.events, append)


def _waiting(
    intake: Intake,
    tenant: Tenant,
    envelope: Envelope,
    claim: Claim[tuple[Segment, Span]],
    decoded: Decoded,
    size: int,
) -> Kept:
    """Return what an answer needs that waits for the sink, and let go of the events."""
    ticket = None
    if claim.appended is not None:
        segment, span = claim.appended
        ticket = segment.ticket(span)
        intake.wake_flusher()
    accepted, indexes = len(decoded.events), [event.index for event in claim.new]
    decoded.events = []
    return Kept(tenant, envelope.receipt, size, accepted, indexes, decoded.rejected, decoded, ticket, claim.places)


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
