"""
CleverTap's rules for a record of its Upload API, with the codes of its documentation.

    509  an event without a name                    522  more than 256 properties
    512  not JSON, not an object, a part of the     523  no identity, FBID, GPID or objectId
         wrong type, a key or a value too long      524  neither an event nor a profile
    514  Gender    515  Email      516  Phone       525  `ts` is not an epoch in seconds
    517  Employed  518  Education  519  Married     526  `objectId` is not a text
    520  Age                                        555  an error on our side

`ts` may be left out; `null` counts as left out. A record may name a person in more than one way. The rules for
profiles refuse only what can't be meant: CleverTap documents the values, not what it tolerates. Nested values
(a `Charged` event has a list of items) obey the limits of keys and values, too.

What only the account's own configuration tells is not checked: 513 (a system event that may not be raised),
528 (an event that the account discards), the 512 types of event, and a number of properties set lower than 256.
Device tokens (`type` "token", 530-535) are not taken: they get 524.
"""

from __future__ import annotations

import re
from collections.abc import Callable

import msgspec
from msgspec import UNSET, Raw, UnsetType

from collector.protocols import split

MAX_KEY_CHARACTERS = 120
MAX_VALUE_BYTES = 512
MAX_PROPERTIES = 256

#: Seconds up to the year 5138; anything greater is milliseconds.
_MAX_EPOCH_S = 10**11

_INTEGER = re.compile(rb"-?[0-9]+")
_EMAIL = re.compile(r"[^@\s]+@[^@\s]+")
_PHONE = re.compile(r"\+?[0-9]{5,15}")  # E.164: at most 15 digits

Fault = tuple[int, str]
_Value = Raw | UnsetType


class _Record(msgspec.Struct, gc=False):
    type: _Value = UNSET
    evtName: _Value = UNSET  # noqa: N815 (a key of the wire, as those below)
    evtData: _Value = UNSET  # noqa: N815
    profileData: _Value = UNSET  # noqa: N815
    ts: _Value = UNSET
    identity: _Value = UNSET
    FBID: _Value = UNSET
    GPID: _Value = UNSET
    objectId: _Value = UNSET  # noqa: N815


_RECORD = msgspec.json.Decoder(_Record)
_PROPERTIES = msgspec.json.Decoder(dict[str, Raw])
_LIST = msgspec.json.Decoder(list[Raw])


def fault(record: bytes) -> Fault | None:
    """Say what CleverTap would refuse a sound JSON object for: a code and a sentence; None for nothing."""
    try:
        fields = _read(record)
        return _whose(fields) or _when(fields) or _what(fields)
    except RecursionError:
        return 512, "nested too deeply"


def is_timed(record: bytes) -> bool:
    """Tell whether a record without a fault says when it happened."""
    return bool(_given(_read(record).ts))


def _read(record: bytes) -> _Record:
    try:
        return _RECORD.decode(record)
    except msgspec.DecodeError:
        # Lone surrogates. The mask changes no type; of an escaped emoji it makes six bytes where there are four.
        return _RECORD.decode(split.masked(record))


def _whose(fields: _Record) -> Fault | None:
    object_id = _given(fields.objectId)
    if object_id and (object_id[:1] != b'"' or object_id == b'""'):
        return 526, "objectId must be a text that is not empty"
    for value in map(_given, (fields.identity, fields.FBID, fields.GPID, fields.objectId)):
        if (value[:1] == b'"' and value != b'""') or _INTEGER.fullmatch(value):
            return None
    return 523, "one of identity, FBID, GPID, objectId is needed"


def _when(fields: _Record) -> Fault | None:
    ts = _given(fields.ts)
    if ts and not (_INTEGER.fullmatch(ts) and len(ts) < 20 and 0 <= int(ts) < _MAX_EPOCH_S):
        return 525, "ts must be a UNIX epoch in whole seconds"
    return None


