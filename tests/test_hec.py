"""`collector hec`: what a person asks, and what a person is told."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any
from xml.etree import ElementTree as ET

import pytest
from click.testing import CliRunner, Result

from collector import cli
from collector.cli import hec_tune
from collector.control.hec import planning, tuning
from collector.control.hec.endpoint import Rules
from collector.control.hec.planning import Effort
from collector.control.hec.simulated import SimulatedHec
from collector.telemetry.hec import handler
from collector.telemetry.hec.options import HecOptions
from tests.control.hec.test_sizing import answering, page

SHORT = Effort(outage_s=0.3, flood_s=0.2, halvings=0)


def run(*arguments: str, command: str = "tune") -> Result:
    return CliRunner().invoke(cli.main, ["hec", command, *arguments])


@pytest.fixture(name="short")
def _short(monkeypatch: pytest.MonkeyPatch) -> None:
    """A search of one buffer, in a few seconds: all of its steps, and few of each."""
    monkeypatch.setattr(planning, "effort_for", lambda *_, **__: SHORT)
    monkeypatch.setattr(tuning, "BUFFERS", (1.0,))


def test_a_buffer_is_tuned_from_the_question_to_the_answer(short: None, tmp_path: Path) -> None:
    """With a HEC in a process beside it, the sender that production has, and a plot to look at."""
    plot = tmp_path / "loss.svg"
    told = run("--rate", "800", "--outage", "10", "--workers", "2", "--plot", str(plot), "--json")
    report = json.loads(told.stdout)

    assert 0 == told.exit_code, told.stderr
    assert report["hec"] == "simulated"
    [point] = report["measured"]["points"]
    assert point["clean_per_s"] < point["lossy_per_s"]
    assert point["predicted_per_s"] > 0
    assert point["first_drop_s"] > 0
    assert all(one["delivered"] + one["lost"] == one["emitted"] for one in point["runs"] if not one["lost_otherwise"])
    recommended = report["recommended"]
    assert int(recommended["environment"]["COLLECTOR_HEC_BUFFER_BYTES"]) == recommended["buffer_bytes"]
    assert recommended["buffer_bytes"] > 800 * 300 * 10
    assert recommended["memory_bytes"] > 2 * recommended["buffer_bytes"]
    assert "non-blocking" == recommended["log_driver_options"]["mode"]
    assert report["confirmed_without_loss"] is True
    ET.fromstring(plot.read_text())
    assert "lost" in told.stderr


def test_a_real_hec_gets_marked_lines_and_no_more_than_was_said(short: None, monkeypatch: pytest.MonkeyPatch) -> None:
    """Nobody may take them for the service's, and a licence is billed by the byte."""
    to: list[str] = []

    class Seen(handler.HecHandler):
        def __init__(self, options: HecOptions, **more: Any) -> None:
            to.append(options.url)
            super().__init__(options, **more)

    monkeypatch.setattr(handler, "HecHandler", Seen)
    with SimulatedHec(Rules(token="secret")) as real:
        told = run("--url", real.url, "--token", "secret", "--yes", "--rate", "500", "--outage", "5")

        assert 0 == told.exit_code, told.stderr
        assert "up to 400,000 log lines" in told.stderr
        assert {("collector-tune", "collector-tune")} == {(one.source, one.host) for one in real.events}
        assert 200 <= real.books().indexed < 400_000
        for words in ("COLLECTOR_HEC_BUFFER_BYTES", "loss from, lines/s", "Confirmed", "max-buffer-size", "predicted"):
            assert words in told.stdout

        # At full speed lines go straight there, or the relay would be what is measured; in all runs it can be cut.
        assert [True, True] == [url == real.url for url in to[:2]]
        assert len(to) > 5
        assert real.url not in to[2:]

        real.forget()
        few = run("--url", real.url, "--token", "secret", "--yes", "--max-lines", "3000")
        assert 1 == few.exit_code
        assert "as many lines were sent as may be" in few.stderr
        assert real.books().indexed <= 3000


def test_nobody_is_asked_where_nobody_is(short: None) -> None:
    """A pipeline that hangs at a question, or sends without one, are both wrong."""
    with SimulatedHec() as real:
        told = run("--url", real.url, "--token", real.token)

        assert 1 == told.exit_code
        assert "say so with --yes" in told.stderr
        assert [] == real.requests


def test_a_token_that_is_refused_is_told_with_hecs_code(tmp_path: Path) -> None:
    """The commonest mistake, in the words that Splunk's own pages are searched by."""
    file = tmp_path / "token"
    file.write_text("wrong\n")
    with SimulatedHec() as real:
        told = run("--url", real.url, "--token-file", str(file), "--yes")

    assert 1 == told.exit_code
    assert "answered 403, code 4: Invalid token" in told.stderr


