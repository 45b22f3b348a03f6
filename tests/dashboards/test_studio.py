"""The dashboard of Dashboard Studio fits together, and shows what the overview shows."""

from __future__ import annotations

import json
import re

import pytest

from dashboards.app import read_search
from dashboards.spl import tokens
from dashboards.views import read_studio, read_views

(STUDIO,) = read_studio()
PARTS = STUDIO.definition
ID = re.compile(r"[A-Za-z0-9_-]+")
KEYS = {"title", "description", "inputs", "defaults", "visualizations", "dataSources", "layout"}
TYPES = {f"splunk.{name}" for name in ("singlevalue", "area", "line", "column", "table")}
TOKENS = {"time.earliest", "time.latest", "task"}


def test_its_parts_are_those_of_the_schema() -> None:
    """An unknown key makes the whole dashboard an error."""
    assert "2" == STUDIO.version
    assert STUDIO.label == PARTS["title"]
    assert set(PARTS) == KEYS
    assert {"type", "options", "structure", "globalInputs"} == set(PARTS["layout"])
    assert "grid" == PARTS["layout"]["type"]
    for part in ("inputs", "visualizations", "dataSources"):
        assert all(ID.fullmatch(name) for name in PARTS[part])


def test_every_part_is_shown_and_every_name_is_there() -> None:
    """What refers to nothing is shown as an error, and what nobody refers to is never seen."""
    placed = [one["item"] for one in PARTS["layout"]["structure"]]
    shown = [*PARTS["visualizations"].values(), *(one for one in PARTS["inputs"].values() if "dataSources" in one)]

    assert sorted(placed) == sorted(PARTS["visualizations"])
    assert sorted(PARTS["layout"]["globalInputs"]) == sorted(PARTS["inputs"])
    assert sorted(one["dataSources"]["primary"] for one in shown) == sorted(PARTS["dataSources"])
    assert {one["type"] for one in PARTS["visualizations"].values()} <= TYPES
    assert {"ds.search"} == {one["type"] for one in PARTS["dataSources"].values()}
    assert all(tokens(json.dumps(one["options"])) <= {(name, kind) for name in TOKENS for kind in ("", "s")}
               for one in PARTS["dataSources"].values())  # fmt: skip


def test_panels_fill_rows_and_do_not_overlap() -> None:
    """A grid that does not add up is put together anew by the editor, in whatever order."""
    rows: dict[int, list[dict[str, int]]] = {}
    for one in PARTS["layout"]["structure"]:
        rows.setdefault(one["position"]["y"], []).append(one["position"])
    y = 0
    for top in sorted(rows):
        assert top == y
        x = 0
        for place in sorted(rows[top], key=lambda place: place["x"]):
            assert x == place["x"]
            x += place["w"]
        assert PARTS["layout"]["options"]["width"] == x
        assert 1 == len({place["h"] for place in rows[top]})
        y += rows[top][0]["h"]
    assert PARTS["layout"]["options"]["height"] == y


@pytest.mark.parametrize("name", list(PARTS["visualizations"]))
def test_a_series_that_is_named_comes_out_of_the_search(name: str) -> None:
    """A number that picks a column by name shows nothing when the column is called otherwise."""
    one = PARTS["visualizations"][name]
    state = read_search(PARTS["dataSources"][one["dataSources"]["primary"]]["options"]["query"], TOKENS)
    text = json.dumps(one)

    assert set(re.findall(r"seriesByName\(\\\"(\w+)\\\"\)", text)) <= set(state.columns)
    assert set(re.findall(r"\$row\.(\w+)\.value", text)) <= set(state.columns)
    if one["type"] == "splunk.singlevalue":
        assert "seriesByName" in text


def test_it_searches_as_the_overview_does() -> None:
    """Two dashboards of one name that differ are two truths."""
    (overview,) = [view for view in read_views() if view.name == "overview"]
    searches = {panel.title: panel.search for panel in overview.panels}
    sources = PARTS["dataSources"]
    shown = {
        one["title"]: sources[one["dataSources"]["primary"]]["options"] for one in PARTS["visualizations"].values()
    }

    assert set(searches) == set(shown)
    for title, search in searches.items():
        assert search.query == " ".join(shown[title]["query"].split())
        assert {"earliest": search.earliest, "latest": search.latest} == shown[title]["queryParameters"]
