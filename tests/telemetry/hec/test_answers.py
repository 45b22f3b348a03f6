"""Each code of HEC's has its own remedy, and what is no answer of HEC's is never taken for one."""

from __future__ import annotations

import json
from typing import Any

import pytest
from hypothesis import example, given
from hypothesis import strategies as st

from collector.telemetry.hec.answers import MAX_ANSWER_BYTES, Answer, Reading, Verdict, read


def said(status: int, **body: Any) -> Answer:
    return Answer(status, json.dumps(body).encode())


def coded(status: int, code: int, **more: Any) -> Answer:
    return said(status, text="What HEC says", code=code, **more)


@pytest.mark.parametrize(
    ("status", "code", "expected"),
    [
        (200, 0, Verdict.TAKEN),
        (200, 24, Verdict.TAKEN),
        (200, 25, Verdict.TAKEN),
        (403, 1, Verdict.HELD),
        (403, 4, Verdict.HELD),
        (401, 2, Verdict.HELD),
        (401, 3, Verdict.HELD),
        (400, 7, Verdict.HELD),
        (400, 10, Verdict.HELD),
        (400, 11, Verdict.HELD),
        (400, 14, Verdict.HELD),
        (400, 16, Verdict.HELD),
        (400, 21, Verdict.HELD),
        (400, 22, Verdict.HELD),
        (400, 28, Verdict.HELD),
        (400, 5, Verdict.SPLIT),
        (500, 8, Verdict.DOUBT),
        (503, 9, Verdict.AGAIN),
        (503, 18, Verdict.AGAIN),
        (503, 19, Verdict.AGAIN),
        (503, 20, Verdict.AGAIN),
        (503, 23, Verdict.AGAIN),
        (429, 26, Verdict.AGAIN),
        (429, 27, Verdict.AGAIN),
    ],
)
def test_a_code_of_hec_says_what_is_to_be_done(status: int, code: int, expected: Verdict) -> None:
    """Splunk's page lists them; a wrong one loses a batch, doubles it, or holds everything up."""
    reading = read(coded(status, code), 10)

    assert (expected, f"{status}: What HEC says (code {code})") == (reading.verdict, reading.cause)


@pytest.mark.parametrize("code", [5, 6, 12, 13, 15])
@pytest.mark.parametrize("at", [1, 9])
def test_a_refused_line_is_cut_at_its_place(code: int, at: int) -> None:
    """Those before it are indexed, so sending the whole again would double them."""
    reading = read(coded(400, code, **{"invalid-event-number": at}), 10)

    assert (Verdict.CUT, at, False) == (reading.verdict, reading.at, reading.in_doubt)


@pytest.mark.parametrize("code", [5, 12, 13, 15])
def test_the_first_line_is_cut_when_its_own_fault_is_named(code: int) -> None:
    """Only code 6 says the same of a body that is too large."""
    assert (Verdict.CUT, 0) == (
        (reading := read(coded(400, code, **{"invalid-event-number": 0}), 10)).verdict,
        reading.at,
    )


def test_code_6_at_the_first_line_is_split_without_doubt() -> None:
    """Splunk Cloud says that of too large a body, and nothing before the first line can be indexed."""
    reading = read(coded(400, 6, **{"invalid-event-number": 0}), 10)

    assert (Verdict.SPLIT, False) == (reading.verdict, reading.in_doubt)


@pytest.mark.parametrize("at", [None, -1, 10, 11, 2**70, 1.5, True, "", "x", "²", [3], {"a": 1}])
@pytest.mark.parametrize("code", [6, 12])
def test_a_refusal_without_a_place_is_split_and_in_doubt(code: int, at: object) -> None:
    """HEC indexes what stands before the bad line, and if nobody says where that is, any line may be there."""
    more = {} if at is None else {"invalid-event-number": at}

    assert (Verdict.SPLIT, True) == ((reading := read(coded(400, code, **more), 10)).verdict, reading.in_doubt)


def test_numbers_as_text_are_numbers() -> None:
    """Some receivers write them so, and an ack id that is not understood would be sent again for ever."""
    cut = read(said(400, text="x", code="12", **{"invalid-event-number": "3"}), 10)
    taken = read(said(200, text="Success", code="0", ackId="7"), 10)

    assert (Verdict.CUT, 3) == (cut.verdict, cut.at)
    assert (Verdict.TAKEN, 7) == (taken.verdict, taken.ack_id)


