"""SQS, for `SendMessageBatch` and `GetQueueUrl`: a queue whose name ends with .fifo is one of those."""

from __future__ import annotations

import hashlib
import re
import uuid
from collections.abc import Mapping, Sequence
from typing import Any

from tests.standins.faults import Failure
from tests.standins.services import MIB, Call, Fate, Item, Refused, Reply, Request, read_json, write_json

#: What may not stand in a message: whatever XML 1.0 has no word for. JSON may bring halves of characters, too.
_NO_CHARACTER = re.compile("[^\t\n\r -\ud7ff\ue000-\ufffd\U00010000-\U0010ffff]")
_ENTRY_ID = re.compile(r"[A-Za-z0-9_-]{1,80}")
#: Of groups and of deduplication.
_ID = re.compile(r"[!-~]{1,128}")

#: What errors were called before SQS spoke JSON, which it says in a header, and boto3 says instead of their names.
_ONCE = {
    "BatchEntryIdsNotDistinct": "AWS.SimpleQueueService.BatchEntryIdsNotDistinct",
    "BatchRequestTooLong": "AWS.SimpleQueueService.BatchRequestTooLong",
    "EmptyBatchRequest": "AWS.SimpleQueueService.EmptyBatchRequest",
    "InvalidBatchEntryId": "AWS.SimpleQueueService.InvalidBatchEntryId",
    "QueueDoesNotExist": "AWS.SimpleQueueService.NonExistentQueue",
    "TooManyEntriesInBatchRequest": "AWS.SimpleQueueService.TooManyEntriesInBatchRequest",
    "UnsupportedOperation": "AWS.SimpleQueueService.UnsupportedOperation",
    "KmsAccessDenied": "KMS.AccessDeniedException",
    "KmsDisabled": "KMS.DisabledException",
    "KmsNotFound": "KMS.NotFoundException",
    "KmsThrottled": "KMS.ThrottlingException",
    "AccessDeniedException": "AccessDenied",
    "ExpiredTokenException": "ExpiredToken",
    "InvalidSignatureException": "SignatureDoesNotMatch",
}


class Sqs:
    """Both calls; `port` is where the URL of a queue points to."""

    name = "sqs"
    expired = (400, "ExpiredTokenException")
    skewed = (400, "InvalidSignatureException", 300)

    def __init__(self, port: int) -> None:
        self._port = port
        self._known: set[tuple[str, str]] = set()

    def read(self, request: Request) -> Call:
        """Read a call; raises `Refused` for one that breaks a limit."""
        told = read_json(request)
        if "QueueName" in told:
            return Call(told["QueueName"])
        name, rows = told["QueueUrl"].rpartition("/")[2], told.get("Entries", [])
        if not rows:
            raise _refused("EmptyBatchRequest", "There should be at least one SendMessageBatchRequestEntry.")
        if len(rows) > 10:
            raise _refused(
                "TooManyEntriesInBatchRequest", f"Maximum number of entries is 10. You have sent {len(rows)}."
            )
        ids = [row.get("Id", "") for row in rows]
        if not all(_ENTRY_ID.fullmatch(entry_id) for entry_id in ids):
            raise _refused("InvalidBatchEntryId", "An id may have 80 letters, digits, hyphens and underscores.")
        if len(set(ids)) < len(ids):
            raise _refused("BatchEntryIdsNotDistinct", "Id repeated.")
        if sum(map(_size, rows)) > MIB:
            raise _refused("BatchRequestTooLong", f"Batch requests cannot be longer than {MIB} bytes.")
        return Call(name, tuple(_item(row, fifo=name.endswith(".fifo")) for row in rows))

    def keep(self, call: Call, item: Item) -> bool:
        """Take a message; one with a deduplication id that is known succeeds, and is not kept."""
        if not call.to.endswith(".fifo"):
            return True
        known = (call.to, item.dedup_id)
        new = known not in self._known
        self._known.add(known)
        return new

    def answer(self, call: Call, fates: Sequence[Fate]) -> Reply:
        """Say it entry by entry, in two lists."""
        if not call.items:
            url = f"http://127.0.0.1:{self._port}/123456789012/{call.to}"
            return write_json(200, {"QueueUrl": url}, version="1.0")
        successful, failed = [], []
        for item, fate in zip(call.items, fates, strict=False):
            if fate:
                told = {"Code": fate.code, "Message": fate.message, "SenderFault": fate.sender_fault}
                failed.append({"Id": item.entry_id, **told})
            else:
                digest = hashlib.md5(item.payload).hexdigest()
                successful.append({"Id": item.entry_id, "MessageId": str(uuid.uuid4()), "MD5OfMessageBody": digest})
        # An empty list of failures is left out, as AWS leaves it out.
        return write_json(200, {"Successful": successful} | ({"Failed": failed} if failed else {}), version="1.0")

    def refuse(self, refused: Refused) -> Reply:
        """Say no, in JSON, and in a header what that was called before."""
        once = _ONCE.get(refused.code, refused.code)
        headers = {"x-amzn-query-error": f"{once};{'Sender' if refused.status < 500 else 'Receiver'}"}
        told = {"__type": f"com.amazonaws.sqs#{refused.code}", "message": refused.message}
        return write_json(refused.status, told, headers, version="1.0")


def _refused(code: str, message: str) -> Refused:
    return Refused(400, code, message)


def _size(row: Mapping[str, Any]) -> int:
    """Count what SQS counts: the body, and of each attribute its name, its type and its value."""
    attributes = row.get("MessageAttributes", {}).items()
    words = [row.get("MessageBody", "")]
    words += [word for name, told in attributes for word in (name, told["DataType"], told.get("StringValue", ""))]
    return sum(len(word.encode("utf-8", "surrogatepass")) for word in words)


def _item(row: Mapping[str, Any], *, fifo: bool) -> Item:
    body, group, dedup = (row.get(name, "") for name in ("MessageBody", "MessageGroupId", "MessageDeduplicationId"))
    if not body:
        raise _refused("MissingParameter", "The request must contain the parameter MessageBody.")
    if fifo and not group:
        raise _refused("MissingParameter", "The request must contain the parameter MessageGroupId.")
    if fifo and not dedup:
        raise _refused("InvalidParameterValue", "The queue should have MessageDeduplicationId provided explicitly")
    if dedup and not fifo:
        raise _refused("InvalidParameterValue", "MessageDeduplicationId is not valid for this queue type.")
    for name, told in (("MessageGroupId", group), ("MessageDeduplicationId", dedup)):
        if told and not _ID.fullmatch(told):
            raise _refused("InvalidParameterValue", f"{name} can only include alphanumeric and punctuation characters.")
    refusal = None
    if _NO_CHARACTER.search(body):
        refusal = Failure("InvalidMessageContents", sender_fault=True, message="Invalid characters found.")
    return Item(body.encode("utf-8", "surrogatepass"), group, dedup, row["Id"], refusal)
