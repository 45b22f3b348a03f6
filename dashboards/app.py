"""
The searches of the app, each read with the macros and the schema that it will meet.
"""

from __future__ import annotations

from collections.abc import Collection, Iterator
from pathlib import Path
from typing import NamedTuple

from dashboards.confs import read_conf
from dashboards.schema import schema
from dashboards.spl import SplError, State, expand, fill, read
from dashboards.views import APP, Panel, Search, View, read_studio, read_views


class Found(NamedTuple):
    """One search: where it stands, its SPL as written, and the tokens that are set there."""

    where: str
    query: str
    tokens: Collection[str]
    base: str = ""


def macros(app: Path = APP) -> dict[str, str]:
    """Return what each macro stands for."""
    return {name: one["definition"] for name, one in read_conf(app / "default" / "macros.conf").items()}


def alerts(app: Path = APP) -> dict[str, dict[str, str]]:
    """Return the settings of each saved search."""
    return read_conf(app / "default" / "savedsearches.conf")


def read_search(query: str, tokens: Collection[str] = (), *, base: State | None = None) -> State:
    """Read a search as it stands in a file; SplError says what is wrong with it."""
    return read(" ".join(expand(fill(query, tokens), macros()).split()), schema(), base=base)


def panel_state(view: View, panel: Panel) -> State:
    """Read the search of a panel, and what it goes on from."""
    return _of(view, panel.search)


def _of(view: View, search: Search) -> State:
    if not search.base:
        return read_search(search.query, view.tokens)
    if search.base not in view.bases:
        raise SplError(f"{view.name} has no search {search.base} to go on from")
    return read_search(search.query, view.tokens, base=_of(view, view.bases[search.base]))


def searches() -> Iterator[Found]:
    """Give every search of the app, of whatever file, that begins at the index."""
    for view in read_views():
        for panel in view.panels:
            yield Found(f"{view.name}: {panel.title}", *_whole(view, panel.search))
        for one in view.inputs:
            if one.search is not None:
                yield Found(f"{view.name}: input {one.token}", *_whole(view, one.search))
    for studio in read_studio():
        tokens = {"time.earliest", "time.latest"} | {
            one["options"]["token"] for one in studio.definition["inputs"].values() if one["type"] != "input.timerange"
        }
        for name, source in studio.definition["dataSources"].items():
            yield Found(f"{studio.name}: {name}", source["options"]["query"], tokens)
    for name, settings in alerts().items():
        yield Found(name, settings["search"], ())


def _whole(view: View, search: Search) -> tuple[str, set[str]]:
    """Return a panel's SPL with what it goes on from before it."""
    query = f"{view.bases[search.base].query} {search.query}" if search.base else search.query
    return query, view.tokens
