"""
One writer's books: what it accepted, and what became of it.

    accepted = delivered + rescued + rejected_by_sink + dropped + pending

Copies of events that were here already are counted beside it, and stand on both sides of what people are shown:
accepted, and deduplicated.

There are three witnesses, so that the identity is checked and not assumed. What was accepted stands in the
counters and, written together with the events, in the frames of the spool. What became of it stands in the
journal. What is pending is counted in the segments. They are brought together when a segment is read, when a
dead writer's directory is adopted (`recount`), and every few seconds (`audit`).
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from pathlib import Path

from collector.errors import LedgerError
from collector.event import Batch, Span
from collector.outcome import DELIVERED, FATES, RESCUED, Fate, Outcome, Reason, Receipt
from collector.telemetry.counters import COLUMNS, CounterFile
from collector.telemetry.counters import read as read_counters
from collector.telemetry.homecoming import Counts, Homecoming
from collector.telemetry.journal import Fates, Journal, Settlement, spans_of
from collector.telemetry.signals import Signals

COUNTERS = "counters"
JOURNAL = "journal"

#: Where each fate stands in an account; a thousand tenants are credited at once.
_PLACES = {fate.name: place for place, fate in enumerate(FATES)}
_PENDING = COLUMNS.index("pending")
_LOST = Fate(Outcome.DROPPED, Reason.CORRUPT_FRAME)
_REJECTED = {fate.reason: fate for fate in FATES if fate.outcome is Outcome.REJECTED_BY_SINK}


class Account:
    """One tenant's running counts, in events."""

    __slots__ = ("accepted", "deduplicated", "fates", "pending", "row", "tenant_id")

    def __init__(self, tenant_id: str, row: int) -> None:
        self.tenant_id = tenant_id
        self.row = row
        self.accepted = 0
        self.pending = 0
        self.deduplicated = 0
        self.fates = [0] * len(FATES)

    def values(self) -> list[int]:
        """Return what `counters.COLUMNS` names."""
        return [self.accepted, self.pending, *self.fates, self.deduplicated]


class Verdicts:
    """
    A receipt laid over its batch: which spans are settled, and with what fate.

    LedgerError for one that does not add up.
    """

    def __init__(self, batch: Batch, receipt: Receipt) -> None:
        if receipt.delivered + len(receipt.retryable) + len(receipt.rejected) != len(batch):
            raise LedgerError(
                f"the sink's receipt names {receipt.delivered} delivered, {len(receipt.retryable)} retryable and "
                f"{len(receipt.rejected)} rejected events; the batch has {len(batch)}"
            )
        retryable = set(receipt.retryable)
        reasons = dict(receipt.rejected)
        if len(retryable) + len(reasons) + receipt.delivered != len(batch) or retryable & reasons.keys():
            raise LedgerError("the sink's receipt names an event twice")
        self.batch = batch.name
        #: Settled spans, each with the events in it that the sink rejected, by number in the partition.
        self.settled: list[tuple[Span, dict[int, Reason]]] = []
        if receipt.delivered == len(batch):
            self.settled += [(span, {}) for span in batch.spans]
            return
        at = 0
        for span in batch.spans:
            first = span.first
            rejected = {span.first + n - at: reason for n, reason in reasons.items() if at <= n < at + len(span)}
            for n in sorted(n - at + span.first for n in retryable if at <= n < at + len(span)):
                self._add(span, first, n, rejected)
                first = n + 1
            self._add(span, first, span.last, rejected)
            at += len(span)

    def _add(self, span: Span, first: int, last: int, rejected: dict[int, Reason]) -> None:
        if first < last:
            inside = {n: reason for n, reason in rejected.items() if first <= n < last}
            self.settled.append((Span(span.tenant_id, span.hour, first, last), inside))

    def count(self, arrived: Fate, sums: Fates) -> None:
        """Add the fates up, by tenant; `arrived` is the fate of what the sink took."""
        arrival = arrived.name
        for span, rejected in self.settled:
            counts = sums.get(span.tenant_id)
            if counts is None:
                counts = sums[span.tenant_id] = {}
            if took := span.last - span.first - len(rejected):
                counts[arrival] = counts.get(arrival, 0) + took
            for reason in rejected.values():
                name = _REJECTED[reason].name
                counts[name] = counts.get(name, 0) + 1


