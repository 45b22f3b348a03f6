"""The app searches for what the code says, and for all of it that matters."""

from __future__ import annotations

import re
from pathlib import Path

import pytest

from collector.buffer.room import HIGH_WATERMARK
from collector.telemetry.catalogue import SIGNALS
from collector.telemetry.hec.options import SOURCE, SOURCETYPE
from collector.telemetry.logs import MAX_LINE_BYTES
from dashboards.app import Found, alerts, macros, panel_state, read_search, searches
from dashboards.confs import read_conf
from dashboards.schema import schema
from dashboards.spl import SplError, tokens
from dashboards.views import APP, VIEWS, View, parse, read_studio, read_views

FOUND = list(searches())
#: The view that looks at Splunk itself, and at no line of Collector's.
OF_SPLUNK = "hec_server"
#: What need not be looked for by name, and why.
UNSEARCHED: dict[str, str] = {}
DEPLOYS = {
    "worker.started", "drain.done", "generation.ready", "generation.ended", "reload.done", "reload.rejected",
    "master.died", "tenants.loaded", "tenants.rejected", "segment.adopted",
}  # fmt: skip
_CRON_BOUNDS = ((0, 59), (0, 23), (1, 31), (1, 12), (0, 7))
_RELATIVE = re.compile(r"[+-]\d+[mhd](@[mhd])?|now|-\d+m")


def named() -> set[str]:
    return {signal for found in FOUND for signal in read_search(found.query, found.tokens).named}


@pytest.mark.parametrize("found", FOUND, ids=[found.where for found in FOUND])
def test_a_search_names_only_what_is_emitted(found: Found) -> None:
    """A field or a signal that the code does not have makes a panel that is empty for ever, and looks like peace."""
    state = read_search(found.query, found.tokens)

    assert state.columns or state.split


@pytest.mark.parametrize("found", FOUND, ids=[found.where for found in FOUND])
def test_a_search_looks_into_the_index_of_the_macro_alone(found: Found) -> None:
    """An index is named in one place, or an operator has to find them all."""
    if found.where.startswith(OF_SPLUNK):
        assert "`" not in found.query
        assert re.search(r'index="_(introspection|internal)"', found.query)
    else:
        begins = len(re.findall(r"sourcetype=", found.query))

        assert begins == found.query.count("`collector_index`")
        assert begins == found.query.count(f'`collector_index` sourcetype="{SOURCETYPE}"')
        assert not re.search(r"\bindex\s*=", found.query)


def test_there_are_searches_of_every_kind() -> None:
    """The checks above hold nothing when a reader of files has stopped to find them."""
    assert 9 == len(read_views())
    assert 1 == len(read_studio())
    assert 15 <= len(alerts())
    assert 140 < len(FOUND)
    assert {view.name for view in read_views()} | {"overview_studio"} == {file.stem for file in VIEWS.glob("*.xml")}


def test_what_can_be_searched_for_is_the_catalogue() -> None:
    """The reader believes what it is told; a field that was made up here would pass everywhere."""
    lines = schema().sources[SOURCETYPE]
    spoken = {name: signal for name, signal in SIGNALS.items() if signal.levels}

    assert {*spoken, "gunicorn"} == set(lines.signals)
    for name, signal in spoken.items():
        assert {"owner", *signal.fields} == {field.removesuffix("{}") for field in lines.signals[name]}
        assert set(signal.levels) == lines.levels[name]
    assert {"problems{}"} == {field for held in lines.signals.values() for field in held if field.endswith("{}")}
    assert {"ts", "level", "event", "boot", "seq", "pid"} == lines.common


def test_every_signal_that_matters_is_searched_for() -> None:
    """An error that no dashboard and no alert shows is one that nobody will see."""
    matters = {
        name for name, signal in SIGNALS.items() if "error" in signal.levels or signal.is_report or name in DEPLOYS
    }

    assert set() == matters - named() - set(UNSEARCHED)
    assert DEPLOYS <= set(SIGNALS)
    assert set() == set(UNSEARCHED) & named()


def test_every_error_has_an_alert() -> None:
    """An error means that data is lost or a human is needed: somebody is to be told."""
    errors = {name for name, signal in SIGNALS.items() if "error" in signal.levels}

    told = {signal for one in alerts().values() for signal in read_search(one["search"]).named}

    assert set() == errors - told


def test_the_fields_of_reports_are_all_shown() -> None:
    """A report is made for dashboards: a field that none reads is a field too many, or a panel too few."""
    used: dict[str, set[str]] = {}
    for found in FOUND:
        state = read_search(found.query, found.tokens)
        for signal in state.named:
            used.setdefault(signal, set()).update(state.used)

    assert {} == {
        name: missing
        for name, signal in SIGNALS.items()
        if signal.is_report and (missing := set(signal.fields) - used.get(name, set()) - {"seconds"})
    }


