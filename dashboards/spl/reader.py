"""
Reads a whole search, stage by stage.
"""

from __future__ import annotations

import msgspec

from dashboards.spl.aggregates import read_aggregation
from dashboards.spl.commands import COMMANDS, check_values
from dashboards.spl.errors import SplError
from dashboards.spl.filters import TIME_BOUNDS, Compared, Filter, chance, comparisons, read_filter
from dashboards.spl.state import OF_SPLUNK, Column, Schema, Source, State
from dashboards.spl.words import stages

#: What is known of an event without looking into it, and all that `tstats` may ask for.
_INDEXED = frozenset({"_time", "host", "source", "sourcetype", "index"})


def read(text: str, schema: Schema, *, base: State | None = None) -> State:
    """
    Read a search whose tokens and macros are filled in; `base` is what the search came to that it goes on from.

    SplError says what is not understood, or is not there.
    """
    first, *rest = stages(text)
    if base is not None:
        if first:
            rest.insert(0, first)
        state = base
    elif first:
        state = _events(first.removeprefix("search "), schema)
    elif rest:
        state = _generated(rest.pop(0), schema)
    else:
        raise SplError("the search is empty")
    for stage in rest:
        state = _stage(stage, state, schema)
    return state


def _stage(stage: str, state: State, schema: Schema) -> State:
    command, _, text = stage.partition(" ")
    if command == "search":
        return _narrowed(read_filter(text), state, schema)
    if command not in COMMANDS:
        raise SplError(f"the command {command} is not known")
    return COMMANDS[command](text.strip(), state, schema)


def _narrowed(node: Filter, state: State, schema: Schema) -> State:
    compared = comparisons(node)
    state = state.reading(one.field for one in compared)
    check_values(state, {(one.field, text) for one in compared for text in one.values if text != "*"}, schema)
    return state


def _events(text: str, schema: Schema) -> State:
    """Return what is known of the events that a first stage gets from the index."""
    node = read_filter(text)
    compared = comparisons(node)
    source = _source(compared, schema)
    signals = {
        name: fields | source.common | set(OF_SPLUNK)
        for name, fields in source.signals.items()
        if chance(
            node, fields | source.common | set(OF_SPLUNK), {"event": frozenset({name}), "level": source.levels[name]}
        ).hold
    }
    if source.signals and not signals:
        raise SplError(f"no signal can pass {text!r}")
    _check_events(compared, source)
    fields = source.common.union(OF_SPLUNK, *signals.values())
    state = State(
        columns={name: Column(name, name) for name in sorted(fields)}, signals=frozenset(signals), of_events=True,
        named=frozenset(value for one in compared if one.field == "event" for value in one.values),
    )  # fmt: skip
    compared = [one for one in compared if one.field not in TIME_BOUNDS]
    state = state.reading(one.field for one in compared)
    check_values(
        state,
        {(one.field, value) for one in compared if one.field != "sourcetype" for value in one.values if value != "*"},
        schema,
    )
    return state


def _source(compared: list[Compared], schema: Schema) -> Source:
    named = [one for one in compared if one.field in {"sourcetype", "index"} and one.operator == "="]
    if {"sourcetype", "index"} != {one.field for one in named} or len(named) > 2:
        raise SplError("a search names one index and one sourcetype, or it looks through all that there is")
    (sourcetype,) = (one.values[0] for one in named if one.field == "sourcetype")
    if sourcetype not in schema.sources:
        raise SplError(f"nothing has the sourcetype {sourcetype}")
    return schema.sources[sourcetype]


def _check_events(compared: list[Compared], source: Source) -> None:
    """Refuse a name that no signal has, beside others that there are."""
    if source.signals:
        for one in compared:
            for value in one.values if one.field == "event" else ():
                if value not in source.signals:
                    raise SplError(f"there is no signal {value}")


def _generated(stage: str, schema: Schema) -> State:
    command, _, text = stage.partition(" ")
    if command == "tstats":
        return _tstats(text, schema)
    if command == "multisearch":
        return _multisearch(text, schema)
    raise SplError(f"the command {command} gets no events, or is not known")


def _tstats(text: str, schema: Schema) -> State:
    """Read `count WHERE … BY …`: counts of what is indexed, which the JSON of an event is not."""
    counted, where, rest = text.partition(" WHERE ")
    filters, by, names = rest.rpartition(" BY ")
    if not where or not by:
        raise SplError(f"tstats is known as `tstats count WHERE … BY …`: {text!r}")
    node = read_filter(filters)
    _source(comparisons(node), schema)
    found = read_aggregation(f"{counted} BY {names}")
    asked = {one.field for one in comparisons(node)} | set(found.by) | {one.field for one in found.functions} - {""}
    if others := asked - _INDEXED:
        raise SplError(f"tstats sees no {', '.join(sorted(others))}: a field of the JSON is not indexed")
    state = State(columns={name: Column(name, name) for name in sorted(_INDEXED)})
    return state.only([*(state.columns[name] for name in found.by), *(Column(one.name) for one in found.functions)])


def _multisearch(text: str, schema: Schema) -> State:
    parts = text.split("]")
    states = []
    for part in parts[:-1]:
        opening, _, inside = part.partition("[")
        if opening.strip() or not inside.strip():
            raise SplError(f"not understood: {part!r}")
        states.append(read(inside.strip(), schema))
    if len(states) < 2 or parts[-1].strip():
        raise SplError(f"multisearch is of two searches in brackets: {text!r}")
    if not all(state.of_events for state in states):
        raise SplError("a search of a multisearch hands on events, and counts nothing")
    merged = states[0]
    for state in states[1:]:
        merged = msgspec.structs.replace(
            merged.with_columns(state.columns.values()),
            signals=merged.signals | state.signals, named=merged.named | state.named, used=merged.used | state.used,
        )  # fmt: skip
    return merged
