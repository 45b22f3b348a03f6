"""
The `firehose:` sink: records of a Firehose stream, each of one tenant's lines, every line ended by a newline.

    firehose://stream?region=eu-west-1

Firehose puts records together as they are, so what it writes are lines, too. Collector needs `firehose:PutRecordBatch`
there, and no more.
"""

from __future__ import annotations

import re
from collections.abc import Sequence
from typing import Annotated

import msgspec

from collector import aws
from collector.clock import Clock
from collector.sinks.aws_url import AwsOptions, connector, read_aws_options
from collector.sinks.base import Offload
from collector.sinks.bodies import quickly
from collector.sinks.record_sink import RecordSink
from collector.sinks.records import CALL_BYTES, Record, Refusal, fates_of, name_of
from collector.sinks.url import SinkUrl

KIB = 1024
#: Records of a PutRecordBatch call, and the size of a record. AWS's limits.
MOST_RECORDS = 500
MOST_RECORD_KIB = 1000
_STREAM = re.compile(r"[a-zA-Z0-9_.-]{1,64}")


class Options(AwsOptions, frozen=True, forbid_unknown_fields=True):
    """A record holds events up to `aggregate_kib`, or one if that is 0."""

    aggregate_kib: Annotated[int, msgspec.Meta(ge=0, le=MOST_RECORD_KIB)] = CALL_BYTES // KIB


def from_url(url: SinkUrl, writer_id: str, clock: Clock, offload: Offload) -> RecordSink:  # noqa: ARG001 - every sink is made so
    """Make the sink of a `firehose:` URL; raises `ValueError`."""
    options = read_aws_options(url, Options)
    connect = connector("firehose", url, options, writer_id=writer_id)
    return RecordSink(
        Firehose(name_of(url, _STREAM, "stream")),
        connect=quickly(connect, "firehose.PutRecordBatch", rows="Records", payload="Data"),
        join_bytes=options.aggregate_kib * KIB,
    )


class Firehose:
    """A Firehose stream."""

    most_records = MOST_RECORDS
    max_event_bytes = MOST_RECORD_KIB * KIB

    def __init__(self, stream: str) -> None:
        self._stream = stream

    def send(self, client: aws.Client, records: Sequence[Record]) -> Sequence[Refusal | None]:
        """Put records; they come back in the same order."""
        answer = aws.call(
            f"firehose: put_record_batch {self._stream}",
            client.put_record_batch,
            DeliveryStreamName=self._stream,
            Records=[{"Data": record.data + b"\n"} for record in records],
        )
        return fates_of((answer or {}).get("RequestResponses", ()))
