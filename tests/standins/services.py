"""
Kinesis, Firehose, SQS and S3, each for the call that writes: what AWS takes in one, and the shape in which it answers.

The limits are those of AWS's API references. Where these don't say which code a call over a limit is refused with, it
is that of the service's other such refusals.
"""

from __future__ import annotations

import base64
import binascii
import hashlib
import json
import uuid
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from http.client import HTTPMessage
from typing import Any, Protocol
from urllib.parse import unquote, urlsplit
from xml.sax.saxutils import escape

from tests.standins.faults import Failure

KIB, MIB = 1024, 1024 * 1024


class Refused(Exception):
    """Raised when a call is refused as a whole."""

    def __init__(self, status: int, code: str, message: str) -> None:
        super().__init__(code)
        self.status, self.code, self.message = status, code, message


@dataclass(frozen=True)
class Request:
    """What came."""

    method: str
    path: str
    headers: HTTPMessage
    body: bytes


@dataclass(frozen=True)
class Reply:
    """What goes back."""

    status: int
    body: bytes
    headers: dict[str, str] = field(default_factory=dict)


@dataclass(frozen=True)
class Item:
    """One record of a call. `entry_id` is what SQS calls it by; `refusal` is why it alone can't be taken."""

    payload: bytes
    key: str = ""
    dedup_id: str = ""
    entry_id: str = ""
    refusal: Failure | None = None


@dataclass(frozen=True)
class Call:
    """What is asked for: to write items to a stream, a queue or a bucket. Without any, where it is."""

    to: str
    items: tuple[Item, ...] = ()


#: What becomes of an item; None is that it is taken.
Fate = Failure | None


class Service(Protocol):
    """One service, as far as the engine has it."""

    name: str
    expired: tuple[int, str]
    #: What is said to a clock that is wrong, and by how many seconds it may be.
    skewed: tuple[int, str, int]

    def read(self, request: Request) -> Call:
        """Read a call; raises `Refused` for one that breaks a limit."""

    def keep(self, call: Call, item: Item) -> bool:
        """Take an item; tell whether it is a new one."""

    def answer(self, call: Call, fates: Sequence[Fate]) -> Reply:
        """Say what became of the first items, as many as there are fates. May raise `Refused`."""

    def refuse(self, refused: Refused) -> Reply:
        """Say no."""


def read_json(request: Request) -> dict[str, Any]:
    try:
        told = json.loads(request.body)
    except ValueError:
        told = None
    if not isinstance(told, dict):
        raise Refused(400, "SerializationException", "the body is no JSON object")
    return told


def read_blob(row: Mapping[str, Any]) -> bytes:
    try:
        return base64.b64decode(row["Data"], validate=True)
    except (KeyError, TypeError, binascii.Error):
        raise Refused(400, "SerializationException", "Data is no base64") from None


def write_json(status: int, told: object, headers: dict[str, str] | None = None, version: str = "1.1") -> Reply:
    return Reply(
        status, json.dumps(told).encode(), {"Content-Type": f"application/x-amz-json-{version}"} | (headers or {})
    )


class Streams:
    """What Kinesis and Firehose have in common."""

    expired = (400, "ExpiredTokenException")
    skewed = (400, "InvalidSignatureException", 300)

    def keep(self, call: Call, item: Item) -> bool:
        """Take an item: a repeat is one more."""
        return True

    def refuse(self, refused: Refused) -> Reply:
        """Say no, in JSON."""
        return write_json(refused.status, {"__type": refused.code, "message": refused.message})


