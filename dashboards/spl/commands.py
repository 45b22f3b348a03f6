"""
The commands that are known: what each reads, and which columns it leaves.
"""

from __future__ import annotations

import re
from collections.abc import Callable

from dashboards.spl.aggregates import Aggregate, Aggregation, read_aggregation
from dashboards.spl.errors import SplError
from dashboards.spl.expressions import Expression, read_assignments, read_whole
from dashboards.spl.state import Column, Schema, State
from dashboards.spl.words import Words

_TIMECHART = {"bins", "minspan", "partial", "limit", "useother"}
_SPAN = re.compile(r"\d+[smhd]")


def check_values(state: State, compared: set[tuple[str, str]], schema: Schema) -> None:
    """Refuse a text that the field it is compared with can't be."""
    for name, text in sorted(compared):
        origin = state.columns[name].origin if name in state.columns else ""
        if origin in schema.values and text not in schema.values[origin]:
            raise SplError(f"{origin} is never {text!r}; it is {', '.join(sorted(schema.values[origin]))}")


def _expression(state: State, found: Expression, schema: Schema) -> State:
    state = state.reading(sorted(found.fields))
    check_values(state, found.compared, schema)
    return state


def _where(text: str, state: State, schema: Schema) -> State:
    return _expression(state, read_whole(text), schema)


def _eval(text: str, state: State, schema: Schema) -> State:
    for name, found in read_assignments(text):
        state = _expression(state, found, schema)
        # What stands in for a field where it is missing is still of it, for whoever compares or draws it.
        origin = state.columns[name].origin if name in state.columns and name in found.fields else ""
        state = state.with_columns([Column(name, origin)])
    return state


def _aggregated(found: Aggregation, state: State, schema: Schema) -> State:
    for one in found.functions:
        state = _expression(state, one.expression, schema)
    return state.reading(found.by)


def _column(one: Aggregate, state: State) -> Column:
    return Column(one.name, state.columns[one.field].origin if one.field and one.hands_on else "")


def _stats(text: str, state: State, schema: Schema) -> State:
    found = read_aggregation(text)
    state = _aggregated(found, state, schema)
    made = [_column(one, state) for one in found.functions]
    return state.only([*(state.columns[name] for name in found.by), *made], of_time="_time" in found.by)


def _eventstats(text: str, state: State, schema: Schema) -> State:
    found = read_aggregation(text)
    state = _aggregated(found, state, schema)
    return state.with_columns([_column(one, state) for one in found.functions])


def _streamstats(text: str, state: State, schema: Schema) -> State:
    found = read_aggregation(text, options={"current"})
    state = _aggregated(found, state, schema)
    return state.with_columns([_column(one, state) for one in found.functions])


def _timechart(text: str, state: State, schema: Schema) -> State:
    found = read_aggregation(text, options=_TIMECHART, rates=True)
    for name in {"minspan"} & set(found.options):
        if not _SPAN.fullmatch(found.options[name]):
            raise SplError(f"{name} is no span of time: {found.options[name]}")
    state = _aggregated(found, state, schema).reading(["_time"])
    if not found.by:
        return state.only([state.columns["_time"], *(_column(one, state) for one in found.functions)], of_time=True)
    if len(found.by) > 1 or len(found.functions) > 1:
        raise SplError(f"timechart splits one function by one field: {text!r}")
    one = found.functions[0]
    return state.only([state.columns["_time"]], of_time=True, split=found.by[0], of=one.field or one.function)


def _bin(text: str, state: State, _schema: Schema) -> State:
    match = re.fullmatch(r"_time span=\d+[smhd]", text)
    if match is None:
        raise SplError(f"bin is known as `bin _time span=5m`: {text!r}")
    return state.reading(["_time"])


def _addinfo(text: str, state: State, _schema: Schema) -> State:
    if text:
        raise SplError(f"addinfo takes nothing: {text!r}")
    return state.with_columns([Column("info_min_time"), Column("info_max_time")])


def _names(text: str) -> list[str]:
    words, names = Words(text), []
    while words:
        names.append(words.field())
        words.skip(",")
    if not names:
        raise SplError("no field is named")
    return names


def _fields(text: str, state: State, _schema: Schema) -> State:
    return state.kept(_names(text))


def _sort(text: str, state: State, _schema: Schema) -> State:
    words = Words(text)
    if words.take() != ("number", "0"):
        raise SplError(f"sort without 0 drops what is behind the first 10,000: {text!r}")
    names = []
    while words:
        words.skip("-")
        names.append(words.field())
        words.skip(",")
    if not names:
        raise SplError(f"sorted by nothing: {text!r}")
    return state.reading(names)


def _rename(text: str, state: State, _schema: Schema) -> State:
    words = Words(text)
    columns = dict(state.reading([]).columns)
    while words:
        old = words.field()
        words.expect("AS")
        new = words.field()
        state = state.reading([old])
        columns[new] = Column(new, columns.pop(old).origin)
        words.skip(",")
    return state.only(columns.values(), of_time=state.of_time)


def _fillnull(text: str, state: State, _schema: Schema) -> State:
    match = re.fullmatch(r"value=(\d+|\"[^\"]*\") (.*)", text)
    if match is None:
        raise SplError(f"fillnull is known as `fillnull value=0 a b`: {text!r}")
    return state.reading(_names(match[2]))


def _head(text: str, state: State, _schema: Schema) -> State:
    if not text.isdigit():
        raise SplError(f"head takes a number: {text!r}")
    return state


Command = Callable[[str, State, Schema], State]
#: `search`, `tstats` and `multisearch` get events, and are the reader's.
COMMANDS: dict[str, Command] = {
    "addinfo": _addinfo,
    "bin": _bin,
    "eval": _eval,
    "eventstats": _eventstats,
    "fields": _fields,
    "fillnull": _fillnull,
    "head": _head,
    "rename": _rename,
    "sort": _sort,
    "stats": _stats,
    "streamstats": _streamstats,
    "table": _fields,
    "timechart": _timechart,
    "where": _where,
}
