"""
How one value of the settings is read, from the environment or from TOML.

A parser takes what was written (text, or what TOML made of it) and returns the value, or raises ValueError
with the rest of a sentence: what is wrong, and what to write instead. It never sees the setting's name.
"""

# ruff: noqa: TRY004 -- a parser speaks ValueError alone, whatever was wrong

from __future__ import annotations

import difflib
import math
import re
from collections.abc import Callable, Iterable
from ipaddress import IPv6Address, ip_address
from pathlib import Path
from typing import Any
from urllib.parse import quote, urlsplit

Parse = Callable[[object], Any]

#: The sinks there are, and how a URL of each is written; `sinks.registry` makes exactly these, and a test holds the two
#: equal.
_SHAPES = {
    "file": "file:DIR",
    "stdout": "stdout:",
    "s3": "s3://bucket/prefix",
    "kinesis": "kinesis://stream",
    "firehose": "firehose://stream",
    "sqs": "sqs://queue",
}
SINK_SCHEMES = tuple(_SHAPES)

#: What a tenant or a route may be called: it becomes part of a path and of a metric's label.
NAME = re.compile(r"[A-Za-z0-9_-]{1,64}")

_SIZE = re.compile(r"(\d+)\s*(B|KiB|MiB|GiB)?")
_UNIT_BYTES = {None: 1, "B": 1, "KiB": 1 << 10, "MiB": 1 << 20, "GiB": 1 << 30}
_HOST = re.compile(r"[A-Za-z0-9]([A-Za-z0-9.-]*[A-Za-z0-9])?")
#: Longer text than this is cut when it is quoted back.
_QUOTED_CHARS = 60
#: File descriptors 0 to 2 are the standard streams.
_FIRST_FREE_FD = 3
_MAX_PORT = 65_535


def quoted(raw: object) -> str:
    """Quote what was written, cut to a length that leaves the sentence readable."""
    text = repr(raw) if isinstance(raw, str) else f"{raw!r} ({_toml_type(raw)})"
    return text if len(text) <= _QUOTED_CHARS else text[:_QUOTED_CHARS] + "…"


def did_you_mean(wrong: str, known: Iterable[str]) -> str:
    """Return `; did you mean X?`, or nothing when no known name is close."""
    close = difflib.get_close_matches(wrong, list(known), n=1, cutoff=0.7)
    return f"; did you mean {close[0]}?" if close else ""


def text(raw: object) -> str:
    """Read text that is not empty; the error does not quote it, since it may be a secret."""
    if not isinstance(raw, str) or not raw.strip():
        raise ValueError(f"must be text and not empty, not {_toml_type(raw)}")
    return raw


def token(raw: object) -> str:
    """Read a bearer token: one line that fits into a header. The error does not quote it."""
    value = text(raw).strip()
    if not value.isascii() or not value.isprintable() or " " in value:
        raise ValueError("must be one word of printable ASCII, so that it fits into an Authorization header")
    return value


def path(cwd: Path) -> Parse:
    """Make a parser of paths; a relative one is taken from `cwd` and made absolute."""

    def parse(raw: object) -> str:
        value = text(raw)
        if "\0" in value:
            raise ValueError("has a NUL in it; write a path")
        return str(cwd / value)

    return parse


def whole(*, at_least: int, at_most: int | None = None) -> Parse:
    """Make a parser of whole numbers."""
    bounds = f"of at least {at_least}" if at_most is None else f"from {at_least} to {at_most}"

    def parse(raw: object) -> int:
        value = _int(raw)
        if value is None:
            raise ValueError(f"{quoted(raw)} is not a whole number; write one {bounds}")
        if value < at_least or (at_most is not None and value > at_most):
            raise ValueError(f"{value} is out of bounds; write a whole number {bounds}")
        return value

    return parse


