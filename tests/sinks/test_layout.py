"""Where objects lie when a template says so, and which templates would lose or hide some."""

from __future__ import annotations

import re
from pathlib import Path, PurePosixPath
from urllib.parse import quote

import pytest
from click.testing import CliRunner
from hypothesis import example, given
from hypothesis import strategies as st

from collector import cli
from collector.sinks.layout import DEFAULT, around, check_layout
from collector.sinks.local import STALE_US, LocalSink
from collector.sinks.registry import open_rescue_sink, open_sink
from collector.sinks.s3 import S3Sink
from tests.fakes import HOUR, FakeClock, batch

HIVE = "year={year}/month={month}/day={day}/hour={hour}/tenant={tenant}"


def written(place: str, tmp_path: Path) -> list[str]:
    sink = open_sink(place, writer_id="w1")
    sink.start()
    for tenant in ("acme", "zeta"):
        sink.write(batch(b"{}", name=f"w1-{tenant}", tenant_id=tenant, hour=HOUR))
    sink.close()
    return sorted(path.relative_to(tmp_path).as_posix() for path in tmp_path.rglob("*") if path.is_file())


@pytest.mark.parametrize(
    ("options", "places"),
    [
        ("key={tenant}/{date}/{hour}", ["acme/2026-01-02/03", "zeta/2026-01-02/03"]),
        (
            f"key={HIVE}",
            [f"year=2026/month=01/day=02/hour=03/tenant={tenant}" for tenant in ("acme", "zeta")],
        ),
        ("key=v1/{date}T{hour}-{tenant}", ["v1/2026-01-02T03-acme", "v1/2026-01-02T03-zeta"]),
        ("by=hour&key={year}{month}{day}/{hour}", ["20260102/03", "20260102/03"]),
    ],
)
@pytest.mark.parametrize("form", ["raw", "encoded"])
def test_objects_lie_where_the_template_says_and_keep_their_names(
    options: str, places: list[str], form: str, tmp_path: Path
) -> None:
    """A query engine that is there already has its own layout; some write braces into a URL, some may not."""
    if form == "encoded":
        options = "&".join(
            f"{name}={quote(value, safe='')}" for name, value in (pair.split("=", 1) for pair in options.split("&"))
        )
    found = written(f"file:{tmp_path}?fsync=0&{options}", tmp_path)

    assert found == [f"{places[0]}/w1-acme.ndjson.zst", f"{places[1]}/w1-zeta.ndjson.zst"]


@pytest.mark.parametrize(
    ("options", "said"),
    [
        ("key={tenant}/{date}/{minute}", "{minute} is none of {tenant}, {date}, {year}, {month}, {day}, {hour}"),
        ("key={}/{date}/{hour}", "{} is none of"),
        ("key={date}/{hour}", "it lacks {tenant}, of which each has objects of its own; write that, or by=hour"),
        ("by=hour&key={tenant}/{date}/{hour}", "it has {tenant}, and by=hour puts all tenants into one object"),
        ("key={tenant}/{date}", "it does not say the whole hour; write {date} and {hour}, or {year}"),
        ("key={tenant}/{hour}", "it does not say the whole hour"),
        ("key={tenant}/{year}/{month}/{hour}", "it does not say the whole hour"),
        ("key={tenant}/{year}/{month}/{day}", "it does not say the whole hour"),
        ("key={tenant}/{tenant}/{date}/{hour}", "it has {tenant} twice; write each once"),
        ("key=", "it has an empty part; write one slash between two parts"),
        ("key=/{tenant}/{date}/{hour}", "it has an empty part"),
        ("key={tenant}/{date}/{hour}/", "it has an empty part"),
        ("key={tenant}//{date}/{hour}", "it has an empty part"),
        ("key=../{tenant}/{date}/{hour}", "'..' can't be a part of it"),
        ("key={tenant}/./{date}/{hour}", "'.' can't be a part of it"),
        ("key=.{tenant}/{date}/{hour}", "'.{tenant}' can't be a part of it"),
        ("key={tenant}/{date}/{hour", "'{hour' can't be a part of it"),
        ("key={tenant}/a b/{date}/{hour}", "'a b' can't be a part of it"),
        ("key={tenant}/*/{date}/{hour}", "'*' can't be a part of it"),
        ("key={tenant}/%00/{date}/{hour}", "can't be a part of it"),
        ("key={tenant}/%C3%BC/{date}/{hour}", "can't be a part of it"),
        (f"key={'a' * 107}/{{tenant}}/{{date}}/{{hour}}", "it has over 128 characters"),
    ],
)
@pytest.mark.parametrize("place", ["file:data", "s3://bucket/prefix"])
def test_a_template_that_would_lose_or_hide_objects_is_a_sentence(place: str, options: str, said: str) -> None:
    """Before a port opens: objects that lie where nobody looks, or over each other, are found too late."""
    with pytest.raises(ValueError, match="its key is") as raised:
        open_sink(f"{place}?{options}", writer_id="w1")

    assert said in str(raised.value)