@pytest.mark.parametrize("view", read_views(), ids=lambda view: view.name)
def test_a_dashboard_is_whole(view: View) -> None:
    """What a person can't choose, a panel can't depend on; what has no name is not found."""
    assert "1.1" == view.version
    assert view.label
    assert view.description
    assert 1 == sum(one.kind == "time" for one in view.inputs)
    assert len({panel.title for panel in view.panels}) == len(list(view.panels))
    for panel in view.panels:
        assert panel.title
        assert (panel.search.earliest == "") == bool(panel.search.base)
        used = tokens(f"{panel.search.query} {panel.search.earliest} {panel.search.latest}")
        assert {name for name, _ in used} <= view.tokens
        # A name that a person chooses may hold a quote; the filter puts it in quotes, and those into it away.
        assert {"s"} >= {kind for name, kind in used if not name.startswith("time.")}
    for token in view.tokens - {"time.earliest", "time.latest"}:
        assert any(f"${token}|s$" in panel.search.query for panel in view.panels)


def test_a_token_that_nothing_sets_is_seen() -> None:
    """A panel that waits for it says so for ever."""
    with pytest.raises(SplError, match=r"nothing sets the token \$tsk\$"):
        read_search(f'`collector_index` sourcetype="{SOURCETYPE}" host=$tsk|s$', {"task"})


@pytest.mark.parametrize("view", read_views(), ids=lambda view: view.name)
def test_what_a_panel_shows_comes_out_of_its_search(view: View) -> None:
    """A click, a choice and a colour stand on columns by their names, and say nothing when those are gone."""
    there = {other.name: other.tokens for other in read_views()}
    for panel in view.panels:
        state = panel_state(view, panel)
        if panel.kind == "single":
            assert 1 == len([name for name in state.columns if name != "_time"])
        if panel.kind == "chart":
            assert state.of_time
            overlay = panel.options.get("charting.chart.overlayFields")
            assert overlay is None or overlay in state.columns
        for click in panel.clicks:
            for name, _ in tokens(click):
                base, _, column = name.partition(".")
                assert column in state.columns if base == "row" else name in view.tokens
            for target, query in re.findall(r"/app/collector/(\w+)\?(\S+)", click):
                assert set(re.findall(r"form\.([\w.]+)=", query)) <= there[target]
            if click.startswith("form."):
                assert click.removeprefix("form.") in view.tokens
    for one in view.inputs:
        if one.search is not None:
            assert set(one.shown) <= set(read_search(one.search.query, view.tokens).columns)
            assert one.shown


def test_colours_of_ranges_fit_their_bounds() -> None:
    """Splunk shows no colour at all, when there is not one more than there are bounds."""
    found = [panel.options for view in read_views() for panel in view.panels if "rangeValues" in panel.options]

    assert 20 < len(found)
    for options in found:
        assert options["rangeColors"].count("0x") == options["rangeValues"].count(",") + 2


def test_the_watermark_is_the_one_of_the_code() -> None:
    """An alert at another number rings too early, or when it is too late."""
    shown = [
        panel.options["rangeValues"] for view in read_views() for panel in view.panels if "spool" in panel.title.lower()
        and "rangeValues" in panel.options and panel.options.get("unit") == "%"
    ]  # fmt: skip

    assert str(round(HIGH_WATERMARK * 100)) == macros()["collector_spool_percent"]
    assert shown
    assert {f"[70,{HIGH_WATERMARK * 100:.0f}]"} == set(shown)


@pytest.mark.parametrize(("name", "alert"), alerts().items(), ids=list(alerts()))
def test_an_alert_is_off_and_says_what_to_do(name: str, alert: dict[str, str]) -> None:
    """Who installs the app decides what wakes whom; who is woken is told what comes first."""
    state = read_search(alert["search"])

    assert "0" == alert["enableSched"]
    assert name.startswith("Collector: ")
    assert "First:" in alert["description"]
    assert set(alert["alert.suppress.fields"].split(",")) <= set(state.columns)
    assert "1" == alert["alert.suppress"]
    assert re.fullmatch(r"\d+[mh]", alert["alert.suppress.period"])
    assert ("number of events", "greater than", "0") == (alert["counttype"], alert["relation"], alert["quantity"])
    assert _RELATIVE.fullmatch(alert["dispatch.earliest_time"])
    assert _RELATIVE.fullmatch(alert["dispatch.latest_time"])
    assert not [field for field in ("actions", "action.email", "is_scheduled") if field in alert]


@pytest.mark.parametrize(("name", "alert"), alerts().items(), ids=list(alerts()))
def test_an_alert_on_what_was_indexed_leaves_no_interval_out(name: str, alert: dict[str, str]) -> None:
    """What it looks back is how often it runs, and the scheduler makes up for every run."""
    window = re.search(r"_index_earliest=-(\d+)m@m _index_latest=@m", alert["search"])
    minutes = cron_minutes(alert["cron_schedule"])
    if window is None:
        assert "_index_" not in alert["search"]
        return

    assert {int(window[1])} == {
        (after - before) % 60 for before, after in zip(minutes, minutes[1:] + minutes[:1], strict=True)
    }
    assert "0" == alert["realtime_schedule"]


