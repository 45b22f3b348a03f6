"""
What strangers send, over real sockets to a real server: each input is refused, or taken, as the contract says.

After each of them the worker is the one it was, the ledger balances, and the sink has what was acknowledged, each
event once, and nothing else.
"""

from __future__ import annotations

import gzip
import json
import threading
import zlib
from collections import Counter
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from tests.server import Reply, Server, head, ids, tenant, upload, wait_for

MIB = 1 << 20
MAX_UPLOAD = 4 * MIB
#: The body deadline of the server here, in seconds.
DEADLINE_S = 2
TENANTS = (
    tenant("dev", "dev-key")
    + tenant("off", "off-key", enabled=False)
    + tenant("large", "large-key", max_event_bytes=3 * MIB)
)


class Door:
    """The server, and the ids that a test saw acknowledged."""

    def __init__(self, server: Server) -> None:
        self.server = server
        self.kept: list[str] = []

    def post(self, body: bytes | list[dict[str, Any]], *fields: str, key: str | None = "dev-key") -> Reply:
        return self.server.post(body, *fields, key=key)

    def peak_bytes(self, *, reset: bool = False) -> int:
        """Return the most memory that the worker ever had resident, since the last reset."""
        (pid,) = self.server.worker_pids()
        if reset:
            Path(f"/proc/{pid}/clear_refs").write_text("5")
        (line,) = (one for one in Path(f"/proc/{pid}/status").read_text().splitlines() if one.startswith("VmHWM:"))
        return int(line.split()[1]) * 1024


@pytest.fixture(scope="module")
def server(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Server]:
    with Server(tmp_path_factory.mktemp("bad-input"), toml=TENANTS, body_deadline_s=DEADLINE_S) as running:
        yield running


@pytest.fixture
def door(server: Server) -> Iterator[Door]:
    before, pids, said = server.settled(), server.worker_pids(), len(server.output())
    server.lines(fresh=True)
    door = Door(server)
    yield door
    assert 200 == server.post([{"id": "after"}]).status
    ledger = server.settled()
    stored = Counter(event["id"] for event in server.events(fresh=True))

    assert pids == server.worker_pids()
    assert Counter([*door.kept, "after"]) == stored
    assert len(door.kept) + 1 == ledger["accepted"] - before["accepted"] == ledger["delivered"] - before["delivered"]
    for trouble in ("internal.error", "ledger.imbalance", "Traceback"):
        assert trouble not in server.output()[said:], server.output()[said:][:2000]


def assert_refused(reply: Reply, status: int, reason: str) -> None:
    assert (status, reason) == (reply.status, reply.json["error"]), reply
    assert {"status": "error", "code": status}.items() <= reply.json.items()
    assert reply.json["message"]


# -- what is no batch of events ----------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("body", "fields"),
    [
        (b"", ()),
        (b" \r\n\t ", ()),
        (b"", ("Content-Type: application/x-ndjson",)),
        (b"42", ()),
        (b"null", ()),
        (b'"text"', ()),
        (b"[]", ()),
        (b'{"events":[]}', ()),
        (b'{"id":"a"', ()),
        (b'[{"id":"a"}', ()),
        (b'[{"id":"a"},', ()),
        (b'{"id":"a"}}', ()),
        (b"id=a&x=b", ("Content-Type: application/x-www-form-urlencoded",)),
        (b"\0" * 100, ()),
        (b'\1{"id":"a"}', ("Content-Encoding: gzip",)),
        (b'\1{"id":"a"}', ("Content-Encoding: br",)),
        (gzip.compress(b'{"id":"a"}', mtime=0)[:-9], ("Content-Encoding: gzip",)),
    ],
    ids=lambda value: repr(value)[:40],
)
def test_what_holds_no_events_is_refused_as_malformed(door: Door, body: bytes, fields: tuple[str, ...]) -> None:
    """A 200 for nothing would let a device forget what it believes it sent."""
    assert_refused(door.post(body, *fields), 400, "malformed")


