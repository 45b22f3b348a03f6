"""The engine does to a call what it is told to, and boto3 sees what it would see of AWS."""

from __future__ import annotations

from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from typing import Any

import pytest
from botocore.exceptions import (
    ClientError,
)

from tests.server import wait_for
from tests.standins.engine import Engine, Taken
from tests.standins.faults import (
    BROKEN,
    DOWN,
    THROTTLED,
    Failure,
    Line,
    Refusal,
    Some,
    every,
    holding,
)
from tests.standins.sdk import client
from tests.standins.senders import SERVICES, kept, send


@pytest.fixture(name="engine")
def _engine() -> Iterator[Engine]:
    with Engine() as running:
        yield running


def failed(answer: Any) -> list[tuple[Any, ...]]:
    """Say what failed by itself: its place or its id, its code, and what SQS says beside."""
    if "Successful" in answer:
        return [(one["Id"], one["Code"], one["SenderFault"]) for one in answer.get("Failed", [])]
    rows = answer.get("Records", answer.get("RequestResponses"))
    found = [(place, row["ErrorCode"]) for place, row in enumerate(rows) if "ErrorCode" in row]
    assert answer.get("FailedRecordCount", answer.get("FailedPutCount")) == len(found)
    return found


def refused(engine: Engine, service: str, *payloads: bytes, access_key: str = "AKID") -> tuple[int, str]:
    """Send what must be refused as a whole; say with which status and code."""
    before = kept(engine)
    with pytest.raises(ClientError) as told:
        send(engine, service, *payloads, access_key=access_key)
    assert before == kept(engine)
    return told.value.response["ResponseMetadata"]["HTTPStatusCode"], told.value.response["Error"]["Code"]


# -- what is taken -----------------------------------------------------------------------------------------


def test_what_is_taken_is_kept_as_it_was_sent(engine: Engine) -> None:
    """Everything else is counted against this."""
    for service in SERVICES:
        send(engine, service, b"one") if service == "s3" else send(engine, service, b"one", b"two")

    assert [
        Taken("kinesis", "a", b"one", "k0", "", 1),
        Taken("kinesis", "a", b"two", "k1", "", 1),
        Taken("firehose", "a", b"one", "", "", 2),
        Taken("firehose", "a", b"two", "", "", 2),
        Taken("sqs", "a", b"one", "k0", "", 3),
        Taken("sqs", "a", b"two", "k1", "", 3),
        Taken("s3", "a", b"one", "k0", "", 4),
    ] == engine.taken
    assert {"PutRecords": 1, "PutRecordBatch": 1, "SendMessageBatch": 1, "PutObject": 1} == engine.calls


def test_calls_share_a_connection(engine: Engine) -> None:
    """A client that had to open one for each would be another than the one that runs."""
    boto = client("kinesis", engine.port)
    for _ in range(3):
        boto.put_records(StreamName="a", Records=[{"Data": b"1", "PartitionKey": "k"}])

    assert 3 == engine.calls["PutRecords"]
    assert 2 == len(engine._threads)
    boto.close()


def test_a_queue_is_found_by_its_name(engine: Engine) -> None:
    """Its URL has to lead back here, and nowhere else."""
    boto = client("sqs", engine.port)
    url = boto.get_queue_url(QueueName="a.fifo")["QueueUrl"]
    boto.send_message_batch(
        QueueUrl=url,
        Entries=[{"Id": "1", "MessageBody": "m", "MessageGroupId": "g", "MessageDeduplicationId": "d"}],
    )
    boto.close()

    assert [Taken("sqs", "a.fifo", b"m", "g", "d", 2)] == engine.taken


def test_an_object_is_not_written_over_where_that_is_asked(engine: Engine) -> None:
    """A repeat is told of with the status by which S3 tells of it."""
    boto = client("s3", engine.port)
    asked = {"Bucket": "b", "Key": "tief/ü n", "IfNoneMatch": "*"}
    boto.put_object(**asked, Body=b"one")
    with pytest.raises(ClientError, match="PreconditionFailed") as told:
        boto.put_object(**asked, Body=b"two")
    boto.close()

    assert 412 == told.value.response["ResponseMetadata"]["HTTPStatusCode"]
    assert [Taken("s3", "b", b"one", "tief/ü n", "", 1)] == engine.taken


def test_calls_that_are_under_way_at_once_are_counted(engine: Engine) -> None:
    """How a route lowers its concurrency shows here alone."""
    with ThreadPoolExecutor(max_workers=5) as threads, engine.fault(Line.HANG):
        for _ in range(5):
            threads.submit(send, engine, "kinesis", b"1")
        wait_for(lambda: 5 == engine.most_at_once, "five calls at once")
    send(engine, "kinesis", b"1")

    assert 5 == engine.most_at_once
    assert [b"1"] * 6 == kept(engine)


# -- some records ------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    "code", ["ProvisionedThroughputExceededException", "InternalFailure", "ServiceUnavailableException", "Unknown"]
)
@pytest.mark.parametrize("service", ["kinesis", "firehose"])
def test_some_records_fail_and_the_rest_is_kept(engine: Engine, service: str, code: str) -> None:
    """The call is a success: who looks at its status alone loses a third of them."""
    engine.script(Some(Failure(code), every(3)))
    answer = send(engine, service, *(b"%d" % number for number in range(7)))

    assert [(2, code), (5, code)] == failed(answer)
    assert [b"0", b"1", b"3", b"4", b"6"] == kept(engine)
    assert [] == failed(send(engine, service, b"2", b"5", b"-"))


