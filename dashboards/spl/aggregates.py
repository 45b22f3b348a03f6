"""
What stands behind `stats`, `timechart` and their like: functions over rows, their names, and what they are made by.
"""

from __future__ import annotations

import re
from collections.abc import Collection

import msgspec

from dashboards.spl.errors import SplError
from dashboards.spl.expressions import Expression, read_whole
from dashboards.spl.words import Words

#: Those that hand on a value as it is.
_HANDING_ON = {"latest", "last", "min", "max", "values"}
_FUNCTIONS = {"count", "dc", "sum", "avg", *_HANDING_ON}
_PERCENTILE = re.compile(r"p\d\d?")
#: Their like is for timechart alone, which knows its span.
_RATES = {"per_second"}


class Aggregate(msgspec.Struct, frozen=True):
    """One function: its column's name, the field it is of (`` if of none, or of an expression), what it reads."""

    function: str
    name: str
    field: str
    expression: Expression

    @property
    def hands_on(self) -> bool:
        """Tell whether its values are values of its field."""
        return self.function in _HANDING_ON


class Aggregation(msgspec.Struct, frozen=True):
    """All of a command's: its options, its functions, and the fields behind BY."""

    options: dict[str, str]
    functions: tuple[Aggregate, ...]
    by: tuple[str, ...]


def read_aggregation(text: str, *, options: Collection[str] = (), rates: bool = False) -> Aggregation:
    """Read `option=… f(x) AS y … BY a b`; SplError of an option or a function that is not known."""
    words = Words(text)
    said: dict[str, str] = {}
    functions: list[Aggregate] = []
    while words and words.peek()[1].upper() != "BY":
        if words.peek(1) == ("mark", "="):
            name = words.take()[1]
            words.expect("=")
            if name not in options:
                raise SplError(f"the option {name} is not known in {text!r}")
            said[name] = words.take()[1]
            continue
        functions.append(_function(words, rates=rates))
        words.skip(",")
    by: list[str] = []
    if words.skip("BY"):
        by.append(words.field())
        while words:
            words.skip(",")
            by.append(words.field())
    if not functions:
        raise SplError(f"nothing is counted in {text!r}")
    names = [one.name for one in functions] + by
    if twice := {name for name in names if names.count(name) > 1}:
        raise SplError(f"{', '.join(sorted(twice))} would be there twice in {text!r}")
    return Aggregation(said, tuple(functions), tuple(by))


def _function(words: Words, *, rates: bool) -> Aggregate:
    kind, function = words.take()
    known = function in _FUNCTIONS or _PERCENTILE.fullmatch(function) or (rates and function in _RATES)
    if kind != "name" or not known:
        raise SplError(f"the function {function} is not known here")
    field, expression, name = "", Expression(), function
    if words.peek() == ("mark", "("):
        inside = words.inside()
        name = f"{function}({inside})"
        if inside.startswith("eval ( ") and inside.endswith(" )"):
            expression = read_whole(inside.removeprefix("eval ( ").removesuffix(" )"))
        else:
            field = Words(inside).field()
            expression = Expression(fields={field})
    elif function != "count":
        raise SplError(f"{function} is of no field")
    if words.skip("AS"):
        name = words.field()
    elif expression.fields and not field:
        raise SplError(f"{name} has no name: say AS")
    return Aggregate(function, name, field, expression)
