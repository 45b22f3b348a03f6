"""`collector check --sink`: what it does to a sink, what it leaves there, and what it says."""

from __future__ import annotations

import json
import os
import re
import subprocess
import sys
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import NoReturn

import pytest
from click.testing import CliRunner, Result

from collector import aws, cli
from collector.cli import probe as probing
from collector.clock import SystemClock
from collector.errors import SinkError
from collector.event import Batch
from collector.sinks import firehose_probe, sqs
from collector.sinks.kinesis_probe import KinesisProbe
from collector.sinks.local_probe import LocalProbe
from collector.sinks.objects import Packer
from collector.sinks.probing import Result as Came
from collector.sinks.probing import held_frame
from collector.sinks.records import records_of
from collector.sinks.registry import PROBES, SINKS, open_probe, open_sink
from tests.contracts.cases import no_file_may_grow
from tests.standins import sdk
from tests.standins.engine import Engine
from tests.standins.faults import THROTTLED, Failure, Fault, Line, Page, Refusal, Some, every
from tests.standins.reads import SHARD
from tests.standins.seaweed import STRANGER
from tests.standins.shared import started_moto, started_seaweed
from tests.standins.sts import OWN_ACCOUNT, ROLE_ACCOUNT, Sts

ROOT = Path(__file__).resolve().parent.parent
ROLE = "arn:aws:iam::210987654321:role/writer"
DENIED = Refusal(400, "AccessDeniedException")
STEPS = (
    "the URL is read", "credentials", "the sink starts", "an event is written", "it is read back", "it is taken away",
)  # fmt: skip


@dataclass(frozen=True)
class Row:
    """One step, as it was told."""

    ms: str
    result: str
    detail: str


