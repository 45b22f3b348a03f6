"""Courses over time: well-formed, in their places, and the same for the same numbers."""

from __future__ import annotations

import re
from itertools import pairwise
from xml.etree import ElementTree as ET

import pytest

from collector.drawing.axes import plain
from collector.drawing.svg import WIDTH
from collector.drawing.timeline import Band, Course, Span, Strip, timeline, times

NAMESPACE = "{http://www.w3.org/2000/svg}"
DAY = 1440
START = 20_458 * DAY


def chart(*courses: Course, spans: tuple[Span, ...] = (), bands: tuple[Band, ...] = ()) -> ET.Element:
    strip = Strip("A panel", START, START + 600, plain("", [10]), 100, courses, bands, spans)
    return ET.fromstring(timeline("A title", "a < b & c", [strip, strip], feet=["below"]))


def paths(root: ET.Element, colour: str) -> list[list[tuple[float, float]]]:
    found = [
        one.get("d", "") for one in root.iter(f"{NAMESPACE}path") if colour in {one.get("stroke"), one.get("fill")}
    ]
    return [[(float(x), float(y)) for x, y in re.findall(r"([\d.]+) ([\d.]+)", path)] for path in found]


def test_a_timeline_is_xml_with_each_panel_and_each_name() -> None:
    """A browser shows nothing at all of a file with one stray character."""
    root = chart(
        Course("came", "#111111", [(START, 1.0)]), bands=(Band("band", "#222222", [(START, 1.0, 2.0)]),),
        spans=(Span("a <finding>", "#333333", START, START + 60),),
    )  # fmt: skip
    words = [one.text for one in root.iter(f"{NAMESPACE}text")]

    assert {"A title", "a < b & c", "A panel", "came", "band", "a <finding>", "below"} <= set(words)
    assert 2 == words.count("A panel")


def test_a_later_value_lies_further_right_and_a_greater_one_higher() -> None:
    """Upside down, an outage is a peak."""
    root = chart(Course("", "#111111", [(START, 1.0), (START + 300, 5.0), (START + 600, 9.0)]))
    (first, second) = paths(root, "#111111")

    assert sorted(first) == first
    assert [y for _, y in first] == sorted((y for _, y in first), reverse=True)
    assert first[1][0] - first[0][0] == pytest.approx(first[2][0] - first[1][0], abs=0.2)
    assert all(below > above for (_, above), (_, below) in zip(first, second, strict=True))
    assert all(0 < x < WIDTH for x, _ in first)


def test_what_is_not_known_breaks_the_line() -> None:
    """A line through a gap says that somebody knew."""
    points = [(START, 1.0), (START + 5, 2.0), (START + 10, None), (START + 15, 3.0)]
    first = paths(chart(Course("", "#111111", points)), "#111111")[:2]

    assert [2, 1] == [len(one) for one in first]


def test_what_leaves_the_axis_runs_along_its_edge() -> None:
    """Cut off, a peak looks like no data."""
    (first, _) = paths(chart(Course("", "#111111", [(START, 99.0), (START + 5, 10.0), (START + 10, -5.0)])), "#111111")

    assert first[0][1] == first[1][1] < first[2][1]
    assert 100 == pytest.approx(first[2][1] - first[0][1])


def test_a_span_is_as_wide_as_its_time_and_never_invisible() -> None:
    """A finding of five minutes in a picture of two weeks is a hair."""
    spans = (Span("", "#333333", START - 60, START + 300), Span("", "#333333", START + 400, START + 400.01))
    widths = [
        float(one.get("width", "0"))
        for one in chart(spans=spans).iter(f"{NAMESPACE}rect")
        if one.get("fill") == "#333333"
    ]

    assert widths[0] == pytest.approx((WIDTH - 96 - 70) / 2)
    assert 1.0 == widths[1]


def test_names_of_spans_that_begin_together_are_below_each_other() -> None:
    """Two names on one another are none."""
    spans = tuple(Span(f"finding {n}", "#333333", START + 10 * n, START + 60) for n in range(3))
    heights = [
        float(one.get("y", "")) for one in chart(spans=spans).iter(f"{NAMESPACE}text") if "finding" in (one.text or "")
    ]

    assert [16, 16] == [after - before for before, after in pairwise(heights[:3])]


@pytest.mark.parametrize(
    ("hours", "first", "last"), [(3, "00:00", "03:00"), (24, "5 Jan", "6 Jan"), (15 * 24, "5 Jan", "19 Jan")]
)
def test_times_are_round_and_midnights_are_dates(hours: int, first: str, last: str) -> None:
    """Who looks at a picture of two weeks asks for the day first."""
    found = times(START, START + hours * 60)

    assert 3 <= len(found) <= 10
    assert (first if hours > 3 else "5 Jan", last) == (found[0][1], found[-1][1])


def test_the_same_numbers_make_the_same_timeline() -> None:
    """The picture in the documentation is made anew by a test, and a diff must mean a change."""
    course = Course("ours", "#000", [(START, 1 / 3), (START + 5, 2 / 3)])

    assert ET.tostring(chart(course)) == ET.tostring(chart(course))