def number(*, at_least: float | None = None, above: float | None = None, unit: str = "") -> Parse:
    """Make a parser of finite numbers with one lower bound."""
    bound = f"of at least {at_least:g}" if at_least is not None else f"above {above:g}"
    wanted = f"a number{' of ' + unit if unit else ''} {bound}"

    def parse(raw: object) -> float:
        value = _float(raw)
        if value is None or not math.isfinite(value):
            raise ValueError(f"{quoted(raw)} is not a number; write {wanted}")
        if (at_least is not None and value < at_least) or (above is not None and value <= above):
            raise ValueError(f"{value:g} is out of bounds; write {wanted}")
        return value

    return parse


def seconds(*, at_least: float | None = None, above: float | None = None) -> Parse:
    """Make a parser of durations in seconds."""
    return number(at_least=at_least, above=above, unit="seconds")


def size(*, at_least: int, at_most: int | None = None) -> Parse:
    """Make a parser of sizes: bytes as a whole number, or text like `16 MiB`."""

    def parse(raw: object) -> int:
        value = raw if isinstance(raw, int) and not isinstance(raw, bool) else None
        if isinstance(raw, str) and (match := _SIZE.fullmatch(raw.strip())):
            value = int(match[1]) * _UNIT_BYTES[match[2]]
        if value is None:
            raise ValueError(f"{quoted(raw)} is not a size; write bytes, or a whole number with KiB, MiB or GiB")
        if value < at_least:
            raise ValueError(f"{value} bytes is too small; write at least {at_least}")
        if at_most is not None and value > at_most:
            raise ValueError(f"{value} bytes is too large; write at most {at_most}")
        return value

    return parse


def rate_of_bytes(raw: object) -> float:
    """Read bytes per second: a number of at least 0, or text like `2 MiB`."""
    if isinstance(raw, str):
        return float(size(at_least=0)(raw))
    return float(number(at_least=0, unit="bytes per second")(raw))


def yes_no(raw: object) -> bool:
    """Read a TOML boolean."""
    if not isinstance(raw, bool):
        raise ValueError(f"{quoted(raw)} is neither true nor false; write one of them, without quotes")
    return raw


def switch(raw: object) -> bool:
    """Read a setting that is on or off: 1 or 0, in TOML also true or false."""
    if isinstance(raw, bool):
        return raw
    if raw in (0, 1, "0", "1"):
        return bool(int(str(raw)))
    raise ValueError(f"{quoted(raw)} is neither 1 (on) nor 0 (off); write one of them")


def choice(*words: str) -> Parse:
    """Make a parser of one word of a closed list."""

    def parse(raw: object) -> str:
        if raw not in words:
            raise ValueError(f"{quoted(raw)} is not one of {', '.join(words)}")
        return str(raw)

    return parse


def bind(raw: object) -> str:
    """Read `host:port`, `[ipv6]:port` or `fd://N`."""
    wanted = "write host:port, for example 127.0.0.1:8080, or fd://N for an inherited socket"
    if not isinstance(raw, str):
        raise ValueError(f"{quoted(raw)} is no address; {wanted}")
    value = raw.strip()
    if value.startswith("fd://"):
        fd = value.removeprefix("fd://")
        if not fd.isascii() or not fd.isdigit() or int(fd) < _FIRST_FREE_FD:
            raise ValueError(f"{quoted(raw)} names no inherited socket; write fd://3 or higher")
        return value
    host, _, port = value.rpartition(":")
    if not host:
        raise ValueError(f"{quoted(raw)} has no host; {wanted}, or 0.0.0.0:8080 for all interfaces")
    if not port.isascii() or not port.isdigit() or not 1 <= int(port) <= _MAX_PORT:
        raise ValueError(f"{quoted(raw)} has no port from 1 to {_MAX_PORT}; {wanted}")
    if host.startswith("[") or ":" in host:
        try:
            IPv6Address(host.removeprefix("[").removesuffix("]"))
        except ValueError:
            raise ValueError(f"{quoted(raw)} has no valid IPv6 address; write it as [::1]:8080") from None
        if not (host.startswith("[") and host.endswith("]")):
            raise ValueError(f"{quoted(raw)} has an IPv6 address without brackets; write [{host}]:{port}")
    elif not _HOST.fullmatch(host):
        raise ValueError(f"{quoted(raw)} has no valid host; {wanted}")
    return value


