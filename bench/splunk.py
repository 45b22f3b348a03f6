"""
What a dead Splunk costs: the same load with HEC in each state that it can be in, and with a blocked standard output.

The log is as talkative as it gets, and each round has all states in turn, with a healthy Splunk twice: what is between
those two is the noise.
"""

from __future__ import annotations

import os
from collections.abc import Callable, Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from contextlib import ExitStack, contextmanager
from pathlib import Path
from statistics import median
from time import monotonic
from typing import Any

import msgspec

from bench import proc
from bench.cell import Cell, Plan, measure, problems_of, room
from bench.load import at_part
from bench.probe import beside
from bench.servers import CollectorServer, collector
from bench.uploads import Case, requests
from collector.control.hec.child import HecChild, Order
from collector.telemetry.books import Books

CASE = Case(5)
HEALTHY, AGAIN, MUTED, WITHOUT = "healthy", "healthy, once more", "healthy, stdout blocked", "none"
#: A black hole is the worst of them, for its sender waits.
BOTH = "black hole, stdout blocked"
#: What each HEC is told; the second healthy one is what the first is held against to know the noise.
STATES: dict[str, Order | None] = {
    WITHOUT: None,
    HEALTHY: Order(),
    AGAIN: Order(),
    "refusing": Order(out="refusing"),
    "black hole": Order(out="black-hole"),
    "slow, 1 s": Order(latency_s=1.0),
    "resetting": Order(out="reset"),
    "503, code 9": Order(out="answering"),
    MUTED: Order(),
    BOTH: Order(out="black-hole"),
}
#: A line for each batch, and many small batches.
_TALKATIVE = {"log_level": "debug", "flush_interval_s": "0.01", "segment_bytes": "64 KiB", "report_s": "1"}
_HEALTH, PROBES_PER_S = "/healthz", 100.0
#: The health check begins when its process is up, and is to end before the load does: in parts of a round.
_PROBED_PART = 0.7
#: What is said when nothing can be sent any more, and is in nobody's account.
_LATE = frozenset({"hec.dropped", "gunicorn"})


class Lines(msgspec.Struct, frozen=True):
    """
    What became of log lines, by all witnesses.

    `emitted`, `delivered` and `dropped` are the worker's account at its end, `spoken` the lines that it wrote to the
    standard output by then. `expected`: those which all processes together say that Splunk has, and `unsure` those
    whose answer did not come. `indexed`: those it has, each once. None where the standard output was not read, or
    where there is no Splunk.
    """

    emitted: int
    delivered: int
    dropped: int
    indexed: int | None
    spoken: int | None = None
    expected: int | None = None
    unsure: int = 0

    @property
    def problems(self) -> list[str]:
        """Say what does not add up."""
        found = []
        if self.emitted != self.delivered + self.dropped:
            found.append(f"of {self.emitted} lines {self.delivered} were delivered and {self.dropped} dropped")
        if self.spoken is not None and self.spoken != self.emitted:
            found.append(f"{self.spoken} lines were said, and {self.emitted} accounted for")
        if self.indexed is not None and self.indexed < self.delivered:
            found.append(f"{self.delivered} lines were delivered, and Splunk has {self.indexed}")
        if self.expected is not None and not self.expected <= (self.indexed or 0) <= self.expected + self.unsure:
            found.append(f"Splunk should have {self.expected} lines, {self.unsure} more at most; it has {self.indexed}")
        return found


class Row(msgspec.Struct, frozen=True):
    """A state: its cells and what the health check took, by round; how long its stop took; and its lines."""

    state: str
    cells: list[Cell]
    pulses_s: list[list[float]]
    unhealthy: list[int]
    stop_s: float = 0.0
    lines_per_s: float = 0.0
    lines: Lines | None = None

    @property
    def health_p99_ms(self) -> float:
        """Return what one check in a hundred took longer than, of all rounds together."""
        return at_part(sorted(one for pulse in self.pulses_s for one in pulse), 0.99) * 1e3


class Splunk(msgspec.Struct, frozen=True):
    """The whole run."""

    machine: str
    cores: proc.Cores
    plan: Plan
    rows: list[Row]

    @property
    def problems(self) -> list[str]:
        """Say which events were lost or came twice, which lines do not add up, and which checks were not answered."""
        found = [problem for row in self.rows for cell in row.cells for problem in problems_of(row.state, cell)]
        found += [f"{row.state}: {one}" for row in self.rows if row.lines for one in row.lines.problems]
        sick = [(row.state, sum(row.unhealthy)) for row in self.rows]
        return found + [f"{state}: {count} health checks had no 200" for state, count in sick if count]

    def row(self, state: str) -> Row:
        """Find a state."""
        return next(row for row in self.rows if row.state == state)

    def ratios(self, row: Row) -> list[float]:
        """Return the intake of a state in that of a healthy Splunk, round by round."""
        healthy = self.row(HEALTHY).cells
        return [ours.requests_per_s / theirs.requests_per_s for ours, theirs in zip(row.cells, healthy, strict=True)]

    @property
    def noise(self) -> float:
        """Return the least that one of the two healthy ones reached in the other, round by round."""
        return min(min(one, 1 / one) for one in self.ratios(self.row(AGAIN)))

    def ratio(self, row: Row) -> float:
        """Return the median of the rounds."""
        return median(self.ratios(row))

    def ratio_by_cpu(self, row: Row) -> float:
        """Return what an upload costs with a healthy Splunk in what it costs in a state, in the median round."""
        healthy = self.row(HEALTHY).cells
        return median([theirs.cpu_us / ours.cpu_us for ours, theirs in zip(row.cells, healthy, strict=True)])