@pytest.mark.parametrize(
    "body", [b'{"id":"\xff"}', b'[{"id":"a"},{"id":"\xc3"}]', '{"id":"a"}'.encode("utf-16"), b'{"id":"\xed\xa0\x80"}']
)
def test_what_is_not_utf_8_never_reaches_the_sink(door: Door, body: bytes) -> None:
    """One such byte in a file keeps its reader from all that follows."""
    reply = door.post(body)
    if reply.status == 200:  # an array of which one event is sound
        door.kept += [f"{one}" for one in ["a"][: reply.json["accepted"]]]

        assert ("partial", 1, [1]) == (
            reply.json["status"], reply.json["accepted"], [one["index"] for one in reply.json["rejected"]],
        )  # fmt: skip
    else:
        assert_refused(reply, 400, "malformed")


@pytest.mark.parametrize(
    "body",
    [
        b"[" * 100_000,
        b"[" * 100_000 + b"]" * 100_000,
        b'{"a":' * 100_000 + b"1" + b"}" * 100_000,
        b'[{"id":"deep","x":' + b"[" * 100_000 + b"]" * 100_000 + b"}]",
        b'{"id":"deep","x":' + b'{"y":' * 100_000 + b"1" + b"}" * 100_000 + b"}",
    ],
    ids=["open", "arrays", "objects", "in an array", "in an event"],
)
def test_nesting_of_100000_levels_is_refused(door: Door, body: bytes) -> None:
    """A parser that recurses ends the worker, and a reader behind the sink would end itself."""
    reply = door.post(body)

    assert reply.status in {200, 400}
    if reply.status == 200:
        assert (0, 1) == (reply.json["accepted"], len(reply.json["rejected"]))
    else:
        assert_refused(reply, 400, "malformed")


def test_nesting_of_100000_levels_does_not_cost_the_event_beside_it(door: Door) -> None:
    """One bad event never costs the others."""
    deep = b'{"id":"deep","x":' + b"[" * 100_000 + b"]" * 100_000 + b"}"
    reply = door.post(b'[{"id":"a"},' + deep + b',{"id":"b"}]')
    door.kept += ["a", "b"]

    assert (200, "partial", 2) == (reply.status, reply.json["status"], reply.json["accepted"])
    assert [1] == [one["index"] for one in reply.json["rejected"]]


# -- sizes -------------------------------------------------------------------------------------------------


def bomb(mebibytes: int) -> bytes:
    """Make a gzip stream of so many MiB of blanks; a full flush makes each MiB's bytes the same."""
    block, packer = b" " * MIB, zlib.compressobj(9, zlib.DEFLATED, -15)
    first = packer.compress(block) + packer.flush(zlib.Z_FULL_FLUSH)
    check = 0
    for _ in range(mebibytes):
        check = zlib.crc32(block, check)
    end = check.to_bytes(4, "little") + (mebibytes * MIB & 0xFFFFFFFF).to_bytes(4, "little")
    return b"\x1f\x8b\x08\0\0\0\0\0\x02\xff" + first * mebibytes + b"\x03\0" + end


def test_the_bomb_of_these_tests_is_one() -> None:
    """A bomb that is no sound gzip would be refused for that alone."""
    assert b" " * (3 * MIB) == gzip.decompress(bomb(3))


@pytest.mark.parametrize("fields", [("Content-Encoding: gzip",), ()], ids=["declared", "not declared"])
def test_a_gzip_bomb_of_1_gib_is_refused_within_the_memory_of_its_limit(door: Door, fields: tuple[str, ...]) -> None:
    """Inflated whole, or to its limit several times over, it would take the worker's memory and with it the worker."""
    sent = bomb(1024)
    before = door.peak_bytes(reset=True)
    reply = door.post(sent, *fields)
    peak = door.peak_bytes()

    assert len(sent) < 2 * MIB
    assert_refused(reply, 413, "too_large")
    assert peak - before < 40 * MIB, f"the peak rose by {(peak - before) / MIB:.0f} MiB"


