"""`POST /v1/events`: every shape, every id, and whatever strangers send instead."""

from __future__ import annotations

import base64
import json
from itertools import count

import msgspec
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from collector.errors import BadUpload
from collector.event import Event
from collector.outcome import Reason, Rejection
from collector.protocols import split
from collector.protocols.base import Decoded, DecodeLimits, Request, Result
from collector.protocols.native import Native
from collector.tenant import Ack

LIMITS = DecodeLimits(max_events=10_000, max_event_bytes=256 * 1024)
MANY = DecodeLimits(max_events=200_000, max_event_bytes=256 * 1024)
NDJSON = "application/x-ndjson; charset=utf-8"


def request(content_type: str = "application/json", query: str = "", **headers: str) -> Request:
    names = {name.replace("_", "-"): value for name, value in headers.items()}
    return Request("POST", "/v1/events", query, {"content-type": content_type, **names}, b"", "192.0.2.1")


def new_ids(wanted: int) -> list[str]:
    """Make ids that show which event got which."""
    return [f"new-{number}" for number in range(wanted)]


def decode(body: bytes, content_type: str = "application/json", limits: DecodeLimits = LIMITS) -> Decoded:
    decoded = Native().decode(request(content_type), body, limits, new_ids)
    # A slice of the upload is as good as a copy, and equals nothing.
    decoded.events = [msgspec.structs.replace(event, body=bytes(event.body)) for event in decoded.events]
    return decoded


def attempt(body: bytes, content_type: str) -> Decoded | str:
    """Decode, or say for what reason not."""
    try:
        return decode(body, content_type)
    except BadUpload as problem:
        return problem.reason


def bodies(decoded: Decoded) -> list[bytes]:
    return [event.body for event in decoded.events]


def codes(decoded: Decoded) -> dict[int, Reason]:
    return {rejection.index: rejection.code for rejection in decoded.rejected}


def refused(body: bytes, content_type: str = "application/json", limits: DecodeLimits = LIMITS) -> BadUpload:
    with pytest.raises(BadUpload) as caught:
        decode(body, content_type, limits)
    return caught.value


# --- the shapes ---

A, B = b'{"id":"a", "n":1}', b'{"n":2.50,"id":"b"}'
BOTH = [Event(0, b'"a"', A), Event(1, b'"b"', B)]


@pytest.mark.parametrize(
    "body",
    [
        b"[" + A + b"," + B + b"]",
        b" [ " + A + b" , \n" + B + b" ]\r\n ",
        b'{"events":[' + A + b"," + B + b"]}",
        b'{"sent":"x", "events" : [' + A + b"," + B + b'], "more":{"events":1}}',
        b'{"events":0,"events":[' + A + b"," + B + b"]}",
        A + b"\n" + B,
        A + b"\r\n\r\n  " + B + b" \n\n",
    ],
)
@pytest.mark.parametrize("mark", [b"", b"\xef\xbb\xbf"], ids=["plain", "byte order mark"])
def test_all_shapes_of_two_events_come_out_the_same(body: bytes, mark: bytes) -> None:
    """A client should not have to learn which one we like."""
    assert Decoded(BOTH, []) == decode(mark + body)


@pytest.mark.parametrize("content_type", ["text/plain", "", "application/x-www-form-urlencoded", NDJSON])
def test_the_shape_counts_more_than_the_content_type(content_type: str) -> None:
    """SDKs send JSON as text/plain and as a form."""
    assert Decoded(BOTH, []) == decode(b"[" + A + b"," + B + b"]", content_type)
    assert Decoded(BOTH, []) == decode(A + b"\n" + B, content_type)


def test_one_object_is_one_event() -> None:
    """What curl sends by hand."""
    assert Decoded([BOTH[0]], []) == decode(b" " + A + b"\n")
    assert [b"{}"] == bodies(decode(b"{}"))


def test_an_object_whose_events_are_no_array_is_one_event() -> None:
    """An app may well count its events in a field of that name."""
    body = b'{"id":"x","events":{"opened":3}}'

    assert [Event(0, b'"x"', body)] == decode(body).events


def test_a_line_that_was_declared_as_ndjson_is_one_event_whatever_its_keys() -> None:
    """The last batch of a stream may have one line; it must not be read otherwise than the others."""
    body = b'{"id":"x","events":[1,2]}'

    assert [Event(0, b'"x"', body)] == decode(body, NDJSON).events
    assert [body, body] == bodies(decode(body + b"\n" + body))


