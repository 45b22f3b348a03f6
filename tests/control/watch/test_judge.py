"""What is found in weeks that never were, what is not, and what is said to be out of sight."""

from __future__ import annotations

import math
from collections.abc import Callable
from functools import cache

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from collector.control.watch.bounds import Past
from collector.control.watch.course import HOUR, SLOTS, WINDOW, Calendar, course_of
from collector.control.watch.episodes import Episode, began, episodes
from collector.control.watch.finding import Finding, Of, What, amount, change
from collector.control.watch.judge import Judgement, judge
from collector.control.watch.normal import learn
from collector.control.watch.pattern import Pattern
from collector.control.watch.robust import agreed, median, rolling_median, rolling_spread, usual_most
from collector.control.watch.series import DAY, Series
from collector.control.watch.weeks import MONDAY, SIZES, Change, Kind, Traffic, make

Values = list[float | None]
#: Wednesday noon of the third week is the end; changes begin two hours before.
END, AGO = 16 * DAY + 12 * 60, 120


@cache
def made(kind: Kind = Kind.CLEAN, seed: int = 7, ago: int = AGO) -> tuple[Series, Series]:
    processed, sent = make(Traffic(seed, 17), Change(kind, END - ago, SIZES.get(kind, 1.0)))
    return cut(processed), cut(sent)


def cut(series: Series, days: float = 15) -> Series:
    start = MONDAY + END - int(days * DAY)
    return Series(start, series.values[start - series.start : MONDAY + END - series.start])


def judged(processed: Series, sent: Series | None, *, recent: int = 180, **more: object) -> Judgement:
    return judge(course_of(processed, sent, end=processed.end, recent=recent), Calendar("UTC"), **more)  # type: ignore[arg-type]


def changed(series: Series, what: Callable[[int, float], float | None]) -> Series:
    """Change values by how many minutes before the end they are."""
    size = len(series.values)
    return Series(series.start, [what(size - n, value or 0.0) for n, value in enumerate(series.values)])


def only(judgement: Judgement) -> Finding:
    assert 1 == len(judgement.findings), judgement.findings
    return judgement.findings[0]


def test_nothing_is_found_in_usual_traffic_with_all_said_that_it_was_judged_by() -> None:
    """A watch that cries every night is switched off."""
    result = judged(*made())

    assert [] == list(result.findings)
    assert [] == list(result.unseen)
    assert result.ratio is not None
    assert 1.03 == pytest.approx(result.ratio.usual_ratio, abs=0.003)


@pytest.mark.parametrize(
    ("kind", "what", "of"),
    [
        (Kind.ZERO, What.ZERO, Of.PROCESSED),
        (Kind.STEP_DOWN, What.STEP, Of.PROCESSED),
        (Kind.STEP_UP, What.STEP, Of.PROCESSED),
        (Kind.LUMPS, What.PATTERN, Of.PROCESSED),
    ],
)
def test_a_change_is_found_and_given_its_name_and_its_time(kind: Kind, what: What, of: Of) -> None:
    """At night three words and a time are what is read."""
    one = only(judged(*made(kind)))
    planted = MONDAY + END - AGO

    assert (what, of, True) == (one.what, one.of, one.is_on)
    # Of lumps, the first half is less, and no more than a step.
    assert abs(one.began - planted) <= 35
    assert planted < one.told <= planted + 60
    assert one.score >= 1
    assert one.look


@pytest.mark.parametrize(("kind", "seed"), [(Kind.FLAT, 7), (Kind.MOVED, 1)])
def test_a_day_of_another_shape_is_a_changed_pattern(kind: Kind, seed: int) -> None:
    """On one hour it is a step; over half a day it is less and more."""
    result = judged(*made(kind, seed=seed, ago=720), recent=720)

    assert What.PATTERN in {one.what for one in result.findings}


