"""
Expressions of `eval` and `where`: their syntax, the fields that they read, and what fields are compared with.
"""

from __future__ import annotations

import msgspec

from dashboards.spl.errors import SplError
from dashboards.spl.words import Words

_MANY = 99
#: The functions that are known, and how many arguments they take: at least, at most.
_FUNCTIONS = {
    "case": (2, _MANY),
    "coalesce": (1, _MANY),
    "if": (3, 3),
    "isnull": (1, 1),
    "mvjoin": (2, 2),
    "now": (0, 0),
    "null": (0, 0),
    "round": (1, 2),
    "strftime": (2, 2),
    "true": (0, 0),
}
_LEVELS = (("OR",), ("AND",), ("NOT",), ("=", "==", "!=", "<", ">", "<=", ">="), (".",), ("+", "-"), ("*", "/", "%"))
_NOT, _COMPARISON = 2, 3


class Expression(msgspec.Struct):
    """What was found in one: the fields read, and (field, text) of each that is compared with a text."""

    fields: set[str] = msgspec.field(default_factory=set)
    compared: set[tuple[str, str]] = msgspec.field(default_factory=set)


def read_expression(words: Words, found: Expression, level: int = 0) -> tuple[str, str]:
    """
    Read one expression from where the words are, and note in `found` what it names.

    Returns its (kind, text) if it is a lone word, else ("", "").
    """
    if level == len(_LEVELS):
        return _operand(words, found)
    if level == _NOT:
        negated = False
        while words.skip("NOT"):
            negated = True
        lone = read_expression(words, found, level + 1)
        return ("", "") if negated else lone
    left = read_expression(words, found, level + 1)
    while words.skip(*_LEVELS[level]):
        right = read_expression(words, found, level + 1)
        if level == _COMPARISON:
            for one, other in ((left, right), (right, left)):
                if one[0] == "field" and other[0] == "string":
                    found.compared.add((one[1], other[1]))
        left = ("", "")
    return left


def _operand(words: Words, found: Expression) -> tuple[str, str]:
    if words.skip("-"):
        _operand(words, found)
        return "", ""
    if words.skip("("):
        read_expression(words, found)
        words.expect(")")
        return "", ""
    kind, text = words.take()
    if kind in {"string", "number"}:
        return kind, text
    if kind == "name" and words.peek() == ("mark", "("):
        _call(text, words, found)
        return "", ""
    if kind not in {"name", "quoted"} or text in {"AND", "OR", "NOT", "BY", "AS"}:
        raise SplError(f"{text!r} is no operand")
    found.fields.add(text)
    return "field", text


def _call(name: str, words: Words, found: Expression) -> None:
    if name not in _FUNCTIONS:
        raise SplError(f"the function {name} is not known")
    words.expect("(")
    count = 0
    while not words.skip(")"):
        if count:
            words.expect(",")
        read_expression(words, found)
        count += 1
    least, most = _FUNCTIONS[name]
    if not least <= count <= most or (name == "case" and count % 2):
        raise SplError(f"{name} does not take {count} arguments")


def read_whole(text: str) -> Expression:
    """Read a text that is one expression."""
    words, found = Words(text, of_eval=True), Expression()
    read_expression(words, found)
    if words:
        raise SplError(f"not understood: {words.peek()[1]!r} in {text!r}")
    return found


def read_assignments(text: str) -> list[tuple[str, Expression]]:
    """Read `a=…, b=…`."""
    words = Words(text, of_eval=True)
    made: list[tuple[str, Expression]] = []
    while True:
        name = words.field()
        words.expect("=")
        found = Expression()
        read_expression(words, found)
        made.append((name, found))
        if not words:
            return made
        words.expect(",")
