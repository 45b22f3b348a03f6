"""What `receive` answers, what it keeps, and what it promises: in process, with a real spool."""

from __future__ import annotations

import gzip
import json
import random
import tempfile
import threading
import tracemalloc
from collections.abc import Callable, Iterator
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from collector.admission.auth import TenantTable
from collector.errors import BadUpload
from collector.outcome import Reason
from collector.protocols.base import Reply
from collector.protocols.clevertap import Clevertap
from collector.protocols.native import Native
from collector.receiver.addresses import anonymous, remote_ip
from collector.receiver.lines import timestamp
from collector.tenant import Tenant
from tests.receiver.world import PATIENCE_S, TENANTS, World, fields, retry_after


@pytest.fixture
def world(root: Path) -> Iterator[World]:
    made = World(root)
    yield made
    made.close()


# -- answers -----------------------------------------------------------------------------------------------


def test_an_upload_that_is_kept_whole_is_answered_as_the_contract_says(world: World) -> None:
    """SDKs read these names; shipped ones take anything but 200 with an object for a failure."""
    reply = world.upload([{"id": "a"}, {"id": "b"}])
    answer = fields(reply)

    assert 200 == reply.status
    assert {"status", "accepted", "rejected", "ack", "receipt"} == answer.keys()
    assert ("ok", 2, [], "spool") == (answer["status"], answer["accepted"], answer["rejected"], answer["ack"])
    assert 2 == world.accepted == len(world.deliver())


def test_an_event_that_is_refused_does_not_cost_the_others(world: World) -> None:
    """A device would send the good ones again for ever, or drop them with the bad one."""
    reply = world.upload([{"id": "a"}, {"id": "b", "x": "y" * 64}, 7, {"id": "d"}], key="small")
    answer = fields(reply)

    assert 200 == reply.status
    assert ("partial", 2) == (answer["status"], answer["accepted"])
    assert [(1, "too_large"), (2, "not_an_object")] == [(one["index"], one["code"]) for one in answer["rejected"]]
    assert all(one["message"] for one in answer["rejected"])
    assert ["a", "d"] == [json.loads(line)["id"] for line in world.deliver()]
    assert [Reason.TOO_LARGE, Reason.NOT_AN_OBJECT] == [c["code"] for c in world.signals.named("events_rejected")]


def test_an_upload_of_refused_events_alone_keeps_nothing(world: World) -> None:
    """An empty frame in the spool would be an upload that nobody can settle."""
    reply = world.upload([1, 2])

    assert (200, "partial", 0) == (reply.status, fields(reply)["status"], fields(reply)["accepted"])
    assert 0 == world.accepted
    assert [] == world.deliver()
    assert not world.signals.named("upload_accepted")


@pytest.mark.parametrize(
    ("key", "status", "reason", "tenant_id"),
    [("off", 403, Reason.TENANT_DISABLED, None), ("nobody", 401, Reason.UNKNOWN_KEY, None)],
)
def test_who_may_not_upload_is_told_so(
    world: World, key: str, status: int, reason: Reason, tenant_id: str | None
) -> None:
    """A device with a wrong key must stop sending; its operator must find out which of the two it is."""
    reply = world.upload([{"id": "a"}], key=key)

    assert (status, "error", reason.value) == (reply.status, fields(reply)["status"], fields(reply)["error"])
    assert status == fields(reply)["code"]
    assert [{"tenant_id": tenant_id, "protocol": "native", "reason": reason}] == world.signals.named("upload_refused")
    assert 0 == world.accepted


def test_a_refusal_does_not_repeat_the_key(world: World) -> None:
    """Answers end up in the logs of others."""
    reply = world.upload([{"id": "a"}], key="a-very-secret")

    assert b"a-very-secret" not in reply.body
    assert "a-very-secret" not in repr(world.signals.calls)