def test_line_breaks_between_tokens_become_spaces_and_nothing_else_changes() -> None:
    """An event must fit on a line of the sink; within a string a line break is an escape, and stays."""
    body = b'[{\r\n\t"a" : "x\\n\\r\\u000a",\n"b":[1,\n2]\n}]'

    assert [b'{  \t"a" : "x\\n\\r\\u000a", "b":[1, 2] }'] == bodies(decode(body))
    assert [b'{  "a":1}'] == bodies(decode(b'{\r\n"a":1}'))
    assert [b'{ "a":1}'] == bodies(decode(b'[{\r"a":1}]'))
    assert [b'{ "a":1}', b'{ "b":1}'] == bodies(decode(b'[{\n"a":1},NaN,{\r"b":1}]'))


@pytest.mark.parametrize(
    "event",
    [
        b'{"a":1,"a":2,"id":"x"}',
        b'{"id":"x","n":123456789012345678901234567890.10e-400,"z":-0,"e":1E+9}',
        b'{"id":"x","s":"\\u0041\\/\\ud83d\\ude00\\u0000","\\u0061":null}',
        '{"id":"x","s":"é😀\u2028\x7f"}'.encode(),
        b'{"id":"x","lone":"\\ud800","\\udfff":1,"not":"\\\\ud800"}',
        b'{"id":"x","' + b"k" * 100_000 + b'":1}',
        b'{"id":"x","deep":' + b"[" * 500 + b"]" * 500 + b"}",
    ],
)
def test_an_event_is_kept_byte_for_byte(event: bytes) -> None:
    """Duplicate keys, numbers that no float holds, unusual escapes, lone surrogates: none of it is ours to mend."""
    expected = [event, b'{"id":"y"}', event]

    assert expected == bodies(decode(b"[" + b" , ".join(expected) + b"]"))
    assert expected == bodies(decode(b'{"events":[' + b",".join(expected) + b"]}"))
    assert expected == bodies(decode(b"\n".join(expected)))
    assert [event] == bodies(decode(event))
    assert {b'"x"', b'"y"'} == {made.id for made in decode(b"[" + b",".join(expected) + b"]").events}


# --- ids ---


@pytest.mark.parametrize(
    ("event", "expected"),
    [
        (b'{"id":"a"}', b'"a"'),
        (b'{"event_id":"a"}', b'"a"'),
        (b'{"messageId":"a"}', b'"a"'),
        (b'{"insert_id":"a"}', b'"a"'),
        (b'{"uuid":"a"}', b'"a"'),
        (b'{"uuid":"e","insert_id":"d","messageId":"c","event_id":"b","id":"a"}', b'"a"'),
        (b'{"uuid":"e","insert_id":"d","messageId":"c"}', b'"c"'),
        (b'{"id":7}', b'"7"'),
        (b'{"id":-12345678901234567890123}', b'"-12345678901234567890123"'),
        (b'{"id":"\\u00e9\\"\\\\"}', b'"\\u00e9\\"\\\\"'),
        (b'{"id":"\\ud800"}', b'"\\ud800"'),
        (b'{"x":"\\ud800","uuid":"a"}', b'"a"'),
        (b'{"id":"' + b"x" * 512 + b'"}', b'"' + b"x" * 512 + b'"'),
        (b'{"id":"first","id":"last"}', b'"last"'),
        (b'{"id":null,"uuid":"a"}', b'"a"'),
        (b'{"id":"","event_id":[],"messageId":1.5,"uuid":3}', b'"3"'),
        (b'{"id":"' + b"x" * 513 + b'"}', b'"new-0"'),
        (b'{"id":' + b"1" * 513 + b"}", b'"new-0"'),
        (b'{"id":null}', b'"new-0"'),
        (b'{"id":""}', b'"new-0"'),
        (b'{"id":1.0}', b'"new-0"'),
        (b'{"id":1e3}', b'"new-0"'),
        (b'{"id":true}', b'"new-0"'),
        (b'{"id":{"id":"a"}}', b'"new-0"'),
        (b'{"properties":{"id":"a"}}', b'"new-0"'),
        (b"{}", b'"new-0"'),
    ],
)
def test_an_id_is_the_first_usable_one_that_the_event_brings(event: bytes, expected: bytes) -> None:
    """A device sends the same id again; one of ours would be another each time."""
    assert [expected] == [made.id for made in decode(event).events]
    assert [expected] == [made.id for made in decode(b"[" + event + b"]").events]
    # In company of all kinds, too: uploads with the same place in all events take a shorter way.
    mixed = decode(b'[{"id":"z"},' + event + b",1]").events
    assert [b'"z"', expected] == [made.id for made in mixed]


