"""Cutting JSON without parsing it: against a parser, against mistakes, and against those who make them on purpose."""

from __future__ import annotations

import json
import re
import tracemalloc
from collections.abc import Callable

import msgspec
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from collector.errors import BadUpload
from collector.outcome import Reason
from collector.protocols import split

JSON = st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats(allow_nan=False, allow_infinity=False) | st.text(max_size=8),
    lambda inner: st.lists(inner, max_size=4) | st.dictionaries(st.text(max_size=8), inner, max_size=4),
    max_leaves=8,
)
#: Bytes that brackets, quotes and commas are likely among.
CONFUSION = st.lists(
    st.sampled_from([b"[", b"]", b"{", b"}", b'"', b"\\", b",", b":", b" ", b"\n", b"1", b'"x,]"', b"[[[[[[{}]]]]]]"]),
    max_size=40,
).map(b"".join)


def plainly(text: bytes) -> list[bytes] | None:
    """Find the items of one array or object a byte at a time: the measure for the fast way."""
    items, depth, start, quoted, escaped = [], 0, 0, False, False
    for position, byte in enumerate(text):
        character = chr(byte)
        if quoted:
            quoted = escaped or character != '"'
            escaped = not escaped and character == "\\"
        elif character == '"':
            quoted = True
        elif character in "[{":
            depth += 1
            start = position + 1 if depth == 1 else start
        elif character == "," and depth == 1:
            items.append(text[start:position].strip(b" \t\r\n"))
            start = position + 1
        elif character in "]}":
            depth -= 1
            if depth == 0:
                items.append(text[start:position].strip(b" \t\r\n"))
                return None if text[position + 1 :].strip(b" \t\r\n") else items
    return None


def counted(text: bytes) -> list[bytes] | None:
    try:
        return list(split._items(text, 1000))
    except split.Unbalanced:
        return None


@given(CONFUSION, st.sampled_from([b"]", b"}", b"", b"] ", b"]]"]))
@settings(max_examples=300)
def test_brackets_are_counted_as_a_plain_scan_counts_them(middle: bytes, end: bytes) -> None:
    """The pattern steps over four levels at a time; it must stop where a byte-by-byte count stops."""
    text = b"[" + middle + end

    assert plainly(text) == counted(text)


@given(st.lists(JSON, max_size=6), st.sampled_from([None, 1]), st.booleans())
def test_both_ways_find_the_elements_of_any_array(values: list[object], indent: int | None, ascii_only: bool) -> None:
    """The careful way must not know another JSON than the fast one."""
    text = json.dumps(values, indent=indent, ensure_ascii=ascii_only).encode(errors="surrogatepass")
    elements = split.elements(text, 1000)

    assert values == [json.loads(element) for element in elements]
    # Empty brackets hold one empty item, as far as counting goes.
    assert (elements or [b""]) == counted(text)


@given(st.lists(JSON, max_size=6))
def test_the_fast_way_keeps_every_byte(values: list[object]) -> None:
    """Whatever the white space between them, elements come out as they went in."""
    texts = [json.dumps(value).replace("\\ud", "\\u0").encode() for value in values]

    assert texts == split.array(b" [\r\n" + b" ,\t".join(texts) + b"]\n", 1000)


@pytest.mark.parametrize("depth", [1, 3, 5, 6, 50, 5000])
def test_depth_does_not_stop_the_count(depth: int) -> None:
    """Stepping over four levels is a shortcut, not a limit."""
    deep = b'{"a":' * depth + b"1" + b"}" * depth

    assert [b"1", deep, b"2", deep] == split.elements(b"[1," + deep + b",2," + deep + b"]", 10)


def test_a_mistake_ends_with_its_element() -> None:
    """One bad event must not cost the others."""
    bad = [b'{"a":NaN}', b"", b'{"a":"\x01"}', b'{"a":1 2}', b"'", b'{"a":tru}', b'{"\\x":1}', b'{"\xff":1}']
    text = b"[" + b",".join(element + b',{"good":1}' for element in bad) + b"]"

    assert [element for pair in zip(bad, [b'{"good":1}'] * len(bad), strict=True) for element in pair] == (
        split.elements(text, 100)
    )


@pytest.mark.parametrize("text", [b"[1,2", b'["a', b"[[1]", b'[{"a":1},{"b":"x},{"c":1}]', b"[1] 2", b"[1]]", b"["])
def test_elements_that_can_not_be_told_apart_are_unbalanced(text: bytes) -> None:
    """A guess would make events that nobody sent."""
    with pytest.raises(split.Unbalanced):
        split.elements(text, 10)


def test_large_broken_arrays_are_refused_with_the_place() -> None:
    """Counting brackets holds up the worker; over a mebibyte, the first mistake is all that is said."""
    text = b'[{"a":NaN},"' + b"x" * split.MAX_COUNTED + b'"]'

    with pytest.raises(BadUpload) as caught:
        split.elements(text, 10)

    assert Reason.MALFORMED == caught.value.reason
    assert "byte 6" in caught.value.message


def test_a_lone_surrogate_costs_nothing_however_large_the_array() -> None:
    """JavaScript writes them for a string that was cut within an emoji: no mistake, and not rare."""
    long = b'{"a":"\\\\\\ud83d\\\\ud83d","b":"' + b"x" * 500_000 + b'"}'
    text = b" [ " + b" ,\n ".join([long] * 5) + b" ] "

    assert [long] * 5 == split.elements(text, 10)


def test_a_mask_changes_no_length_and_leaves_no_surrogate() -> None:
    """Places found in the mask are places in the text."""
    text = rb'["\ud83d","\\ud83d","\\\uDE00","\u00e9","\\\\\ud800\\"]'
    mask = split.masked(text)

    assert len(text) == len(mask)
    assert not re.search(rb"\\u[dD]|\\\\", mask)
    assert 5 == len(msgspec.json.decode(mask))


