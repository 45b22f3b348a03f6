"""`POST /1/upload`: CleverTap's envelope, headers, ids and answer."""

from __future__ import annotations

import json
import uuid

import pytest
from hypothesis import given
from hypothesis import strategies as st

from collector.errors import BadUpload
from collector.event import Event
from collector.outcome import Reason, Rejection
from collector.protocols.base import Credentials, DecodeLimits, NewIds, Request, Result
from collector.protocols.clevertap import Clevertap, ClevertapDecoded, stable_id
from collector.tenant import Ack

LIMITS = DecodeLimits(max_events=10_000, max_event_bytes=256 * 1024)
GOOD = b'{"type":"event","evtName":"open","identity":"u1","ts":1700000000,"evtData":{"a":1}}'
PROFILE = b'{"type":"profile","profileData":{"Name":"A"},"objectId":"o1","ts":1700000001}'
TIMELESS = b'{"type":"event","evtName":"open","identity":"u1"}'
NAMELESS = b'{"type":"event","identity":"u1"}'


def request(**headers: str) -> Request:
    names = {"x-" + name.replace("_", "-"): value for name, value in headers.items()}
    return Request("POST", "/1/upload", "", names, b"", "192.0.2.1")


SENT = request(clevertap_account_id="acct", clevertap_passcode="pass")


def no_ids(wanted: int) -> list[str]:
    raise AssertionError(f"{wanted} ids were asked for; records with a time have their own")


def new_ids(wanted: int) -> list[str]:
    return [str(uuid.uuid4()) for _ in range(wanted)]


def decode(
    *records: bytes, sent: Request = SENT, limits: DecodeLimits = LIMITS, ids: NewIds = no_ids
) -> ClevertapDecoded:
    return Clevertap().decode(sent, b'{"d":[' + b",".join(records) + b"]}", limits, ids)


def attempt(body: bytes) -> ClevertapDecoded | str:
    """Decode, or say for what reason not."""
    try:
        return Clevertap().decode(SENT, body, LIMITS, new_ids)
    except BadUpload as problem:
        return problem.reason


def answer(decoded: ClevertapDecoded) -> dict[str, object]:
    result = Result(len(decoded.events), decoded.rejected, Ack.SPOOL, "r-1")
    reply = Clevertap().render(result, decoded)
    assert 200 == reply.status
    body = json.loads(reply.body)
    assert isinstance(body, dict)
    return body


def refused(body: bytes, limits: DecodeLimits = LIMITS) -> BadUpload:
    with pytest.raises(BadUpload) as caught:
        Clevertap().decode(SENT, body, limits, no_ids)
    return caught.value


def test_account_and_passcode_come_from_their_headers() -> None:
    """A passcode alone says nothing: another account may have the same."""
    assert Credentials(key="pass", account="acct") == Clevertap().credentials(SENT)
    assert Credentials(key=None, account="acct") == Clevertap().credentials(request(clevertap_account_id="acct"))
    assert Credentials() == Clevertap().credentials(request(clevertap_passcode=" "))


def test_records_are_kept_as_sent_on_one_line() -> None:
    """Duplicate keys, big numbers and odd escapes included."""
    record = b'{"type":"event",\r\n"evtName":"\\u0061","FBID":12345678901234567890123,"x":1e999,"x":"\\ud800","ts":1}'
    decoded = decode(GOOD, b" " + record + b"\n", PROFILE)

    assert [GOOD, record.replace(b"\r\n", b"  "), PROFILE] == [event.body for event in decoded.events]
    assert [0, 1, 2] == [event.index for event in decoded.events]
    assert not decoded.rejected


def test_a_record_that_is_sent_again_has_the_same_id() -> None:
    """Records bring none, and the library's caller may retry."""
    first, again = decode(GOOD, PROFILE).events, decode(PROFILE, GOOD).events

    assert [first[0].id, first[1].id] == [again[1].id, again[0].id]
    assert first[0].id != first[1].id
    assert all(event.is_named for event in first)


