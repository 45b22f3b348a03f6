"""
What HEC says: its codes, and which events of a body it takes.

After Splunk's "Troubleshoot HTTP Event Collector" and its REST reference for the codes and their statuses, and after
public runs against Splunk Enterprise 10.4 and Cloud 10.5 for what happens to the events around a bad one.
"""

from __future__ import annotations

import json
import re
from collections.abc import Iterator
from typing import Any, NoReturn

import msgspec

#: HEC's own number of each answer: the HTTP status that it comes with, and its text. 24 to 27 have no text of
#: Splunk's that is known; theirs are ours.
CODES: dict[int, tuple[int, str]] = {
    0: (200, "Success"),
    1: (403, "Token disabled"),
    2: (401, "Token is required"),
    3: (401, "Invalid authorization"),
    4: (403, "Invalid token"),
    5: (400, "No data"),
    6: (400, "Invalid data format"),
    7: (400, "Incorrect index"),
    8: (500, "Internal server error"),
    9: (503, "Server is busy"),
    10: (400, "Data channel is missing"),
    11: (400, "Invalid data channel"),
    12: (400, "Event field is required"),
    13: (400, "Event field cannot be blank"),
    14: (400, "ACK is disabled"),
    15: (400, "Error in handling indexed fields"),
    16: (400, "Query string authorization is not enabled"),
    17: (200, "HEC is healthy"),
    18: (503, "HEC is unhealthy, queues are full"),
    19: (503, "HEC is unhealthy, ack service unavailable"),
    20: (503, "HEC is unhealthy, queues are full, ack service unavailable"),
    21: (400, "Invalid token"),
    22: (400, "Token is disabled"),
    23: (503, "Server is shutting down"),
    24: (200, "Queue capacity is nearly reached"),
    25: (200, "Ack capacity is nearly reached"),
    26: (429, "Queue is at capacity"),
    27: (429, "Ack channel is at capacity"),
}

_BLANK = re.compile(r"[ \t\r\n]*")


class Indexed(msgspec.Struct, frozen=True):
    """One event that HEC took. `line` is its `event`, byte for byte: an object, or a string with its quotes."""

    line: bytes
    time: float | str | None = None
    host: str | None = None
    source: str | None = None
    sourcetype: str | None = None
    index: str | None = None
    fields: dict[str, Any] | None = None


class Taken(msgspec.Struct, frozen=True):
    """What became of a body: the events that are indexed, the answer's code, and the number of the event it blames."""

    events: list[Indexed]
    code: int = 0
    invalid_event_number: int | None = None


class _Envelope(msgspec.Struct, forbid_unknown_fields=True):
    """An envelope all of whose keys HEC knows."""

    event: msgspec.Raw
    time: float | str | None = None
    host: str | None = None
    source: str | None = None
    sourcetype: str | None = None
    index: str | None = None
    fields: dict[str, Any] | None = None


class _Refused(Exception):
    """An event is refused with a code of HEC's."""

    def __init__(self, code: int) -> None:
        super().__init__(code)
        self.code = code


class _Passed(Exception):
    """An object is passed over without a word; `rest`: and so is all that follows it."""

    def __init__(self, *, rest: bool) -> None:
        super().__init__(rest)
        self.rest = rest


_KNOWN = frozenset(_Envelope.__struct_fields__)
_decoder = msgspec.json.Decoder(_Envelope)


def take(body: bytes, indexes: frozenset[str] | None = None) -> Taken:
    """
    Read a body of concatenated envelopes, or an array of them, as HEC does.

    Events before a bad one are indexed, it and those after it are not, and the answer has its number, from 0; of an
    index that the token may not write to (`indexes`, None for any) it has the next one's. An envelope with a key that
    HEC does not know ends the body with a success and without a word, and one with `fields` alone is passed over.
    """
    try:
        # All good, which is usual: one pass in C. What it does not like is looked at one by one.
        envelopes = _decoder.decode_lines(body)
        events = [_checked(one, indexes) for one in envelopes]
    except (msgspec.MsgspecError, UnicodeDecodeError, RecursionError, _Refused):
        pass
    else:
        return Taken(events) if events else Taken([], 5)
    return _one_by_one(body, indexes)


