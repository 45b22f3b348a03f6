"""
The probe of a `kinesis:` sink: it reads on in the one shard that the record goes to, from before the write.

A shard gives five reads a second to all its consumers together, so there is a rest between two, and few of them. It
takes `kinesis:ListShards`, `kinesis:GetShardIterator` and `kinesis:GetRecords`, which the sink does not need.
"""

from __future__ import annotations

import threading
from collections.abc import Callable
from hashlib import md5
from typing import Any

from collector import aws
from collector.errors import SinkError, ThrottledSinkError
from collector.event import Batch
from collector.sinks.aws_url import common_options, connector
from collector.sinks.kinesis import key_of
from collector.sinks.probing import Result, Told, held
from collector.sinks.records import Record, records_of
from collector.sinks.url import SinkUrl

#: How often it reads, and how long it rests in between, in seconds. A choice: the rest is that of AWS's own consumers,
#: and what is written can be read well within the second, as AWS says.
_MOST_READS, _REST_S = 10, 1.0
#: Pages of a thousand shards. The most that AWS gives a stream without being asked is twenty.
_MOST_PAGES = 20


def probe(url: SinkUrl, batch: Batch) -> KinesisProbe:
    """Make it for a batch; raises `ValueError`."""
    connect = connector("kinesis", url, common_options(url), writer_id="probe")
    (record,) = records_of(batch, 0)
    return KinesisProbe(url.host, record, connect=connect, rest=threading.Event().wait)


class KinesisProbe:
    """Looks for a record in a stream; `connect` makes the client, `rest` waits for so many seconds."""

    stays = "it stays in the stream until its retention is over, for all who read there"

    def __init__(
        self, stream: str, record: Record, *, connect: Callable[[], aws.Client], rest: Callable[[float], object]
    ) -> None:
        self._stream = stream
        self._record = record
        self._connect = connect
        self._rest = rest
        self._client: aws.Client | None = None
        self._shard = self._place = ""

    def mark(self) -> None:
        """Note where the record's shard ends."""
        self._client = self._client or self._connect()
        self._shard = self._shard_of(key_of(self._record))
        asked = {"StreamName": self._stream, "ShardId": self._shard, "ShardIteratorType": "LATEST"}
        self._place = str(self._ask("get_shard_iterator", **asked).get("ShardIterator", ""))

    def read_back(self) -> Told:
        """Read on from there until the record comes; of a shard that others read as fast as it allows, nothing."""
        behind, throttled = False, True
        for number in range(_MOST_READS):
            if number:
                self._rest(_REST_S)
            try:
                page = self._ask("get_records", ShardIterator=self._place)
            except ThrottledSinkError:
                continue
            throttled = False
            for row in page.get("Records", ()):
                if row["PartitionKey"] == key_of(self._record):
                    return held(self._named, row["Data"], self._record.data)
            if not page.get("NextShardIterator"):
                return Told(Result.UNTOLD, f"{self._named} was closed meanwhile: the stream is split, or merged")
            self._place = str(page["NextShardIterator"])
            behind = page.get("MillisBehindLatest", 0) > 0
        if throttled:
            return Told(Result.UNTOLD, f"others read {self._named} as fast as it allows")
        if behind:
            return Told(Result.UNTOLD, f"it did not come in {_MOST_READS} reads: so much else is in {self._named}")
        return held(self._named, None, self._record.data)

    def take_away(self) -> Told:
        """Say that nobody can."""
        return Told(Result.SKIPPED, self.stays)

    def close(self) -> None:
        """Let the client go."""
        client, self._client = self._client, None
        if client is not None:
            client.close()

    @property
    def _named(self) -> str:
        return f"{self._shard} of {self._stream}"

    def _shard_of(self, key: str) -> str:
        """Find the open shard that a key goes to."""
        at = int.from_bytes(md5(key.encode(), usedforsecurity=False).digest())
        asked: dict[str, object] = {"StreamName": self._stream}
        for _ in range(_MOST_PAGES):
            page = self._ask("list_shards", **asked)
            for shard in page.get("Shards", ()):
                first, last = (int(shard["HashKeyRange"][end]) for end in ("StartingHashKey", "EndingHashKey"))
                if first <= at <= last and "EndingSequenceNumber" not in shard["SequenceNumberRange"]:
                    return str(shard["ShardId"])
            if not page.get("NextToken"):
                break
            asked = {"NextToken": page["NextToken"]}
        raise SinkError(f"kinesis: list_shards {self._stream}: no open shard is told that takes the key {key}")

    def _ask(self, operation: str, **arguments: object) -> dict[str, Any]:
        what = f"kinesis: {operation} {self._stream}"
        return aws.call(what, getattr(self._client, operation), unless=(), **arguments) or {}
