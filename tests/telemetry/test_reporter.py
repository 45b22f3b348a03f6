"""Every so often a worker says how it stands, in so few lines that a thousand tenants are no flood."""

from __future__ import annotations

import os
from collections import Counter
from pathlib import Path
from typing import Any

import pytest

from collector.errors import LedgerError
from collector.outcome import Reason
from collector.telemetry.books import Totals
from collector.telemetry.hec.buffer import Drop, Loss
from collector.telemetry.hec.options import Account
from collector.telemetry.metrics import Metrics
from collector.telemetry.reporter import MAX_TENANTS, OTHERS, Reporter, say_accounts
from collector.telemetry.signals import Signals
from tests.fakes import FakeClock, RecordingSignals


class Quiet:
    """A logger that keeps nothing."""

    def debug(self, event: str, **fields: object) -> None: ...

    info = warning = error = debug


class World:
    """A reporter with all that it speaks of."""

    def __init__(self, tmp_path: Path, *, every_s: float = 60.0) -> None:
        self.clock = FakeClock()
        self.counts = Metrics(worker="w1")
        # Counts as production does, and says nothing.
        self.happened = Signals(Quiet(), self.counts, clock=self.clock)  # type: ignore[arg-type]
        self.said = RecordingSignals()
        self.totals = Totals({"acme": {"accepted": 3, "delivered": 2, "pending": 1}})
        self.offloads = 0
        self.trouble: Exception | None = None
        self.reporter = self.another(tmp_path, every_s=every_s)

    def another(self, tmp_path: Path, *, every_s: float = 60.0) -> Reporter:
        return Reporter(
            every_s=every_s, lock=tmp_path / "speaker", ledger=self._ledger, signals=self.said, clock=self.clock,
            offload=self._offload,
        )  # fmt: skip

    def _ledger(self) -> Totals:
        if self.trouble is not None:
            raise self.trouble
        return self.totals

    def _offload(self, run: Any) -> Totals:
        self.offloads += 1
        return run()  # type: ignore[no-any-return]

    def report(self) -> None:
        self.said.calls.clear()
        self.reporter.report(self.counts.snapshot())


@pytest.fixture
def world(tmp_path: Path) -> World:
    return World(tmp_path)


def test_it_is_due_after_its_time_and_again_after_that(world: World) -> None:
    """A report that comes late covers what it covers, and says how many seconds that was."""
    assert not world.reporter.is_due()
    world.clock.advance(61.5)
    assert world.reporter.is_due()

    world.happened.upload_accepted("acme", "native", 2, 10)
    world.report()

    assert not world.reporter.is_due()
    assert [61.5] == [call["seconds"] for call in world.said.named("intake_report")]


def test_of_0_it_says_nothing_ever(tmp_path: Path) -> None:
    """Who has no dashboards need not pay for their lines."""
    world = World(tmp_path, every_s=0.0)
    world.clock.advance(1e6)

    assert not world.reporter.is_due()
    world.report()
    assert [] == world.said.calls


def test_what_came_from_a_tenant_is_told_since_the_last_report_over_all_protocols(world: World) -> None:
    """A sum since the start would have to be told apart from a restart by whoever draws it."""
    happened = world.happened
    happened.upload_accepted("acme", "native", 2, 100)
    world.report()
    happened.upload_accepted("acme", "native", 3, 50)
    happened.upload_accepted("acme", "clevertap", 4, 25)
    happened.upload_refused("acme", "native", Reason.OVER_QUOTA)
    happened.events_rejected("acme", "native", Reason.TOO_LARGE, 5)
    happened.events_deduplicated("acme", "native", 6)
    happened.upload_refused(None, "native", Reason.UNKNOWN_KEY)

    world.report()

    (acme,) = world.said.named("intake_report")
    del acme["seconds"]
    assert {
        "tenant_id": "acme", "uploads": 2, "events": 7, "bytes": 75, "refused": 1, "rejected": 5, "deduplicated": 6,
    } == acme  # fmt: skip


def test_a_tenant_that_sent_nothing_has_no_line(world: World) -> None:
    """
    Ten thousand that sleep are ten thousand lines a minute; that one is silent is seen by its line that "
    "is missing.
    """
    world.happened.upload_accepted("acme", "native", 1, 10)
    world.report()
    world.report()

    assert [] == world.said.named("intake_report")


def test_the_tenants_with_the_most_events_have_lines_and_all_others_one(world: World) -> None:
    """Their sum is what came, whatever their number."""
    sent = {f"tenant-{n:03}": n + 1 for n in range(MAX_TENANTS + 20)}
    for tenant_id, events in sent.items():
        world.happened.upload_accepted(tenant_id, "native", events, 10)

    world.report()

    told = Counter({call["tenant_id"]: call["events"] for call in world.said.named("intake_report")})
    assert MAX_TENANTS + 1 == len(told)
    assert sum(sent.values()) == sum(told.values())
    assert sum(range(1, 21)) == told[OTHERS]
    assert all(told[tenant_id] == events for tenant_id, events in sent.items() if events > 20)


