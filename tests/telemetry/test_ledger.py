"""The books: a receipt that does not add up is refused, and what is settled stays settled."""

from __future__ import annotations

import errno
import os
import struct
import tempfile
from pathlib import Path

import msgspec
import pytest
from hypothesis import given
from hypothesis import strategies as st

from collector.errors import LedgerError
from collector.event import Batch, Span
from collector.outcome import Outcome, Reason, Receipt
from collector.telemetry import counters
from collector.telemetry.books import Books
from collector.telemetry.journal import Journal, Settlement, read
from collector.telemetry.ledger import Ledger, Verdicts
from tests.fakes import HOUR, RecordingSignals, batch


def ledger(folder: Path, signals: RecordingSignals | None = None) -> Ledger:
    one = Ledger(folder, signals or RecordingSignals())
    one.start()
    return one


def accepted(one: Ledger, events: int, tenant: str = "dev") -> None:
    one.accept(one.account(tenant), events)


def settle(one: Ledger, whole: Batch, receipt: Receipt) -> Verdicts:
    verdicts = Verdicts(whole, receipt)
    one.settle(whole.segment, [verdicts])
    return verdicts


LINES = [b"%d" % n for n in range(5)]


@pytest.mark.parametrize(
    "receipt",
    [
        Receipt(4),
        Receipt(6),
        Receipt(5, retryable=(1,)),
        Receipt(3, retryable=(1, 1)),
        Receipt(3, retryable=(1,), rejected=((1, Reason.SINK_INVALID),)),
    ],
)
def test_a_receipt_that_does_not_add_up_is_refused_and_settles_nothing(root: Path, receipt: Receipt) -> None:
    """A sink that forgets an event must not make the ledger forget it."""
    one = ledger(root)
    accepted(one, 5)
    with pytest.raises(LedgerError):
        settle(one, batch(*LINES), receipt)

    assert 5 == one.totals()["pending"]


def test_each_event_of_a_receipt_gets_its_own_fate(root: Path) -> None:
    """Delivered, to be tried again, and refused for good can all be in one answer of a stream."""
    signals = RecordingSignals()
    one = ledger(root, signals)
    accepted(one, 5)
    verdicts = settle(one, batch(*LINES), Receipt(3, retryable=(1,), rejected=((3, Reason.SINK_INVALID),)))
    totals = one.totals()

    assert [(Span("dev", HOUR, 0, 1), {}), (Span("dev", HOUR, 2, 5), {3: Reason.SINK_INVALID})] == verdicts.settled
    assert (3, 1, 1) == (totals["delivered"], totals["rejected_by_sink"], totals["pending"])
    assert [(Outcome.REJECTED_BY_SINK, Reason.SINK_INVALID, 1)] == [
        (lost["outcome"], lost["reason"], lost["count"]) for lost in signals.named("events_lost")
    ]


@given(
    lengths=st.lists(st.integers(1, 6), min_size=1, max_size=4),
    fates=st.lists(st.sampled_from("drx"), min_size=24, max_size=24),
)
def test_settled_and_retryable_events_are_the_batch(lengths: list[int], fates: list[str]) -> None:
    """Whatever a sink answers, no event is in both and none is in neither."""
    spans = tuple(Span(f"t{n}", HOUR, 10, 10 + length) for n, length in enumerate(lengths))
    whole = [(span.tenant_id, number) for span in spans for number in range(span.first, span.last)]
    mixed = Batch(name="b", segment="s", spans=spans, pieces=(b"\n" * len(whole),))
    told = list(enumerate(fates[: len(whole)]))
    receipt = Receipt(
        sum(fate == "d" for _, fate in told),
        retryable=tuple(n for n, fate in told if fate == "r"),
        rejected=tuple((n, Reason.SINK_INVALID) for n, fate in told if fate == "x"),
    )
    with tempfile.TemporaryDirectory(dir="/dev/shm") as folder:
        one = ledger(Path(folder))
        for span in spans:
            accepted(one, len(span), span.tenant_id)
        verdicts = settle(one, mixed, receipt)
        totals = one.totals()
        one.close()
    settled = {(span.tenant_id, n): n in gone for span, gone in verdicts.settled for n in range(span.first, span.last)}

    assert {whole[n]: fate == "x" for n, fate in told if fate != "r"} == settled
    assert totals["accepted"] == sum(count for name, count in totals.items() if name != "accepted")


