"""
Cut JSON text into elements without parsing them into objects.

The way of nearly all uploads is `array`: one call into msgspec, which checks every byte of syntax and hands
back slices. It knows no shades, though: it stops at the first mistake, refuses lone surrogate escapes (which
are valid JSON, and which JavaScript writes for a string cut within an emoji), and gives up at about a thousand
levels. Then `elements` finds where each element ends by counting brackets outside strings, so that the others
can be judged alone, with `flaw`.

msgspec does not look at UTF-8 within strings; whoever calls does, once for the whole upload. Empty bytes stand
for no element at all, as between two commas.
"""

from __future__ import annotations

import itertools
import re
from collections.abc import Iterator
from functools import lru_cache
from typing import Any

import msgspec
from msgspec import UNSET, Raw, UnsetType

from collector.errors import BadUpload
from collector.outcome import Reason

_RAW = msgspec.json.Decoder(Raw)
_RAWS = msgspec.json.Decoder(list[Raw])

#: Up to so many commas a text goes straight to msgspec: a slice takes 64 bytes, so 13 MiB at the very worst.
_SURE_COMMAS = 200_000
#: Counting brackets takes about 0.2 s a MiB at worst, during which the worker does nothing else.
MAX_COUNTED = 1 << 20

_LINE = re.compile(rb"[^ \t\r\n][^\n]*")
_SPACES = b" \t\r\n"
_GAP = re.compile(rb"[ \t\r\n,]*+")
_LINE_BREAKS = bytes.maketrans(b"\r\n", b"  ")

_STRING = rb'"[^"\\]*+(?:\\.[^"\\]*+)*+"'
_OPEN, _CLOSE = rb"[\[{]", rb"[\]}]"


def _gap(plain: bytes, levels: int) -> bytes:
    """
    A pattern of what lies between two brackets: `plain` bytes, strings, and brackets that close again.

    Stepping over `levels` of the latter in one match is a hundred times faster than counting them in Python.
    """
    closed = rb"|" + _OPEN + _gap(rb'[^"\[\]{}]', levels - 1) + _CLOSE if levels else b""
    return rb"(?:" + plain + rb"++|" + _STRING + closed + rb")*+"


# Up to the next thing that counts: among the elements a comma or one bracket, further in brackets alone.
_TOP = re.compile(_gap(rb'[^"\[\]{},]', 4) + rb"(,|" + _OPEN + rb"|" + _CLOSE + rb")", re.DOTALL)
_DEEP = re.compile(_gap(rb'[^"\[\]{}]', 4) + rb"(" + _OPEN + rb"++|" + _CLOSE + rb"++)", re.DOTALL)
_MEMBER = re.compile(rb"[ \t\r\n]*(" + _STRING + rb")[ \t\r\n]*:[ \t\r\n]*", re.DOTALL)


class Unbalanced(Exception):
    """Raised when brackets or quotes do not close, or close too early: no element can be told from the next."""


def check_utf8(text: bytes) -> None:
    """Raise UnicodeDecodeError for what is no UTF-8; msgspec does not look."""
    # Most is ASCII, and that is told without a copy.
    if not text.isascii():
        text.decode()


def array(text: bytes, most: int) -> list[bytes]:
    """Split a valid JSON array into copies of its elements; raises as `raws` does."""
    return list(map(bytes, raws(text, most)))


def raws(text: bytes, most: int) -> list[Raw]:
    """
    Split a valid JSON array without a copy: every element keeps all of `text` in memory.

    Raises what msgspec raises when it is not one (`msgspec.DecodeError`, `RecursionError`), and `BadUpload`
    when it has more than `most` elements; memory stays bounded in any case.
    """
    if len(text) <= 2 * _SURE_COMMAS or text.count(b",") <= _SURE_COMMAS:
        found = _RAWS.decode(text)
        if len(found) > most:
            raise too_many(len(found), most)
    else:
        slots = msgspec.structs.astuple(_slots(most + 1).decode(text))
        if slots[-1] is not UNSET:
            raise too_many(None, most)
        found = list(slots[: slots.index(UNSET)])
    return found


@lru_cache(maxsize=4)
def _slots(count: int) -> msgspec.json.Decoder[Any]:
    """A decoder for the first `count` elements of an array; it checks the others without keeping them."""
    fields = [(f"f{number}", Raw | UnsetType, UNSET) for number in range(count)]
    return msgspec.json.Decoder(msgspec.defstruct("Slots", fields, array_like=True))


def elements(text: bytes, most: int) -> list[bytes]:
    """
    Split an array whatever is in it, lone surrogates and mistakes included; elements are not checked.

    Raises `Unbalanced`, and `BadUpload` when there are more than `most` elements, or when brackets would have
    to be counted over more than `MAX_COUNTED` bytes.
    """
    try:
        lengths = map(len, array(masked(text), most))
    except (msgspec.DecodeError, RecursionError) as error:
        if len(text) > MAX_COUNTED:
            raise malformed(error, f"up to {MAX_COUNTED:,} bytes, only the bad events would be rejected") from None
        return list(_items(text, most))
    found: list[bytes] = []
    position = text.index(b"[") + 1
    for length in lengths:
        position = _GAP.match(text, position).end()  # type: ignore[union-attr]  # matches nothing, too
        found.append(text[position : position + length])
        position += length
    return found


def members(text: bytes) -> list[tuple[bytes, bytes]]:
    """
    Split an object into (key token, value); members without a key and a colon are left out.

    Raises `Unbalanced`.
    """
    return [(key[1], item[key.end() :]) for item in _items(text, len(text)) if (key := _MEMBER.match(item))]


