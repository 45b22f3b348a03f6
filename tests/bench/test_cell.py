"""One measurement, of a real server."""

from __future__ import annotations

import pytest

from bench import proc
from bench.account import Ledger
from bench.cell import Plan, look_into_books, measure, read_ledger, room
from bench.servers import CollectorServer, collector
from bench.uploads import Case, requests


def test_the_books_say_what_the_server_answers_and_cost_it_nothing(monkeypatch: pytest.MonkeyPatch) -> None:
    """What asks the server while its CPU is counted is measured with it: with many tenants it was most of it."""
    asked: list[Ledger] = []

    def ask(server: CollectorServer) -> Ledger:
        asked.append(read_ledger(server))
        return asked[-1]

    monkeypatch.setattr("bench.cell.read_ledger", ask)
    cores, case = proc.choose_cores(), Case(5)
    with room() as folder, collector(folder / "collector", cores.server, tenants=3) as server:
        cell, traffic = measure(server, case, requests(case, tenants=3), Plan([], 0.3, 0.1, 1), cores)

        assert read_ledger(server) == look_into_books(server) == asked[-1]
    assert cell.account is not None
    assert [] == cell.account.problems
    assert 5 * traffic.acknowledged == asked[-1].delivered > 0
    # Before and after, and never in between.
    assert 2 == len(asked)
