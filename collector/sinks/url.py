"""
The URL that names a sink: `scheme:path?option=value`.

It knows the shape only; what a path and an option mean is the sink's own business.
"""

from __future__ import annotations

from typing import TypeVar
from urllib.parse import parse_qsl, unquote, urlsplit

import msgspec

Options = TypeVar("Options", bound=msgspec.Struct)


class SinkUrl(msgspec.Struct, frozen=True):
    """A sink's URL, taken apart. `host` is what stands after `//`; `path` is decoded; `text` is all as written."""

    text: str
    scheme: str
    host: str
    path: str
    options: dict[str, str]


def parse(text: str) -> SinkUrl:
    """Take a sink's URL apart; raises `ValueError` with a sentence that says what to write instead."""
    # urlsplit drops tabs and line breaks without a word, and another directory than the one written is used.
    if not text.isprintable():
        raise ValueError(f"sink {text!r} holds a character that can't be printed; write it without")
    scheme, colon, _ = text.partition(":")
    if not colon:
        raise ValueError(f"sink {text!r} has no scheme; for a directory write file:{text or 'DIR'}")
    if "#" in text:
        raise ValueError(f"sink {text!r} holds a '#'; write %23 if the character is meant")
    try:
        parts = urlsplit(text)
        pairs = parse_qsl(parts.query, keep_blank_values=True, strict_parsing=True) if parts.query else []
        path = unquote(parts.path, errors="strict")
    except ValueError as exc:
        raise ValueError(f"sink {text!r} can't be read ({exc}); write it as {scheme}:path?option=value") from exc
    if "\0" in path:
        raise ValueError(f"sink {text!r} holds a NUL in its path; write it without")
    if len(dict(pairs)) < len(pairs):
        raise ValueError(f"sink {text!r} says an option twice; write each once")
    return SinkUrl(text=text, scheme=parts.scheme, host=parts.netloc, path=path, options=dict(pairs))


def within(url: SinkUrl, folder: str) -> SinkUrl:
    """Name a place in the place that a URL names: `file:data?level=3` and `a` make `file:data/a?level=3`."""
    before, mark, options = url.text.partition("?")
    text = f"{before.rstrip('/')}/{folder}{mark}{options}"
    return msgspec.structs.replace(url, text=text, path=f"{url.path.rstrip('/')}/{folder}")


def read_options(url: SinkUrl, shape: type[Options]) -> Options:
    """Fill the sink's own struct of options from the URL; raises `ValueError` naming the options there are."""
    try:
        return msgspec.convert(url.options, shape, strict=False)
    except msgspec.ValidationError as exc:
        known = ", ".join(shape.__struct_fields__)
        there_are = f"its options are {known}" if known else f"{url.scheme}: has no options"
        raise ValueError(f"sink {url.text!r}: {exc}; {there_are}") from exc