def test_an_upload_of_a_tenant_over_its_rate_is_not_even_inflated(world: World) -> None:
    """What is refused should cost less than what is taken."""
    world.upload([{"id": str(n)} for n in range(11)], key="slow")
    refused = world.upload(b"\x1f\x8b no gzip at all", key="slow")
    world.clock.advance(retry_after(refused))
    judged = world.upload(b"\x1f\x8b no gzip at all", key="slow")

    assert ("over_quota", "malformed") == (fields(refused)["error"], fields(judged)["error"])


def test_a_tenant_over_its_rate_is_told_when_to_come_back(world: World) -> None:
    """Without the time a device tries again at once, and is refused again."""
    first = world.upload([{"id": str(n)} for n in range(11)], key="slow")
    second = world.upload([{"id": "x"}], key="slow")

    assert 200 == first.status
    assert (429, "over_quota") == (second.status, fields(second)["error"])
    assert 10 == retry_after(second)
    assert 11 == world.accepted

    world.clock.advance(retry_after(second))

    assert 200 == world.upload([{"id": "x"}], key="slow").status


def test_a_full_spool_is_answered_with_backpressure(root: Path) -> None:
    """The device keeps what it has, and comes back in a few seconds, not at once and not tomorrow."""
    world = World(root, spool_bytes=8192)
    taken = 0
    while (reply := world.upload([{"id": str(taken), "x": "y" * 500}])).status == 200:
        taken += 1
        assert taken < 100

    assert (503, "backpressure") == (reply.status, fields(reply)["error"])
    assert 1 <= retry_after(reply) <= 5
    assert taken == world.accepted == len(world.deliver())
    assert 200 == world.upload([{"id": "after"}]).status
    world.close()


