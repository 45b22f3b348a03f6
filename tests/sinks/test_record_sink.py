"""Batches as records, and each record's fate: nothing is forgotten, nothing is said twice, whatever is answered."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Any, cast

import pytest
from hypothesis import given
from hypothesis import strategies as st

from collector import aws
from collector.errors import AmbiguousSinkError, ThrottledSinkError, TransientSinkError
from collector.event import Batch, Span
from collector.outcome import Reason
from collector.sinks.kinesis import key_of
from collector.sinks.record_sink import RecordSink
from collector.sinks.records import CALL_BYTES, Fate, Record, Refusal, records_of
from tests.fakes import HOUR, batch

Say = Callable[[Record], Refusal | None]
MOST_RECORDS = 5


class Destination:
    """
    A stream in memory that answers as it is told; `calls` holds what it was sent, `taken` the lines that it took.

    `say` tells of each record what becomes of it; `raises` are errors of whole calls, in order, None for none.
    """

    most_records = MOST_RECORDS
    max_event_bytes = 1000

    def __init__(self, say: Say = lambda _: None, *raises: TransientSinkError | None) -> None:
        self._say = say
        self._raises = list(raises)
        self.calls: list[list[Record]] = []
        self.taken: list[bytes] = []

    def send(self, client: aws.Client, records: Sequence[Record]) -> Sequence[Refusal | None]:
        self.calls.append(list(records))
        if self._raises and (error := self._raises.pop(0)):
            raise error
        answer = [self._say(record) for record in records]
        for record, refusal in zip(records, answer, strict=True):
            if refusal is None:
                self.taken += record.lines
        return answer


class Client:
    def close(self) -> None:
        """Do nothing."""


def sink_to(destination: Destination, *, join_bytes: int = 40) -> RecordSink:
    return RecordSink(destination, connect=cast("Callable[[], aws.Client]", Client), join_bytes=join_bytes)


def numbered(count: int) -> list[bytes]:
    return [b"%03d" % number for number in range(count)]


def refused(fate: Fate, *texts: bytes) -> Say:
    """Let records that hold one of these lines meet a fate."""
    return lambda record: Refusal(fate, fate.name, "a word") if set(texts) & set(record.lines) else None


# -- records ---------------------------------------------------------------------------------------------------


def test_a_record_holds_lines_of_one_tenant_up_to_its_size() -> None:
    """Who reads a record of two tenants would have to trust a reader with both."""
    spans = (Span("a", HOUR, 0, 3), Span("a", HOUR + 1, 0, 2), Span("b", HOUR, 0, 1))
    six = Batch("w1-1", "w1", spans, (b"00\n11\n22\n33\n44\n55\n",))

    assert [("a", 0, (b"00", b"11")), ("a", 2, (b"22", b"33")), ("a", 4, (b"44",)), ("b", 5, (b"55",))] == [
        (one.tenant_id, one.first, one.lines) for one in records_of(six, 6)
    ]


def test_with_no_room_to_join_each_event_has_a_record() -> None:
    """For readers that want one event a record."""
    assert [(b"000",), (b"001",)] == [one.lines for one in records_of(batch(*numbered(2)), 0)]


def test_a_line_larger_than_a_joined_record_has_one_of_its_own() -> None:
    """To join is a choice of ours, and no limit of the destination's."""
    lines = [b"a", b"x" * 100, b"b"]

    assert [(b"a",), (b"x" * 100,), (b"b",)] == [one.lines for one in records_of(batch(*lines), 10)]


@given(
    st.lists(st.tuples(st.sampled_from("abc"), st.lists(st.binary(max_size=12), min_size=1, max_size=8)), min_size=1),
    st.integers(0, 40),
)
def test_every_line_is_in_one_record_in_its_place(runs: list[tuple[str, list[bytes]]], join_bytes: int) -> None:
    """Whatever the sizes, and whoever's the lines are."""
    clean = [(tenant, [line.replace(b"\n", b" ") for line in lines]) for tenant, lines in runs]
    spans = tuple(Span(tenant, HOUR, at, at + len(lines)) for at, (tenant, lines) in enumerate(clean))
    lines = [line for _, some in clean for line in some]
    owners = [tenant for tenant, some in clean for _ in some]
    records = records_of(Batch("w1-1", "w1", spans, tuple(line + b"\n" for line in lines)), join_bytes)

    assert lines == [line for record in records for line in record.lines]
    assert owners == [record.tenant_id for record in records for _ in record.lines]
    assert list(range(len(lines))) == [place for record in records for place in record.places]
    assert all(len(record.lines) == 1 or record.size <= join_bytes for record in records)