def test_a_leak_is_a_gap_that_widens_and_nothing_else() -> None:
    """One percent an hour is less than the traffic varies by: the ratio alone shows it."""
    one = only(judged(*made(Kind.LEAK, ago=360)))
    planted = MONDAY + END - 360

    assert (What.GAP, Of.RATIO, True) == (one.what, one.of, one.is_on)
    assert one.expected == pytest.approx(1.03, abs=0.003)
    assert one.came == pytest.approx(0.97, abs=0.01)
    assert planted < one.told <= planted + 150


def test_a_leak_is_not_seen_without_what_was_sent_and_that_is_said() -> None:
    """Silence about what can't be seen is taken for all being well."""
    processed, _ = made(Kind.LEAK, ago=360)
    result = judged(processed, None)

    assert [] == list(result.findings)
    assert any("--prometheus" in one for one in result.unseen)


def test_more_that_comes_through_than_is_sent_is_a_gap_as_well() -> None:
    """A task whose metrics nobody reads still sends."""
    processed, sent = made()
    one = only(judged(processed, changed(sent, lambda ago, value: value * (0.9 if ago <= 90 else 1.0))))

    assert (What.GAP, True) == (one.what, one.came > one.expected)
    assert "scraped" in one.look[0]


@pytest.mark.parametrize(("is_sending", "said"), [(True, "go on sending"), (False, "send nothing, either")])
def test_a_drop_to_zero_says_whether_the_tasks_go_on_sending(is_sending: bool, said: str) -> None:
    """It is the first question: on which side of the load balancer to look."""
    processed, sent = made()
    gone = changed(processed, lambda ago, value: 0.0 if ago <= 60 else value)
    one = only(judged(gone, sent if is_sending else changed(sent, lambda ago, value: 0.0 if ago <= 60 else value)))

    assert What.ZERO is one.what
    assert said in one.look[0]
    assert (10, 0.0) == (one.told - one.began, one.came)


def test_a_drop_to_zero_without_a_word_of_the_tasks_says_so() -> None:
    """It must not claim that they send nothing."""
    processed, _ = made()
    one = only(judged(changed(processed, lambda ago, value: 0.0 if ago <= 60 else value), None))

    assert "not known here" in one.look[0]


def test_a_step_that_the_tasks_do_not_have_is_told_as_a_loss_between() -> None:
    """A deploy that logs less and a load balancer that loses look the same from behind."""
    processed, sent = made()
    less = changed(processed, lambda ago, value: value * (0.6 if ago <= 120 else 1.0))
    found = {one.what: one for one in judged(less, sent).findings}
    both = only(judged(less, changed(sent, lambda ago, value: value * (0.6 if ago <= 120 else 1.0))))

    assert {What.STEP, What.GAP} == set(found)
    assert "lost or led elsewhere" in found[What.STEP].look[0]
    assert What.STEP is both.what
    assert "collector_hec_dropped_lines_total" in both.look[0]


def test_what_is_over_is_told_with_its_end_and_what_was_over_before_is_not() -> None:
    """Whoever looks once in three hours wants all of these, and none twice."""
    processed, sent = made()
    out = changed(processed, lambda ago, value: 0.0 if 60 < ago <= 100 else value)
    one = only(judged(out, changed(sent, lambda ago, value: 0.0 if 60 < ago <= 100 else value)))
    earlier = changed(processed, lambda ago, value: 0.0 if 400 < ago <= 440 else value)

    assert (processed.end - 100, processed.end - 60) == (one.began, one.over)
    assert [] == list(judged(earlier, None).findings)


def test_a_step_before_what_is_judged_that_stays_is_told_with_its_beginning() -> None:
    """Whoever looks late must not learn that it began when they looked."""
    processed, _ = made()
    one = only(judged(changed(processed, lambda ago, value: value * (0.5 if ago <= 300 else 1.0)), None, recent=60))

    assert abs(one.began - (processed.end - 300)) <= 15


