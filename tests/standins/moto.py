"""
Kinesis, Firehose and SQS on loopback: the server of moto, which keeps what it is given and throttles nobody.

It is laxer than AWS. Firehose takes calls and records of any size; SQS takes every character, and counts them in the
place of bytes; Kinesis has the limits of long ago, 1 MiB a record and 5 MiB a call. What is to be refused, or to break,
is for the engine beside this.
"""

from __future__ import annotations

import json
import os
import subprocess
import sys
import tempfile
import uuid
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any
from urllib.parse import unquote_plus

from tests.server import SHM, free_ports, wait_for
from tests.standins.sdk import ENVIRON, REGION, client
from tests.standins.stream import Stream

_PATIENCE_S = 60.0
_ACCOUNT = "123456789012"
#: The longest for which SQS shows a message to nobody else: as long as any test.
_UNSEEN_S = 43_200


#: moto's shard says of itself that it is not safe for concurrency: of two records at once it keeps one.
_SERVER = """
import threading
from moto.kinesis.models import Shard
from moto.server import main

lock, put = threading.Lock(), Shard.put_record

def put_alone(*arguments, **named):
    with lock:
        return put(*arguments, **named)

Shard.put_record = put_alone
main()
"""


class Moto:
    """One that runs; `port` is where it speaks for every service, told apart by what is asked."""

    def __init__(self, port: int) -> None:
        self.port = port

    def stream(self, shards: int = 2) -> Stream:
        """Make a new Kinesis stream."""
        return Stream.make(client("kinesis", self.port), shards)

    def delivery_stream(self) -> Delivery:
        """Make a new bucket, and a Firehose stream that delivers to it."""
        s3, firehose = client("s3", self.port), client("firehose", self.port)
        name = f"delivery-{uuid.uuid4().hex[:12]}"
        s3.create_bucket(Bucket=name)
        arrivals = self.queue()
        told = {"QueueArn": f"arn:aws:sqs:{REGION}:{_ACCOUNT}:{arrivals.name}", "Events": ["s3:ObjectCreated:*"]}
        s3.put_bucket_notification_configuration(Bucket=name, NotificationConfiguration={"QueueConfigurations": [told]})
        firehose.create_delivery_stream(
            DeliveryStreamName=name,
            ExtendedS3DestinationConfiguration={
                "RoleARN": f"arn:aws:iam::{_ACCOUNT}:role/firehose",
                "BucketARN": f"arn:aws:s3:::{name}",
            },
        )
        return Delivery(s3, name, arrivals)

    def queue(self, *, fifo: bool = False) -> Queue:
        """Make a new SQS queue."""
        sqs = client("sqs", self.port)
        name = f"queue-{uuid.uuid4().hex[:12]}{'.fifo' * fifo}"
        made = sqs.create_queue(QueueName=name, Attributes={"FifoQueue": "true"} if fifo else {})
        return Queue(sqs, name, made["QueueUrl"])


class Delivery:
    """A Firehose stream and the bucket of the same name behind it, into which moto puts one object a call."""

    def __init__(self, s3: Any, name: str, arrivals: Queue) -> None:
        self._s3 = s3
        self.name = name
        self._arrivals = arrivals

    def objects(self) -> list[bytes]:
        """Read every object, in the order in which they came: their names tell no more than the second of it."""
        pages = self._s3.get_paginator("list_objects_v2").paginate(Bucket=self.name)
        keys = [row["Key"] for page in pages for row in page.get("Contents", ())]
        told = [json.loads(message.body) for message in self._arrivals.messages()]
        # S3 tells of the configuration itself, too, and there is no object in that.
        came = [unquote_plus(row["s3"]["object"]["key"]) for one in told for row in one.get("Records", ())]
        assert set(keys) <= set(came), "an object is there whose arrival was not told"
        return [self._s3.get_object(Bucket=self.name, Key=key)["Body"].read() for key in came if key in keys]


@dataclass(frozen=True)
class Message:
    """One message; the ids are empty where there are none. `attributes` are those of its sender, as strings."""

    body: str
    group_id: str
    deduplication_id: str
    attributes: dict[str, str]


class Queue:
    """A queue, as somebody sees it who does not know how it was filled."""

    def __init__(self, sqs: Any, name: str, url: str) -> None:
        self._sqs = sqs
        self.name = name
        self.url = url
        self._found: dict[str, Message] = {}

    def messages(self) -> list[Message]:
        """
        Receive what is there, and return it after all that was received before.

        Of a FIFO queue while nobody sends: to see the next message of a group the ones before must be deleted, which
        moto does without a lock. It forgets their deduplication ids with them, as AWS does not, so they count here.
        """
        fifo = self.name.endswith(".fifo")
        while rows := self._receive():
            for row in rows:
                message = _message(row)
                self._found.setdefault(message.deduplication_id if fifo else row["MessageId"], message)
                if fifo:
                    self._sqs.delete_message(QueueUrl=self.url, ReceiptHandle=row["ReceiptHandle"])
        return list(self._found.values())

    def _receive(self) -> list[dict[str, Any]]:
        answer = self._sqs.receive_message(
            QueueUrl=self.url,
            MaxNumberOfMessages=10,
            VisibilityTimeout=_UNSEEN_S,
            WaitTimeSeconds=0,
            MessageSystemAttributeNames=["All"],
            MessageAttributeNames=["All"],
        )
        return list(answer.get("Messages", ()))


def _message(row: dict[str, Any]) -> Message:
    system = row.get("Attributes", {})
    sent = {name: value["StringValue"] for name, value in row.get("MessageAttributes", {}).items()}
    return Message(row["Body"], system.get("MessageGroupId", ""), system.get("MessageDeduplicationId", ""), sent)


@contextmanager
def moto() -> Iterator[Moto]:
    """Run one. It starts in some seconds, most of which are its imports."""
    with tempfile.TemporaryDirectory(prefix="collector-moto-", dir=SHM) as name:
        folder, (port,) = Path(name), free_ports(1)
        command = [sys.executable, "-c", _SERVER, "--host", "127.0.0.1", "--port", str(port)]
        # What it writes besides, such as large objects, stays in the folder.
        environment = {**os.environ, **ENVIRON, "HOME": name, "TMPDIR": name}
        with (folder / "log").open("wb") as log:
            process = subprocess.Popen(command, stdout=log, stderr=log, cwd=folder, env=environment)
        try:
            made = Moto(port)
            wait_for(lambda: _answers(made, process, folder / "log"), "moto to make a queue", _PATIENCE_S)
            yield made
        finally:
            # It holds nothing that anybody wants.
            process.kill()
            process.wait()


def _answers(server: Moto, process: subprocess.Popen[bytes], log: Path) -> bool:
    from botocore.exceptions import BotoCoreError, ClientError

    assert process.poll() is None, f"moto has ended: {log.read_text()[-2000:]}"
    try:
        server.queue()
    except (BotoCoreError, ClientError):
        return False
    return True