def test_two_records_of_an_upload_that_say_the_very_same_have_two_ids_and_keep_them() -> None:
    """Both happened; and sent again they are the same two."""
    first, again = decode(GOOD, PROFILE, GOOD, GOOD).events, decode(GOOD, PROFILE, GOOD, GOOD).events

    assert 4 == len({event.id for event in first})
    assert [event.id for event in first] == [event.id for event in again]


@pytest.mark.parametrize("record", [TIMELESS, TIMELESS[:-1] + b',"ts":null}'])
def test_a_record_without_a_time_is_like_no_other(record: bytes) -> None:
    """It may be a copy of one before it, or a second thing of the same kind: lost would be worse than twice."""
    first, second = decode(record, GOOD, record, ids=new_ids).events, decode(record, ids=new_ids).events

    assert 4 == len({event.id for event in (*first, *second)})
    assert [False, True, False] == [event.is_named for event in first]


def test_an_id_is_a_uuid_of_version_8() -> None:
    """What is made of a hash by rules of one's own is version 8 (RFC 9562, 5.8)."""
    made = uuid.UUID(json.loads(decode(GOOD).events[0].id))

    assert 8 == made.version
    assert uuid.RFC_4122 == made.variant


def test_the_same_record_of_two_accounts_has_two_ids() -> None:
    """Ids of one tenant must not collide with those of another."""
    other = request(clevertap_account_id="other", clevertap_passcode="pass")

    assert decode(GOOD).events[0].id != decode(GOOD, sent=other).events[0].id
    assert stable_id(b"a", b"bc") != stable_id(b"ab", b"c")


@given(st.binary(max_size=40))
def test_every_id_is_a_uuid(record: bytes) -> None:
    """Version and variant take the place of bits of the hash, whatever they are."""
    made = uuid.UUID(stable_id(b"acct", record))

    assert (8, uuid.RFC_4122) == (made.version, made.variant)


@pytest.mark.parametrize(
    ("bad", "reason", "code"),
    [
        (b"1", Reason.NOT_AN_OBJECT, 512),
        (b"[]", Reason.NOT_AN_OBJECT, 512),
        (b"", Reason.MALFORMED, 512),
        (b'{"type":NaN}', Reason.MALFORMED, 512),
        (b'{"type":"\xff"}', Reason.MALFORMED, 512),
        (b"[" * 5000 + b"]" * 5000, Reason.MALFORMED, 512),
        (b'{"a":"' + b"x" * 300_000 + b'"}', Reason.TOO_LARGE, 512),
        (NAMELESS, Reason.MALFORMED, 509),
    ],
)
def test_one_bad_record_never_costs_the_others(bad: bytes, reason: Reason, code: int) -> None:
    """The answer names it, with its code; those around it are processed."""
    decoded = decode(GOOD, bad, PROFILE)
    unprocessed = answer(decoded)["unprocessed"]

    assert [GOOD, PROFILE] == [event.body for event in decoded.events]
    assert [(1, reason)] == [(rejection.index, rejection.code) for rejection in decoded.rejected]
    assert isinstance(unprocessed, list)
    assert [("fail", code)] == [(each["status"], each["code"]) for each in unprocessed]


def test_an_upload_that_was_processed_is_a_success() -> None:
    """In CleverTap's words and no others."""
    assert {"status": "success", "processed": 2, "unprocessed": []} == answer(decode(GOOD, PROFILE))


def test_a_record_that_was_not_processed_comes_back_as_sent() -> None:
    """Its sender matches it by content: the answer has no index."""
    assert {
        "status": "partial",
        "processed": 1,
        "unprocessed": [
            {"status": "fail", "code": 509, "error": "evtName is needed", "record": json.loads(NAMELESS)},
            {"status": "fail", "code": 512, "error": "an event is a JSON object", "record": 7},
        ],
    } == answer(decode(NAMELESS, GOOD, b"7"))


def test_an_upload_of_which_nothing_was_processed_is_a_failure() -> None:
    """Still 200: the upload was read, and sending it again would change nothing."""
    body = answer(decode(NAMELESS))

    assert ("fail", 0) == (body["status"], body["processed"])


