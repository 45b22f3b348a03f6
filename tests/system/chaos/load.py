"""
The load: one process full of devices, each with one connection and one upload at a time, as fast as answers come.

    python -m tests.system.chaos.load < plan

The plan is one line of JSON; a second line, of whatever, tells the devices to bring the upload under way to its end and
to begin no other. When all have, the diary is written and the process ends. An upload that is not acknowledged is sent
again, the same bytes, until it is.
"""

from __future__ import annotations

import errno
import heapq
import random
import select
import socket
import sys
import time
from pathlib import Path
from typing import Any

import msgspec

from tests.system.chaos import diary, events

#: No answer may take longer, in seconds: twice what a stopped worker and a hanging sink make a device wait.
PATIENCE_S = 30.0
#: Devices end by themselves this long after they are told to; what has no answer by then never gets one.
LAST_S = 60.0
#: A device that failed or was sent away waits this long, at least and at most. Less than what Retry-After says: one
#: that comes too early must lose nothing either.
AGAIN_S = (0.05, 0.3)
#: A kept-alive connection is hung up by its device after so many answers, at most.
LONGEST_LIFE = 200

_READ_BYTES = 64 * 1024
_IN, _OUT = select.EPOLLIN, select.EPOLLOUT | select.EPOLLIN


class Device(msgspec.Struct, frozen=True):
    """
    One device to be: `fresh` ones open a connection for each upload. It waits `pause_s` between uploads.

    Of a tenant with `ack_sink` a 503 does not say that nothing was kept.
    """

    name: str
    tenant: str
    key: str
    fresh: bool = False
    pause_s: float = 0.0
    padding: int = 0
    ack_sink: bool = False


class Plan(msgspec.Struct, frozen=True):
    """What a load process does: the device port, its devices, and the file that its diary goes to."""

    port: int
    devices: list[Device]
    diary: str
    seed: int


class _Talk:
    """A device at work: at most one connection, at most one upload under way."""

    __slots__ = (
        "asked_at", "come", "connecting", "diary", "life", "number", "opened_at", "plan", "port",
        "request", "served", "sock", "tries", "unsent",
    )  # fmt: skip

    def __init__(self, plan: Device) -> None:
        self.plan = plan
        self.diary = diary.DeviceDiary(plan.name, plan.tenant)
        self.sock: socket.socket | None = None
        self.connecting = False
        self.port = self.served = self.life = 0
        self.opened_at = self.asked_at = 0.0
        self.number = -1
        self.request = self.unsent = self.come = b""
        self.tries: list[str] = []


