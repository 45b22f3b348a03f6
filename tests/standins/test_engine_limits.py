"""Each limit of AWS's is one that the engine has: at it a call is taken, and one over it is not."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from typing import Any

import pytest
from botocore.exceptions import ClientError

from tests.standins.engine import Engine
from tests.standins.sdk import client

KIB, MIB = 1024, 1024 * 1024
SQS = "AWS.SimpleQueueService."


@pytest.fixture(name="engine")
def _engine() -> Iterator[Engine]:
    with Engine() as running:
        yield running


def call(engine: Engine, service: str, operation: str, **arguments: Any) -> Any:
    boto = client(service, engine.port, attempts=1)
    try:
        return getattr(boto, operation)(**arguments)
    finally:
        boto.close()


def records(engine: Engine, *sizes: int, key: str = "k") -> Any:
    rows = [{"Data": b"x" * size, "PartitionKey": key} for size in sizes]
    return call(engine, "kinesis", "put_records", StreamName="a", Records=rows)


def deliveries(engine: Engine, *sizes: int) -> Any:
    rows = [{"Data": b"x" * size} for size in sizes]
    return call(engine, "firehose", "put_record_batch", DeliveryStreamName="a", Records=rows)


def messages(engine: Engine, *entries: dict[str, Any], queue: str = "a") -> Any:
    url = f"http://127.0.0.1:{engine.port}/123456789012/{queue}"
    rows = [{"Id": str(place), "MessageBody": "m", **entry} for place, entry in enumerate(entries)]
    return call(engine, "sqs", "send_message_batch", QueueUrl=url, Entries=rows)


def bodies(engine: Engine, *sizes: int) -> Any:
    return messages(engine, *({"MessageBody": "x" * size} for size in sizes))


LONG_KEY = "k" * 256
ATTRIBUTE = {"MessageAttributes": {"n": {"DataType": "String", "StringValue": "v"}}}


Send = Callable[[Engine], Any]

#: What is taken, what has one too many, and the code with which that is refused.
LIMITS: dict[str, tuple[Send, Send, str]] = {
    "records of a stream": (
        lambda engine: records(engine, *[1] * 500),
        lambda engine: records(engine, *[1] * 501),
        "ValidationException",
    ),
    "characters of a key": (
        lambda engine: records(engine, 1, key="ü" * 256),
        lambda engine: records(engine, 1, key="k" * 257),
        "ValidationException",
    ),
    "bytes of a record with its key": (
        lambda engine: records(engine, MIB - 1),
        lambda engine: records(engine, MIB),
        "InvalidArgumentException",
    ),
    "bytes of all records with their keys": (
        lambda engine: records(engine, *[MIB - 256] * 9, MIB // 2 - 256, MIB // 2 - 256, key=LONG_KEY),
        lambda engine: records(engine, *[MIB - 256] * 9, MIB // 2 - 256, MIB // 2 - 255, key=LONG_KEY),
        "InvalidArgumentException",
    ),
    "records of a delivery": (
        lambda engine: deliveries(engine, *[1] * 500),
        lambda engine: deliveries(engine, *[1] * 501),
        "ValidationException",
    ),
    "bytes of a delivered record": (
        lambda engine: deliveries(engine, 1000 * KIB),
        lambda engine: deliveries(engine, 1000 * KIB + 1),
        "ValidationException",
    ),
    "bytes of a delivery": (
        lambda engine: deliveries(engine, *[512 * KIB] * 8),
        lambda engine: deliveries(engine, *[512 * KIB] * 8, 1),
        "InvalidArgumentException",
    ),
    "messages": (
        lambda engine: bodies(engine, *[1] * 10),
        lambda engine: bodies(engine, *[1] * 11),
        f"{SQS}TooManyEntriesInBatchRequest",
    ),
    "no messages": (lambda engine: bodies(engine, 1), bodies, f"{SQS}EmptyBatchRequest"),
    "bytes of all messages": (
        lambda engine: bodies(engine, MIB // 2, MIB // 2),
        lambda engine: bodies(engine, MIB // 2, MIB // 2, 1),
        f"{SQS}BatchRequestTooLong",
    ),
    "bytes of a message, not characters": (
        lambda engine: messages(engine, {"MessageBody": "ü" * (MIB // 2)}),
        lambda engine: messages(engine, {"MessageBody": "ü" * (MIB // 2) + "x"}),
        f"{SQS}BatchRequestTooLong",
    ),
    "bytes of a message with its attributes": (
        lambda engine: messages(engine, {"MessageBody": "x" * (MIB - 8), **ATTRIBUTE}),
        lambda engine: messages(engine, {"MessageBody": "x" * (MIB - 7), **ATTRIBUTE}),
        f"{SQS}BatchRequestTooLong",
    ),
    "characters of an entry's id": (
        lambda engine: messages(engine, {"Id": "aZ9_-" * 16}),
        lambda engine: messages(engine, {"Id": "aZ9_-" * 16 + "x"}),
        f"{SQS}InvalidBatchEntryId",
    ),
    "those that it may have": (
        lambda engine: messages(engine, {"Id": "a-b"}),
        lambda engine: messages(engine, {"Id": "a.b"}),
        f"{SQS}InvalidBatchEntryId",
    ),
    "entries of an id": (
        lambda engine: messages(engine, {"Id": "a"}, {"Id": "b"}),
        lambda engine: messages(engine, {"Id": "a"}, {"Id": "a"}),
        f"{SQS}BatchEntryIdsNotDistinct",
    ),
    "characters of a group": (
        lambda engine: messages(engine, {"MessageGroupId": "!" * 128}),
        lambda engine: messages(engine, {"MessageGroupId": "!" * 129}),
        "InvalidParameterValue",
    ),
    "those that a group may have": (
        lambda engine: messages(engine, {"MessageGroupId": "tenant"}),
        lambda engine: messages(engine, {"MessageGroupId": "mieter-ü"}),
        "InvalidParameterValue",
    ),
    "no deduplication in a FIFO queue": (
        lambda engine: messages(engine, {"MessageGroupId": "g", "MessageDeduplicationId": "d"}, queue="a.fifo"),
        lambda engine: messages(engine, {"MessageGroupId": "g"}, queue="a.fifo"),
        "InvalidParameterValue",
    ),
    "deduplication in another queue": (
        lambda engine: messages(engine, {"MessageGroupId": "g"}),
        lambda engine: messages(engine, {"MessageGroupId": "g", "MessageDeduplicationId": "d"}),
        "InvalidParameterValue",
    ),
    "no group in a FIFO queue": (
        lambda engine: messages(engine, {"MessageBody": "m"}),
        lambda engine: messages(engine, {"MessageDeduplicationId": "d"}, queue="a.fifo"),
        "MissingParameter",
    ),
}


@pytest.mark.parametrize("limit", LIMITS)
def test_a_call_at_a_limit_is_taken_and_one_over_it_is_refused(engine: Engine, limit: str) -> None:
    """A limit that is off by one here is an event that never leaves there."""
    taken, over, code = LIMITS[limit]
    answer = taken(engine)
    before = len(engine.taken)
    with pytest.raises(ClientError) as told:
        over(engine)

    assert code == told.value.response["Error"]["Code"]
    assert 400 == told.value.response["ResponseMetadata"]["HTTPStatusCode"]
    assert len(answer.get("Records") or answer.get("RequestResponses") or answer["Successful"]) == before
    assert before == len(engine.taken) > 0


def test_a_stream_may_have_larger_records() -> None:
    """Up to ten MiB, where its owner has raised the limit."""
    with Engine(record_bytes=10 * MIB) as engine:
        records(engine, 10 * MIB - 1)

        assert [10 * MIB - 1] == [len(one.payload) for one in engine.taken]


def test_a_message_with_characters_that_none_may_have_fails_by_itself(engine: Engine) -> None:
    """JSON has them, and so may an event; the others of its call are taken."""
    bad = ["\x00", "\x1f", "\ufffe", "\uffff", "\ud800", "\udfff"]
    good = ["\t\n\r", " ~\x7f", "\ud7ff\ue000\ufffd", "\U00010000\U0010ffff"]
    answer = messages(engine, *({"MessageBody": f"<{text}>"} for text in [*bad, *good]))

    assert [(str(place), "InvalidMessageContents", True) for place in range(6)] == [
        (one["Id"], one["Code"], one["SenderFault"]) for one in answer["Failed"]
    ]
    assert [f"<{text}>".encode() for text in good] == [one.payload for one in engine.taken]


def test_a_repeated_deduplication_id_succeeds_and_is_kept_once(engine: Engine) -> None:
    """As of AWS: of a queue, and not of its groups."""
    told = {"MessageGroupId": "g", "MessageDeduplicationId": "d"}
    first = messages(engine, told, {**told, "MessageGroupId": "h"}, queue="a.fifo")
    again = messages(engine, told, {**told, "MessageDeduplicationId": "e"}, queue="a.fifo")
    messages(engine, told, queue="b.fifo")

    assert ([2, 2], False, False) == (
        [len(one["Successful"]) for one in (first, again)],
        "Failed" in first,
        "Failed" in again,
    )
    assert [("a.fifo", "g", "d"), ("a.fifo", "g", "e"), ("b.fifo", "g", "d")] == [
        (one.to, one.key, one.dedup_id) for one in engine.taken
    ]
