"""The handler in processes of their own: forks, greenlets, exits, and a standard output that nobody reads."""

from __future__ import annotations

import json
import os
import subprocess
import sys
import threading
from collections import Counter
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from collector.control.hec.exchange import Head
from collector.control.hec.faults import Answer, Line
from collector.control.hec.simulated import SimulatedHec

ROOT = Path(__file__).resolve().parents[3]
LONG_S = 40

_BEGIN = """
import json, logging, os, random, sys, threading
from collector.clock import SystemClock
from collector.telemetry.hec.handler import HecHandler
from collector.telemetry.hec.options import HecOptions

def make(**more):
    options = {"url": sys.argv[1], "token": sys.argv[2], "linger_s": 0.01, **more}
    return HecHandler(HecOptions(**options), clock=SystemClock(), rng=random.Random(0))

def put(handler, who, count, start=0):
    for number in range(start, start + count):
        handler.put(b'{"who":"%s","n":%d}' % (who.encode(), number), "info")

def until(condition):
    pause = threading.Event()
    for _ in range(4000):
        if condition():
            return
        pause.wait(0.005)
    raise AssertionError("it never came to that")

def tell(**said):
    os.write(int(sys.argv[3]), json.dumps(said).encode() + b"\\n")

def summary(handler):
    account = handler.account()
    assert account.is_exact
    return {"emitted": account.emitted, "delivered": account.delivered, "dropped": account.dropped,
            "queued": account.queued, "in_flight": account.in_flight, "doubled": account.possible_duplicates}
"""
_GREEN = "from gevent import monkey; monkey.patch_all()\n"


@pytest.fixture(name="hec")
def _hec() -> Iterator[SimulatedHec]:
    with SimulatedHec() as hec:
        yield hec


def run(
    hec: SimulatedHec, program: str, *, green: bool = False, expected: int = 0, **how: Any
) -> tuple[list[dict[str, Any]], bytes]:
    """Run a program to its end; return what it told, and what it wrote to its standard error."""
    reader, writer = os.pipe()
    how = {"stdout": subprocess.PIPE, "stderr": subprocess.PIPE, **how}
    text = (_GREEN if green else "") + _BEGIN + program
    with open(reader, "rb") as told:
        process = subprocess.Popen(
            [sys.executable, "-c", text, hec.url, hec.token, str(writer)], pass_fds=[writer], cwd=ROOT, **how
        )
        os.close(writer)
        try:
            out, err = process.communicate(timeout=LONG_S)
        except subprocess.TimeoutExpired:
            process.kill()
            raise
        said = [json.loads(line) for line in told]
    assert expected == process.returncode, err
    assert not out
    return said, err or b""


def seen(hec: SimulatedHec) -> dict[str, list[int]]:
    by_who: dict[str, list[int]] = {}
    for line in hec.lines:
        read = json.loads(line)
        by_who.setdefault(read["who"], []).append(read["n"])
    return by_who


greens = pytest.mark.parametrize("green", [False, True], ids=["threads", "greenlets"])


# -- exits


@greens
def test_what_is_put_right_before_the_exit_arrives(hec: SimulatedHec, green: bool) -> None:
    """Nobody calls shutdown in a program that ends; the last lines tell why it did."""
    _, err = run(
        hec,
        'handler = make(linger_s=600.0); handler.start(); put(handler, "a", 500)\nsys.exit(3)',
        green=green,
        expected=3,
    )

    assert ({"a": list(range(500))}, b"") == (seen(hec), err)


@greens
def test_two_handlers_and_one_that_was_never_started_arrive_at_the_exit(hec: SimulatedHec, green: bool) -> None:
    """The exit handler walks over all of them."""
    _, err = run(hec, """
handlers = [make(linger_s=600.0) for _ in range(3)]
for number, handler in enumerate(handlers):
    if number != 1:
        handler.start()
    put(handler, str(number), 10)
""", green=green)  # fmt: skip

    assert ({str(number): list(range(10)) for number in range(3)}, b"") == (seen(hec), err)


@greens
@pytest.mark.parametrize("trouble", [Line.BLACK_HOLE, Line.RESET, "refused"])
def test_an_exit_does_not_wait_for_a_dead_hec(hec: SimulatedHec, green: bool, trouble: str) -> None:
    """It takes its three seconds, and then it is over: a request's own timeouts are longer than that."""
    if trouble == "refused":
        hec.refuse()
    else:
        hec.stand(Line(trouble))
    _, err = run(hec, """
import atexit, time
handler = make()
handler.start()
put(handler, "a", 100)
started = time.monotonic()
handler.shutdown(0.5)
tell(took_s=time.monotonic() - started, **summary(handler))
""", green=green)  # fmt: skip

    assert ({}, b"") == (seen(hec), err)


