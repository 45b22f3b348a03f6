"""
Requests sent together, bent in the ways that smuggle one past a proxy, against a parser that takes nothing crooked.

What the strict parser reads before the first doubt is answered, in order; from there on the server may go on as long
as the two agree, and then it says no and closes. What nobody sent is never done. The same holds while the server
refuses uploads before it has parsed them.
"""

from __future__ import annotations

import contextlib
import json
import re
from collections import Counter
from collections.abc import Iterator
from itertools import pairwise
from pathlib import Path
from typing import Any, NamedTuple
from uuid import uuid4

import pytest
from hypothesis import HealthCheck, example, given, settings
from hypothesis import strategies as st

from tests.server import Link, Reply, Server, head, upload

HANG_S = 25.0
MIB = 1 << 20
#: Stands for eight letters of an example's own, in the ids of its events.
MARK = b"EXAMPLE_"

# -- the strict parser -------------------------------------------------------------------------------------

_LINE = re.compile(rb"([!#$%&'*+.^_`|~0-9A-Za-z-]+)( +)([!-~]+)( +)HTTP/1\.([01])")
_FIELD = re.compile(rb"([!#$%&'*+.^_`|~0-9A-Za-z-]+):[ \t]*([\t -~\x80-\xff]*?)[ \t]*")
_LENGTH = re.compile(rb"[0-9]{1,18}")
_CHUNK = re.compile(rb"([0-9A-Fa-f]{1,16})(;[ -~]*)?\r\n")
_FRAMING = {b"content-length", b"transfer-encoding", b"host"}


class Asked(NamedTuple):
    """One request, as the strict parser reads it."""

    method: bytes
    path: bytes
    key: bytes | None
    body: bytes

    @property
    def is_upload(self) -> bool:
        return (self.method, self.path) == (b"POST", b"/v1/events")


class Doubt(Exception):
    """What follows has no meaning, or two."""


class Reading(NamedTuple):
    """
    What was asked, and how many of the first of these a server has no excuse not to answer.

    `torn` is the one after them, if its head is sound and its body is not: what does not need the body may be
    answered, as the last thing. `has_wish` tells that the client wants no more.
    """

    asked: list[Asked]
    sure: int
    torn: Asked | None
    has_wish: bool


class Top(NamedTuple):
    """
    A head: `length` None is a chunked body.

    `is_odd` is what is legal and may be refused all the same, `is_last` the wish to end the connection.
    """

    asked: Asked
    length: int | None
    is_odd: bool
    is_last: bool


def read(data: bytes) -> Reading:
    """Read requests until there is doubt, the client wants no more, or the end."""
    asked: list[Asked] = []
    sure: int | None = None
    torn: Asked | None = None
    has_wish = False
    with contextlib.suppress(Doubt):
        while data:
            torn = None
            has_gap = data.startswith(b"\r\n")
            top, data = _top(data.removeprefix(b"\r\n"))
            torn = top.asked
            body, data, is_odd = _chunks(data) if top.length is None else _plain(data, top.length)
            torn = None
            # RFC 9112, 2.2: an empty line before a request should be ignored.
            if sure is None and (top.is_odd or is_odd or has_gap):
                sure = len(asked)
            asked.append(top.asked._replace(body=body))
            has_wish = top.is_last
            if has_wish:
                break
            if sure is None and (body or top.length is None) and not top.asked.is_upload:
                sure = len(asked)  # a body that nobody reads ends the connection; one in chunks is never without bytes
    return Reading(asked, len(asked) if sure is None else sure, torn, has_wish)