class Ledger:
    """The books in one directory of the spool; only the holder of that directory's lock may open them."""

    def __init__(self, directory: Path, signals: Signals) -> None:
        self._directory = directory
        self._signals = signals
        self._counters = CounterFile(directory / COUNTERS)
        self._journal = Journal(directory / JOURNAL)
        self._accounts: dict[str, Account] = {}
        self._differences: dict[str, int] = {}
        self._homecoming = Homecoming(directory.parent.parent)

    def start(self) -> None:
        """Create the books, or open a dead writer's; raises OSError."""
        self._journal.start()
        seen = read_counters(self._directory / COUNTERS) if (self._directory / COUNTERS).exists() else {}
        self._counters.start()
        for tenant_id in {**seen, **self._journal.state.fates}:
            account = self.account(tenant_id)
            account.accepted = seen.get(tenant_id, {}).get("accepted", 0)
            account.deduplicated = seen.get(tenant_id, {}).get("deduplicated", 0)
            self._credit(account, self._journal.state.fates.get(tenant_id, {}))
            account.pending = account.accepted - sum(account.fates)

    def moved_to(self, directory: Path) -> None:
        """Go on in the directory's new place."""
        self._directory = directory
        self._journal.path = directory / JOURNAL

    def account(self, tenant_id: str) -> Account:
        """Return the tenant's account, a new one if there is none; raises OSError when tmpfs has no room for it."""
        account = self._accounts.get(tenant_id)
        if account is None:
            account = self._accounts[tenant_id] = Account(tenant_id, self._counters.row(tenant_id))
        return account

    def accept(self, account: Account, events: int) -> None:
        """Count events whose frame was just written."""
        account.accepted += events
        account.pending += events
        self._counters.add(account.row, account.accepted, account.pending)

    def deduplicate(self, account: Account, events: int) -> None:
        """Count copies of events that were here already, before they are answered as accepted."""
        account.deduplicated += events
        self._counters.write(account.row, account.values())

    def settle(self, segment: str, verdicts: Sequence[Verdicts], *, arrived: Fate = DELIVERED) -> None:
        """
        Make the fates of batches of one segment durable, in one line of the journal, then count them.

        Raises OSError when the journal can't be written; then nothing is settled.
        """
        settled = [one for batch in verdicts for one in batch.settled]
        if not settled:
            return
        fates: Fates = {}
        for batch in verdicts:
            batch.count(arrived, fates)
        self._settle(Settlement(fates, segment, tuple(span for span, _ in settled)))
        for span, rejected in settled:
            for reason in set(rejected.values()):
                count = sum(reason is one for one in rejected.values())
                self._signals.events_lost(span.tenant_id, Outcome.REJECTED_BY_SINK, reason, count, segment)

    def follow(self, verdicts: Iterable[Verdicts]) -> None:
        """
        Note batches that were just settled as rescued, to move their events when they are sent on; raises OSError.

        Others may have their turn in it, so the books must be whole when it is called.
        """
        tenants: dict[str, str] = {}
        rescued: dict[str, int] = {}
        for one in verdicts:
            for span, rejected in one.settled:
                # What can be sent on lies by tenant.
                tenants[one.batch] = span.tenant_id
                rescued[one.batch] = rescued.get(one.batch, 0) + len(span) - len(rejected)
        for batch, fates in self._homecoming.rescued(rescued).items():
            self._move(tenants[batch], fates)

    def sent_on(self, batch: str, tenant_id: str, fates: Mapping[str, int]) -> None:
        """
        Move events of a rescued batch that were sent on, and are gone from there, to their fates by name.

        Only those that were settled as rescued in this spool, by whomever, are moved, and each once. Raises OSError.
        """
        self.account(tenant_id)
        if moved := self._homecoming.sent(batch, fates):
            self._move(tenant_id, moved)

    def _move(self, tenant_id: str, fates: Counts) -> None:
        self._settle(Settlement({tenant_id: {RESCUED.name: -sum(fates.values()), **fates}}))

    def lose(self, segment: str, spans: Iterable[Span]) -> None:
        """Settle events that the spool held and can't give back any more."""
        lost = tuple(spans)
        fates: dict[str, dict[str, int]] = {}
        for span in lost:
            counts = fates.setdefault(span.tenant_id, {_LOST.name: 0})
            counts[_LOST.name] += len(span)
        self._settle(Settlement(fates, segment, lost))
        for tenant_id, counts in fates.items():
            self._signals.events_lost(tenant_id, Outcome.DROPPED, Reason.CORRUPT_FRAME, counts[_LOST.name], segment)

    def _settle(self, settlement: Settlement) -> None:
        self._journal.write(settlement)
        for tenant_id, counts in settlement.fates.items():
            account = self.account(tenant_id)
            last = self._credit(account, counts)
            account.pending -= sum(counts.values())
            self._counters.write(account.row, (account.pending, *account.fates[: last + 1]), first=_PENDING)

    @staticmethod
    def _credit(account: Account, counts: Mapping[str, int]) -> int:
        """Add to the fates, and return the place of the last one that changed, -1 if none did."""
        last = -1
        for name, count in counts.items():
            # A fate of another version of Collector has no column here.
            if (place := _PLACES.get(name)) is not None:
                account.fates[place] += count
                last = max(last, place)
        return last

    def settled_spans(self, segment: str) -> list[Span]:
        """List what is settled of a segment."""
        return list(spans_of(self._journal.state.segments.get(segment, {})))

    def keep_notes_on(self, segments: Iterable[str]) -> None:
        """Drop the notes on every other segment: they were unlinked."""
        for name in self._journal.state.segments.keys() - set(segments):
            self._journal.forget(name)

    def forget(self, segment: str) -> None:
        """Drop the notes on a segment that was unlinked."""
        self._journal.forget(segment)

    def recount(self, *, seen: Mapping[str, int], pending: Mapping[str, int], damaged: bool) -> None:
        """
        Bring a dead writer's books up to what its segments hold, exactly, whenever it died.

        `seen` is the highest running count in each tenant's frames: an append that the writer did not live to
        count is counted now. `pending` is what the segments hold without a fate. Events that were counted and
        are nowhere are lost when the segments are damaged, and a defect when they are not.
        """
        for tenant_id in {**self._accounts, **seen, **pending}:
            account = self.account(tenant_id)
            account.accepted = max(account.accepted, seen.get(tenant_id, 0))
            account.pending = account.accepted - sum(account.fates)
            missing = account.pending - pending.get(tenant_id, 0)
            if missing > 0 and damaged:
                self._settle(Settlement({tenant_id: {_LOST.name: missing}}))
                self._signals.events_lost(tenant_id, Outcome.DROPPED, Reason.CORRUPT_FRAME, missing, "")
            self._counters.write(account.row, account.values())
        self.audit(pending)

    def audit(self, pending: Mapping[str, int]) -> None:
        """
        Hold the accounts against what the segments hold, by tenant.

        What the segments hold is what the counters show as pending, so that a difference unbalances the ledger
        for every reader; it is a defect and an alarm, told once for each change of it.
        """
        for tenant_id in {**self._accounts, **pending}:
            account = self.account(tenant_id)
            account.pending = pending.get(tenant_id, 0)
            accounted = sum(account.fates) + account.pending
            if account.accepted - accounted != self._differences.get(tenant_id, 0):
                self._differences[tenant_id] = account.accepted - accounted
                self._counters.write(account.row, account.values())
                self._signals.ledger_imbalance(tenant_id, account.accepted, accounted)

    def totals(self) -> dict[str, int]:
        """Sum the accounts, as people are shown them: accepted, pending, each outcome, deduplicated."""
        sums = dict.fromkeys(("accepted", "pending", *(o.value for o in Outcome), "deduplicated"), 0)
        for account in self._accounts.values():
            sums["accepted"] += account.accepted + account.deduplicated
            sums["deduplicated"] += account.deduplicated
            sums["pending"] += account.pending
            for fate, count in zip(FATES, account.fates, strict=True):
                sums[fate.outcome.value] += count
        return sums

    def close(self) -> None:
        """Close the files; safe to call twice."""
        self._counters.close()
        self._journal.close()