@pytest.mark.parametrize("how", ["closed", "full"])
def test_nothing_is_printed_where_nobody_reads(hec: SimulatedHec, how: str) -> None:
    """A pipe that is full holds who writes to it for ever, and the worker with it."""
    program = """
logger = logging.getLogger("lib")
handler = make(buffer_bytes=4000)
logger.addHandler(handler)
handler.start()
for number in range(3000):
    logger.error("%s %d", "x" * 50, number)
logger.error("%s %s", 1)
handler.shutdown(0.2)
tell(**summary(handler))
"""
    hec.refuse()
    reader, writer = os.pipe()
    if how == "full":
        os.set_blocking(writer, False)
        try:
            while True:
                os.write(writer, b"x" * 4096)
        except BlockingIOError:
            os.set_blocking(writer, True)
    else:
        os.close(reader)
    try:
        (said,), _ = run(hec, program, stdout=writer, stderr=writer)
    finally:
        os.close(writer)
        if how == "full":
            os.close(reader)

    assert (3001, 1) == (said["emitted"], said["dropped"]["format"])
    assert said["dropped"]["full"] > 2000


# -- greenlets


def test_other_greenlets_go_on_while_hec_is_silent(hec: SimulatedHec) -> None:
    """A worker has thousands of them, and none has anything to do with Splunk."""
    hec.stand(Line.BLACK_HOLE)
    (said,), err = run(hec, """
import gevent
handler = make()
handler.start()
put(handler, "a", 10)
until(lambda: handler.account().in_flight)
turns = 0
def turn():
    global turns
    for _ in range(1000):
        gevent.sleep(0)
        put(handler, "a", 1)
        turns += 1
gevent.joinall([gevent.spawn(turn) for _ in range(3)])
tell(turns=turns, **summary(handler))
handler.shutdown(0.2)
""", green=True)  # fmt: skip

    assert (3000, 3010, 0, b"") == (said["turns"], said["emitted"], said["delivered"], err)
    assert 10 == said["in_flight"]


def test_native_threads_beside_greenlets_lose_nothing(hec: SimulatedHec) -> None:
    """A threadpool's threads log too, and their lock is the greenlets'."""
    (said,), err = run(hec, """
import gevent
handler = make()
handler.start()
pool = gevent.get_hub().threadpool
jobs = [pool.spawn(put, handler, f"t{number}", 300) for number in range(4)]
jobs += [gevent.spawn(put, handler, f"g{number}", 300) for number in range(4)]
gevent.joinall(jobs, raise_error=True)
handler.shutdown(20)
tell(**summary(handler))
""", green=True)  # fmt: skip

    assert (2400, 2400, b"") == (said["emitted"], said["delivered"], err)
    assert {f"{kind}{n}": list(range(300)) for kind in "tg" for n in range(4)} == seen(hec)


# -- forks


class Gate:
    """Holds the first request with lines until it is opened, and says when it has come."""

    def __init__(self, hec: SimulatedHec) -> None:
        self.has_come = threading.Event()
        self.open = threading.Event()
        hec.script_by(self._meet)

    def _meet(self, head: Head) -> None:
        if head.path.endswith("/event") and not self.has_come.is_set():
            self.has_come.set()
            self.open.wait(LONG_S)


_FORK = """
handler = make(batch_lines=50)
handler.start()
put(handler, "parent", 50)
until(lambda: handler.account().requests == 0 and handler.account().in_flight == 50)
tell(ready=True)
# Until the request has been read on the other side; a plain read would keep greenlets from running.
import select
select.select([0], [], [])
os.read(0, 1)
put(handler, "parent", 200, 50)
pid = os.fork()
if pid == 0:
    code = 1
    try:
        before = summary(handler)
        put(handler, "child", 30)
        handler.start()
        until(lambda: handler.account().delivered == 30)
        tell(child=summary(handler), before=before, losses=len(handler.take_losses()))
        code = 0
    except BaseException as error:
        tell(error=repr(error))
    finally:
        if sys.argv[4:] == ["exit"]:
            sys.exit(code)
        os._exit(code)
status = os.waitpid(pid, 0)[1]
# Now the first request may be answered.
os.write(int(sys.argv[3]), b'{"answer": true}\\n')
put(handler, "parent", 50, 250)
handler.shutdown(20)
tell(parent=summary(handler), status=status)
"""