def _top(data: bytes) -> tuple[Top, bytes]:
    """Read a head; return it, and what follows it."""
    text, end, rest = data.partition(b"\r\n\r\n")
    first, *others = text.split(b"\r\n")
    line = _LINE.fullmatch(first)
    fields = [_FIELD.fullmatch(other) for other in others]
    if not end or line is None or not all(fields):
        raise Doubt
    values: dict[bytes, list[bytes]] = {}
    for field in fields:
        if field is not None:
            values.setdefault(field[1].lower(), []).append(field[2])
    method, gap, target, gap_too, minor = line.groups()
    codings, lengths = values.get(b"transfer-encoding", []), values.get(b"content-length", [])
    if len(values.get(b"host", [])) > 1 or len(lengths) + len(codings) > 1 or (codings and minor == b"0"):
        raise Doubt
    if [coding.lower() for coding in codings] not in ([], [b"chunked"], [b"gzip, chunked"]) or not all(
        map(_LENGTH.fullmatch, lengths)
    ):
        raise Doubt
    is_odd = (
        len(gap + gap_too) > 2
        or method not in {b"GET", b"POST"}
        or target[:1] != b"/"
        or b"#" in target
        or b"host" not in values
        or len(values) < len(fields)
        or codings not in ([], [b"chunked"])
        or any(length[:1] == b"0" != length for length in lengths)
    )
    wish, keys = values.get(b"connection", [b""])[0].lower(), values.get(b"authorization", [])
    path = re.sub(rb"\A[a-z]+://[^/]*|#.*\Z", b"", target)
    asked = Asked(method, path, keys[0] if len(keys) == 1 else None, b"")
    length = None if codings else int(lengths[0]) if lengths else 0
    return Top(asked, length, is_odd, wish == b"close" or (minor == b"0" and wish != b"keep-alive")), rest


def _plain(data: bytes, length: int) -> tuple[bytes, bytes, bool]:
    if len(data) < length:
        raise Doubt
    return data[:length], data[length:], False


def _chunks(data: bytes) -> tuple[bytes, bytes, bool]:
    """Read a chunked body; return it, what follows it, and whether there were extensions."""
    body, is_odd = b"", False
    while True:
        size = _CHUNK.match(data)
        if size is None:
            raise Doubt
        length, data = int(size[1], 16), data[size.end() :]
        is_odd = is_odd or size[2] is not None or size[1][:1] == b"0" != size[1]
        if not length:
            trailers, end, rest = (b"\r\n" + data).partition(b"\r\n\r\n")
            fields = [_FIELD.fullmatch(trailer) for trailer in trailers.split(b"\r\n")[1:]]
            if not end or any(field is None or field[1].lower() in _FRAMING for field in fields):
                raise Doubt
            return body, rest, is_odd or bool(fields)
        if data[length : length + 2] != b"\r\n":
            raise Doubt
        body, data = body + data[:length], data[length + 2 :]


# -- what is sent ------------------------------------------------------------------------------------------


class Parts(NamedTuple):
    """A request in the pieces that are bent."""

    line: bytes
    fields: tuple[bytes, ...]
    body: bytes

    def whole(self) -> bytes:
        return b"\r\n".join([self.line, *self.fields, b"", self.body])


HOST, KEY = b"Host: collector.test", b"Authorization: Bearer dev-key"
SMUGGLED = upload(b'[{"id":"EXAMPLE_.smuggled"}]')


def plain(body: bytes) -> Parts:
    return Parts(b"POST /v1/events HTTP/1.1", (HOST, KEY, b"Content-Length: %d" % len(body)), body)


def chunked(body: bytes, step: int) -> Parts:
    parts = [body[at : at + step] for at in range(0, len(body), step)]
    chunks = b"".join(b"%x\r\n%s\r\n" % (len(part), part) for part in parts) + b"0\r\n\r\n"
    return Parts(b"POST /v1/events HTTP/1.1", (HOST, b"Transfer-Encoding: chunked", KEY), chunks)


def get(target: bytes) -> Parts:
    return Parts(b"GET " + target + b" HTTP/1.1", (HOST,), b"")


events = st.integers(0, 999).map(lambda n: b'[{"id":"EXAMPLE_.%03d"}]' % n)
bodies = events | st.sampled_from([b"", SMUGGLED, b"0\r\n\r\n" + SMUGGLED, b"[{}]\r\n"])
sound = st.one_of(
    bodies.map(plain),
    st.builds(chunked, bodies, st.integers(1, 300)),
    st.sampled_from([get(b"/healthz"), get(b"/nothing/a"), get(b"/nothing/b")]),
)

