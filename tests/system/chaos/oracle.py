"""
The oracle: what the sinks hold, against what the devices were told.

It knows nothing of processes or files. Of every event it says whether it is there, as it was sent and how often, and
of each copy too many, of each request that failed, and of each number in the ledger, whether it has a cause that we
made. What has none is a broken promise.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterable
from typing import Any

import msgspec

from tests.system.chaos import diary, events

#: A write that came to its end this long before its writer was killed may not have been noted: a guess, from what a
#: starved worker needs to come from the one to the other.
UNNOTED_S = 3.0
#: Clocks of files are coarse: a tick of the kernel's.
TICK_S = 0.02
#: How many of one kind are shown.
SHOWN = 3


class Kill(msgspec.Struct, frozen=True):
    """
    The end of processes by our hand, between two moments.

    `ports` are the devices' ends of the connections that the dead had accepted, at the first moment; None when the
    listener died with them, and every connection there was.
    """

    at: float
    until: float
    pids: frozenset[int]
    ports: frozenset[int] | None


class Window(msgspec.Struct, frozen=True):
    """
    A time in which nobody listened, for a reason that we know.

    `queue_is_lost` says that the listeners' owner was killed: what waited in their queue goes with the last that
    closes them.
    """

    since: float
    until: float
    queue_is_lost: bool = False


class Found(msgspec.Struct, frozen=True):
    """A line of a sink: the object's writer and fate, where its name tells, and when it was written."""

    line: bytes
    writer: int = 0
    fate: str = ""
    at: float = 0.0


class Evidence(msgspec.Struct, frozen=True):
    """
    All there is to judge by.

    `ledger` is the total of the task when all was settled; `once` names the tenants that are promised no repeat at
    all; `draining_is_fine` says whether the fault lets a device be sent away by a task that ends. `left` are the
    workers whose drain was out of time, by pid, with how many events each left to its successor.
    """

    diary: diary.Diary
    found: Iterable[Found]
    ledger: dict[str, Any]
    kills: list[Kill]
    windows: list[Window]
    trouble: list[str] = []
    once: frozenset[str] = frozenset()
    draining_is_fine: bool = False
    left: dict[int, int] = {}


class Duplicates(msgspec.Struct):
    """
    Copies too many, by their cause.

    `killed_writer`: the writer was killed, or its drain's time was up, between the sink's word and our note of it.
    """

    sent_again: int = 0
    lost_answer: int = 0
    killed_writer: int = 0
    unexplained: int = 0

    @property
    def total(self) -> int:
        """Count them all."""
        return self.sent_again + self.lost_answer + self.killed_writer + self.unexplained


class Tally(msgspec.Struct):
    """The numbers of one tenant: of events, and of uploads that were sent away."""

    acknowledged: int = 0
    missing: int = 0
    duplicates: int = 0
    refused: int = 0


class Finding(msgspec.Struct):
    """What the oracle says; `broken` has one sentence for each promise that does not hold."""

    acknowledged: int = 0
    missing: int = 0
    altered: int = 0
    invented: int = 0
    duplicates: Duplicates = msgspec.field(default_factory=Duplicates)
    deduplicated: int = 0
    failed_allowed: int = 0
    failed: int = 0
    nobody_listened: int = 0
    refused: int = 0
    slowest_s: float = 0.0
    tenants: dict[str, Tally] = msgspec.field(default_factory=dict)
    broken: list[str] = msgspec.field(default_factory=list)


class _Copy(msgspec.Struct, frozen=True, gc=False):
    receipt: str
    writer: int
    fate: str
    at: float


