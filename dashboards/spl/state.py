"""
What is known between two stages of a pipeline.
"""

from __future__ import annotations

from collections.abc import Collection, Iterable, Mapping

import msgspec

from dashboards.spl.errors import SplError

#: What Splunk gives every event, whatever it holds.
OF_SPLUNK = ("_time", "_indextime", "_raw", "host", "source", "sourcetype", "index")


class Column(msgspec.Struct, frozen=True):
    """A field between two stages: its name, and of which field of the event its value is one, or `` if made."""

    name: str
    origin: str = ""


class Source(msgspec.Struct, frozen=True):
    """What events of one sourcetype hold: for each signal its fields and levels; `common` are those of all."""

    common: frozenset[str]
    signals: Mapping[str, frozenset[str]] = {}
    levels: Mapping[str, frozenset[str]] = {}


class Schema(msgspec.Struct, frozen=True):
    """What can be searched for: by sourcetype; and the values that a field of a closed list may have."""

    sources: Mapping[str, Source]
    values: Mapping[str, frozenset[str]]


class State(msgspec.Struct, frozen=True):
    """
    The fields at hand, by name; `split` is the field whose values are the names of columns (`made` of another).

    `signals` are those whose events can be among the results, `named` those that the search calls by name. Rows are
    moments if `of_time`, events if `of_events`. `used` are all fields of events that were read so far.
    """

    columns: Mapping[str, Column] = {}
    signals: frozenset[str] = frozenset()
    named: frozenset[str] = frozenset()
    split: str = ""
    made: str = ""
    of_time: bool = False
    of_events: bool = False
    used: frozenset[str] = frozenset()

    def reading(self, fields: Iterable[str]) -> State:
        """Return the state after fields were read; SplError of one that is not at hand."""
        read = list(fields)
        for field in read:
            if field not in self.columns:
                raise SplError(
                    f"there is no field {field} here"
                    + (f" in {', '.join(sorted(self.signals))}" if self.of_events else "")
                    + f"; there are {', '.join(sorted(self.columns))}"
                )
        origins = {self.columns[field].origin for field in read} - {""}
        return msgspec.structs.replace(self, used=self.used | origins)

    def with_columns(self, made: Iterable[Column]) -> State:
        """Return the state with more columns, or others of their names."""
        columns = {**self.columns, **{column.name: column for column in made}}
        return msgspec.structs.replace(self, columns=columns)

    def only(self, made: Iterable[Column], *, of_time: bool = False, split: str = "", of: str = "") -> State:
        """Return the state after a command that leaves these columns and no others."""
        columns = {column.name: column for column in made}
        return msgspec.structs.replace(
            self, columns=columns, of_time=of_time, of_events=False, split=split, made=of or self.made
        )

    def kept(self, names: Collection[str]) -> State:
        """Return the state with these columns alone, in this order."""
        state = self.reading(names)
        return msgspec.structs.replace(state, columns={name: self.columns[name] for name in names})