EXTRA = [
    b"Content-Length: 0", b"Content-Length: 5", b"content-length: 0", b"Content-Length : 0", b"Content_Length: 0",
    b"Content-Length\x0b: 0", b"Content-Length: ", b"Content-Length: 5, 5", b"Content-Length: 5\r\nContent-Length: 6",
    b"Transfer-Encoding: chunked", b"transfer-encoding: chunked", b"Transfer-Encoding: identity",
    b"Transfer-Encoding: gzip, chunked", b"Transfer-Encoding: chunked, identity", b"Transfer-Encoding: xchunked",
    b"Transfer-Encoding : chunked", b"Transfer_Encoding: chunked", b"Transfer-Encoding: \x0bchunked",
    b"Transfer-Encoding:\r\n chunked", b"Transfer-Encoding: \"chunked\"", b"Transfer-Encoding: chunked;a",
    b"X: a\r\n b", b" X: a", b"\tX: a", b"X: a\nContent-Length: 0", b"X: a\rContent-Length: 0", b"X: a\n", b"\nX: a",
    b"X: a\n\nGET /healthz HTTP/1.1\nHost: x\n", b"X: a\0", b"X: a\x7f", b"X\0: a", b"X", b":", b": x", b"X : a",
    b"X\t: a", b"(X): a", b"Host: other.test", b"Connection: close", b"Connection: keep-alive", b"Connection: ",
    b"Connection: close\r\nConnection: keep-alive", b"Upgrade: h2c\r\nConnection: upgrade", b"Keep-Alive: 1",
    b"X-HTTP-Method-Override: GET", b"Authorization: Bearer wrong", b"X: \xff\xfe",
]  # fmt: skip
LENGTHS = [
    b"+%d", b"-%d", b"0%d", b"%d0", b"%d, %d", b"0x%x", b"%d_0", b"%d.0", b"%d ", b"\t%d", b"%d\x0b", b"\xb2%d", b"%d;",
    b"%d\0", b"", b"99999999999999999999999", b"18446744073709551616", b"4294967296",
]  # fmt: skip
CODINGS = [
    b"Chunked", b"chunked ", b"chunked,", b",chunked", b"chunked, chunked", b"identity, chunked", b"gzip, chunked",
    b"chunked, identity", b"x, chunked", b"xchunked", b"chunkedx", b"chunked;q=1", b"\x0bchunked", b"chunked\x0b",
    b"'chunked'", b"identity\r\nTransfer-Encoding: chunked", b"chunked\r\nTransfer-Encoding: identity", b"\r\n chunked",
    b"",
]  # fmt: skip
LINES = [
    b"POST  /v1/events HTTP/1.1", b"POST /v1/events  HTTP/1.1", b"POST\t/v1/events HTTP/1.1",
    b" POST /v1/events HTTP/1.1", b"GET /healthz HTTP/1.1",
    b"POST /v1/events HTTP/1.1 ", b"POST /v1/events", b"POST /v1/events HTTP/1.0", b"POST /v1/events HTTP/0.9",
    b"POST /v1/events HTTP/2.0", b"POST /v1/events HTTP/1.10", b"POST /v1/events http/1.1", b"post /v1/events HTTP/1.1",
    b"GET /v1/events HTTP/1.1", b"HTTP/1.1 200 OK", b"POST http://collector.test/v1/events HTTP/1.1",
    b"POST /v1/events#a HTTP/1.1", b"POST /v1/\xff HTTP/1.1", b"PO\0ST /v1/events HTTP/1.1", b"PRI * HTTP/2.0",
    b"POST /v1/events HTTP/1.1\r", b"POST /v1/events HTTP/1.1\n", b"POST /v1/events HTTP/1.1\r\n",
]  # fmt: skip
SIZES = [
    (rb"\A", b"0x"), (rb"\A", b"+"), (rb"\A", b"-"), (rb"\A", b" "), (rb"\A", b"0"), (rb"\A", b"00000000"),
    (rb"\A", b"f" * 16), (rb"\A", b"1" + b"0" * 16), (rb"\r\n", b" \r\n"), (rb"\r\n", b";a=b\r\n"), (rb"\r\n", b"\n"),
    (rb"\r\n", b";\n\r\n"), (rb"\r\n", b"\r\r\n"), (rb"\r\n\Z", b""), (rb"\r\n\Z", b"X: a\r\n\r\n"),
    (rb"0\r\n\r\n\Z", b"0\r\nContent-Length: 5\r\n\r\n"), (rb"0\r\n\r\n\Z", b"0\n\n"), (rb"0\r\n\r\n\Z", b"0\r\n\n"),
    (rb"0\r\n\r\n\Z", b"-0\r\n\r\n"), (rb"\A[0-9a-f]+", b""), (rb"\A[0-9a-f]+", b"G"), (rb"\A[0-9a-f]+", b"2_0"),
]  # fmt: skip
AROUND = [b"\r\n", b"\n", b"\r", b"\r\n\r\n", b"\0", b" ", b"0\r\n\r\n", b"}", b"x"]
PIECES = [b"", b"\r\n", b"\n", b"\r", b" ", b"\0", b":", b"0", b"9"]


