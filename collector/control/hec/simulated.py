"""
An HTTP/1.1 server on loopback that speaks HEC, as slow and as faulty as one wants it: for tests, and for `hec tune`.

It is no Splunk: what it answers is what is documented, and what public runs against real ones have shown. A thread a
connection, none of which looks at a clock in a loop; `with SimulatedHec(…) as hec:` starts them and ends all of them.
"""

from __future__ import annotations

import socket
import ssl
import struct
import threading
from collections import deque
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from io import BufferedIOBase

import msgspec

from collector.clock import Clock, SystemClock
from collector.control.hec.endpoint import EVENT_PATHS, Books, Endpoint, Reply, Rules, plain
from collector.control.hec.exchange import BadRequest, Head, TooLarge, read_body, read_head, written
from collector.control.hec.faults import Answer, Fault, Line, Slow
from collector.control.hec.listening import Listening
from collector.control.hec.speech import Indexed

_READ_BYTES = 64 * 1024
_CUT_BYTES = 5
_RESET = struct.pack("ii", 1, 0)

#: Says what is to happen to a request; it is called by the thread of the connection, so by several at once.
Script = Callable[[Head], Fault | None]


class Seen(msgspec.Struct, frozen=True):
    """
    A request that was read whole.

    `wire_bytes` of its body as it came, `body_bytes` inflated (0: it was not); `status` is that of the answer, 0 when
    none was sent, and `code` HEC's, -1 when it has none.
    """

    method: str
    path: str
    headers: Mapping[str, str]
    wire_bytes: int
    body_bytes: int
    status: int
    code: int


