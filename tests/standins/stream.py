"""A Kinesis stream, as somebody sees it who does not know how it was filled; whoever stands for AWS there."""

from __future__ import annotations

import uuid
from collections.abc import Iterator
from dataclasses import dataclass
from typing import Any

from tests.server import wait_for


@dataclass(frozen=True)
class Record:
    """One record, and the shard it lies on."""

    data: bytes
    partition_key: str
    shard_id: str


class Stream:
    """A stream, by its name; `client` speaks Kinesis."""

    def __init__(self, client: Any, name: str) -> None:
        self._client = client
        self.name = name

    @classmethod
    def make(cls, client: Any, shards: int) -> Stream:
        """Make a new one, and wait until it takes records."""
        made = cls(client, f"stream-{uuid.uuid4().hex[:12]}")
        client.create_stream(StreamName=made.name, ShardCount=shards)
        wait_for(lambda: "ACTIVE" == made.state(), "the stream to be there")
        return made

    def state(self) -> str:
        """Say what Kinesis says of it: that it is CREATING, ACTIVE or DELETING."""
        told = self._client.describe_stream_summary(StreamName=self.name)
        return str(told["StreamDescriptionSummary"]["StreamStatus"])

    def records(self) -> list[Record]:
        """Read all that lies there, shard by shard, and of each in its order: between shards there is none."""
        shards = self._client.list_shards(StreamName=self.name)["Shards"]
        return [record for shard in shards for record in self._read(shard["ShardId"])]

    def _read(self, shard_id: str) -> Iterator[Record]:
        asked = {"StreamName": self.name, "ShardId": shard_id, "ShardIteratorType": "TRIM_HORIZON"}
        place = self._client.get_shard_iterator(**asked)["ShardIterator"]
        while (page := self._client.get_records(ShardIterator=place))["Records"]:
            yield from (Record(row["Data"], row["PartitionKey"], shard_id) for row in page["Records"])
            place = page["NextShardIterator"]