def test_a_record_that_is_no_json_comes_back_as_text() -> None:
    """The answer must stay JSON whatever came."""
    body = answer(decode(b'{"type":"event" "\xff"}', GOOD))

    assert isinstance(body["unprocessed"], list)
    assert '{"type":"event" "\ufffd"}' == body["unprocessed"][0]["record"]


def test_large_records_are_not_sent_back_without_end() -> None:
    """A kilobyte of gzip could otherwise buy an answer of sixteen megabytes."""
    large = b'{"type":"event","identity":"u","x":"' + b"x" * 200_000 + b'"}'
    decoded = decode(*[large] * 60)
    body = answer(decoded)

    # Held while the answer waits for its sink.
    assert sum(len(one.record) for one in decoded.unprocessed.values()) < 2 << 20
    assert isinstance(body["unprocessed"], list)
    assert 60 == len(body["unprocessed"])
    assert json.loads(large) == body["unprocessed"][0]["record"]
    assert len(json.dumps(body)) < 2 << 20


def test_a_rejection_that_the_adapter_did_not_make_is_a_server_error() -> None:
    """555 is CleverTap's code for it; the answer must not fall over."""
    rejected = [Rejection(0, Reason.INTERNAL, "defect")]
    reply = Clevertap().render(Result(0, rejected, Ack.SPOOL, "r-1"), ClevertapDecoded([], [], {}))

    assert [{"status": "fail", "code": 555, "error": "defect"}] == json.loads(reply.body)["unprocessed"]


@pytest.mark.parametrize(
    "body",
    [
        b"",
        b"[]",
        b"7",
        b"{}",
        b'{"d":{}}',
        b'{"d":[]}',
        b'{"d":null}',
        b'{"events":[' + GOOD + b"]}",
        b'{"d":[' + GOOD,
        b'{"d":[' + GOOD + b"]} x",
        b'{"d":[1}',
        b'{"d":["',
        b'{"x":NaN,"d":[1]]}',
    ],
)
def test_an_upload_without_records_is_malformed(body: bytes) -> None:
    """There is nothing to process, and the caller should learn why."""
    assert Reason.MALFORMED == refused(body).reason


def test_a_thousand_records_are_taken_and_no_more() -> None:
    """CleverTap's own limit, whatever ours is."""
    assert 1000 == len(decode(*[GOOD] * 1000).events)
    assert Reason.TOO_LARGE == refused(b'{"d":[' + b",".join([GOOD] * 1001) + b"]}").reason
    assert Reason.TOO_LARGE == refused(b'{"d":[1,2,3]}', DecodeLimits(2, 1000)).reason


def test_the_envelope_is_read_around_mistakes_and_marks() -> None:
    """A byte order mark, other keys, and a mistake elsewhere cost no record."""
    for body in (
        b'\xef\xbb\xbf {"v":1,"d":[' + GOOD + b"]}",
        b'{"v":NaN,"d":[' + GOOD + b"]}",
        b'{"v":"\\ud800","d" : [' + GOOD + b"]}",
    ):
        decoded = Clevertap().decode(SENT, body, LIMITS, no_ids)
        assert [Event(0, decode(GOOD).events[0].id, GOOD)] == decoded.events


PIECES = [
    GOOD,
    PROFILE,
    NAMELESS,
    b"1",
    b"NaN",
    b'{"d":[',
    b"]}",
    b",",
    b"{",
    b'"',
    b"\xff",
    b'{"type":"event"',
    b"[",
    b"]",
]


@given(st.lists(st.sampled_from(PIECES), max_size=12).map(b"".join), st.booleans())
def test_nothing_that_is_sent_raises_anything_but_bad_upload(middle: bytes, whole: bool) -> None:
    """And the answer to what was read is JSON."""
    body = b'{"d":[' + middle + b"]}" if whole else middle
    decoded = attempt(body)
    if isinstance(decoded, str):
        assert decoded in {Reason.MALFORMED, Reason.TOO_LARGE}
        return

    indexes = sorted([event.index for event in decoded.events] + [each.index for each in decoded.rejected])
    assert list(range(len(indexes))) == indexes
    assert answer(decoded)["processed"] == len(decoded.events)
