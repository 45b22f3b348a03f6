"""What moto keeps is what was sent, seen as somebody sees it who does not know how it came there."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

import pytest

from tests.standins.moto import Message, Moto, Queue, moto
from tests.standins.sdk import client
from tests.standins.stream import Record


@pytest.fixture(scope="module", name="aws")
def _aws() -> Iterator[Moto]:
    with moto() as running:
        yield running


def send(aws: Moto, queue: Queue, *entries: dict[str, Any]) -> None:
    numbered = [{"Id": str(number), **entry} for number, entry in enumerate(entries)]
    assert [] == client("sqs", aws.port).send_message_batch(QueueUrl=queue.url, Entries=numbered).get("Failed", [])


def test_records_of_a_stream_are_read_from_all_of_its_shards(aws: Moto) -> None:
    """One shard that is overlooked is taken for records that were lost."""
    stream = aws.stream(shards=3)
    sent = [{"Data": b"\x00%d\xff" % number, "PartitionKey": f"k{number}"} for number in range(40)]
    client("kinesis", aws.port).put_records(StreamName=stream.name, Records=sent)
    found = stream.records()

    assert found == stream.records()
    assert 3 == len({record.shard_id for record in found})
    assert sorted((row["Data"], row["PartitionKey"]) for row in sent) == sorted(
        (record.data, record.partition_key) for record in found
    )
    assert [] == aws.stream().records()


def test_records_of_one_key_are_read_in_their_order(aws: Moto) -> None:
    """A device's events have one key, and their order is all that tells what it did first."""
    stream = aws.stream()
    for first in range(0, 1_500, 500):
        rows = [{"Data": b"%d" % number, "PartitionKey": "k"} for number in range(first, first + 500)]
        client("kinesis", aws.port).put_records(StreamName=stream.name, Records=rows)
    found = stream.records()

    assert [Record(b"%d" % number, "k", found[0].shard_id) for number in range(1_500)] == found


def test_objects_of_a_delivery_stream_are_read_in_the_order_of_their_arrival(aws: Moto) -> None:
    """Several come in a second, and their names are chance within it."""
    delivery, other = aws.delivery_stream(), aws.delivery_stream()
    for number in range(12):
        rows = [{"Data": b"%d\n" % number}, {"Data": b"\xff\n"}]
        client("firehose", aws.port).put_record_batch(DeliveryStreamName=delivery.name, Records=rows)

    assert [b"%d\n\xff\n" % number for number in range(12)] == delivery.objects() == delivery.objects()
    assert [] == other.objects()


def test_messages_of_a_queue_are_all_received_as_often_as_one_looks(aws: Moto) -> None:
    """Who receives a message takes it from all others for a while, the next look among them."""
    queue = aws.queue()
    for first in range(0, 30, 10):
        told = {"n": {"DataType": "String", "StringValue": "v"}}
        send(aws, queue, *({"MessageBody": f"ü{first + number}", "MessageAttributes": told} for number in range(10)))
    send(aws, queue, {"MessageBody": "twice", "MessageGroupId": "t"}, {"MessageBody": "twice", "MessageGroupId": "t"})
    expected = [Message(f"ü{number}", "", "", {"n": "v"}) for number in range(30)]
    expected += [Message("twice", "t", "", {})] * 2

    assert expected == queue.messages() == queue.messages()


def test_messages_of_a_fifo_queue_come_in_order_each_once(aws: Moto) -> None:
    """A look between a message and its repeat must not make two of them."""
    queue = aws.queue(fifo=True)
    rows = [
        {"MessageBody": str(number), "MessageGroupId": f"g{number % 2}", "MessageDeduplicationId": f"d{number}"}
        for number in range(10)
    ]
    send(aws, queue, *rows)
    send(aws, queue, *rows[5:])
    first = queue.messages()
    send(aws, queue, *rows)

    assert [Message(str(number), f"g{number % 2}", f"d{number}", {}) for number in range(10)] == sorted(
        first, key=lambda message: message.body
    )
    assert first == queue.messages()


def test_a_queue_of_moto_is_found_by_its_name(aws: Moto) -> None:
    """A sink has the name alone, and moto must send it nowhere else."""
    queue = aws.queue()

    assert queue.url == client("sqs", aws.port).get_queue_url(QueueName=queue.name)["QueueUrl"]
    assert queue.url.startswith(f"http://127.0.0.1:{aws.port}/")


def test_moto_says_who_asks(aws: Moto) -> None:
    """What `collector check` wants to know of the credentials."""
    assert client("sts", aws.port).get_caller_identity()["Account"]