def cron_minutes(schedule: str) -> list[int]:
    """Return the minutes of an hour; AssertionError if it is no schedule of five fields, each within its bounds."""
    fields = schedule.split()
    assert 5 == len(fields), schedule
    for field, (low, high) in zip(fields, _CRON_BOUNDS, strict=True):
        match = re.fullmatch(r"(\*|\d+(?:-\d+)?)(?:/(\d+))?", field)
        assert match, schedule
        numbers = [int(number) for number in re.findall(r"\d+", match[1])]
        assert all(low <= number <= high for number in numbers), schedule
        assert match[2] is None or 0 < int(match[2]) <= high, schedule
    minute, _, step = fields[0].partition("/")
    first, _, last = (minute.replace("*", "0-59") if step else f"{minute}-{minute}").partition("-")
    return list(range(int(first), int(last) + 1, int(step or 1)))


@pytest.mark.parametrize("schedule", ["* * * *", "60 * * * *", "*/0 * * * *", "1 24 * * *", "x * * * *", "1 * 0 * *"])
def test_a_schedule_that_is_none_is_seen(schedule: str) -> None:
    """Splunk leaves such an alert out and says so in its own log alone."""
    with pytest.raises(AssertionError):
        cron_minutes(schedule)


def test_macros_are_used_and_each_is_one() -> None:
    """One that nothing uses is changed in vain."""
    used = {name for found in FOUND for name in re.findall(r"`(\w+)`", found.query)}

    assert set(macros()) == used


def test_the_readme_tells_of_every_alert_and_macro() -> None:
    """Who is woken looks there."""
    text = (APP / "README.md").read_text()

    assert list(alerts()) == re.findall(r"^\| (Collector: [^|]+?) \|", text, re.MULTILINE)
    assert list(macros()) == re.findall(r"^\| `(collector_\w+)` \|", text, re.MULTILINE)


def test_lines_are_parsed_once_and_whole() -> None:
    """Fields taken at index time and again at search time are there twice; a line cut short is no JSON."""
    props = read_conf(APP / "default" / "props.conf")

    assert [SOURCETYPE] == list(props)
    assert "json" == props[SOURCETYPE]["KV_MODE"]
    assert "INDEXED_EXTRACTIONS" not in props[SOURCETYPE]
    assert MAX_LINE_BYTES < int(props[SOURCETYPE]["TRUNCATE"])
    assert "collector" == SOURCE


def test_the_menu_names_every_dashboard() -> None:
    """What is not in it, only its author finds."""
    menu = parse(APP / "default" / "data" / "ui" / "nav" / "default.xml")
    listed = [str(view.get("name")) for view in menu.iter("view")]

    assert {"alerts", "search", *(file.stem for file in VIEWS.glob("*.xml"))} == set(listed)
    assert len(set(listed)) == len(listed)
    assert ["overview"] == [view.get("name") for view in menu.iter("view") if view.get("default")]


def test_the_view_of_splunk_itself_is_for_administrators() -> None:
    """Others may not see its indexes, and would take an empty panel for peace."""
    meta = (APP / "metadata" / "default.meta").read_text()

    assert re.search(r"\[views/hec_server\]\naccess = read : \[ admin, sc_admin \]", meta)


def test_nothing_of_one_installation_is_in_the_app() -> None:
    """What lies in local/ is the operator's, and an upgrade leaves it alone."""
    assert not (APP / "local").exists()
    assert not (APP / "metadata" / "local.meta").exists()


@pytest.mark.parametrize(
    ("text", "words"),
    [
        ("a = 1\n", r"x\.conf:1"),
        ("[a]\nb\n", r"x\.conf:2"),
        ("[a]\nb = 1\nb = 2\n", r"x\.conf:3"),
        ("[a]\n[a]\n", r"x\.conf:2"),
        ("[a\n", r"x\.conf:1"),
        ("[a]\nb = 1 \\\n", "goes on into nothing"),
    ],
)
def test_a_conf_file_that_splunk_would_misread_is_refused(tmp_path: Path, text: str, words: str) -> None:
    """Splunk takes the last of two and drops what it does not know."""
    (tmp_path / "x.conf").write_text(text)

    with pytest.raises(ValueError, match=words):
        read_conf(tmp_path / "x.conf")


def test_a_setting_goes_on_behind_a_backslash(tmp_path: Path) -> None:
    """A search in one line is read by nobody."""
    (tmp_path / "x.conf").write_text("# a comment\n[a]\nb = 1 \\\n| 2 \\\n  3\nc = d = e\n")

    assert {"a": {"b": "1\n| 2\n3", "c": "d = e"}} == read_conf(tmp_path / "x.conf")