def array_under(key: str, text: bytes) -> bytes:
    """
    Find the array that is a top-level value in an object which msgspec refuses as it stands.

    Empty when the object is sound, lone surrogates apart, and has none; `BadUpload` when it is broken and none
    can be found.
    """
    blank = masked(text)
    try:
        value = _finder(key).decode(blank).value
    except (msgspec.DecodeError, RecursionError) as error:
        try:
            found = dict(members(text)) if len(text) <= MAX_COUNTED else {}
        except Unbalanced:
            found = {}
        events = found.get(f'"{key}"'.encode(), b"")
        if not events.startswith(b"["):
            raise malformed(error) from None
        return events
    events = b"" if value is UNSET else bytes(value)
    if not events.startswith(b"["):
        return b""
    # The mask keeps every byte in its place. Of equal values, the last is the one that counts.
    start = blank.rfind(events)
    return text[start : start + len(events)]


@lru_cache(maxsize=16)
def _finder(key: str) -> msgspec.json.Decoder[Any]:
    """A decoder for one key of an object."""
    field = ("value", Raw | UnsetType, msgspec.field(default=UNSET, name=key))
    return msgspec.json.Decoder(msgspec.defstruct("Found", [field]))


def lines(text: bytes, most: int) -> list[bytes]:
    """Split text into lines, without blank ones and without white space around; `BadUpload` when over `most`."""
    if text.count(b"\n") < most:
        found = [line.strip(_SPACES) for line in text.split(b"\n")]
        return [line for line in found if line]
    found = []
    for line in _LINE.finditer(text):
        if len(found) == most:
            raise too_many(None, most)
        found.append(line[0].rstrip(_SPACES))
    return found


def looks_like_lines(text: bytes) -> bool:
    """Tell NDJSON from one value over several lines: half of the first ten lines, or more, are `{…}`."""
    sample = [line[0].rstrip(_SPACES) for line in itertools.islice(_LINE.finditer(text), 10)]
    objects = sum(line.startswith(b"{") and line.endswith(b"}") for line in sample)
    return len(sample) > 1 and 2 * objects >= len(sample)


def _items(text: bytes, most: int) -> Iterator[bytes]:
    """Find the elements or members of the one array or object that `text` is, by its brackets and strings."""
    start = position = len(text) - len(text.lstrip(_SPACES)) + 1
    depth = count = 1
    while found := (_TOP if depth == 1 else _DEEP).match(text, position):
        token, position = found[1], found.end()
        if token[0] in b"[{":
            depth += len(token)
        elif len(token) < depth:
            # Closing brackets, or a comma: which is only looked for at depth 1, and so is never here.
            depth -= len(token)
        elif depth > 1:
            # More brackets close than were open between the elements: go back to the last of ours.
            position = found.start(1) + depth - 1
            depth = 1
        else:
            yield text[start : found.start(1)].strip(_SPACES)
            if token != b",":
                if text[position:].strip(_SPACES):
                    raise Unbalanced("something follows the end of the JSON")
                return
            if count == most:
                raise too_many(None, most)
            count += 1
            start = position
    raise Unbalanced("a bracket or a quote is never closed")


def masked(text: bytes) -> bytes:
    """Replace escaped backslashes and surrogate escapes by harmless text of the same length."""
    return text.replace(rb"\\", b"__").replace(rb"\ud", rb"\u0").replace(rb"\uD", rb"\u0")


def flaw(element: bytes, max_bytes: int) -> tuple[Reason, str] | None:
    """Say why an element can't be an event: a code of its rejection and a sentence; None when it can."""
    if len(element) > max_bytes:
        return oversize(element, max_bytes)
    if not element:
        return Reason.MALFORMED, "there is nothing here: a comma too many"
    try:
        element.decode()
        try:
            _RAW.decode(element)
        except msgspec.DecodeError:
            _RAW.decode(masked(element))
    except (msgspec.DecodeError, RecursionError, UnicodeDecodeError) as error:
        return Reason.MALFORMED, sentence(error)
    if not element.startswith(b"{"):
        return Reason.NOT_AN_OBJECT, "an event is a JSON object"
    return None


def oversize(element: bytes, max_bytes: int) -> tuple[Reason, str]:
    """Say that an element is too long, and by how much."""
    return Reason.TOO_LARGE, f"the event has {len(element):,} bytes; the limit is {max_bytes:,}"


def one_line(element: bytes) -> bytes:
    """Make line breaks spaces. Valid JSON has them between tokens only."""
    return element.translate(_LINE_BREAKS)


def sentence(error: Exception) -> str:
    """Say what a decoder found wrong, without a word of the content."""
    if isinstance(error, RecursionError):
        return "nested too deeply"
    if isinstance(error, UnicodeDecodeError):
        return f"not UTF-8 (byte {error.start})"
    return "not valid JSON: " + str(error).removeprefix("JSON is malformed: ").lower()


def malformed(error: Exception, detail: str = "") -> BadUpload:
    """Refuse a whole upload for what a decoder found."""
    return BadUpload(Reason.MALFORMED, f"the upload is {sentence(error)}", detail)


def too_many(count: int | None, most: int) -> BadUpload:
    """Refuse a whole upload for the number of its events; None when nobody counted to the end."""
    number = f"{count:,}" if count is not None else f"more than {most:,}"
    return BadUpload(Reason.TOO_LARGE, f"{number} events; the limit is {most:,} an upload: send fewer at once")
