"""
What an answer of HEC means for the lines that were sent.

The codes are of Splunk's documentation ("Troubleshoot HTTP Event Collector" and the REST reference); what a refusal in
the middle of a batch means, and that Cloud refuses too large a body with code 6, was observed by others on Enterprise
10.4 and Cloud 10.5.
"""

from __future__ import annotations

from enum import StrEnum
from typing import Any

import msgspec

#: How much of an answer is looked at; HEC's are under 200 bytes.
MAX_ANSWER_BYTES = 64 << 10
#: How much of what HEC says is told on.
_MOST_TEXT = 160
#: A number that was written as text is none if it is longer: it fits into 64 bits.
_MOST_DIGITS = 18


class Verdict(StrEnum):
    """What is to be done."""

    TAKEN = "taken"
    #: None of it was taken: send it again, later.
    AGAIN = "again"
    #: Nobody knows: send it again, later, and it may be there twice.
    DOUBT = "doubt"
    #: Nothing gets through until a human has changed something.
    HELD = "held"
    #: One line of it is refused, those before it were taken, and those after it not.
    CUT = "cut"
    #: It is too large, or something in it is refused and nobody says what.
    SPLIT = "split"


class Answer(msgspec.Struct, frozen=True):
    """An answer as it came: the HTTP status, the body, and seconds of Retry-After, None without or if they are odd."""

    status: int
    body: bytes
    retry_after_s: float | None = None


class Reading(msgspec.Struct, frozen=True):
    """
    What an answer means.

    `at` is the place of the refused line in the batch, from 0, for CUT alone. `in_doubt`: lines of a batch that was not
    taken may have arrived all the same. `code` is HEC's own, where nothing was taken.
    """

    verdict: Verdict
    cause: str
    at: int = 0
    in_doubt: bool = False
    ack_id: int | None = None
    code: int | None = None
    is_near_capacity: bool = False


class _Body(msgspec.Struct):
    # Of any type each, or an odd one of them would hide the others.
    text: Any = ""
    code: Any = None
    at: Any = msgspec.field(default=None, name="invalid-event-number")
    ack_id: Any = msgspec.field(default=None, name="ackId")


_TAKEN = frozenset({0, 24, 25})
_NEAR_CAPACITY = frozenset({24, 25})
_BAD_EVENT = frozenset({5, 6, 12, 13, 15})
#: The token, its scheme, its channel, its acks, the index: nothing that another try would mend.
_CONFIGURATION = frozenset({1, 2, 3, 4, 7, 10, 11, 14, 16, 21, 22, 28})
_BUSY = frozenset({9, 18, 19, 20, 23, 26, 27})
_INTERNAL = 8
ACK_IS_DISABLED = 14
_INVALID_FORMAT = 6

_BY_STATUS: dict[int, Verdict] = {
    404: Verdict.AGAIN,  # Splunk Cloud does that for moments of its maintenance
    408: Verdict.DOUBT,
    413: Verdict.SPLIT,
    429: Verdict.AGAIN,
    501: Verdict.HELD,
    503: Verdict.AGAIN,
}


def read(answer: Answer, lines: int) -> Reading:
    """Say what an answer to a batch of so many lines means."""
    body = _decode(answer.body)
    code, at = _number(body.code), _number(body.at)
    said = _words(answer, body.text, code)
    verdict = _verdict(answer.status, code)
    if verdict is Verdict.CUT:
        if at is None or at >= lines:
            # Those before it are indexed all the same, wherever that is.
            return Reading(Verdict.SPLIT, said, in_doubt=True)
        if at == 0 and code == _INVALID_FORMAT:
            # Too large a body is told in the same words.
            return Reading(Verdict.SPLIT, said)
        return Reading(verdict, said, at=at)
    if verdict is Verdict.TAKEN:
        return Reading(verdict, said, ack_id=_number(body.ack_id), is_near_capacity=code in _NEAR_CAPACITY)
    return Reading(verdict, said, in_doubt=verdict is Verdict.DOUBT, code=code)


def _verdict(status: int, code: int | None) -> Verdict:
    if 200 <= status < 300:
        # A 200 without HEC's code is somebody else's: of a proxy, or of a load balancer.
        return Verdict.TAKEN if code in _TAKEN else Verdict.DOUBT
    if code in _BUSY:
        return Verdict.AGAIN
    if status >= 500:
        return Verdict.DOUBT if code == _INTERNAL else _BY_STATUS.get(status, Verdict.DOUBT)
    if code in _CONFIGURATION:
        return Verdict.HELD
    if status == 400 and code in _BAD_EVENT:
        return Verdict.CUT
    return _BY_STATUS.get(status, Verdict.HELD)


def _decode(data: bytes) -> _Body:
    try:
        return msgspec.json.decode(data[:MAX_ANSWER_BYTES].decode("utf-8", "replace"), type=_Body)
    except (msgspec.DecodeError, RecursionError):
        return _Body()


def _number(value: object) -> int | None:
    """Return a whole number from 0 on, as text too, as some receivers write them; None for all else."""
    if isinstance(value, str) and value.isascii() and value.isdigit() and len(value) <= _MOST_DIGITS:
        return int(value)
    return value if isinstance(value, int) and not isinstance(value, bool) and value >= 0 else None


def _words(answer: Answer, text: object, code: int | None) -> str:
    if code is not None:
        return f"{answer.status}: {text[:_MOST_TEXT] if isinstance(text, str) else ''} (code {code})"
    if 300 <= answer.status < 400:
        return f"{answer.status}: a redirection, which is not followed; write the URL that it leads to"
    return f"{answer.status}, and no answer of HEC's"
