"""
Overload: is it fair, is a refusal cheap, and does the service stay alive when five times too much comes.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence
from contextlib import ExitStack
from pathlib import Path
from time import monotonic

import msgspec

from bench import proc
from bench.account import Account, Ledger, await_delivery, settle, take_stock
from bench.arrivals import Harvest, Offer, arrive
from bench.cell import DELIVERY_PATIENCE_S, Cell, Plan, measure, read_ledger, room
from bench.probe import beside
from bench.servers import CollectorServer, collector, reference
from bench.uploads import Case, requests

CASE = Case(5)
#: How many times what the server can do.
FACTOR = 5.0
#: The most connections that the load holds: below the 2,000 that a worker takes.
CONNECTIONS = 1_500
HEALTH = "/healthz"
PROBES_PER_S = 50.0
#: A closed loop that finds out what the server can do with a connection for each upload.
_CLOSED = Offer(math.inf, CASE.connections, fresh=True)
#: A server for which any load is too much: no loop is never late by a microsecond.
_TOUCHY = {"max_lag_s": "0.000001"}


class Refusals(msgspec.Struct, frozen=True):
    """What refusals cost a server that refuses nearly everything: CPU in microseconds, without the accepted uploads."""

    harvest: Harvest
    cpu_us: float
    account: Account


class Storm(msgspec.Struct, frozen=True):
    """
    `FACTOR` times the `sustainable_per_s` at once, and what became of it and of the health check beside it.

    `refusal_cpu_us` is what is left of the worker's CPU without the accepted uploads, for each that was refused;
    `others_busy` the part of the server's core that anybody else took.
    """

    fresh: bool
    sustainable_per_s: float
    harvest: Harvest
    pulse: Harvest
    refusal_cpu_us: float
    others_busy: float
    account: Account

    @property
    def wanted_per_s(self) -> float:
        """Return the rate that was to be offered."""
        return FACTOR * self.sustainable_per_s

    @property
    def offered_per_s(self) -> float:
        """Return the rate that was sent."""
        return self.harvest.sent / self.harvest.seconds


class Overload(msgspec.Struct, frozen=True):
    """The whole run. `calm` is the health check of an idle server."""

    machine: str
    cores: proc.Cores
    plan: Plan
    reference: Cell
    collector: Cell
    calm: Harvest
    refusals: Refusals
    storms: list[Storm]

    @property
    def problems(self) -> list[str]:
        """Say which events were lost or came twice, and which answers were neither taken nor refused as promised."""
        refusals: list[tuple[str, Refusals | Storm]] = [("refusals", self.refusals)]
        refusals += [(name(storm), storm) for storm in self.storms]
        accounts = [("fairness", self.collector.account), *((what, one.account) for what, one in refusals)]
        return [
            *(f"{what}: {problem}" for what, account in accounts if account for problem in account.problems),
            *(
                f"{what}: {count} answers with {status}, which is no 503 with a Retry-After of 1 to 5 s"
                for what, one in refusals
                for status, count in one.harvest.wrong.items()
            ),
        ]


def name(storm: Storm) -> str:
    """Name a storm for a person."""
    return "a connection for each upload" if storm.fresh else "connections that stay"


def run(plan: Plan, tell: Callable[[str], None]) -> Overload:
    """Measure; `tell` hears how far it is. Of the plan, the cases and the rounds are not asked. Raises ServerError."""
    cores, uploads = proc.choose_cores(), requests(CASE)
    with room() as folder, ExitStack() as stack:
        theirs = stack.enter_context(reference(folder / "reference", cores.server))
        ours = stack.enter_context(collector(folder / "collector", cores.server))
        stack.enter_context(proc.pinned(cores.load))
        tell("fairness: the reference, then Collector")
        cell_theirs, _ = measure(theirs, CASE, uploads, plan, cores)
        cell, _ = measure(ours, CASE, uploads, plan, cores)
        tell("the health check of an idle server")
        calm = _calm(ours, plan)
        tell("what it can do with a connection for each upload")
        fresh_per_s = _sustainable(ours, uploads, plan)
        storms = []
        for fresh, per_s in ((False, cell.requests_per_s), (True, fresh_per_s)):
            tell(f"{FACTOR:g} times too much, {'a connection for each upload' if fresh else 'connections that stay'}")
            offer = Offer(FACTOR * per_s, CONNECTIONS, fresh)
            storms.append(_storm(ours, uploads, plan, offer, cores, accepted_cpu_us=cell.cpu_us))
        tell("refusals alone")
        refusals = _refusals(folder, uploads, plan, cores, accepted_cpu_us=cell.cpu_us)
    return Overload(proc.machine(), cores, plan, cell_theirs, cell, calm, refusals, storms)


def _calm(server: CollectorServer, plan: Plan) -> Harvest:
    with beside(server.admin, HEALTH, per_s=PROBES_PER_S, seconds=plan.seconds / 2) as probe:
        return probe.result()


def _sustainable(server: CollectorServer, uploads: Sequence[bytes], plan: Plan) -> float:
    before = read_ledger(server)
    harvest = arrive(
        server.address, uploads, _CLOSED, seconds=plan.seconds / 2, warm_up_s=plan.warm_up_s, expected=_expected()
    )
    _settle(server, before, harvest)
    return max(1.0, harvest.accepted / harvest.seconds)


def _storm(
    server: CollectorServer,
    uploads: Sequence[bytes],
    plan: Plan,
    offer: Offer,
    cores: proc.Cores,
    *,
    accepted_cpu_us: float,
) -> Storm:
    """Let too much come, and ask for the health meanwhile."""
    before, began = read_ledger(server), monotonic()
    cpu_s, core_s = proc.cpu_s(*server.workers), proc.core_busy_s(cores.server)
    seconds = 2 * plan.seconds
    with beside(server.admin, HEALTH, per_s=PROBES_PER_S, seconds=seconds, after_s=plan.warm_up_s) as probe:
        harvest = arrive(
            server.address, uploads, offer, seconds=seconds, warm_up_s=plan.warm_up_s, expected=_expected()
        )
        pulse = probe.result()
    others_s = proc.core_busy_s(cores.server) - core_s - (proc.cpu_s(*server.workers) - cpu_s)
    others_busy = max(0.0, others_s / (monotonic() - began))
    account = _settle(server, before, harvest)
    refusal_us = _refusal_us(server, cpu_s, harvest, accepted_cpu_us)
    return Storm(offer.fresh, offer.per_s / FACTOR, harvest, pulse, refusal_us, others_busy, account)


def _refusals(
    folder: Path, uploads: Sequence[bytes], plan: Plan, cores: proc.Cores, *, accepted_cpu_us: float
) -> Refusals:
    """Keep a server busy that refuses whatever must wait."""
    offer = Offer(math.inf, CASE.connections, fresh=False)
    with collector(folder / "touchy", cores.server, others=_TOUCHY) as server:
        before, cpu_s = read_ledger(server), proc.cpu_s(*server.workers)
        harvest = arrive(
            server.address, uploads, offer, seconds=plan.seconds, warm_up_s=plan.warm_up_s, expected=_expected()
        )
        account = _settle(server, before, harvest)
        return Refusals(harvest, _refusal_us(server, cpu_s, harvest, accepted_cpu_us), account)


def _refusal_us(server: CollectorServer, cpu_before_s: float, harvest: Harvest, accepted_cpu_us: float) -> float:
    """Share what the worker used since, less its accepted uploads, among those that it refused."""
    rest_us = (proc.cpu_s(*server.workers) - cpu_before_s) * 1e6 - harvest.acknowledged * accepted_cpu_us
    return max(0.0, rest_us) / max(1, harvest.turned_away)


def _expected() -> bytes:
    return f'"accepted":{CASE.events},"rejected":[],"ack":"{CASE.ack}"'.encode()


def _settle(server: CollectorServer, before: Ledger, harvest: Harvest) -> Account:
    """Hold what was acknowledged against the ledger and the sink; an upload without an answer may be there, or not."""
    after = await_delivery(lambda: read_ledger(server), DELIVERY_PATIENCE_S)
    unanswered = (after.accepted - before.accepted) // CASE.events - harvest.acknowledged
    uploads = harvest.acknowledged + min(max(0, unanswered), harvest.unknown)
    return settle(before, after, take_stock(server.sink), uploads=uploads, events=CASE.events)