def _what(fields: _Record) -> Fault | None:
    kind = _given(fields.type)
    if kind == b'"profile"':
        return _profile_fault(_given(fields.profileData))
    if kind != b'"event"':
        return 524, 'type must be "event" or "profile"'
    name, data = _given(fields.evtName), _given(fields.evtData)
    if name in (b"", b'""'):
        return 509, "evtName is needed"
    if not name.startswith(b'"') or len(name) > MAX_VALUE_BYTES + 2:
        return 512, f"evtName must be a text of at most {MAX_VALUE_BYTES} bytes"
    if data and not data.startswith(b"{"):
        return 512, "evtData must be an object"
    return _properties_fault(data) if data else None


def _given(value: _Value) -> bytes:
    """Return a value's text; empty when it is missing or null."""
    text = b"" if value is UNSET else bytes(value)
    return b"" if text == b"null" else text


def _properties_fault(data: bytes) -> Fault | None:
    """Hold an object to the limits of keys and values, at every depth."""
    if (count := len(_PROPERTIES.decode(data))) > MAX_PROPERTIES:
        return 522, f"{count} properties; the limit is {MAX_PROPERTIES}"
    pending: list[bytes] = [data]
    while pending:
        value = pending.pop()
        if value.startswith(b"{"):
            inner = _PROPERTIES.decode(value)
            if inner and (longest := max(map(len, inner))) > MAX_KEY_CHARACTERS:
                return 512, f"a key of {longest:,} characters; the limit is {MAX_KEY_CHARACTERS}"
            pending += map(bytes, inner.values())
        elif value.startswith(b"["):
            pending += map(bytes, _LIST.decode(value))
        # An escape is never shorter than what it stands for.
        elif value.startswith(b'"') and len(value) > MAX_VALUE_BYTES + 2:
            size = len(msgspec.json.decode(value, type=str).encode())
            if size > MAX_VALUE_BYTES:
                return 512, f"a value of {size:,} bytes; the limit is {MAX_VALUE_BYTES}"
    return None


def _one_of(*words: str) -> Callable[[object], bool]:
    return lambda value: isinstance(value, str) and value.strip().lower() in words


def _yes_or_no(value: object) -> bool:
    return isinstance(value, bool) or _one_of("y", "n", "yes", "no")(value)


def _email(value: object) -> bool:
    return isinstance(value, str) and _EMAIL.fullmatch(value.strip()) is not None


def _phone(value: object) -> bool:
    """Documented as +<country code><number>; spaces, dots, dashes and parentheses do not count."""
    if isinstance(value, bool) or not isinstance(value, int | str):
        return False
    return _PHONE.fullmatch(re.sub(r"[ ().\-]", "", str(value))) is not None


def _age(value: object) -> bool:
    if isinstance(value, str) and value.isascii() and value.isdecimal() and len(value) < 4:
        value = int(value)
    return isinstance(value, int) and not isinstance(value, bool) and 0 < value < 150


_PROFILE_RULES: tuple[tuple[str, int, Callable[[object], bool], str], ...] = (
    ("Gender", 514, _one_of("m", "f", "o", "u", "male", "female", "other", "unknown"), "M or F"),
    ("Email", 515, _email, "an e-mail address"),
    ("Phone", 516, _phone, "+<country code><number>"),
    ("Employed", 517, _yes_or_no, "Y or N"),
    ("Education", 518, _one_of("school", "college", "graduate"), "School, College or Graduate"),
    ("Married", 519, _yes_or_no, "Y or N"),
    ("Age", 520, _age, "a number of years"),
)


def _profile_fault(data: bytes) -> Fault | None:
    """Judge profileData; empty means that it is missing."""
    if not data.startswith(b"{"):
        return 512, "profileData must be an object"
    properties = _PROPERTIES.decode(data)
    for key, code, good, wanted in _PROFILE_RULES:
        if text := _given(properties.get(key, UNSET)):
            try:
                value = msgspec.json.decode(text)
            except msgspec.DecodeError:  # a number that no float holds
                value = None
            if not good(value):
                return code, f"{key} must be {wanted}"
    return _properties_fault(data)
