"""What breaks between a client and the engine, and what is answered that is no answer."""

from __future__ import annotations

import threading
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor

import pytest
from botocore.exceptions import (
    BotoCoreError,
    ClientError,
    ConnectionClosedError,
    HTTPClientError,
    ReadTimeoutError,
)

from tests.server import wait_for
from tests.standins.engine import Engine
from tests.standins.faults import (
    EMPTY,
    ERROR_IN_200,
    NO_JSON,
    PROXY_PAGE,
    THROTTLED,
    Fault,
    Line,
    Page,
    Refusal,
    TooFew,
)
from tests.standins.senders import SERVICES, kept, send


@pytest.fixture(name="engine")
def _engine() -> Iterator[Engine]:
    with Engine() as running:
        yield running


# -- the connection ----------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("line", "payloads"), [(Line.RESET_BEFORE_BODY, []), (Line.RESET_AFTER_BODY, []), (Line.REPLY_LOST, [b"x" * 9_000])]
)
@pytest.mark.parametrize("service", SERVICES)
def test_a_connection_is_reset_with_and_without_its_call_having_an_effect(
    engine: Engine, service: str, line: Line, payloads: list[bytes]
) -> None:
    """The client sees the same of all three, and that is what makes it ambiguous."""
    engine.script(line)
    with pytest.raises((ConnectionClosedError, HTTPClientError), match=r"(?i)connection"):
        send(engine, service, b"x" * 9_000)

    assert payloads == kept(engine)
    send(engine, service, b"2")
    assert [*payloads, b"2"] == kept(engine)


@pytest.mark.parametrize("service", SERVICES)
def test_a_call_that_hangs_is_answered_when_it_is_released(engine: Engine, service: str) -> None:
    """A slow answer is no lost one."""
    engine.script(Line.HANG)
    with ThreadPoolExecutor() as threads:
        sending = threads.submit(send, engine, service, b"1")
        wait_for(engine.calls.total, "the call to come")
        assert [] == kept(engine)
        engine.release()
        assert sending.result()
    assert [b"1"] == kept(engine)


def test_a_call_that_hangs_is_nothing_when_its_client_gives_up(engine: Engine) -> None:
    """And the engine ends with calls that hang, or a test would never end."""
    with pytest.raises(ReadTimeoutError), engine.fault(Line.HANG):
        send(engine, "kinesis", b"1", read_s=0.3)
    assert [] == kept(engine)
    with ThreadPoolExecutor() as threads:
        with Engine() as other:
            other.script(Line.HANG)
            sending = threads.submit(send, other, "kinesis", b"1")
            wait_for(lambda: other.calls["PutRecords"], "the call to come")
        assert isinstance(sending.exception(), BotoCoreError)


def test_nothing_is_left_of_an_engine(engine: Engine) -> None:
    """A suite makes hundreds of them."""
    before = threading.active_count()
    with Engine() as other:
        send(other, "kinesis", b"1")
        assert before < threading.active_count()

    assert before == threading.active_count()
    with pytest.raises(BotoCoreError):
        send(other, "kinesis", b"1")


# -- answers that are none ---------------------------------------------------------------------------------


@pytest.mark.parametrize("service", SERVICES)
def test_a_success_may_have_an_error_for_its_body(engine: Engine, service: str) -> None:
    """None of its fields is there, and nothing is kept."""
    engine.script(ERROR_IN_200)
    try:
        answer = send(engine, service, b"1")
    except ClientError as error:
        # boto3 looks for it in some answers of S3's.
        assert service == "s3"
        answer = error.response

    assert not {"Records", "RequestResponses", "Successful", "ETag"} & set(answer)
    assert [] == kept(engine)


@pytest.mark.parametrize("service", ["kinesis", "firehose", "sqs"])
@pytest.mark.parametrize("fault", [EMPTY, NO_JSON, Page(200, b"{}", keeps=True), PROXY_PAGE])
def test_what_is_no_answer_says_nothing_of_the_records(engine: Engine, service: str, fault: Page) -> None:
    """A client that takes silence for consent has lost them."""
    engine.script(fault)
    try:
        answer = send(engine, service, b"1")
    except ClientError as error:
        answer = error.response

    assert fault.status == answer["ResponseMetadata"]["HTTPStatusCode"]
    assert not {"Records", "RequestResponses", "Successful"} & set(answer)
    assert [b"1"] * fault.keeps == kept(engine)


@pytest.mark.parametrize("service", ["kinesis", "firehose", "sqs"])
def test_an_answer_may_have_too_few_records(engine: Engine, service: str) -> None:
    """What it does not speak of is not known to have arrived, though here it has."""
    engine.script(TooFew(2))
    answer = send(engine, service, b"1", b"2", b"3")

    assert 1 == len(answer.get("Records") or answer.get("RequestResponses") or answer["Successful"])
    assert [b"1", b"2", b"3"] == kept(engine)


def test_a_fault_is_a_small_value() -> None:
    """A test is parametrised by them, and says which it was when it fails."""
    faults: list[Fault] = [THROTTLED, TooFew(), Line.HANG, EMPTY]

    assert 4 == len(set(faults))
    assert Refusal(400, "x") == Refusal(400, "x")