def test_bombs_at_the_same_time_are_bounded_together(door: Door) -> None:
    """Sixteen at once are what a stranger sends who has read the test before."""
    sent = bomb(64)
    before = door.peak_bytes(reset=True)
    replies: list[Reply] = []
    threads = [
        threading.Thread(target=lambda: replies.append(door.post(sent, "Content-Encoding: gzip"))) for _ in range(16)
    ]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    peak = door.peak_bytes()

    assert {413} == {reply.status for reply in replies}
    assert peak - before < 16 * 24 * MIB, f"the peak rose by {(peak - before) / MIB:.0f} MiB"


def test_an_upload_of_exactly_the_limit_is_taken_and_one_byte_more_is_not(door: Door) -> None:
    """The limit is what it says, as sent."""
    events = b",".join(b'{"id":"%d","x":"%s"}' % (n, b"y" * 200_000) for n in range(20))
    fits = (b"[" + events + b"]").ljust(MAX_UPLOAD)
    reply = door.post(fits)
    door.kept += [str(n) for n in range(20)]

    assert (200, 20) == (reply.status, reply.json["accepted"])
    assert_refused(door.post(fits + b" "), 413, "too_large")


@pytest.mark.parametrize("length", [MAX_UPLOAD + 1, 10**12, 10**30])
def test_a_body_that_says_that_it_is_too_large_is_refused_unread(door: Door, length: int) -> None:
    """The answer comes at once, while the client still has everything to send."""
    with door.server.link() as link:
        reply = link.send(head(length=length)).must_reply()

    assert_refused(reply, 413, "too_large")
    assert "close" == reply.headers["connection"]


def test_10001_events_are_refused_and_10000_are_not(door: Door) -> None:
    """One more than the limit is refused whole: a part of it kept would be sent again."""
    events = [{"id": str(n)} for n in range(10_001)]
    for body, fields in [
        (json.dumps(events).encode(), ()),
        (b"\n".join(json.dumps(event).encode() for event in events), ("Content-Type: application/x-ndjson",)),
        (json.dumps({"events": events}).encode(), ()),
    ]:
        assert_refused(door.post(body, *fields), 413, "too_large")
    reply = door.post(events[:10_000])
    door.kept += ids(events[:10_000], reply)

    assert (200, 10_000) == (reply.status, reply.json["accepted"])


def test_an_event_of_300_kib_does_not_cost_the_good_ones(door: Door) -> None:
    """One bad event never costs the others, and the answer says which it was."""
    events = [{"id": "a"}, {"id": "large", "x": "y" * 300 * 1024}, {"id": "b"}]
    reply = door.post(events)
    door.kept += ids(events, reply)

    assert (200, "partial", 2) == (reply.status, reply.json["status"], reply.json["accepted"])
    assert [(1, "too_large")] == [(one["index"], one["code"]) for one in reply.json["rejected"]]
    assert ["a", "b"] == door.kept


def test_a_key_of_1_mb_in_an_event_is_judged_by_its_size_alone(door: Door) -> None:
    """A member's name counts as much as its value; a tenant that allows it gets it back byte for byte."""
    events: list[dict[str, Any]] = [{"id": "named", "k" * 10**6: 1}, {"id": "small"}]
    refused = door.post(events)
    taken = door.post(events, key="large-key")
    door.kept += ["small", "named", "small"]

    assert [(0, "too_large")] == [(one["index"], one["code"]) for one in refused.json["rejected"]]
    assert (200, 2) == (taken.status, taken.json["accepted"])

    door.server.settled()

    bodies = [line.partition(b',"event":')[2][:-1] for line in door.server.lines()]

    assert [json.dumps(events[0]).encode()] == [body for body in bodies if body.startswith(b'{"id": "named"')]


def test_an_event_with_100000_keys_is_taken_as_it_is(door: Door) -> None:
    """Keys that collide or are many must not cost more than their bytes."""
    event = {"id": "many", **{f"k{n}": n for n in range(100_000)}}
    reply = door.post([event], key="large-key")
    door.kept += ids([event], reply)

    assert ["many"] == door.kept


def test_an_ingest_key_of_1_mb_is_refused(door: Door) -> None:
    """The head has a bound of its own; what comes after it is not kept."""
    with door.server.link() as link:
        reply = link.send(upload(b'{"id":"a"}', key="k" * 10**6)).must_reply()

    assert_refused(reply, 431, "malformed")


