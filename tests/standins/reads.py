"""Kinesis, for those who read: of a stream that has one shard, what the engine has kept from some place on."""

from __future__ import annotations

import base64
from collections.abc import Sequence
from dataclasses import dataclass, field
from typing import Any, Protocol

from tests.standins.services import Call, Fate, Item, Refused, Reply, Request, Streams, read_json, write_json

OPERATIONS = ("ListShards", "GetShardIterator", "GetRecords")
SHARD = "shardId-000000000000"
_KEYS = 2**128


class _Kept(Protocol):
    @property
    def to(self) -> str: ...
    @property
    def payload(self) -> bytes: ...
    @property
    def key(self) -> str: ...


@dataclass(frozen=True)
class Look(Call):
    """A read, with its answer."""

    answer: dict[str, Any] = field(default_factory=dict)


class Reads(Streams):
    """All three calls, over what was kept; a place in the shard is the number of records before it, and the stream."""

    name = "kinesis"

    def __init__(self, kept: Sequence[_Kept]) -> None:
        self._kept = kept

    def read(self, request: Request) -> Call:
        """Read a call, and look."""
        told = read_json(request)
        match request.headers["X-Amz-Target"].rpartition(".")[2]:
            case "ListShards":
                keys = {"StartingHashKey": "0", "EndingHashKey": str(_KEYS - 1)}
                shard = {"ShardId": SHARD, "HashKeyRange": keys, "SequenceNumberRange": {"StartingSequenceNumber": "0"}}
                return Look("", answer={"Shards": [shard]})
            case "GetShardIterator":
                if told["ShardIteratorType"] != "LATEST" or told["ShardId"] != SHARD:
                    raise Refused(400, "InvalidArgumentException", "this stand-in knows one shard, and LATEST")
                return Look("", answer={"ShardIterator": f"{len(self._kept)} {told['StreamName']}"})
        first, _, stream = told["ShardIterator"].partition(" ")
        rows = [
            {"Data": base64.b64encode(one.payload).decode(), "PartitionKey": one.key, "SequenceNumber": "1"}
            for one in self._kept[int(first) :]
            if one.to == stream
        ]
        place = f"{len(self._kept)} {stream}"
        return Look("", answer={"Records": rows, "NextShardIterator": place, "MillisBehindLatest": 0})

    def keep(self, call: Call, item: Item) -> bool:
        """Keep nothing: there are no items."""
        return False

    def answer(self, call: Call, fates: Sequence[Fate]) -> Reply:
        """Say what was seen."""
        assert isinstance(call, Look)
        return write_json(200, call.answer)