def test_an_outage_in_the_past_does_not_spoil_what_is_expected() -> None:
    """With a mean of two weeks, a Wednesday's outage halves what is expected of the next Wednesday."""
    processed, sent = made()
    week = 7 * DAY
    out = changed(processed, lambda ago, value: 0.0 if week - 60 < ago <= week + 240 else value)
    plain, spoilt = (learn(course_of(one, None, end=one.end, recent=180), Calendar("UTC")) for one in (processed, out))

    assert plain is not None
    assert spoilt is not None
    worst = max(abs(a - b) for a, b in zip(plain.expected[-36:], spoilt.expected[-36:], strict=True))
    assert worst < 0.12
    assert What.STEP is only(judged(changed(out, lambda ago, value: value * (0.6 if ago <= 120 else 1.0)), None)).what
    assert [] == list(judged(out, None).findings)
    assert sent.values


def test_growth_over_weeks_is_expected_to_go_on() -> None:
    """A fifth more each week is a success, and no alarm each Wednesday."""
    processed, _ = make(Traffic(3, 17, growth_a_week=0.2), Change())
    result = judged(cut(processed), None, recent=720)

    assert [] == list(result.findings)
    assert result.normal is not None
    assert math.log(1.2) == pytest.approx(7 * result.normal.growth_a_day, rel=0.5)


def test_a_weekend_is_judged_by_weekends() -> None:
    """A third of the traffic on a Saturday is what Saturdays have; on a Wednesday it is an outage."""
    processed, _ = make(Traffic(5, 21, weekend=0.3), Change())
    end = 20 * DAY - 6 * 60
    weekend = Series(MONDAY + end - 15 * DAY, processed.values[end - 15 * DAY : end])
    wednesday = changed(made()[0], lambda ago, value: value * (0.3 if ago <= 120 else 1.0))

    assert 5 == Calendar().place(weekend.end - 1).weekday
    assert [] == list(judged(weekend, None, recent=720).findings)
    assert What.STEP is only(judged(wednesday, None)).what


def test_nights_without_traffic_are_no_drop_and_a_morning_without_is() -> None:
    """An office sends nothing at night."""
    office = [0.0 if minute % DAY < 6 * 60 else 9e6 + (minute * 7919) % 1000 * 2000 for minute in range(17 * DAY)]
    night = Series(MONDAY + DAY + 300, [float(one) for one in office[DAY + 300 : 16 * DAY + 300]])
    values: Values = [float(one) for one in office[DAY + 400 : 16 * DAY + 400]]
    values[-40:] = [0.0] * 40
    one = only(judged(Series(MONDAY + DAY + 400, values), None))

    assert [] == list(judged(night, None).findings)
    assert What.ZERO is one.what
    assert abs(one.began - (MONDAY + 16 * DAY + 360)) <= 5


def test_minutes_that_are_missing_now_and_then_are_nothing() -> None:
    """One of two hundred is late, or lost; all windows of an hour with one are not."""
    processed, sent = made()

    assert [] == list(judged(changed(processed, lambda ago, value: 0.0 if ago % 29 == 0 else value), sent).findings)


def test_a_burst_of_half_an_hour_is_nothing_and_one_that_stays_is_a_step() -> None:
    """A campaign is over before anybody has come to look."""
    processed, _ = made()

    assert [] == list(
        judged(changed(processed, lambda ago, value: value * (2.2 if 60 < ago <= 90 else 1.0)), None).findings
    )
    assert (
        What.STEP is only(judged(changed(processed, lambda ago, value: value * (2.2 if ago <= 90 else 1.0)), None)).what
    )