class SimulatedHec:
    """
    One on a port of the kernel's choice on 127.0.0.1, listening while its `with` runs.

    `rules` say what it is set to; they, `latency_s` (before each answer) and `bytes_per_s` (of uncompressed bodies,
    all connections together, 0 for no limit) may be set while it runs. `certificate` makes it speak TLS.
    """

    def __init__(
        self,
        rules: Rules = Rules(),  # noqa: B008 -- it is frozen
        *,
        latency_s: float = 0.0,
        bytes_per_s: float = 0.0,
        clock: Clock | None = None,
        certificate: ssl.SSLContext | None = None,
    ) -> None:
        self.latency_s = latency_s
        self.bytes_per_s = bytes_per_s
        self._clock = SystemClock() if clock is None else clock
        self._scheme = "http" if certificate is None else "https"
        self._endpoint = Endpoint(rules, clock=self._clock)
        self._listening = Listening(self._serve, certificate=certificate)
        self._lock = threading.Lock()
        self._queue: deque[Fault | None] = deque()
        self._script: Script | None = None
        self._standing: Fault | None = None
        self._seen: deque[Seen] = deque(maxlen=rules.keep_requests)
        self._free_at = 0.0

    def __enter__(self) -> SimulatedHec:
        self.listen()
        return self

    def __exit__(self, *exc: object) -> None:
        self._listening.close()

    # -- what is seen of it

    @property
    def port(self) -> int:
        """Return its port, which stays the same."""
        return self._listening.port

    @property
    def url(self) -> str:
        """Return scheme, host and port, without a path."""
        return f"{self._scheme}://127.0.0.1:{self.port}"

    @property
    def rules(self) -> Rules:
        """Return what it is set to."""
        return self._endpoint.rules

    @rules.setter
    def rules(self, rules: Rules) -> None:
        self._endpoint.rules = rules

    @property
    def token(self) -> str:
        """Return the token that is valid now."""
        return self._endpoint.rules.token

    @property
    def lines(self) -> list[bytes]:
        """Return the `event` of everything that was indexed, byte for byte and in its order, up to the bound."""
        return [event.line for event in self._endpoint.kept()]

    @property
    def events(self) -> list[Indexed]:
        """Return everything that was indexed, with its metadata, up to the bound."""
        return self._endpoint.kept()

    @property
    def requests(self) -> list[Seen]:
        """Return the last requests that were read whole, whatever became of them, up to the bound."""
        with self._lock:
            return list(self._seen)

    @property
    def connections(self) -> int:
        """Return how many connections are open now."""
        return self._listening.connections

    def books(self) -> Books:
        """Return what was counted."""
        return self._endpoint.books()

    def forget(self) -> None:
        """Start counts, lines and requests anew."""
        self._endpoint.forget()
        with self._lock:
            self._seen.clear()

    # -- what it is told

    def script(self, *faults: Fault | None) -> None:
        """Let the next requests that bring events meet these, one each, None for none; they go before all others."""
        with self._lock:
            self._queue.extend(faults)

    def script_by(self, script: Script | None) -> None:
        """Ask a function about each request, health and acks too, from now on."""
        with self._lock:
            self._script = script

    def stand(self, fault: Fault | None) -> None:
        """
        Let every request, health and acks too, meet this from now on; None ends it.

        What a black hole has swallowed stays unanswered.
        """
        with self._lock:
            self._standing = fault

    def refuse(self) -> None:
        """Listen no more, and end all connections: whoever comes is refused by the kernel."""
        self._listening.refuse()

    def listen(self) -> None:
        """Listen again, on the same port."""
        self._listening.listen()

    def hang_up(self) -> None:
        """End all connections that are open; a request that is being worked on has no effect."""
        self._listening.hang_up()

    @contextmanager
    def outage(self, fault: Fault | None = None) -> Iterator[None]:
        """Be out while the block runs: not listening, or as `fault` says."""
        if fault is None:
            self.refuse()
        else:
            self.stand(fault)
        try:
            yield
        finally:
            self.stand(None)
            self.listen()

    # -- what it does

    def _serve(self, link: socket.socket, is_cut: threading.Event) -> None:
        link.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
        with link.makefile("rb") as stream:
            while self._exchange(link, stream, is_cut):
                pass

    def _exchange(self, link: socket.socket, stream: BufferedIOBase, is_cut: threading.Event) -> bool:
        """Read a request and do with it what is to be done; False when the connection is at its end."""
        head: Head | None = None
        try:
            head = read_head(stream)
            body = None if head is None else read_body(stream, link, head, max_bytes=self.rules.max_content_length)
        except BadRequest as error:
            return self._refuse(link, head, plain(error.status, str(error), 6))
        except TooLarge:
            return self._refuse(link, head, self._endpoint.too_large())
        if head is None or body is None:
            return False
        fault = self._due(head)
        if fault in {Line.BLACK_HOLE, Line.RESET, Line.CLOSE_BEFORE}:
            self._note(head, body, None)
            return _ended(link, fault)
        wait_s = self._time_of(len(body)) + (fault.latency_s if isinstance(fault, Slow) else 0.0)
        if wait_s > 0 and is_cut.wait(wait_s):
            self._note(head, body, None)
            return False
        return self._reply(link, head, body, fault)

    def _refuse(self, link: socket.socket, head: Head | None, reply: Reply) -> bool:
        if head is not None:
            self._note(head, b"", reply, status=reply.status)
        link.sendall(_rendered(reply, keeps_alive=False))
        return False

    def _reply(self, link: socket.socket, head: Head, body: bytes, fault: Fault | None) -> bool:
        if isinstance(fault, Answer):
            status, headers, said = fault.rendered()
            if fault.takes:
                self._endpoint.answer(head, body, wire_bytes=head.length)
            else:
                self._endpoint.count(fault.code)
            self._note(head, body, Reply(status, said, fault.code), status=status)
            link.sendall(written(status, headers, said, keeps_alive=head.keeps_alive))
            return head.keeps_alive
        reply = self._endpoint.answer(head, body, wire_bytes=head.length)
        is_silent = fault is Line.LOSE_ANSWER
        self._note(head, body, reply, status=0 if is_silent else reply.status)
        if is_silent:
            return False
        data = _rendered(reply, keeps_alive=head.keeps_alive)
        link.sendall(data[:-_CUT_BYTES] if fault is Line.CUT_ANSWER else data)
        return head.keeps_alive and fault not in {Line.CUT_ANSWER, Line.CLOSE_AFTER}

    def _due(self, head: Head) -> Fault | None:
        """Return what a request meets."""
        with self._lock:
            if self._queue and head.method == "POST" and head.path in EVENT_PATHS:
                return self._queue.popleft()
            script, standing = self._script, self._standing
        told = None if script is None else script(head)
        return standing if told is None else told

    def _time_of(self, body_bytes: int) -> float:
        """Return how long a request takes: its latency, and its turn at the rate, after all that came before it."""
        if not body_bytes or self.bytes_per_s <= 0:
            return self.latency_s
        now = self._clock.monotonic()
        with self._lock:
            self._free_at = max(self._free_at, now) + body_bytes / self.bytes_per_s
            return self._free_at - now + self.latency_s

    def _note(self, head: Head, body: bytes, reply: Reply | None, *, status: int = 0) -> None:
        code = -1 if reply is None else reply.code
        with self._lock:
            self._seen.append(Seen(head.method, head.path, head.headers, head.length, len(body), status, code))


def _rendered(reply: Reply, *, keeps_alive: bool) -> bytes:
    return written(reply.status, {}, reply.body, keeps_alive=keeps_alive)


def _ended(link: socket.socket, fault: Fault | None) -> bool:
    """End a connection in one of the ways in which no answer comes; always False."""
    if fault is Line.BLACK_HOLE:
        while link.recv(_READ_BYTES):
            pass
    elif fault is Line.RESET:
        link.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, _RESET)
    return False