def test_a_file_system_that_refuses_is_answered_with_backpressure(
    world: World, root: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """ENOSPC comes in spite of every budget; it is a 503 and not a 500, and it passes."""
    assert 200 == world.upload([{"id": "before"}]).status

    def write(fd: int, data: bytes) -> int:
        raise OSError(28, "No space left on device")

    with monkeypatch.context() as patch:
        patch.setattr("collector.buffer.segment.os.write", write)
        refused = world.upload([{"id": "lost?"}])
    world.clock.advance(1.0)
    world.spool.tick()
    after = world.upload([{"id": "after"}])

    assert (503, "backpressure") == (refused.status, fields(refused)["error"])
    assert 1 <= retry_after(refused) <= 5
    assert str(root) not in refused.body.decode()
    assert 200 == after.status
    assert ["before", "after"] == [json.loads(line)["id"] for line in world.deliver()]


def test_a_worker_that_leaves_says_so(world: World) -> None:
    """A device that is told at once finds another worker; a reset would cost it a timeout."""
    world.intake.gate.draining = True
    reply = world.upload([{"id": "a"}])

    assert (503, "draining") == (reply.status, fields(reply)["error"])
    assert 1 <= retry_after(reply) <= 5
    assert 0 == world.accepted


def test_what_nobody_expected_is_a_500_that_tells_nothing_but_what_to_do(world: World) -> None:
    """A device must get an answer it can read; a stranger must not read our insides in it; we must hear of it."""

    class Broken(Native):
        def decode(self, *args: object, **kwargs: object) -> Any:
            raise RuntimeError("secret-of-ours in /etc/passwd")

    reply = world.upload([{"id": "event-content"}], protocol=Broken())

    assert (500, "error", 500, "internal") == (
        reply.status, fields(reply)["status"], fields(reply)["code"], fields(reply)["error"],
    )  # fmt: skip
    assert b"secret-of-ours" not in reply.body
    assert b"RuntimeError" not in reply.body
    assert b"event-content" not in reply.body
    assert "send it again" in fields(reply)["message"]
    assert ["receive"] == [call["where"] for call in world.signals.named("internal_error")]
    assert [("dev", Reason.INTERNAL)] == [
        (call["tenant_id"], call["reason"]) for call in world.signals.named("upload_refused")
    ]


def test_a_bomb_is_refused_at_its_limit(world: World) -> None:
    """A kilobyte that becomes a gigabyte must not find a gigabyte."""
    reply = world.upload(gzip.compress(b" " * (2 << 20)), content_encoding="gzip")

    assert (413, "too_large") == (reply.status, fields(reply)["error"])
    assert 0 == world.accepted


@pytest.mark.parametrize(
    ("encoding", "status", "reason"), [("gzip", 400, "malformed"), ("snappy", 415, "unsupported_encoding")]
)
def test_what_can_not_be_inflated_is_refused(world: World, encoding: str, status: int, reason: str) -> None:
    """The two need different repairs on the device's side."""
    reply = world.upload(b"not compressed at all", content_encoding=encoding)

    assert (status, reason) == (reply.status, fields(reply)["error"])


def test_clevertap_is_answered_in_its_own_words(world: World) -> None:
    """Its libraries look for `processed` and `unprocessed`, and for "fail"."""
    headers = {"x_clevertap_account_id": "dev", "x_clevertap_passcode": "dev-key"}
    record = {"identity": "me", "type": "event", "evtName": "bought", "evtData": {"n": 1}}

    taken = world.upload({"d": [record, {"type": "event"}]}, protocol=Clevertap(), **headers)
    refused = world.upload({"d": [record]}, protocol=Clevertap(), **headers | {"x_clevertap_passcode": "no"})

    assert (200, "partial", 1) == (taken.status, fields(taken)["status"], fields(taken)["processed"])
    assert 1 == len(fields(taken)["unprocessed"])
    assert (401, "fail") == (refused.status, fields(refused)["status"])
    assert ["clevertap"] == [json.loads(line)["protocol"] for line in world.deliver()]


# -- what an answer promises -------------------------------------------------------------------------------


def test_an_answer_that_promises_the_sink_waits_for_it(world: World) -> None:
    """`ack: sink` survives the loss of the task; an answer before the sink's would be a lie."""
    thread, replies = world.beside(lambda: world.upload([{"id": "a"}], key="careful"))

    assert [] == replies
    assert [] == world.sink.lines

    world.flusher.tick()
    thread.join(PATIENCE_S)

    assert ["sink"] == [fields(reply)["ack"] for reply in replies]
    assert [200] == [reply.status for reply in replies]
    assert 1 == len(world.sink.lines)


def test_an_upload_may_ask_for_another_promise_than_its_tenants(world: World) -> None:
    """A purchase and a page view of one app are not worth the same wait."""
    quick = world.upload([{"id": "a"}], key="careful", collector_ack=" Spool ")
    thread, replies = world.beside(lambda: world.upload([{"id": "b"}], key="dev", collector_ack="sink"))
    world.flusher.tick()
    thread.join(PATIENCE_S)

    assert (200, "spool") == (quick.status, fields(quick)["ack"])
    assert [(200, "sink")] == [(reply.status, fields(reply)["ack"]) for reply in replies]


@pytest.mark.parametrize("value", ["", "both", "sink, spool", "0", "sinking", "sínk"])
def test_a_promise_that_does_not_exist_is_refused(world: World, value: str) -> None:
    """Taken for the weaker one, a slip of the pen would lose what was to be safe."""
    reply = world.upload([{"id": "a"}], collector_ack=value)

    assert (400, "malformed") == (reply.status, fields(reply)["error"])
    assert "Collector-Ack" in fields(reply)["message"]
    assert 0 == world.accepted


def test_an_event_that_the_sink_refuses_is_listed_and_not_counted(world: World) -> None:
    """The answer names events by their place in the upload, not among those that came so far."""
    world.sink.reject(1)
    thread, replies = world.beside(lambda: world.upload([{"id": "a"}, 5, {"id": "c"}, {"id": "d"}], key="careful"))
    world.flusher.tick()
    thread.join(PATIENCE_S)
    answer = fields(replies[0])

    assert (200, "partial", 2) == (replies[0].status, answer["status"], answer["accepted"])
    assert [(1, "not_an_object"), (2, "sink_invalid")] == [(one["index"], one["code"]) for one in answer["rejected"]]


def test_a_sink_that_never_confirms_is_a_503_and_the_events_arrive_all_the_same(root: Path) -> None:
    """The device may send again; what was kept must not be taken back behind its back."""
    world = World(root, ack_timeout_s=0.05)
    reply = world.upload([{"id": "a"}], key="careful")

    assert (503, "backpressure") == (reply.status, fields(reply)["error"])
    assert 1 <= retry_after(reply) <= 5
    (line,) = map(json.loads, world.deliver())
    assert "a" == line["id"]
    assert 1 == world.accepted
    assert [line["receipt"]] == [told["receipt"] for told in world.signals.named("upload_unconfirmed")]
    world.close()


def test_uploads_that_wait_together_are_written_together(world: World) -> None:
    """A write for each of them would be as slow as the sink, times their number."""
    waiting = [
        world.beside(lambda n=n: world.upload([{"id": str(n)}], key="careful"))  # type: ignore[misc]
        for n in range(8)
    ]
    world.flusher.tick()
    for thread, _ in waiting:
        thread.join(PATIENCE_S)

    assert [200] * 8 == [reply.status for _, replies in waiting for reply in replies]
    assert 1 == len(world.sink.written)


# -- what is kept ------------------------------------------------------------------------------------------


def test_a_line_is_the_contracts_line(world: World) -> None:
    """Whoever reads the sink was promised these fields, in this shape."""
    body = b'{"id":"a\\u0041","n":12345678901234567890.10, "n":1e400,\n"u":"\xc3\xa9\\/"}'
    receipt = fields(world.upload(body))["receipt"]
    (line,) = world.deliver()

    assert line == (
        b'{"id":"a\\u0041","tenant":"dev","received_at":"2026-01-02T03:04:05.678901Z","protocol":"native","receipt":"'
        + receipt.encode()
        + b'","remote_ip":"192.0.2.77","event":'
        + body.replace(b"\n", b" ")
        + b"}"
    )


json_values = st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats(allow_nan=False, allow_infinity=False) | st.text(),
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(st.text(), inner, max_size=3),
    max_leaves=10,
)


