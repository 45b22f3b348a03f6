"""The notes on rescued batches: whoever comes second moves the events, once, and nobody moves what is not ours."""

from __future__ import annotations

import fcntl
import os
import struct
from pathlib import Path
from types import SimpleNamespace

import pytest

from collector.buffer.room import Bounds
from collector.buffer.spool import Spool
from collector.event import Batch
from collector.outcome import RESCUED, Reason, Receipt
from collector.telemetry import counters, homecoming
from collector.telemetry.books import Books
from collector.telemetry.homecoming import Homecoming
from collector.telemetry.ledger import Ledger, Verdicts
from tests.fakes import FakeClock, RecordingSignals, batch

OWNER = "0001767323045678901-17-abcdefgh"
BATCH = f"{OWNER}-00000001-0000aaaa-00000000-00000005"
OTHER = f"{OWNER}-00000001-0000aaaa-00000005-00000009"
INVALID = f"rejected_by_sink:{Reason.SINK_INVALID}"


@pytest.fixture(name="notes")
def _notes(root: Path) -> Homecoming:
    (root / "owners" / OWNER).mkdir(parents=True)
    one = Homecoming(root)
    one.start()
    return one


def kept(root: Path) -> list[str]:
    return [path.name for path in (root / "rescued").iterdir()]


def test_a_batch_that_was_rescued_and_sent_on_moves_once(root: Path, notes: Homecoming) -> None:
    """A copy that a late write left, or a second replay, must not count its events twice."""
    other = Homecoming(root)
    assert {} == notes.rescued({BATCH: 5, OTHER: 4})

    assert {"delivered": 5} == other.sent(BATCH, {"delivered": 5})
    assert {} == other.sent(BATCH, {"delivered": 5})
    assert {} == notes.sent(BATCH, {"delivered": 5})
    assert {"delivered": 3, INVALID: 1} == notes.sent(OTHER, {"delivered": 3, INVALID: 1})


def test_whoever_comes_second_moves_it(root: Path, notes: Homecoming) -> None:
    """A batch lies in the rescue sink a moment before its worker has settled it, and another may be faster."""
    assert {} == Homecoming(root).sent(BATCH, {"delivered": 4, INVALID: 1})

    assert {BATCH: {"delivered": 4, INVALID: 1}} == notes.rescued({BATCH: 5})


def test_parts_move_as_they_are_sent_on(notes: Homecoming) -> None:
    """A stream takes a part of a batch; the rest is still rescued."""
    notes.rescued({BATCH: 5})

    assert {"delivered": 2} == notes.sent(BATCH, {"delivered": 2})
    assert {INVALID: 1} == notes.sent(BATCH, {INVALID: 1})
    assert {"delivered": 2} == notes.sent(BATCH, {"delivered": 3})


def test_no_more_moves_than_was_rescued(notes: Homecoming) -> None:
    """A batch whose first answer was lost may hold lines that its own sink took before it was rescued."""
    notes.rescued({BATCH: 3})

    assert {"delivered": 2, INVALID: 1} == notes.sent(BATCH, {"delivered": 4, INVALID: 1})


@pytest.mark.parametrize(
    "name", ["w1-00000001", f"another-{BATCH}", "another-00000001-0000aaaa-00000000-00000005", f"../{BATCH}"]
)
def test_a_batch_of_another_spool_is_not_ours_to_move(root: Path, notes: Homecoming, name: str) -> None:
    """Tasks share a rescue sink, and each has its own ledger."""
    assert {} == notes.sent(name, {"delivered": 5})

    assert [] == kept(root)


def test_nothing_is_noted_before_somebody_sends_on(root: Path) -> None:
    """What goes to a rescue sink that nobody can read back is rescued for good, and notes on it are in the way."""
    (root / "owners" / OWNER).mkdir(parents=True)
    Homecoming(root).rescued({BATCH: 5})

    assert ["owners"] == [path.name for path in root.iterdir()]


def test_notes_go_when_nobody_waits_for_them(root: Path, notes: Homecoming) -> None:
    """A spool lives for months."""
    notes.rescued({BATCH: 5})
    notes.sent(BATCH, {"delivered": 4})
    assert [OWNER] == kept(root)
    notes.sent(BATCH, {"delivered": 1})
    assert [] == kept(root)
    notes.sent(BATCH, {"delivered": 5})
    # Its owner may be about to settle it.
    assert [OWNER] == kept(root)
    (root / "owners" / OWNER).rmdir()
    notes.sent(OTHER, {"delivered": 1})
    assert [] == kept(root)
    notes.sent(OTHER, {"delivered": 1})
    assert [] == kept(root)


