"""
What it costs to send on: the same load with each sink in turn, and whether uploads come in as fast as with files.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable, Iterator, Sequence
from contextlib import ExitStack, contextmanager
from functools import partial
from pathlib import Path

import msgspec
import zstandard

from bench import proc
from bench.account import receipts_in, take_stock
from bench.cell import Cell, Plan, measure, problems_of, room
from bench.servers import CollectorServer, collector
from bench.standin import standin
from bench.uploads import Case, requests
from tests.standins.sdk import ENVIRON
from tests.standins.seaweed import Bucket, seaweed

CASE = Case(5)
#: What the others are held against.
FILE = "file"
STREAMS = ("kinesis", "firehose", "sqs")
OTHERS = ("s3", *STREAMS)


class Row(msgspec.Struct, frozen=True):
    """A sink: what stands for its destination, and its cells by round."""

    sink: str
    before: str
    cells: list[Cell]


class Sinks(msgspec.Struct, frozen=True):
    """The whole run; the first row is that of `file:`."""

    machine: str
    cores: proc.Cores
    plan: Plan
    rows: list[Row]

    @property
    def problems(self) -> list[str]:
        """Say which events were lost or came twice; nothing if none."""
        return [problem for row in self.rows for cell in row.cells for problem in problems_of(row.sink, cell)]

    def ratios(self, row: Row) -> list[float]:
        """Return the intake of a sink in that of files, round by round: neighbours, under the same neighbours."""
        return [
            ours.requests_per_s / file.requests_per_s for ours, file in zip(row.cells, self.rows[0].cells, strict=True)
        ]

    def row(self, sink: str) -> Row | None:
        """Find a sink."""
        return next((row for row in self.rows if row.sink == sink), None)


class _Route(msgspec.Struct, frozen=True):
    """A server with a sink, what stands at the end of that, and the count of what has come there since the last."""

    sink: str
    before: str
    server: CollectorServer
    stock: Callable[[], Counter[bytes]]


def run(plan: Plan, tell: Callable[[str], None]) -> Sinks:
    """Measure; the plan's cases are not asked. Raises ServerError or LoadError."""
    cores = proc.choose_cores()
    uploads = requests(CASE)
    # What is started here runs on the load's core, but for the servers, which have their own.
    with room() as folder, proc.pinned(cores.load), _routes(folder, cores.server) as routes:
        rows = [Row(route.sink, route.before, []) for route in routes]
        for turn in range(plan.rounds):
            tell(f"sinks: round {turn + 1} of {plan.rounds}")
            for route, row in zip(routes, rows, strict=True):
                row.cells.append(measure(route.server, CASE, uploads, plan, cores, stock=route.stock)[0])
    return Sinks(proc.machine(), cores, plan, rows)


@contextmanager
def _routes(folder: Path, core: int) -> Iterator[Sequence[_Route]]:
    """Run a server for each sink, and what they send to."""
    with ExitStack() as stack:
        engine = stack.enter_context(standin())
        weed = stack.enter_context(seaweed())
        bucket = weed.bucket()

        def start(sink: str, url: str, before: str, stock: Callable[[], Counter[bytes]] | None = None) -> _Route:
            others = {"sink": f"{url}?endpoint=http://127.0.0.1:{before_port[before]}"} if url else {}
            server = stack.enter_context(collector(folder / sink, core, others=others, environ=ENVIRON))
            return _Route(sink, before, server, stock or partial(take_stock, server.sink))

        before_port = {"SeaweedFS": weed.port, "our engine": engine.port}
        yield [
            start(FILE, "", "files on tmpfs"),
            start("s3", f"s3://{bucket.name}/events", "SeaweedFS", partial(_take_objects, bucket)),
            *(start(sink, f"{sink}://bench", "our engine", engine.stock) for sink in STREAMS),
        ]


def _take_objects(bucket: Bucket) -> Counter[bytes]:
    """Count the lines in a bucket's objects by their receipts, and remove them."""
    lines: Counter[bytes] = Counter()
    for key, frame in bucket.objects().items():
        lines.update(receipts_in(zstandard.ZstdDecompressor().decompress(frame)))
        bucket.remove(key)
    return lines