def with_coding(parts: Parts, value: bytes) -> Parts:
    """Write its Transfer-Encoding in another way."""
    fields = (b"Transfer-Encoding: " + value if field.startswith(b"Transfer") else field for field in parts.fields)
    return parts._replace(fields=tuple(fields))


def with_length(parts: Parts, value: bytes) -> Parts:
    """Write its Content-Length in another way."""
    written = value % ((len(parts.body),) * value.count(b"%")) if b"%" in value else value
    fields = (b"Content-Length: " + written if field.startswith(b"Content-Length") else field for field in parts.fields)
    return parts._replace(fields=tuple(fields))


def bent(parts: Parts) -> list[bytes]:
    """Give a request a second meaning, or none, in each way that is known here."""
    fields, lines = parts.fields, [parts.line, *parts.fields, b"", parts.body]
    places = (0, len(fields))
    found = [parts._replace(fields=(*fields[:at], extra, *fields[at:])) for extra in EXTRA for at in places]
    found += [with_length(parts, value) for value in LENGTHS]
    found += [with_length(parts, b"%d" % max(0, len(parts.body) + off)) for off in (-2, -1, 1, 2, len(SMUGGLED))]
    found += [parts._replace(line=line) for line in LINES]
    found += [parts._replace(body=re.sub(old, new, parts.body, count=1)) for old, new in SIZES]
    found += [with_coding(parts, coding) for coding in CODINGS]
    whole = [one.whole() for one in found] + [junk + parts.whole() for junk in AROUND]
    whole += [parts.whole() + junk for junk in AROUND]
    for at in range(1, len(lines)):
        whole += [b"\r\n".join(lines[:at]) + end + b"\r\n".join(lines[at:]) for end in (b"\n", b"\r", b"\n\r")]
    return [one for one in dict.fromkeys(whole) if one != parts.whole()]


@st.composite
def streams(draw: st.DrawFn) -> bytes:
    """Some requests, one of them bent, or none; and perhaps a piece somewhere that does not belong there."""
    requests = draw(st.lists(sound, min_size=1, max_size=5))
    crooked = draw(st.none() | st.integers(0, len(requests) - 1))
    data = (
        b"".join(draw(st.sampled_from(bent(one))) if n == crooked else one.whole() for n, one in enumerate(requests))
        + SMUGGLED
    )
    if draw(st.integers(0, 3)) == 0:
        at, over = draw(st.integers(0, len(data))), draw(st.integers(0, 3))
        data = data[:at] + draw(st.sampled_from(PIECES)) + data[at + over :]
    return data


