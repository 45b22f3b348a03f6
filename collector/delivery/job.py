"""
Several small batches on their way to a sink that blocks, as one piece of work for a thread.

A thousand tenants are a thousand batches a flush, of a few events each: to hand each over alone would cost more than
to write it.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence

import msgspec

from collector.clock import Clock
from collector.delivery.aside import Claims
from collector.delivery.batches import Cut
from collector.outcome import Reason, Receipt
from collector.sinks.base import Sink

#: Batches in one job. A choice: to hand a job over costs about as much as to write two batches (measured), so that a
#: 32nd of it is little; and the loop has to cut and to settle them, without a breath, in 2 ms.
MAX_BATCHES = 32
#: A job with so many bytes takes no further batch: what is large goes alone, as threads write beside each other.
MAX_BYTES = 1 << 20
#: No more batches than are written in so many seconds go into a job, by what the last one took: on a slow disk they are
#: few, and threads wait for it beside each other. A choice: no upload that waits for its sink sees the difference.
MAX_S = 0.05
#: A job ends when so many of its batches failed in a row: one may be that batch's own fault, two are the sink's.
MOST_FAILURES = 2


class Answer(msgspec.Struct, frozen=True):
    """What a sink said of a batch, or raised, after so many seconds."""

    one: Cut
    said: Receipt | Exception
    seconds: float

    def receipt(self) -> Receipt:
        """Return what it said, or raise what it raised."""
        if isinstance(self.said, Exception):
            raise self.said
        return self.said


def gather(cuts: Iterator[Cut], most: int) -> list[Cut]:
    """Take batches off, `most` of them and no more bytes than a job may have; the first one in any case."""
    job: list[Cut] = []
    size = 0
    while len(job) < most and size < MAX_BYTES and (one := next(cuts, None)) is not None:
        job.append(one)
        size += one.batch.size
    return job


def write(sink: Sink, job: Sequence[Cut], clock: Clock, claims: Claims | None = None) -> list[Answer]:
    """
    Write the batches one after the other; raises nothing, for one that fails fails alone.

    When the sink is at fault there are fewer answers than batches, and the rest was not touched. An event that is too
    large for the sink is refused, unless there are `claims` for it.
    """
    answers: list[Answer] = []
    failures, began = 0, clock.monotonic()
    for one in job:
        said: Receipt | Exception
        try:
            said = write_one(sink, one, claims)
        except Exception as error:  # noqa: BLE001 - raised again by `Answer.receipt`
            said = error
        ended = clock.monotonic()
        answers.append(Answer(one, said, ended - began))
        failures, began = failures + 1 if isinstance(said, Exception) else 0, ended
        if failures == MOST_FAILURES:
            break
    return answers


def write_one(sink: Sink, one: Cut, claims: Claims | None) -> Receipt:
    """Write a batch; an event too large for the sink is claimed, or refused; raises as `Sink.write` does."""
    if one.fits:
        return sink.write(one.batch)
    if claims is not None:
        if not sink.blocking:
            return claims.write(sink, one.batch)
        # A sink that blocks is written to in a thread, where the store may not be. That is a rescue sink: what it takes
        # whole is claimed when it is sent on.
        if one.batch.size <= sink.limits.max_event_bytes:
            return sink.write(one.batch)
    return Receipt(0, rejected=tuple((n, Reason.SINK_TOO_LARGE) for n in range(len(one.batch))))