@pytest.mark.parametrize("sender_fault", [True, False])
def test_some_entries_of_a_queue_fail_by_their_ids(engine: Engine, sender_fault: bool) -> None:
    """Whose fault it is decides whether they go again."""
    engine.script(Some(Failure("InternalError", sender_fault=sender_fault), every(2)))

    assert [("k1", "InternalError", sender_fault)] == failed(send(engine, "sqs", b"0", b"1", b"2"))
    assert [b"0", b"2"] == kept(engine)


def test_a_poisoned_record_fails_for_good_and_with_faults_beside_it(engine: Engine) -> None:
    """It fails however often it goes again, and whatever else happens."""
    with engine.fault(Some(Failure("Unknown"), holding(b"poison"))):
        engine.script(Some(Failure("InternalFailure"), every(1)), None)
        told = [failed(send(engine, "kinesis", b"a poisoned one", b"one")) for _ in range(3)]

    assert [[(0, "InternalFailure"), (1, "InternalFailure")], [(0, "Unknown")], [(0, "Unknown")]] == told
    assert [b"one", b"one"] == kept(engine)


# -- a whole call ------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("service", "fault", "code"),
    [
        ("kinesis", THROTTLED, "ProvisionedThroughputExceededException"),
        ("kinesis", BROKEN, "InternalFailure"),
        ("kinesis", Refusal(400, "ResourceNotFoundException"), "ResourceNotFoundException"),
        ("kinesis", Refusal(400, "InvalidSignatureException"), "InvalidSignatureException"),
        ("firehose", DOWN, "ServiceUnavailable"),
        ("firehose", Refusal(400, "LimitExceededException"), "LimitExceededException"),
        ("firehose", Refusal(413, "RequestEntityTooLargeException"), "RequestEntityTooLargeException"),
        ("sqs", Refusal(400, "ThrottlingException"), "ThrottlingException"),
        # In the names that they had before.
        ("sqs", Refusal(403, "AccessDeniedException"), "AccessDenied"),
        ("sqs", Refusal(400, "QueueDoesNotExist"), "AWS.SimpleQueueService.NonExistentQueue"),
        ("sqs", Refusal(400, "ExpiredTokenException"), "ExpiredToken"),
        ("s3", Refusal(503, "SlowDown"), "SlowDown"),
        ("s3", Refusal(400, "ExpiredToken"), "ExpiredToken"),
    ],
)
def test_a_call_is_refused_as_a_whole_and_the_next_is_not(
    engine: Engine, service: str, fault: Refusal, code: str
) -> None:
    """A script is as long as it is, whichever service is asked."""
    engine.script(fault, fault)

    assert [(fault.status, code)] * 2 == [refused(engine, service, b"1") for _ in range(2)]
    send(engine, service, b"1")
    assert [b"1"] == kept(engine)


def test_a_fault_lasts_as_long_as_its_block_and_meets_the_operation_it_is_for(engine: Engine) -> None:
    """A queue is looked for before it is written to: what is meant for the one must not meet the other."""
    boto = client("sqs", engine.port, attempts=1)
    with engine.fault(DOWN):
        assert [503] * 3 == [refused(engine, "sqs", b"1")[0] for _ in range(3)]
        boto.get_queue_url(QueueName="a")
    engine.script(Refusal(400, "QueueDoesNotExist"), operation="GetQueueUrl")
    send(engine, "sqs", b"1")
    with pytest.raises(boto.exceptions.QueueDoesNotExist):
        boto.get_queue_url(QueueName="a")
    boto.close()


@pytest.mark.parametrize(
    ("service", "code"),
    [
        ("kinesis", "ExpiredTokenException"),
        ("firehose", "ExpiredTokenException"),
        ("sqs", "ExpiredToken"),
        ("s3", "ExpiredToken"),
    ],
)
def test_credentials_expire_in_the_middle_until_others_sign(engine: Engine, service: str, code: str) -> None:
    """A client that keeps the old ones is refused for ever."""
    send(engine, service, b"0")
    engine.expire("AKID", after=1)
    send(engine, service, b"1")

    assert [(400, code)] * 2 == [refused(engine, service, b"2") for _ in range(2)]
    send(engine, service, b"2", access_key="AKIDOTHER")
    assert [b"0", b"1", b"2"] == kept(engine)


@pytest.mark.parametrize(
    ("service", "most_s", "said"),
    [
        ("kinesis", 300, (400, "InvalidSignatureException")),
        ("firehose", 300, (400, "InvalidSignatureException")),
        ("sqs", 300, (400, "SignatureDoesNotMatch")),
        ("s3", 900, (403, "RequestTimeTooSkewed")),
    ],
)
def test_a_clock_that_is_minutes_off_is_refused(
    engine: Engine, service: str, most_s: int, said: tuple[int, str]
) -> None:
    """In both directions; S3 is more patient than the others."""
    for ahead_s in (most_s + 60.0, -most_s - 60.0):
        engine.clock_ahead_s = ahead_s
        assert said == refused(engine, service, b"1")
    for ahead_s in (most_s - 60.0, 60.0 - most_s):
        engine.clock_ahead_s = ahead_s
        send(engine, service, b"1")
