"""What HEC takes of a body: as real ones were seen to do it, and the same however the bytes are joined."""

from __future__ import annotations

import json
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from collector.control.hec.speech import CODES, take

LEAVES = st.none() | st.booleans() | st.integers(-(2**53), 2**53) | st.text(st.characters(exclude_categories=["Cs"]))
EVENTS = st.dictionaries(st.text(st.characters(exclude_categories=["Cs"])), LEAVES, max_size=4)
JOINTS = st.sampled_from(["", "\n", " ", "\r\n\t "])


def envelope(event: object, **more: object) -> str:
    return json.dumps({"time": 1.5, "host": "h", "source": "collector", "event": event, **more}, ensure_ascii=False)


def lines(body: str | bytes, indexes: frozenset[str] | None = None) -> list[Any]:
    taken = take(body.encode() if isinstance(body, str) else body, indexes)
    return [json.loads(event.line) for event in taken.events]


@given(st.lists(EVENTS, min_size=1, max_size=8), JOINTS)
def test_envelopes_are_told_apart_however_they_are_joined(events: list[dict[str, Any]], joint: str) -> None:
    """Splunk needs nothing between them, and a string may hold what looks like the end of one."""
    body = joint.join(envelope(event) for event in events)

    taken = take(body.encode())

    assert (0, None) == (taken.code, taken.invalid_event_number)
    assert [json.dumps(event, ensure_ascii=False).encode() for event in events] == [one.line for one in taken.events]


@given(st.lists(EVENTS, min_size=1, max_size=5), JOINTS)
def test_an_array_is_as_good(events: list[dict[str, Any]], joint: str) -> None:
    """Both forms are documented, and may follow one another."""
    array = "[" + ("," + joint).join(envelope(event) for event in events) + "]"

    assert events == lines(array)
    assert [*events, {"last": 1}] == lines(array + joint + envelope({"last": 1}))


@given(st.binary(max_size=300) | st.text(max_size=100).map(str.encode))
def test_any_bytes_get_an_answer(body: bytes) -> None:
    """Whatever a sender under test sends by mistake, the server has to say what was wrong with it."""
    taken = take(body)

    assert taken.code in CODES
    assert (taken.code in {6, 7, 12, 13, 15}) == (taken.invalid_event_number is not None)


BAD = {
    "nonsense": ("{nonsense", 6),
    "a number": ("7", 6),
    "NaN": ('{"event":NaN}', 6),
    "a bad time": ('{"time":"noon","event":1}', 6),
    "a host that is no string": ('{"host":1,"event":1}', 6),
    "no event": ('{"time":1}', 12),
    "null": ('{"event":null}', 12),
    "blank": ('{"event":""}', 13),
    "only spaces": ('{"event":"  "}', 13),
    "nested fields": ('{"event":1,"fields":{"a":{"b":1}}}', 15),
    "fields that are no object": ('{"event":1,"fields":[1]}', 15),
    "deep nesting": ('{"event":' + "[" * 100_000, 6),
}


@pytest.mark.parametrize("place", [0, 1, 3])
@pytest.mark.parametrize("joint", ["", "\n"])
@pytest.mark.parametrize(("bad", "code"), BAD.values(), ids=BAD)
def test_events_before_a_bad_one_are_indexed_and_no_others(bad: str, code: int, joint: str, place: int) -> None:
    """It is what makes resending the whole batch a duplicate, and dropping it a loss."""
    good = [envelope({"n": n}) for n in range(5)]
    body = joint.join([*good[:place], bad, *good[place:]])

    taken = take(body.encode())

    assert (code, place) == (taken.code, taken.invalid_event_number)
    assert [{"n": n} for n in range(place)] == [json.loads(event.line) for event in taken.events]


def test_an_index_that_is_not_allowed_is_told_with_the_next_number() -> None:
    """Real ones were seen to be off by one there, and a sender that trusts the number drops the wrong event."""
    body = "\n".join([envelope(1, index="main"), envelope(2, index="secret"), envelope(3)])

    taken = take(body.encode(), frozenset({"main"}))

    assert (7, 2) == (taken.code, taken.invalid_event_number)
    assert [b"1"] == [event.line for event in taken.events]
    assert [1, 2, 3] == lines(body)


@pytest.mark.parametrize("joint", ["", "\n"])
def test_a_key_that_hec_does_not_know_ends_the_body_with_a_success(joint: str) -> None:
    """The worst of all answers: 200, and the rest of the batch is nowhere."""
    taken = take(joint.join([envelope(1), envelope(2, severity="high"), envelope(3)]).encode())

    assert (0, None) == (taken.code, taken.invalid_event_number)
    assert [b"1"] == [event.line for event in taken.events]


def test_fields_without_an_event_are_passed_over() -> None:
    """They are answered 200 too, and those around them are indexed."""
    body = envelope(1) + '{"fields":{"a":1}}' + envelope(3)

    assert [1, 3] == lines(body)
    assert 0 == take(body.encode()).code
    # It was an event all the same, and those after it are counted on.
    assert 2 == take((envelope(1) + '{"fields":{"a":1}}' + "oops").encode()).invalid_event_number


@pytest.mark.parametrize("body", [b"", b" \n", b"[]"])
def test_nothing_is_answered_with_no_data(body: bytes) -> None:
    """Code 5: a sender that sends it has a bug."""
    assert 5 == take(body).code


def test_bytes_that_are_no_text_spoil_what_comes_from_there() -> None:
    """One event in the wrong encoding does not take back those before it."""
    taken = take(envelope(1).encode() + b'{"event":"\xff"}')

    assert (6, 1, [b"1"]) == (taken.code, taken.invalid_event_number, [event.line for event in taken.events])


def test_a_comma_that_is_missing_in_an_array_is_seen() -> None:
    """An array is not a mere pair of brackets around envelopes."""
    taken = take(b'[{"event":1}{"event":2}]')

    assert (6, 1) == (taken.code, taken.invalid_event_number)


def test_metadata_stay_with_their_event() -> None:
    """A batch mixes hosts and sourcetypes, and each envelope has its own."""
    more = {"sourcetype": "s", "index": "i", "fields": {"a": 1, "b": ["x", "y"]}}
    [event] = take(envelope({"a": 1}, **more).encode()).events

    assert (1.5, "h", "collector", "s", "i") == (event.time, event.host, event.source, event.sourcetype, event.index)
    assert {"a": 1, "b": ["x", "y"]} == event.fields
