"""What HEC has taken is delivered when its indexers say so, once, and sent again when they never do."""

from __future__ import annotations

import json

import pytest
from hypothesis import example, given
from hypothesis import strategies as st

from collector.telemetry.hec.acks import POLL_S, RESEND_AFTER_S, Acks
from collector.telemetry.hec.buffer import Batch, Line
from tests.fakes import FakeClock


@pytest.fixture(name="acks")
def _acks(clock: FakeClock) -> Acks:
    return Acks(clock=clock)


def made(text: bytes = b"x") -> Batch:
    return Batch([Line(text, 0.0)], len(text))


def confirmed(acks: Acks, body: bytes) -> list[Batch]:
    delivered: list[Batch] = []
    acks.confirm(body, delivered.append)
    return delivered


def test_a_batch_is_delivered_when_its_number_is_told_true(acks: Acks) -> None:
    """And no other with it."""
    one, two, three = made(), made(), made()
    for number, batch in enumerate((one, two, three)):
        assert acks.add(number, batch) is None

    assert {"acks": [0, 1, 2]} == json.loads(acks.question())
    delivered = confirmed(acks, b'{"acks":{"0":true,"1":false,"2":true,"9":true}}')

    assert [one, three] == delivered
    assert one is delivered[0]
    assert 1 == len(acks)
    # Splunk tells it once, and false from then on.
    assert [] == confirmed(acks, b'{"acks":{"0":true,"2":true}}')
    assert {"acks": [1]} == json.loads(acks.question())


def test_a_number_given_twice_gives_back_who_had_it_first(acks: Acks) -> None:
    """HEC counts anew after a restart, and what it was to confirm it has forgotten."""
    old, new = made(b"old"), made(b"new")
    acks.add(0, old)

    assert old is acks.add(0, new)
    assert [new] == confirmed(acks, b'{"acks":{"0":true}}')
    assert 0 == len(acks)


def test_there_is_a_look_each_ten_seconds_while_something_waits(acks: Acks, clock: FakeClock) -> None:
    """As often as Splunk's page advises, and not at all when there is nothing to ask for."""
    assert acks.wait_s() is None
    assert acks.wait_s(hurry_s=0.25) is None

    acks.add(0, made())
    clock.advance(4)
    acks.add(1, made())
    assert POLL_S - 4 == acks.wait_s()
    clock.advance(6)
    assert 0 == acks.wait_s()

    confirmed(acks, b'{"acks":{"0":true}}')
    assert POLL_S == acks.wait_s()


def test_in_a_hurry_looks_are_near_each_other(acks: Acks, clock: FakeClock) -> None:
    """There are three seconds at a stop, and what is confirmed in them was not sent in vain."""
    acks.add(0, made())
    assert 0.25 == acks.wait_s(hurry_s=0.25)
    clock.advance(0.25)
    assert 0 == acks.wait_s(hurry_s=0.25)

    confirmed(acks, b'{"acks":{}}')
    assert 0.25 == acks.wait_s(hurry_s=0.25)


def test_a_look_in_vain_makes_the_next_pause_longer_from_its_end_on(acks: Acks, clock: FakeClock) -> None:
    """One that takes ten seconds to fail, each ten seconds, would leave no time for lines."""
    acks.add(0, made())
    clock.advance(POLL_S)
    acks.question()
    clock.advance(10)

    assert 1 == acks.failed()
    assert POLL_S == acks.wait_s()
    assert [2, 3, 4, 5, 6] == [acks.failed() for _ in range(5)]
    assert 80 == acks.wait_s()

    confirmed(acks, b'{"acks":{}}')
    assert POLL_S == acks.wait_s()
    assert 1 == acks.failed()


def test_what_waits_too_long_is_given_back(acks: Acks, clock: FakeClock) -> None:
    """An indexer may die with lines that HEC has answered for."""
    old, young = made(), made()
    acks.add(0, old)
    clock.advance(1)
    acks.add(1, young)
    clock.advance(RESEND_AFTER_S - 1.5)
    assert [] == acks.overdue()

    clock.advance(0.5)
    assert [old] == acks.overdue()
    assert [] == acks.overdue()
    assert 1 == len(acks)
    assert [] == confirmed(acks, b'{"acks":{"0":true}}')


def test_a_thousand_are_asked_for_at_once_the_oldest_first(acks: Acks) -> None:
    """One question has a bound; the others are asked for when these are told."""
    for number in range(1500):
        acks.add(number, made())

    assert list(range(1000)) == json.loads(acks.question())["acks"]


def test_all_can_be_taken_back(acks: Acks) -> None:
    """When a token turns out to confirm nothing, nothing may wait for ever."""
    batches = [made(), made()]
    for number, batch in enumerate(batches):
        acks.add(number, batch)

    assert batches == acks.take_all()
    assert (0, None) == (len(acks), acks.wait_s())


@pytest.mark.parametrize("value", [b"false", b"null", b"1", b'"true"', b"[true]", b"{}"])
def test_only_true_is_a_confirmation(acks: Acks, value: bytes) -> None:
    """All else leaves the line where it is: safe in the buffer."""
    acks.add(0, made())

    assert [] == confirmed(acks, b'{"acks":{"0":' + value + b"}}")


@pytest.mark.parametrize("key", ["00", " 0", "+0", "-0", "0.0", "\u0660", "²", "", "9" * 5000])
def test_only_a_plain_number_is_a_number(acks: Acks, key: str) -> None:
    """A key that is read as another number confirms somebody else's lines."""
    acks.add(0, made())

    assert [] == confirmed(acks, json.dumps({"acks": {key: True}}).encode())


@given(st.binary(max_size=200) | st.dictionaries(st.text(), st.booleans()).map(lambda acks: json.dumps(acks).encode()))
@example(b"[" * 100_000)
@example(b'{"acks":' + b"[" * 100_000)
@example(b'{"acks":null}')
@example(b"{}")
@example(b'{"acks":{"\xff":true}}')
@example(b'{"text":"Success","code":0}')
def test_an_answer_that_is_none_confirms_nothing(body: bytes) -> None:
    """Of a proxy, of another version: what comes is read, and nothing is delivered for it."""
    acks = Acks(clock=FakeClock())
    acks.add(0, made())
    acks.failed()
    acks.failed()

    assert acks.confirm(body, lambda _: pytest.fail("delivered")) is False
    # The pause is not that after a good look.
    assert 20 == acks.wait_s()
