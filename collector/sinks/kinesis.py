"""
The `kinesis:` sink: records of a Kinesis data stream, each of one tenant's lines with newlines between them.

    kinesis://stream?region=eu-west-1&aggregate_kib=0

Records of one tenant have keys that differ, so that they go to all shards: one tenant, however busy, heats
none of them. Collector needs `kinesis:PutRecords` there, and no more.
"""

from __future__ import annotations

import re
from collections.abc import Sequence
from typing import Annotated

import msgspec
from xxhash import xxh3_128_hexdigest

from collector import aws
from collector.clock import Clock
from collector.sinks.aws_url import AwsOptions, connector, read_aws_options
from collector.sinks.base import Offload
from collector.sinks.bodies import quickly
from collector.sinks.record_sink import RecordSink
from collector.sinks.records import CALL_BYTES, Record, Refusal, fates_of, name_of
from collector.sinks.url import SinkUrl

KIB = 1024
#: Records of a PutRecords call. AWS's limit.
MOST_RECORDS = 500
#: A key has 1 to 256 characters, which count as a part of the record. AWS's limits.
_MOST_KEY = 256
_STREAM = re.compile(r"[a-zA-Z0-9_.-]{1,128}")


class Options(AwsOptions, frozen=True, forbid_unknown_fields=True):
    """
    A record holds events up to `aggregate_kib`, or one if that is 0; more hold up uploads for as long as they are made.

    `record_kib` is what the stream takes as a record: 1 MiB, unless its owner has raised that.
    """

    aggregate_kib: Annotated[int, msgspec.Meta(ge=0, le=1023)] = CALL_BYTES // KIB
    record_kib: Annotated[int, msgspec.Meta(ge=1024, le=10_240)] = 1024


def from_url(url: SinkUrl, writer_id: str, clock: Clock, offload: Offload) -> RecordSink:  # noqa: ARG001 - every sink is made so
    """Make the sink of a `kinesis:` URL; raises `ValueError`."""
    options = read_aws_options(url, Options)
    stream = name_of(url, _STREAM, "stream")
    connect = connector("kinesis", url, options, writer_id=writer_id)
    return RecordSink(
        Kinesis(stream, record_bytes=options.record_kib * KIB),
        connect=quickly(connect, "kinesis.PutRecords", rows="Records", payload="Data"),
        join_bytes=options.aggregate_kib * KIB,
    )


class Kinesis:
    """A data stream."""

    most_records = MOST_RECORDS

    def __init__(self, stream: str, *, record_bytes: int) -> None:
        # The newline at the end of a line is not sent.
        self.max_event_bytes = record_bytes - _MOST_KEY + 1
        self._stream = stream

    def send(self, client: aws.Client, records: Sequence[Record]) -> Sequence[Refusal | None]:
        """Put records; they come back in the same order."""
        answer = aws.call(
            f"kinesis: put_records {self._stream}",
            client.put_records,
            StreamName=self._stream,
            Records=[{"Data": record.data, "PartitionKey": key_of(record)} for record in records],
        )
        return fates_of((answer or {}).get("Records", ()))


def key_of(record: Record) -> str:
    """Make the key of a record: its tenant, and the id of its first event, or the sum of one that is long or odd."""
    try:
        event_id = msgspec.json.decode(record.lines[0], type=_Line).id
    except msgspec.MsgspecError:
        event_id = ""
    key = f"{record.tenant_id}/{event_id}"
    if event_id and key.isascii() and len(key) <= _MOST_KEY:
        return key
    return f"{record.tenant_id}/{xxh3_128_hexdigest(event_id.encode() or record.lines[0])}"


class _Line(msgspec.Struct):
    id: str
