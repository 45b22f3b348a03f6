"""
A Splunk that is away, slow, or out of its mind, and a standard output that nobody reads, cost nobody anything.

Real servers under load, with a simulated HEC in each state: each upload is taken at its first try, health checks
answer, the end comes by itself, and each line is in Splunk or in an account of what is not.
"""

from __future__ import annotations

import os
import signal
import threading
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from functools import partial
from pathlib import Path

import msgspec
import pytest

from collector.control.hec.exchange import Head
from collector.control.hec.faults import Answer, Fault, Line, Slow
from collector.control.hec.simulated import SimulatedHec
from tests.flows.splunk import IN_THE_CLEAR, Talking, adds_up, processes, sums_up, total, under_load
from tests.receiver.test_gunicorn import PLAIN
from tests.server import SERVE
from tests.uploaders import Count, Uploader, end, load

#: Answers after which lines come again, or are dropped and told, or were taken all the same.
PASSING = (8, 9, 18, 19, 20, 23, 24, 25, 26, 27, 5, 6, 12, 13, 15)
#: Answers after which nothing is sent until somebody has changed something.
HELD = (1, 2, 3, 4, 7, 10, 11, 14, 16, 21, 22)
#: Longer than any test.
NEVER_S = 3600.0
#: More than the sender waits for an answer at a stop.
SLOW_S = 60.0
#: How often a device uploads, in seconds: two workers and two cores have time for more than this.
PAUSE_S = 0.05


def taken(server: Talking, uploaders: list[Uploader]) -> None:
    """Hold that each upload was taken at its first try, and that its events are in the sink, once."""
    count = Count(server, uploaders)
    assert [({}, {})] * len(uploaders) == [(one.failed, one.refused) for one in uploaders]
    assert all(one.sent == one.acknowledged > 0 for one in uploaders)
    assert (0, 0, 0, 0) == (count.missing, count.duplicates, count.altered, count.invented)


def ended(server: Talking, *, killed: int = 0) -> None:
    """Hold that a stop came to its end by itself: no worker but so many was killed, as those are that take too long."""
    assert 0 == server.stop()
    assert not [line for line in server.log if line.get("killed")]
    assert killed == len([line for line in server.log if "SIGKILL" in str(line.get("message"))])
    ledger = server.logged("drain.done")[-1] if server.logged("drain.done") else {}
    assert not ledger or (0, 0) == (ledger["left"], ledger["dropped"])