def host_and_port(address: str) -> tuple[str, int]:
    """Split a parsed bind that is no `fd://`; the host comes without brackets."""
    host, _, port = address.rpartition(":")
    return host.removeprefix("[").removesuffix("]"), int(port)


def is_loopback(address: str) -> bool:
    """Tell whether a parsed bind can be reached from this machine alone; an inherited socket is not known to be."""
    if address.startswith("fd://"):
        return False
    host, _ = host_and_port(address)
    if host.lower() == "localhost":
        return True
    try:
        ip = ip_address(host)
    except ValueError:
        return False
    mapped = ip.ipv4_mapped if isinstance(ip, IPv6Address) else None
    return (mapped or ip).is_loopback


def sink_url(cwd: Path) -> Parse:
    """
    Make a parser of sink URLs; a relative directory of `file:` is taken from `cwd` and made absolute.

    What a URL says beyond its scheme and directory is the sink's own business.
    """

    def parse(raw: object) -> str:
        if not isinstance(raw, str):
            raise ValueError(f"{quoted(raw)} is no sink; write a URL such as file:data")
        scheme, colon, rest = raw.strip().partition(":")
        if not colon or scheme not in SINK_SCHEMES:
            raise ValueError(f"{quoted(raw)} is no sink that is known; write {_known_schemes()}")
        if scheme != "file":
            return f"{scheme}:{rest}"
        if rest.startswith("//"):
            host, slash, below = rest[2:].partition("/")
            if host not in {"", "localhost"}:
                raise ValueError(f"{quoted(raw)} names a host; write file:{rest[2:]}, without the slashes")
            rest = slash + below
        if not rest.partition("?")[0] or rest.startswith("~") or "#" in rest or not rest.isprintable():
            raise ValueError(f"{quoted(raw)} names no directory; write for example file:data or file:/var/lib/data")
        return f"file:{rest}" if rest.startswith("/") else f"file:{quote(str(cwd)).rstrip('/')}/{rest}"

    return parse


def names(raw: object) -> str:
    """Read names with commas between them, such as `env,iam-role`."""
    value = ",".join(name.strip() for name in text(raw).split(","))
    if not re.fullmatch(r"[a-z0-9]+(-[a-z0-9]+)*(,[a-z0-9]+(-[a-z0-9]+)*)*", value):
        raise ValueError(f"{quoted(raw)} is no list of names; write them in lower case, with commas: env,iam-role")
    return value


def http_url(raw: object) -> str:
    """Read an http or https URL; one with a user name and password in it is refused without being quoted."""
    value = text(raw).strip()
    parts = urlsplit(value)
    if parts.scheme not in {"http", "https"} or not parts.hostname:
        raise ValueError("must be an http:// or https:// URL with a host")
    if parts.username or parts.password:
        raise ValueError("must not carry a user name or password; the token has a setting of its own")
    return value


def _known_schemes() -> str:
    """Name what may be written instead, as a person writes it."""
    return " or ".join(_SHAPES.values())


def _int(raw: object) -> int | None:
    if isinstance(raw, int) and not isinstance(raw, bool):
        return raw
    if isinstance(raw, str) and re.fullmatch(r"[+-]?[0-9]{1,18}", raw.strip()):
        return int(raw)
    return None


def _float(raw: object) -> float | None:
    if isinstance(raw, int | float) and not isinstance(raw, bool):
        return float(raw)
    if isinstance(raw, str):
        try:
            return float(raw)
        except ValueError:
            return None
    return None


def _toml_type(raw: object) -> str:
    """Name the TOML type of a value in a person's words; bool comes first, since it is an int too."""
    kinds = ((str, "text"), (bool, "true or false"), (int | float, "a number"), (list, "a list"), (dict, "a table"))
    return next((name for kind, name in kinds if isinstance(raw, kind)), "a date or time")
