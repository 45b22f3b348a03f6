"""
Collector's own protocol: `POST /v1/events`.

The body is one event (a JSON object), an array of events, `{"events": […]}`, or NDJSON. An object is the batch
form when it has a key "events" whose value is an array; its other keys are then not kept, so what all events
share belongs into each. An object whose "events" is something else is one event. Text is NDJSON when its
Content-Type says so (and it is not one array), or when its lines look like `{…}`; each line is then one event,
whatever its keys. A byte order mark is dropped.

An event's id is the first usable of "id", "event_id", "messageId", "insert_id", "uuid" at its top level:
a string of 1 to 512 bytes as sent, or an integer, which becomes a string. Without one, Collector makes a UUIDv7.

Events are kept as sent: unknown fields, duplicate keys, big numbers, unusual escapes. Only line breaks between
tokens become spaces. Each event is judged alone; positions in `rejected` count events as sent, from 0 (in
NDJSON, lines that are not blank). An upload of one event that is no JSON is refused as a whole, as is one in
which no event can be told from the next.
"""

from __future__ import annotations

import base64
import binascii
from collections.abc import Iterable, Sequence
from functools import lru_cache
from typing import cast
from urllib.parse import parse_qs

import msgspec
from msgspec import UNSET, Raw, UnsetType

from collector.errors import BadUpload
from collector.event import Event
from collector.outcome import Reason, Rejection, Verdict
from collector.protocols import split
from collector.protocols.base import (
    JSON_HEADERS,
    Credentials,
    Decoded,
    DecodeLimits,
    NewIds,
    Reply,
    Request,
    Result,
    refusal,
)
from collector.protocols.ids import HEADS, Head, token_of, tokens_of
from collector.tenant import Ack

NDJSON_TYPES = frozenset(
    {
        "application/x-ndjson",
        "application/ndjson",
        "application/jsonlines",
        "application/x-jsonlines",
        "application/jsonl",
    }
)
_BRACKET, _BRACE = b"[{"
_SPACES = b" \t\r\n"
_EMPTY = "the upload has no events"
_SHAPES = 'send a JSON object, an array of objects, {"events": [...]}, or NDJSON'


class _Object(Head, gc=False):
    """A whole body that is one JSON object: an event, or the batch form."""

    events: Raw | UnsetType = UNSET


class _Answer(msgspec.Struct):
    """What a device is told of an upload that was taken."""

    status: str
    accepted: int
    rejected: list[Rejection]
    ack: Ack
    receipt: str


_encode = msgspec.json.Encoder().encode
_OBJECT = msgspec.json.Decoder(_Object)