@given(events=st.lists(st.dictionaries(st.text(), json_values, max_size=4), min_size=1, max_size=5), data=st.data())
def test_every_event_comes_out_as_it_went_in(events: list[dict[str, Any]], data: st.DataObject) -> None:
    """An event parsed and written anew loses big numbers, order, and what its reader counted on."""
    ascii_ = data.draw(st.booleans())
    sent = [json.dumps(event, ensure_ascii=ascii_).encode("utf-8", "surrogatepass") for event in events]
    with tempfile.TemporaryDirectory(dir="/dev/shm") as folder:
        world = World(Path(folder))
        answer = fields(world.upload(b"[" + b",".join(sent) + b"]"))
        lines = world.deliver()
        world.close()

    kept = [event for index, event in enumerate(sent) if index not in {one["index"] for one in answer["rejected"]}]

    assert len(kept) == answer["accepted"]
    assert kept == [line.partition(b',"event":')[2][:-1] for line in lines]


def test_receipts_are_unique_and_name_the_lines_of_their_upload(world: World) -> None:
    """Support finds an upload by its receipt."""
    receipts = [fields(world.upload([{"id": str(n)}]))["receipt"] for n in range(500)]
    lines = [json.loads(line) for line in world.deliver()]

    assert 500 == len(set(receipts))
    assert {str(n): receipt for n, receipt in enumerate(receipts)} == {line["id"]: line["receipt"] for line in lines}


def test_an_event_without_an_id_gets_one_of_its_own(world: World) -> None:
    """Without an id nobody can tell a duplicate from a second event."""
    world.upload([{"x": 1}] * 100)
    ids = [json.loads(line)["id"] for line in world.deliver()]

    assert 100 == len(set(ids))


