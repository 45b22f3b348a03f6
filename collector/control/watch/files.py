"""
Bytes by the minute out of a file: CSV (`minute,bytes`) or lines of JSON (`{"minute": …, "bytes": …}`).
"""

from __future__ import annotations

import math
from collections.abc import Iterable, Iterator
from pathlib import Path

import msgspec

from collector.control.watch.series import EXAMPLE, parse_minute
from collector.errors import CannotLook

#: As many as a year of minutes has; a file with more is another file.
_MOST_LINES = 366 * 24 * 60
_QUOTED = 60


class _Line(msgspec.Struct):
    minute: str
    bytes: float


def read(path: Path) -> dict[int, float]:
    """
    Return the bytes of each minute that a file names.

    Its lines may be in any order, a first line of CSV may be `minute,bytes`, and empty lines say nothing. Raises
    `CannotLook` with the file and the line.
    """
    try:
        with path.open(encoding="utf-8") as lines:
            return points(lines, name=str(path))
    except (OSError, UnicodeDecodeError) as error:
        raise CannotLook(f"{path} can't be read: {error}") from error


def points(lines: Iterable[str], *, name: str) -> dict[int, float]:
    """Return the bytes of each minute that lines name; raises `CannotLook`, with the name and the line."""
    found: dict[int, float] = {}
    for number, minute, amount in _parsed(lines, name):
        if minute in found:
            raise CannotLook(f"{name}:{number}: this minute was on a line before; leave one of the two")
        found[minute] = amount
    if not found:
        raise CannotLook(f"{name} names no minute; its lines are to be like {EXAMPLE},12345")
    return found


def _parsed(lines: Iterable[str], name: str) -> Iterator[tuple[int, int, float]]:
    for number, raw in enumerate(lines, 1):
        if number > _MOST_LINES:
            raise CannotLook(f"{name} has more lines than a year has minutes: it is another file")
        line = raw.strip()
        if not line or (number == 1 and line.replace(" ", "") == "minute,bytes"):
            continue
        try:
            yield number, *_pair(line)
        except (ValueError, OverflowError, msgspec.MsgspecError) as error:
            raise CannotLook(
                f"{name}:{number}: {line[:_QUOTED]!r} is no minute with its bytes ({error}); write {EXAMPLE},12345 or "
                f'{{"minute": "{EXAMPLE}", "bytes": 12345}}'
            ) from error


def _pair(line: str) -> tuple[int, float]:
    if line.startswith("{"):
        told = msgspec.json.decode(line, type=_Line)
        minute, amount = told.minute, told.bytes
    else:
        minute, comma, after = line.partition(",")
        if not comma:
            raise ValueError("there is no comma")
        amount = float(after)
    if not math.isfinite(amount) or amount < 0:
        raise ValueError("bytes are a number from 0 on")
    return parse_minute(minute.strip()), amount
