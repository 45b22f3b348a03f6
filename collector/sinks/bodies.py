"""
The bodies of calls that carry many records, written by msgspec: botocore takes seven times as long for one (measured).

botocore is given the call with one record, and that empty, which it checks and renders. What it made of it is exchanged
for the whole, before anything is signed.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any, cast

import msgspec

from collector import aws

_WHOLE = "collector_body"


def quickly(connect: Callable[[], aws.Client], operation: str, *, rows: str, payload: str) -> Callable[[], aws.Client]:
    """
    Let the clients that `connect` makes write an operation's bodies so.

    The operation, as in `kinesis.PutRecords`, is of a service that speaks JSON; `rows` is the name of its records, and
    `payload` that of what is large in each.
    """

    def write(params: dict[str, Any], context: dict[str, Any], **_: object) -> None:
        context[_WHOLE] = msgspec.json.encode(params)
        first = params[rows][0]
        params[rows] = [{**first, payload: first[payload][:0]}]

    def exchange(params: dict[str, Any], context: dict[str, Any], **_: object) -> None:
        params["body"] = context.pop(_WHOLE)

    def made() -> aws.Client:
        client = connect()
        events = cast("Any", client).meta.events
        events.register(f"before-parameter-build.{operation}", write)
        events.register(f"before-call.{operation}", exchange)
        return client

    return made