def test_new_ids_are_made_for_those_without_and_no_others() -> None:
    """In one call, in the order of the events."""
    asked: list[int] = []

    def make(wanted: int) -> list[str]:
        asked.append(wanted)
        return new_ids(wanted)

    decoded = Native().decode(request(), b'[{},{"id":"a"},{"n":1},{"uuid":4},{"id":[]}]', LIMITS, make)

    assert [b'"new-0"', b'"a"', b'"new-1"', b'"4"', b'"new-2"'] == [event.id for event in decoded.events]
    assert [3] == asked


# --- one bad event among good ones ---

BAD = {
    b'{"a":NaN}': Reason.MALFORMED,
    b'{"a":Infinity}': Reason.MALFORMED,
    b'{"a":01}': Reason.MALFORMED,
    b'{"a":"\x00"}': Reason.MALFORMED,
    b'{"a":"\t"}': Reason.MALFORMED,
    b'{"a":"\xff"}': Reason.MALFORMED,
    b'{"\xc3":1}': Reason.MALFORMED,
    b'{"a":"\xed\xa0\x80"}': Reason.MALFORMED,
    b'{"a":"\\x41"}': Reason.MALFORMED,
    b'{"a":"\\u12"}': Reason.MALFORMED,
    b"{'a':1}": Reason.MALFORMED,
    b'{"a":1,}': Reason.MALFORMED,
    b'{"a"}': Reason.MALFORMED,
    b'{"a":1} {"b":2}': Reason.MALFORMED,
    b'{"a":' + b"[" * 100_000 + b"]" * 100_000 + b"}": Reason.MALFORMED,
    b'{"a":' + b'{"a":' * 2_000 + b"1" + b"}" * 2_000 + b"}": Reason.MALFORMED,
    b"undefined": Reason.MALFORMED,
    b"1": Reason.NOT_AN_OBJECT,
    b"1e999": Reason.NOT_AN_OBJECT,
    b"null": Reason.NOT_AN_OBJECT,
    b'"{}"': Reason.NOT_AN_OBJECT,
    b'[{"id":"a"}]': Reason.NOT_AN_OBJECT,
    b'{"a":"' + b"x" * 300 * 1024 + b'"}': Reason.TOO_LARGE,
}


@pytest.mark.parametrize("bad", BAD, ids=lambda bad: bad[:20].decode(errors="backslashreplace"))
@pytest.mark.parametrize("place", [0, 1, 2])
def test_one_bad_event_never_costs_the_others(bad: bytes, place: int) -> None:
    """The device would send all of them again, and again."""
    events = [A, B]
    events.insert(place, bad)
    good = [event for event in events if event is not bad]
    wrapped = [b"[" + b",".join(events) + b"]", b'{"v":1,"events":[' + b", ".join(events) + b"]}"]

    for decoded in [*map(decode, wrapped), decode(b"\n".join(events), NDJSON)]:
        assert good == bodies(decoded)
        assert {place: BAD[bad]} == codes(decoded)
        assert [index for index in range(3) if index != place] == [event.index for event in decoded.events]


def test_a_comma_too_many_is_one_event_too_few() -> None:
    """Whoever joins strings by hand leaves one now and then."""
    decoded = decode(b"[" + A + b",," + B + b",]")

    assert [A, B] == bodies(decoded)
    assert {1: Reason.MALFORMED, 3: Reason.MALFORMED} == codes(decoded)


def test_a_large_event_is_rejected_with_both_sizes() -> None:
    """Its sender can then cut it down."""
    event = b'{"a":"' + b"x" * 300 * 1024 + b'"}'
    decoded = decode(b"[" + A + b"," + event + b"]")

    assert [A] == bodies(decoded)
    assert [Rejection(1, Reason.TOO_LARGE, "the event has 307,208 bytes; the limit is 262,144")] == decoded.rejected


