"""
What stands between the stress test and a HEC, so that there can be outages: a child of ours, or a relay on loopback.

A real HEC is not ours to stop. Requests go through a port of this machine instead, which passes them on, checks the
real one's certificate, and can be closed.
"""

from __future__ import annotations

import http.client
import socket
import ssl
import threading
from io import BufferedIOBase
from urllib.parse import urlsplit

import msgspec

from collector.control.hec.child import HecChild, Order
from collector.control.hec.exchange import BadRequest, Head, read_body_as_it_is, read_head, written
from collector.control.hec.listening import Listening

#: A request that is passed on has so long for each step, in seconds; the sender's own patience is 10.
_TIMEOUT_S = 15.0
_MOST_ANSWER_BYTES = 1 << 20
#: Headers that are of one connection, or made anew.
_OWN_HEADERS = frozenset({"host", "connection", "content-length", "transfer-encoding", "keep-alive"})


class Counted(msgspec.Struct, frozen=True):
    """Lines that have arrived, and how many of them for a second time; None: nobody can tell."""

    lines: int | None = None
    repeated: int | None = None


class ChildTarget:
    """A simulated HEC in a process of its own; `out` is its way to fail, a word of `child.Order`."""

    def __init__(self, child: HecChild, *, out: str = "refusing") -> None:
        self._child = child
        self._out = out

    def begin(self) -> None:
        """Count anew, from nothing."""
        self._child.tell(Order(out="none", forget=True))

    def fail(self) -> None:
        """Be out."""
        self._child.tell(Order(out=self._out))

    def recover(self) -> None:
        """Be there again."""
        self._child.tell(Order(out="none"))

    def counted(self) -> Counted:
        """Return what has arrived."""
        books = self._child.books()
        return Counted(books.indexed, books.repeated)

    def busy_s(self) -> float | None:
        """Return how much CPU it has used, in seconds."""
        return self._child.cpu_s()


class Relay:
    """
    Passes requests on to a HEC at `url`, while its `with` runs; `ca_file` is of whoever signed its certificate.

    It keeps a connection to HEC for each that comes, and says nothing of its own: what goes wrong behind it ends the
    connection in front of it.
    """

    def __init__(self, url: str, *, ca_file: str | None = None) -> None:
        self._to = urlsplit(url)
        self._context = ssl.create_default_context(cafile=ca_file) if self._to.scheme == "https" else None
        self._listening = Listening(self._serve)

    def __enter__(self) -> Relay:
        self._listening.listen()
        return self

    def __exit__(self, *exc: object) -> None:
        self._listening.close()

    @property
    def url(self) -> str:
        """Return where it listens."""
        return f"http://127.0.0.1:{self._listening.port}"

    def begin(self) -> None:
        """Be there."""
        self._listening.listen()

    def fail(self) -> None:
        """Refuse connections, and end those that are open."""
        self._listening.refuse()

    def recover(self) -> None:
        """Be there again."""
        self._listening.listen()

    def counted(self) -> Counted:
        """Say that nobody can tell: what a real HEC has indexed is for a search to say."""
        return Counted()

    def busy_s(self) -> float | None:
        """Say that it is not known."""
        return None

    def _serve(self, link: socket.socket, _is_cut: threading.Event) -> None:
        link.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
        onward = connection_to(self._to.scheme, self._to.netloc, self._context, timeout_s=_TIMEOUT_S)
        try:
            with link.makefile("rb") as stream:
                while self._pass_on(link, stream, onward):
                    pass
        except (BadRequest, http.client.HTTPException):
            return
        finally:
            onward.close()

    def _pass_on(self, link: socket.socket, stream: BufferedIOBase, onward: http.client.HTTPConnection) -> bool:
        head = read_head(stream)
        if head is None:
            return False
        body = read_body_as_it_is(stream, head)
        if body is None:
            return False
        headers = {name: value for name, value in head.headers.items() if name not in _OWN_HEADERS}
        onward.request(head.method, _target(self._to.path, head), body=body or None, headers=headers)
        answer = onward.getresponse()
        said = answer.read(_MOST_ANSWER_BYTES)
        kept = {name: value for name, value in answer.getheaders() if name.lower() not in _OWN_HEADERS}
        link.sendall(written(answer.status, kept, said, keeps_alive=head.keeps_alive))
        return head.keeps_alive and not answer.will_close


def _target(base: str, head: Head) -> str:
    return f"{base.rstrip('/')}{head.target}"


def connection_to(
    scheme: str, netloc: str, context: ssl.SSLContext | None, *, timeout_s: float
) -> http.client.HTTPConnection:
    """Make a connection that is not open yet."""
    if scheme == "https":
        return http.client.HTTPSConnection(netloc, timeout=timeout_s, context=context)
    return http.client.HTTPConnection(netloc, timeout=timeout_s)
