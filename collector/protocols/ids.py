"""
Find the ids that devices gave their events.

An event's id is the first usable of "id", "event_id", "messageId", "insert_id", "uuid" at its top level: a string of 1
to 512 bytes as sent, or an integer, which becomes a string. Nothing else of an event is looked at.
"""

from __future__ import annotations

import operator
import re
from collections.abc import Iterable, Sequence
from typing import cast

import msgspec
from msgspec import UNSET, Raw, UnsetType

from collector.protocols import split

#: An id is copied into every line, and indexed by whoever reads it. Guess; UUIDs have 36.
MAX_ID_BYTES = 512

#: An id's token has its quotes.
_MAX_TOKEN_BYTES, _NO_TEXT = MAX_ID_BYTES + 2, b'""'
_QUOTE = ord(b'"')
_INTEGER = re.compile(rb"-?[0-9]+")


class Head(msgspec.Struct, gc=False):
    """What Collector reads of an event: the raw values of its possible ids, in the order of preference."""

    id: Raw | UnsetType = UNSET
    event_id: Raw | UnsetType = UNSET
    messageId: Raw | UnsetType = UNSET  # noqa: N815 (a key of the wire)
    insert_id: Raw | UnsetType = UNSET
    uuid: Raw | UnsetType = UNSET


HEADS = msgspec.json.Decoder(list[Head])
_HEAD = msgspec.json.Decoder(Head)
_PLACES = tuple(map(operator.attrgetter, Head.__struct_fields__))
_KEYS = tuple(f'"{name}"'.encode() for name in Head.__struct_fields__)


def tokens_of(heads: Sequence[Head]) -> list[bytes | None]:
    """
    Find the ids of events, as JSON strings; None for those without.

    Devices put their ids in the same place in all events of an upload, so this goes by place first.
    """
    for place in _PLACES:
        values = list(map(place, heads))
        if UNSET not in values:
            # No value of JSON has a NUL in it.
            joined = b"\0".join(values)
            tokens = joined.split(b"\0")
            are_texts = joined[0] == _QUOTE and joined.count(b'\0"') == len(tokens) - 1
            if are_texts and max(map(len, tokens)) <= _MAX_TOKEN_BYTES and _NO_TEXT not in tokens:
                return cast("list[bytes | None]", tokens)
            return list(map(_token, heads))
        if values.count(UNSET) < len(values):
            return list(map(_token, heads))
    return [None] * len(heads)


def token_of(element: bytes) -> bytes | None:
    """Find the id of one sound event, as a JSON string."""
    try:
        return _token(_HEAD.decode(element))
    except (msgspec.DecodeError, RecursionError):
        # Lone surrogates, or a level short of too deep: the element is sound, but msgspec won't read it.
        fields = dict(split.members(element))
        return _usable(fields[key] for key in _KEYS if key in fields)


def _token(head: Head) -> bytes | None:
    return _usable(bytes(value) for place in _PLACES if (value := place(head)) is not UNSET)


def _usable(values: Iterable[bytes]) -> bytes | None:
    """Return the first value that can be an id, as a JSON string."""
    for value in values:
        if value[0] == _QUOTE:
            if len(value) <= _MAX_TOKEN_BYTES and value != _NO_TEXT:
                return value
        elif len(value) <= MAX_ID_BYTES and _INTEGER.fullmatch(value):
            return b'"%s"' % value
    return None
