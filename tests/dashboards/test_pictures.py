"""The pictures are of the dashboards as they are."""

from __future__ import annotations

from pathlib import Path
from xml.etree import ElementTree as ET

import pytest

from dashboards import picture, samples
from dashboards.charts import cut, wrapped
from dashboards.views import View, read_views

VIEWS = read_views()
README = Path(picture.__file__).parent / "README.md"


@pytest.mark.parametrize("view", VIEWS, ids=lambda view: view.name)
def test_a_picture_is_up_to_date(view: View) -> None:
    """`python -m dashboards pictures` makes it so."""
    assert picture.drawn(view) == (picture.FOLDER / f"{view.name}.svg").read_text()


def test_there_are_pictures_of_what_there_is_and_no_others() -> None:
    """One of a dashboard that is gone shows what nobody will find."""
    assert {f"{view.name}.svg" for view in VIEWS} == {file.name for file in picture.FOLDER.iterdir()}


@pytest.mark.parametrize("view", VIEWS, ids=lambda view: view.name)
def test_a_picture_says_what_it_is(view: View) -> None:
    """Sample data that is taken for a screenshot is a lie."""
    words = " ".join(ET.fromstring(picture.drawn(view)).itertext())

    assert "on sample data" in words
    assert "no screenshot of Splunk" in words
    for one in view.inputs:
        assert one.label in words


@pytest.mark.parametrize("view", VIEWS, ids=lambda view: view.name)
def test_a_picture_lies_within_its_page(view: View) -> None:
    """What is drawn outside of it is not seen."""
    root = ET.fromstring(picture.drawn(view))
    _, _, width, height = (float(part) for part in root.attrib["viewBox"].split())
    for one in root.iter("{http://www.w3.org/2000/svg}rect"):
        x, y = float(one.get("x", 0)), float(one.get("y", 0))
        assert 0 <= x <= x + float(one.attrib["width"]) <= width
        assert 0 <= y <= y + float(one.attrib["height"]) <= height
    for word in root.iter("{http://www.w3.org/2000/svg}text"):
        assert 0 <= float(word.attrib["x"]) <= width
        assert 0 <= float(word.attrib["y"]) <= height


def test_drawing_writes_each_picture(tmp_path: Path) -> None:
    """The verb and the test draw with the same hand."""
    files = picture.draw(tmp_path / "new")

    assert [f"{view.name}.svg" for view in VIEWS] == [file.name for file in files]
    assert files[0].read_text() == picture.drawn(VIEWS[0])


def test_a_column_without_a_sample_is_named() -> None:
    """A search that gains a column is to be drawn with it."""
    with pytest.raises(KeyError, match="shoe_size"):
        samples.cell("shoe_size", 0, frozenset())
    with pytest.raises(KeyError, match="shoe_size"):
        samples.number_of("shoe_size")


def test_the_readme_shows_every_picture_and_says_that_they_are_drawn() -> None:
    """It is what a stranger sees first."""
    text = README.read_text()

    assert "not screenshots" in text
    for view in VIEWS:
        assert f"../docs/dashboards/{view.name}.svg" in text


def test_words_that_do_not_fit_are_cut_or_wrapped() -> None:
    """Words that run over others are read by nobody."""
    assert "abc" == cut("abc", 100, 10)
    assert "abc…" == cut("abcdefgh", 22, 10)
    assert ["aa bb", "cc"] == wrapped("aa bb cc", 30, 10)
    assert ["a-very-long-word", "b"] == wrapped("a-very-long-word b", 20, 10)
