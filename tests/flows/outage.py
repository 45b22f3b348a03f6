"""A destination for each sink, which goes away and comes back, and the devices that upload meanwhile."""

from __future__ import annotations

import json
import random
from collections import Counter
from collections.abc import Callable, Iterator
from contextlib import AbstractContextManager, ExitStack, contextmanager
from dataclasses import dataclass, field
from functools import partial
from pathlib import Path

import zstandard

from tests.server import Server, ids, tenant, upload, wait_for
from tests.standins.engine import Engine
from tests.standins.relay import Relay, Way
from tests.standins.seaweed import Seaweed

#: Those before the engine. Of what is behind the others, `file` and `s3`, a batch is known by its name.
STREAMS = ("kinesis", "firehose", "sqs")
ROUTES = (*STREAMS, "s3", "file")
#: An upload has so many events, of so many bytes each.
_EVENTS, _EVENT_BYTES = 40, 1_000


@dataclass(frozen=True)
class Fault:
    """
    A way to be away: inside of `holds` the destination is.

    `was_met` tells that Collector has found out, from the number of its failures since then.
    """

    holds: Callable[[], AbstractContextManager[object]]
    was_met: Callable[[int], bool]


@dataclass(frozen=True)
class Place:
    """
    Where a route leads: the URL of its sink, how it goes away, one after the other, and the lines that it holds.

    In the faults of `keeps` it holds what it does not answer to, so that this comes again.
    """

    url: str
    faults: tuple[Fault, ...]
    lines: Callable[[], list[bytes]]
    keeps: tuple[Fault, ...] = ()

    def arrived(self) -> Counter[str]:
        """Count the events that are there, by their ids."""
        return Counter(json.loads(line)["id"] for line in self.lines())


def unpacked(frame: bytes) -> list[bytes]:
    """Return the lines of an object."""
    return zstandard.ZstdDecompressor().decompress(frame, allow_extra_data=False).splitlines()


def through(relay: Relay, url: str, lines: Callable[[], list[bytes]]) -> Place:
    """Give a place that is reached through a relay."""
    refused = Fault(partial(relay.goes, Way.REFUSED), bool)
    silent = Fault(partial(relay.goes, Way.SILENT), lambda _: relay.swallowed > 0)
    lost = Fault(partial(relay.goes, Way.REPLY_LOST), lambda _: relay.lost > 0)
    return Place(f"{url}?endpoint=http://127.0.0.1:{relay.port}", (refused, silent), lines, (lost,))


def _folder(folder: Path) -> Place:
    @contextmanager
    def is_a_file() -> Iterator[None]:
        """Let a file lie where the folder was, so that nothing can be made there."""
        aside = folder.with_suffix(".aside")
        folder.rename(aside)
        folder.write_bytes(b"")
        yield
        folder.unlink()
        aside.rename(folder)

    def lines() -> list[bytes]:
        return [line for path in sorted(folder.rglob("*.ndjson.zst")) for line in unpacked(path.read_bytes())]

    return Place(f"file:{folder}?fsync=0", (Fault(is_a_file, bool),), lines)


@contextmanager
def places(folder: Path, weed: Seaweed) -> Iterator[dict[str, Place]]:
    """Give a place for each of the routes, in which nothing lies yet; each goes away by itself."""
    with ExitStack() as stack:
        engine = stack.enter_context(Engine())
        bucket = weed.bucket()

        def taken(service: str) -> list[bytes]:
            found = [one.payload for one in list(engine.taken) if one.service == service]
            return [line for payload in found for line in payload.splitlines()]

        found = {
            service: through(stack.enter_context(Relay(engine.port)), f"{service}://a", partial(taken, service))
            for service in STREAMS
        }
        found["s3"] = through(
            stack.enter_context(Relay(weed.port)),
            f"s3://{bucket.name}/events",
            lambda: [line for frame in bucket.objects().values() for line in unpacked(frame)],
        )
        found["file"] = _folder(folder / "delivered")
        yield found


def routes_toml(there: dict[str, Place]) -> str:
    """Write a route to each place, and a tenant of the same name for it."""
    tables = [f"[routes.{name}]\nsink = {json.dumps(place.url)}\n" for name, place in there.items()]
    return "".join([*tables, *(tenant(name, f"{name}-key", route=name) for name in there)])


@dataclass
class Device:
    """Uploads as one tenant, and keeps what it was answered for."""

    server: Server
    route: str
    sent: list[str] = field(default_factory=list)
    sent_bytes: int = 0
    statuses: Counter[int] = field(default_factory=Counter)

    def __post_init__(self) -> None:
        self._chance = random.Random(self.route)
        self._link = self.server.link()

    def send(self) -> None:
        """Upload once."""
        first = self.statuses.total() * _EVENTS
        events = [
            {"id": f"{self.route}-{first + n}", "noise": self._chance.randbytes(_EVENT_BYTES // 2).hex()}
            for n in range(_EVENTS)
        ]
        body = json.dumps(events).encode()
        reply = self._link.send(upload(body, key=f"{self.route}-key")).must_reply()
        self.statuses[reply.status] += 1
        kept = ids(events, reply)
        self.sent += kept
        self.sent_bytes += len(body) * bool(kept)

    def close(self) -> None:
        """Hang up."""
        self._link.sock.close()


def failures(server: Server, route: str) -> int:
    """Count the failures of a route that the log tells of: a line may stand for several."""
    return sum(line.get("count", 1) for line in server.logged("batch.failed") if line["route"] == route)


def meet(server: Server, route: str, fault: Fault, before: int) -> None:
    """Wait until the sink of a route, which had failed so often before, has met a fault."""
    wait_for(lambda: fault.was_met(failures(server, route) - before), f"the sink of {route} to meet its fault")


def metric(server: Server, series: str) -> float:
    """Read a number of the metrics; 0 where there is none."""
    rows = server.admin("/metrics").body.decode().splitlines()
    return sum(float(row.rpartition(" ")[2]) for row in rows if row.rpartition(" ")[0] == series)


def in_doubt(server: Server, route: str) -> float:
    """Count the events of a route that were sent again in doubt."""
    return metric(server, f'collector_possible_duplicate_events_total{{route="{route}"}}')
