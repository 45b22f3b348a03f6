"""
Reads dashboards: those in Simple XML into rows of panels, the one of Dashboard Studio into its parts.
"""

from __future__ import annotations

import json
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any
from xml.etree import ElementTree as ET

import msgspec

APP = Path(__file__).parent / "collector"
VIEWS = APP / "default" / "data" / "ui" / "views"
_PANELS = {"single", "chart", "table"}


class Search(msgspec.Struct, frozen=True):
    """A search of a view: its SPL as written, its time range, and the id of what it goes on from, or ``."""

    query: str
    earliest: str = ""
    latest: str = ""
    base: str = ""


class Input(msgspec.Struct, frozen=True):
    """What a person chooses: which token it sets, and what it offers."""

    token: str
    kind: str
    label: str
    default: str
    search: Search | None = None
    shown: tuple[str, ...] = ()


class Panel(msgspec.Struct, frozen=True):
    """One visualization: `kind` is single, chart or table; `clicks` are texts with the tokens of a click."""

    title: str
    kind: str
    search: Search
    options: Mapping[str, str]
    clicks: tuple[str, ...] = ()


class View(msgspec.Struct, frozen=True):
    """A dashboard in Simple XML."""

    name: str
    version: str
    label: str
    description: str
    inputs: tuple[Input, ...]
    rows: tuple[tuple[Panel, ...], ...]
    bases: Mapping[str, Search]

    @property
    def panels(self) -> Iterator[Panel]:
        """Give all panels, row by row."""
        return (panel for row in self.rows for panel in row)

    @property
    def tokens(self) -> set[str]:
        """Name what its inputs set."""
        times = {f"{one.token}.{end}" for one in self.inputs if one.kind == "time" for end in ("earliest", "latest")}
        return times | {one.token for one in self.inputs if one.kind != "time"}


class Studio(msgspec.Struct, frozen=True):
    """A dashboard of Dashboard Studio: what is about it in XML, and its definition."""

    name: str
    version: str
    label: str
    definition: dict[str, Any]


def read_views() -> list[View]:
    """Read all dashboards in Simple XML, by name; ValueError of one that has no panels to be read."""
    return [
        view for file in sorted(VIEWS.glob("*.xml")) if not is_studio(root := parse(file)) for view in [of(file, root)]
    ]


def read_studio() -> list[Studio]:
    """Read all dashboards of Dashboard Studio."""
    found = []
    for file in sorted(VIEWS.glob("*.xml")):
        root = parse(file)
        if is_studio(root):
            definition = json.loads(_text(root, "definition"))
            found.append(Studio(file.stem, root.get("version", ""), _text(root, "label"), definition))
    return found


def parse(file: Path) -> ET.Element:
    """Parse a view's XML; ET.ParseError if it is none."""
    return ET.fromstring(file.read_text())  # noqa: S314 -- our own files


def is_studio(root: ET.Element) -> bool:
    """Tell a dashboard of Dashboard Studio from one in Simple XML."""
    return root.find("definition") is not None


def of(file: Path, root: ET.Element) -> View:
    """Read a dashboard in Simple XML."""
    rows = tuple(
        tuple(_panel(file, panel) for panel in row.findall("panel")) for row in root.findall("row")
    )  # fmt: skip
    if not rows or not all(rows):
        raise ValueError(f"{file.name}: a dashboard has rows, and a row has panels")
    return View(
        name=file.stem,
        version=root.get("version", ""),
        label=_text(root, "label"),
        description=_text(root, "description"),
        inputs=tuple(_input(one) for one in root.iterfind("fieldset/input")),
        rows=rows,
        bases={str(one.get("id")): _search(one) for one in root.findall("search")},
    )


def _text(element: ET.Element, path: str) -> str:
    return " ".join((element.findtext(path) or "").split())


def _search(element: ET.Element) -> Search:
    return Search(
        _text(element, "query"), _text(element, "earliest"), _text(element, "latest"), element.get("base", "")
    )


def _input(element: ET.Element) -> Input:
    search = element.find("search")
    return Input(
        token=element.get("token", ""),
        kind=element.get("type", ""),
        label=_text(element, "label"),
        default=_text(element, "default") or _text(element, "default/earliest"),
        search=None if search is None else _search(search),
        shown=tuple(_text(element, tag) for tag in ("fieldForLabel", "fieldForValue") if element.find(tag) is not None),
    )


def _panel(file: Path, element: ET.Element) -> Panel:
    shown = [child for child in element if child.tag in _PANELS]
    if len(shown) != 1 or len(element) != 1:
        raise ValueError(f"{file.name}: a panel shows one of {', '.join(sorted(_PANELS))}, and nothing else")
    (one,) = shown
    search = one.find("search")
    if search is None:
        raise ValueError(f"{file.name}: the panel {_text(one, 'title')} has no search")
    options = {str(option.get("name")): option.text or "" for option in one.findall("option")}
    clicks = tuple(text for child in one.iterfind("drilldown/*") for text in (child.text or "", child.get("token", "")))
    return Panel(_text(one, "title"), one.tag, _search(search), options, clicks)