def test_the_largest_event_that_fits_is_taken() -> None:
    """The limit is on the event as sent."""
    limits = DecodeLimits(max_events=10, max_event_bytes=len(A))

    for body in (A, b"[" + A + b"]", A + b"\n" + A, b" " * 100 + A):
        assert not decode(body, limits=limits).rejected
    assert {0: Reason.TOO_LARGE} == codes(decode(A[:-1] + b" }", limits=limits))


def test_lines_that_hold_more_or_less_than_one_event_are_rejected_alone() -> None:
    """Joined to an array they would pass: `{},{}` on one line, `{"a":[1` and `2]}` on two."""
    decoded = decode(A + b'\n{},{}\n{"a":[1\n2]}\n{"a":1}{"b":2}\n' + B, NDJSON)

    assert [A, B] == bodies(decoded)
    assert [1, 2, 3, 4] == sorted(codes(decoded))


def test_three_lines_that_would_be_three_events_otherwise_are_none() -> None:
    """Not even when their number comes out right."""
    decoded = decode(b'{},{}\n{"a":[1\n2]}', NDJSON)

    assert [0, 1, 2] == sorted(codes(decoded))
    assert not decoded.events


def test_lines_are_counted_without_blank_ones() -> None:
    """The index is that of the event, as for an array."""
    decoded = decode(b"\n\n" + A + b"\n  \nnonsense\n\r\n" + B)

    assert {1: Reason.MALFORMED} == codes(decoded)
    assert [0, 2] == [event.index for event in decoded.events]


def test_arrays_on_lines_are_no_events() -> None:
    """Declared NDJSON is lines, unless all of it is one array."""
    decoded = decode(b"[1]\n" + A + b"\n[2]", NDJSON)

    assert [A] == bodies(decoded)
    assert {0: Reason.NOT_AN_OBJECT, 2: Reason.NOT_AN_OBJECT} == codes(decoded)
    assert {0: Reason.NOT_AN_OBJECT} == codes(decode(b"[1]\n" + (A + b"\n") * 100_000, NDJSON, MANY))


def test_a_batch_over_a_mebibyte_with_lone_surrogates_is_taken() -> None:
    """A device that was offline for a day sends much at once."""
    event = b'{"id":"x","s":"\\ud83d","t":"' + b"x" * 200_000 + b'"}'

    assert [event] * 8 == bodies(decode(b'{"events":[' + b",".join([event] * 8) + b"]}"))


# --- uploads that are refused as a whole ---


@pytest.mark.parametrize(
    ("body", "words"),
    [
        (b"", "empty"),
        (b" \r\n\t", "empty"),
        (b"\xef\xbb\xbf", "empty"),
        (b"42", "not JSON that holds events"),
        (b'"text"', "not JSON that holds events"),
        (b"null", "not JSON that holds events"),
        (b"id=1&name=x", "not JSON that holds events"),
        (b"\xff\xfe{\x00}\x00", "not JSON that holds events"),
        (b"[]", "no events"),
        (b" [ ] ", "no events"),
        (b'{"events":[]}', "no events"),
        (b'{"a":1', "not valid JSON"),
        (b'{"a":NaN}', "byte 5"),
        (b'{\n"a":NaN\n}', "byte 6"),
        (b'{"a":1}{"b":2}', "trailing characters"),
        (b'{"a":"\xff"}', "not UTF-8 (byte 6)"),
        (b'{"a":' * 100_000 + b"1" + b"}" * 100_000, "nested too deeply"),
        (b"[" * 100_000, "never closed"),
        (b'[{"a":1},{"b":"cut o', "never closed"),
        (b'[{"a":1}] and more', "follows the end"),
        (b'{"events":[{"a":1}, {"b":', "not valid JSON"),
    ],
)
def test_an_upload_without_events_is_refused_in_a_clear_sentence(body: bytes, words: str) -> None:
    """Whoever wrote the client reads it."""
    problem = refused(body)

    assert Reason.MALFORMED == problem.reason
    assert words in problem.message


@pytest.mark.parametrize("content_type", ["application/json", NDJSON])
def test_ten_thousand_and_one_events_are_refused(content_type: str) -> None:
    """The limit keeps one upload from holding up the others of the worker."""
    events = [b"{}"] * 10_001
    shapes = [b"\n".join(events), b"[" + b",".join(events) + b"]"]
    if content_type != NDJSON:
        shapes += [b'{"events":' + shapes[1] + b"}", b"[" + b",".join([*events[:-1], b"NaN"]) + b"]"]

    for body in shapes:
        problem = refused(body, content_type)
        assert Reason.TOO_LARGE == problem.reason
        assert "events; the limit is 10,000 an upload: send fewer at once" in problem.message


