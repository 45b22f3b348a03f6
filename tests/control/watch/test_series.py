"""Bytes by the minute: what a gap is, what a file may say, and where a window lies."""

from __future__ import annotations

import json
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from collector.control.watch.course import HOUR, SLOTS, WINDOW, Calendar, course_of
from collector.control.watch.files import points, read
from collector.control.watch.series import DAY, Metric, Series, filled, minute_of, moment_of, parse_minute, stamp
from collector.control.watch.weeks import MONDAY
from collector.errors import CannotLook

MINUTE = parse_minute("2026-01-02T03:04Z")


def test_a_minute_without_a_report_is_zero_of_a_load_balancer_and_unknown_of_a_counter() -> None:
    """CloudWatch says nothing of a minute without traffic; of a task that nobody read nobody knows."""
    told = {10: 5.0, 12: 7.0, 99: 1.0}

    assert [5.0, 0.0, 7.0] == filled(told, start=10, end=13, is_gap_zero=True).values
    assert [5.0, None, 7.0] == filled(told, start=10, end=13, is_gap_zero=False).values


def test_zeros_are_another_thing_than_no_report_at_all() -> None:
    """A name that CloudWatch does not know looks like a night without traffic."""
    assert filled({10: 0.0}, start=10, end=13, is_gap_zero=True).has_data
    assert not filled({9: 1.0, 13: 1.0}, start=10, end=13, is_gap_zero=True).has_data


def test_a_minute_is_written_as_it_is_read() -> None:
    """What a finding says is what --until takes."""
    assert "2026-01-02T03:04Z" == stamp(MINUTE)
    assert MINUTE == minute_of(moment_of(MINUTE)) == parse_minute("2026-01-02T04:04:59+01:00")


@pytest.mark.parametrize("text", ["", "AWS", "AWS/", "/x", "AWS/X,", "AWS/X,Dim", "AWS/X,Dim=", "AWS/X,=v", "AWS/X, "])
def test_what_names_no_metric_is_refused_with_an_example(text: str) -> None:
    """A metric that is misspelt has no data, which looks like an outage."""
    with pytest.raises(CannotLook, match="write NAMESPACE/NAME"):
        Metric.parse(text)


def test_a_metric_is_written_as_it_is_read() -> None:
    """Slashes are part of a namespace."""
    text = "AWS/Usage/Collector/Sent,Service=a,Cluster=b/c"
    metric = Metric.parse(text)

    assert ("AWS/Usage/Collector", "Sent", (("Service", "a"), ("Cluster", "b/c"))) == (
        metric.namespace, metric.name, metric.dimensions,
    )  # fmt: skip
    assert text == str(metric)


def test_a_file_is_read_as_csv_and_as_lines_of_json_in_any_order(tmp_path: Path) -> None:
    """What an export of CloudWatch gives is the one, what a script of somebody's gives the other."""
    csv, lines = tmp_path / "a.csv", tmp_path / "a.jsonl"
    csv.write_text("minute,bytes\n2026-01-02T03:05Z, 7.5\n\n2026-01-02T03:04:00+00:00,0\n")
    lines.write_text(
        "\n".join(json.dumps({"minute": stamp(MINUTE + n), "bytes": n, "more": [1]}) for n in (1, 0)) + "\n"
    )

    assert {MINUTE: 0.0, MINUTE + 1: 7.5} == read(csv)
    assert {MINUTE: 0.0, MINUTE + 1: 1.0} == read(lines)


@pytest.mark.parametrize(
    ("line", "said"),
    [
        ("2026-01-02T03:04Z", "no comma"),
        ("2026-01-02T03:04,1", "no zone"),
        ("yesterday,1", "Invalid isoformat"),
        ("2026-01-02T03:04Z,-1", "from 0 on"),
        ("2026-01-02T03:04Z,nan", "from 0 on"),
        ("2026-01-02T03:04Z,inf", "from 0 on"),
        ("2026-01-02T03:04Z,x", "could not convert"),
        ('{"minute": "2026-01-02T03:04Z"}', "bytes"),
        ('{"minute": 1, "bytes": 1}', "minute"),
        ('{"minute": "2026-01-02T03:04Z", "bytes": 1', "truncated"),
        ("2026-01-02T03:03Z,1", "on a line before"),
    ],
)
def test_a_line_that_is_none_is_told_by_its_number(line: str, said: str) -> None:
    """One bad line of twenty thousand is not found by looking."""
    with pytest.raises(CannotLook, match=f"(?s)^name:2: .*{said}"):
        points(["2026-01-02T03:03Z,1\n", line + "\n"], name="name")


