"""`collector parked`: what sinks refused for good can be found, looked at, and sent again."""

from __future__ import annotations

import os
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import pytest
from click.testing import CliRunner, Result

from collector import cli
from collector.cli import replay as replay_module
from collector.outcome import Reason
from collector.sinks.registry import open_parked, open_parked_source, open_source
from tests.fakes import HOUR, ScriptedSink, batch
from tests.standins.sdk import ENVIRON
from tests.standins.shared import started_seaweed

INVALID, TOO_LARGE = Reason.SINK_INVALID, Reason.SINK_TOO_LARGE


@pytest.fixture(autouse=True)
def _elsewhere(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    monkeypatch.chdir(tmp_path)
    monkeypatch.setenv("COLLECTOR_SPOOL_DIR", f"/dev/shm/collector-test-{os.getpid()}")


@contextmanager
def file_place() -> Iterator[str]:
    yield "file:rescue?fsync=0"


@contextmanager
def s3_place() -> Iterator[str]:
    running = started_seaweed()
    with pytest.MonkeyPatch.context() as patch:
        for name, value in ENVIRON.items():
            patch.setenv(name, value)
        yield f"s3://{running.bucket().name}/r?endpoint=http://127.0.0.1:{running.port}"


@pytest.fixture(name="place", params=[file_place, s3_place], ids=["file", "s3"])
def _place(request: pytest.FixtureRequest) -> Iterator[str]:
    with request.param() as place:
        yield place


def run(*arguments: str, **variables: str) -> Result:
    environ = {f"COLLECTOR_{name}": value for name, value in variables.items()}
    return CliRunner().invoke(cli.main, ["parked", *arguments], env=environ)


def park(
    place: str, *lines: bytes, name: str = "n1", reason: Reason = INVALID, route: str = "default",
    tenant_id: str = "dev", hour: int = HOUR,
) -> None:  # fmt: skip
    sink = open_parked(place, route=route, reason=reason, writer_id="w1")
    sink.start()
    sink.write(batch(*lines, name=name, tenant_id=tenant_id, hour=hour))
    sink.close()


def left(place: str) -> dict[str, list[bytes]]:
    """Return the lines that are parked, by reason and route."""
    found: dict[str, list[bytes]] = {}
    for reason in open_source(place).reasons():
        source = open_parked_source(place, reason)
        for route in source.routes():
            for stored in source.stored(route):
                found.setdefault(f"{reason} {route}", []).extend((stored.load() or batch()).lines())
    return found


def scripted(monkeypatch: pytest.MonkeyPatch) -> ScriptedSink:
    sink = ScriptedSink()
    monkeypatch.setattr(replay_module, "open_sink", lambda *_, **__: sink)
    return sink


def test_what_is_parked_is_listed_shown_and_sent_again(place: str, monkeypatch: pytest.MonkeyPatch) -> None:
    """From the alarm to the end of it: how much, what, and after somebody has mended the sink, home."""
    park(place, b"late", name="n1", hour=HOUR + 1)
    park(place, b"a", b"bb", name="n2")
    park(place, b"other", name="n3", tenant_id="acme")
    park(place, b"x" * 2000, name="n4", reason=TOO_LARGE, route="archive")

    listed = run("list", place)
    rows = [line.split() for line in listed.stdout.splitlines()]
    assert 0 == listed.exit_code
    assert ["sink_invalid", "default", "acme", "1", "1", "6", "B", "2026-01-02T03Z"] in rows
    assert ["sink_invalid", "default", "dev", "2", "3", "10", "B", "2026-01-02T03Z"] in rows
    assert ["sink_too_large", "archive", "dev", "1", "1", "1.954", "KiB", "2026-01-02T03Z"] in rows

    shown = run("show", "--reason", "sink_invalid", RESCUE_SINK=place)
    assert (0, b"a\nbb\nother\nlate\n") == (shown.exit_code, shown.stdout_bytes)

    sink = scripted(monkeypatch)
    sent = run("replay", place, "--reason", "sink_invalid")
    assert (0, "found 4, delivered 4, refused again 0, left 0\n") == (sent.exit_code, sent.stdout)
    assert [b"other", b"a", b"bb", b"late"] == sink.lines
    assert {"sink_too_large archive": [b"x" * 2000]} == left(place)


def test_what_is_refused_again_stays_and_nothing_else(place: str, monkeypatch: pytest.MonkeyPatch) -> None:
    """It is the only copy of an event that was acknowledged; and sent again, the others would arrive twice."""
    park(place, b"0", b"bad", b"2", b"not yet", name="n1")
    park(place, b"worse", name="n2")
    sink = scripted(monkeypatch)
    sink.reject(1)
    sink.reject(0, reason=TOO_LARGE)
    real = sink.written

    first = run("replay", place)

    assert (1, "found 5, delivered 3, refused again 2, left 0\n") == (first.exit_code, first.stdout)
    assert "n1: its sink refuses 1 events for good (sink_invalid); they stay where they are" in first.stderr
    assert "n2: its sink refuses 1 events for good (sink_too_large); they stay where they are" in first.stderr
    assert {"sink_invalid default": [b"bad", b"worse"]} == left(place)
    assert ["n1", "n2"] == [one.name for one in real]
    sink.fail()
    second = run("replay", place)
    assert (1, "found 2, delivered 1, refused again 0, left 1\n") == (second.exit_code, second.stdout)
    assert {"sink_invalid default": [b"bad"]} == left(place)
    assert 0 == run("replay", place).exit_code
    assert {} == left(place)
    assert {"0", "2", "not yet", "bad", "worse"} == {line.decode() for line in sink.lines}


def test_some_are_left_by_the_sink_and_some_refused_again(monkeypatch: pytest.MonkeyPatch) -> None:
    """Both stay, in one object and in their order."""
    park("file:rescue", *(b"%d" % n for n in range(5)))
    sink = scripted(monkeypatch)
    sink._script.append(lambda one: sink._deliver(one, retryable=(3,), rejected=((1, INVALID),)))

    result = run("replay", "file:rescue")

    assert (1, "found 5, delivered 3, refused again 1, left 1\n") == (result.exit_code, result.stdout)
    assert {"sink_invalid default": [b"1", b"3"]} == left("file:rescue")


def test_show_is_bounded_and_by_tenant(tmp_path: Path) -> None:
    """A million lines on a terminal help nobody, and one tenant's events are not another's to see."""
    park("file:rescue", *(b"%d" % n for n in range(150)), name="n1")
    park("file:rescue", b"theirs", name="n2", tenant_id="acme")
    park("file:rescue", b"large", name="n3", reason=TOO_LARGE)

    def shown(*options: str) -> list[bytes]:
        return run("show", "file:rescue", *options).stdout_bytes.splitlines()

    assert 100 == len(shown())
    assert [b"0", b"1", b"2"] == shown("--limit", "3")
    assert 151 == len(shown("--limit", "1000", "--tenant", "dev"))
    assert [b"theirs"] == shown("--tenant", "acme")
    assert [b"large"] == shown("--reason", "sink_too_large")
    assert [] == shown("--tenant", "nobody")
    assert 2 == run("show", "file:rescue", "--limit", "0").exit_code
    assert 3 == len(list((tmp_path / "rescue").rglob("*.zst")))


def test_a_dry_run_and_a_choice_of_routes_leave_the_others(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    """Before what was refused goes to a sink again, somebody wants to know how much it is."""
    (tmp_path / "c.toml").write_text('[routes.archive]\nsink = "file:archive"\n')
    park("file:rescue", b"1")
    park("file:rescue", b"2", route="archive")
    sink = scripted(monkeypatch)

    shown = run("replay", "file:rescue", "--route", "archive", "--dry-run", CONFIG="c.toml")
    assert (0, 0) == (shown.exit_code, len(sink.written))
    assert ["archive"] == [line.split()[1] for line in shown.stdout.splitlines() if "sink_invalid" in line]
    assert 0 == run("replay", "file:rescue", "--route", "archive", CONFIG="c.toml").exit_code

    assert [b"2"] == sink.lines
    assert {"sink_invalid default": [b"1"]} == left("file:rescue")


def test_what_can_not_be_read_back_is_named_and_left_and_ends_with_1(tmp_path: Path) -> None:
    """One bad file must not pass for nothing, nor keep the others."""
    park("file:rescue", b"1", name="n1")
    park("file:rescue", b"2", name="n2")
    torn = next((tmp_path / "rescue").rglob("n1.*"))
    torn.write_bytes(torn.read_bytes()[:-3])

    results = [run(verb, "file:rescue") for verb in ("list", "show", "replay")]

    assert [1, 1, 1] == [one.exit_code for one in results]
    assert all(f"{torn} can't be read back" in one.stderr for one in results)
    assert b"2\n" == results[1].stdout_bytes
    assert "found 1, delivered 1, refused again 0, left 0\n" == results[2].stdout
    assert torn.exists()


def test_a_place_with_nothing_parked_and_one_that_is_none_are_told_apart(tmp_path: Path) -> None:
    """It is run in the middle of the night."""
    (tmp_path / "rescue").mkdir()

    nowhere, stdout, typo = run("list"), run("list", "stdout:"), run("list", "file:recsue")
    empty = [run(verb, "file:rescue") for verb in ("list", "show", "replay")]

    assert [1, 1, 1] == [one.exit_code for one in (nowhere, stdout, typo)]
    assert "there is no rescue sink" in nowhere.stderr
    assert "'stdout:' can't be read back" in stdout.stderr
    assert "recsue can't be looked into" in typo.stderr
    assert [0, 0, 0] == [one.exit_code for one in empty]
    assert "found 0, delivered 0, refused again 0, left 0\n" == empty[2].stdout


def test_two_replays_at_once_are_kept_apart() -> None:
    """Each event would go twice to a sink that does not name what it writes."""
    park("file:rescue", b"1")
    with open_parked_source("file:rescue", "sink_invalid").exclusive("default") as is_mine:
        assert is_mine
        result = run("replay", "file:rescue")

    assert 1 == result.exit_code
    assert "another replay is at work on it" in result.stderr
    assert {"sink_invalid default": [b"1"]} == left("file:rescue")