# -- what must be so ---------------------------------------------------------------------------------------


class Judge:
    """A server, and what the strict parser says that it may keep."""

    def __init__(self, server: Server, admin: Link, *, is_open: bool) -> None:
        self.server = server
        self.is_open = is_open
        self.kept: Counter[str] = Counter()
        self._admin = admin

    def accepted(self) -> int:
        return int(self._admin.send(head("/ledger", method="GET", key=None)).must_reply().json["accepted"])

    def is_answer(self, reply: Reply, asked: Asked) -> bool:
        """Tell whether this is what that request is answered with."""
        if asked.is_upload:
            if not self.is_open:
                return (503, "backpressure") == (reply.status, reply.json["error"])
            if asked.key != b"Bearer dev-key":
                return reply.status == 401
            count = len(events_of(asked))
            return (200, count) == (reply.status, reply.json.get("accepted")) or (not count and reply.status == 400)
        if (asked.method, asked.path) == (b"GET", b"/healthz"):
            return (200, {"status": "ok"}) == (reply.status, reply.json)
        if asked.method == b"GET" and asked.path.startswith(b"/nothing/"):
            return reply.status == 404 and repr(asked.path.decode()) in reply.json["message"]
        return 400 <= reply.status < 500

    def is_refusal(self, reply: Reply, torn: Asked | None) -> bool:
        """Tell whether this is a refusal, or the answer to a request whose body does not matter."""
        if torn is not None and self.is_answer(reply, torn) and not (torn.is_upload and self.is_open):
            return True
        return 400 <= reply.status <= 505 and ends(reply)

    def judge(self, data: bytes, cuts: list[int]) -> None:
        """Send it, and hold what comes back against what the strict parser reads."""
        data = data.replace(MARK, uuid4().hex[:8].encode())
        asked, sure, torn, has_wish = read(data)
        before = self.accepted()
        # What is sent to one who was asked to close may come too late, and then it is a reset that comes back.
        replies = self.send(data, [] if has_wish else cuts)
        gained = self.accepted() - before

        done = 0
        while done < min(len(replies), len(asked)) and self.is_answer(replies[done], asked[done]):
            done += 1
        if not self.is_open and done and ends(replies[done - 1]):
            sure = min(sure, done)  # a body that is not skipped ends the connection
        refused = replies[done:]

        assert done >= sure, (asked[done], refused)
        # One answer more than requests that were understood, at the most, and it is a refusal and the last word.
        assert len(refused) <= 1, refused
        assert all(self.is_refusal(reply, torn) for reply in refused), refused
        assert not [reply for reply in replies[:-1] if ends(reply)]

        kept = [
            event
            for one, reply in zip(asked, replies[:done], strict=False)
            if one.is_upload and reply.status == 200
            for event in events_of(one)
        ]

        assert len(kept) == gained
        self.kept.update(event["id"] for event in kept if "id" in event)

    def send(self, data: bytes, cuts: list[int]) -> list[Reply]:
        """Send it in pieces over a connection of its own, and return every answer."""
        edges = sorted({0, *(cut for cut in cuts if cut < len(data)), len(data)})
        with self.server.link(timeout_s=HANG_S) as link:
            for begin, stop in pairwise(edges):
                link.send(data[begin:stop])
            return link.half_close().replies()


def ends(reply: Reply) -> bool:
    """Tell whether an answer says that it is the last one."""
    return reply.headers.get("connection") == "close"


def events_of(asked: Asked) -> list[dict[str, Any]]:
    """Return the events in an upload, which is an array or nothing."""
    try:
        events = json.loads(asked.body.decode())
    except ValueError:
        return []
    return events if isinstance(events, list) else []


@pytest.fixture(scope="module")
def taking(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Judge]:
    """A server that takes uploads; at the end, what it kept is what the strict parser saw."""
    folder = tmp_path_factory.mktemp("taking")
    # A busy machine is no overload here.
    with Server(folder, body_deadline_s=5, max_lag_s=60) as server, Link(server.admin_port) as admin:
        judge = Judge(server, admin, is_open=True)
        yield judge

        server.settled()

        # One that has no id in it was given one.
        assert judge.kept == Counter(line["id"] for line in server.events() if "id" in line["event"])
        assert judge.kept
        assert not server.logged("internal.error")