def test_a_file_without_a_minute_is_told(tmp_path: Path) -> None:
    """An export that went wrong is empty, and would look like an outage."""
    (tmp_path / "empty").write_text("minute,bytes\n\n")
    (tmp_path / "latin").write_bytes(b"\xff\xfe")

    for name, said in (("empty", "names no minute"), ("latin", "can't be read"), ("none", "can't be read")):
        with pytest.raises(CannotLook, match=said):
            read(tmp_path / name)


@given(st.lists(st.text(max_size=40) | st.from_regex(r"\A20\d\d-0\d-0\dT0\d:0\dZ,\d{1,9}\Z"), max_size=8))
def test_whatever_a_file_says_it_is_read_or_refused_in_words(lines: list[str]) -> None:
    """It was written by a stranger's script."""
    found: dict[int, float] = {}
    told = ""
    try:
        found = points(lines, name="f")
    except CannotLook as error:
        told = str(error)

    assert bool(found) != told.startswith("f")
    assert all(value >= 0 for value in found.values())


def test_windows_end_with_the_last_minute_and_hold_five() -> None:
    """A window that is half there would be a drop by half, every time."""
    processed = Series(100, [float(n) for n in range(23)])
    course = course_of(processed, None, end=123, recent=10)

    assert 103 == course.start
    assert [sum(range(3 + 5 * n, 8 + 5 * n)) for n in range(4)] == course.processed
    assert (2, None) == (course.judged, course.sent)


def test_a_window_of_what_was_sent_is_unknown_when_a_minute_of_it_is() -> None:
    """A part of the minutes would be taken for less traffic, and for a gap."""
    processed = Series(100, [1.0] * 20)
    sent = Series(104, [2.0] * 9 + [None] + [2.0] * 6)

    assert [None, 10.0, None, 10.0] == course_of(processed, sent, end=120, recent=5).sent


def test_a_day_and_a_week_have_their_places() -> None:
    """A Monday that is taken for a Sunday is judged by Sundays."""
    calendar = Calendar()
    monday, sunday = calendar.place(MONDAY), calendar.place(MONDAY - 1)

    assert (0, 0) == (monday.weekday, monday.slot)
    assert (6, SLOTS - 1, monday.day - 1) == (sunday.weekday, sunday.slot, sunday.day)
    assert 1 == calendar.place(MONDAY + WINDOW).slot


def test_a_zone_has_its_own_days_and_an_hour_is_set_in_spring() -> None:
    """Who goes to work at eight does so by another minute of UTC, from one Sunday to the next."""
    berlin = Calendar("Europe/Berlin")
    saturday, monday = parse_minute("2026-03-28T07:00Z"), parse_minute("2026-03-30T06:00Z")

    assert 8 * HOUR == berlin.place(saturday).slot == berlin.place(monday).slot
    assert (5, 0) == (berlin.place(saturday).weekday, berlin.place(monday).weekday)
    assert not berlin.may_be_shifted(monday, within=15 * DAY)


@pytest.mark.parametrize(
    ("moment", "is_shifted"),
    [
        ("2026-02-20T12:00Z", False),
        ("2026-03-30T12:00Z", True),
        ("2026-03-10T12:00Z", True),
        ("2026-05-10T12:00Z", False),
    ],
)
def test_without_a_zone_it_is_known_when_clocks_were_set_somewhere(moment: str, is_shifted: bool) -> None:
    """A day that comes an hour later is no changed pattern, twice a year."""
    assert is_shifted == Calendar().may_be_shifted(parse_minute(moment), within=15 * DAY)


@pytest.mark.parametrize("zone", ["Mars/Olympus", "../etc/passwd", "europe berlin"])
def test_a_zone_that_is_none_is_told(zone: str) -> None:
    """UTC in its place would be wrong for a year and by an hour."""
    with pytest.raises(CannotLook, match="no zone"):
        Calendar(zone)
