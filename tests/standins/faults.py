"""
What goes wrong between Collector and AWS, each a small value: the engine beside this does it to the calls it is told.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from enum import Enum

#: Tells which records of a call are meant, by their place in it, from 0, and their payload.
Which = Callable[[int, bytes], bool]


def every(nth: int) -> Which:
    """Mean every `nth` record of a call."""
    return lambda place, _: (place + 1) % nth == 0


def holding(text: bytes) -> Which:
    """Mean the records that hold `text`, wherever they go: one poisoned event makes a poisoned record."""
    return lambda _, payload: text in payload


@dataclass(frozen=True)
class Failure:
    """Why one record of a call was not kept. `sender_fault` is what SQS says beside the code, and it alone."""

    code: str
    sender_fault: bool = False
    message: str = "A sentence of theirs."


@dataclass(frozen=True)
class Some:
    """
    Records of a call fail, and the others are kept; the call itself is a success.

    S3 has one object a call, and refuses that.
    """

    failure: Failure
    which: Which


@dataclass(frozen=True)
class Refusal:
    """
    The whole call fails, and nothing is kept.

    With a status of 200 it is an error in the body of a success. `code` is as the service's model has it; of SQS, boto3
    says the name that it had before.
    """

    status: int
    code: str
    message: str = "A sentence of theirs."


@dataclass(frozen=True)
class Page:
    """Something else is answered than an answer; `keeps` says whether the call had its effect."""

    status: int
    body: bytes
    content_type: str = "application/x-amz-json-1.1"
    keeps: bool = False


@dataclass(frozen=True)
class TooFew:
    """All records are kept, and the answer leaves out the last of them, so many."""

    missing: int = 1


class Line(Enum):
    """What becomes of the connection."""

    HANG = "no answer comes until it is released; a client that hangs up before has sent nothing"
    RESET_BEFORE_BODY = "it is reset when the head has come, and nothing is kept"
    RESET_AFTER_BODY = "it is reset when all has come, and nothing is kept"
    REPLY_LOST = "all is kept, and it is reset in the place of an answer"


Fault = Some | Refusal | Page | TooFew | Line

THROTTLED = Refusal(400, "ProvisionedThroughputExceededException", "Rate exceeded for stream x under account 1.")
BROKEN = Refusal(500, "InternalFailure")
DOWN = Refusal(503, "ServiceUnavailable")
ERROR_IN_200 = Refusal(200, "InternalFailure")
EMPTY = Page(200, b"")
NO_JSON = Page(200, b'{"FailedRecordCount": 0, "Rec')
PROXY_PAGE = Page(502, b"<html><body><h1>502 Bad Gateway</h1></body></html>", "text/html")