# -- keys --------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("key", "status", "reason"),
    [
        (None, 401, "unknown_key"),
        ("wrong", 401, "unknown_key"),
        ("", 401, "unknown_key"),
        ("off-key", 403, "tenant_disabled"),
    ],
)
def test_without_a_good_key_nothing_is_taken(door: Door, key: str | None, status: int, reason: str) -> None:
    """Two mistakes, two answers: an unknown key is the device's, a disabled tenant its operator's."""
    reply = door.post(b'{"id":"a"}', key=key)

    assert_refused(reply, status, reason)
    assert "off-key" not in door.server.output()


def test_a_key_that_is_no_ascii_is_unknown(door: Door) -> None:
    """A header may hold any byte above 127; it must not become a 500."""
    for value in ("k\xe9y", "\xff\xfe", "\xc3\x28"):
        assert_refused(door.post(b'{"id":"a"}', key=value), 401, "unknown_key")
    assert_refused(door.server.ask(head("/v1/events?key=%ff%00", length=2, key=None) + b"{}"), 401, "unknown_key")


# -- odd JSON ----------------------------------------------------------------------------------------------


def test_lone_surrogates_are_kept_as_they_were_escaped(door: Door) -> None:
    """They are sound JSON, if no sound Unicode: JavaScript makes them when it cuts a string."""
    body = rb'[{"id":"s\ud800","x":"\udc00\ud800"},{"id":"b","\udfff":1}]'
    reply = door.post(body)
    door.kept += ["s\ud800", "b"]

    assert (200, "ok", 2) == (reply.status, reply.json["status"], reply.json["accepted"])

    door.server.settled()

    assert any(line.endswith(rb'"event":{"id":"s\ud800","x":"\udc00\ud800"}}') for line in door.server.lines())


@pytest.mark.parametrize("number", [b"NaN", b"Infinity", b"-Infinity", b"nan", b"01", b"1.", b"0x10", b"+1", b"1_000"])
def test_what_is_no_number_of_json_is_refused_and_the_others_are_not(door: Door, number: bytes) -> None:
    """A reader behind the sink fails on NaN as JSON's grammar does."""
    alone = door.post(b'{"id":"n","x":' + number + b"}")
    among = door.post(b'[{"id":"a"},{"id":"n","x":' + number + b'},{"id":"b"}]')
    door.kept += ["a", "b"]

    assert_refused(alone, 400, "malformed")
    assert (200, "partial", 2) == (among.status, among.json["status"], among.json["accepted"])
    assert [(1, "malformed")] == [(one["index"], one["code"]) for one in among.json["rejected"]]


# -- bodies that come in odd ways --------------------------------------------------------------------------


@pytest.mark.parametrize("sent", [0, 1, 11, 500])
def test_a_body_shorter_than_its_length_is_refused(door: Door, sent: int) -> None:
    """gunicorn hands half a body over as a whole one, and half of an array may be an upload, too."""
    body = b'{"id":"a"}\n'.ljust(1000)
    replies = door.server.raw(head("/v1/events", "Content-Type: application/x-ndjson", length=1000), body[:sent])

    assert 1 == len(replies)
    assert_refused(replies[0], 400, "malformed")
    assert f"{sent} of the 1000 bytes" in replies[0].json["message"]


def chunked(*chunks: bytes, end: bytes = b"0\r\n\r\n") -> bytes:
    return b"".join(b"%x\r\n%s\r\n" % (len(chunk), chunk) for chunk in chunks) + end


CHUNKED = head("/v1/events", "Transfer-Encoding: chunked")


def test_a_chunked_body_is_taken_whole(door: Door) -> None:
    """A client that streams does not know its length; Flask alone reads none of it."""
    events = [{"id": f"chunk{n}"} for n in range(100)]
    body = json.dumps(events).encode()
    parts = [body[n : n + 7] for n in range(0, len(body), 7)]
    reply = door.server.ask(CHUNKED + chunked(*parts))
    door.kept += ids(events, reply)

    assert (200, 100) == (reply.status, reply.json["accepted"])


