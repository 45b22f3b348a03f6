"""Kinesalite keeps what it is given, so that a sink may be tried before a second Kinesis than moto's."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

import pytest
from botocore.exceptions import ClientError

from collector.sinks.kinesis import Kinesis
from collector.sinks.kinesis_probe import KinesisProbe
from collector.sinks.probing import Result
from collector.sinks.record_sink import RecordSink
from collector.sinks.records import records_of
from tests.fakes import batch
from tests.server import wait_for
from tests.standins.kinesalite import Kinesalite, kinesalite, missing
from tests.standins.sdk import client
from tests.standins.services import MIB

pytestmark = [pytest.mark.system, pytest.mark.skipif(bool(missing()), reason=missing())]


@pytest.fixture(scope="module", name="aws")
def _aws(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Kinesalite]:
    with kinesalite(tmp_path_factory.mktemp("kinesalite")) as running:
        yield running


def test_records_are_taken_and_given_back(aws: Kinesalite) -> None:
    """All bytes, from all shards; those of a key in their order."""
    stream, other = aws.stream(shards=3), aws.stream()
    boto = client("kinesis", aws.port)
    sent = [(b"\x00%d\xff" % number, f"k{number % 40}") for number in range(1_000)]
    for rows in (sent[:500], sent[500:]):
        told = [{"Data": data, "PartitionKey": key} for data, key in rows]
        assert 0 == boto.put_records(StreamName=stream.name, Records=told)["FailedRecordCount"]
    found = stream.records()

    assert 3 == len({record.shard_id for record in found})
    assert sorted(sent) == sorted((record.data, record.partition_key) for record in found)
    for key in {key for _, key in sent}:
        assert [data for data, of in sent if of == key] == [one.data for one in found if one.partition_key == key]
    assert [] == other.records()


def test_a_call_over_a_limit_is_refused(aws: Kinesalite) -> None:
    """A stand-in that takes everything finds nothing."""
    stream = aws.stream()
    with pytest.raises(ClientError, match="ValidationException"):
        client("kinesis", aws.port).put_records(
            StreamName=stream.name, Records=[{"Data": b"1", "PartitionKey": "k"}] * 501
        )

    assert [] == stream.records()


def test_a_probe_finds_its_record_in_the_open_shards_of_a_stream_that_was_split(aws: Kinesalite) -> None:
    """A shard that was split is told of as before, and moto sends records to it, which no Kinesis does."""
    stream, boto = aws.stream(shards=2), client("kinesis", aws.port)
    old = boto.list_shards(StreamName=stream.name)["Shards"][0]
    middle = sum(map(int, old["HashKeyRange"].values())) // 2
    boto.split_shard(StreamName=stream.name, ShardToSplit=old["ShardId"], NewStartingHashKey=str(middle))
    wait_for(lambda: "ACTIVE" == stream.state(), "the shard to be split")
    rests: list[float] = []
    sink = RecordSink(Kinesis(stream.name, record_bytes=MIB), connect=lambda: boto, join_bytes=0)
    for number in range(16):
        one = batch(b'{"id":"%d"}' % number)
        (record,) = records_of(one, 0)
        looker = KinesisProbe(stream.name, record, connect=lambda: client("kinesis", aws.port), rest=rests.append)
        looker.mark()
        sink.write(one)
        assert Result.OK is looker.read_back().result
        looker.close()
    found = {record.shard_id for record in stream.records()}

    assert [] == rests
    assert 3 == len(found)
    assert old["ShardId"] not in found


def test_it_listens_on_loopback_alone(aws: Kinesalite) -> None:
    """It has no password, and the machine may have neighbours."""
    listening = [row.split()[1] for row in Path("/proc/net/tcp").read_text().splitlines()[1:] if row.split()[3] == "0A"]
    everywhere = Path("/proc/net/tcp6").read_text() if Path("/proc/net/tcp6").exists() else ""

    assert f"0100007F:{aws.port:04X}" in listening
    assert f"00000000:{aws.port:04X}" not in listening
    assert f":{aws.port:04X} " not in everywhere