@greens
@pytest.mark.parametrize("way", ["exit", "_exit"])
def test_a_fork_in_the_middle_of_a_request_doubles_nothing_and_loses_nothing(
    hec: SimulatedHec, green: bool, way: str
) -> None:
    """
    What is queued is the parent's, and so is the answer that it waits for.

    A greenlet that waits for that answer is copied by the fork, and reads from the same connection.
    """
    gate = Gate(hec)
    reader, writer = os.pipe()
    text = (_GREEN if green else "") + _BEGIN + _FORK
    process = subprocess.Popen(
        [sys.executable, "-c", text, hec.url, hec.token, str(writer), *([way] if way == "exit" else [])],
        pass_fds=[writer], cwd=ROOT, stdin=subprocess.PIPE, stdout=subprocess.PIPE, stderr=subprocess.PIPE,
    )  # fmt: skip
    os.close(writer)
    said: list[dict[str, Any]] = []
    assert process.stdin is not None
    try:
        with open(reader, "rb") as told:
            for line in told:
                said.append(json.loads(line))
                if said[-1] == {"ready": True}:
                    assert gate.has_come.wait(LONG_S)
                    process.stdin.write(b"x")
                    process.stdin.flush()
                elif said[-1] == {"answer": True}:
                    gate.open.set()
        out, err = process.communicate(timeout=LONG_S)
    finally:
        gate.open.set()
        process.kill()
        process.communicate()

    nothing = {"emitted": 0, "delivered": 0, "dropped": {}, "queued": 0, "in_flight": 0, "doubled": 0}
    assert (0, b"", b"") == (process.returncode, out, err), (err, said)
    assert [
        {"ready": True},
        {"child": nothing | {"emitted": 30, "delivered": 30}, "before": nothing, "losses": 0},
        {"answer": True},
        {"parent": nothing | {"emitted": 300, "delivered": 300}, "status": 0},
    ] == said
    assert {"parent": list(range(300)), "child": list(range(30))} == seen(hec)
    assert 2 == len(Counter(request.headers["x-splunk-request-channel"] for request in hec.requests))


@greens
def test_a_child_does_not_send_what_its_parent_has_put_off(hec: SimulatedHec, green: bool) -> None:
    """The copy of a greenlet wakes up in the child with all that it was about to do."""
    hec.script(Answer(code=9, headers=(("Retry-After", "30"),)))
    said, err = run(hec, """
class Later(SystemClock):
    more_s = 0
    def monotonic(self):
        return super().monotonic() + self.more_s
clock = Later()
options = HecOptions(url=sys.argv[1], token=sys.argv[2], linger_s=0.01)
handler = HecHandler(options, clock=clock, rng=random.Random(0))
handler.start()
put(handler, "parent", 10)
until(lambda: handler.account().results.get("again"))
wake = handler._wake
def go_on():
    clock.more_s = 100
    wake.set()
    put(handler, "child" if pid == 0 else "parent", 1, 10)
    handler.start()
    until(lambda: handler.account().delivered == (1 if pid == 0 else 11))
    # Whoever else is to wake up, wakes up.
    for _ in range(20):
        threading.Event().wait(0.005)
    tell(**summary(handler))
pid = os.fork()
if pid == 0:
    go_on()
    sys.exit(0)
assert os.waitpid(pid, 0)[1] == 0
go_on()
""", green=green)  # fmt: skip

    assert ([1, 11], b"") == ([one["delivered"] for one in said], err)
    assert {"parent": list(range(11)), "child": [10]} == seen(hec)


@greens
def test_a_child_that_logs_nothing_leaves_its_parent_alone(hec: SimulatedHec, green: bool) -> None:
    """Most children end without a word, and none of its parent's lines goes with them."""
    (said,), err = run(hec, """
handler = make()
handler.start()
for number in range(5):
    put(handler, "parent", 40, number * 40)
    pid = os.fork()
    if pid == 0:
        sys.exit(0)
    assert os.waitpid(pid, 0)[1] == 0
handler.shutdown(20)
tell(**summary(handler))
""", green=green)  # fmt: skip

    assert (200, 0, b"") == (said["delivered"], said["doubled"], err)
    assert {"parent": list(range(200))} == seen(hec)


def test_children_do_not_draw_the_same_pauses(hec: SimulatedHec) -> None:
    """The copy of a generator draws what the original does, and all of them would come back together."""
    said, _ = run(hec, """
handler = make()
for _ in range(3):
    pid = os.fork()
    if pid == 0:
        handler._sender._pace.failed()
        tell(drawn=handler._rng.random())
        os._exit(0)
    os.waitpid(pid, 0)
tell(drawn=handler._rng.random())
""")  # fmt: skip

    assert 4 == len({one["drawn"] for one in said})


@greens
def test_a_child_lets_its_parents_connection_go(hec: SimulatedHec, green: bool) -> None:
    """A child that holds it open would let HEC wait for a parent that has gone."""
    said, err = run(hec, """
def sockets():
    return sum(os.path.realpath(f"/proc/self/fd/{fd}").rpartition("/")[2].startswith("socket:")
               for fd in os.listdir("/proc/self/fd"))
handler = make()
handler.start()
without = sockets()
put(handler, "parent", 1)
until(lambda: handler.account().delivered == 1)
until(lambda: handler._sender.wants_lines)
assert sockets() == without + 1
pid = os.fork()
if pid == 0:
    tell(more=sockets() - without)
    os._exit(0)
os.waitpid(pid, 0)
put(handler, "parent", 1, 1)
handler.shutdown(20)
tell(delivered=handler.account().delivered)
""", green=green)  # fmt: skip

    assert ([{"more": 0}, {"delivered": 2}], b"") == (said, err)
    assert {"parent": [0, 1]} == seen(hec)
    assert 1 == len({request.headers["x-splunk-request-channel"] for request in hec.requests})
