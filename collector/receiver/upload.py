"""
What happens to an upload between its last byte and the first byte of its answer.

`receive` is one plain function from request parts to reply parts. It knows neither Flask nor gunicorn; every
door calls it, or its two halves.
"""

from __future__ import annotations

from collections.abc import Callable

import msgspec

from collector.admission.dedupe import Claim
from collector.buffer.segment import Segment
from collector.event import Envelope, Event, Span
from collector.outcome import ADMITTED, Verdict
from collector.protocols.base import Protocol, Reply, Request, Result
from collector.receiver.intake import (
    Intake,
    admit,
    count_rejected,
    decode,
    put_in_envelope,
    refuse,
    unpacked,
    verdict_on,
    wanted_ack,
    window_s_of,
)
from collector.receiver.lines import lines
from collector.receiver.unpacking import is_heavy
from collector.receiver.waiting import Kept, confirm, wait_later
from collector.tenant import Ack, Tenant


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
        reply = confirm(intake, protocol, taken) if isinstance(taken, Kept) else taken
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


def _take(intake: Intake, protocol: Protocol, request: Request, tenant: Tenant, body: bytes) -> Reply | Kept:
    ack = wanted_ack(request, tenant)
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
                ticket = None
                if claim.appended is not None:
                    segment, span = claim.appended
                    ticket = segment.ticket(span)
                    intake.wake_flusher()
                return wait_later(intake, tenant, envelope.receipt, decoded, size, claim.new, ticket, claim.places)
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