class Native:
    """The adapter of `POST /v1/events`."""

    name = "native"
    key_in_body = False
    #: Devices that give their events ids of their own may mean anything by them.
    dedupe_window_s = 0.0

    def credentials(self, request: Request, body: bytes | None = None) -> Credentials:  # noqa: ARG002 -- the one shape
        """
        Find the key: Bearer, Basic user name, X-Collector-Key, `?key=`; the first that is there.

        An Authorization header of another scheme, or one that does not decode, is passed over.
        """
        scheme, _, value = request.headers.get("authorization", "").partition(" ")
        value = value.strip()
        key: str | None = None
        if scheme.lower() == "bearer":
            key = value
        elif scheme.lower() == "basic":
            key = _basic_user(value)
        key = key or request.headers.get("x-collector-key", "").strip()
        if not key and "key=" in request.query:
            key = parse_qs(request.query).get("key", [""])[0]
        return Credentials(key=key or None)

    def decode(self, request: Request, body: bytes, limits: DecodeLimits, new_ids: NewIds) -> Decoded:
        """Split the inflated body into events; see `base.Protocol`."""
        text = body.removeprefix(b"\xef\xbb\xbf")
        declared = _is_ndjson(request.headers.get("content-type", ""))
        outline = text.strip(_SPACES)
        if not outline:
            raise BadUpload(Reason.MALFORMED, "the upload is empty", _SHAPES)
        try:
            if outline[0] == _BRACKET and (not declared or outline.endswith(b"]")):
                return self._array(text, limits, new_ids)
            if outline[0] == _BRACE and not declared:
                return self._object(text, limits, new_ids)
        except split.Unbalanced as error:
            if not declared:
                raise BadUpload(Reason.MALFORMED, f"the upload is not valid JSON: {error}", _SHAPES) from None
        if declared:
            return self._lines(text, limits, new_ids)
        raise BadUpload(Reason.MALFORMED, "the upload is not JSON that holds events", _SHAPES)

    def render(self, result: Result, decoded: Decoded) -> Reply:  # noqa: ARG002 -- the one shape
        """Answer 200 with what was accepted and, by index, what was not."""
        status = "partial" if result.rejected else "ok"
        answer = _Answer(status, result.accepted, result.rejected, result.ack, result.receipt)
        return Reply(200, JSON_HEADERS, _encode(answer))

    def refuse(self, verdict: Verdict, request: Request | None = None) -> Reply:  # noqa: ARG002 -- the one shape
        """Answer with the error object of the contract."""
        return refusal(verdict)

    def _array(self, text: bytes, limits: DecodeLimits, new_ids: NewIds) -> Decoded:
        """Decode an array: at once when all is well, else element by element."""
        try:
            split.check_utf8(text)
            bodies = split.raws(text, limits.max_events)
            heads = HEADS.decode(text)
        except (msgspec.DecodeError, RecursionError, UnicodeDecodeError):
            return _judge(split.elements(text, limits.max_events), limits, new_ids)
        if not bodies:
            raise BadUpload(Reason.MALFORMED, _EMPTY, _SHAPES)
        if len(text) > limits.max_event_bytes and max(map(len, bodies)) > limits.max_event_bytes:
            return _judge(list(map(bytes, bodies)), limits, new_ids)
        return _take(text, bodies, heads, new_ids)

    def _lines(self, text: bytes, limits: DecodeLimits, new_ids: NewIds) -> Decoded:
        """Decode lines: at once, as if they were an array, when all is well, else line by line."""
        lines = split.lines(text, limits.max_events)
        joined = b"[" + b",".join(lines) + b"]"
        try:
            split.check_utf8(joined)
            # Two events on one line, or one on two, would come out as an array, too.
            sound = lines == split.array(joined, limits.max_events)
            heads = HEADS.decode(joined) if sound else []
        except (msgspec.DecodeError, RecursionError, UnicodeDecodeError, BadUpload):
            sound = False
        if not sound or max(map(len, lines)) > limits.max_event_bytes:
            return _judge(lines, limits, new_ids)
        return _take(joined, lines, heads, new_ids)

    def _object(self, text: bytes, limits: DecodeLimits, new_ids: NewIds) -> Decoded:
        """Decode what begins like an object: the batch form, one event, or NDJSON that nobody declared."""
        try:
            whole = _OBJECT.decode(text)
        except (msgspec.DecodeError, RecursionError):
            if split.looks_like_lines(text):
                return self._lines(text, limits, new_ids)
            if events := split.array_under("events", text):
                return self._array(events, limits, new_ids)
            return _judge([_one(text)], limits, new_ids)
        if whole.events is not UNSET and (events := bytes(whole.events)).startswith(b"["):
            return self._array(events, limits, new_ids)
        event = _one(text)
        if len(event) > limits.max_event_bytes:
            return _judge([event], limits, new_ids)
        return _take(text, [event], [whole], new_ids)


# Devices of one kind send one Content-Type.
@lru_cache(maxsize=64)
def _is_ndjson(content_type: str) -> bool:
    return content_type.partition(";")[0].strip().lower() in NDJSON_TYPES


def _one(text: bytes) -> bytes:
    """Return the only event of an upload, without what is around it."""
    try:
        split.check_utf8(text)
    except UnicodeDecodeError as error:
        raise split.malformed(error) from None
    return text.strip(b" \t\r\n")


def _judge(elements: list[bytes], limits: DecodeLimits, new_ids: NewIds) -> Decoded:
    """Take the good elements, and say what is wrong with each of the others."""
    indexes: list[int] = []
    bodies: list[bytes] = []
    tokens: list[bytes | None] = []
    rejected: list[Rejection] = []
    for index, element in enumerate(elements):
        if flaw := split.flaw(element, limits.max_event_bytes):
            rejected.append(Rejection(index, *flaw))
            continue
        indexes.append(index)
        bodies.append(split.one_line(element))
        tokens.append(token_of(element))
    return Decoded(_events(indexes, bodies, tokens, new_ids), rejected)


def _take(text: bytes, bodies: Sequence[bytes], heads: Sequence[Head], new_ids: NewIds) -> Decoded:
    """Take all events of an upload in which all is well."""
    if b"\n" in text or b"\r" in text:
        bodies = [split.one_line(bytes(body)) for body in bodies]
    return Decoded(_events(range(len(bodies)), bodies, tokens_of(heads), new_ids), [])


def _events(
    indexes: Iterable[int], bodies: Sequence[bytes], tokens: list[bytes | None], new_ids: NewIds
) -> list[Event]:
    """Put events together, with new ids where there are none."""
    if missing := tokens.count(None):
        fresh = iter(new_ids(missing))
        return [
            Event(index, token, body) if token else Event(index, b'"%s"' % next(fresh).encode(), body, is_named=False)
            for index, token, body in zip(indexes, tokens, bodies, strict=True)
        ]
    return list(map(Event, indexes, cast("list[bytes]", tokens), bodies))


def _basic_user(value: str) -> str | None:
    """Return the user name of Basic credentials, or None when they do not decode."""
    try:
        user, colon, _ = base64.b64decode(value, validate=True).decode().partition(":")
    except (binascii.Error, ValueError):
        return None
    return user if colon else None
