"""The charts: well-formed, complete, and the same for the same numbers."""

from __future__ import annotations

from itertools import pairwise
from xml.etree import ElementTree as ET

import pytest

from collector.drawing.axes import Axis, log, plain, short
from collector.drawing.svg import WIDTH, Line, Panel, figure

NAMESPACE = "{http://www.w3.org/2000/svg}"


def chart(*lines: Line) -> str:
    values = [y for line in lines for _, y in line.points]
    return figure("A title", "a < b & c", [Panel("Events", log("n", [1, 100]), plain("", values), lines)])


def read(text: str) -> ET.Element:
    return ET.fromstring(text)


def test_a_chart_is_xml_with_each_point_and_each_name() -> None:
    """A browser shows nothing at all of a file with one stray character."""
    root = read(chart(Line("ours", "#000", [(1, 5), (10, 6), (100, 7)]), Line("theirs", "#111", [(1, 2), (100, 3)])))
    words = [one.text for one in root.iter(f"{NAMESPACE}text")]

    assert 5 == len(list(root.iter(f"{NAMESPACE}circle")))
    assert {"A title", "a < b & c", "Events", "ours", "theirs", "n"} <= set(words)


def test_the_same_numbers_make_the_same_file() -> None:
    """The plots are kept beside the text that speaks of them; a diff must mean a change."""
    line = Line("ours", "#000", [(1, 1 / 3), (100, 2 / 3)])

    assert chart(line) == chart(line)
    assert chart(line) != chart(Line("ours", "#000", [(1, 1 / 3), (100, 0.9)]))


def test_a_higher_number_lies_higher_and_a_later_one_further_right() -> None:
    """SVG counts downwards: upside down, a curve looks as good as the right way up."""
    root = read(chart(Line("ours", "#000", [(1, 1), (10, 2), (100, 3)])))
    places = [(float(one.get("cx", "")), float(one.get("cy", ""))) for one in root.iter(f"{NAMESPACE}circle")]

    assert sorted(places) == places
    assert sorted((y for _, y in places), reverse=True) == [y for _, y in places]
    # On a log scale, a decade is as wide as the next one.
    assert places[1][0] - places[0][0] == pytest.approx(places[2][0] - places[1][0], abs=0.2)
    assert all(0 < x < WIDTH for x, _ in places)


def test_names_of_lines_that_end_together_are_apart() -> None:
    """Two names on one another are none."""
    lines = [Line(f"line {n}", "#000", [(1, 5), (100, 5)]) for n in range(4)]
    root = read(chart(*lines))
    heights = sorted(
        float(one.get("y", "")) for one in root.iter(f"{NAMESPACE}text") if (one.text or "").startswith("line")
    )

    assert all(after - before >= 14 for before, after in pairwise(heights))


def test_an_empty_point_is_drawn_empty() -> None:
    """A rate with refusals in it is another thing than one without."""
    root = read(chart(Line("ours", "#123456", [(1, 5), (10, 6)], hollow=frozenset({10.0}))))

    assert ["#123456", "#ffffff"] == [one.get("fill") for one in root.iter(f"{NAMESPACE}circle")]


@pytest.mark.parametrize(
    ("axis", "ends", "labels"),
    [
        (plain("", [0, 870]), (0, 1000), ["0", "200", "400", "600", "800", "1,000"]),
        (plain("", [0.7]), (0, 0.8), ["0", "0.2", "0.4", "0.6", "0.8"]),
        (plain("", [60_000]), (0, 60_000), ["0", "20k", "40k", "60k"]),
        (plain("", []), (0, 1), ["0", "0.2", "0.4", "0.6", "0.8", "1"]),
        (log("", [1, 200]), (1, 200), ["1", "2", "5", "10", "20", "50", "100", "200"]),
        (log("", [0.3, 900]), (0.2, 1000), ["1", "10", "100", "1,000"]),
        (log("", [3, 3]), (2, 5), ["2", "5"]),
        (log("", [0, 10_000]), (10_000, 100_000), ["10k", "20k", "50k", "100k"]),
        (Axis("", 0.5, 2.5, only=[1, 2, 3]), (0.5, 2.5), ["1", "2"]),
    ],
)
def test_an_axis_is_between_round_numbers_and_says_few_of_them(
    axis: Axis, ends: tuple[float, float], labels: list[str]
) -> None:
    """Who reads a chart reads off its axes; the numbers there are those that one can halve in the head."""
    assert ends == pytest.approx((axis.low, axis.high))
    assert labels == [label for _, label in axis.ticks()]


def test_a_number_is_written_short() -> None:
    """Six digits beside an axis take the room of the chart."""
    assert ["0.5", "5,000", "20k", "1.5M"] == [short(value) for value in (0.5, 5000, 20_000, 1_500_000)]
