"""Two Collectors that differ in nothing but the hot door, and one case put to both of them."""

from __future__ import annotations

import contextlib
import re
import select
import socket
import struct
import termios
import time
from collections.abc import Iterable, Iterator
from concurrent.futures import ThreadPoolExecutor
from fcntl import ioctl
from pathlib import Path
from typing import Any, NamedTuple

import msgspec

from tests.doors.seen import PATH, Seen
from tests.server import PATIENCE_S, ROOT, Link, Server, head, tenant

COMMAND = ("-m", "gunicorn", "-c", str(ROOT / "gunicorn.conf.py"), "tests.doors.twin:app")

MAX_HEAD = 4096
MAX_UPLOAD = 65_536
MAX_INFLATED = 131_072
MAX_EVENTS = 50
MAX_EVENT = 2000
BODY_DEADLINE_S = 3.0

TENANTS = (
    tenant("dev", "dev-key", max_event_bytes=MAX_EVENT)
    + tenant("tight", "tight-key", events_per_s=0.001, burst_s=1.0)
    + tenant("off", "off-key", enabled=False)
    + tenant("hidden", "hidden-key", anonymise_ip=True)
    + tenant("once", "once-key", dedupe_window_s=60)
    + tenant("sunk", "sunk-key", ack="sink", route="sunk")
    + tenant("clever", "clever-key", clevertap_account="ACC-1")
)

#: What the ledgers of both must agree in at the end.
_BOOKS = ("balanced", "accepted", "delivered", "deduplicated", "pending")
#: What follows a case on its connection, to see whether that still carries requests: a refusal is an answer, too, and
#: the cheapest that there is.
AFTER = b"\r\n\r\n"
_DATE = re.compile(rb"(?<=\r\nDate: )[A-Z][a-z]{2}, \d\d [A-Z][a-z]{2} \d{4} \d\d:\d\d:\d\d GMT(?=\r\n)")
#: Of linux/netlink.h and linux/sock_diag.h.
_SOCK_DIAG, _SOCK_DIAG_BY_FAMILY = 4, 20
#: Of each value that differs, in characters.
_MOST_SHOWN = 1500
#: Between two looks whether the server has read, in milliseconds.
_LOOK_MS = 1
#: Closes by a reset: the case is over, and no port is held for a minute.
_NO_LINGER = struct.pack("ii", 1, 0)
#: Half of what an idle connection has, in seconds.
_REST_S = 30.0


class Case(NamedTuple):
    """
    Bytes for a connection of their own.

    Each part is sent when the server has read the one before it; a `polite` client waits for an answer before. With the
    last part it may `ask` once more in the same breath. Then it ends its half of the connection, or `resets` it, or
    `waits` until the server ends it.
    """

    parts: tuple[bytes, ...]
    asks: bool = False
    polite: bool = False
    resets: bool = False
    waits: bool = False

    @property
    def data(self) -> bytes:
        """All that is sent."""
        return b"".join(self.parts) + (AFTER if self.asks else b"")


class Told(NamedTuple):
    """All that the client was sent, but for the dates, how it ended, and what the case left behind."""

    answers: bytes
    end: str
    seen: Seen

    @property
    def statuses(self) -> list[int]:
        """The statuses of the answers, as far as they are plain to see."""
        return [int(status) for status in re.findall(rb"(?:\A|[\n}])HTTP/1\.1 (\d{3}) ", self.answers)]