@pytest.fixture(autouse=True, name="sts")
def _sts(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> Iterator[Sts]:
    """Let nothing of this machine be found, every question stay on it, and each command start elsewhere."""
    monkeypatch.chdir(tmp_path)
    monkeypatch.setenv("COLLECTOR_SPOOL_DIR", f"/dev/shm/collector-test-{os.getpid()}")
    for name in ("AWS_SESSION_TOKEN", "AWS_PROFILE"):
        monkeypatch.delenv(name, raising=False)
    for name, value in sdk.ENVIRON.items():
        monkeypatch.setenv(name, value)
    with Sts() as running:
        monkeypatch.setenv("AWS_ENDPOINT_URL_STS", f"http://127.0.0.1:{running.port}")
        yield running


def check(*arguments: str) -> Result:
    return CliRunner().invoke(cli.main, ["check", *arguments])


def probe(url: str, *arguments: str) -> Result:
    return check("--sink", url, *arguments)


def rows(result: Result) -> dict[str, Row]:
    """Read the table; it has every step, in its order."""
    found = {}
    for line in result.stdout.splitlines():
        step = next((step for step in STEPS if line.startswith(f"  {step}  ")), None)
        if step:
            match = re.fullmatch(r" +([\d,]*) +(ok|failed|can't be told|skipped) +(\S.*?) *", line[len(step) + 2 :])
            assert match is not None, line
            found[step] = Row(*match.groups())
    assert list(STEPS) == list(found), result.output
    return found


def results(result: Result) -> list[str]:
    return [row.result for row in rows(result).values()]


def tree(folder: Path) -> set[Path]:
    return set(folder.rglob("*"))


def one_event() -> tuple[str, Batch]:
    return probing._one_event("collector-probe", SystemClock())


# -- file: and stdout: -------------------------------------------------------------------------------------

DAY, TENANT = r"\d{4}-\d\d-\d\d", "tenant=collector-probe"
LAYOUTS = [
    ("fsync=0", rf"{TENANT}/date={DAY}/hour=\d\d"),
    ("by=hour", rf"date={DAY}/hour=\d\d"),
    ("key=a={tenant}/{year}/{month}/{day}/{hour}", r"a=collector-probe/\d{4}/\d\d/\d\d/\d\d"),
    ("by=hour&key={date}/{hour}", rf"{DAY}/\d\d"),
]


@pytest.mark.parametrize(("options", "layout"), LAYOUTS)
def test_a_directory_is_after_the_probe_what_it_was_before(options: str, layout: str, tmp_path: Path) -> None:
    """It is run against the place where a live Collector writes."""
    (tmp_path / "there").mkdir()
    for place in ("there", "not/yet"):
        result = probe(f"file:{place}?{options}")

        assert 0 == result.exit_code, result.output
        assert ["ok", "skipped", "ok", "ok", "ok", "ok"] == results(result)
        assert re.fullmatch(f"byte for byte, in {layout}", rows(result)["it is read back"].detail)
        assert "it was there as it was written" in result.stdout
    assert {tmp_path / "there"} == tree(tmp_path)


def test_what_others_have_put_into_a_folder_of_the_probe_stays(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """The hour's folder may be new, and a live Collector's next file be in it already."""
    read_back = LocalProbe.read_back

    def meanwhile(self: LocalProbe) -> object:
        (self._path.parent / "another").write_text("")
        return read_back(self)

    monkeypatch.setattr(LocalProbe, "read_back", meanwhile)
    result = probe("file:data?by=hour")

    assert 0 == result.exit_code, result.output
    assert ["another"] == [path.name for path in tree(tmp_path) if path.is_file()]
    assert "which another uses by now" in rows(result)["it is taken away"].detail


def test_a_directory_that_takes_nothing_fails_the_probe_and_is_left_as_it_was(tmp_path: Path) -> None:
    """The folders for it were made before the file was refused."""
    with no_file_may_grow():
        result = probe("file:data")

    assert 1 == result.exit_code
    assert ["ok", "skipped", "ok", "failed", "skipped", "skipped"] == results(result)
    assert "File too large" in result.stderr
    assert "the batch is kept" not in result.output
    assert set() == tree(tmp_path)


def test_a_probe_that_is_broken_off_leaves_nothing_on_this_machine(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Whoever waits for a share that hangs presses Ctrl-C."""

    def breaks_off(self: LocalProbe) -> NoReturn:
        assert self._path.exists()
        raise KeyboardInterrupt

    monkeypatch.setattr(LocalProbe, "read_back", breaks_off)

    assert 1 == probe("file:data").exit_code
    assert set() == tree(tmp_path)


def test_what_is_not_as_it_was_written_fails_the_probe_and_is_taken_away(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """That is what it is read back for."""
    monkeypatch.setattr("collector.sinks.local_reading.LocalDelivered.read", lambda *_: None)
    result = probe("file:data")

    assert 1 == result.exit_code
    assert ["failed", "ok"] == results(result)[4:]
    assert "it was taken, and it is not in" in result.stderr
    assert set() == tree(tmp_path)


def test_a_frame_with_another_byte_in_it_is_not_what_was_written() -> None:
    """A share that mixes up blocks gives back as many bytes as it took."""
    packer = Packer(1)
    _, batch = one_event()
    _, other = one_event()

    assert Came.OK is held_frame("there", "a/b", packer.pack(batch), batch.payload).result
    assert Came.FAILED is held_frame("there", "a/b", packer.pack(other), batch.payload).result
    broken = held_frame("there", "a/b", packer.pack(batch)[:-1], batch.payload)
    assert (Came.FAILED, True) == (broken.result, "no object of ours" in broken.detail)


def test_the_event_is_a_line_of_collectors_own_and_says_that_it_is_a_probe() -> None:
    """Whoever reads a stream can tell it by its tenant, and no parser stumbles over it."""
    done = subprocess.run(
        [sys.executable, "-m", "collector", "check", "--sink", "stdout:"],
        capture_output=True, text=True, check=False, env={**os.environ, "PYTHONPATH": str(ROOT)},
    )  # fmt: skip
    (line,) = [line for line in done.stdout.splitlines() if line.startswith("{")]
    told = json.loads(line)

    assert 0 == done.returncode, done.stderr
    assert ["id", "tenant", "received_at", "protocol", "receipt", "remote_ip", "event"] == list(told)
    assert ("collector-probe", "probe") == (told["tenant"], told["protocol"])
    assert "7" == told["id"][14]
    assert "whoever reads the output has it" in done.stdout
    assert "whether it is there was not seen" in done.stdout


# -- the command -------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("arguments", "said"),
    [
        (["--sink", "chaos:x"], "there is no sink 'chaos'; the schemes are file, stdout"),
        (["--sink", "s3://bucket/a?speed=9"], "speed"),
        (["--sink", "kinesis://key:secret@stream"], "a key stands before its name"),
        (["--sink", "file:a", "--route", "default"], "name one of them"),
        (["--sink", "file:a", "--tenant", "a/b"], "can't be a tenant's id"),
        (["--route", "other"], "there is no route 'other'; the routes are default"),
        (["--tenant", "a"], "--tenant goes with --sink or --route"),
    ],
)
def test_what_can_be_no_probe_is_told_in_a_sentence_and_nothing_is_written(
    arguments: list[str], said: str, tmp_path: Path
) -> None:
    """A table of steps that were not taken would hide the one that is wrong."""
    result = check(*arguments)

    assert (1, "") == (result.exit_code, result.stdout)
    assert said in result.stderr
    assert "secret" not in result.output
    assert set() == tree(tmp_path)


def test_the_sink_of_a_route_is_probed_by_the_routes_name(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """What is in the settings need not be copied from them."""
    (tmp_path / "c.toml").write_text(
        f'[tenants.app]\nkeys = ["{"a1" * 32}"]\nroute = "cold"\n[routes.cold]\nsink = "file:cold?by=hour"\n'
    )
    monkeypatch.setenv("COLLECTOR_CONFIG", "c.toml")
    result = check("--route", "cold", "--tenant", "app")

    assert 0 == result.exit_code, result.output
    assert rows(result)["the URL is read"].detail.endswith("cold?by=hour")
    assert "tenant app," in rows(result)["an event is written"].detail


def test_each_sink_has_a_probe_of_its_own(monkeypatch: pytest.MonkeyPatch) -> None:
    """A sink that is new has none, and is written to all the same."""
    assert set(SINKS) == set(PROBES)
    monkeypatch.delitem(PROBES, "file")
    _, batch = one_event()

    assert Came.SKIPPED is open_probe("file:a", batch).read_back().result


# -- s3: ---------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(("options", "layout"), LAYOUTS[1:])
def test_an_object_is_read_back_and_deleted_where_the_role_may(options: str, layout: str) -> None:
    """A rescue sink's role may."""
    running = started_seaweed()
    bucket = running.bucket()
    result = probe(f"s3://{bucket.name}/a?endpoint=http://127.0.0.1:{running.port}&{options}")

    assert 0 == result.exit_code, result.output
    assert ["ok"] * 6 == results(result)
    assert f"account {OWN_ACCOUNT}" in rows(result)["credentials"].detail
    assert re.fullmatch(f"byte for byte, in {layout}", rows(result)["it is read back"].detail)
    assert {} == bucket.objects()


def test_a_role_that_may_only_write_is_all_that_a_sink_needs(monkeypatch: pytest.MonkeyPatch) -> None:
    """A task's role may put and nothing else: the probe then leaves an object, and says where."""
    running = started_seaweed()
    bucket = running.bucket()
    bucket.allow("s3:PutObject")
    monkeypatch.setenv("AWS_ACCESS_KEY_ID", STRANGER)
    result = probe(f"s3://{bucket.name}/a?endpoint=http://127.0.0.1:{running.port}")

    assert 0 == result.exit_code, result.output
    (key,) = bucket.objects()
    assert ["ok", "can't be told", "skipped"] == results(result)[3:]
    assert "the role may not read there, and need not" == rows(result)["it is read back"].detail
    assert "the role may not delete there, and need not" == rows(result)["it is taken away"].detail
    assert f"Note: s3://{bucket.name}/{key} is left there" in result.stdout.splitlines()


def test_a_role_that_may_not_write_fails_the_probe(monkeypatch: pytest.MonkeyPatch) -> None:
    """That is the most usual thing to be wrong."""
    running = started_seaweed()
    bucket = running.bucket()
    bucket.allow("s3:GetObject")
    monkeypatch.setenv("AWS_ACCESS_KEY_ID", STRANGER)
    result = probe(f"s3://{bucket.name}/a?endpoint=http://127.0.0.1:{running.port}")

    assert 1 == result.exit_code
    assert ["failed", "skipped", "skipped"] == results(result)[3:]
    assert "AccessDenied" in result.stderr
    assert "let Collector's role do that there" in result.stderr
    assert "--tenant" not in result.stderr


def test_a_bucket_that_keeps_versions_keeps_the_event() -> None:
    """To say that it is deleted would be half of the truth."""
    running = started_seaweed()
    bucket = running.bucket()
    bucket.keep_versions()
    result = probe(f"s3://{bucket.name}?endpoint=http://127.0.0.1:{running.port}")

    assert 0 == result.exit_code, result.output
    assert "it stays as an old one" in rows(result)["it is taken away"].detail
    assert {} == bucket.objects()


# -- kinesis: ----------------------------------------------------------------------------------------------


@pytest.mark.parametrize("options", ["", "&aggregate_kib=0"])
def test_a_record_is_found_in_its_shard_and_stays_there(options: str) -> None:
    """Its consumers get it, and can tell it by its tenant; whoever probes is told before."""
    moto = started_moto()
    stream = moto.stream(shards=3)
    result = probe(f"kinesis://{stream.name}?endpoint=http://127.0.0.1:{moto.port}{options}")

    assert 0 == result.exit_code, result.output
    (record,) = stream.records()
    assert ["ok", "ok", "skipped"] == results(result)[3:]
    assert record.shard_id in rows(result)["it is read back"].detail
    assert "collector-probe" == json.loads(record.data)["tenant"]
    assert result.stdout.startswith("Note: this writes one event of the tenant collector-probe, and it stays in the st")


def kinesis_probe(engine_port: int, stream: str, batch: Batch, rest: Callable[[float], object]) -> KinesisProbe:
    (record,) = records_of(batch, 0)
    return KinesisProbe(stream, record, connect=lambda: sdk.client("kinesis", engine_port, attempts=1), rest=rest)


def no_rest(_: float) -> NoReturn:
    pytest.fail("it read twice")


def test_only_the_shard_that_the_record_goes_to_is_read_and_once_if_it_is_there() -> None:
    """Others have consumers of their own, who share its reads."""
    moto = started_moto()
    stream = moto.stream(shards=4)
    sink = open_sink(f"kinesis://{stream.name}?endpoint=http://127.0.0.1:{moto.port}", writer_id="w")
    for _ in range(8):
        _, batch = one_event()
        looker = kinesis_probe(moto.port, stream.name, batch, no_rest)
        looker.mark()
        sink.write(batch)
        told = looker.read_back()
        looker.close()
        assert Came.OK is told.result, told
    sink.close()


CLOSED = {
    "ShardId": "shardId-closed",
    "HashKeyRange": {"StartingHashKey": "0", "EndingHashKey": str(2**128 - 1)},
    "SequenceNumberRange": {"StartingSequenceNumber": "0", "EndingSequenceNumber": "1"},
}


def test_shards_are_looked_for_on_every_page_and_closed_ones_passed_over() -> None:
    """A stream of thousands of shards tells of them in pages, and of those that were split, too."""
    page = Page(200, json.dumps({"Shards": [CLOSED], "NextToken": "more"}).encode())
    with Engine() as engine:
        engine.script(page, operation="ListShards")
        _, batch = one_event()
        looker = kinesis_probe(engine.port, "s", batch, no_rest)
        looker.mark()
        looker.close()

        assert 2 == engine.calls["ListShards"]
        assert SHARD == looker._shard
        looker = kinesis_probe(engine.port, "s", batch, no_rest)
        with engine.fault(page, operation="ListShards"), pytest.raises(SinkError, match="no open shard"):
            looker.mark()
        looker.close()

        assert 22 == engine.calls["ListShards"]


@pytest.mark.parametrize(
    ("fault", "reads", "result", "said"),
    [
        (None, 10, Came.FAILED, "it was taken, and it is not in shardId-000000000000 of s"),
        (THROTTLED, 10, Came.UNTOLD, "others read shardId-000000000000 of s as fast as it allows"),
        (
            Page(200, b'{"Records": [], "NextShardIterator": "0 s", "MillisBehindLatest": 9}'),
            10, Came.UNTOLD, "it did not come in 10 reads",
        ),
        (Page(200, b'{"Records": [], "MillisBehindLatest": 0}'), 1, Came.UNTOLD, "the stream is split, or merged"),
    ],
)  # fmt: skip
def test_a_record_that_does_not_come_is_looked_for_so_often_and_slowly(
    fault: Fault | None, reads: int, result: Came, said: str
) -> None:
    """Its consumers share the reads of a shard with the probe."""
    rests: list[float] = []
    with Engine() as engine:
        engine.script(*[fault] * reads, operation="GetRecords")
        looker = kinesis_probe(engine.port, "s", one_event()[1], rests.append)
        looker.mark()
        told = looker.read_back()
        looker.close()

        assert (result, True) == (told.result, said in told.detail), told
        assert reads == engine.calls["GetRecords"]
        assert [1.0] * (reads - 1) == rests


def test_a_record_that_comes_late_among_others_is_found() -> None:
    """A stream is busy, and not at once where it is asked."""
    with Engine() as engine:
        sink = open_sink(f"kinesis://s?endpoint=http://127.0.0.1:{engine.port}", writer_id="w")
        before, batch, after = (one_event()[1] for _ in range(3))
        sink.write(before)

        def comes(_: float) -> None:
            for one in (after, batch):
                sink.write(one)

        engine.script(None, THROTTLED, operation="GetRecords")
        looker = kinesis_probe(engine.port, "s", batch, comes)
        looker.mark()
        told = looker.read_back()
        looker.close()
        sink.close()

    assert Came.OK is told.result, told


def test_each_read_goes_on_where_the_one_before_has_ended() -> None:
    """Of a busy shard one read gives a part of what is there."""
    with Engine() as engine:
        sink = open_sink(f"kinesis://s?endpoint=http://127.0.0.1:{engine.port}", writer_id="w")
        _, batch = one_event()
        sink.write(batch)
        looker = kinesis_probe(engine.port, "s", batch, lambda _: None)
        looker.mark()
        # Where reading began, behind the record, is not where this page ends.
        engine.script(Page(200, b'{"Records": [], "NextShardIterator": "0 s"}'), operation="GetRecords")
        told = looker.read_back()
        looker.close()
        sink.close()

    assert Came.OK is told.result, told


@pytest.mark.parametrize("operation", ["ListShards", "GetShardIterator", "GetRecords"])
def test_a_stream_that_may_not_be_read_is_no_failure(operation: str) -> None:
    """A task's role may put records and nothing else."""
    with Engine() as engine, engine.fault(DENIED, operation=operation):
        result = probe(f"kinesis://s?endpoint=http://127.0.0.1:{engine.port}")

        assert 0 == result.exit_code, result.output
        assert ["ok", "can't be told", "skipped"] == results(result)[3:]
        assert 1 == len(engine.taken)


def test_a_stream_that_can_not_be_read_for_another_reason_is_a_failure_after_the_write() -> None:
    """What the sink needs is tried first, and told by itself."""
    with Engine() as engine, engine.fault(Refusal(500, "InternalFailure"), operation="ListShards"):
        result = probe(f"kinesis://s?endpoint=http://127.0.0.1:{engine.port}")

        assert 1 == result.exit_code
        assert ["ok", "failed", "skipped"] == results(result)[3:]
        assert "InternalFailure" in result.stderr
        assert 1 == len(engine.taken)


# -- firehose: and sqs: ------------------------------------------------------------------------------------


def test_firehose_takes_the_event_and_tells_where_it_goes() -> None:
    """From there on it is in other hands."""
    moto = started_moto()
    delivery = moto.delivery_stream()
    result = probe(f"firehose://{delivery.name}?endpoint=http://127.0.0.1:{moto.port}")

    assert 0 == result.exit_code, result.output
    assert ["ok", "skipped", "skipped"] == results(result)[3:]
    assert f"it delivers to s3://{delivery.name}/" in rows(result)["it is read back"].detail
    assert [b"collector-probe"] == [re.findall(rb'"tenant":"(.*?)"', one)[0] for one in delivery.objects()]


@pytest.mark.parametrize(
    ("fault", "said"),
    [
        (DENIED, "where it delivers the role may not ask, and need not"),
        (Refusal(500, "InternalFailure"), "where it delivers could not be asked: firehose: describe_delivery_stream s"),
    ],
)
def test_firehose_that_tells_nothing_is_no_failure(fault: Fault, said: str) -> None:
    """A task's role may put records and nothing else."""
    with Engine() as engine, engine.fault(fault, operation="Firehose_20150804.DescribeDeliveryStream"):
        result = probe(f"firehose://s?endpoint=http://127.0.0.1:{engine.port}")

    assert 0 == result.exit_code, result.output
    assert said in rows(result)["it is read back"].detail


@pytest.mark.parametrize(
    ("told", "place"),
    [
        (
            {
                "DestinationId": "1",
                "S3DestinationDescription": {},
                "ExtendedS3DestinationDescription": {
                    "BucketARN": "arn:aws:s3:::lake", "Prefix": "raw/", "BufferingHints": {"IntervalInSeconds": 300},
                },
            },
            "s3://lake/raw/ within 300 s",
        ),
        ({"DestinationId": "1", "SplunkDestinationDescription": {"HECEndpoint": "x"}}, "Splunk"),
        ({"DestinationId": "1"}, "an unnamed place"),
    ],
)  # fmt: skip
def test_a_destination_of_firehose_is_told_as_people_know_it(told: dict[str, object], place: str) -> None:
    """A bucket with its prefix is where they will look."""
    assert place == firehose_probe._place_of(told)


@pytest.mark.parametrize("fifo", [False, True])
def test_nothing_is_received_from_a_queue(fifo: bool) -> None:
    """Whoever receives hides messages, which may be others', and brings them nearer to the dead-letter queue."""
    moto = started_moto()
    queue = moto.queue(fifo=fifo)
    result = probe(f"sqs://{queue.name}?endpoint=http://127.0.0.1:{moto.port}")

    assert 0 == result.exit_code, result.output
    assert ["ok", "skipped", "skipped"] == results(result)[3:]
    told = sdk.client("sqs", moto.port).receive_message(QueueUrl=queue.url, MessageSystemAttributeNames=["All"])
    (message,) = told["Messages"]
    assert "1" == message["Attributes"]["ApproximateReceiveCount"]
    assert "collector-probe" == message["Attributes"]["MessageGroupId"]
    assert "it stays in the queue until a consumer takes it" in result.stdout.splitlines()[0]


# -- what goes wrong ---------------------------------------------------------------------------------------

ENGINES = ["kinesis://s", "firehose://s", "sqs://s", "s3://bucket/a"]


@pytest.mark.parametrize("place", ENGINES)
@pytest.mark.parametrize(
    ("fault", "said"),
    [
        (Refusal(403, "AccessDenied"), "let Collector's role do that there"),
        (Refusal(400, "ResourceNotFoundException"), "create the stream, or name another one or its region"),
        (Refusal(404, "NoSuchBucket"), "create the bucket, or name another one"),
        (Refusal(400, "ThrottlingException"), "AWS asks for a slower pace"),
        (Refusal(500, "InternalFailure"), "may be there all the same"),
        (Line.REPLY_LOST, "may be there all the same"),
    ],
)
def test_what_the_sink_is_told_a_person_is_told(place: str, fault: Fault, said: str) -> None:
    """With the same words as in the log, and what can be done."""
    with Engine() as engine, engine.fault(fault):
        result = probe(f"{place}?endpoint=http://127.0.0.1:{engine.port}")

    assert 1 == result.exit_code
    assert ["ok", "failed", "skipped", "skipped"] == results(result)[2:]
    assert said in result.stderr
    assert "the batch is kept" not in result.output


@pytest.mark.parametrize("place", ENGINES)
def test_a_sink_that_hangs_ends_the_probe_by_its_own_timeouts(place: str, monkeypatch: pytest.MonkeyPatch) -> None:
    """A person waits for seconds, and then knows."""
    monkeypatch.setattr(aws, "_READ_S", 0.3)
    with Engine() as engine, engine.fault(Line.HANG):
        result = probe(f"{place}?endpoint=http://127.0.0.1:{engine.port}")

    assert 1 == result.exit_code
    assert "failed" == rows(result)["an event is written"].result
    assert "Read timeout" in result.stderr
    assert "may be there all the same" in result.stderr


@pytest.mark.parametrize("place", ENGINES)
def test_a_clock_that_is_wrong_is_told(place: str) -> None:
    """It is the first thing that a new machine gets wrong, and looks like a wrong key."""
    with Engine() as engine:
        engine.clock_ahead_s = 3600.0
        result = probe(f"{place}?endpoint=http://127.0.0.1:{engine.port}")

    assert 1 == result.exit_code
    assert "clock" in result.stderr


def test_without_credentials_nothing_is_tried(monkeypatch: pytest.MonkeyPatch) -> None:
    """And which step it was is told."""
    monkeypatch.delenv("AWS_ACCESS_KEY_ID")
    monkeypatch.delenv("AWS_SECRET_ACCESS_KEY")
    with Engine() as engine:
        result = probe(f"s3://bucket/a?endpoint=http://127.0.0.1:{engine.port}")

        assert 1 == result.exit_code
        assert ["ok", "failed", "skipped", "skipped", "skipped", "skipped"] == results(result)
        assert "boto3's default chain finds no credentials here" in result.stderr
        assert not engine.calls


def test_an_account_that_nobody_tells_holds_up_nothing(monkeypatch: pytest.MonkeyPatch) -> None:
    """A task may reach its sink and nothing else."""
    monkeypatch.setenv("AWS_ENDPOINT_URL_STS", "http://127.0.0.1:9")
    with Engine() as engine:
        result = probe(f"sqs://q?endpoint=http://127.0.0.1:{engine.port}")

    assert 0 == result.exit_code, result.output
    assert "can't be told" == rows(result)["credentials"].result
    assert "from env, for ever; whose they are could not be asked: sts:" in rows(result)["credentials"].detail


def test_a_role_is_taken_on_and_told_with_its_account(sts: Sts) -> None:
    """It is the role that may write, or may not."""
    with Engine() as engine:
        result = probe(f"kinesis://s?endpoint=http://127.0.0.1:{engine.port}&assume_role={ROLE}&tenant=acme")

        assert 0 == result.exit_code, result.output
        assert f"which take on {ROLE}; account {ROLE_ACCOUNT}" in rows(result)["credentials"].detail
        assert all(key.startswith("SESSION-") for key in engine.signed)
    assert all("acme" == session["Tags.member.1.Value"] for session in sts.sessions)


def test_a_role_that_is_refused_fails_the_probe(sts: Sts) -> None:
    """With what STS says."""
    sts.refusal = ("AccessDenied", "User is not authorized to perform: sts:AssumeRole")
    with Engine() as engine:
        result = probe(f"s3://bucket/a?endpoint=http://127.0.0.1:{engine.port}&assume_role={ROLE}")

    assert 1 == result.exit_code
    assert "failed" == rows(result)["credentials"].result
    assert "can't take on the role: sts: assume_role" in result.stderr


def test_a_role_for_one_tenant_is_probed_as_that_tenant() -> None:
    """Its policy refuses the tenant of probes, and nothing is wrong with that."""
    with Engine() as engine:
        url = f"s3://bucket/a?endpoint=http://127.0.0.1:{engine.port}&assume_role={ROLE}&tenant=acme"
        with engine.fault(Refusal(403, "AccessDenied")):
            refused, as_told = probe(url), probe(url, "--tenant", "acme")
        probe(url, "--tenant", "acme")

        assert "if the role is only for its tenant, probe with --tenant acme" in refused.stderr
        assert "--tenant" not in as_told.stderr
        assert ["a/tenant=acme"] == [one.key.split("/date")[0] for one in engine.taken]


def test_a_queue_that_refuses_the_message_alone_fails_the_probe(monkeypatch: pytest.MonkeyPatch) -> None:
    """The call is a success then, and what is wrong stands in its rows."""
    monkeypatch.setattr(sqs, "_SENDABLE", b"")
    with Engine() as engine:
        result = probe(f"sqs://q?endpoint=http://127.0.0.1:{engine.port}")

    assert 1 == result.exit_code
    assert "InvalidMessageContents" in result.stderr


def test_a_record_that_may_have_been_taken_is_told_as_that() -> None:
    """The call is a success then, too, and the event may turn up."""
    with Engine() as engine, engine.fault(Some(Failure("InternalFailure"), every(1))):
        result = probe(f"kinesis://s?endpoint=http://127.0.0.1:{engine.port}")

    assert 1 == result.exit_code
    assert "InternalFailure: A sentence of theirs.; the event" in result.stderr
    assert "may be there all the same" in result.stderr


def test_nothing_that_is_secret_is_told() -> None:
    """It is read over a shoulder, and pasted into a ticket."""
    with Engine() as engine, engine.fault(Refusal(403, "AccessDenied")):
        result = probe(f"s3://bucket/a?endpoint=http://127.0.0.1:{engine.port}")

    assert not any(secret in result.output for secret in (sdk.ACCESS_KEY, sdk.SECRET_KEY))