@pytest.mark.parametrize("place", ["file:rescue", "s3://bucket/rescue"])
def test_a_rescue_sink_has_no_template(place: str) -> None:
    """Its batches are found again by where they lie."""
    with pytest.raises(ValueError, match="a rescue sink has its own places; leave out key="):
        open_rescue_sink(f"{place}?key={{tenant}}/{{date}}/{{hour}}", route="default", writer_id="w1")
    open_rescue_sink(place, route="default", writer_id="w1")


_PARTS = st.sampled_from(["{tenant}", "{date}", "{year}", "{month}", "{day}", "{hour}", "/", "a", "0", "=", "-", ".."])
_TENANTS = st.from_regex(r"[A-Za-z0-9_-]{1,12}", fullmatch=True)
_HOURS = st.integers(0, 1_000_000)


@given(
    template=st.lists(_PARTS, min_size=3, max_size=10).map("".join) | st.just(HIVE),
    tenants=st.tuples(_TENANTS, _TENANTS),
    hours=st.tuples(_HOURS, _HOURS),
)
@example(template="{tenant}{date}{hour}", tenants=("a", "a2026"), hours=(HOUR, HOUR))
@example(template="{hour}{tenant}-{date}", tenants=("00", "0"), hours=(HOUR, HOUR + 1))
def test_a_template_that_is_taken_tells_each_tenant_and_hour_from_every_other(
    template: str, tenants: tuple[str, str], hours: tuple[int, int]
) -> None:
    """Whoever may read one tenant's folder must not find another's there, and nothing lies above the place."""
    try:
        check_layout(template, by="tenant")
    except ValueError:
        return
    places = [tenant.join(around(template, hour)) for tenant, hour in zip(tenants, hours, strict=True)]

    assert (tenants[0], hours[0]) == (tenants[1], hours[1]) or places[0] != places[1]
    for place in places:
        assert "{" not in place
        assert re.fullmatch(r"[^/]+(/[^/]+)*", place)
        assert not any(part.startswith(".") for part in PurePosixPath(place).parts)


def test_an_object_is_pointed_to_where_the_template_puts_it(tmp_path: Path) -> None:
    """A claim in a stream is all that tells its reader where an event lies."""
    key = "key={date}/{hour}/{tenant}"
    sinks = [open_sink(f"{place}?{key}", writer_id="w1") for place in (f"file:{tmp_path}", "s3://bucket/p")]
    one = batch(b"{}", name="w1-1", hour=HOUR)
    sinks[0].write(one)

    for sink in sinks:
        assert isinstance(sink, LocalSink | S3Sink)
        assert sink.url_of(one).endswith("/2026-01-02/03/dev/w1-1.ndjson.zst")
    assert (tmp_path / "2026-01-02/03/dev/w1-1.ndjson.zst").exists()


def test_without_a_template_objects_lie_where_they_always_did() -> None:
    """Every program that reads them knows the names by heart."""
    assert "tenant=dev/date=2026-01-02/hour=03" == "dev".join(around(DEFAULT["tenant"], HOUR))
    assert ("date=2026-01-02/hour=03", "") == around(DEFAULT["hour"], HOUR)
    for by, template in DEFAULT.items():
        check_layout(template, by=by)


def test_what_a_killed_writer_left_is_swept_below_a_template_too(tmp_path: Path, clock: FakeClock) -> None:
    """Half an object an hour is half a disk a year."""
    stale, other = (tmp_path / name for name in ("20260102/03/dev/.a.ndjson.zst.tmp", "x/y/.a.ndjson.zst.tmp"))
    for path in (stale, other):
        path.parent.mkdir(parents=True)
        path.write_bytes(b"half")
    clock.advance((2 * STALE_US + other.stat().st_mtime_ns // 1000 - clock.now_us()) / 1e6)
    LocalSink(tmp_path, clock=clock, key="{year}{month}{day}/{hour}/{tenant}").start()

    assert (False, True) == (stale.exists(), other.exists())


def test_a_template_goes_through_the_settings_as_it_is_written(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """A file, an environment and a table stand between the person who writes it and the sink."""
    monkeypatch.chdir(tmp_path)
    (tmp_path / "c.toml").write_text(
        f'[tenants.app]\nkeys = ["{"a1" * 32}"]\n[routes.hive]\nsink = "file:hive?key={HIVE}"\n'
    )
    environ = {"COLLECTOR_CONFIG": "c.toml", "COLLECTOR_SPOOL_DIR": "/dev/shm/collector-test-layout"}
    taken = CliRunner().invoke(
        cli.main, ["check"], env={**environ, "COLLECTOR_SINK": "file:d?key={tenant}/{date}/{hour}"}
    )
    refused = CliRunner().invoke(cli.main, ["check"], env={**environ, "COLLECTOR_SINK": "file:d?key={tenant}/{date}"})

    assert 0 == taken.exit_code, taken.output
    assert f"hive to file:{tmp_path}/hive?key={HIVE}" in taken.stdout
    assert 1 == refused.exit_code
    assert "COLLECTOR_SINK: sink" in refused.stderr
    assert "it does not say the whole hour" in refused.stderr