def test_ten_thousand_events_are_taken() -> None:
    """Exactly the limit is within it."""
    events = [b"{}"] * 10_000

    assert 10_000 == len(decode(b"[" + b",".join(events) + b"]").events)
    assert 10_000 == len(decode(b"\n".join(events)).events)
    assert "10,001 events" in refused(b"[" + b",".join([*events, b"{}"]) + b"]").message


def test_a_large_broken_upload_is_refused_with_the_place_of_the_mistake() -> None:
    """Above a mebibyte the boundaries behind a mistake are not looked for."""
    event = b'{"a":"' + b"x" * 200_000 + b'"}'
    problem = refused(b"[NaN," + b",".join([event] * (split.MAX_COUNTED // 200_000 + 1)) + b"]")

    assert Reason.MALFORMED == problem.reason
    assert "byte 1" in problem.message


def test_no_sentence_repeats_what_was_sent() -> None:
    """Messages are logged; content must not be."""
    secret = b'"hunter2"'
    said = [refused(b'{"a":' + secret + b"x}").message, refused(b'[{"a":' + secret + b"}").message]
    said += [rejection.message for rejection in decode(b'[{"a":' + secret + b"x},[" + secret + b"]]").rejected]

    assert 4 == len(said)
    assert not [message for message in said if "hunter2" in message]


# --- any bytes at all ---

VALUES = st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats(allow_nan=False, allow_infinity=False) | st.text(max_size=9),
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(st.text(max_size=5), inner, max_size=3),
    max_leaves=6,
)
OBJECTS = st.dictionaries(
    st.sampled_from(["id", "uuid", "events", "a", "é\n"]) | st.text(max_size=5), VALUES, max_size=4
)
ANY_EVENT = OBJECTS | VALUES


def dumps(value: object, indent: int | None = None) -> bytes:
    return json.dumps(value, indent=indent, ensure_ascii=False).encode(errors="surrogatepass")


def is_utf8(text: bytes) -> bool:
    return text == text.decode(errors="ignore").encode()


@given(st.lists(OBJECTS, min_size=1, max_size=5), st.sampled_from([None, 1]), st.booleans())
def test_any_objects_come_out_as_they_went_in(values: list[dict[str, object]], indent: int | None, plain: bool) -> None:
    """Split, by bytes and by meaning, in every shape."""
    texts = [json.dumps(value, indent=indent, ensure_ascii=plain).encode(errors="replace") for value in values]
    lines = [text.replace(b"\n", b" ") for text in texts]
    array = b"[" + b" ,".join(texts) + b"]"

    for decoded in (decode(array), decode(b'{"events":' + array + b"}"), decode(b"\n".join(lines), NDJSON)):
        assert lines == bodies(decoded)
        assert [json.loads(text) for text in texts] == [json.loads(body) for body in bodies(decoded)]
        assert list(range(len(values))) == [event.index for event in decoded.events]
        assert all(isinstance(json.loads(event.id), str) for event in decoded.events)


@given(st.lists(st.tuples(st.booleans(), st.sampled_from(sorted(BAD)) | ANY_EVENT.map(dumps)), min_size=1, max_size=6))
def test_accepted_and_rejected_are_all_that_was_sent(mixed: list[tuple[bool, bytes]]) -> None:
    """For any mix: each event is in exactly one of the two, and no good one among the rejected."""
    number = count()
    elements = [b'{"id":%d}' % next(number) if good else element for good, element in mixed]
    shapes = [decode(b"[" + b",".join(elements) + b"]")]
    if len(elements) > 1 or not elements[0].startswith(b"["):
        shapes.append(decode(b"\n".join(elements), NDJSON))

    for decoded in shapes:
        accepted = {event.index: event.body for event in decoded.events}
        assert list(range(len(elements))) == sorted([*accepted, *codes(decoded)])
        assert all(elements[index] == body for index, body in accepted.items())
        for index, element in enumerate(elements):
            fine = element not in BAD and element.startswith(b"{") and is_utf8(element)
            assert fine == (index in accepted)


CONTENT_TYPES = st.sampled_from(["application/json", NDJSON])
SHAPED = st.builds(
    lambda shape, texts: shape[0] + shape[1].join(texts) + shape[2],
    st.sampled_from([(b"[", b",", b"]"), (b'{"events":[', b",", b"]}"), (b"", b"\n", b"")]),
    st.lists(ANY_EVENT.map(dumps) | st.sampled_from(sorted(BAD, key=len)[:-3]), max_size=4),
)


@given(SHAPED, st.lists(st.tuples(st.integers(0, 400), st.binary(max_size=3)), max_size=3), CONTENT_TYPES)
@settings(max_examples=400)
def test_nothing_that_is_sent_raises_anything_but_bad_upload(
    body: bytes, changes: list[tuple[int, bytes]], content_type: str
) -> None:
    """Nearly right is what finds the gaps: valid uploads with a few bytes changed, cut or put in."""
    for position, put_in in changes:
        body = body[:position] + put_in + body[position + len(put_in) % 2 :]

    decoded = attempt(body, content_type)
    if isinstance(decoded, str):
        assert decoded in {Reason.MALFORMED, Reason.TOO_LARGE}
        return

    indexes = sorted([event.index for event in decoded.events] + list(codes(decoded)))
    assert list(range(len(indexes))) == indexes
    for event in decoded.events:
        assert isinstance(json.loads(event.body), dict)
        assert not set(event.body) & set(b"\r\n")
        assert isinstance(json.loads(event.id), str)


@given(st.binary(max_size=200), CONTENT_TYPES)
def test_no_bytes_raise_anything_but_bad_upload(body: bytes, content_type: str) -> None:
    """And if they are taken, they are JSON."""
    decoded = attempt(body, content_type)

    assert isinstance(decoded, str) or all(isinstance(json.loads(event.body), dict) for event in decoded.events)


# --- keys ---


def basic(text: bytes) -> str:
    return "Basic " + base64.b64encode(text).decode()


@pytest.mark.parametrize(
    ("sent", "expected"),
    [
        (request(authorization="Bearer k1"), "k1"),
        (request(authorization="bearer  k1 "), "k1"),
        (request(authorization=basic(b"k1:")), "k1"),
        (request(authorization=basic(b"k1:secret:more")), "k1"),
        (request(x_collector_key="k1"), "k1"),
        (request(query="key=k1"), "k1"),
        (request(query="a=b&key=k%2B1&c"), "k+1"),
        (request(authorization="Bearer k1", x_collector_key="k2", query="key=k3"), "k1"),
        (request(authorization=basic(b"k1:"), x_collector_key="k2", query="key=k3"), "k1"),
        (request(x_collector_key="k2", query="key=k3"), "k2"),
        (request(authorization="Digest abc", x_collector_key="k2"), "k2"),
        (request(authorization="Basic !!!", query="key=k3"), "k3"),
        (request(authorization="Basic !!!"), None),
        (request(authorization=basic(b"no colon")), None),
        (request(authorization=basic(b"\xff:")), None),
        (request(authorization=basic(b":password")), None),
        (request(authorization="Basic é"), None),
        (request(authorization="Bearer"), None),
        (request(authorization="Bearer "), None),
        (request(authorization="k1"), None),
        (request(query="monkey=1"), None),
        (request(query="key="), None),
        (request(), None),
    ],
)
def test_the_key_is_found_where_the_contract_says(sent: Request, expected: str | None) -> None:
    """In its order; what does not decode is passed over, and nothing raises."""
    assert expected == Native().credentials(sent).key


# --- the answer ---


def test_the_answer_names_each_rejected_event() -> None:
    """All of them: a client that sends them again must know which."""
    rejected = [Rejection(index, Reason.TOO_LARGE, "too long") for index in range(3000)]
    reply = Native().render(Result(2, rejected, Ack.SPOOL, "r-1"), Decoded([], rejected))
    body = json.loads(reply.body)

    assert 200 == reply.status
    assert ("partial", 2, "spool", "r-1") == (body["status"], body["accepted"], body["ack"], body["receipt"])
    assert {"index": 2999, "code": "too_large", "message": "too long"} == body["rejected"][-1]
    assert 3000 == len(body["rejected"])


def test_the_answer_to_an_upload_without_a_flaw_is_ok() -> None:
    """The contract's words, as JSON."""
    reply = Native().render(Result(2, [], Ack.SINK, "r-1"), Decoded([], []))

    assert {"status": "ok", "accepted": 2, "rejected": [], "ack": "sink", "receipt": "r-1"} == json.loads(reply.body)
    assert (("Content-Type", "application/json"),) == reply.headers