class Codes:
    """Gives each process every code of a list in turn, and between two of them what HEC answers by itself."""

    def __init__(self, codes: tuple[int, ...]) -> None:
        self._codes = codes
        self._lock = threading.Lock()
        self._asked: dict[str, int] = {}
        self.met: set[int] = set()

    def __call__(self, head: Head) -> Fault | None:
        if "/event" not in head.path:
            return None
        with self._lock:
            channel = head.headers["x-splunk-request-channel"]
            asked = self._asked[channel] = self._asked.get(channel, -1) + 1
            if asked % 2:
                return None
            # One begins where another does not, so that they are through sooner.
            code = self._codes[(asked // 2 + 5 * [*self._asked].index(channel)) % len(self._codes)]
            self.met.add(code)
        return Answer(code=code, takes=code in {24, 25})


def grows(server: Talking, *results: str) -> Callable[[], bool]:
    """Make a question whether workers had more of such results of requests since."""
    before = server.results()
    return lambda: any(server.results()[result] > before[result] for result in results)


def test_no_state_of_splunk_is_seen_by_a_device_or_a_health_check(tmp_path: Path) -> None:
    """It is a log: whoever reads it may miss it for a while, and nobody else is to know."""
    with SimulatedHec() as hec, Talking(tmp_path / "it", hec) as server:
        uploaders = load(server, per_tenant=1, pause_s=PAUSE_S)
        see = partial(under_load, server, uploaders)
        see(grows(server, "taken"), "a healthy Splunk to take lines")
        with hec.outage():
            see(grows(server, "unsent"), "it to refuse connections")
        see(grows(server, "taken"), "it to be back")
        with hec.outage(Line.BLACK_HOLE):
            see(lambda: hec.requests[-1].status == 0, "it to swallow a request")
        hec.hang_up()
        see(grows(server, "unanswered"), "that to be noticed")
        see(grows(server, "taken"), "it to be back")
        with hec.outage(Line.RESET):
            see(grows(server, "unanswered"), "it to reset a connection")
        see(grows(server, "taken"), "it to be back")
        with hec.outage(Slow(0.5)):
            see(grows(server, "taken"), "it to be slow")
        passing, held = Codes(PASSING), Codes(HELD)
        hec.script_by(passing)
        see(lambda: passing.met >= {*PASSING}, "each passing code to be met")
        is_held = grows(server, "held")
        hec.script_by(held)
        see(is_held, "a code to be met that holds lines back")
        hec.script_by(None)
        end(uploaders)

        ended(server)

        found = sums_up(server, hec, in_doubt=True)
        taken(server, uploaders)
    # What was held was sent at the end, and no code but those that blame a line cost one.
    assert {"rejected"} >= {line["reason"] for one in found.values() for line in one.lines("hec.dropped")}
    # The launcher, two workers, and who says the last word.
    assert 4 == len(found)


#: What Splunk does from some moment on, to its end and to ours.
DEAD: dict[str, Callable[[SimulatedHec], None]] = {
    "refusing": SimulatedHec.refuse,
    "black hole": lambda hec: hec.stand(Line.BLACK_HOLE),
    "resetting": lambda hec: hec.stand(Line.RESET),
    "busy": lambda hec: hec.stand(Answer(code=9)),
    "holding": lambda hec: hec.stand(Answer(code=4)),
    "slow": lambda hec: hec.stand(Slow(SLOW_S)),
}


def dies(folder: Path, state: str) -> dict[str, int]:
    """Let Splunk die under load, stop the server, and return how many lines each process could not send."""
    with SimulatedHec() as hec, Talking(folder, hec) as server:
        uploaders = load(server, per_tenant=1, pause_s=PAUSE_S)
        under_load(server, uploaders, grows(server, "taken"), "a healthy Splunk to take lines")
        DEAD[state](hec)
        under_load(server, uploaders, lambda: True, "uploads to be taken all the same")
        end(uploaders)

        ended(server)

        found = sums_up(server, hec)
        taken(server, uploaders)
        return {boot: process.missing for boot, process in found.items()}


@pytest.mark.parametrize(
    ("states", "also_unread"),
    [
        (("refusing", "black hole"), True),
        # To the sender these are much like the two above, and it takes a quarter of a minute to see that.
        pytest.param(("holding", "resetting", "busy", "slow"), False, marks=pytest.mark.system),
    ],
)
def test_a_stop_before_a_dead_splunk_ends_by_itself_and_tells_each_lost_line(
    tmp_path: Path, states: tuple[str, ...], *, also_unread: bool
) -> None:
    """
    A deploy is not to wait for a log, and a log that ends without a word of its gaps is worse than none.

    Side by side, for they wait most of the time; and one with a standard output that nobody reads, too.
    """
    with ThreadPoolExecutor() as pool, SimulatedHec() as hole:
        silenced = [pool.submit(silent, tmp_path / "unread", hole, is_dead=True)] if also_unread else []
        lost = dict(zip(states, pool.map(dies, [tmp_path / state[:4] for state in states], states), strict=True))
        for one in silenced:
            one.result()

    for state, missing in lost.items():
        # The launcher, two workers, and who says the last word: none of them got its end through.
        assert 4 == len(missing), state
        assert all(missing.values()), state


def count_of(server: Talking, name: str) -> int:
    """Return what a metric without labels has come to, of all workers that live."""
    page = server.admin("/metrics").body.decode()
    return sum(int(float(line.split()[-1])) for line in page.splitlines() if line.split()[0].partition("{")[0] == name)


def silent(folder: Path, hec: SimulatedHec, *, command: tuple[str, ...] = SERVE, is_dead: bool = False) -> Talking:
    """Run a server whose standard output is full from its start to its end, under load; return it when it has ended."""
    # Each worker has to say 256 KiB and more before a line is lost.
    with Talking(folder, hec, is_muted=True, command=command, workers=1, flush_interval_s=0.01) as server:
        if is_dead:
            hec.stand(Line.BLACK_HOLE)
        uploaders = load(server, per_tenant=1, pause_s=0.0)
        under_load(server, uploaders, lambda: count_of(server, "collector_log_lines_lost_total"), "lines to be lost")
        end(uploaders)
        ended(server)
        taken(server, uploaders)
        counters = server.counted().counters
    fates = ("emitted", "delivered", "dropped")
    emitted, delivered, dropped = (total(counters, f"collector_hec_{fate}_lines_total") for fate in fates)
    assert emitted == delivered + dropped > 0
    # Not one of them got through, so that all of them are to be counted.
    assert emitted == total(counters, "collector_log_lines_lost_total")
    # Of a living Splunk's the line that tells of the last losses, when nothing can be sent any more.
    assert is_dead or 1 == dropped
    assert "" == server.output()
    assert {*server.errors.splitlines()} <= {IN_THE_CLEAR}
    return server


def test_a_standard_output_that_nobody_reads_is_seen_by_nobody_else(tmp_path: Path) -> None:
    """
    As that of a container whose log driver blocks: health checks failed, and the task was replaced by the next such.
    """
    with SimulatedHec() as hec:
        server = silent(tmp_path / "it", hec)

        found = processes(server, hec)
        told = {msgspec.json.decode(line)["event"] for line in hec.lines}
    # The launcher, a worker, and who says the last word. What the pipe did not take, Splunk has, and is told of it.
    assert 3 == len(found)
    assert all(one.last == len(one.arrived) == one.arrived.total() for one in found.values())
    assert "stdout.lost" in told


def test_plain_gunicorn_does_not_wait_for_who_reads_its_standard_output_either(tmp_path: Path) -> None:
    """Without the launcher its master writes there too, and a master that waits is deaf to every signal."""
    with SimulatedHec() as hec:
        server = silent(tmp_path / "it", hec, command=PLAIN)

        assert all(one.last == len(one.arrived) == one.arrived.total() for one in processes(server, hec).values())


def test_a_reload_costs_no_line_and_a_killed_worker_those_of_its_last_moment(tmp_path: Path) -> None:
    """
    What a worker holds for Splunk dies with it. Its lines stand in the standard output, and where others follow the gap
    shows; a gap at the end shows by the standard output alone, for a dead process reports no more.
    """
    # So long that what waits then is certain to be lost.
    with SimulatedHec() as hec, Talking(tmp_path / "it", hec, hec_linger_s=NEVER_S) as server:
        uploaders = load(server, per_tenant=1, pause_s=PAUSE_S)
        under_load(server, uploaders, lambda: len(server.logged("batch.delivered")) > 20, "batches to leave")
        old = {line["boot"] for line in server.logged("worker.started")}
        server.signal(signal.SIGHUP)
        under_load(server, uploaders, lambda: server.logged("generation.ended"), "the old workers to end")
        reloaded = processes(server, hec)
        for boot in old:
            assert reloaded[boot].last - len(reloaded[boot].late) == len(reloaded[boot].arrived) > 0

        victim = server.worker_pids()[0]
        started = len(server.logged("worker.started"))
        (killed,) = {line["boot"] for line in server.logged("worker.started") if line["pid"] == victim}
        os.kill(victim, signal.SIGKILL)
        under_load(server, uploaders, lambda: len(server.logged("worker.started")) > started, "another in its place")
        end(uploaders)
        ended(server, killed=1)
        found = processes(server, hec)
        count = Count(server, uploaders)

    assert 0 == count.missing
    lost = found.pop(killed)
    assert lost.last == len(lost.said) > len(lost.arrived) == 0
    for boot, process in found.items():
        adds_up(boot, process)
        assert process.missing == len(process.late), boot
        assert 0 == process.dropped
