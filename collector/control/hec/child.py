"""
A simulated HEC in a process of its own, steered over a pipe: so that it does not share an interpreter with the sender.

A line of JSON asks, a line of JSON answers. The child ends when its standard input does, so with its parent, however
that dies.
"""

from __future__ import annotations

import resource
import subprocess
import sys
from contextlib import suppress
from typing import BinaryIO

import msgspec

from collector.control.hec.endpoint import Books, Rules
from collector.control.hec.faults import Answer, Line
from collector.control.hec.simulated import SimulatedHec
from collector.errors import ChildError

#: How long a child may take to end after its pipe was closed, before it is killed. Connections end at once.
_END_S = 10.0


class Order(msgspec.Struct, frozen=True, kw_only=True, omit_defaults=True):
    """
    What a child is told; what is None stays as it is.

    `out`: `none` (it listens, and nothing stands), `refusing`, `answering` (503, code 9), or a `Line`. `forget` starts
    the counts anew.
    """

    out: str | None = None
    latency_s: float | None = None
    bytes_per_s: float | None = None
    forget: bool = False


class State(msgspec.Struct, frozen=True):
    """What a child answers: where it is, what it counted, the CPU it used, and what was wrong with the order."""

    url: str
    token: str
    books: Books
    cpu_s: float = 0.0
    problem: str = ""


class HecChild:
    """Starts the process when its `with` begins, and ends it with that; raises `ChildError`."""

    def __init__(self, *, latency_s: float = 0.0, bytes_per_s: float = 0.0) -> None:
        self._first = Order(latency_s=latency_s, bytes_per_s=bytes_per_s)
        self._process: subprocess.Popen[bytes] | None = None
        self._state = State("", "", Books())

    def __enter__(self) -> HecChild:
        self._process = subprocess.Popen(
            [sys.executable, "-m", "collector.control.hec.child"],
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            # A Ctrl-C is the parent's, who still has to ask for the counts.
            start_new_session=True,
        )
        try:
            self.tell(self._first)
        except BaseException:
            self.__exit__()
            raise
        return self

    def __exit__(self, *exc: object) -> None:
        process = self._process
        if process is None or process.stdin is None or process.stdout is None:
            return
        with suppress(BrokenPipeError):
            process.stdin.close()
        try:
            process.wait(_END_S)
        except subprocess.TimeoutExpired:
            process.kill()
            process.wait()
        process.stdout.close()

    @property
    def url(self) -> str:
        """Return scheme, host and port."""
        return self._state.url

    @property
    def token(self) -> str:
        """Return the token that it takes."""
        return self._state.token

    @property
    def pid(self) -> int:
        """Return the number of the process."""
        return self._process.pid if self._process else 0

    def tell(self, order: Order) -> Books:
        """Have an order carried out, and return what is counted after it; raises `ChildError`."""
        process = self._process
        if process is None or process.stdin is None or process.stdout is None:
            raise ChildError("the simulated HEC was not started")
        try:
            process.stdin.write(msgspec.json.encode(order) + b"\n")
            process.stdin.flush()
            answer = process.stdout.readline()
        except (OSError, ValueError):
            answer = b""
        if not answer.endswith(b"\n"):
            raise ChildError("the process of the simulated HEC has ended")
        self._state = msgspec.json.decode(answer, type=State)
        if self._state.problem:
            raise ChildError(self._state.problem)
        return self._state.books

    def books(self) -> Books:
        """Return what is counted; raises `ChildError`."""
        return self.tell(Order())

    def cpu_s(self) -> float:
        """Return the CPU that the process has used, in seconds; raises `ChildError`."""
        self.tell(Order())
        return self._state.cpu_s


def used_cpu_s() -> float:
    """Return the CPU that this process has used, in seconds."""
    used = resource.getrusage(resource.RUSAGE_SELF)
    return used.ru_utime + used.ru_stime


def serve(orders: BinaryIO, answers: BinaryIO) -> None:
    """Be a simulated HEC until the orders end. It keeps no lines, only counts."""
    decoder = msgspec.json.Decoder(Order)
    with SimulatedHec(Rules(keep_lines=0, keep_requests=0)) as hec:
        for line in orders:
            problem = ""
            try:
                _carry_out(hec, decoder.decode(line))
            except (msgspec.MsgspecError, ValueError) as error:
                problem = f"the simulated HEC does not understand {line.decode(errors='replace').strip()}: {error}"
            answers.write(msgspec.json.encode(State(hec.url, hec.token, hec.books(), used_cpu_s(), problem)) + b"\n")
            answers.flush()


def _carry_out(hec: SimulatedHec, order: Order) -> None:
    if order.latency_s is not None:
        hec.latency_s = order.latency_s
    if order.bytes_per_s is not None:
        hec.bytes_per_s = order.bytes_per_s
    if order.out == "refusing":
        hec.refuse()
    elif order.out is not None:
        hec.stand({"none": None, "answering": Answer()}[order.out] if order.out in _PLAIN else Line(order.out))
        hec.listen()
    if order.forget:
        hec.forget()


_PLAIN = frozenset({"none", "answering"})


if __name__ == "__main__":
    try:
        serve(sys.stdin.buffer, sys.stdout.buffer)
    except (BrokenPipeError, KeyboardInterrupt):
        sys.exit(0)
