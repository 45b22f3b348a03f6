"""A small Splunk without sockets, and a sender before it: what is indexed is known, whatever the sender was told."""

from __future__ import annotations

import json
import random
import re
from collections import Counter, deque
from collections.abc import Callable
from typing import Any

from collector.errors import HecUnanswered, HecUnsent
from collector.telemetry.hec.acks import Acks
from collector.telemetry.hec.answers import Answer
from collector.telemetry.hec.buffer import HecBuffer
from collector.telemetry.hec.options import HecOptions
from collector.telemetry.hec.pace import Pace
from collector.telemetry.hec.sender import Hooks, Sender
from tests.fakes import FakeClock

#: A line whose text begins so is refused with that code; lines are `<kind><number>;`.
BAD = {"E": 12, "B": 13, "F": 15, "S": 6}
_LINE = re.compile(rb"([a-zA-Z])(\d+)x*;")

#: What may happen to a request: an exception, or an answer, each with or without an effect.
Fault = str | tuple[int, int]
FAULTS: tuple[Fault, ...] = (
    "unsent", "lost before", "lost after", "html", "gateway", "defect",
    (503, 9), (503, 18), (503, 20), (503, 23), (429, 26), (429, 27), (500, 8), (403, 1), (403, 4), (401, 2), (401, 3),
    (400, 7), (400, 10), (404, -1), (408, -1), (502, -1), (504, -1), (200, 24), (200, 25),
)  # fmt: skip


class Splunk:
    """Takes lines as HEC does; `faults` come one each request, None for none."""

    def __init__(
        self, clock: FakeClock, *, ack: bool = False, max_bytes: int = 10**9, names_places: bool = True
    ) -> None:
        self.clock = clock
        self.ack = ack
        self.max_bytes = max_bytes
        self.names_places = names_places
        self.faults: deque[Fault | None] = deque()
        self.always: Fault | None = None
        self.ack_faults: deque[Fault | None] = deque()
        self.indexed: list[bytes] = []
        self.bodies: list[list[bytes]] = []
        self.asked: list[str] = []
        self.pending: dict[int, list[bytes]] = {}
        self.next_ack = 0
        self.confirms = True

    def post(self, lines: bytes) -> tuple[Answer, int]:
        self.asked.append("post")
        texts = [match.group() for match in _LINE.finditer(lines)]
        assert lines == b"".join(texts)
        self.bodies.append(texts)
        fault = self.faults.popleft() if self.faults else self.always
        return self.meet(fault, lambda: self.take(texts)), len(lines)

    def meet(self, fault: Fault | None, act: Callable[[], Answer]) -> Answer:
        if fault == "unsent":
            raise HecUnsent("Connection refused")
        if fault == "lost before":
            raise HecUnanswered("ReadTimeout", wire_bytes=1)
        if fault == "lost after":
            act()
            raise HecUnanswered("ReadTimeout", wire_bytes=1)
        if fault == "defect":
            raise ZeroDivisionError
        if fault == "html":
            return Answer(200, b"<html>")
        if fault == "gateway":
            act()
            return Answer(504, b"<html>")
        if fault is None:
            return act()
        assert isinstance(fault, tuple)
        status, code = fault
        if status == 200:
            answer = act()
            body = json.loads(answer.body)
            return Answer(200, json.dumps(body | {"code": code}).encode()) if body["code"] == 0 else answer
        return _said(status, code)

    def take(self, texts: list[bytes]) -> Answer:
        if sum(len(text) for text in texts) > self.max_bytes:
            return _said(413, -1)
        for number, text in enumerate(texts):
            code = BAD.get(chr(text[0]))
            if code is not None:
                self.indexed += texts[:number]
                return _said(400, code, **({"invalid-event-number": number} if self.names_places else {}))
        if not self.ack:
            self.indexed += texts
            return _said(200, 0)
        number, self.next_ack = self.next_ack, self.next_ack + 1
        self.pending[number] = texts
        self.indexed += texts
        return _said(200, 0, ackId=number)

    def ask_acks(self, question: bytes) -> tuple[Answer, int]:
        self.asked.append("acks")
        fault = self.ack_faults.popleft() if self.ack_faults else None

        def act() -> Answer:
            told = {}
            for number in json.loads(question)["acks"]:
                told[str(number)] = self.confirms and self.pending.pop(number, None) is not None
            return Answer(200, json.dumps({"acks": told}).encode())

        return self.meet(fault, act), 5

    def ask_health(self) -> tuple[Answer, int]:
        self.asked.append("health")
        fault = self.always
        if fault == "unsent":
            raise HecUnsent("Connection refused")
        if isinstance(fault, tuple) and fault[0] == 503:
            return _said(503, 18), 3
        return _said(200, 17), 3

    def restart(self) -> None:
        """Begin to count anew, and lose what the indexers had not confirmed."""
        for texts in self.pending.values():
            for text in texts:
                self.indexed.remove(text)
        self.pending.clear()
        self.next_ack = 0