class Load:
    """The loop that turns the devices' wheels."""

    def __init__(self, plan: Plan, *, last_s: float = LAST_S) -> None:
        self._last_s = last_s
        self._address = ("127.0.0.1", plan.port)
        self._chance = random.Random(plan.seed)
        self._poll = select.epoll()
        self._talks: dict[int, _Talk] = {}
        self._all = [_Talk(device) for device in plan.devices]
        self._timers: list[tuple[float, int, _Talk]] = []
        self._ticket = 0
        self._look_at = 0.0
        self._stopping_until = float("inf")
        self._left = len(self._all)
        self.diary = diary.Diary(devices=[talk.diary for talk in self._all])

    def run(self, control: int) -> None:
        """Work until `control` can be read, and then until every device has come to its end."""
        self._poll.register(control, _IN)
        now = time.monotonic()
        for n, talk in enumerate(self._all):
            self._at(now + n * 0.002, talk)
        while self._left and time.monotonic() < self._stopping_until:
            for fd, mask in self._poll.poll(self._wait_s()):
                if fd == control:
                    self._poll.unregister(control)
                    self._stopping_until = time.monotonic() + self._last_s
                elif fd in self._talks:
                    self._turn(self._talks[fd], mask)
            self._wake()
        for talk in self._all:
            self._hang_up(talk)
            if talk.request:
                talk.diary.again[talk.number] = [*talk.tries, diary.FAILED]
        self._poll.close()

    # -- time

    def _at(self, when: float, talk: _Talk) -> None:
        self._ticket += 1
        heapq.heappush(self._timers, (when, self._ticket, talk))

    def _wait_s(self) -> float:
        return max(0.0, min(0.2, self._timers[0][0] - time.monotonic())) if self._timers else 0.2

    def _wake(self) -> None:
        now = time.monotonic()
        while self._timers and self._timers[0][0] <= now:
            self._ask(heapq.heappop(self._timers)[2])
        if now >= self._look_at:
            self._look_at = now + 1.0
            for talk in self._all:
                if talk.asked_at and now - talk.asked_at > PATIENCE_S:
                    self._fail(talk, "no answer in time")

    # -- one upload

    def _ask(self, talk: _Talk) -> None:
        if not talk.request:
            if self._stopping_until < float("inf"):
                self._hang_up(talk)
                self._left -= 1
                return
            talk.number += 1
            talk.diary.begun += 1
            talk.tries = []
            talk.request = self._request(talk)
        if talk.sock is None and not self._connect(talk):
            return
        talk.asked_at = time.monotonic()
        talk.come = b""
        talk.unsent = talk.request
        self.diary.requests += 1
        if not talk.connecting:
            self._send(talk)

    def _request(self, talk: _Talk) -> bytes:
        plan = talk.plan
        body, encoding = events.upload(plan.name, talk.number, padding=plan.padding)
        fields = f"Content-Encoding: {encoding}\r\n" if encoding else ""
        if plan.fresh:
            fields += "Connection: close\r\n"
        return (
            f"POST /v1/events HTTP/1.1\r\nHost: collector.test\r\nAuthorization: Bearer {plan.key}\r\n"
            f"{fields}Content-Length: {len(body)}\r\n\r\n"
        ).encode() + body

    def _connect(self, talk: _Talk) -> bool:
        sock = socket.socket()
        sock.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
        sock.setblocking(False)
        talk.sock = sock
        talk.opened_at = talk.asked_at = time.monotonic()
        talk.served = talk.port = 0
        talk.life = 1 if talk.plan.fresh else self._chance.randrange(1, LONGEST_LIFE)
        self.diary.connections += 1
        self._talks[sock.fileno()] = talk
        self._poll.register(sock.fileno(), _OUT)
        failed = sock.connect_ex(self._address)
        talk.connecting = failed == errno.EINPROGRESS
        if failed and not talk.connecting:
            self._fail(talk, _kind(failed))
            return False
        if not talk.connecting:
            talk.port = sock.getsockname()[1]
        return True

    def _turn(self, talk: _Talk, mask: int) -> None:
        sock = talk.sock
        assert sock is not None
        if talk.connecting:
            if failed := sock.getsockopt(socket.SOL_SOCKET, socket.SO_ERROR):
                self._fail(talk, _kind(failed))
                return
            if not mask & select.EPOLLOUT:
                return
            talk.connecting = False
            talk.port = sock.getsockname()[1]
        if talk.unsent and mask & select.EPOLLOUT:
            self._send(talk)
        if talk.sock is sock and mask & ~select.EPOLLOUT:
            self._receive(talk)

    def _send(self, talk: _Talk) -> None:
        assert talk.sock is not None
        was = bool(talk.unsent)
        try:
            talk.unsent = talk.unsent[talk.sock.send(talk.unsent) :]
        except BlockingIOError:
            pass
        except OSError as error:
            # An answer may be there nevertheless, and then it counts. Else the socket says only once why it broke.
            kind = _kind(error.errno or 0)
            if not self._receive(talk, at_end=kind):
                self._fail(talk, kind)
            return
        if was:
            self._poll.modify(talk.sock.fileno(), _OUT if talk.unsent else _IN)

    def _receive(self, talk: _Talk, *, at_end: str = "") -> bool:
        """
        Read what is there; tell whether it brought the upload or the connection to an end.

        `at_end` is what ended it, where that is known already.
        """
        assert talk.sock is not None
        try:
            data = talk.sock.recv(_READ_BYTES)
        except BlockingIOError:
            return False
        except OSError as error:
            return self._end(talk, _kind(error.errno or 0))
        if not data:
            return self._end(talk, at_end or ("closed within an answer" if talk.come else "closed without an answer"))
        talk.come += data
        return self._judge_when_whole(talk)

    def _end(self, talk: _Talk, kind: str) -> bool:
        if talk.asked_at:
            self._fail(talk, kind)
        else:
            # Nothing was asked: a server may close an idle connection.
            self._hang_up(talk)
        return True

    # -- one answer

    def _judge_when_whole(self, talk: _Talk) -> bool:
        head, end, body = talk.come.partition(b"\r\n\r\n")
        if not end:
            return False
        first, *rest = head.decode("latin-1").split("\r\n")
        fields = {name.lower(): value.strip() for name, _, value in (line.partition(":") for line in rest)}
        if not first.startswith("HTTP/1.1 ") or not fields.get("content-length", "").isdecimal():
            self._fail(talk, f"no answer of ours: {talk.come[:80]!r}")
            return True
        length = int(fields["content-length"])
        if len(body) < length:
            return False
        now = time.monotonic()
        self.diary.slowest_s = max(self.diary.slowest_s, now - talk.asked_at)
        status = first[9:12]
        try:
            said: Any = msgspec.json.decode(body[:length])
        except msgspec.DecodeError:
            said = {}
        if len(body) > length or not isinstance(said, dict) or (talk.unsent and status == "200"):
            self._fail(talk, f"no answer of ours: {talk.come[:80]!r}")
        elif status == "200":
            self._take(talk, said, fields)
        elif status in {"429", "503"} and fields.get("retry-after", "") in {"1", "2", "3", "4", "5"}:
            self._send_away(talk, str(said.get("error")), fields)
        else:
            self._fail(talk, f"status {status} {said.get('error')}")
        return True

    def _take(self, talk: _Talk, said: dict[str, Any], fields: dict[str, str]) -> None:
        wanted = events.how_many(talk.plan.name, talk.number)
        if said.get("accepted") != wanted or said.get("rejected") != [] or said.get("status") != "ok":
            self._fail(talk, f"an answer that is not about the upload: {str(said)[:200]}")
            return
        talk.diary.receipts.append(str(said.get("receipt")))
        if talk.tries:
            talk.diary.again[talk.number] = talk.tries
        talk.request = b""
        self._rest(talk, fields, talk.plan.pause_s)

    def _send_away(self, talk: _Talk, reason: str, fields: dict[str, str]) -> None:
        name = f"{talk.plan.tenant} {reason}"
        self.diary.refusals[name] = self.diary.refusals.get(name, 0) + 1
        is_doubtful = talk.plan.ack_sink and reason == "backpressure"
        talk.tries.append(diary.UNCONFIRMED if is_doubtful else diary.REFUSED)
        self._rest(talk, fields, self._chance.uniform(*AGAIN_S))

    def _rest(self, talk: _Talk, fields: dict[str, str], seconds: float) -> None:
        talk.served += 1
        talk.asked_at = 0.0
        talk.come = b""
        if talk.unsent or talk.served >= talk.life or fields.get("connection", "").lower() == "close":
            self._hang_up(talk)
        if seconds:
            self._at(time.monotonic() + seconds, talk)
        else:
            self._ask(talk)

    def _fail(self, talk: _Talk, kind: str) -> None:
        self.diary.failures.append(
            diary.Failure(
                device=talk.plan.name,
                port=talk.port,
                opened_at=talk.opened_at,
                asked_at=talk.asked_at,
                failed_at=time.monotonic(),
                served=talk.served,
                kind=kind,
            )
        )
        if kind != diary.NOBODY_LISTENS:
            talk.tries.append(diary.FAILED)
        self._hang_up(talk)
        self._at(time.monotonic() + self._chance.uniform(*AGAIN_S), talk)

    def _hang_up(self, talk: _Talk) -> None:
        if talk.sock is not None:
            self._poll.unregister(talk.sock.fileno())
            del self._talks[talk.sock.fileno()]
            talk.sock.close()
        talk.sock = None
        talk.asked_at = 0.0
        talk.unsent = talk.come = b""


def _kind(number: int) -> str:
    if number == errno.ECONNREFUSED:
        return diary.NOBODY_LISTENS
    return errno.errorcode.get(number, str(number))


def main() -> int:
    """Read the plan, work, and write the diary."""
    with open(0, "rb", buffering=0, closefd=False) as control:
        text = b""
        while not text.endswith(b"\n"):
            text += control.read(1 << 16) or b"\n"
    load = Load(plan := msgspec.json.decode(text, type=Plan))
    load.run(0)
    file = Path(plan.diary)
    whole = file.with_suffix(".new")
    whole.write_bytes(msgspec.json.encode(load.diary))
    whole.rename(file)
    return 0


if __name__ == "__main__":
    sys.exit(main())
