"""The books of a measurement: a benchmark that loses events is no result."""

from __future__ import annotations

from collections import Counter
from pathlib import Path

import pytest
import zstandard
from msgspec.structs import replace

from bench.account import Ledger, Stock, await_delivery, settle, take_stock

EMPTY = Ledger(balanced=True, accepted=100, delivered=100, pending=0)
AFTER = Ledger(balanced=True, accepted=106, delivered=106, pending=0)
LINES = Counter({b"a": 3, b"b": 3})


def test_two_uploads_that_arrived_whole_are_no_problem() -> None:
    """A check that cries at everything is switched off."""
    account = settle(EMPTY, AFTER, LINES, uploads=2, events=3)

    assert [] == account.problems
    assert (6, 6, 6, 6) == (account.acknowledged, account.accepted, account.delivered, account.stored)


@pytest.mark.parametrize(
    ("after", "lines", "uploads", "words"),
    [
        (AFTER, Counter({b"a": 3, b"b": 2}), 2, "the sink holds 5"),
        (AFTER, Counter({b"a": 3, b"b": 4}), 2, "the sink holds 7"),
        (
            AFTER,
            Counter({b"a": 2, b"b": 4}),
            2,
            "2 uploads are in the sink with events missing or twice",
        ),  # 6 are there
        (AFTER, Counter({b"a": 6}), 2, "the sink has 1"),  # an upload came twice, and another not at all
        (AFTER, LINES, 3, "9 events were acknowledged, and the ledger accepted 6"),
        (AFTER, LINES, 1, "3 events were acknowledged, and the ledger accepted 6"),
        (replace(AFTER, balanced=False), LINES, 2, "does not balance"),
        (replace(AFTER, delivered=105), LINES, 2, "of 6 accepted events 5 were delivered, 0 pend"),  # one is nowhere
        (replace(AFTER, delivered=105, pending=1), LINES, 2, "1 events are still pending"),
    ],
)
def test_each_way_to_lose_or_double_an_event_is_told(
    after: Ledger, lines: Counter[bytes], uploads: int, words: str
) -> None:
    """The three witnesses can only agree if each of them is asked."""
    assert words in "; ".join(settle(EMPTY, after, lines, uploads=uploads, events=3).problems)


def test_the_stock_is_the_lines_of_all_files_by_upload(tmp_path: Path) -> None:
    """The next measurement begins with an empty sink, or it would count these lines again."""
    hour = tmp_path / "tenant=bench" / "date=2026-01-01" / "hour=00"
    hour.mkdir(parents=True)
    for n, receipts in enumerate(["aab", "bc"]):
        text = "".join(f'{{"id":"x","receipt":"{receipt}","event":{{}}}}\n' for receipt in receipts)
        (hour / f"{n}.ndjson.zst").write_bytes(zstandard.compress(text.encode()))

    assert Counter({b"a": 2, b"b": 2, b"c": 1}) == take_stock(tmp_path)
    assert Counter() == take_stock(tmp_path)


def test_a_stock_taken_in_parts_is_the_stock(tmp_path: Path) -> None:
    """An upload may lie in two files, and the second come minutes after the first was cleared away."""
    stock = Stock(tmp_path, events=3)
    for n, receipts in enumerate(["aaab", "bb", "c"]):
        text = "".join(f'{{"id":"x","receipt":"{receipt}","event":{{}}}}\n' for receipt in receipts)
        (tmp_path / f"{n}.ndjson.zst").write_bytes(zstandard.compress(text.encode()))
        stock.take()
    account = stock.settle(EMPTY, AFTER, uploads=2)

    assert (7, 3, 1) == (account.stored, account.uploads_stored, account.uploads_torn)
    assert "the sink holds 7" in "; ".join(account.problems)


def test_the_wait_for_delivery_ends_with_the_last_event_or_with_patience() -> None:
    """A run must end, and say so, when the sink never takes the rest."""
    late = replace(AFTER, pending=1)
    readings = iter([late, late, AFTER])

    assert AFTER == await_delivery(lambda: next(readings), 30.0)
    assert late == await_delivery(lambda: late, 0.0)