@pytest.mark.parametrize("way", [split.array, split.elements])
def test_one_element_too_many_is_refused(way: Callable[[bytes, int], list[bytes]]) -> None:
    """And the last that fits is not."""
    assert 3 == len(way(b"[1,2,3]", 3))
    with pytest.raises(BadUpload) as caught:
        way(b"[1,2,3,4]", 3)
    assert Reason.TOO_LARGE == caught.value.reason
    assert "4 events; the limit is 3" in caught.value.message


def test_one_element_too_many_is_refused_while_counting() -> None:
    """Where the text is broken as well."""
    with pytest.raises(BadUpload, match="more than 3 events"):
        split.elements(b"[1,NaN,3,4]", 3)


@pytest.mark.parametrize("element", [b"1", b"{}"])
def test_millions_of_small_elements_cost_no_memory(element: bytes) -> None:
    """Each slice would be thirty times the size of its element: 400 MiB for a body within all limits."""
    text = b"[" + (element + b",") * (8_000_000 // len(element)) + element + b"]"
    split._slots(10_001)
    tracemalloc.start()
    try:
        with pytest.raises(BadUpload, match="more than 10,000 events"):
            split.array(text, 10_000)
        peak = tracemalloc.get_traced_memory()[1]
    finally:
        tracemalloc.stop()

    assert peak < 4 << 20


def test_an_array_with_many_commas_is_split_the_same() -> None:
    """The guarded way is for those who mean well, too."""
    element = b"[" + b"1," * 50_000 + b"1]"

    assert [element] * 5 == split.array(b"[" + b", ".join([element] * 5) + b"]", 5)


def test_members_are_key_tokens_and_values() -> None:
    """Duplicates stay, in their order; what is no member is left out."""
    text = b' { "a" : [1,2] , nonsense, "b\\"":{"c":","} ,"a":NaN,"d"} '

    assert [(b'"a"', b"[1,2]"), (b'"b\\""', b'{"c":","}'), (b'"a"', b"NaN")] == split.members(text)


def test_an_array_is_found_in_an_object_with_lone_surrogates() -> None:
    """Its own bytes come back, not those of the mask."""
    text = b'{"x":["\\ud800"],"d":["\\ud801"],"e":"\\ud802"}'

    assert b'["\\ud801"]' == split.array_under("d", text)
    assert b"" == split.array_under("e", text)
    assert b"" == split.array_under("f", text)


def test_an_array_is_found_in_an_object_with_mistakes() -> None:
    """The envelope's mistakes are not the events' fault."""
    assert b"[1,NaN]" == split.array_under("d", b'{"d":0,"x":tru,"d":[1,NaN]}')


@pytest.mark.parametrize("text", [b'{"x":NaN}', b'{"d":NaN}', b'{"d":[1]', b'{"d":[1]} x', b'{"d":[' + b"1," * 600_000])
def test_a_broken_object_without_an_array_is_malformed(text: bytes) -> None:
    """There is nothing in it to be saved."""
    with pytest.raises(BadUpload) as caught:
        split.array_under("d", text)
    assert Reason.MALFORMED == caught.value.reason


@pytest.mark.parametrize("blank", [b"", b"\n", b" \r\n", b"\n" * 100])
def test_lines_are_those_that_are_not_blank(blank: bytes) -> None:
    """Whether there are few line breaks or many."""
    text = blank + b" 1 \r\n" + blank + b"2" + blank

    assert [b"1", b"2"] == split.lines(text, 2)
    assert [b"1", b"2"] == split.lines(text, 1000)
    with pytest.raises(BadUpload, match="more than 1 events"):
        split.lines(text, 1)


@pytest.mark.parametrize(
    ("text", "expected"),
    [
        (b'{"a":1}\n{"b":2}', True),
        (b'{"a":1}\n{"b":NaN}\n\n{"c":"x\n{"d":1}', True),
        (b'{"a":1}', False),
        (b'{"a":1}\n', False),
        (b'{\n"a":1\n}', False),
        (b'{"events":[\n{"a":1},\n{"b":NaN}\n]}', False),
    ],
)
def test_ndjson_is_told_by_its_lines(text: bytes, expected: bool) -> None:
    """A pretty-printed object with a mistake must not become many events."""
    assert expected == split.looks_like_lines(text)


@pytest.mark.parametrize(
    ("element", "reason", "words"),
    [
        (b"{}", None, ""),
        (b'{"a":"\\ud800"}', None, ""),
        (b"1", Reason.NOT_AN_OBJECT, "object"),
        (b"[{}]", Reason.NOT_AN_OBJECT, "object"),
        (b"", Reason.MALFORMED, "comma"),
        (b'{"a":NaN}', Reason.MALFORMED, "byte 5"),
        (b'{"a":"\xff"}', Reason.MALFORMED, "UTF-8 (byte 6)"),
        (b'{"a":"\\ud800\\x"}', Reason.MALFORMED, "escape"),
        (b'{"a":' * 9999 + b"1" + b"}" * 9999, Reason.MALFORMED, "deep"),
        (b'{"a":"' + b"x" * 99_999 + b'"}', Reason.TOO_LARGE, "100,007 bytes; the limit is 100,000"),
    ],
)
def test_an_element_is_told_what_is_wrong_with_it(element: bytes, reason: Reason | None, words: str) -> None:
    """In words that its sender can act on, and none of its content."""
    flaw = split.flaw(element, 100_000)

    assert reason == (flaw and flaw[0])
    assert words in (flaw[1] if flaw else "")
