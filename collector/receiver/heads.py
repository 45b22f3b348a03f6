"""
What can be told of a request's head before any parser has seen it; all functions take the bytes and where it ends.
"""

from __future__ import annotations

import re

SMUGGLING = "a line of the head is folded or does not end in CR LF, or there are two transfer codings"

_LENGTH = re.compile(rb"\r\ncontent-length:[ \t]*([0-9]{1,9})[ \t]*\r\n", re.IGNORECASE)
_CODING = re.compile(rb"\r\ntransfer-encoding[^\r\n]*")
_CHUNKED = re.compile(rb"\r\ntransfer-encoding:[ \t]*chunked[ \t]*")
_EXPECT = re.compile(rb"\r\nexpect:", re.IGNORECASE)


def has_odd_lines(data: bytes, end: int | None) -> bool:
    """Tell whether a line does not end in CR LF, or is folded; the parser in C lets these pass."""
    return (
        data.count(b"\n", 0, end) != data.count(b"\r\n", 0, end)
        or data.find(b"\r\n ", 0, end) >= 0
        or data.find(b"\r\n\t", 0, end) >= 0
    )


def is_smuggling(data: bytes, end: int | None = None) -> bool:
    """Tell whether there is what two parsers may read in two ways."""
    if has_odd_lines(data, end):
        return True
    # A proxy that knows the coding "identity", as HTTP/1.1 once had it, sees another body than one that does not.
    head = data[:end].lower()
    codings = _CODING.findall(head) if b"transfer-encoding" in head else []
    return len(codings) > 1 or any(b"chunked" in one and not _CHUNKED.fullmatch(one) for one in codings)


def plain_length(data: bytes, end: int) -> int | None:
    """Return the one Content-Length, if there is one that is plain to see."""
    lengths = _LENGTH.findall(data[: end + 2])
    return int(lengths[0]) if len(lengths) == 1 else None


def expects(data: bytes, end: int) -> bool:
    """Tell whether the client may wait for a word before it sends the body."""
    return _EXPECT.search(data, 0, end) is not None
