"""
JSON lines on stdout: made by structlog, without its global configuration.

A line holds `ts` (RFC 3339, UTC, µs), `level`, `event` (a constant name, such as `batch.failed`), `boot` and `seq`,
what was bound (`pid`, `owner`), then the fields of its signal. `signals` decides what is said; this module is the last
defence against saying too much: it withholds secrets and event content, bounds every value and every line, and never
raises.
"""

from __future__ import annotations

import logging
import re
import sys
import traceback
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from datetime import UTC, datetime, timedelta
from functools import lru_cache, partialmethod
from itertools import count
from typing import TYPE_CHECKING, Any, Protocol, cast

import msgspec

from collector.clock import Clock, SystemClock
from collector.errors import CollectorError

if TYPE_CHECKING:
    from structlog.typing import EventDict, FilteringBoundLogger, WrappedLogger

#: What `log_level` may say.
LEVELS: dict[str, int] = {
    "debug": logging.DEBUG,
    "info": logging.INFO,
    "warn": logging.WARNING,
    "warning": logging.WARNING,
    "error": logging.ERROR,
}

WITHHELD = "[withheld]"
#: Bounds in bytes of UTF-8. Guesses, but for the line: a Docker log driver splits a line at 16 KiB.
MAX_VALUE_BYTES = 4096
MAX_TRACEBACK_BYTES = 8192
MAX_NAME_BYTES = 128
MAX_LINE_BYTES = 16 * 1024
#: Bounds of a nested value. Guesses.
MAX_ITEMS = 64
MAX_DEPTH = 4
MAX_FRAMES = 64
#: Causes and contexts of one exception that a traceback shows. A guess.
MAX_CHAIN = 5

_ALWAYS = ("ts", "level", "event", "boot", "seq", "pid", "owner")
_CUT = "…[cut]"
_SECRET_NAME = re.compile(
    r"key|token|secret|passw|credential|authori[sz]|cookie|bearer|signature|body|payload|event[_-]?(json|line|text|data)",
    re.IGNORECASE,
)
_SECRET_IN_TEXT = re.compile(
    r"""(?ix)
    ( \b(?:bearer|basic|splunk)\s+
    | (?:key|token|secret|password|passwd|signature|credential)(?:=["']?|["']\s*[:=]\s*["'])
    | \bauthorization["']?\s*[:=]\s*["']?(?:(?:bearer|basic|splunk)\s+)?
    | ://[^/\s:@]*:(?=[^/\s@]+@)
    ) [^\s"'&,;<>@]+
    """
)
_WITHHELD_IN_TEXT = rf"\1{WITHHELD}"
#: Without one of these `_SECRET_IN_TEXT` can't match; most values are words and pass here.
_MAYBE_SECRET = re.compile(r"[\s=:]")
_EPOCH = datetime(1970, 1, 1, tzinfo=UTC)
_encoder = msgspec.json.Encoder()


#: Who gets a line too, with its level.
Also = Callable[[bytes, str], None]


class Stream(Protocol):
    """Where lines go; `write` takes one whole line, its newline included, and does not raise."""

    def write(self, line: bytes, /) -> object:
        """Take one line."""


class _Lines:
    """What structlog calls a logger: a method a level, each of which writes the line, and hands it on to `also`."""

    def __init__(self, stream: Stream, also: Also | None) -> None:
        self._stream = stream
        self._also = also

    def _put(self, level: str, line: bytes) -> None:
        self._stream.write(line + b"\n")
        if self._also is not None:
            self._also(line, level)

    debug = partialmethod(_put, "debug")
    info = partialmethod(_put, "info")
    warning = partialmethod(_put, "warning")
    error = partialmethod(_put, "error")


