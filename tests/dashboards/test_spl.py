"""The reader of searches knows what it reads, and refuses what it does not."""

from __future__ import annotations

import contextlib
import re

import pytest
from hypothesis import given
from hypothesis import strategies as st

from dashboards.app import read_search
from dashboards.spl import SplError, State

LINES = '`collector_index` sourcetype="collector:log"'


def columns(query: str) -> list[str]:
    return list(read_search(f"{LINES} {query}").columns)


def test_a_field_of_another_signal_is_not_at_hand() -> None:
    """A column that is always empty is the commonest mistake of a dashboard, and no Splunk complains of it."""
    with pytest.raises(SplError, match=r"no field route here in intake\.report"):
        read_search(f'{LINES} event="intake.report" | stats sum(events) AS events BY route')


def test_fields_of_all_signals_that_can_pass_are_at_hand() -> None:
    """A search of two signals reads fields of either."""
    state = read_search(f'{LINES} event IN ("intake.report", "route.report") | stats count BY tenant route')

    assert {"intake.report", "route.report"} == state.signals == state.named


@pytest.mark.parametrize(
    ("filters", "signals"),
    [
        ('event="hec.failing" level="warning"', {"hec.failing"}),
        ('event="hec.failing" OR event="hec.refused"', {"hec.failing", "hec.refused"}),
        ('NOT event="hec.failing" retry_in_s>1 cause="x"', {"hec.refused"}),
        ('(event="hec.failing") OR (event="ledger.report" balanced="false")', {"hec.failing", "ledger.report"}),
        ('event!="hec.failing" event IN ("hec.failing", "hec.refused")', {"hec.refused"}),
        ('level="error" stage="preflight"', {"reload.rejected"}),
        ('event="hec.*" reason="full" NOT reason="rejected"', None),
    ],
)  # fmt: skip
def test_a_filter_tells_which_signals_pass(filters: str, signals: set[str] | None) -> None:
    """What is at hand behind it depends on nothing else."""
    if signals is None:
        with pytest.raises(SplError, match="there is no signal"):
            read_search(f"{LINES} {filters}")
    else:
        assert signals == read_search(f"{LINES} {filters}").signals


@pytest.mark.parametrize(
    ("query", "left"),
    [
        ('event="drain.done" | stats sum(left) AS left dc(host) BY scope', ["scope", "left", "dc(host)"]),
        ('event="drain.done" | eval all=accepted+left | table host all', ["host", "all"]),
        ('event="drain.done" | rename left AS "still there" | fields "still there"', ["still there"]),
        ('event="drain.done" | timechart bins=300 sum(left) AS x max(left) AS y', ["_time", "x", "y"]),
        ('event="drain.done" | timechart sum(left) BY host', ["_time"]),
        ('event="tenants.rejected" | eval p=mvjoin(\'problems{}\', "; ") | table p', ["p"]),
        ('event="tenants.rejected" | stats count BY problems{}', ["problems{}", "count"]),
        ('event="drain.done" | stats count(eval(scope="task" AND left>0)) AS tasks', ["tasks"]),
        ('event="drain.done" | bin _time span=5m | stats count BY _time | fillnull value=0 count', ["_time", "count"]),
    ],
)
def test_a_pipeline_leaves_its_columns(query: str, left: list[str]) -> None:
    """A table, a picture and a click stand on the columns that come out."""
    assert left == columns(query)


