"""
Uploads whose answer waits for the sink: what is held of them meanwhile, and how the wait ends.
"""

from __future__ import annotations

from collections.abc import Sequence

import msgspec

from collector.admission.seen import Place
from collector.buffer.ticket import Ticket
from collector.event import Event
from collector.outcome import Rejection
from collector.protocols.base import Decoded, Protocol, Reply, Result
from collector.receiver.intake import Intake, refuse, verdict_on
from collector.tenant import Ack, Tenant

#: How often an upload that waits for its sink looks whether its worker goes, in seconds.
_LOOK_S = 0.25


class Kept(msgspec.Struct):
    """
    An upload whose answer waits for the sink of its events: what the answer needs, and none of the events.

    `indexes` are of the events that the `ticket` is for, `places` where the first copies of the others lie. It waits
    `until` then on the monotonic clock.
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
    until: float


def wait_later(
    intake: Intake,
    tenant: Tenant,
    receipt: str,
    decoded: Decoded,
    size: int,
    new: Sequence[Event],
    ticket: Ticket | None,
    places: frozenset[Place] = frozenset(),
) -> Kept:
    """Return what an answer needs that waits for the sink, and let go of the events; `new` of them are appended."""
    accepted, indexes = len(decoded.events), [event.index for event in new]
    decoded.events = []
    until = intake.clock.monotonic() + intake.limits.ack_timeout_s
    return Kept(tenant, receipt, size, accepted, indexes, decoded.rejected, decoded, ticket, places, until)


def confirm(intake: Intake, protocol: Protocol, kept: Kept) -> Reply:
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
    left_s = max(0.0, kept.until - intake.clock.monotonic())
    while kept.ticket is not None and not kept.ticket.wait(min(_LOOK_S, left_s)):
        left_s -= _LOOK_S
        # A worker that goes may have less time than the sink.
        if intake.gate.gone or left_s <= 0:
            return False
    return not kept.places or intake.dedupe.wait_for(kept.places, max(0.0, kept.until - intake.clock.monotonic()))