@pytest.mark.parametrize(
    ("status", "expected"),
    [
        (200, Verdict.DOUBT),
        (204, Verdict.DOUBT),
        (301, Verdict.HELD),
        (302, Verdict.HELD),
        (400, Verdict.HELD),
        (401, Verdict.HELD),
        (403, Verdict.HELD),
        (404, Verdict.AGAIN),
        (405, Verdict.HELD),
        (407, Verdict.HELD),
        (408, Verdict.DOUBT),
        (411, Verdict.HELD),
        (413, Verdict.SPLIT),
        (415, Verdict.HELD),
        (429, Verdict.AGAIN),
        (500, Verdict.DOUBT),
        (501, Verdict.HELD),
        (502, Verdict.DOUBT),
        (503, Verdict.AGAIN),
        (504, Verdict.DOUBT),
        (599, Verdict.DOUBT),
    ],
)
def test_a_status_without_a_code_says_what_is_to_be_done(status: int, expected: Verdict) -> None:
    """Proxies and load balancers answer in HEC's place, in words of their own."""
    reading = read(Answer(status, b"<html>nginx</html>"), 10)

    assert expected is reading.verdict
    assert str(status) in reading.cause


def test_a_413_is_split_without_doubt_whatever_its_body_says() -> None:
    """What is too large was not read."""
    for answer in (Answer(413, b""), coded(413, 6), coded(413, 6, **{"invalid-event-number": 3})):
        assert (Verdict.SPLIT, False) == ((reading := read(answer, 10)).verdict, reading.in_doubt)


@pytest.mark.parametrize("code", [1, 6, 7, 8, 9, 17, 26, 99, -1, None])
def test_a_200_with_any_other_code_is_in_doubt(code: int | None) -> None:
    """A load balancer's page, or the answer to another question: lines are not given away for it."""
    assert Verdict.DOUBT is read(said(200, text="Success", code=code), 10).verdict


def test_a_502_of_a_busy_hec_is_no_doubt() -> None:
    """HEC's own word that it took nothing counts more than the status that it came with."""
    assert Verdict.AGAIN is read(coded(502, 9), 10).verdict


@pytest.mark.parametrize(("code", "expected"), [(0, False), (24, True), (25, True)])
def test_a_nearly_full_hec_is_noticed(code: int, expected: bool) -> None:
    """Slowing down then spares the 429 that would come next."""
    assert expected is read(coded(200, code), 10).is_near_capacity


@pytest.mark.parametrize(
    ("ack_id", "expected"), [(0, 0), (7, 7), (-1, None), (None, None), (1.5, None), (True, None), ("a", None)]
)
def test_an_ack_id_is_a_whole_number_or_none(ack_id: object, expected: int | None) -> None:
    """It comes back as a key, and must be the same then."""
    assert expected == read(coded(200, 0, ackId=ack_id), 10).ack_id


def test_what_hec_says_is_told_on_in_part() -> None:
    """It stands on a line of our own, whoever wrote it."""
    cause = read(said(503, text="x" * 5000, code=9), 10).cause

    assert cause.startswith("503: xxx")
    assert len(cause) < 200


def test_a_redirection_says_what_to_write_instead() -> None:
    """Followed, it becomes a GET, and the lines are gone."""
    assert "write the URL that it leads to" in read(Answer(302, b""), 10).cause


_json = st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats() | st.text(),
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(st.text(max_size=5), inner, max_size=3),
    max_leaves=6,
)
_bodies = st.binary(max_size=200) | st.fixed_dictionaries(
    {},
    optional={"text": _json, "code": st.integers(-2, 30) | _json, "invalid-event-number": st.integers(-2, 12) | _json,
              "ackId": _json},
).map(lambda body: json.dumps(body).encode())  # fmt: skip


@given(status=st.integers(200, 599), body=_bodies, lines=st.integers(0, 10))
@example(status=200, body=b"[" * 100_000, lines=1)
@example(status=400, body=b'{"code":' + b"[" * 50_000, lines=1)
@example(status=200, body=b'{"text":"\xff","code":0}', lines=1)
@example(status=200, body=b'{"text":"' + b"x" * MAX_ANSWER_BYTES + b'","code":0}', lines=1)
@example(status=503, body=b'{"code":' + b"9" * 5000 + b"}", lines=1)
@example(status=503, body=b'{"code":1e999}', lines=1)
@example(status=503, body=b'{"code":"' + b"9" * 5000 + b'"}', lines=1)
@example(status=400, body='{"code":6,"invalid-event-number":"٣"}'.encode(), lines=9)
def test_whatever_comes_is_read(status: int, body: bytes, lines: int) -> None:
    """An answer that can't be read must not end the only one who sends, nor count as a delivery."""
    reading = read(Answer(status, body), lines)

    assert isinstance(reading, Reading)
    if reading.verdict is Verdict.CUT:
        assert 0 <= reading.at < lines
    if reading.verdict is Verdict.TAKEN:
        assert 200 <= status < 300
        assert int(json.loads(body.decode("utf-8", "replace"))["code"]) in {0, 24, 25}
    assert reading.ack_id is None or reading.ack_id >= 0


def test_a_bad_letter_in_the_text_does_not_hide_the_code() -> None:
    """HEC's word counts, whatever encoding its text is in."""
    assert Verdict.TAKEN is read(Answer(200, b'{"text":"\xff","code":0}'), 1).verdict