def judge(evidence: Evidence) -> Finding:
    """Hold it all together."""
    finding = Finding(slowest_s=evidence.diary.slowest_s, refused=sum(evidence.diary.refusals.values()))
    finding.tenants = {device.tenant: Tally() for device in evidence.diary.devices}
    copies, lines = _read(evidence, finding)
    _look_for_all(evidence, copies, finding)
    _explain_repeats(evidence, copies, finding)
    _explain_failures(evidence, finding)
    _explain_refusals(evidence, finding)
    distinct = sum(len({copy.receipt for copy in each}) for each in copies.values())
    finding.deduplicated = evidence.ledger.get("deduplicated", 0)
    _check_ledger(evidence.ledger, distinct, lines, finding)
    if evidence.trouble:
        finding.broken.append(f"{len(evidence.trouble)} lines of trouble in the log: {evidence.trouble[:SHOWN]}")
    if not finding.acknowledged:
        finding.broken.append("nothing was acknowledged, so nothing is shown")
    return finding


def _read(evidence: Evidence, finding: Finding) -> tuple[dict[str, list[_Copy]], int]:
    """Sort the lines by event; count what was altered and what nobody sent."""
    begun = {one.name: one.begun for one in evidence.diary.devices}
    copies: dict[str, list[_Copy]] = {}
    receipts: dict[str, str] = {}
    altered, invented, lines = [], [], 0
    for found in evidence.found:
        lines += 1
        line = events.read(found.line)
        spot = events.parse_id(line.event_id) if line is not None else None
        if line is None or spot is None:
            invented.append(repr(found.line[:120]))
            continue
        device, number, place = spot
        if number >= begun.get(device, 0) or place >= events.how_many(device, number):
            invented.append(line.event_id)
            continue
        if not line.is_sound or line.tenant != device.rpartition("-")[0]:
            altered.append(line.event_id)
        # One string for all events of an upload: there are many of them.
        receipt = receipts.setdefault(line.receipt, line.receipt)
        copies.setdefault(line.event_id, []).append(_Copy(receipt, found.writer, found.fate, found.at))
    finding.altered, finding.invented = len(altered), len(invented)
    _complain(finding, "altered", altered)
    _complain(finding, "invented", invented)
    return copies, lines


def _look_for_all(evidence: Evidence, copies: dict[str, list[_Copy]], finding: Finding) -> None:
    missing, unanswered = [], []
    for device in evidence.diary.devices:
        tally = finding.tenants[device.tenant]
        for number, receipt in enumerate(device.receipts):
            for place in range(events.how_many(device.name, number)):
                name = events.event_id(device.name, number, place)
                tally.acknowledged += 1
                there = {copy.receipt for copy in copies.get(name, ())}
                # An answer is about the very upload that it answers; only a repeat that is not delivered has no line.
                if receipt not in there and not (there and device.tenant in evidence.once):
                    missing.append(f"{name} (receipt {receipt})")
                    tally.missing += 1
        if device.begun > len(device.receipts):
            unanswered.append(f"{device.name}.{len(device.receipts)}")
    finding.acknowledged = sum(tally.acknowledged for tally in finding.tenants.values())
    finding.missing = len(missing)
    _complain(finding, "missing", missing)
    _complain(finding, "never acknowledged, however often they were sent", unanswered)


def _explain_repeats(evidence: Evidence, copies: dict[str, list[_Copy]], finding: Finding) -> None:
    again = {one.name: one.again for one in evidence.diary.devices}
    tenants = {one.name: one.tenant for one in evidence.diary.devices}
    left = dict(evidence.left)
    unexplained = []
    for name, each in copies.items():
        if len(each) == 1:
            continue
        device, number, _ = events.parse_id(name) or ("", 0, 0)
        finding.tenants[tenants[device]].duplicates += len(each) - 1
        may_be_kept = 1 + sum(outcome in diary.MAY_BE_KEPT for outcome in again[device].get(number, ()))
        if tenants[device] in evidence.once:
            may_be_kept = 1
        uploads = len({copy.receipt for copy in each})
        explained = min(uploads, may_be_kept) - 1
        finding.duplicates.sent_again += explained
        excess = uploads - 1 - explained
        for same in Counter(copy.receipt for copy in each).items():
            excess += _explain_deliveries(
                [copy for copy in each if copy.receipt == same[0]], evidence.kills, left, finding.duplicates
            )
        if excess:
            finding.duplicates.unexplained += excess
            unexplained.append(f"{name}: {each}")
    _complain(finding, "delivered twice for no reason that we made", unexplained)