def test_a_chunked_body_of_exactly_the_limit_is_taken_whole(door: Door) -> None:
    """Its last event must be there: a body cut at a limit is sound NDJSON, if the cut is at a line's end."""
    line = b'{"id":"%05d","x":"' + b"y" * 1000 + b'"}\n'
    body = b"".join(line % n for n in range(4000)).ljust(MAX_UPLOAD)
    head_ = head("/v1/events", "Transfer-Encoding: chunked", "Content-Type: application/x-ndjson")
    taken = door.server.ask(head_ + chunked(*(body[n : n + 65_536] for n in range(0, len(body), 65_536))))
    door.kept += [f"{n:05d}" for n in range(4000)]
    with door.server.link() as link:
        refused = link.send(head_, chunked(body, b"\n")).must_reply()

    assert (200, 4000) == (taken.status, taken.json["accepted"])
    assert_refused(refused, 413, "too_large")


@pytest.mark.parametrize(
    "rest",
    [
        b"zz\r\n{}\r\n0\r\n\r\n",
        b"-2\r\n{}\r\n0\r\n\r\n",
        b"0x2\r\n{}\r\n0\r\n\r\n",
        b"2\r\n{}XX0\r\n\r\n",
        b"2 2\r\n{}\r\n0\r\n\r\n",
        b"\r\n",
        chunked(b'{"id":"cut"}', end=b""),
        chunked(b'{"id":"cut"}', end=b"0\r\n"),
        b"ff\r\n" + b'{"id":"cut"}',
        b"f" * 20_000,
        chunked(b'{"id":"cut"}', end=b"0\r\nContent-Length: 5\r\n\r\n"),
    ],
    ids=lambda rest: repr(rest[:30]),
)
def test_a_body_that_is_wrongly_chunked_or_breaks_off_is_refused(door: Door, rest: bytes) -> None:
    """Where such a body ends is a guess, and what follows would be taken for a request."""
    replies = door.server.raw(CHUNKED, rest)

    assert 1 == len(replies)
    assert_refused(replies[0], 400, "malformed")


def test_a_client_that_hangs_up_half_way_leaves_nothing(door: Door) -> None:
    """Most uploads that break off do so in a lift."""
    body = json.dumps([{"id": f"lift{n}"} for n in range(1000)]).encode()
    for cut in (10, len(head(length=len(body))), 200, len(body)):
        for end in ("close", "reset"):
            link = door.server.link()
            link.send(upload(body)[:cut])
            link.reset() if end == "reset" else link.sock.close()


@pytest.mark.parametrize("fields", [("Content-Length: 1000",), ("Transfer-Encoding: chunked",)])
def test_a_client_that_sends_a_byte_at_a_time_is_cut_off_and_holds_nobody_up(
    door: Door, fields: tuple[str, ...]
) -> None:
    """gunicorn would wait for it for ever."""
    done = threading.Event()
    with door.server.link() as link:
        link.send(head("/v1/events", *fields), b"3e8\r\n" if "chunked" in fields[0] else b"")

        def dribble() -> None:
            try:
                while not done.wait(0.1):
                    link.send(b" ")
            except OSError:  # it was cut off, as it should be
                return

        thread = threading.Thread(target=dribble)
        thread.start()
        try:
            meanwhile = [door.post([{"id": f"quick{n}"}]) for n in range(20)]
            reply = link.must_reply()
        finally:
            done.set()
            thread.join()
    door.kept += [f"quick{n}" for n in range(20)]

    assert_refused(reply, 408, "slow_body")
    assert "close" == reply.headers["connection"]
    assert {200} == {one.status for one in meanwhile}


@pytest.mark.parametrize("fields", [(f"Content-Length: {MAX_UPLOAD}",), ("Transfer-Encoding: chunked",)])
def test_many_slow_clients_hold_nobody_up(door: Door, fields: tuple[str, ...]) -> None:
    """Who announces much and sends nothing must not take the room of those who send."""
    links = [door.server.link().send(head("/v1/events", *fields, key="wrong")) for _ in range(40)]
    try:
        # Each of them is being read: the connections of before are served before those of after.
        meanwhile = [door.post([{"id": f"quick{n}"}]) for n in range(5)]
        door.kept += [f"quick{n}" for n, reply in enumerate(meanwhile) if reply.status == 200]

        assert [200] * 5 == [reply.status for reply in meanwhile]
        assert {408} == {link.must_reply().status for link in links}
    finally:
        for link in links:
            link.sock.close()