def build_logger(
    stream: Stream,
    level: str,
    *,
    clock: Clock | None = None,
    also: Also | None = None,
    boot: str = "",
    **bound: object,
) -> FilteringBoundLogger:
    """
    Return a logger that writes lines of `level` (a key of `LEVELS`) and above, each with the `bound` fields.

    With a `boot`, the id of a process since its start, they have that and `seq`: 1, 2, 3 …, so that whoever gets them
    can tell whether one is missing. Each is handed to `also`, too, without its newline.
    """
    with _hidden("rich"):
        # For its console, where it is installed: 60 ms of a start and 3 MiB for each process, and no console here.
        import structlog  # noqa: PLC0415 -- inside of the block

    stamp = _Stamp(SystemClock() if clock is None else clock, boot)
    logger = structlog.wrap_logger(
        cast("WrappedLogger", _Lines(stream, also)),
        processors=[stamp, scrub, structlog.processors.JSONRenderer(serializer=_render)],
        wrapper_class=structlog.make_filtering_bound_logger(LEVELS[level.lower()]),
        context_class=dict,
        cache_logger_on_first_use=True,
    )
    return cast("FilteringBoundLogger", logger.bind(**bound))


@contextmanager
def _hidden(package: str) -> Iterator[None]:
    """Let imports of a package fail as if it were not installed, unless it is loaded already."""
    if package in sys.modules:
        yield
        return
    sys.modules[package] = None  # type: ignore[assignment]  # Python's own way to say so
    try:
        yield
    finally:
        del sys.modules[package]


class _Stamp:
    """The processor that puts `ts`, `level`, `event`, `boot`, `seq` first, and turns `exc_info` into `traceback`."""

    def __init__(self, clock: Clock, boot: str) -> None:
        self._clock = clock
        self._boot = boot
        self._seq = count(1)

    def __call__(self, _logger: WrappedLogger, method: str, event_dict: EventDict) -> EventDict:
        line: dict[str, Any] = {"ts": rfc3339(self._clock.now_us()), "level": method, "event": event_dict.get("event")}
        if self._boot:
            line |= {"boot": self._boot, "seq": next(self._seq)}
        error = event_dict.pop("exc_info", None)
        line.update((name, value) for name, value in event_dict.items() if name not in line)
        if isinstance(error, BaseException):
            line["traceback"] = describe_error(error)
        return line


def rfc3339(us: int) -> str:
    """Render microseconds since the epoch as RFC 3339 in UTC, with six digits of a second."""
    return (_EPOCH + timedelta(microseconds=us)).isoformat(timespec="microseconds").replace("+00:00", "Z")


def scrub(_logger: WrappedLogger, _method: str, event_dict: EventDict) -> EventDict:
    """Withhold what looks like a secret or like event content, and bound what stays; a structlog processor."""
    return _scrub_mapping(event_dict, 0)


@lru_cache(maxsize=1024)
def is_withheld(name: str) -> bool:
    """Tell whether a field of this name is withheld, whatever it holds."""
    return _SECRET_NAME.search(name) is not None


def _scrub_mapping(fields: Mapping[Any, Any], depth: int) -> dict[str, Any]:
    scrubbed: dict[str, Any] = {}
    for name, value in fields.items():
        if len(scrubbed) == MAX_ITEMS:
            scrubbed["cut"] = len(fields) - MAX_ITEMS
            break
        text = name if isinstance(name, str) else type(name).__name__
        limit = MAX_TRACEBACK_BYTES if text == "traceback" else MAX_VALUE_BYTES
        scrubbed[_bounded(text, MAX_NAME_BYTES)] = WITHHELD if is_withheld(text) else _scrub_value(value, limit, depth)
    return scrubbed


def _scrub_value(value: object, limit: int, depth: int) -> object:
    """Return what may be logged of a value: scalars, and lists and dicts of them. Of others, bytes too, the type."""
    if value is None or isinstance(value, bool | float):
        return value
    if isinstance(value, int):
        return value if -(2**63) <= value < 2**63 else _bounded(hex(value), limit)
    if isinstance(value, str):
        return _text(value, limit)
    if depth < MAX_DEPTH and isinstance(value, Mapping):
        return _scrub_mapping(value, depth + 1)
    if depth < MAX_DEPTH and isinstance(value, list | tuple):
        items = [_scrub_value(item, limit, depth + 1) for item in value[:MAX_ITEMS]]
        return items if len(value) <= MAX_ITEMS else [*items, f"[cut: {len(value) - MAX_ITEMS} more]"]
    return f"[withheld: {type(value).__name__}]"


