"""
What stands behind `search`: comparisons of fields, and which events can pass them.
"""

from __future__ import annotations

import re
from typing import NamedTuple

from dashboards.spl.errors import SplError
from dashboards.spl.words import Words

#: They bound the time, and are no fields.
TIME_BOUNDS = {"earliest", "latest", "_index_earliest", "_index_latest"}
_RELATIVE = re.compile(r"(?:now|[+-]?\d+[smhd]|[+-]?(?:\d+[smhd])?@[smhd])")
_COMPARISONS = {"=", "!=", "<", ">", "<=", ">="}


class Compared(NamedTuple):
    """A field and what it is compared with: several values of an IN, one of all else."""

    field: str
    operator: str
    values: tuple[str, ...]


class Both(NamedTuple):
    """All of these hold (`AND`), or one of them (`OR`)."""

    word: str
    parts: tuple[Filter, ...]


class Not(NamedTuple):
    """What does not hold."""

    part: Filter


Filter = Compared | Both | Not


def read_filter(text: str) -> Filter:
    """Read what stands behind `search`; SplError of what is not understood."""
    words = Words(text)
    found = _either(words)
    if words:
        raise SplError(f"not understood: {words.peek()[1]!r} in {text!r}")
    return found


def comparisons(node: Filter) -> list[Compared]:
    """Return all comparisons of a filter."""
    if isinstance(node, Compared):
        return [node]
    if isinstance(node, Not):
        return comparisons(node.part)
    return [one for part in node.parts for one in comparisons(part)]


def _either(words: Words) -> Filter:
    parts = [_all(words)]
    while words.skip("OR"):
        parts.append(_all(words))
    return parts[0] if len(parts) == 1 else Both("OR", tuple(parts))


def _all(words: Words) -> Filter:
    parts = [_one(words)]
    while words and words.peek() != ("mark", ")") and words.peek()[1].upper() != "OR":
        words.skip("AND")
        parts.append(_one(words))
    return parts[0] if len(parts) == 1 else Both("AND", tuple(parts))


def _one(words: Words) -> Filter:
    if words.skip("NOT"):
        return Not(_one(words))
    if words.skip("("):
        found = _either(words)
        words.expect(")")
        return found
    kind, name = words.take()
    if kind != "name":
        raise SplError(f"{name!r} is compared with no field: say in which it is to be found")
    if words.skip("IN"):
        return Compared(name, "IN", _values(words))
    operator = words.take()[1] if words else ""
    if operator not in _COMPARISONS:
        raise SplError(f"{name} is compared with nothing")
    if name in TIME_BOUNDS:
        return Compared(name, operator, (_moment(name, words),))
    return Compared(name, operator, (_value(words),))


def _value(words: Words) -> str:
    kind, text = words.take()
    if kind not in {"string", "name", "number"}:
        raise SplError(f"{text!r} is no value")
    return text


def _values(words: Words) -> tuple[str, ...]:
    words.expect("(")
    found = [_value(words)]
    while words.skip(","):
        found.append(_value(words))
    words.expect(")")
    return tuple(found)


def _moment(name: str, words: Words) -> str:
    """Read a relative time, whose words come apart."""
    text = words.take()[1]
    while words and (text[-1] in "+-@" or words.peek()[1][:1] == "@"):
        text += words.take()[1]
    if not _RELATIVE.fullmatch(text) and not re.fullmatch(r"[+-]?\d+[smhd]@[smhd]", text):
        raise SplError(f"{name} is no relative time: {text}")
    return text


class Chance(NamedTuple):
    """Whether a filter can hold for some event, and whether it can fail."""

    hold: bool
    fail: bool


def chance(node: Filter, fields: frozenset[str], fixed: dict[str, frozenset[str]]) -> Chance:
    """
    Tell what a filter can come to for events that have these fields.

    `fixed` are the values that some fields have of which nothing else is possible: its signal, its levels.
    """
    if isinstance(node, Not):
        inner = chance(node.part, fields, fixed)
        return Chance(inner.fail, inner.hold)
    if isinstance(node, Both):
        parts = [chance(part, fields, fixed) for part in node.parts]
        if node.word == "AND":
            return Chance(all(part.hold for part in parts), any(part.fail for part in parts))
        return Chance(any(part.hold for part in parts), all(part.fail for part in parts))
    if node.field in TIME_BOUNDS:
        return Chance(hold=True, fail=True)
    if node.field in fixed and "*" not in "".join(node.values) and node.operator in {"=", "IN", "!="}:
        possible = fixed[node.field]
        same = Chance(bool(possible & set(node.values)), bool(possible - set(node.values)))
        return Chance(same.fail, same.hold) if node.operator == "!=" else same
    # What an event has not compares with nothing, unequal neither.
    return Chance(hold=node.field in fields, fail=True)