def test_keys_of_one_tenant_differ_and_come_back() -> None:
    """One key would send all of a busy tenant to one shard, and a key by chance would move a repeat to another."""
    records = records_of(batch(*(b'{"id":"%d","event":{}}' % number for number in range(3)), tenant_id="acme"), 0)

    assert ["acme/0", "acme/1", "acme/2"] == [key_of(record) for record in records]


@pytest.mark.parametrize(
    "line",
    [b'{"id":"%s"}' % (b"x" * 300), b'{"id":"\xc3\xbc"}', b'{"id":""}', b'{"id":7}', b"{}", b"\xff", b"", b'{"id":"a'],
)
def test_a_key_is_good_whatever_the_line_is(line: bytes) -> None:
    """Ids are the devices': a key over 256 characters would cost the whole call."""
    one = batch(line, b"more", tenant_id="acme")
    key = key_of(Record(one, "acme", 0, (line,)))

    assert key.startswith("acme/")
    assert key.isascii()
    assert 5 < len(key) <= 256
    assert key == key_of(Record(one, "acme", 0, (line, b"more")))


def test_a_record_has_a_name_that_comes_back_when_the_rest_of_its_batch_was_taken() -> None:
    """A queue that knows it by that must not take it for another, and not another for it."""
    whole = Batch("w1-1", "w1", (Span("a", HOUR, 4, 7), Span("b", HOUR, 0, 2)), (b"0\n1\n2\n3\n4\n",))
    rest = Batch("w1-1", "w1", (Span("a", HOUR, 5, 6), Span("b", HOUR, 1, 2)), (b"1\n4\n",))
    names = [record.name for record in records_of(whole, 0)]

    assert 5 == len(set(names))
    assert [names[1], names[4]] == [record.name for record in records_of(rest, 0)]
    assert [names[1], names[2]] == [half.name for half in records_of(whole, 8)[0].halves()[1].halves()]


# -- calls -----------------------------------------------------------------------------------------------------


def test_a_call_holds_so_many_records_and_bytes() -> None:
    """The loop stands still while one is made, so that a large one is several."""
    destination = Destination()
    lines = [b"%d" % n * 120_000 for n in range(9)] + numbered(8)
    sink_to(destination, join_bytes=0).write(batch(*lines))
    sizes = [sum(record.size for record in call) for call in destination.calls]

    assert lines == destination.taken
    assert max(sizes) <= CALL_BYTES
    assert [4, 4, 5, 4] == [len(call) for call in destination.calls]


