"""
What happens to uploads that came together: each step for all of them, and then the next.

A step that is done again and again finds its code and its data in the processor's caches. One upload after the other,
half of the time of each went into fetching them anew: 88 µs, where it was 44 with each step repeated by itself
(measured). And all of them go to the spool in one write.

Only plain ones are taken like this: uploads that can be read, of a known tenant within its rate, none of whose events
may have come before. Each of the others is for `upload.take`, from the beginning: nothing has happened to it here.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence

import msgspec

from collector.buffer.ticket import Ticket
from collector.event import Lines
from collector.outcome import ADMITTED, Verdict
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
    wanted_ack,
    window_s_of,
)
from collector.receiver.lines import LINE_OVERHEAD_BYTES, lines
from collector.receiver.unpacking import is_heavy
from collector.receiver.waiting import confirm, wait_later
from collector.tenant import Ack, Tenant

#: What the lines of a group may take, in bytes, and the part of the spool's room, as 1 of so many: each of the group is
#: let in for the room that is there before any of them is kept; and 64 KB that come together may have 64 MB in them,
#: which taken alone are never held all at once. Choices.
_MOST_BYTES, _ROOM = 1024 * 1024, 16


class Later(msgspec.Struct):
    """
    An answer that waits for the sink, and holds nothing of the upload.

    Those with the same `fate` are of one tenant, and wait for the same segment.
    """

    fate: tuple[str, str]
    answer: Callable[[], Reply]


#: What becomes of an upload; nothing, if it has to be taken alone.
Taken = Reply | Later | None


class _Plain:
    """One of them, as far as it has come: `place` is its place among the others."""

    __slots__ = ("ack", "decoded", "lines", "place", "protocol", "receipt", "request", "size", "tenant")

    decoded: Decoded
    size: int
    receipt: str
    lines: Lines

    def __init__(self, place: int, protocol: Protocol, request: Request, tenant: Tenant, ack: Ack) -> None:
        self.place = place
        self.protocol = protocol
        self.request = request
        self.tenant = tenant
        self.ack = ack


def take_together(intake: Intake, uploads: Sequence[tuple[Protocol, Request]]) -> list[Taken]:
    """
    Take the plain ones of some uploads, and return the answers, which are true when this returns.

    None is for an upload that has to be taken alone. Nothing here waits but for the file system.
    """
    started = intake.clock.monotonic()
    replies: list[Taken] = [None] * len(uploads)
    known = _known(intake, uploads)
    read = _read(intake, known)
    admitted = [one for one in read if _is_admitted(intake, one)]
    # From here on something has happened to them, and whatever breaks, each has its answer.
    routes: dict[str, list[_Plain]] = {}
    for one in admitted:
        try:
            _render(intake, one)
        except Exception as error:  # noqa: BLE001 - as in upload.take
            replies[one.place] = _failed(intake, one, error)
        else:
            if one.lines.events:
                routes.setdefault(one.tenant.route, []).append(one)
            else:
                replies[one.place] = _answer(intake, one)
    for route, kept in routes.items():
        is_wanted = any(one.ack is Ack.SINK for one in kept)
        try:
            segment, spans = intake.spool.append_all(route, [one.lines for one in kept], wanted=is_wanted)
        except Exception as error:  # noqa: BLE001 - as above
            for one in kept:
                replies[one.place] = _failed(intake, one, error)
            continue
        for one, span in zip(kept, spans, strict=True):
            if one.ack is Ack.SINK:
                later = _answer_later(intake, one, segment.ticket(span), started)
                replies[one.place] = Later((segment.name, one.tenant.id), later)
            else:
                replies[one.place] = _answer(intake, one)
        if is_wanted:
            intake.wake_flusher()
    took_s = intake.clock.monotonic() - started
    for one in admitted:
        if isinstance(replies[one.place], Reply):
            intake.metrics.observe("collector_request_seconds", (one.protocol.name,), took_s)
    return replies


def _known(intake: Intake, uploads: Sequence[tuple[Protocol, Request]]) -> list[_Plain]:
    """Find the tenants of those whose head and tenant promise that they are plain."""
    authenticate, foresee, known = intake.tenants().authenticate, intake.gate.foresee, []
    for place, (protocol, request) in enumerate(uploads):
        try:
            if protocol.key_in_body or is_heavy(request):
                continue
            credentials = protocol.credentials(request)
            tenant = authenticate(credentials.key, credentials.account)
            if isinstance(tenant, Verdict) or window_s_of(protocol, tenant):
                continue
            ack = wanted_ack(request, tenant)
            if foresee(tenant) is ADMITTED:
                known.append(_Plain(place, protocol, request, tenant, ack))
        except Exception:  # noqa: BLE001, S112 - taken alone, it fails again and is told why
            continue
    return known


def _read(intake: Intake, known: Sequence[_Plain]) -> list[_Plain]:
    """Split bodies into events, of as many as may be held at once."""
    free = intake.spool.limit_bytes - intake.spool.used_bytes
    left = min(_MOST_BYTES, free // _ROOM)
    read: list[_Plain] = []
    for one in known:
        if left > 0 and _is_read(intake, one):
            left -= one.size + len(one.decoded.events) * LINE_OVERHEAD_BYTES
            # The first is as if alone, whatever its size.
            if left >= 0 or not read:
                read.append(one)
    return read


def _is_read(intake: Intake, one: _Plain) -> bool:
    """Split the body into events, and tell whether that can be done."""
    try:
        body = unpacked(intake, one.request)
        one.decoded = decode(intake, one.protocol, one.request, one.tenant, body)
    except Exception:  # noqa: BLE001 - taken alone, it fails again and is told why
        return False
    one.size = len(body)
    return True


def _is_admitted(intake: Intake, one: _Plain) -> bool:
    try:
        return admit(intake, one.tenant, len(one.decoded.events), one.size) is ADMITTED
    except Exception:  # noqa: BLE001 - as above
        return False


def _render(intake: Intake, one: _Plain) -> None:
    envelope = put_in_envelope(intake, one.protocol, one.request, one.tenant, one.decoded.events)
    one.receipt = envelope.receipt
    one.lines = Lines(envelope.tenant_id, lines(envelope), len(envelope.events), envelope.received_us)
    if one.decoded.rejected:
        count_rejected(intake, one.protocol, one.tenant, one.decoded.rejected)


def _answer(intake: Intake, one: _Plain) -> Reply:
    count = len(one.decoded.events)
    try:
        if count:
            intake.signals.upload_accepted(one.tenant.id, one.protocol.name, count, one.size)
        return one.protocol.render(Result(count, one.decoded.rejected, one.ack, one.receipt), one.decoded)
    except Exception as error:  # noqa: BLE001 - as in upload.take
        return _failed(intake, one, error)


def _answer_later(intake: Intake, one: _Plain, ticket: Ticket, started: float) -> Callable[[], Reply]:
    """Return what waits for the sink and answers, and holds nothing of the upload."""
    protocol = one.protocol
    kept = wait_later(intake, one.tenant, one.receipt, one.decoded, one.size, one.decoded.events, ticket)

    def answer() -> Reply:
        reply = confirm(intake, protocol, kept)
        intake.metrics.observe("collector_request_seconds", (protocol.name,), intake.clock.monotonic() - started)
        return reply

    return answer


def _failed(intake: Intake, one: _Plain, error: Exception) -> Reply:
    return refuse(intake, one.protocol, verdict_on(intake, error), one.request, one.tenant)