@pytest.fixture(scope="module")
def refusing(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Judge]:
    """A server whose spool is full, and which refuses uploads unread."""
    folder: Path = tmp_path_factory.mktemp("refusing")
    (folder / "data").write_text("a file, where the sink wants a directory")
    with Server(folder, body_deadline_s=5, drain_s=1, spool_bytes=MIB, segment_bytes=65_536) as server:
        while server.post([{"id": "room", "x": "y" * 20_000}]).status == 200:
            pass
        while server.post([{"id": "room"}]).status == 200:
            pass
        # What goes through the parser is answered in gunicorn's name.
        assert "server" not in server.post([{"id": "room"}]).headers
        with Link(server.admin_port) as admin:
            yield Judge(server, admin, is_open=False)


cut_places = st.lists(st.integers(0, 600), max_size=3)
many = settings(max_examples=200, suppress_health_check=[HealthCheck.function_scoped_fixture, HealthCheck.too_slow])


@many
@given(data=streams(), cuts=cut_places)
@example(data=plain(SMUGGLED).whole() + SMUGGLED, cuts=[])
@example(data=chunked(b"0\r\n\r\n" + SMUGGLED, 3).whole() + SMUGGLED, cuts=[100])
def test_only_what_was_asked_without_a_doubt_is_done(taking: Judge, data: bytes, cuts: list[int]) -> None:
    """Each answer belongs to a request that was sent, and nothing after a doubtful one is anybody's request."""
    taking.judge(data, cuts)


@many
@given(data=streams(), cuts=cut_places)
@example(data=plain(SMUGGLED).whole() + get(b"/healthz").whole(), cuts=[])
def test_a_server_that_refuses_unread_is_not_fooled_either(refusing: Judge, data: bytes, cuts: list[int]) -> None:
    """It skips a body by a look at the head: whoever makes it skip too little has a request of his own in there."""
    refusing.judge(data, cuts)


def wrongs(judge: Judge) -> list[str]:
    """Send each bent request between two straight ones, and say which the server and the strict parser read apart."""
    event, found = b'[{"id":"EXAMPLE_.bent"}]', []
    for parts in (plain(event), chunked(event, 20), get(b"/healthz")):
        for one in bent(parts):
            try:
                judge.judge(plain(b"[{}]").whole() + one + SMUGGLED, [])
            except AssertionError as error:
                found.append(f"{one!r}: {str(error)[:300]}")
    return found


def test_every_known_way_to_bend_a_request_is_read_as_the_strict_parser_reads_it(taking: Judge) -> None:
    """Chance does not come by each of them in every run."""
    assert not (found := wrongs(taking)), "\n".join(found)


def test_every_known_way_to_bend_a_request_fools_no_server_that_refuses_unread(refusing: Judge) -> None:
    """The next one may be read when there is room again: it must be the one that the client sent."""
    assert not (found := wrongs(refusing)), "\n".join(found)


def test_the_strict_parser_reads_what_is_plain_and_doubts_what_is_not() -> None:
    """A parser that doubts everything would agree with any server."""
    requests = [plain(b"{}"), chunked(b'{"id":"a"}', 4), get(b"/healthz"), plain(b"")]
    data = b"".join(one.whole() for one in requests)

    assert [b"{}", b'{"id":"a"}', b"", b""] == [one.body for one in read(data).asked]
    assert (4, 4) == (len(read(data).asked), read(data).sure)
    for bad in (b"X: a\n", b"Content-Length: 2", b" X: a", b"Transfer-Encoding: chunked"):
        crooked = requests[0]._replace(fields=(*requests[0].fields, bad)).whole()

        assert 1 == len(read(requests[1].whole() + crooked + SMUGGLED).asked)