def test_notes_outlive_the_books_of_their_owner(root: Path, notes: Homecoming) -> None:
    """A worker that ends folds its books; what it rescued comes home to the next one."""
    notes.rescued({BATCH: 5})
    (root / "owners" / OWNER).rmdir()

    assert {"delivered": 5} == Homecoming(root).sent(BATCH, {"delivered": 5})
    assert [] == kept(root)


@pytest.mark.parametrize("lost", [1, 2, 3, 4, 6, 10, 20, 40, 60])
def test_a_line_that_its_writer_did_not_live_to_finish_counts_for_nothing(
    root: Path, notes: Homecoming, lost: int
) -> None:
    """A half of a number is a number, too."""
    notes.rescued({OTHER: 4})
    size = (root / "rescued" / OWNER).stat().st_size
    notes.rescued({BATCH: 500})
    whole = (root / "rescued" / OWNER).stat().st_size
    os.truncate(root / "rescued" / OWNER, max(size, whole - lost))

    late = Homecoming(root)
    is_whole = lost == 1
    assert ({"delivered": 500} if is_whole else {}) == late.sent(BATCH, {"delivered": 500})
    assert {"delivered": 4} == late.sent(OTHER, {"delivered": 4})


def test_a_line_after_one_that_is_not_whole_is_read_by_all(root: Path, notes: Homecoming) -> None:
    """Else what was noted after a death would be known to its writer alone."""
    notes.rescued({OTHER: 4})
    with (root / "rescued" / OWNER).open("ab") as file:
        file.write(b"\nrescued 00000001-0000aaaa")
    notes.rescued({BATCH: 5})

    assert {"delivered": 5} == Homecoming(root).sent(BATCH, {"delivered": 5})


def test_notes_that_are_removed_while_they_are_opened_are_opened_anew(
    root: Path, notes: Homecoming, monkeypatch: pytest.MonkeyPatch
) -> None:
    """What is written into a file without a name nobody reads."""
    notes.rescued({BATCH: 5})
    other, lock = Homecoming(root), homecoming._lock

    def late(fd: int) -> None:
        monkeypatch.setattr(homecoming, "_lock", lock)
        assert {"delivered": 5} == other.sent(BATCH, {"delivered": 5})
        lock(fd)

    monkeypatch.setattr(homecoming, "_lock", late)
    notes.rescued({OTHER: 4})

    assert {"delivered": 4} == other.sent(OTHER, {"delivered": 4})


def test_notes_are_bounded_and_what_is_sent_on_still_finds_room(
    root: Path, notes: Homecoming, monkeypatch: pytest.MonkeyPatch
) -> None:
    """An outage of days must not fill the spool with what is only for the books."""
    monkeypatch.setattr(homecoming, "MOST_BYTES", 1000)
    names = [f"{OWNER}-00000001-0000aaaa-{n:08d}-{n + 1:08d}" for n in range(100)]
    for name in names:
        notes.rescued({name: 1})
    assert 900 < (root / "rescued" / OWNER).stat().st_size <= 1000
    moved = [name for name in names if notes.sent(name, {"delivered": 1})]
    assert 15 < len(moved) < 20
    # They are in the way of nobody who comes later.
    later = OWNER.replace("0001", "0002", 1)
    (root / "owners" / later).mkdir()
    assert {} == notes.rescued({BATCH.replace("0001", "0002", 1): 5})
    assert later in kept(root)
    assert {"delivered": 5} == notes.sent(BATCH.replace("0001", "0002", 1), {"delivered": 5})