@pytest.mark.parametrize(
    ("arguments", "said"),
    [
        (["--rate", "0"], "--rate 0: write how many lines"),
        (["--rate", "nan"], "--rate nan"),
        (["--rate", "inf"], "--rate inf"),
        (["--outage", "0"], "--outage 0: write seconds"),
        (["--outage", "100000"], "up to a day"),
        (["--workers", "0"], "a task has one at least"),
        (["--latency", "-1"], "--latency -1"),
        (["--latency", "20000"], "gives up after 10 s"),
        (["--hec-rate", "0"], "--hec-rate 0"),
        (["--max-lines", "0"], "--max-lines 0"),
        (["--url", "http://h:1"], "needs the token of that HEC"),
        (["--token", "x"], "give its --url, too"),
        (["--url", "http://h:1", "--token", "x", "--token-file", "y"], "give one of"),
        (["--url", "http://h:1", "--token", "x", "--how", "reset"], "only made unreachable"),
        (["--url", "http://h:1", "--token-file", "no/such"], "can't be read"),
        (["--url", "h", "--token", "x", "--yes"], "is no URL of a HEC"),
        (["--plot", "loss.png"], "ends in .svg"),
        (["--quick", "--thorough"], "are three lengths"),
        (["--seconds", "5"], "too few for a search"),
        (["--unscaled"], "an outage of 30 s, as it is, does not fit into 50 s"),
    ],
)
def test_nonsense_is_refused_before_anything_is_sent(
    arguments: list[str], said: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    """With what was wrong and what to do, and all at once."""

    def never(*_: object, **__: object) -> None:
        raise AssertionError("it went on")

    monkeypatch.setattr(hec_tune, "_tuned", never)
    told = run(*arguments)

    assert 1 == told.exit_code
    assert said in told.stderr
    assert "Traceback" not in told.stderr
    assert told.stdout == ""


def test_a_file_with_more_than_a_token_is_refused(tmp_path: Path) -> None:
    """An empty one, too: it would be sent as it is."""
    for text in ("", "two words"):
        file = tmp_path / "token"
        file.write_text(text)
        told = run("--url", "http://h:1", "--token-file", str(file), "--yes")
        assert (1, True) == (told.exit_code, "holds no token" in told.stderr)
        told = run("--scrape", "http://h:1", "--admin-token-file", str(file), command="size")
        assert (1, True) == (told.exit_code, "holds no token" in told.stderr)


def sized(*arguments: str) -> tuple[Result, Any]:
    told = run(*arguments, "--json", command="size")
    return told, json.loads(told.stdout) if told.stdout else None


def test_endpoints_are_sized_from_what_is_expected() -> None:
    """In tables for a person, and the same in JSON for a program."""
    expected = ("--lines", "1000", "--tasks", "20", "--workers", "4", "--outage", "60")
    told, answer = sized(*expected)
    shown = run(*expected, command="size")

    assert (0, 0) == (told.exit_code, shown.exit_code)
    assert (11, 6, 80) == (answer["nodes"], answer["nodes_few"], answer["connections"])
    assert 32e6 == answer["rate"]
    assert "the buffer in an outage" == answer["binds"]
    for words in ("6 to 11", "Taken for granted", "Splunk Connect for Kafka", "1.7x", "does not hold"):
        assert words in shown.stdout
    _, other = sized(
        *expected, "--bytes", "800", "--per-node", "8", "8", "--buffer-bytes", str(256 << 20), "--outage", "1"
    )
    assert (13, 13) == (other["nodes"], other["nodes_few"])
    assert 0 == other["lost_part"]


def test_endpoints_are_sized_from_running_tasks(tmp_path: Path) -> None:
    """Two looks at each; nothing has to be guessed but the peak."""
    seen: list[dict[str, str]] = []
    pages = iter([page(1).encode(), page(9).encode(), page(3).encode(), page(11).encode()] * 2)

    class Turning(bytes):
        """A body that is another one each time."""

    token = tmp_path / "token"
    token.write_text("secret")
    first, second = (answering(200, Turning(), seen) for _ in range(2))
    for one in (first, second):
        inner = one._serve

        def serve(link: Any, is_cut: Any, _inner: Any = inner) -> None:
            body = next(pages)
            one_answer = answering(200, body, seen)
            try:
                one_answer._serve(link, is_cut)
            finally:
                one_answer.close()

        one._serve = serve
        one.listen()
    try:
        urls = [part for one in (first, second) for part in ("--scrape", f"http://127.0.0.1:{one.port}/metrics")]
        asked = (*urls, "--interval", "0.2", "--admin-token-file", str(token), "--peak", "3")
        told, answer = sized(*asked)
        shown = run(*asked, command="size")
    finally:
        first.close()
        second.close()

    assert (0, 0) == (told.exit_code, shown.exit_code), told.stderr
    assert (2, 4) == (answer["scraped"]["tasks"], answer["scraped"]["workers"])
    assert answer["scraped"]["bytes_per_s"] == pytest.approx(400 * answer["scraped"]["lines_per_s"])
    assert answer["rate"] == pytest.approx(3 * answer["scraped"]["bytes_per_s"])
    assert 4 == answer["connections"]
    assert {"Bearer secret"} == {head.get("authorization") for head in seen}
    assert "Seen of 2 tasks with 4 workers" in shown.stdout
    assert "task (2 workers)" in shown.stdout


@pytest.mark.parametrize(
    ("arguments", "said"),
    [
        ([], "say what is expected with --lines, --tasks, --workers"),
        (["--lines", "5", "--tasks", "1"], "say what is expected with --workers"),
        (["--lines", "0", "--tasks", "1", "--workers", "1"], "--lines 0: write a number above 0"),
        (["--lines", "nan", "--tasks", "1", "--workers", "1"], "--lines nan"),
        (["--scrape", "http://h", "--lines", "1"], "leave --lines out"),
        (["--scrape", "http://h", "--scrape", "http://h"], "there twice"),
        (["--scrape", "h"], "is no URL of metrics"),
        (["--scrape", "http://h", "--interval", "0"], "--interval 0"),
        (["--lines", "1", "--tasks", "1", "--workers", "1", "--per-node", "10", "5"], "the lower first"),
        (["--lines", "1", "--tasks", "1", "--workers", "1", "--buffer-bytes", "5"], "65536 bytes at the least"),
        (["--lines", "1", "--tasks", "1", "--workers", "1", "--outage", "-1"], "--outage -1"),
    ],
)
def test_a_size_of_nonsense_is_refused(arguments: list[str], said: str) -> None:
    """A number is what others build by."""
    told = run(*arguments, command="size")

    assert (1, "") == (told.exit_code, told.stdout)
    assert said in told.stderr
