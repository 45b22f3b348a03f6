"""CleverTap's rules for a record, each by its code."""

from __future__ import annotations

import json

import pytest
from hypothesis import given
from hypothesis import strategies as st

from collector.protocols.clevertap_rules import fault

EVENT = {"type": "event", "evtName": "open", "identity": "u1"}
PROFILE = {"type": "profile", "profileData": {}, "identity": "u1"}


def code(record: dict[str, object]) -> int | None:
    found = fault(json.dumps(record).encode())
    return found and found[0]


def event(**fields: object) -> dict[str, object]:
    return {**EVENT, **fields}


def profile(**properties: object) -> dict[str, object]:
    return {**PROFILE, "profileData": properties}


def without(key: str) -> dict[str, object]:
    return {name: value for name, value in EVENT.items() if name != key}


@pytest.mark.parametrize(
    "record",
    [
        EVENT,
        PROFILE,
        event(evtData={}),
        event(evtData=None, ts=None, FBID=None),
        event(ts=0),
        event(ts=1_700_000_000),
        event(identity=12345678901234567890),
        event(identity="u1", objectId="o1", FBID="f", GPID="g"),
        event(evtData={"Items": [{"name": "a", "price": 2.5}, {"name": "b"}], "when": "$D_1700000000"}),
        event(evtData={"k" * 120: "é" * 256}),
        event(evtData={f"k{number}": number for number in range(256)}),
        event(evtData={"n": {"m": [[["x" * 512]]]}}),
        event(surprise=[1]),
        {**PROFILE, "profileData": {"Name": "A", "tags": {"$add": ["a"]}}},
    ],
    ids=str,
)
def test_a_record_within_the_rules_has_no_fault(record: dict[str, object]) -> None:
    """At the limits, and with what the rules do not speak of."""
    assert code(record) is None


@pytest.mark.parametrize(
    ("expected", "record"),
    [
        (509, without("evtName")),
        (509, event(evtName=None)),
        (509, event(evtName="")),
        (512, event(evtName=7)),
        (512, event(evtName="n" * 513)),
        (512, event(evtData=[])),
        (512, event(evtData="{}")),
        (512, event(evtData={"k" * 121: 1})),
        (512, event(evtData={"a": [{"k" * 121: 1}]})),
        (512, event(evtData={"a": "v" * 513})),
        (512, event(evtData={"a": "é" * 257})),
        (512, event(evtData={"Items": [{"a": "v" * 513}]})),
        (512, {**PROFILE, "profileData": None}),
        (512, {**PROFILE, "profileData": []}),
        (512, {"type": "profile", "identity": "u1"}),
        (512, profile(Name="v" * 513)),
        (522, event(evtData={f"k{number}": number for number in range(257)})),
        (522, profile(**{f"k{number}": number for number in range(257)})),
        (523, without("identity")),
        (523, event(identity="")),
        (523, event(identity=None)),
        (523, event(identity=True)),
        (523, event(identity={"id": 1})),
        (523, event(identity=1.5)),
        (524, without("type")),
        (524, event(type="Event")),
        (524, event(type=None)),
        (524, event(type=["event"])),
        (524, {"type": "token", "tokenData": {"id": "t", "type": "fcm"}, "objectId": "o1"}),
        (525, event(ts="1700000000")),
        (525, event(ts=1_700_000_000_000)),
        (525, event(ts=1_700_000_000.5)),
        (525, event(ts=-1)),
        (525, event(ts=10**400)),
        (525, event(ts=True)),
        (525, {**PROFILE, "ts": "now"}),
        (526, event(objectId="")),
        (526, event(objectId=7)),
        (526, event(objectId={})),
    ],
    ids=str,
)
def test_a_record_against_a_rule_has_its_code(expected: int, record: dict[str, object]) -> None:
    """Callers look the number up in CleverTap's documentation."""
    assert expected == code(record)


@pytest.mark.parametrize(
    ("key", "expected", "good", "bad"),
    [
        ("Gender", 514, ["M", "F", "f", "Male", None], ["X", "", 1, ["M"]]),
        ("Email", 515, ["a@b.c", " jack@example.com ", None], ["a", "@b", "a@", "a b@c", "a@b@c", 7, {}]),
        (
            "Phone",
            516,
            ["+14155551234", "+1 (415) 555-1234", "4155551234", 4155551234],
            ["call me", "+", "12", True, 1.5],
        ),
        ("Employed", 517, ["Y", "n", "yes", True, False], ["maybe", 1, []]),
        ("Education", 518, ["School", "College", "graduate"], ["None", 3, True]),
        ("Married", 519, ["Y", "N", False], ["often", 0]),
        ("Age", 520, [1, 28, "28", 149], [0, -1, 150, "", "old", "٣", True, 28.5, 10**400, "1" * 5000]),
    ],
)
def test_a_profile_is_judged_by_what_it_says(key: str, expected: int, good: list[object], bad: list[object]) -> None:
    """The documented values pass in any case; what can't be meant does not."""
    assert [None] * len(good) == [code(profile(**{key: value})) for value in good]
    assert [expected] * len(bad) == [code(profile(**{key: value})) for value in bad]


def test_a_number_that_no_float_holds_is_no_age() -> None:
    """It is valid JSON, and must not break the judge."""
    found = fault(b'{"type":"profile","identity":"u","profileData":{"Age":1e999}}')

    assert (520, "Age must be a number of years") == found


def test_a_time_of_thousands_of_digits_is_no_epoch() -> None:
    """Python refuses to read an integer of more than 4,300."""
    found = fault(b'{"type":"event","identity":"u","evtName":"n","ts":' + b"1" * 5000 + b"}")

    assert (525, "ts must be a UNIX epoch in whole seconds") == found


@pytest.mark.parametrize(
    ("record", "expected"),
    [
        (b'{"type":"event","identity":"\\ud800","evtName":"\\udc00","evtData":{"\\ud800":["\\ud800"]}}', None),
        (b'{"type":"event","identity":"\\ud800","evtData":{}}', 509),
        (b'{"type":"event","identity":"u","evtName":"n","evtData":{"a":"' + b"\\ud800" * 171 + b'"}}', 512),
    ],
)
def test_lone_surrogates_are_judged_like_any_text(record: bytes, expected: int | None) -> None:
    """They are valid JSON; only the decoder does not take them."""
    found = fault(record)

    assert expected == (found and found[0])


def test_a_record_nested_to_the_edge_is_a_fault_and_no_crash() -> None:
    """Somewhere near a thousand levels each decoder gives up, and not all at the same."""
    results = set()
    for depth in range(600, 1100, 4):
        nested = b"[" * depth + b"]" * depth
        found = fault(b'{"type":"event","identity":"u","evtName":"n","evtData":{"a":' + nested + b"}}")
        results.add(found and found[0])

    assert {None, 512} == results


PLAIN = st.none() | st.booleans() | st.integers() | st.floats() | st.text(max_size=5)
ANYTHING = st.recursive(
    PLAIN | st.sampled_from(["event", "profile"]),
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(st.sampled_from(["Age", "Phone", "x"]), inner),
    max_leaves=5,
)


@given(st.dictionaries(st.sampled_from([*EVENT, "ts", "evtData", "objectId", "profileData"]), ANYTHING))
def test_no_record_breaks_the_judge(record: dict[str, object]) -> None:
    """Any types in any place."""
    text = json.dumps(record).replace("NaN", "0").replace("-Infinity", "1").replace("Infinity", "1e999")
    found = fault(text.encode())

    assert found is None or (509 <= found[0] <= 526 and found[1])