def _text(text: str, limit: int) -> str:
    """Return the text bounded, what looks like a secret in it withheld."""
    text = _bounded(text, limit)
    if _MAYBE_SECRET.search(text) is None:
        return text
    return _bounded(_SECRET_IN_TEXT.sub(_WITHHELD_IN_TEXT, text), limit)


def _bounded(text: str, limit: int) -> str:
    """Return the text as plain `str` that UTF-8 can hold, in at most `limit` bytes."""
    if len(text) <= limit and text.isascii():
        return str(text)
    data = text[: limit + 1].encode("utf-8", "backslashreplace")
    if len(data) <= limit:
        return data.decode()
    return data[: limit - len(_CUT.encode())].decode("utf-8", "ignore") + _CUT


def _render(event_dict: EventDict, **_default: object) -> bytes:
    """Encode a scrubbed line; while it is too long, its longest field goes, and says how long it was."""
    line = _encoder.encode(event_dict)
    if len(line) <= MAX_LINE_BYTES:
        return line
    sizes = {name: len(_encoder.encode(value)) for name, value in event_dict.items() if name not in _ALWAYS}
    for name in sorted(sizes, key=sizes.__getitem__, reverse=True):
        event_dict[name] = f"[cut: {sizes[name]} bytes]"
        line = _encoder.encode(event_dict)
        if len(line) <= MAX_LINE_BYTES:
            return line
    return _encoder.encode({name: _bounded(str(event_dict[name]), 256) for name in _ALWAYS if name in event_dict})


def describe_error(error: BaseException) -> str:
    """
    Render an exception and its causes, oldest first, in at most `MAX_TRACEBACK_BYTES`, without locals.

    A message is shown only where it is known to be about our code or the system: of our own errors and of some of
    Python's. Others quote what they choked on (`invalid literal for int() with base 10: '…'`): event content.
    """
    chain: list[BaseException] = []
    current: BaseException | None = error
    while current is not None and len(chain) < MAX_CHAIN and all(current is not seen for seen in chain):
        chain.append(current)
        current = current.__cause__ or (None if current.__suppress_context__ else current.__context__)
    parts = []
    for link in reversed(chain):
        # Source lines are read only for the frames that stay; an endless recursion has thousands.
        frames = traceback.StackSummary.extract(traceback.walk_tb(link.__traceback__), lookup_lines=False)
        if len(frames) > MAX_FRAMES:
            del frames[MAX_FRAMES // 4 : -MAX_FRAMES * 3 // 4]
        parts.append("".join(traceback.format_list(frames)) + f"{_type_name(link)}: {_message(link)}\n")
    text = "\n".join(parts)
    data = text.encode("utf-8", "backslashreplace")
    if len(data) <= MAX_TRACEBACK_BYTES:
        return text
    # The end says what went wrong, the beginning who called.
    mark = "\n…[cut]…\n"
    head = MAX_TRACEBACK_BYTES // 4
    tail = MAX_TRACEBACK_BYTES - head - len(mark.encode())
    return data[:head].decode("utf-8", "ignore") + mark + data[-tail:].decode("utf-8", "ignore")


#: Errors of Python's whose messages speak of names, types and files, not of values.
_SPEAKING = (
    OSError, AttributeError, TypeError, NameError, ImportError, MemoryError, RuntimeError, AssertionError, SystemExit,
)  # fmt: skip


def _type_name(error: BaseException) -> str:
    kind = type(error)
    return kind.__qualname__ if kind.__module__ == "builtins" else f"{kind.__module__}.{kind.__qualname__}"


def _message(error: BaseException) -> str:
    # By exact module: a library's subclass of OSError may quote a URL with its query.
    ours = isinstance(error, CollectorError)
    if not ours and not (isinstance(error, _SPEAKING) and type(error).__module__ == "builtins"):
        return "[message withheld]"
    try:
        return _text(str(error), MAX_VALUE_BYTES // 2)
    except Exception as broken:  # noqa: BLE001 - a __str__ may do anything, and the log must go on
        return f"[message failed: {type(broken).__name__}]"
