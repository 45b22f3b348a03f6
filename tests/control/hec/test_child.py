"""The simulated HEC as a process of its own: steered, and gone with whoever started it."""

from __future__ import annotations

import io
import os
import socket
import subprocess
import sys
from collections.abc import Iterator

import pytest
import requests

from collector.control.hec.child import HecChild, Order, serve
from collector.control.hec.endpoint import Books
from collector.errors import ChildError

WAIT_S = 20


@pytest.fixture(name="child", scope="module")
def _child() -> Iterator[HecChild]:
    with HecChild() as child:
        yield child


def post(child: HecChild, *, timeout: float = WAIT_S) -> int:
    with requests.Session() as session:
        session.trust_env = False
        answer = session.post(
            child.url + "/services/collector", data=b'{"event":1}{"event":2}', timeout=timeout,
            headers={"Authorization": f"Splunk {child.token}"},
        )  # fmt: skip
        return answer.status_code


def test_a_child_takes_lines_and_tells_how_many(child: HecChild) -> None:
    """What the sender calls delivered is compared with what arrived."""
    child.tell(Order(forget=True))
    assert 200 == post(child)
    assert 200 == post(child)

    assert Books(4, 2, 4, 2, 44, 44, {"0": 2}) == child.books()
    assert Books() == child.tell(Order(forget=True))


def test_a_child_can_be_out_in_each_way_and_come_back(child: HecChild) -> None:
    """Each way costs a sender something else."""
    child.tell(Order(out="answering"))
    assert 503 == post(child)
    child.tell(Order(out="refusing"))
    with pytest.raises(requests.ConnectionError):
        post(child)
    child.tell(Order(out="reset"))
    with pytest.raises(requests.ConnectionError):
        post(child)
    child.tell(Order(out="black-hole"))
    with pytest.raises(requests.ReadTimeout):
        post(child, timeout=0.05)
    child.tell(Order(out="none"))
    assert 200 == post(child)


def test_an_order_that_a_child_does_not_know_is_said_to_be_wrong(child: HecChild) -> None:
    """And the child goes on."""
    with pytest.raises(ChildError, match=r"does not understand .*earthquake"):
        child.tell(Order(out="earthquake"))
    assert 200 == post(child)


def test_a_child_ends_with_its_with() -> None:
    """It would listen for ever otherwise."""
    with HecChild() as child:
        host, port = child.url.removeprefix("http://").split(":")
        assert 0 < child.pid != os.getpid()

    with pytest.raises(ConnectionRefusedError):
        socket.create_connection((host, int(port)), timeout=WAIT_S)
    with pytest.raises(ChildError, match="has ended"):
        child.books()


def test_a_child_ends_when_its_parent_is_killed() -> None:
    """Nobody says good-bye to it then, and its standard input ends all the same."""
    program = (
        "import os, signal\n"
        "from collector.control.hec.child import HecChild\n"
        "child = HecChild().__enter__()\n"
        "print(child.pid, flush=True)\n"
        "os.kill(os.getpid(), signal.SIGKILL)\n"
    )
    with subprocess.Popen([sys.executable, "-c", program], stdout=subprocess.PIPE) as parent:
        assert parent.stdout is not None
        pid = int(parent.stdout.readline())
        fd = _pidfd(pid)
        assert parent.wait(WAIT_S) < 0
    if fd is not None:
        import select

        try:
            assert select.select([fd], [], [], WAIT_S)[0]
        finally:
            os.close(fd)


def _pidfd(pid: int) -> int | None:
    """Return a descriptor that is readable when the process has ended; None if it has already."""
    try:
        return os.pidfd_open(pid)
    except ProcessLookupError:
        return None


def test_latency_and_rate_are_set_from_outside() -> None:
    """They are parameters of the run."""
    orders = io.BytesIO(b'{"latency_s":0.5,"bytes_per_s":7}\n{"latency_s":"x"}\n')
    answers = io.BytesIO()

    serve(orders, answers)

    first, second = answers.getvalue().splitlines()
    assert b'"problem":""' in first
    assert b"Expected `float | null`, got `str`" in second


def test_a_child_that_was_not_started_says_so() -> None:
    """Instead of an error about nothing."""
    with pytest.raises(ChildError, match="was not started"):
        HecChild().books()