class Twin:
    """One of the two, while its server runs."""

    def __init__(self, server: Server) -> None:
        self.server = server
        self._admin = Link(server.admin_port)
        self._asked_at = time.monotonic()
        self._is_fresh = False

    def close(self) -> None:
        """Hang up."""
        self._admin.sock.close()

    def tell(self, case: Case) -> Told:
        """Put a case to it."""
        if not self._is_fresh:
            self._see()
        self._is_fresh = False
        answers, end = self._talk(case)
        seen = self._see()
        self._is_fresh = True
        return Told(_DATE.sub(b"*", answers), end, seen)

    def _see(self) -> Seen:
        if time.monotonic() > self._asked_at + _REST_S:
            # Other tests came between, and an idle connection is closed after a while.
            self._renew()
        reply = self._admin.send(head(PATH, method="GET", key=None)).must_reply()
        self._asked_at = time.monotonic()
        if "close" == reply.headers["connection"]:
            # It is going away.
            self._renew()
        return msgspec.json.decode(reply.body, type=Seen)

    def _renew(self) -> None:
        self._admin.sock.close()
        self._admin = Link(self.server.admin_port)

    def _talk(self, case: Case) -> tuple[bytes, str]:
        answers = b""
        with self._connect() as sock:
            try:
                for part in case.parts[:-1]:
                    sock.sendall(part)
                    if not case.polite:
                        wait_until_read(sock)
                        continue
                    answers += (one := answer(sock))
                    if not one or b"\r\nConnection: close\r\n" in one:
                        return answers + _read_all(sock)[0], "closed"
                sock.sendall(case.parts[-1] + (AFTER if case.asks else b""))
                if case.resets:
                    wait_until_read(sock)
                    return b"", "reset by us"
                if not case.waits:
                    sock.shutdown(socket.SHUT_WR)
            except OSError:
                pass  # the server has closed, and may have answered before
            more, end = _read_all(sock)
            answers += more
            if len(case.parts) > 1 and b"\r\nConnection: close\r\n" in answers:
                # What is sent after the end is answered by a reset, before the end is read or after it.
                end = "closed"
            return answers, end

    def _connect(self) -> socket.socket:
        sock = socket.create_connection(("127.0.0.1", self.server.port), PATIENCE_S)
        sock.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
        sock.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, _NO_LINGER)
        return sock

    def stall(self, sent: Iterable[bytes]) -> list[Told]:
        """Send each over a connection of its own, all at once, and nothing more; return what each was told."""
        self._see()
        links = self._stalled(sent)
        told = [_read_all(link) for link in links]
        for link in links:
            link.close()
        seen = self._see()
        return [Told(_DATE.sub(b"*", answers), end, seen) for answers, end in told]

    def tell_beside(self, sent: Iterable[bytes], case: Case) -> Told:
        """Put a case to it while clients that have sent so much stall; they hang up after it."""
        self._see()
        links = self._stalled(sent)
        answers, end = self._talk(case)
        for link in links:
            link.close()
        return Told(_DATE.sub(b"*", answers), end, self._see())

    def _stalled(self, sent: Iterable[bytes]) -> list[socket.socket]:
        links = []
        for data in sent:
            links.append(self._connect())
            links[-1].sendall(data)
            wait_until_read(links[-1])
        return links


class Pair:
    """Both: `plain` serves all by Flask, `hot` what it can by the hot door."""

    def __init__(self, plain: Twin, hot: Twin) -> None:
        self.plain = plain
        self.hot = hot
        # Whether both have been told the same so far.
        self._is_even = True

    def tell(self, case: Case) -> tuple[Told, Told]:
        """
        Put a case to both; once more if they differ.

        A machine that stood still for seconds, as virtual ones do, may let a deadline pass at one of them alone. What
        comes of the bytes comes again: nothing of a case is left for the next one.
        """
        plain, hot = self.plain.tell(case), self.hot.tell(case)
        if same(plain) == same(hot):
            return plain, hot
        self._is_even = False
        return self.plain.tell(case), self.hot.tell(case)

    def agree(self, case: Case) -> Told:
        """Put a case to both, hold that they agree in everything, and return what the hot one told."""
        plain, hot = self.tell(case)
        assert same(plain) == same(hot), explain(case, plain, hot)
        return hot

    def stall(self, sent: list[bytes]) -> tuple[list[Told], list[Told]]:
        """Let clients of both stall, all at once, each at its own place."""
        with ThreadPoolExecutor(2) as pool:
            plain, hot = pool.map(lambda twin: twin.stall(sent), (self.plain, self.hot))
        return plain, hot

    def settle(self) -> None:
        """Wait until all that was accepted is delivered, and hold that both sinks agree, if no case parted them."""
        twins = (self.plain, self.hot)
        ledgers = [{name: twin.server.settled()[name] for name in _BOOKS} for twin in twins]
        lines = [sorted(twin.server.lines()) for twin in twins]
        if not self._is_even:
            return
        assert ledgers[0] == ledgers[1], f"{ledgers[0]} is not {ledgers[1]}"
        assert lines[0] == lines[1], f"{set(lines[0]) ^ set(lines[1])} is in one sink alone"

    def differences(self, cases: Iterable[Case]) -> list[str]:
        """Put cases to both, and say where they part."""
        asked = ((case, *self.tell(case)) for case in cases)
        return [explain(case, plain, hot) for case, plain, hot in asked if same(plain) != same(hot)]


def same(told: Told) -> tuple[Any, ...]:
    """Return what must be the same, whichever door it came through."""
    return told.answers, told.end, told.seen.kept, told.seen.counted


def explain(case: Case, plain: Told, hot: Told) -> str:
    """Say what was sent, and where the two part."""
    lines = [f"the doors differ at {shortened(case)}"]
    for name, one, other in (
        ("answers", plain.answers, hot.answers),
        ("end", plain.end, hot.end),
        ("kept", plain.seen.kept, hot.seen.kept),
        ("counted", plain.seen.counted, hot.seen.counted),
    ):
        if one != other:
            lines.append(f"{name}, plain: {shortened(one)}\n{name},   hot: {shortened(other)}")
    return "\n".join(lines)