class _Place(msgspec.Struct):
    """A server in a state, and how to end it."""

    state: str
    server: CollectorServer
    hec: HecChild | None
    stack: ExitStack
    is_muted: bool


def run(plan: Plan, tell: Callable[[str], None], states: Sequence[str] = (*STATES,)) -> Splunk:
    """Measure some of `STATES`; the plan's cases are not asked. Raises ServerError, LoadError or ChildError."""
    cores, uploads = proc.choose_cores(), requests(CASE)
    with room() as folder, proc.pinned(cores.load), _places(folder, cores.server, tell, states) as places:
        rows = {place.state: Row(place.state, [], [], []) for place in places}
        for turn in range(plan.rounds):
            tell(f"splunk: round {turn + 1} of {plan.rounds}")
            for place in places:
                _take_turn(rows[place.state], place, uploads, plan, cores)
        tell("splunk: the stops, side by side")
        with ThreadPoolExecutor(len(places)) as pool:
            stops = list(pool.map(_stop, places))
        seconds = plan.rounds * (plan.seconds + plan.warm_up_s)
        done = []
        for place, stop_s in zip(places, stops, strict=True):
            lines = None if place.hec is None else _count(place, place.hec)
            per_s = lines.emitted / seconds if lines else 0.0
            row = rows[place.state]
            done.append(msgspec.structs.replace(row, stop_s=stop_s, lines_per_s=per_s, lines=lines))
    return Splunk(proc.machine(), cores, plan, done)


@contextmanager
def _places(folder: Path, core: int, tell: Callable[[str], None], states: Sequence[str]) -> Iterator[Sequence[_Place]]:
    """Run a server for each state, with a HEC in a process of its own."""
    with ExitStack() as stack:
        places = []
        for number, state in enumerate(states):
            tell(f"splunk: starting, {state}")
            order = STATES[state]
            hec = None if order is None else stack.enter_context(HecChild())
            others = dict(_TALKATIVE)
            if hec is not None and order is not None:
                hec.tell(order)
                others |= {"hec_url": hec.url, "hec_token": hec.token}
            is_muted = "stdout" in state
            mine = stack.enter_context(ExitStack())
            stdout = mine.enter_context(_full_pipe()) if is_muted else None
            server = mine.enter_context(collector(folder / str(number), core, others=others, stdout=stdout))
            places.append(_Place(state, server, hec, mine, is_muted))
        yield places


@contextmanager
def _full_pipe() -> Iterator[int]:
    """Give the end to write to of a pipe that is full, and that nobody reads."""
    read, write = os.pipe()
    try:
        os.set_blocking(write, False)
        for size in (4096, 1):
            try:
                while True:
                    os.write(write, b"\n" * size)
            except BlockingIOError:
                continue
        os.set_blocking(write, True)
        yield write
    finally:
        os.close(write)
        os.close(read)


def _take_turn(row: Row, place: _Place, uploads: Sequence[bytes], plan: Plan, cores: proc.Cores) -> None:
    seconds = plan.seconds * _PROBED_PART
    with beside(place.server.admin, _HEALTH, per_s=PROBES_PER_S, seconds=seconds) as probe:
        cell, _ = measure(place.server, CASE, uploads, plan, cores)
        pulse = probe.result()
    row.cells.append(cell)
    row.pulses_s.append(pulse.latencies_s)
    row.unhealthy.append(sum(pulse.wrong.values()) + sum(pulse.failures.values()) + pulse.turned_away)


def _stop(place: _Place) -> float:
    """End a server, and return how long it took from the signal to the exit, in seconds."""
    began = monotonic()
    place.stack.close()
    return monotonic() - began


def _count(place: _Place, hec: HecChild) -> Lines:
    """Bring the witnesses of log lines together, when their server has ended."""
    counters = Books(place.server.spool).metrics(but="").counters
    emitted, delivered, dropped = (
        sum(value for _, value in counters.get(f"collector_hec_{fate}_lines_total", ()))
        for fate in ("emitted", "delivered", "dropped")
    )
    books = hec.books()
    indexed = books.indexed - (books.repeated or 0)
    if place.is_muted:
        return Lines(emitted, delivered, dropped, indexed)
    spoken, expected, unsure = expectation(place.server.spool.parent / "output")
    return Lines(emitted, delivered, dropped, indexed, spoken, expected, unsure)


def expectation(output: Path) -> tuple[int, int, int]:
    """
    Read from what all processes said what Splunk should have.

    Return how many lines the worker has an account of, how many Splunk should have of all processes, and how many more
    it may have, since nobody knows.
    """
    said = _by_process(output)
    workers = {lines[0]["boot"] for lines in said if any(line["event"] == "worker.started" for line in lines)}
    spoken = expected = unsure = 0
    for lines in said:
        (*_, report) = [line for line in lines if line["event"] == "hec.report"]
        late = [line for line in lines if line["seq"] > report["seq"] and line["event"] in _LATE]
        lost = [line for line in lines if line["event"] == "hec.dropped"]
        expected += len(lines) - len(late) - sum(line["count"] for line in lost)
        unsure += sum(line["count"] for line in lost if line["reason"] == "unconfirmed")
        if lines[0]["boot"] in workers:
            # The last account is written before gunicorn's last word.
            spoken += len(lines) - sum(line["event"] == "gunicorn" for line in late)
    return spoken, expected, unsure


def _by_process(output: Path) -> list[list[dict[str, Any]]]:
    """Read the lines of each process."""
    found: dict[str, list[dict[str, Any]]] = {}
    for text in output.read_bytes().splitlines():
        if text.startswith(b"{"):
            line = msgspec.json.decode(text)
            if "boot" in line:
                found.setdefault(line["boot"], []).append(line)
    return list(found.values())
