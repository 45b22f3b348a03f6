"""
Each sink dead for long while devices upload: no answer tells of it, no other route waits, and all of it arrives.

Half of the spool is what thirty minutes leave behind at a rate that fills half of it in thirty minutes. Here the spool
is small, and filled as fast as the door takes it.
"""

from __future__ import annotations

from contextlib import ExitStack, closing
from itertools import cycle
from pathlib import Path

import pytest

from tests.flows.outage import ROUTES, STREAMS, Device, failures, in_doubt, meet, metric, places, routes_toml
from tests.server import Server, wait_for
from tests.standins.sdk import ENVIRON
from tests.standins.seaweed import Seaweed

SPOOL_BYTES = 8 << 20
#: After so many uploads to the dead sink, one to another.
BESIDE = 10


@pytest.fixture(autouse=True)
def _environment(monkeypatch: pytest.MonkeyPatch) -> None:
    for name, value in ENVIRON.items():
        monkeypatch.setenv(name, value)


def fill(devices: dict[str, Device], dead: str, until_bytes: float, server: Server) -> None:
    """Let the devices upload until those of the dead sink have sent so much; whoever watches over it asks meanwhile."""
    others = cycle(devices.keys() - {dead})
    while devices[dead].sent_bytes < until_bytes:
        for _ in range(BESIDE):
            devices[dead].send()
        devices[next(others)].send()
        assert 200 == server.admin("/healthz").status


@pytest.mark.parametrize("dead", ROUTES)
def test_a_sink_that_is_dead_for_long_loses_nothing_and_holds_up_no_other(
    tmp_path: Path, weed: Seaweed, dead: str
) -> None:
    """Whoever is called for it comes half an hour later, and is to find a backlog, and nothing worse."""
    with places(tmp_path, weed) as there, ExitStack() as stack:
        server = stack.enter_context(
            Server(tmp_path, toml=routes_toml(there), spool_bytes=SPOOL_BYTES, segment_bytes=1 << 20)
        )
        devices = {route: stack.enter_context(closing(Device(server, route))) for route in there}
        for device in devices.values():
            device.send()
        server.settled()
        place = there[dead]

        with ExitStack() as outage:
            for number, fault in enumerate(place.faults, 1):
                before = failures(server, dead)
                outage.enter_context(fault.holds())
                fill(devices, dead, SPOOL_BYTES / 2 * number / len(place.faults), server)
                meet(server, dead, fault, before)
            for route in there.keys() - {dead}:
                wait_for(lambda: there[route].arrived().keys() >= {*devices[route].sent}, f"{route} to go on")  # noqa: B023
            waiting = len(devices[dead].sent) - len(place.arrived())
            spooled = metric(server, "collector_spool_bytes")
            for fault in place.keeps:
                outage.enter_context(fault.holds())
                meet(server, dead, fault, failures(server, dead))
        ledger = server.settled()
        doubts = {route: in_doubt(server, route) for route in there}

        arrived = {route: place.arrived() for route, place in there.items()}
    twice = {route: found.total() - len(found) for route, found in arrived.items()}
    sent = sum(len(device.sent) for device in devices.values())
    assert spooled >= SPOOL_BYTES / 2
    assert waiting > 0.9 * len(devices[dead].sent)
    assert {200} == {status for device in devices.values() for status in device.statuses}
    assert {route: {*device.sent} for route, device in devices.items()} == {
        route: {*found} for route, found in arrived.items()
    }
    assert {"balanced": True, "accepted": sent, "delivered": sent, "pending": 0}.items() <= ledger.items()
    # What was under way when the line fell silent is in doubt, too, and there once all the same.
    assert {} == {route: twice[route] for route in there if twice[route] > doubts[route]}
    assert (dead in STREAMS) == (twice[dead] > 0)
    assert 0 == sum(twice[route] for route in there if route != dead)