def told(differences: list[str]) -> str:
    """Show the first differences, and how many there are."""
    return f"{len(differences)} differences; the first:\n\n" + "\n\n".join(differences[:5])


def shortened(value: object) -> str:
    """Write a value, without the middle of a long one."""
    text = repr(value)
    return text if len(text) <= _MOST_SHOWN else f"{text[: _MOST_SHOWN // 2]} … {text[-_MOST_SHOWN // 2 :]}"


@contextlib.contextmanager
def running(folder: Path, **settings: object) -> Iterator[Pair]:
    """Serve twice."""
    toml = f'[routes.sunk]\nsink = "file:%s?fsync=0"\n{TENANTS}'
    with contextlib.ExitStack() as stack:
        twins = []
        for name, is_hot in (("plain", 0), ("hot", 1)):
            (folder / name).mkdir()
            wanted = {
                "max_header_bytes": MAX_HEAD,
                "max_upload_bytes": MAX_UPLOAD,
                "max_inflated_bytes": MAX_INFLATED,
                "max_events": MAX_EVENTS,
                "body_deadline_s": BODY_DEADLINE_S,
                "trusted_hops": 1,
                "spool_bytes": 256 << 20,
                "hot_door": is_hot,
                **settings,
            }
            server = Server(folder / name, toml=toml % (folder / name / "data"), command=COMMAND, **wanted)
            # The order of a set must be the same in both, as that of the methods in Allow.
            server._env["PYTHONHASHSEED"] = "0"
            twin = Twin(stack.enter_context(server))
            stack.callback(twin.close)
            twins.append(twin)
        yield Pair(*twins)
        for twin in twins:
            assert not twin.server.logged("internal.error"), twin.server.tail()
            assert not [line for line in twin.server.log if line.get("message") == "a connection failed"]


@contextlib.contextmanager
def pair(folder: Path, **settings: object) -> Iterator[Pair]:
    """Serve twice; at the end everything that was accepted lies in both sinks, the same."""
    with running(folder, **settings) as both:
        yield both
        both.settle()


# -- sockets -----------------------------------------------------------------------------------------------


def _read_all(sock: socket.socket) -> tuple[bytes, str]:
    """Read to the end; return what came, and what the end was."""
    answers = b""
    try:
        while data := sock.recv(65536):
            answers += data
    except OSError as error:
        return answers, type(error).__name__
    return answers, "closed"


def answer(sock: socket.socket) -> bytes:
    """Return the next answer, or what there is of it when the server closes."""
    data = b""
    while (end := data.find(b"\r\n\r\n")) < 0 or len(data) < end + 4 + _length(data[:end]):
        more = sock.recv(65536)
        if not more:
            break
        data += more
    return data


def _length(fields: bytes) -> int:
    found = re.search(rb"\r\nContent-Length: (\d+)", fields)
    return int(found[1]) if found else 0


def wait_until_read(sock: socket.socket) -> None:
    """Return once the server has read all that was sent, or has closed."""
    until = time.monotonic() + PATIENCE_S
    poll = select.poll()
    poll.register(sock, select.POLLRDHUP | select.POLLHUP)
    with socket.socket(socket.AF_NETLINK, socket.SOCK_RAW, _SOCK_DIAG) as kernel:
        # The wait for the end is the rest between two looks.
        while (_unsent(sock) or _unread(kernel, sock)) and not poll.poll(_LOOK_MS):
            assert time.monotonic() < until, "the server does not read"


def _unsent(sock: socket.socket) -> int:
    """Count the bytes that have not come to the other end yet."""
    (count,) = struct.unpack("=i", ioctl(sock, termios.TIOCOUTQ, bytes(4)))
    return int(count)


def _unread(kernel: socket.socket, sock: socket.socket) -> int:
    """Count the bytes that the other end has not read; the kernel is asked for that one socket (sock_diag(7))."""
    (ip, port), (peer_ip, peer_port) = sock.getsockname(), sock.getpeername()
    places = struct.pack(">HH16s16s", peer_port, port, socket.inet_aton(peer_ip), socket.inet_aton(ip))
    asked = struct.pack("=BBBxI", socket.AF_INET, socket.IPPROTO_TCP, 0, 0xFFFFFFFF)
    asked += places + struct.pack("=Iq", 0, -1)
    kernel.send(struct.pack("=IHHII", 16 + len(asked), _SOCK_DIAG_BY_FAMILY, 1, 0, 0) + asked)
    reply = kernel.recv(65536)
    # Without an answer of that kind there is no such socket any more.
    if struct.unpack_from("=H", reply, 4) != (_SOCK_DIAG_BY_FAMILY,):
        return 0
    (count,) = struct.unpack_from("=I", reply, 16 + 56)
    return int(count)
