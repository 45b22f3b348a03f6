"""
Sends rescued batches on to the sinks of their routes, each under the name that it would have had there.

A batch leaves the rescue sink only when its own sink has confirmed it. Whoever dies in between leaves it to the next
one, and its sink writes the repeat over the first.
"""

from __future__ import annotations

from collections.abc import Iterator
from functools import partial

import msgspec

from collector.delivery.aside import Claims
from collector.delivery.batches import selected, split
from collector.delivery.job import write_one
from collector.errors import AmbiguousSinkError, CollectorError, SinkError, TransientSinkError
from collector.event import Batch
from collector.outcome import Reason, Receipt
from collector.sinks.base import Offload, Sink, Source, Stored, at_once
from collector.telemetry.ledger import Verdicts

#: The route that what belongs to no route of the settings leaves by.
DEFAULT_ROUTE = "default"
#: A sink that failed so many times in a row is taken to be down. Not at once: one batch that it chokes on must not keep
#: those behind it for ever.
_MOST_FAILURES = 3


class Replayed(msgspec.Struct, frozen=True):
    """
    What became of one rescued batch, in events: `found` = `delivered` + the sum of `rejected` + `left`.

    Of those that are left so many are `in_doubt`: they may have arrived.

    `trouble` says why events are left, or the batch as a whole: then it is not `readable`, and `is_away` if that may
    pass. `aside` is where the rejected of each reason are now, if they do not stay where they were.
    """

    name: str
    place: str
    tenant_id: str = ""
    found: int = 0
    delivered: int = 0
    rejected: tuple[tuple[Reason, int], ...] = ()
    left: int = 0
    in_doubt: int = 0
    trouble: str = ""
    aside: tuple[str, ...] = ()
    readable: bool = True
    is_away: bool = False


class _Sent:
    """What a sink said of the events of a batch, by their places in it."""

    def __init__(self) -> None:
        self.delivered = 0
        self.rejected: list[tuple[int, Reason]] = []
        self.left: list[int] = []
        self.in_doubt = 0
        self.trouble = ""

    def add(self, first: int, batch: Batch, receipt: Receipt) -> None:
        """Lay a receipt over a part of the batch; raises LedgerError for one that does not add up."""
        Verdicts(batch, receipt)
        self.delivered += receipt.delivered
        self.rejected += [(first + n, reason) for n, reason in receipt.rejected]
        self.left += [first + n for n in receipt.retryable]
        self.in_doubt += receipt.in_doubt
        if receipt.retryable:
            left = f"{len(receipt.retryable)} of {len(batch)} events were not taken"
            self.trouble = f"{left}: {receipt.trouble}" if receipt.trouble else left

    def refused(self) -> dict[Reason, list[int]]:
        """Sort what was rejected by its reason."""
        found: dict[Reason, list[int]] = {}
        for n, reason in sorted(self.rejected):
            found.setdefault(reason, []).append(n)
        return dict(sorted(found.items()))


def replay(
    source: Source,
    route: str,
    sink: Sink | None,
    *,
    is_counted: bool = False,
    parks: bool = True,
    claims: Claims | None = None,
    offload: Offload = at_once,
) -> Iterator[Replayed]:
    """
    Send on what is stored of a route, batch by batch, and say what became of each.

    What is refused for good is parked, unless it is what is sent on from there: then it stays where it is. What is too
    large for the sink goes through `claims`, if there are some.
    Only the holder of `source.exclusive(route)` may. Once the sink is down, and without one, nothing more is sent: it
    ends, or, if the rest `is_counted`, goes on to read that and say that it is left. Raises nothing of the sink's, and
    `SinkError` when the source can't be listed to its end.
    """
    failures = 0 if sink else _MOST_FAILURES
    batches = source.stored(route)
    reach = offload if source.blocking else at_once
    while (stored := reach(lambda: next(batches, None))) is not None:
        is_down = failures >= _MOST_FAILURES
        if is_down and not is_counted:
            return
        one = _replay(source, route, stored, None if is_down else sink, parks=parks, claims=claims, offload=offload)
        if one is not None:
            yield one
            if one.readable or one.is_away:
                failures = failures + 1 if one.is_away or (one.left and not one.delivered) else 0
            if one.is_away and failures >= _MOST_FAILURES:
                return


def _replay(
    source: Source,
    route: str,
    stored: Stored,
    sink: Sink | None,
    *,
    parks: bool,
    claims: Claims | None,
    offload: Offload,
) -> Replayed | None:
    told = Replayed(name=stored.name, place=stored.place)
    reach = offload if source.blocking else at_once
    try:
        batch = reach(stored.load)
    except SinkError as error:
        is_away = isinstance(error, TransientSinkError)
        return msgspec.structs.replace(told, trouble=str(error), readable=False, is_away=is_away)
    if batch is None:
        return None
    told = msgspec.structs.replace(told, tenant_id=batch.spans[0].tenant_id, found=len(batch))
    if sink is None:
        return msgspec.structs.replace(told, left=len(batch), trouble="its sink is taken to be down")
    sent = _send(batch, sink, claims, offload)
    told = msgspec.structs.replace(told, in_doubt=sent.in_doubt)
    if not sent.delivered and not sent.rejected:
        return msgspec.structs.replace(told, left=len(batch), trouble=sent.trouble)
    refused = sent.refused()
    aside = []
    try:
        if parks:
            for reason, numbers in refused.items():
                aside.append(reach(partial(source.put_aside, route, reason, selected(batch, numbers))))
        stay = sorted([*sent.left, *(() if parks else (n for n, _ in sent.rejected))])
        if len(stay) < len(batch):
            _keep(stored, selected(batch, stay) if stay else None, reach)
    except SinkError as error:
        # The sink has some of it, and all of it still lies here: all of it will be sent again.
        return msgspec.structs.replace(told, left=len(batch), trouble=str(error))
    return msgspec.structs.replace(
        told,
        delivered=sent.delivered,
        rejected=tuple((reason, len(numbers)) for reason, numbers in refused.items()),
        left=len(sent.left),
        trouble=sent.trouble,
        aside=tuple(aside),
    )


def _keep(stored: Stored, rest: Batch | None, reach: Offload) -> None:
    try:
        reach(lambda: stored.keep(rest))
    except TransientSinkError:
        # The answer may be lost, and the batch gone: nobody would meet it again, and learn that it came home.
        if rest is not None or reach(stored.load) is not None:
            raise


def _send(batch: Batch, sink: Sink, claims: Claims | None, offload: Offload) -> _Sent:
    sent = _Sent()
    for first, one in split(batch, sink.limits):
        if sent.trouble:
            sent.left += range(first, first + len(one.batch))
            continue
        try:
            write = partial(write_one, sink, one, claims)
            sent.add(first, one.batch, offload(write) if sink.blocking else write())
        except Exception as error:  # noqa: BLE001 - a defect of a sink or of ours: the events stay where they are
            sent.left += range(first, first + len(one.batch))
            sent.in_doubt += len(one.batch) * isinstance(error, AmbiguousSinkError)
            sent.trouble = str(error) if isinstance(error, CollectorError) else f"{type(error).__name__}: {error}"
    return sent
