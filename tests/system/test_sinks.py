"""The contract of sinks, and an outage, before what needs more than Python packages: `kinesis:` on kinesalite."""

from __future__ import annotations

import inspect
from collections.abc import Callable, Iterator
from contextlib import AbstractContextManager, closing, contextmanager
from functools import partial
from pathlib import Path

import pytest

from tests.contracts import test_sink as contract
from tests.contracts.cases import Case, sdk_environment, stream_case
from tests.flows.outage import Device, failures, in_doubt, routes_toml, through
from tests.server import Server, wait_for
from tests.standins.kinesalite import Kinesalite, kinesalite, missing
from tests.standins.relay import Relay, Way

pytestmark = [pytest.mark.system, pytest.mark.skipif(bool(missing()), reason=missing())]

CASES: dict[str, Callable[[Kinesalite], Iterator[Case]]] = {
    "kinesis": stream_case,
    "kinesis, each event a record": partial(stream_case, options="&aggregate_kib=0"),
}
OUTAGES: dict[str, Callable[[Kinesalite, Relay], AbstractContextManager[None]]] = {
    "its line is dead": lambda _, relay: relay.goes(Way.REFUSED),
    "it stands still": lambda aws, _: aws.stopped(),
}
UPLOADS = 20

# What is there for every sink, for those of this module's `case`.
globals().update({
    name: test
    for name, test in vars(contract).items()
    if name.startswith("test_") and "case" in inspect.signature(test).parameters
})  # fmt: skip
sink = contract.sink


@pytest.fixture(scope="module", name="aws")
def _aws(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Kinesalite]:
    with kinesalite(tmp_path_factory.mktemp("kinesalite")) as running:
        yield running


@pytest.fixture(params=list(CASES), name="case")
def _case(request: pytest.FixtureRequest, aws: Kinesalite) -> Iterator[Case]:
    with contextmanager(CASES[request.param])(aws) as made:
        yield made
        made.sink.close()


@pytest.mark.parametrize("outage", OUTAGES)
def test_a_stream_that_was_away_gets_all_that_waited(aws: Kinesalite, tmp_path: Path, outage: str) -> None:
    """Uploads go on; what is there twice was in doubt, for a server may do what nobody waits for any more."""
    stream = aws.stream()

    def lines() -> list[bytes]:
        return [line for record in stream.records() for line in record.data.splitlines()]

    with Relay(aws.port) as relay, sdk_environment():
        place = through(relay, f"kinesis://{stream.name}", lines)
        with (
            Server(tmp_path, toml=routes_toml({"kinesis": place})) as server,
            closing(Device(server, "kinesis")) as device,
        ):
            device.send()
            server.settled()
            with OUTAGES[outage](aws, relay):
                for _ in range(UPLOADS):
                    device.send()
                    assert 200 == server.admin("/healthz").status
                wait_for(lambda: failures(server, "kinesis"), "a batch to fail")
            ledger = server.settled()
            doubts = in_doubt(server, "kinesis")

        arrived = place.arrived()
    assert {200: UPLOADS + 1} == device.statuses
    assert {*device.sent} == arrived.keys()
    assert arrived.total() - len(arrived) <= doubts
    assert {"balanced": True, "accepted": len(device.sent), "delivered": len(device.sent)}.items() <= ledger.items()