@pytest.mark.parametrize(
    ("remote", "kept"),
    [
        ("192.0.2.77", "192.0.2.0"),
        ("2001:db8:1:2:3:4:5:6", "2001:db8:1::"),
        ("::ffff:192.0.2.77", "::"),  # IPv4 in IPv6: its last four octets are among what goes
        ("not an address <b>", ""),
        ("", ""),
    ],
)
def test_an_address_is_kept_without_its_person(world: World, remote: str, kept: str) -> None:
    """A tenant that promised this to its users is believed because of us."""
    world.upload([{"id": "a"}], key="private", remote=remote)
    world.upload([{"id": "b"}], key="dev", remote=remote)
    private, open_ = (json.loads(line) for line in sorted(world.deliver(), reverse=True))
    if private["tenant"] != "private":
        private, open_ = open_, private

    assert kept == private["remote_ip"]
    assert remote == open_["remote_ip"]


@given(st.ip_addresses())
def test_no_anonymous_address_tells_more_than_its_network(address: Any) -> None:
    """The last octet, and all behind the site prefix, is the person."""
    host_bits = 8 if address.version == 4 else 80
    neighbour = type(address)(int(address) ^ 1)
    mapped = getattr(address, "ipv4_mapped", None)

    assert anonymous(str(address)) == anonymous(str(neighbour))
    if mapped is None:
        assert int(address) >> host_bits << host_bits == int(type(address)(anonymous(str(address))))


def test_a_time_is_rfc_3339_with_microseconds() -> None:
    """Readers sort by it as text."""
    assert "1970-01-01T00:00:00.000000Z" == timestamp(0)
    assert "2026-01-02T03:04:05.000001Z" == timestamp(1_767_323_045_000_001)


@pytest.mark.parametrize(
    ("forwarded", "hops", "seen"),
    [
        ("203.0.113.5", 0, "10.0.0.1"),  # nobody is trusted: the peer
        ("203.0.113.5", 1, "203.0.113.5"),
        ("1.1.1.1, 203.0.113.5", 1, "203.0.113.5"),  # the device claims 1.1.1.1
        ("1.1.1.1, 203.0.113.5, 10.0.0.7", 2, "203.0.113.5"),
        ("203.0.113.5", 2, "10.0.0.1"),  # fewer hops than there should be: it went round a proxy
        ("", 1, "10.0.0.1"),
        (" , ,203.0.113.5 ,", 1, "203.0.113.5"),
        ("unknown", 1, "10.0.0.1"),  # no address at all
        ("<script>", 1, "10.0.0.1"),
        ("203.0.113.5:4711", 1, "203.0.113.5"),  # some load balancers add the port
        ("[2001:db8::5]:4711", 1, "2001:db8::5"),
        ("[2001:db8::5]", 1, "2001:db8::5"),
    ],
)
def test_the_devices_address_is_what_the_outermost_trusted_proxy_saw(forwarded: str, hops: int, seen: str) -> None:
    """A device writes what it likes into X-Forwarded-For, and it must not become its address."""
    assert seen == remote_ip("10.0.0.1", forwarded, hops)


def test_a_reload_between_two_uploads_is_seen_by_the_second(world: World) -> None:
    """The table is asked for each upload, not once."""
    before = world.upload([{"id": "a"}], key="dev")
    world.table = TenantTable(tuple(replace_tenant(one, enabled=one.id != "dev") for one in TENANTS))
    after = world.upload([{"id": "b"}], key="dev")

    assert (200, 403) == (before.status, after.status)


def replace_tenant(one: Tenant, **changes: Any) -> Tenant:
    return Tenant(**{name: getattr(one, name) for name in one.__struct_fields__} | changes)


def test_an_answer_that_waits_for_its_sink_holds_nothing_of_the_upload(root: Path) -> None:
    """16 MiB come in 20 KB: a sink that hangs for ten seconds would fill the memory, with the spool nearly empty."""
    world = World(root)
    event = b'{"id":"b","x":"%s"}' % bytes(100_000).hex().encode()
    packed = gzip.compress(b'[{"id":"a"},' + b"1," * 40 + b" " * 500_000 + event + b"]")
    tracemalloc.start()
    try:
        before = tracemalloc.get_traced_memory()[0]
        answer = world.take(packed, content_encoding="gzip")
        held = tracemalloc.get_traced_memory()[0] - before
    finally:
        tracemalloc.stop()
    world.deliver()

    assert held < 100_000
    assert 2 == json.loads(answer().body)["accepted"]
    world.close()