def test_a_route_is_told_with_what_went_and_what_did_not(world: World) -> None:
    """A sink that fails is seen beside one that does not."""
    happened = world.happened
    happened.batch_delivered("default", 10, 1000, 0.1)
    happened.batch_failed("default", "503", 1, 0.5)
    happened.batch_throttled("default")
    happened.batch_in_doubt("default", 4)
    world.counts.set("collector_route_concurrency", 3, ("default",))

    world.report()

    (told,) = world.said.named("route_report")
    del told["seconds"]
    assert {
        "route": "default", "batches": 1, "events": 10, "bytes": 1000, "failures": 1, "throttled": 1, "in_doubt": 4,
        "width": 3,
    } == told  # fmt: skip


def test_a_worker_is_told_as_its_gauges_stand(world: World) -> None:
    """Spool and memory are what an operator looks at first."""
    for name, value in {
        "collector_connections": 12, "collector_lag_seconds": 0.25, "collector_worker_resident_memory_bytes": 60,
        "collector_memory_used_bytes": 5, "collector_memory_limit_bytes": 6, "collector_spool_bytes": 7,
        "collector_spool_budget_bytes": 8, "collector_spool_refusing": 1,
    }.items():  # fmt: skip
        world.counts.set(name, value)

    world.report()

    assert [
        {
            "connections": 12, "lag_s": 0.25, "resident_bytes": 60, "memory_used_bytes": 5, "memory_limit_bytes": 6,
            "spool_bytes": 7, "spool_budget_bytes": 8, "spool_refusing": True,
        }
    ] == world.said.named("worker_report")  # fmt: skip


def test_one_worker_of_a_task_says_what_its_ledger_says_and_another_when_that_is_gone(
    world: World, tmp_path: Path
) -> None:
    """Told by each, the task's numbers would be counted as often as it has workers."""
    other = world.another(tmp_path)
    world.report()
    assert 1 == world.offloads
    assert [3] == [call["accepted"] for call in world.said.named("ledger_report")]
    assert [True] == [call["balanced"] for call in world.said.named("ledger_report")]

    other.report(world.counts.snapshot())
    assert 1 == len(world.said.named("ledger_report"))

    world.reporter.close()
    world.reporter.close()
    other.report(world.counts.snapshot())
    assert 2 == len(world.said.named("ledger_report"))
    other.close()


@pytest.mark.parametrize("trouble", [LedgerError("it moves"), OSError("gone")])
def test_a_ledger_that_can_not_be_read_is_told_the_next_time(world: World, trouble: Exception) -> None:
    """The books of a worker that dies are on the move for a moment."""
    world.trouble = trouble
    world.report()
    assert [] == world.said.named("ledger_report")
    assert 1 == len(world.said.named("worker_report"))

    world.trouble = None
    world.report()
    assert 1 == len(world.said.named("ledger_report"))


def test_a_place_without_room_for_the_lock_keeps_nobody_from_the_rest(world: World, tmp_path: Path) -> None:
    """A full or read-only mount is told by its own signal."""
    world.reporter = world.another(tmp_path / "not-there")

    world.report()

    assert 1 == len(world.said.named("worker_report"))
    assert [] == world.said.named("ledger_report")


def test_no_file_stays_open_when_another_speaks(world: World, tmp_path: Path) -> None:
    """A worker asks every minute of its life."""
    world.report()
    other = world.another(tmp_path)
    other.report(world.counts.snapshot())
    before = len(os.listdir("/proc/self/fd"))

    for _ in range(5):
        other.report(world.counts.snapshot())

    assert before == len(os.listdir("/proc/self/fd"))
    world.reporter.close()


def test_accounts_are_counted_as_they_move_on(world: World) -> None:
    """A counter can't be set, and one that jumps back is taken for a restart."""
    first = Account(emitted=10, delivered=4, dropped={"full": 2}, queued=3, in_flight=1, bytes_in=100, bytes_wire=40,
                    requests=2, results={"taken": 1, "again": 1})  # fmt: skip
    later = Account(emitted=20, delivered=15, dropped={"full": 3, "rejected": 1}, queued=1, in_flight=0, bytes_in=200,
                    bytes_wire=90, requests=5, results={"taken": 4, "again": 1}, possible_duplicates=7,
                    oldest_age_s=2.5)  # fmt: skip
    losses = [Loss(Drop.FULL, 2, 5, 6)]

    say_accounts(first, None, losses, 99, signals=world.said, counts=world.counts)
    say_accounts(later, first, [], 99, signals=world.said, counts=world.counts)

    value = world.counts.value
    assert (20, 15) == (value("collector_hec_emitted_lines_total"), value("collector_hec_delivered_lines_total"))
    assert (4, 1) == tuple(value("collector_hec_requests_total", (result,)) for result in ("taken", "again"))
    assert (1, 0) == (value("collector_hec_queued_lines"), value("collector_hec_in_flight_lines"))
    assert 2.5 == value("collector_hec_oldest_age_seconds")
    assert 7 == value("collector_hec_possible_duplicate_lines_total")
    assert [
        {"reason": "full", "count": 2, "first_us": 5, "last_us": 6},
        {"reason": "full", "count": 1, "first_us": 99, "last_us": 99},
        {"reason": "rejected", "count": 1, "first_us": 99, "last_us": 99},
    ] == world.said.named("hec_dropped")