# -- heads -------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("method", ["GET", "HEAD", "PUT", "DELETE", "PATCH", "TRACE", "BREW"])
@pytest.mark.parametrize("path", ["/v1/events", "/1/upload"])
def test_a_wrong_method_is_a_405_that_names_the_right_one(door: Door, method: str, path: str) -> None:
    """A redirect or a 404 sends whoever wrote the client to look in the wrong place."""
    with door.server.link() as link:
        reply = link.send(head(path, method=method, length=0)).reply(to_head=method == "HEAD")

    assert reply is not None
    assert 405 == reply.status
    assert "POST" in reply.headers["allow"]
    if method != "HEAD":
        assert_refused(reply, 405, "method_not_allowed")


@pytest.mark.parametrize(
    "field",
    [b"X-Note: a\0b", b"X-No\0te: a", b"Authorization: Bearer dev-key\0", b"\0", b"X-Note: a\x0bb", b"X-Note: a\x7fb"],
)
def test_a_nul_in_a_header_is_refused(door: Door, field: bytes) -> None:
    """One program ends a string there and the next does not: the two see different requests."""
    body = b'{"id":"a"}'
    start = b"POST /v1/events HTTP/1.1\r\nHost: x\r\nAuthorization: Bearer dev-key\r\nContent-Length: %d\r\n" % len(
        body
    )
    replies = door.server.raw(start, field, b"\r\n\r\n", body)

    assert 1 == len(replies)
    assert_refused(replies[0], 400, "malformed")
    assert "close" == replies[0].headers["connection"]


def test_a_nul_in_the_path_or_the_query_is_no_way_in(door: Door) -> None:
    """It comes percent-encoded as well."""
    assert_refused(door.server.ask(head("/v1/events%00", length=0)), 404, "not_found")
    assert_refused(door.server.ask(head("/v1/events?key=dev-key%00", key=None, length=2) + b"{}"), 401, "unknown_key")
    assert_refused(
        door.server.ask(b"POST /v1/events\0 HTTP/1.1\r\nHost: x\r\nContent-Length: 0\r\n\r\n"), 400, "malformed"
    )


# -- no room -----------------------------------------------------------------------------------------------


def test_an_upload_while_the_spool_is_full_is_refused_and_everything_recovers(tmp_path: Path) -> None:
    """A sink that is away for a night must cost answers, never events, and no hand is needed in the morning."""
    (tmp_path / "data").write_text("a file, where the sink wants a directory")
    with Server(tmp_path, spool_bytes=MIB, segment_bytes=65_536) as server:
        kept: list[str] = []
        refused = []
        for padding in (20_000, 500, 0):  # the smaller ones fill what the larger ones leave
            events = [{"id": f"{len(kept)}", "x": "y" * padding}]
            while (reply := server.post(events)).status == 200:
                kept += ids(events, reply)
                events = [{"id": f"{len(kept)}", "x": "y" * padding}]
                assert len(kept) < 200
            refused += [reply, server.post(events, "Collector-Ack: sink")]
        unready = wait_for(lambda: (r := server.readyz()).status == 503 and r, "a full spool to be unready", 10)

        assert len(kept) > 20
        for one in refused:
            assert_refused(one, 503, "backpressure")
            assert 1 <= int(one.headers["retry-after"]) <= 5
        assert isinstance(unready, Reply)
        assert unready.json["reasons"]
        assert 200 == server.admin("/healthz").status
        assert {"balanced": True, "accepted": len(kept), "pending": len(kept)}.items() <= server.ledger().items()

        (tmp_path / "data").unlink()
        wait_for(lambda: server.readyz().status == 200, "the spool to have room again")
        after = [{"id": "after"}]
        kept += ids(after, server.post(after))
        ledger = server.settled()

        assert "after" == kept[-1]
        assert len(kept) == ledger["accepted"] == ledger["delivered"]
        assert Counter(kept) == Counter(event["id"] for event in server.events())
