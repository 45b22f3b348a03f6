"""Bodies that msgspec writes in botocore's place: they say the same, and are what is signed."""

from __future__ import annotations

import json
from collections.abc import Callable
from typing import Any, cast

import pytest
from botocore.auth import SigV4Auth
from botocore.awsrequest import AWSRequest
from botocore.credentials import Credentials

from collector import aws
from collector.sinks.bodies import quickly
from tests.standins.engine import Engine
from tests.standins.sdk import ACCESS_KEY, ENVIRON, REGION, SECRET_KEY

#: Everything that has to be written otherwise in JSON, or in base64.
DATA = [b'{"id":"1"}\n{"id":"2"}', "ü 🦩 \u2028 \\ \" ' <&>".encode(), b"", b"\x00\xff\x7f" * 7, b"\x00\xff" * 700]
TEXTS = ['{"id":"1"}\n\t{"id":"2"}', "ü 🦩 \u2028 \x85 \\ \" ' <&>", "x" * 5_000]
CALLS: dict[str, tuple[str, str, str, str, dict[str, Any]]] = {
    "kinesis": (
        "kinesis.PutRecords", "Records", "Data", "put_records",
        {"StreamName": "a", "Records": [{"Data": data, "PartitionKey": "ü/1"} for data in DATA]},
    ),
    "firehose": (
        "firehose.PutRecordBatch", "Records", "Data", "put_record_batch",
        {"DeliveryStreamName": "a", "Records": [{"Data": data} for data in DATA]},
    ),
    "sqs": (
        "sqs.SendMessageBatch", "Entries", "MessageBody", "send_message_batch",
        {"QueueUrl": "http://127.0.0.1:1/1/a.fifo", "Entries": [
            {"Id": str(n), "MessageBody": text, "MessageGroupId": "t1", "MessageDeduplicationId": "d"}
            for n, text in enumerate(TEXTS)
        ]},
    ),
}  # fmt: skip


@pytest.fixture(autouse=True)
def _environment(monkeypatch: pytest.MonkeyPatch) -> None:
    for name, value in ENVIRON.items():
        monkeypatch.setenv(name, value)


def sent(connect: Callable[[], aws.Client], method: str, arguments: dict[str, Any]) -> AWSRequest:
    """Make a call, and return it as it goes out."""
    found: list[AWSRequest] = []
    client = connect()
    cast("Any", client).meta.events.register("before-send", lambda request, **_: found.append(request))
    getattr(client, method)(**arguments)
    client.close()
    return found[0]


def text_of(request: AWSRequest, header: str) -> str:
    """Read a header; botocore has some as bytes."""
    value = request.headers[header]
    return value.decode() if isinstance(value, bytes) else str(value)


def signature_of(request: AWSRequest, service: str) -> str:
    """Sign a request anew, as it lies here."""
    _, _, signed = text_of(request, "Authorization").partition("SignedHeaders=")
    headers = {name: text_of(request, name) for name in signed.partition(",")[0].split(";") if name != "host"}
    again = AWSRequest("POST", request.url, headers, request.body)
    again.context["timestamp"] = text_of(request, "X-Amz-Date")
    auth = SigV4Auth(Credentials(ACCESS_KEY, SECRET_KEY), service, REGION)
    return str(auth.signature(auth.string_to_sign(again, auth.canonical_request(again)), again))


@pytest.mark.parametrize("service", CALLS)
def test_a_body_says_what_botocores_own_says_and_is_signed(service: str) -> None:
    """The stand-ins look at no signature, and at AWS a wrong one is the end of every call."""
    operation, rows, payload, method, arguments = CALLS[service]
    with Engine() as engine:

        def connect() -> aws.Client:
            return aws.client(service, endpoint=f"http://127.0.0.1:{engine.port}")

        theirs = sent(connect, method, arguments)
        ours = sent(quickly(connect, operation, rows=rows, payload=payload), method, arguments)

    for request in (theirs, ours):
        assert text_of(request, "Authorization").endswith(f"Signature={signature_of(request, service)}")
    assert theirs.body != ours.body
    assert json.loads(theirs.body) == json.loads(ours.body)
    assert str(len(ours.body)) == str(ours.headers["Content-Length"])
    assert {name.lower() for name in theirs.headers} == {name.lower() for name in ours.headers}


def test_calls_at_once_have_each_its_own_body() -> None:
    """A client is shared by all writes of its sink, and each waits in the middle of its call."""
    bodies: list[bytes] = []
    operation, rows, payload, method, _ = CALLS["kinesis"]

    def call(client: aws.Client, data: bytes) -> None:
        getattr(client, method)(StreamName="a", Records=[{"Data": data, "PartitionKey": "k"}])

    with Engine() as engine:
        client = quickly(
            lambda: aws.client("kinesis", endpoint=f"http://127.0.0.1:{engine.port}"),
            operation, rows=rows, payload=payload,
        )()  # fmt: skip
        events = cast("Any", client).meta.events

        def between(params: dict[str, Any], **_: object) -> None:
            # After one has written its body, and before it has exchanged it.
            if not bodies:
                bodies.append(b"")
                call(client, b"second")

        events.register_first(f"before-call.{operation}", between)
        call(client, b"first")
        client.close()

    assert [b"second", b"first"] == [one.payload for one in engine.taken]


def test_other_operations_are_left_alone() -> None:
    """To ask for a queue's URL is a call of the same client."""
    operation, rows, payload, _, _ = CALLS["sqs"]
    with Engine() as engine:
        request = sent(
            quickly(
                lambda: aws.client("sqs", endpoint=f"http://127.0.0.1:{engine.port}"),
                operation, rows=rows, payload=payload,
            ), "get_queue_url", {"QueueName": "a"},
        )  # fmt: skip

    assert {"QueueName": "a"} == json.loads(request.body)
