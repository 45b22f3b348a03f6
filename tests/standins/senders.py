"""What a test says to an engine, in the words of boto3, and what it sees of it."""

from __future__ import annotations

from typing import Any

from tests.standins.engine import Engine
from tests.standins.sdk import client

SERVICES = ("kinesis", "firehose", "sqs", "s3")


def send(engine: Engine, service: str, *payloads: bytes, access_key: str = "AKID", read_s: float = 60.0) -> Any:
    """Send payloads in one call, each to `a` with a key of its own."""
    boto = client(service, engine.port, access_key=access_key, attempts=1, read_s=read_s)
    keyed = [(payload, f"k{place}") for place, payload in enumerate(payloads)]
    try:
        if service == "kinesis":
            rows = [{"Data": payload, "PartitionKey": key} for payload, key in keyed]
            return boto.put_records(StreamName="a", Records=rows)
        if service == "firehose":
            return boto.put_record_batch(DeliveryStreamName="a", Records=[{"Data": payload} for payload in payloads])
        if service == "s3":
            return boto.put_object(Bucket="a", Key="k0", Body=payloads[0])
        rows = [{"Id": key, "MessageBody": payload.decode(), "MessageGroupId": key} for payload, key in keyed]
        return boto.send_message_batch(QueueUrl=f"http://127.0.0.1:{engine.port}/1/a", Entries=rows)
    finally:
        boto.close()


def kept(engine: Engine) -> list[bytes]:
    return [one.payload for one in engine.taken]