def _one_by_one(body: bytes, indexes: frozenset[str] | None) -> Taken:
    events: list[Indexed] = []
    number = 0
    try:
        for envelope in _envelopes(body):
            try:
                events.append(_checked(_known(envelope), indexes))
            except _Passed as passed:
                if passed.rest:
                    return Taken(events)
            number += 1
    except _Refused as refused:
        return Taken(events, refused.code, number + 1 if refused.code == 7 else number)
    return Taken(events) if number else Taken([], 5)


def _checked(envelope: _Envelope, indexes: frozenset[str] | None) -> Indexed:
    event = bytes(envelope.event)
    if event == b"null":
        raise _Refused(12)
    if event.startswith(b'"') and not msgspec.json.decode(event).strip():
        raise _Refused(13)
    if envelope.fields is not None and any(_is_nested(value) for value in envelope.fields.values()):
        raise _Refused(15)
    if isinstance(envelope.time, str) and not _is_number(envelope.time):
        raise _Refused(6)
    if envelope.index is not None and indexes is not None and envelope.index not in indexes:
        raise _Refused(7)
    return Indexed(
        event, envelope.time, envelope.host, envelope.source, envelope.sourcetype, envelope.index, envelope.fields
    )


def _known(text: str) -> _Envelope:
    """Read one envelope, and say what is wrong with one that is none."""
    try:
        envelope = msgspec.json.decode(text)
        if not isinstance(envelope, dict):
            raise _Refused(6)
        if "event" not in envelope:
            # Fields alone are what a metric is made of; an object of neither is refused.
            raise _Passed(rest=False) if "fields" in envelope else _Refused(12)
        if not envelope.keys() <= _KNOWN:
            raise _Passed(rest=True)
        if not isinstance(envelope.get("fields", {}), dict):
            raise _Refused(15)
        return _decoder.decode(text)
    except (msgspec.MsgspecError, UnicodeError, RecursionError):
        raise _Refused(6) from None


def _envelopes(body: bytes) -> Iterator[str]:
    """Yield the text of each value of the body, or of an array that is one of them; raises `_Refused`."""
    try:
        text, is_whole = body.decode(), True
    except UnicodeDecodeError as error:
        text, is_whole = body[: error.start].decode(), False
    at = _after_blank(text, 0)
    while at < len(text):
        is_array = text[at] == "["
        if is_array:
            at = _after_blank(text, at + 1)
        while not is_array or text[at : at + 1] != "]":
            end = _end_of_value(text, at)
            yield text[at:end]
            at = _after_blank(text, end)
            if not is_array:
                break
            if text[at : at + 1] == ",":
                at = _after_blank(text, at + 1)
            elif text[at : at + 1] != "]":
                raise _Refused(6)
        else:
            at = _after_blank(text, at + 1)
    if not is_whole:
        raise _Refused(6)


def _after_blank(text: str, at: int) -> int:
    found = _BLANK.match(text, at)
    return found.end() if found else at


def _no_constant(_name: str) -> NoReturn:
    raise ValueError("NaN and Infinity are not JSON")


_scanner = json.JSONDecoder(parse_constant=_no_constant)


def _end_of_value(text: str, at: int) -> int:
    try:
        return _scanner.raw_decode(text, at)[1]
    except (ValueError, RecursionError):
        raise _Refused(6) from None


def _is_nested(value: object) -> bool:
    """Tell whether a field is neither a scalar nor a list of scalars, which is a field of several values."""
    items = value if isinstance(value, list) else [value]
    return any(isinstance(item, list | dict) for item in items)


def _is_number(text: str) -> bool:
    try:
        float(text)
    except ValueError:
        return False
    return True
