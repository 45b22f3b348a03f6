"""
The sinks that the contract suite runs over, each before a destination of its own.

A new sink adds a `Case` to `CASES`: how to make it, how to read back what its destination holds, and how to make that
refuse. Those before servers that need more than Python packages are run by tests/system/test_sinks.py.
"""

from __future__ import annotations

import itertools
import os
import resource
from collections.abc import Callable, Iterator
from contextlib import AbstractContextManager, contextmanager
from dataclasses import dataclass
from functools import partial
from pathlib import Path

import pytest
import zstandard

from collector.sinks.base import Sink
from collector.sinks.registry import open_sink
from collector.sinks.stdout import StdoutSink
from tests.fakes import ScriptedSink
from tests.standins.engine import Engine
from tests.standins.kinesalite import Kinesalite
from tests.standins.moto import Moto
from tests.standins.relay import Relay, Way
from tests.standins.sdk import ENVIRON
from tests.standins.shared import started_moto, started_seaweed


@dataclass(frozen=True)
class Case:
    """
    One sink before a real destination.

    `read_back` returns the lines there, without newlines. Inside of `refusing` the destination takes nothing.
    `repeats_replace` says that a batch written again leaves its lines once, `is_text` that a line must be some.
    """

    sink: Sink
    read_back: Callable[[], list[bytes]]
    refusing: Callable[[], AbstractContextManager[None]]
    repeats_replace: bool
    is_text: bool = False


@contextmanager
def no_file_may_grow() -> Iterator[None]:
    """Let the kernel refuse this process every byte it would add to a file: the write fails with EFBIG."""
    soft, hard = resource.getrlimit(resource.RLIMIT_FSIZE)
    resource.setrlimit(resource.RLIMIT_FSIZE, (0, hard))
    try:
        yield
    finally:
        resource.setrlimit(resource.RLIMIT_FSIZE, (soft, hard))


def file_case(directory: Path, options: str = "") -> Iterator[Case]:
    def read_back() -> list[bytes]:
        objects = sorted(directory.rglob("*.ndjson.zst"))
        return [
            line
            for path in objects
            for line in zstandard.ZstdDecompressor()
            .decompress(path.read_bytes(), allow_extra_data=False)
            .split(b"\n")[:-1]
        ]

    sink = open_sink(f"file:{directory}{options}", writer_id="w1")
    yield Case(sink, read_back, no_file_may_grow, repeats_replace=True)


def stdout_case(directory: Path) -> Iterator[Case]:
    path = directory / "stdout"
    fd = os.open(path, os.O_WRONLY | os.O_CREAT | os.O_APPEND)
    yield Case(StdoutSink(fd), lambda: path.read_bytes().split(b"\n")[:-1], no_file_may_grow, repeats_replace=False)
    os.close(fd)


@contextmanager
def sdk_environment() -> Iterator[None]:
    """Let boto3 find credentials of no value, and nothing of this machine's own."""
    with pytest.MonkeyPatch.context() as patch:
        for name, value in ENVIRON.items():
            patch.setenv(name, value)
        yield


def s3_case(_: Path, options: str = "") -> Iterator[Case]:
    running = started_seaweed()
    with Relay(running.port) as relay, sdk_environment():
        bucket = running.bucket()

        def read_back() -> list[bytes]:
            return [
                line
                for _, frame in sorted(bucket.objects().items())
                for line in zstandard.ZstdDecompressor().decompress(frame, allow_extra_data=False).split(b"\n")[:-1]
            ]

        sink = open_sink(f"s3://{bucket.name}/a?endpoint=http://127.0.0.1:{relay.port}{options}", writer_id="w1")
        yield Case(sink, read_back, lambda: relay.goes(Way.REFUSED), repeats_replace=True)


def kinesis_case(_: Path) -> Iterator[Case]:
    yield from stream_case(started_moto())


def stream_case(running: Moto | Kinesalite, options: str = "") -> Iterator[Case]:
    """Before a Kinesis stream, whoever stands for AWS there."""
    # Of several shards nobody can tell which record came first.
    stream = running.stream(shards=1)

    def read_back() -> list[bytes]:
        return [line for record in stream.records() for line in record.data.split(b"\n")]

    yield from relayed_case(running.port, f"kinesis://{stream.name}", read_back, options=options)


def firehose_case(_: Path) -> Iterator[Case]:
    delivery = started_moto().delivery_stream()

    def read_back() -> list[bytes]:
        return [line for found in delivery.objects() for line in found.split(b"\n")[:-1]]

    yield from relayed_case(started_moto().port, f"firehose://{delivery.name}", read_back)


def sqs_case(_: Path, *, fifo: bool = False) -> Iterator[Case]:
    queue = started_moto().queue(fifo=fifo)

    def read_back() -> list[bytes]:
        return [line for message in queue.messages() for line in message.body.encode().split(b"\n")]

    port = started_moto().port
    yield from relayed_case(port, f"sqs://{queue.name}", read_back, repeats_replace=fifo, is_text=True)


def relayed_case(
    port: int,
    place: str,
    read_back: Callable[[], list[bytes]],
    *,
    options: str = "",
    repeats_replace: bool = False,
    is_text: bool = False,
) -> Iterator[Case]:
    with Relay(port) as relay, sdk_environment():
        sink = open_sink(f"{place}?endpoint=http://127.0.0.1:{relay.port}{options}", writer_id="w1")
        yield Case(sink, read_back, lambda: relay.goes(Way.REFUSED), repeats_replace, is_text)


def engine_case(_: Path, place: str, options: str = "") -> Iterator[Case]:
    """Before our own engine, which has every limit of AWS's."""
    with Engine() as engine, Relay(engine.port) as relay, sdk_environment():

        def read_back() -> list[bytes]:
            # Firehose ends each line, and the others part them.
            end = b"\n" if place.startswith("firehose:") else b""
            return [line for one in engine.taken for line in one.payload.removesuffix(end).split(b"\n")]

        sink = open_sink(f"{place}?endpoint=http://127.0.0.1:{relay.port}{options}", writer_id="w1")
        yield Case(
            sink, read_back, lambda: relay.goes(Way.REFUSED), repeats_replace=".fifo" in place, is_text="sqs:" in place
        )


def scripted_case(_: Path) -> Iterator[Case]:
    sink = ScriptedSink()

    @contextmanager
    def refusing() -> Iterator[None]:
        sink.fail()
        yield

    yield Case(sink, lambda: list(itertools.chain(*sink.objects.values())), refusing, repeats_replace=True)


CASES: dict[str, Callable[[Path], Iterator[Case]]] = {
    "file": file_case,
    "file by hour": partial(file_case, options="?by=hour"),
    "stdout": stdout_case,
    "s3": s3_case,
    "s3 by hour": partial(s3_case, options="&by=hour"),
    "kinesis": kinesis_case,
    "kinesis of our own": partial(engine_case, place="kinesis://stream"),
    # moto loses some of the records that come to a shard at once.
    "kinesis of our own, each event a record": partial(
        engine_case, place="kinesis://stream", options="&aggregate_kib=0"
    ),
    "firehose": firehose_case,
    "firehose of our own": partial(engine_case, place="firehose://stream"),
    "sqs": sqs_case,
    "sqs, fifo": partial(sqs_case, fifo=True),
    "sqs of our own": partial(engine_case, place="sqs://queue"),
    "sqs of our own, fifo": partial(engine_case, place="sqs://queue.fifo"),
    # The fake that all other tests stand on: it is a sink too.
    "scripted": scripted_case,
}