def test_only_a_few_large_bodies_are_inflated_at_once(world: World) -> None:
    """Threads inflate faster than one hub can split: what they have made would pile up, at 16 MiB an upload."""
    inside, most, changed = 0, 0, threading.Condition()
    go = threading.Event()

    def offload(_: Callable[[], bytes]) -> bytes:
        nonlocal inside, most
        with changed:
            inside += 1
            most = max(most, inside)
            changed.notify_all()
        assert go.wait(PATIENCE_S)
        with changed:
            inside -= 1
        raise BadUpload(Reason.MALFORMED, "enough was seen")

    world.intake = replace(world.intake, offload=offload)
    packed = gzip.compress(random.Random(1).randbytes(64 * 1024))
    uploads = [threading.Thread(target=world.upload, args=(packed,)) for _ in range(9)]
    for one in uploads:
        one.start()
    with changed:
        assert changed.wait_for(lambda: inside == 4, PATIENCE_S)
    go.set()
    for one in uploads:
        one.join(PATIENCE_S)

    assert 4 == most
    assert 9 == len(world.signals.named("upload_refused"))


def test_a_large_compressed_body_is_inflated_off_the_hub(world: World) -> None:
    """Some milliseconds of one upload are milliseconds of every other's latency."""
    offloaded: list[int] = []

    def offload(run: Callable[[], bytes]) -> bytes:
        offloaded.append(1)
        return run()

    world.intake = replace(world.intake, offload=offload)
    small = gzip.compress(b'{"id":"a"}')
    chance = random.Random(1).randbytes(64 * 1024).hex()
    large = gzip.compress(
        json.dumps([{"id": str(n), "x": chance[n * 2000 : n * 2000 + 2000]} for n in range(60)]).encode()
    )

    assert len(large) > 32 * 1024
    assert 200 == world.upload(small, content_encoding="gzip").status
    assert [] == offloaded
    assert 200 == world.upload(large, content_encoding="gzip").status
    assert [1] == offloaded
    assert 200 == world.upload(large).status
    assert [1, 1] == offloaded


# -- what comes again --------------------------------------------------------------------------------------


def test_an_upload_that_comes_again_is_answered_the_same_and_not_kept_again(world: World) -> None:
    """The device lost our answer: to it nothing has happened yet."""
    events = [{"id": "a"}, {"id": "b"}]
    first, again = world.upload(events, key="once"), world.upload(events, key="once")
    totals = world.spool.books.totals()

    assert (200, 2) == (first.status, fields(first)["accepted"])
    assert (200, "ok", 2, []) == (
        again.status, fields(again)["status"], fields(again)["accepted"], fields(again)["rejected"],
    )  # fmt: skip
    assert ["a", "b"] == [json.loads(line)["id"] for line in world.deliver()]
    assert (4, 2) == (totals.outcomes()["accepted"], totals.outcomes()["deduplicated"])
    assert totals.balanced
    assert [{"tenant_id": "once", "protocol": "native", "count": 2}] == world.signals.named("events_deduplicated")


def test_what_is_new_in_an_upload_is_kept(world: World) -> None:
    """Devices that retry often add what happened meanwhile."""
    world.upload([{"id": "a"}, {"id": "b"}], key="once")
    reply = world.upload([{"id": "b"}, {"id": "c"}, 7, {"id": "a"}, {"id": "c"}], key="once")

    assert ("partial", 4, [2]) == (
        fields(reply)["status"], fields(reply)["accepted"], [one["index"] for one in fields(reply)["rejected"]],
    )  # fmt: skip
    assert ["a", "b", "c"] == [json.loads(line)["id"] for line in world.deliver()]