class Kinesis(Streams):
    """`PutRecords`, to a stream whose records may have so many bytes with their keys."""

    name = "kinesis"

    def __init__(self, record_bytes: int) -> None:
        self._record_bytes = record_bytes

    def read(self, request: Request) -> Call:
        """Read a call; raises `Refused` for one that breaks a limit."""
        told = read_json(request)
        rows = told.get("Records", [])
        _hold_count("records", rows)
        items = tuple(Item(read_blob(row), row.get("PartitionKey", "")) for row in rows)
        for number, item in enumerate(items, 1):
            if not 1 <= len(item.key) <= 256:
                raise _constraint(f"records.{number}.member.partitionKey", "length between 1 and 256")
        sizes = [len(item.payload) + len(item.key.encode()) for item in items]
        if max(sizes) > self._record_bytes:
            raise Refused(400, "InvalidArgumentException", f"Record size exceeds {self._record_bytes} bytes")
        if sum(sizes) > 10 * MIB:
            raise Refused(400, "InvalidArgumentException", "Records size exceeds 10 MB limit")
        return Call(told.get("StreamName") or str(told["StreamARN"]).rpartition("/")[2], items)

    def answer(self, call: Call, fates: Sequence[Fate]) -> Reply:
        """Say it record by record, in their order."""
        rows = [
            {"ErrorCode": fate.code, "ErrorMessage": fate.message}
            if fate
            else {"SequenceNumber": str(uuid.uuid4().int), "ShardId": "shardId-000000000000"}
            for fate in fates
        ]
        failed = sum(fate is not None for fate in fates)
        return write_json(200, {"FailedRecordCount": failed, "Records": rows, "EncryptionType": "NONE"})


class Firehose(Streams):
    """`PutRecordBatch`."""

    name = "firehose"

    def read(self, request: Request) -> Call:
        """Read a call; raises `Refused` for one that breaks a limit."""
        told = read_json(request)
        rows = told.get("Records", [])
        _hold_count("records", rows)
        items = tuple(Item(read_blob(row)) for row in rows)
        for number, item in enumerate(items, 1):
            if len(item.payload) > 1000 * KIB:
                raise _constraint(f"records.{number}.member.data", "length less than or equal to 1024000")
        if sum(len(item.payload) for item in items) > 4 * MIB:
            raise Refused(400, "InvalidArgumentException", "Records size exceeds 4 MB limit")
        return Call(told["DeliveryStreamName"], items)

    def answer(self, call: Call, fates: Sequence[Fate]) -> Reply:
        """Say it record by record, in their order."""
        rows = [
            {"ErrorCode": fate.code, "ErrorMessage": fate.message} if fate else {"RecordId": str(uuid.uuid4())}
            for fate in fates
        ]
        failed = sum(fate is not None for fate in fates)
        return write_json(200, {"FailedPutCount": failed, "Encrypted": False, "RequestResponses": rows})


def _hold_count(what: str, rows: Sequence[object]) -> None:
    if not 1 <= len(rows) <= 500:
        raise _constraint(what, "length between 1 and 500")


def _constraint(what: str, must: str) -> Refused:
    sentence = f"1 validation error detected: Value at '{what}' failed to satisfy constraint: Member must have {must}"
    return Refused(400, "ValidationException", sentence)


class S3:
    """`PutObject`, by a path that begins with the bucket."""

    name = "s3"
    expired = (400, "ExpiredToken")
    skewed = (403, "RequestTimeTooSkewed", 900)

    def __init__(self) -> None:
        self._there: set[tuple[str, str]] = set()

    def read(self, request: Request) -> Call:
        """Read a call; raises `Refused` for an object that is there already and must not be."""
        bucket, _, key = unquote(urlsplit(request.path).path).lstrip("/").partition("/")
        if "Content-Length" not in request.headers:
            raise Refused(411, "MissingContentLength", "You must provide the Content-Length HTTP header.")
        if request.headers.get("If-None-Match") == "*" and (bucket, key) in self._there:
            raise Refused(412, "PreconditionFailed", "At least one of the pre-conditions you specified did not hold")
        return Call(bucket, (Item(request.body, key),))

    def keep(self, call: Call, item: Item) -> bool:
        """Take the object."""
        self._there.add((call.to, item.key))
        return True

    def answer(self, call: Call, fates: Sequence[Fate]) -> Reply:
        """Say that it is there; raises `Refused` when it failed."""
        for fate in fates:
            if fate:
                raise Refused(500, fate.code, fate.message)
        return Reply(200, b"", {"ETag": f'"{hashlib.md5(call.items[0].payload).hexdigest()}"'})

    def refuse(self, refused: Refused) -> Reply:
        """Say no, in XML."""
        told = f"<Error><Code>{refused.code}</Code><Message>{escape(refused.message)}</Message></Error>"
        return Reply(refused.status, told.encode(), {"Content-Type": "application/xml"})
