"""
Streams and a bucket dead for long, with a rescue sink behind them: they spill, and come back by themselves.

It takes the half minute at the most after which a worker looks for what was rescued.
"""

from __future__ import annotations

from contextlib import ExitStack, closing
from pathlib import Path

import pytest

from tests.flows.outage import Device, failures, meet, metric, places, routes_toml
from tests.server import Server, wait_for
from tests.standins.sdk import ENVIRON
from tests.standins.seaweed import Seaweed

pytestmark = pytest.mark.system

SPOOL_BYTES = 8 << 20
WELL = "file"
_PATIENCE_S = 120.0


@pytest.fixture(autouse=True)
def _environment(monkeypatch: pytest.MonkeyPatch) -> None:
    for name, value in ENVIRON.items():
        monkeypatch.setenv(name, value)


@pytest.fixture(params=["file", "s3"], name="rescue")
def _rescue(request: pytest.FixtureRequest, tmp_path: Path, weed: Seaweed) -> str:
    """Name a place for what is rescued."""
    if request.param == "file":
        return f"file:{tmp_path / 'rescued'}?fsync=0"
    return f"s3://{weed.bucket().name}/rescued?endpoint=http://127.0.0.1:{weed.port}"


def is_met_again(server: Server, device: Device) -> bool:
    """Upload, and tell whether anything has gone the usual way since the outage began: before, nothing had."""
    device.send()
    return metric(server, f'collector_batches_delivered_total{{route="{device.route}"}}') > 0


def test_what_spills_while_four_sinks_are_dead_comes_home_by_itself(tmp_path: Path, weed: Seaweed, rescue: str) -> None:
    """The spool is for minutes; who has a rescue sink can sleep through the night."""
    with places(tmp_path, weed) as there, ExitStack() as stack:
        server = stack.enter_context(
            Server(
                tmp_path,
                toml=routes_toml(there),
                spool_bytes=SPOOL_BYTES,
                segment_bytes=1 << 20,
                rescue_sink=rescue,
                rescue_after_s=1,
            )
        )
        devices = {route: stack.enter_context(closing(Device(server, route))) for route in there}
        dead = sorted(there.keys() - {WELL})

        with ExitStack() as outage:
            for route in dead:
                outage.enter_context(there[route].faults[0].holds())
            while sum(device.sent_bytes for device in devices.values()) < SPOOL_BYTES / 2:
                for device in devices.values():
                    device.send()
                assert 200 == server.admin("/healthz").status
            for route in dead:
                meet(server, route, there[route].faults[0], 0)
            wait_for(lambda: 0 == server.ledger()["pending"], "all of it to be rescued or delivered")
            spilt = server.ledger()
            away = {route: len(there[route].arrived()) for route in dead}
        for route in dead:
            wait_for(lambda: is_met_again(server, devices[route]), f"a batch to try the sink of {route}, and to arrive")  # noqa: B023
        for route in dead:
            wait_for(
                lambda: {*devices[route].sent} == there[route].arrived().keys(),  # noqa: B023
                f"what was rescued of {route} to come home, after {failures(server, route)} failures",
                _PATIENCE_S,
            )
        ledger = server.settled()

        arrived = {route: place.arrived() for route, place in there.items()}
    sent = {route: len(device.sent) for route, device in devices.items()}
    assert {200} == {status for device in devices.values() for status in device.statuses}
    assert dict.fromkeys(dead, 0) == away
    assert {"balanced": True, "delivered": sent[WELL]}.items() <= spilt.items()
    assert spilt["accepted"] == spilt["delivered"] + spilt["rescued"]
    assert sent == {route: found.total() for route, found in arrived.items()}
    assert {route: {*device.sent} for route, device in devices.items()} == {
        route: {*found} for route, found in arrived.items()
    }
    assert {"balanced": True, "accepted": sum(sent.values()), "pending": 0}.items() <= ledger.items()
    assert ledger["accepted"] == ledger["delivered"] + ledger["rescued"]