@pytest.mark.parametrize("line_bytes", [360, 1_100, 20_000])
def test_a_batch_of_the_most_bytes_is_two_calls(line_bytes: int) -> None:
    """A third one, for the lines that fit into neither, would cost as much as the others."""
    destination = Destination()
    sink = sink_to(destination, join_bytes=CALL_BYTES)
    most = sink.limits.max_bytes
    lines = [b"x" * (line_bytes - 1)] * (most // line_bytes - 1)
    lines.append(b"x" * (most - len(lines) * line_bytes - 1))
    sink.write(batch(*lines))

    assert lines == destination.taken
    assert [1, 1] == [len(call) for call in destination.calls]


def test_only_what_was_not_taken_is_given_back() -> None:
    """The rest has arrived: to send all of it again would be a duplicate for each."""
    destination = Destination(refused(Fate.AGAIN, b"001", b"006"))
    receipt = sink_to(destination, join_bytes=0).write(batch(*numbered(8)))

    assert (6, (1, 6), ()) == (receipt.delivered, receipt.retryable, receipt.rejected)
    assert "AGAIN: a word" == receipt.trouble
    assert (False, 0) == (receipt.throttled, receipt.in_doubt)


@pytest.mark.parametrize(
    ("fate", "throttled", "in_doubt"), [(Fate.AGAIN, False, 0), (Fate.SLOWER, True, 0), (Fate.IN_DOUBT, False, 2)]
)
def test_a_receipt_tells_too_fast_and_perhaps_from_no(fate: Fate, throttled: bool, in_doubt: int) -> None:
    """One slows the route down, the other is counted as possible duplicates; all events of a joined record are."""
    destination = Destination(refused(fate, b"001"))
    receipt = sink_to(destination, join_bytes=8).write(batch(*numbered(4)))

    assert (2, (0, 1)) == (receipt.delivered, receipt.retryable)
    assert (throttled, in_doubt) == (receipt.throttled, receipt.in_doubt)


def test_a_poisoned_event_is_cut_out_of_its_record() -> None:
    """One bad event must not take a thousand with it."""
    destination = Destination(refused(Fate.NEVER, b"005", b"011"))
    receipt = sink_to(destination).write(batch(*numbered(16)))

    assert ((5, Reason.SINK_INVALID), (11, Reason.SINK_INVALID)) == receipt.rejected
    assert () == receipt.retryable
    assert sorted(set(numbered(16)) - {b"005", b"011"}) == sorted(destination.taken)
    assert "NEVER: a word" == receipt.trouble


def test_a_call_refused_for_what_is_in_it_is_halved_until_the_event_stands_alone() -> None:
    """Some destinations refuse all for one, and say no more."""

    class All(Destination):
        def send(self, client: aws.Client, records: Sequence[Record]) -> Sequence[Refusal | None]:
            if any(b"007" in record.lines for record in records):
                raise TransientSinkError("kinesis: no", code="InvalidArgumentException")
            return super().send(client, records)

    destination = All()
    receipt = sink_to(destination, join_bytes=8).write(batch(*numbered(16)))

    assert (15, ((7, Reason.SINK_INVALID),)) == (receipt.delivered, receipt.rejected)
    assert sorted(set(numbered(16)) - {b"007"}) == sorted(destination.taken)


def test_a_destination_that_refuses_every_call_for_its_content_is_a_fault_of_the_settings() -> None:
    """Nobody's events are to be parked by the million for an argument that is ours."""
    destination = Destination(lambda _: None, *[TransientSinkError("no", code="InvalidArgumentException")] * 1000)

    with pytest.raises(TransientSinkError):
        sink_to(destination).write(batch(*numbered(64)))

    assert len(destination.calls) < 20


def test_an_error_before_anything_was_taken_is_the_callers() -> None:
    """Nothing is known of any event, so all of the batch goes back."""
    destination = Destination(lambda _: None, ThrottledSinkError("slow down"))

    with pytest.raises(ThrottledSinkError):
        sink_to(destination).write(batch(*numbered(4)))


@pytest.mark.parametrize(
    ("error", "throttled", "in_doubt"),
    [
        (ThrottledSinkError("slow down"), True, 0),
        (AmbiguousSinkError("read timeout"), False, 5),
        (TransientSinkError("denied", code="AccessDeniedException"), False, 0),
    ],
)
def test_an_error_in_the_middle_gives_back_the_rest(error: TransientSinkError, throttled: bool, in_doubt: int) -> None:
    """What the calls before took has arrived; of the rest only the call that failed was ever sent."""
    destination = Destination(lambda _: None, None, error)
    receipt = sink_to(destination, join_bytes=0).write(batch(*numbered(12)))

    assert (5, tuple(range(5, 12))) == (receipt.delivered, receipt.retryable)
    assert (throttled, in_doubt) == (receipt.throttled, receipt.in_doubt)
    assert str(error) == receipt.trouble
    assert 2 == len(destination.calls)


def test_an_answer_that_does_not_speak_of_each_record_leaves_all_of_the_call_in_doubt() -> None:
    """Which of them are missing, nobody says."""

    class Short(Destination):
        def send(self, client: aws.Client, records: Sequence[Record]) -> Sequence[Refusal | None]:
            return super().send(client, records)[1:]

    receipt = sink_to(Short(), join_bytes=0).write(batch(*numbered(3)))

    assert (0, (0, 1, 2), 3) == (receipt.delivered, receipt.retryable, receipt.in_doubt)


@given(st.data())
def test_whatever_is_answered_each_event_has_the_fate_that_it_met(data: st.DataObject) -> None:
    """Records fail by themselves and calls fail whole, in any order; a receipt says what came to pass, and no more."""
    lines = numbered(data.draw(st.integers(1, 24)))
    poisoned = set(data.draw(st.lists(st.sampled_from(lines), max_size=3)))
    fates = st.sampled_from([None, None, Fate.AGAIN, Fate.SLOWER, Fate.IN_DOUBT])

    def say(record: Record) -> Refusal | None:
        fate = Fate.NEVER if poisoned & set(record.lines) else data.draw(fates)
        return fate and Refusal(fate, fate.name)

    errors: Any = st.sampled_from([
        None, None, None, ThrottledSinkError("slow down"), AmbiguousSinkError("cut"),
        TransientSinkError("no", code="ValidationException"),
    ])  # fmt: skip
    destination = Destination(say, *data.draw(st.lists(errors, max_size=6)))
    join_bytes = data.draw(st.sampled_from([0, 8, 40, 1000]))
    try:
        receipt = sink_to(destination, join_bytes=join_bytes).write(batch(*lines))
    except TransientSinkError:
        assert not destination.taken
        return
    given_back = {lines[place] for place in receipt.retryable}
    rejected = {lines[place] for place, _ in receipt.rejected}

    assert len(destination.taken) == len(set(destination.taken)) == receipt.delivered
    assert len(lines) == receipt.delivered + len(receipt.retryable) + len(receipt.rejected)
    assert set(lines) == {*destination.taken, *given_back, *rejected}
    assert receipt.in_doubt <= len(receipt.retryable)
