"""
The sink that Kinesis, Firehose and SQS have in common: it sends a batch as records, call by call.

A call takes some records and says of each what became of it: taken, to be sent again, or refused for good. Of a record
that is refused for good, or of a call that is refused for what is in it, the halves are sent by themselves, and their
halves, until what is wrong with it stands alone.
"""

from __future__ import annotations

from collections import deque
from collections.abc import Callable, Iterator, Sequence

from collector import aws
from collector.errors import AmbiguousSinkError, SinkError, ThrottledSinkError, TransientSinkError
from collector.event import Batch
from collector.outcome import Reason, Receipt
from collector.sinks.base import Limits
from collector.sinks.records import CALL_BYTES, Destination, Fate, Record, Refusal, records_of

#: What one write may hold; it takes several calls for that. A choice.
_BATCH_BYTES = 1024 * 1024
_BATCH_EVENTS = 10_000
#: Codes by which a call is refused for what is in it.
_OF_CONTENT = frozenset({
    "413", "AWS.SimpleQueueService.BatchRequestTooLong", "BatchRequestTooLong", "InvalidArgumentException",
    "InvalidMessageContents", "RequestEntityTooLarge", "SerializationException", "ValidationException",
})  # fmt: skip
#: When so many single events were refused by such codes, and none was taken, it is taken for a fault of the settings.
_MOST_REFUSED = 4


def limits_of(max_event_bytes: int) -> Limits:
    """Return the limits of a sink whose line, newline included, may have so many bytes."""
    size = max(_BATCH_BYTES, max_event_bytes)
    return Limits(max_events=_BATCH_EVENTS, max_bytes=size, max_event_bytes=max_event_bytes, partitioned=False)


class RecordSink:
    """
    Writes batches as records; any number of greenlets may write at once.

    It talks over gevent's sockets, on the hub, and computes there too. Lines are joined to records of `join_bytes` at
    the most; with 0 each has its own.
    """

    blocking = False

    def __init__(self, destination: Destination, *, connect: Callable[[], aws.Client], join_bytes: int) -> None:
        self.limits = limits_of(destination.max_event_bytes)
        self._destination = destination
        self._link = aws.Link(connect)
        self._join_bytes = join_bytes

    def start(self) -> None:
        """Make the client; raises `SinkError` when that can't be done. It asks the destination for nothing."""
        self._link.client()

    def write(self, batch: Batch) -> Receipt:
        """
        Send the batch, call by call; raises `TransientSinkError` when none of it was taken and all of it may be later.
        """
        client = self._link.client()
        account = _Account(len(batch))
        calls = deque(self._calls(records_of(batch, self._join_bytes)))
        while calls:
            call = calls.popleft()
            try:
                refusals = self._destination.send(client, call)
            except TransientSinkError as error:
                if error.code in _OF_CONTENT and account.may_be_content:
                    calls.extendleft(reversed(account.parted(call, error)))
                    continue
                if account.is_empty:
                    raise
                account.give_back([call, *calls], error)
                break
            if len(refusals) != len(call):
                account.give_back([call], AmbiguousSinkError("the answer does not speak of each record"))
                continue
            calls.extend(self._calls(account.count(call, refusals)))
        return account.receipt()

    def close(self) -> None:
        """Let the client go, with its connections; safe to call twice and before `start`."""
        self._link.close()

    def _calls(self, records: Sequence[Record]) -> Iterator[list[Record]]:
        """Gather records into calls."""
        call: list[Record] = []
        size = 0
        most = max(CALL_BYTES, self._join_bytes)
        for record in records:
            more = record.size
            if call and (len(call) == self._destination.most_records or size + more > most):
                yield call
                call, size = [], 0
            call.append(record)
            size += more
        if call:
            yield call


class _Account:
    """What became of the events of one batch, while its calls go on."""

    def __init__(self, events: int) -> None:
        self._events = events
        self._retryable: set[int] = set()
        self._rejected: set[int] = set()
        self._refused_alone: set[int] = set()
        self._delivered = self._in_doubt = 0
        self._throttled = False
        self._trouble = ""

    @property
    def is_empty(self) -> bool:
        """Tell whether nothing is known of any event, but for what may be a fault of the settings."""
        return not (self._delivered or self._retryable or self._rejected)

    @property
    def may_be_content(self) -> bool:
        """Tell whether a call that was refused is so for what is in it, and not for how Collector is set up."""
        return self._delivered > 0 or len(self._refused_alone) < _MOST_REFUSED

    def count(self, call: Sequence[Record], refusals: Sequence[Refusal | None]) -> list[Record]:
        """Count the fates of a call, and return what is to be sent in parts."""
        parts: list[Record] = []
        for record, refusal in zip(call, refusals, strict=True):
            if refusal is None:
                self._delivered += len(record.lines)
                continue
            self._trouble = self._trouble or f"{refusal.code}: {refusal.message or 'no message'}"
            if refusal.fate is not Fate.NEVER:
                self._again(record, in_doubt=refusal.fate is Fate.IN_DOUBT)
                self._throttled |= refusal.fate is Fate.SLOWER
            elif len(record.lines) > 1:
                parts += record.halves()
            else:
                self._rejected.add(record.first)
        return parts

    def parted(self, call: Sequence[Record], error: TransientSinkError) -> list[list[Record]]:
        """Part a call that was refused as a whole; a single event of it is rejected."""
        if len(call) > 1:
            middle = len(call) // 2
            return [list(call[:middle]), list(call[middle:])]
        (record,) = call
        if len(record.lines) > 1:
            return [[half] for half in record.halves()]
        self._refused_alone.add(record.first)
        self._trouble = self._trouble or str(error)
        return []

    def give_back(self, calls: Sequence[Sequence[Record]], error: TransientSinkError) -> None:
        """Count what did not come to be sent, or was sent in vain: the first of the calls was."""
        for number, call in enumerate(calls):
            for record in call:
                self._again(record, in_doubt=number == 0 and isinstance(error, AmbiguousSinkError))
        self._throttled |= isinstance(error, ThrottledSinkError)
        self._trouble = str(error)

    def _again(self, record: Record, *, in_doubt: bool) -> None:
        self._retryable.update(record.places)
        self._in_doubt += len(record.lines) * in_doubt

    def receipt(self) -> Receipt:
        """Say what became of everything; raises `SinkError` if that does not add up: a defect of ours."""
        rejected = self._rejected | self._refused_alone
        if self._delivered + len(self._retryable) + len(rejected) != self._events:
            raise SinkError("an event of the batch was forgotten")
        return Receipt(
            self._delivered,
            retryable=tuple(sorted(self._retryable)),
            rejected=tuple((place, Reason.SINK_INVALID) for place in sorted(rejected)),
            trouble=self._trouble,
            throttled=self._throttled,
            in_doubt=self._in_doubt,
        )