def _explain_deliveries(same: list[_Copy], kills: list[Kill], left: dict[int, int], duplicates: Duplicates) -> int:
    """Explain the copies of one upload's event, all but one; return how many have no cause."""
    excess = len(same) - 1
    for copy in same:
        if excess and copy.fate == "lost":
            duplicates.lost_answer += 1
            excess -= 1
        elif excess and any(
            copy.writer in kill.pids and kill.at - UNNOTED_S <= copy.at <= kill.until + TICK_S for kill in kills
        ):
            duplicates.killed_writer += 1
            excess -= 1
        elif excess and left.get(copy.writer, 0) > 0:
            # No more than it left can have been under way.
            left[copy.writer] -= 1
            duplicates.killed_writer += 1
            excess -= 1
    return excess


def _explain_failures(evidence: Evidence, finding: Finding) -> None:
    """Tell the failures that we caused from those that no device may see."""
    used: set[tuple[int, int]] = set()
    unexplained = []
    for failure in evidence.diary.failures:
        if failure.kind == diary.NOBODY_LISTENS and any(
            window.since <= failure.failed_at and failure.asked_at <= window.until for window in evidence.windows
        ):
            finding.nobody_listened += 1
            continue
        if _was_in_a_lost_queue(failure, evidence.windows):
            finding.failed_allowed += 1
            continue
        killer = next((n for n, kill in enumerate(evidence.kills) if _was_cut_off(failure, kill)), None)
        # A connection dies once.
        if killer is None or (killer, failure.port) in used:
            unexplained.append(str(failure))
        else:
            used.add((killer, failure.port))
            finding.failed_allowed += 1
    finding.failed = len(unexplained)
    _complain(finding, "failed that should not have", unexplained)


def _was_cut_off(failure: diary.Failure, kill: Kill) -> bool:
    if kill.ports is None:
        return failure.opened_at <= kill.until and failure.failed_at >= kill.at
    return failure.port in kill.ports and failure.opened_at <= kill.at <= failure.failed_at


def _was_in_a_lost_queue(failure: diary.Failure, windows: list[Window]) -> bool:
    return (
        failure.kind == "ECONNRESET"
        and not failure.served
        and any(one.queue_is_lost and one.since <= failure.opened_at <= one.until for one in windows)
    )


def _explain_refusals(evidence: Evidence, finding: Finding) -> None:
    allowed = {"backpressure", "over_quota"} | ({"draining"} if evidence.draining_is_fine else set())
    wrong = [f"{times} of {name}" for name, times in evidence.diary.refusals.items() if name.split()[1] not in allowed]
    for name, times in evidence.diary.refusals.items():
        if (tally := finding.tenants.get(name.split()[0])) is not None:
            tally.refused += times
    _complain(finding, "refused for no reason that we made", wrong)


def _check_ledger(ledger: dict[str, Any], distinct: int, lines: int, finding: Finding) -> None:
    if not ledger.get("balanced") or ledger["pending"]:
        finding.broken.append(f"the ledger is not settled: {ledger}")
    arrived, copies = ledger["delivered"] + ledger["rescued"], ledger.get("deduplicated", 0)
    repeats = finding.duplicates.lost_answer + finding.duplicates.killed_writer
    if not ledger["accepted"] - copies == arrived == distinct:
        finding.broken.append(
            f"the ledger has {ledger['accepted']} accepted, {copies} of them copies, and {arrived} arrived; "
            f"the sinks have {distinct} events"
        )
    if lines - repeats != arrived:
        finding.broken.append(f"the sinks have {lines} lines, {repeats} of them repeats; the ledger has {arrived}")


def _complain(finding: Finding, what: str, names: list[str]) -> None:
    if names:
        finding.broken.append(f"{len(names)} {what}: {'; '.join(names[:SHOWN])}")
