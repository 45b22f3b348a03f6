"""
The `sqs:` sink: messages of an SQS queue, each of one tenant's lines with newlines between them.

    sqs://queue?region=eu-west-1
    sqs://queue.fifo?account=123456789012

`MessageGroupId` is the tenant: a queue is fair to its groups, so that a busy tenant's backlog is not in the way of the
others' messages. In a FIFO queue a message that is sent again within five minutes is there once. Collector needs
`sqs:SendMessage` and `sqs:GetQueueUrl` there, and no more.
"""

from __future__ import annotations

import re
from collections.abc import Sequence
from hashlib import sha256
from typing import Annotated, Any

import msgspec

from collector import aws
from collector.aws.words import THROTTLES
from collector.clock import Clock
from collector.errors import TransientSinkError
from collector.event import Batch
from collector.sinks.aws_url import AwsOptions, connector, read_aws_options
from collector.sinks.base import Offload
from collector.sinks.bodies import quickly
from collector.sinks.probing import Unread
from collector.sinks.record_sink import RecordSink
from collector.sinks.records import CALL_BYTES, Fate, Record, Refusal, name_of
from collector.sinks.url import SinkUrl

KIB = 1024
#: Messages of a SendMessageBatch call, and the size of a message, and of all of a call's. AWS's limits.
MOST_MESSAGES = 10
MOST_MESSAGE_KIB = 1024
_QUEUE = re.compile(r"[a-zA-Z0-9_-]{1,80}|[a-zA-Z0-9_-]{1,75}\.fifo")
_FIFO = ".fifo"
#: What a message may hold are the characters of XML 1.0: in UTF-8, these bytes, without these two characters. A pattern
#: over characters takes four times as long as to leave such bytes out (measured).
_SENDABLE = b"\t\n\r" + bytes(range(0x20, 0x100))
_UNSENDABLE = ("\ufffe".encode(), "\uffff".encode())
_INVALID = "InvalidMessageContents"
#: After these a queue's URL is asked for anew.
_GONE = frozenset({"AWS.SimpleQueueService.NonExistentQueue", "QueueDoesNotExist", "InvalidAddress"})


class Options(AwsOptions, frozen=True, forbid_unknown_fields=True):
    """
    A message holds events up to `aggregate_kib`, or one if that is 0.

    `account` is the number of the account whose queue it is, if that is another's.
    """

    aggregate_kib: Annotated[int, msgspec.Meta(ge=0, le=MOST_MESSAGE_KIB)] = CALL_BYTES // KIB
    account: Annotated[str, msgspec.Meta(pattern=r"^(\d{12})?$")] = ""


def from_url(url: SinkUrl, writer_id: str, clock: Clock, offload: Offload) -> RecordSink:  # noqa: ARG001 - every sink is made so
    """Make the sink of an `sqs:` URL; raises `ValueError`."""
    options = read_aws_options(url, Options)
    connect = connector("sqs", url, options, writer_id=writer_id)
    return RecordSink(
        Sqs(name_of(url, _QUEUE, "queue"), account=options.account),
        connect=quickly(connect, "sqs.SendMessageBatch", rows="Entries", payload="MessageBody"),
        join_bytes=options.aggregate_kib * KIB,
    )


def probe(url: SinkUrl, batch: Batch) -> Unread:  # noqa: ARG001 - every probe is made so
    """Look for nothing: who receives takes, and SQS chooses what."""
    return Unread(
        "to receive it would hide messages from the queue's consumers for a time, and count towards its dead-letter "
        "queue",
        stays="it stays in the queue until a consumer takes it",
    )


class Sqs:
    """A queue."""

    most_records = MOST_MESSAGES
    # The newline at the end of a line is not sent.
    max_event_bytes = MOST_MESSAGE_KIB * KIB + 1

    def __init__(self, queue: str, *, account: str) -> None:
        self._queue = queue
        self._owner = {"QueueOwnerAWSAccountId": account} if account else {}
        self._url = ""

    def send(self, client: aws.Client, records: Sequence[Record]) -> Sequence[Refusal | None]:
        """Send messages; what is no text is refused here, as SQS would."""
        entries = [self._entry(number, record) for number, record in enumerate(records)]
        sent = [entry for entry in entries if isinstance(entry, dict)]
        refused: dict[str, Refusal] = {}
        if sent:
            try:
                answer = self._ask(client, sent)
            except TransientSinkError as error:
                if error.code in _GONE:
                    self._url = ""
                raise
            taken = {row["Id"] for row in answer.get("Successful", ())}
            refused = {row["Id"]: _refusal(row) for row in answer.get("Failed", ())}
            if taken | refused.keys() != {entry["Id"] for entry in sent}:
                return []
        return [refused.get(entry["Id"]) if isinstance(entry, dict) else entry for entry in entries]

    def _ask(self, client: aws.Client, entries: Sequence[dict[str, str]]) -> dict[str, Any]:
        if not self._url:
            what = f"sqs: get_queue_url {self._queue}"
            told = aws.call(what, client.get_queue_url, QueueName=self._queue, **self._owner) or {}
            if not told.get("QueueUrl"):
                raise TransientSinkError(f"{what}: the answer has no QueueUrl")
            self._url = str(told["QueueUrl"])
        what = f"sqs: send_message_batch {self._queue}"
        return aws.call(what, client.send_message_batch, QueueUrl=self._url, Entries=entries) or {}

    def _entry(self, number: int, record: Record) -> dict[str, str] | Refusal:
        data = record.data
        try:
            body = data.decode()
        except UnicodeDecodeError:
            return Refusal(Fate.NEVER, _INVALID, "it is not UTF-8")
        if data.translate(None, _SENDABLE) or (not data.isascii() and any(one in data for one in _UNSENDABLE)):
            return Refusal(Fate.NEVER, _INVALID, "it holds a character that SQS does not take")
        entry = {"Id": str(number), "MessageBody": body, "MessageGroupId": record.tenant_id}
        if self._queue.endswith(_FIFO):
            # By its name, for two events of a device may be the same; by what is in it, for some may have been taken.
            entry["MessageDeduplicationId"] = sha256(record.name.encode() + data).hexdigest()
        return entry


def _refusal(row: dict[str, Any]) -> Refusal:
    code = str(row.get("Code", "no code"))
    whose = Fate.NEVER if row.get("SenderFault") else Fate.IN_DOUBT
    return Refusal(Fate.SLOWER if code in THROTTLES else whose, code, str(row.get("Message", "")))