def _said(status: int, code: int, **more: Any) -> Answer:
    if code < 0:
        return Answer(status, b"<html>")
    return Answer(status, json.dumps({"text": "What HEC says", "code": code, **more}).encode())


class World:
    """A sender with all that it needs, before a Splunk of the model; `step` looks at the accounts after each."""

    def __init__(
        self, *, seed: int = 0, splunk: Splunk | None = None, clock: FakeClock | None = None, **options: Any
    ) -> None:
        self.clock = clock or FakeClock()
        self.splunk = splunk or Splunk(self.clock, ack=options.get("ack", False))
        self.told: list[tuple[str, Any]] = []
        defaults: dict[str, Any] = {
            "url": "http://x",
            "token": "t",
            "batch_lines": 10,
            "batch_bytes": 10_000,
            "buffer_bytes": 1 << 20,
        }
        self.options = HecOptions(**(defaults | options))
        self.buffer = HecBuffer(self.options.buffer_bytes, clock=self.clock)
        self.acks = Acks(clock=self.clock)
        self.pace = Pace(clock=self.clock, rng=random.Random(seed))
        self.sender = Sender(
            self.buffer, self.splunk, self.options, pace=self.pace, acks=self.acks,
            hooks=Hooks(
                failing=lambda cause, _: self.told.append(("failing", cause)),
                refused=lambda cause, _: self.told.append(("refused", cause)),
                recovered=lambda seconds: self.told.append(("recovered", seconds)),
                unconfirmed=lambda cause: self.told.append(("unconfirmed", cause)),
                defect=lambda error: self.told.append(("defect", type(error).__name__)),
            ),
        )  # fmt: skip
        self.lines: list[bytes] = []

    def put(self, *kinds: str, size: int = 0) -> list[bytes]:
        made = []
        for kind in kinds:
            line = f"{kind}{len(self.lines)}".encode()
            line += b"x" * max(0, size - len(line) - 1) + b";"
            assert self.buffer.put(line, is_severe=False)
            self.lines.append(line)
            made.append(line)
        return made

    def step(self) -> float:
        wait_s = self.sender.step()
        account = self.buffer.account()
        assert account.is_exact, account
        assert account.emitted == len(self.lines)
        assert account.requests == len(self.splunk.bodies)
        assert account.possible_duplicates >= self.duplicates(), account
        return wait_s

    def duplicates(self) -> int:
        return sum(count - 1 for count in Counter(self.splunk.indexed).values())

    def run(self, *, most: int = 4000) -> int:
        """Let time pass as the sender asks for until nothing is left to do; return how many steps that took."""
        for steps in range(1, most):
            wait_s = self.step()
            if self.sender.is_idle:
                return steps
            self.clock.advance(wait_s)
        raise AssertionError(f"no end after {most} steps: {self.buffer.account()}")

    def steps(self, count: int) -> None:
        for _ in range(count):
            self.clock.advance(self.step())