def test_a_holder_that_is_stopped_holds_nobody_up_for_ever(
    root: Path, notes: Homecoming, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The ledger then says rescued of what came home, and the worker goes on."""
    rested: list[float] = []
    # A wait of gevent's would make a hub, and other tests of the same process have none.
    event = SimpleNamespace(wait=rested.append)
    monkeypatch.setattr(homecoming, "threading", SimpleNamespace(Event=lambda: event))
    monkeypatch.setattr(homecoming, "_LOOKS", 3)
    notes.rescued({BATCH: 5})
    stopped = os.open(root / "rescued" / OWNER, os.O_RDWR)
    fcntl.flock(stopped, fcntl.LOCK_EX)
    assert {} == notes.sent(BATCH, {"delivered": 5})
    os.close(stopped)

    assert 2 == len(rested)
    assert {"delivered": 5} == notes.sent(BATCH, {"delivered": 5})


# -- in the books --------------------------------------------------------------------------------------------


def books_of(root: Path, owner: str) -> Ledger:
    directory = root / "owners" / owner
    directory.mkdir(parents=True, exist_ok=True)
    one = Ledger(directory, RecordingSignals())
    one.start()
    return one


def rescue(one: Ledger, whole: Batch) -> None:
    one.accept(one.account("dev"), len(whole))
    verdicts = [Verdicts(whole, Receipt(len(whole)))]
    one.settle(whole.segment, verdicts, arrived=RESCUED)
    one.follow(verdicts)


LINES = [b"%d" % n for n in range(5)]


def test_what_one_worker_rescued_and_another_sent_on_is_moved_in_the_books_of_the_task(root: Path) -> None:
    """The other's own go below 0 by it, and the sum over all does not, also when they are folded."""
    Homecoming(root).start()
    one, other = books_of(root, OWNER), books_of(root, "w2")
    books = Books(root)
    rescue(one, batch(*LINES, name=BATCH))
    assert {"accepted": 5, "rescued": 5} == {name: n for name, n in books.totals().total.items() if n}

    other.sent_on(BATCH, "dev", {"delivered": 3, INVALID: 2})
    other.sent_on(BATCH, "dev", {"delivered": 5})

    assert -5 == counters.read(root / "owners/w2/counters")["dev"]["rescued"] == other.totals()["rescued"]
    expected = {"accepted": 5, "delivered": 3, INVALID: 2}
    assert expected == {name: n for name, n in books.totals().total.items() if n}
    for ledger in (one, other):
        ledger.audit({})
        ledger.close()
    for owner in ("w2", OWNER):
        books.retire(root / "owners" / owner)
        totals = books.totals()
        assert totals.balanced
        assert expected == {name: n for name, n in totals.total.items() if n}


def test_a_worker_says_of_itself_what_its_own_books_say(root: Path, clock: FakeClock) -> None:
    """The lines of all workers add up to the task's, so one of them may stand below 0."""
    bounds = Bounds(task_bytes=1 << 30, worker_bytes=1 << 30, segment_bytes=1 << 20)
    spool = Spool(root, "w2", bounds, clock=clock, signals=RecordingSignals())
    spool.start()
    Homecoming(root).start()
    rescue(books_of(root, OWNER), batch(*LINES, name=BATCH))
    spool.mine().ledger.sent_on(BATCH, "dev", {"delivered": 5})

    assert (-5, 5, 0) == tuple(spool.totals()[name] for name in ("rescued", "delivered", "accepted"))
    spool.close()


def test_books_below_0_are_opened_again_as_they_were(root: Path) -> None:
    """Whoever adopts them goes on from there."""
    Homecoming(root).start()
    one, other = books_of(root, OWNER), books_of(root, "w2")
    rescue(one, batch(*LINES, name=BATCH))
    other.sent_on(BATCH, "dev", {"delivered": 5})
    other.close()
    again = books_of(root, "w2")
    again.recount(seen={}, pending={}, damaged=False)

    assert (-5, 5, 0) == tuple(again.totals()[name] for name in ("rescued", "delivered", "pending"))
    assert {"accepted": 5, "delivered": 5} == {name: n for name, n in Books(root).totals().total.items() if n}


def test_counters_of_the_version_before_are_read_as_they_are(root: Path) -> None:
    """It knew no number below 0, and wrote all others the same."""
    file = counters.CounterFile(root / "counters")
    file.start()
    file.write(file.row("dev"), [2**40 + n for n in range(len(counters.COLUMNS))])
    file.close()
    data = (root / "counters").read_bytes()

    assert struct.unpack_from("=2Q", data, 4096 + 64 + 8) == (2**40, 2**40 + 1)
    assert 2**40 + 1 == counters.read(root / "counters")["dev"]["pending"]