@pytest.mark.parametrize(
    ("query", "words"),
    [
        ('event="no.such"', "no signal"),
        ('event="upload.accepted"', "no signal"),
        ('event="drain.done" scope="all"', "scope is never 'all'"),
        ('event="ledger.report" | stats latest(balanced) AS b BY host | where b="no"', "balanced is never 'no'"),
        ('event="ledger.report" | eval x=if(balanced="FALSE", 1, 0)', "balanced is never"),
        ('event="events.lost" outcome="lost"', "outcome is never"),
        ('event="drain.done" level="error"', "no signal can pass"),
        ('event="drain.done" tenant="acme"', "no signal can pass"),
        ('event="drain.done" "drain"', "compared with no field"),
        ('event="drain.done" drain', "compared with nothing"),
        ('event="drain.done" earliest=yesterday', "no relative time"),
        ('event="drain.done" | sats count', "command sats"),
        ('event="drain.done" | stats', "nothing is counted"),
        ('event="drain.done" | stats mean(left)', "function mean"),
        ('event="drain.done" | stats per_second(left)', "function per_second"),
        ('event="drain.done" | stats span=5m count', "option span"),
        ('event="drain.done" | stats count AS host BY host', "there twice"),
        ('event="drain.done" | stats count(eval(left>0))', "say AS"),
        ('event="drain.done" | stats sum AS left', "of no field"),
        ('event="drain.done" | stats count | where left>0', "no field left"),
        ('event="drain.done" | fields host | table host left', "no field left"),
        ('event="drain.done" | rename left AS l | where left>0', "no field left"),
        ('event="drain.done" | timechart count BY host | stats sum(left) AS left', "no field left"),
        ('event="drain.done" | stats count BY host | timechart sum(count)', "no field _time"),
        ('event="drain.done" | timechart sum(left) max(left) BY host', "one function by one field"),
        ('event="drain.done" | timechart sum(left) BY host scope', "one function by one field"),
        ('event="drain.done" | timechart minspan=often count', "no span"),
        ('event="drain.done" | sort - left', "without 0"),
        ('event="drain.done" | sort 0 lost', "no field lost"),
        ('event="drain.done" | sort 0', "sorted by nothing"),
        ('event="drain.done" | head all', "takes a number"),
        ('event="drain.done" | bin left', "bin is known as"),
        ('event="drain.done" | fillnull left', "fillnull is known as"),
        ('event="drain.done" | fillnull value=0 lost', "no field lost"),
        ('event="drain.done" | addinfo now', "takes nothing"),
        ('event="drain.done" | eval x=iff(left>0, 1, 2)', "function iff"),
        ('event="drain.done" | eval x=if(left>0, 1)', "does not take 2"),
        ('event="drain.done" | eval x=case(left>0, 1, left)', "does not take 3"),
        ('event="drain.done" | eval x=', "missing at the end"),
        ('event="drain.done" | eval x=left+', "missing at the end"),
        ('event="drain.done" | eval x=left 5', "expected ,"),
        ('event="drain.done" | where left>0 0', "not understood"),
        ('event="drain.done" | where (left>0', "do not close"),
        ('event="drain.done" | where scope="task', "quote does not close"),
        ('event="drain.done" | | head 5', "stage is empty"),
        ('event="drain.done" | table *', "no field's name"),
        ('event="drain.done" | table', "no field is named"),
        ('event="drain.done" | search lost>0', "no field lost"),
        ('event="drain.done" | streamstats current=f last(lost) AS x BY host', "no field lost"),
        ('event="drain.done" | eventstats sum(lost) AS x', "no field lost"),
        ('event="drain.done" | where left > 0 ; x', "not understood"),
        ('event="drain.done" | rename left TO x', "expected AS"),
        ('event IN ("drain.done" "no")', "expected )"),
        ('`no_such_macro` event="drain.done"', "no macro"),
        ('event="drain.done" host=$task|s$', "nothing sets"),
    ],
)  # fmt: skip
def test_an_offender_is_refused(query: str, words: str) -> None:
    """What passes by not being understood is what breaks in front of an operator."""
    with pytest.raises(SplError, match=re.escape(words)):
        read_search(f"{LINES} {query}")


@pytest.mark.parametrize(
    ("query", "words"),
    [
        ('event="drain.done"', "one index and one sourcetype"),
        ('`collector_index` event="drain.done"', "one index and one sourcetype"),
        ('sourcetype="collector:log" event="drain.done"', "one index and one sourcetype"),
        ('`collector_index` sourcetype="collector:logs"', "nothing has the sourcetype"),
        ("", "is empty"),
        ("| inputlookup x", "gets no events"),
        ('| tstats count WHERE `collector_index` sourcetype="collector:log" BY tenant', "tstats sees no tenant"),
        ('| tstats sum(left) WHERE `collector_index` sourcetype="collector:log" BY host', "tstats sees no left"),
        ('| tstats count WHERE `collector_index` sourcetype="collector:log" event="x" BY host', "sees no event"),
        ("| tstats count BY host", "tstats is known as"),
        ('| tstats count WHERE sourcetype="collector:log" BY host', "one index and one sourcetype"),
        (f"| multisearch [ search {LINES} event=\"drain.done\" ]", "of two searches"),
        (f"| multisearch [ search {LINES} ] x [ search {LINES} ]", "not understood"),
        (f"| multisearch [ search {LINES} | stats count ] [ search {LINES} ]", "hands on events"),
    ],
)  # fmt: skip
def test_a_search_that_begins_wrongly_is_refused(query: str, words: str) -> None:
    """Its first stage decides what is looked through: too much, or what is not there."""
    with pytest.raises(SplError, match=re.escape(words)):
        read_search(query)


def test_two_searches_side_by_side_have_the_fields_of_both() -> None:
    """What one of them made is null in the other's events, and may be read."""
    state = read_search(
        f'| multisearch [ search {LINES} event="intake.report" earliest=-17m@m | eval a=uploads ]'
        f' [ search {LINES} event="route.report" | eval b=batches ] | stats sum(a) AS a sum(b) AS b BY host'
    )

    assert ["host", "a", "b"] == list(state.columns)
    assert {"intake.report", "route.report"} == state.named
    assert {"uploads", "batches"} <= state.used


def test_a_value_that_is_handed_on_stays_what_it_is() -> None:
    """A text is compared far behind where its field was read."""
    state = read_search(f'{LINES} event="ledger.report" | stats latest(balanced) AS b sum(pending) AS p BY host')

    assert "balanced" == state.columns["b"].origin
    assert "" == state.columns["p"].origin
    assert "host" == state.columns["host"].origin


@given(st.text(alphabet=st.sampled_from("abe09 _.=\"'()[]|,<>`$*+-eventsstats BYAS\\{}"), max_size=60))
def test_any_text_is_read_or_refused(text: str) -> None:
    """A dashboard is edited by people; a mistake gets a sentence, and no traceback."""
    with contextlib.suppress(SplError):
        assert isinstance(read_search(f'{LINES} event="drain.done" {text}'), State)