def test_what_every_day_has_at_some_time_is_no_news() -> None:
    """A job that holds everything up for an hour, whenever it happens to run, is how this service is."""
    clean, _ = made()
    # Forty minutes of half, a day at another time; today within what is judged.
    dips = changed(clean, lambda ago, value: value * (0.5 if (ago - 60 - ago // DAY * 203) % DAY < 40 else 1.0))
    today = changed(clean, lambda ago, value: value * (0.5 if 60 <= ago < 100 else 1.0))

    assert [] == list(judged(dips, None).findings)
    assert What.STEP is only(judged(today, None)).what


def test_with_too_short_a_history_it_is_said_what_is_not_looked_for() -> None:
    """A guess from a day and a half is worse than none."""
    processed, sent = made(Kind.ZERO)
    result = judged(cut(processed, 1.5), cut(sent, 1.5))

    assert result.normal is None
    assert any("1.4 days of history" in one for one in result.unseen)
    # Of the ratio six hours are enough.
    assert [What.GAP] == [one.what for one in result.findings]


def test_with_a_week_a_working_day_is_judged_by_working_days() -> None:
    """Pooled with a quiet weekend, a Monday would always be a step."""
    clean, _ = made()
    less, _ = made(Kind.STEP_DOWN)
    result = judged(cut(clean, 7), None)

    assert [] == list(result.findings)
    assert any("known from 14 days on" in one for one in result.unseen)
    assert What.STEP is only(judged(cut(less, 7), None)).what


def test_no_report_at_all_is_a_finding_and_nothing_else_is_said_of_it() -> None:
    """A region that is misspelt must not look like a quiet night."""
    empty = Series(MONDAY, [0.0] * (15 * DAY), has_data=False)
    one = only(judged(empty, None, has_data=False))

    assert (What.SILENT, Of.PROCESSED) == (one.what, one.of)
    assert "region" in one.look[0]


def test_tasks_of_which_nothing_is_told_any_more_are_a_finding() -> None:
    """Without them no loss is seen, and nobody would notice that."""
    processed, sent = made()
    quiet = changed(sent, lambda ago, value: None if ago <= 40 else value)
    never = Series(sent.start, [None] * len(sent.values), has_data=False)

    one = only(judged(processed, quiet))
    assert (What.SILENT, Of.SENT, sent.end - 40) == (one.what, one.of, one.began)
    assert [] == list(judged(processed, changed(sent, lambda ago, value: None if ago <= 25 else value)).findings)
    assert (What.SILENT, Of.SENT) == ((one := only(judged(processed, never, has_sent=False))).what, one.of)


def test_a_day_that_comes_an_hour_later_when_clocks_were_set_is_nothing() -> None:
    """UTC does not move; people do."""
    start = MONDAY + 70 * DAY
    traffic = Traffic(12, 17, start=start, swing=0.9, zone="Europe/Berlin")
    processed, _ = make(traffic, Change())
    end = 16 * DAY
    series = Series(start + end - 15 * DAY, processed.values[end - 15 * DAY : end])
    course = course_of(series, None, end=series.end, recent=DAY)

    def found(zone: str) -> list[What]:
        return [one.what for one in judge(course, Calendar(zone)).findings]

    # 16 March to 1 April; clocks were set on the 29th.
    assert [] == found("") == found("Europe/Berlin")
    assert [] != found("UTC")


def test_what_is_sensitive_finds_less_of_a_change() -> None:
    """Who has steady traffic may want to know of a fifth, and who has not, of nothing below a half."""
    processed, _ = made()
    little = changed(processed, lambda ago, value: value * (0.8 if ago <= 75 else 1.0))
    found = {one: len(judged(little, None, sensitivity=one).findings) for one in ("low", "high")}

    assert {"low": 0, "high": 1} == found


def test_what_is_told_at_a_window_does_not_change_with_what_comes_after() -> None:
    """Else the delay that is measured is not the delay of somebody who waits."""
    processed, sent = made(Kind.STEP_DOWN)
    told = only(judged(processed, sent)).told
    ends = {
        ago: judge(course_of(processed, sent, end=processed.end - ago, recent=180), Calendar("UTC")).findings
        for ago in (processed.end - told, processed.end - told + WINDOW)
    }

    assert [1, 0] == [len(one) for one in ends.values()]


@settings(max_examples=25)
@given(
    st.lists(st.floats(0, 1e15) | st.just(0.0), min_size=1, max_size=40),
    st.integers(0, 5 * DAY), st.integers(WINDOW, 600), st.booleans(),
)  # fmt: skip
def test_whatever_comes_it_is_judged(pattern: list[float], minutes: int, recent: int, has_sent: bool) -> None:
    """Traffic that is tiny, huge, or a handful of minutes long is somebody's."""
    values: Values = [pattern[n % len(pattern)] for n in range(minutes)]
    sent: Values = [None if n % 3 == 0 and n % 7 == 0 else pattern[n * 5 % len(pattern)] for n in range(minutes)]
    result = judged(Series(MONDAY, values), Series(MONDAY, sent) if has_sent else None, recent=recent)

    for one in result.findings:
        assert math.isfinite(one.score + one.expected + one.came)
        assert one.began < one.told


# -- parts -------------------------------------------------------------------------------------------------


def test_two_weeks_agree_on_the_lesser_and_more_on_the_middle() -> None:
    """One of two weeks may have been an outage; nobody knows which but by what is nearer to usual."""
    assert [0.0, 0.0, 0.1, -0.1, 0.0, 0.3] == [
        agreed(one) for one in ([], [0.5], [0.1, 0.6], [-5.0, -0.1], [-0.2, 0.3], [0.3, 9.0, 0.2])
    ]


def test_what_is_no_news_leaves_the_worst_days_of_two_weeks_out() -> None:
    """Three bad days of fifteen must not make the rest blind."""
    assert 1.0 == usual_most([1.0] * 12 + [50.0] * 3)
    assert 50.0 == usual_most([1.0] * 11 + [50.0] * 4)
    assert 0.0 == usual_most([])


@given(st.lists(st.integers(-50, 50), min_size=1, max_size=60), st.sampled_from([1, 3, 7, 25]))
def test_a_running_median_is_the_median_of_what_ran(values: list[int], span: int) -> None:
    """It is kept in order as it runs, which is easy to get wrong at both ends."""
    numbers = [float(one) for one in values]
    parts = [numbers[max(n - span + 1, 0) : n + 1] for n in range(len(numbers))]

    assert [sorted(one)[len(one) // 2] for one in parts] == rolling_median(numbers, span)
    assert [median([abs(v - sorted(one)[len(one) // 2]) for v in one]) for one in parts] == rolling_spread(
        numbers, span
    )


def test_a_slope_is_no_scatter_at_any_time_of_it_and_lumps_are() -> None:
    """Over two hours of a fall windows lie as far apart as in lumps, and over the last of them less."""
    places = [Calendar().place(MONDAY + WINDOW * n) for n in range(600)]
    past = Past.all_of(places[:500])
    quiet = [0.01 * (n % 3 - 1) for n in range(500)]
    slope = Pattern([*quiet, *[-0.024 * min(n, 26) + 0.01 * (n % 3) for n in range(100)]], places, past, 1.0)
    lumps = Pattern([*quiet, *[0.5 * (n % 3 - 1) for n in range(100)]], places, past, 1.0)

    assert [] == [at for at in range(600) if slope.is_scattered(at)]
    assert all(lumps.is_scattered(at) for at in range(530, 600))


def test_windows_near_each_other_are_one_episode() -> None:
    """An incident that flickers is one incident."""
    flagged = [at in {2, 3, 6, 11} for at in range(14)]

    assert [Episode(2, 6, 2), Episode(11, 11, 11)] == episodes(flagged, apart=3)


def test_a_beginning_is_where_it_left_what_was_usual() -> None:
    """A median is told late; a page that says so too sends people to the wrong deploy."""
    off = [0.01, -0.02, 0.0, -0.5, -0.6, 0.1, -0.5, -0.6, -0.5]

    assert 3 == began(off, Episode(7, 8, 7), 7)


def test_amounts_are_written_with_three_figures() -> None:
    """Nine digits of bytes are not read at night."""
    assert ["0 B", "999 B", "1 kB", "52.5 MB", "1.2 GB", "5e+04 TB"] == [
        amount(one) for one in (0, 999, 1000, 52.5e6, 1.2e9, 5e16)
    ]
    assert ["31% less", "50% more"] == [change(100, 69), change(100, 150)]


def test_an_hour_has_its_windows() -> None:
    """What is written by hours and what by windows must be of the same day."""
    assert (12, 288) == (HOUR, SLOTS)