def test_events_without_an_id_are_never_taken_for_copies(world: World) -> None:
    """Two that look alike may be two."""
    for _ in range(2):
        assert 200 == world.upload([{"x": 1}, {"x": 1}], key="once").status

    assert 4 == len(world.deliver())


def test_a_protocol_has_a_window_of_its_own_and_the_tenant_the_last_word(world: World) -> None:
    """Clients of CleverTap's API are known to send again; ids of others may mean anything."""
    record = {"identity": "me", "type": "event", "evtName": "bought", "ts": 1_700_000_000}
    for key, copies in (("dev", 1), ("twice", 2)):
        headers = {"x_clevertap_account_id": key, "x_clevertap_passcode": f"{key}-key"}
        for _ in range(2):
            world.upload({"d": [record]}, protocol=Clevertap(), **headers)
        assert copies == len(world.deliver())
        world.sink.lines.clear()
    for _ in range(2):
        world.upload([{"id": "a"}], key="dev")

    assert 2 == len(world.deliver())


def test_an_upload_that_could_not_be_kept_can_be_tried_again(world: World, monkeypatch: pytest.MonkeyPatch) -> None:
    """An id that is remembered before its event is kept loses the event."""

    def write(fd: int, data: bytes) -> int:
        raise OSError(28, "No space left on device")

    with monkeypatch.context() as patch:
        patch.setattr("collector.buffer.segment.os.write", write)
        refused = world.upload([{"id": "a"}], key="once")
    world.clock.advance(1.0)
    world.spool.tick()
    again = world.upload([{"id": "a"}], key="once")

    assert (503, 200) == (refused.status, again.status)
    assert ["a"] == [json.loads(line)["id"] for line in world.deliver()]
    assert 0 == world.spool.books.totals().outcomes()["deduplicated"]


def test_a_copy_waits_for_the_sink_of_its_first(world: World) -> None:
    """`ack: sink` says that the sink has it: of a copy that must be as true as of the first."""
    world.upload([{"id": "a"}], key="sure", collector_ack="spool")
    replies: list[Reply] = []
    thread = threading.Thread(target=lambda: replies.append(world.upload([{"id": "a"}], key="sure")))
    thread.start()
    thread.join(0.2)
    before = list(replies)
    world.deliver()
    thread.join(PATIENCE_S)

    assert [] == before
    assert [(200, "sink", 1)] == [(one.status, fields(one)["ack"], fields(one)["accepted"]) for one in replies]
    assert 1 == len(world.sink.lines)


def test_a_copy_whose_first_is_not_confirmed_in_time_is_a_503(root: Path) -> None:
    """As it is for the first."""
    world = World(root, ack_timeout_s=5.0)
    world.upload([{"id": "a"}], key="sure", collector_ack="spool")
    replies: list[Reply] = []
    thread = threading.Thread(target=lambda: replies.append(world.upload([{"id": "a"}], key="sure")))
    thread.start()
    while thread.is_alive():
        world.clock.advance(1.0)
        thread.join(0.05)

    assert [(503, "backpressure")] == [(one.status, fields(one)["error"]) for one in replies]
    assert 1 == len(world.signals.named("upload_unconfirmed"))
    world.close()


def test_ids_that_can_not_be_remembered_cost_no_event(world: World, root: Path) -> None:
    """Clients that do not try again would lose what a 503 refuses; a copy can be found by its id later."""
    (root / "dedupe").write_text("in the way")
    replies = [world.upload([{"id": "a"}], key="once") for _ in range(2)]

    assert [200, 200] == [reply.status for reply in replies]
    assert 2 == len(world.deliver())
    assert ["once", "once"] == [told["tenant_id"] for told in world.signals.named("dedupe_unchecked")]


def test_without_a_window_nothing_of_it_is_touched(world: World, root: Path) -> None:
    """Who does not ask for it does not pay for it."""
    world.upload([{"id": "a"}], key="dev")

    assert not (root / "dedupe").exists()