def test_a_settlement_that_can_not_be_written_settles_nothing(root: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """What the journal does not hold is forgotten by a death, and would unbalance the books."""
    one = ledger(root)
    accepted(one, 5)

    def refuse(fd: int, data: bytes, at: int) -> int:
        raise OSError(errno.EIO, "broken")

    monkeypatch.setattr(os, "pwrite", refuse)
    with pytest.raises(OSError, match="broken"):
        settle(one, batch(*LINES), Receipt(5))

    assert (5, 0) == (one.totals()["pending"], one.totals()["delivered"])


def test_books_that_are_opened_again_are_as_they_were(root: Path) -> None:
    """An adopter goes on where the dead writer stopped."""
    one = ledger(root)
    accepted(one, 5)
    accepted(one, 2, "other")
    settle(one, batch(*LINES), Receipt(4, retryable=(2,)))
    before = one.totals()
    one.close()
    again = ledger(root)

    assert before == again.totals()
    assert [Span("dev", HOUR, 0, 2), Span("dev", HOUR, 3, 5)] == again.settled_spans("w1-00000001")


def test_a_torn_line_ends_the_journal_and_the_next_one_takes_its_place(root: Path) -> None:
    """A writer may die in the middle of a line: what it says did not happen."""
    journal = Journal(root / "journal")
    journal.start()
    journal.write(Settlement({"dev": {"delivered": 1}}))
    _, good = read(root / "journal")
    journal.write(Settlement({"dev": {"delivered": 10}}, "segment", (Span("dev", HOUR, 0, 10),)))
    _, end = read(root / "journal")
    data = bytearray((root / "journal").read_bytes())
    journal.close()
    for cut in (good + 1, good + 20, end - 1):
        (root / "journal").write_bytes(data[:cut].ljust(len(data), b"\0"))
        torn = Journal(root / "journal")
        torn.start()
        assert {"dev": {"delivered": 1}} == torn.state.fates
        torn.write(Settlement({"dev": {"delivered": 2}}))
        torn.close()

        assert {"dev": {"delivered": 3}} == read(root / "journal")[0].fates


def test_a_journal_stays_small_and_says_the_same(root: Path) -> None:
    """It is on tmpfs and lives as long as its worker."""
    journal = Journal(root / "journal")
    journal.start()
    for n in range(5_000):
        journal.write(Settlement({"dev": {"delivered": 1}}, f"s{n:08d}", (Span("dev", HOUR, 0, 1),)))
        journal.forget(f"s{n - 1:08d}")
    journal.close()

    assert {"dev": {"delivered": 5_000}} == read(root / "journal")[0].fates
    assert (root / "journal").stat().st_size < 400_000


def test_settling_works_while_the_file_system_is_full(root: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Only settling makes room again."""
    one = ledger(root)
    accepted(one, 5)

    def full(*_: object) -> None:
        raise OSError(errno.ENOSPC, "full")

    monkeypatch.setattr(os, "posix_fallocate", full)
    settle(one, batch(*LINES), Receipt(5))

    assert 5 == one.totals()["delivered"]


def test_counters_are_read_while_they_are_written(root: Path) -> None:
    """Anybody may ask at any moment, and a row is never half old and half new."""
    file = counters.CounterFile(root / "counters")
    file.start()
    row = file.row("dev")
    pid = os.fork()
    if not pid:
        for n in range(20_000):
            file.write(row, [2 * n, n, n, *[0] * (len(counters.COLUMNS) - 3)])
            # An append comes between two writes, and leaves readers room: some 20 µs, less than any real one.
            sum(range(1_000))
        os._exit(0)
    seen = set()
    while not os.waitpid(pid, os.WNOHANG)[0]:
        shown = counters.read(root / "counters")["dev"]
        seen.add(shown["accepted"])
        assert shown["accepted"] == shown["pending"] + shown["delivered"]

    assert len(seen) > 1


@pytest.mark.parametrize(
    ("seq", "reads"),
    [
        (3, 2),  # its writer was at work, and stood still there for both looks at the file
        (2, 1),  # its writer began after the first look had passed the number, and went on
    ],
)
def test_a_row_that_was_caught_half_written_is_read_again(
    root: Path, monkeypatch: pytest.MonkeyPatch, seq: int, reads: int
) -> None:
    """However rarely that is, a ledger with it would not balance, and somebody is woken up."""
    file = counters.CounterFile(root / "counters")
    file.start()
    row = file.row("dev")
    whole = [8, 3, 5, *[0] * (len(counters.COLUMNS) - 3)]
    file.write(row, [0] * len(whole))
    file.write(row, whole)
    file.close()
    pread, looks = os.pread, 0

    def torn(fd: int, size: int, at: int) -> bytes:
        nonlocal looks
        looks += 1
        cells = bytearray(pread(fd, size, at))
        if looks <= reads:
            # The row's number, and `accepted` as it was before: the first row lies behind the header and its name.
            cells[4096 + 64 : 4096 + 80] = struct.pack("=2Q", seq, 0)
        return bytes(cells)

    monkeypatch.setattr(os, "pread", torn)

    assert (8, 3, 5) == tuple(counters.read(root / "counters")["dev"].values())[:3]
    assert looks > reads


def test_counters_of_another_version_are_read_by_their_names(root: Path) -> None:
    """A deploy reads what the code before it left behind."""
    file = counters.CounterFile(root / "counters")
    file.start()
    file.write(file.row("dev"), list(range(100, 100 + len(counters.COLUMNS))))
    file.close()
    data = (root / "counters").read_bytes()
    first, second = counters.COLUMNS[:2]
    swapped = data.replace(f'"{first}","{second}"'.encode(), f'"{second}","{first}"'.encode(), 1)
    assert swapped != data
    (root / "counters").write_bytes(swapped)

    assert 101 == counters.read(root / "counters")["dev"][first]


def test_counters_of_another_version_are_written_on_with_the_columns_of_this_one(root: Path) -> None:
    """An adopter writes in a dead writer's file: each number must stay under its name, and new ones find a place."""
    old = [column for column in counters.COLUMNS if column != "deduplicated"]
    old[-1], old[-2] = old[-2], old[-1]
    file = counters.CounterFile(root / "counters")
    file.start()
    for n in range(20):
        file.write(file.row(f"t{n}"), [n + 100 * k for k in range(len(old))])
    file.close()
    data = (root / "counters").read_bytes()
    head = b'{"columns":%s}' % msgspec.json.encode(old)
    (root / "counters").write_bytes(head.ljust(4095) + b"\n" + data[4096:])
    before = counters.read(root / "counters")
    again = counters.CounterFile(root / "counters")
    again.start()

    assert "deduplicated" not in before["t7"]
    assert {name: {**row, "deduplicated": 0} for name, row in before.items()} == counters.read(root / "counters")
    again.write(again.row("t7"), list(range(len(counters.COLUMNS))))
    assert (
        dict(zip(counters.COLUMNS, range(len(counters.COLUMNS)), strict=True)) == counters.read(root / "counters")["t7"]
    )
    assert [root / "counters"] == list(root.iterdir())


def test_copies_are_counted_beside_what_was_kept_and_stand_on_both_sides(root: Path) -> None:
    """The frames know nothing of them: adoption must neither lose them nor hold them against the segments."""
    directory = root / "owners" / "w1"
    directory.mkdir(parents=True)
    one = ledger(directory)
    accepted(one, 5)
    one.deduplicate(one.account("dev"), 3)
    one.deduplicate(one.account("other"), 2)
    settle(one, batch(*LINES), Receipt(5))
    one.close()
    signals = RecordingSignals()
    adopter = ledger(directory, signals)
    adopter.recount(seen={"dev": 5}, pending={}, damaged=False)
    books = Books(root)
    living = books.totals()
    own = adopter.totals()
    adopter.close()
    books.retire(directory)

    assert {"accepted": 10, "deduplicated": 5, "delivered": 5} == {name: n for name, n in own.items() if n}
    assert (8, 5, 3) == tuple(living.tenants["dev"][name] for name in ("accepted", "delivered", "deduplicated"))
    assert 2 == living.tenants["other"]["accepted"] == living.tenants["other"]["deduplicated"]
    assert living.balanced
    assert living.tenants == books.totals().tenants
    assert [] == signals.calls


def test_the_counters_grow_with_the_tenants(root: Path) -> None:
    """Ten thousand tenants have a row each, and those who were there keep theirs."""
    file = counters.CounterFile(root / "counters")
    file.start()
    for n in range(2_000):
        file.add(file.row(f"tenant-{n}"), n, 0)
    shown = counters.read(root / "counters")

    assert {f"tenant-{n}": n for n in range(2_000)} == {name: row["accepted"] for name, row in shown.items()}


@pytest.mark.parametrize("step", ["Path.rename", "shutil.rmtree"])
def test_retirement_counts_a_directory_once_wherever_it_is_cut_off(
    root: Path, step: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The sums are written before the directory goes: between the two it is in both places, and counts once."""
    directory = root / "owners" / "w1"
    directory.mkdir(parents=True)
    one = ledger(directory)
    accepted(one, 5)
    settle(one, batch(*LINES), Receipt(5))
    one.close()
    books = Books(root)
    before = books.totals()

    def killed(*_: object, **__: object) -> None:
        raise KeyboardInterrupt

    with monkeypatch.context() as patched:
        patched.setattr(f"collector.telemetry.books.{step}", killed)
        with pytest.raises(KeyboardInterrupt):
            books.retire(directory)
    between = books.totals()
    assert (step == "shutil.rmtree") == (not directory.exists()), "seen as it was, or not at all: never half removed"
    if directory.exists():
        books.retire(directory)

    assert directory.parent.exists()
    assert not directory.exists()
    assert before.total == between.total == books.totals().total
    assert 5 == before.total["delivered"]
