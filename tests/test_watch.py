"""`collector watch`: what it is given, what it says, and how it ends."""

from __future__ import annotations

import json
import subprocess
import sys
from pathlib import Path
from xml.etree import ElementTree as ET

import click
import pytest
from click.testing import CliRunner, Result

from collector import cli
from collector.cli.watch import FOUND
from collector.cli.watching import Options, look
from collector.control.watch.series import Series, minute_of, moment_of, parse_minute, stamp
from collector.control.watch.weeks import Change, Kind, Traffic, make
from tests.control.watch.test_prometheus import Prometheus
from tests.control.watch.test_prometheus import _url as _prometheus  # noqa: F401 -- a fixture
from tests.fakes import FakeClock
from tests.standins.sdk import ENVIRON, client
from tests.standins.shared import started_moto

ROOT = Path(__file__).resolve().parent.parent
NAME = "app/hec/50dc6c495c0c9188"


@pytest.fixture(autouse=True)
def _elsewhere(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    monkeypatch.chdir(tmp_path)
    for name, value in ENVIRON.items():
        monkeypatch.setenv(name, value)


def watch(*arguments: str) -> Result:
    return CliRunner().invoke(cli.main, ["watch", "processed-bytes", *arguments])


def found(result: Result) -> list[tuple[str, str]]:
    return [(one["found"], one["of"]) for one in json.loads(result.stdout)["findings"]]


def write(name: str, series: Series) -> str:
    lines = [f"{stamp(series.start + n)},{value}" for n, value in enumerate(series.values) if value is not None]
    Path(name).write_text("minute,bytes\n" + "\n".join(lines) + "\n")
    return name


@pytest.mark.parametrize(
    ("demo", "status", "said"),
    [
        ("clean", 0, "Nothing was found"),
        ("zero", FOUND, "drop to zero"),
        ("step-down", FOUND, "step"),
        ("leak", FOUND, "widening gap"),
        ("lumps", FOUND, "changed pattern"),
    ],
)
def test_a_demonstration_finds_what_is_planted_and_ends_with_2(demo: str, status: int, said: str) -> None:
    """A schedule goes by how it ends, a person by what it says."""
    result = watch("--demo", demo, "--plot", "p.svg")

    assert status == result.exit_code
    assert said in result.stdout
    assert "made up" in result.stdout
    assert "svg" in ET.fromstring(Path("p.svg").read_text()).tag
    assert (said in Path("p.svg").read_text()) == (status == FOUND)


@pytest.mark.parametrize(
    ("arguments", "said"),
    [
        ([], "name one thing to watch"),
        (["--demo", "zero", "--processed", "x"], "name one thing to watch"),
        (["--demo", "boom"], "boom"),
        (["--nope"], "--nope"),
        (["--demo", "zero", "--days", "64"], "64"),
        (["--demo", "zero", "--recent", "3"], "30m, 3h or 1d"),
        (["--demo", "zero", "--recent", "8d"], "half of the 15 days"),
        (["--demo", "zero", "--timezone", "Mars"], "no zone"),
        (["--demo", "zero", "--sent", "x"], "leave the other options out"),
        (["--demo", "zero", "--plot", "no/such/folder.svg"], "can't be written"),
        (["--demo", "zero", "--query", "up"], "--prometheus URL"),
        (["--processed", "none.csv"], "can't be read"),
        (["--load-balancer", "hec"], "app/hec/"),
        (["--load-balancer", NAME, "--sent-metric", "x"], "NAMESPACE/NAME"),
        (["--load-balancer", NAME, "--until", "noon"], "no time with its zone"),
        (["--load-balancer", NAME, "--endpoint", "http://127.0.0.1:9"], "cloudwatch: get_metric_data: "),
        (["--load-balancer", NAME, "--sent", "a", "--prometheus", "b"], "give one of them"),
        (["--install", "--uninstall", "--load-balancer", NAME], "opposites"),
        (["--install", "--demo", "zero"], "--load-balancer"),
        (["--install", "--load-balancer", NAME, "--sent", "x"], "knows CloudWatch alone"),
        (["--install", "--load-balancer", NAME, "--sns-topic", "x", "--dry-run"], "no topic"),
        (["--load-balancer", NAME, "--sns-topic", "x"], "goes with --install"),
        (["--load-balancer", NAME, "--dry-run"], "--dry-run goes with"),
    ],
)
def test_what_can_not_be_looked_at_ends_with_1_and_is_told(arguments: list[str], said: str) -> None:
    """click ends with 2 when it is misused, which would be a finding here, at each run of a schedule."""
    result = watch(*arguments)

    assert 1 == result.exit_code
    assert "" == result.stdout
    assert said in result.stderr


@pytest.mark.parametrize("arguments", [["watch"], ["watch", "nothing"]])
def test_a_group_that_is_misused_ends_with_1_too(arguments: list[str]) -> None:
    """As above."""
    assert 1 == CliRunner().invoke(cli.main, arguments).exit_code


def test_help_says_how_it_ends() -> None:
    """Whoever writes the schedule reads nothing else."""
    said = " ".join(watch("--help").stdout.split())

    assert (
        "Ends with 0 when nothing was found, with 1 when it could not look, and with 2 when something was found" in said
    )


def test_files_are_judged_up_to_their_last_line_and_nothing_before_their_first_is_zero() -> None:
    """An export of ten days is no outage of five."""
    processed, sent = make(Traffic(3, 10), Change(Kind.STEP_DOWN, 10 * 1440 - 100, 0.5))
    result = watch("--processed", write("p.csv", processed), "--sent", write("s.csv", sent), "--json")
    told = json.loads(result.stdout)

    assert FOUND == result.exit_code
    assert [("step", "processed")] == found(result)
    assert (stamp(processed.end), stamp(processed.start)) == (told["judged_until"], told["history_from"])
    assert any("known from 14 days" in one for one in told["notes"])
    assert 1.03 == pytest.approx(told["usual_ratio"], abs=0.005)
    assert "bytes/min" == told["findings"][0]["unit"]


def test_what_a_file_of_what_was_sent_leaves_out_is_unknown_and_no_zero() -> None:
    """Zeros would make the ratio endless, and hide that nobody counts any more."""
    processed, sent = make(Traffic(3, 10), Change())
    short = Series(sent.start, sent.values[:-45])
    result = watch("--processed", write("p.csv", processed), "--sent", write("s.csv", short), "--json")

    assert [("silent", "sent")] == found(result)


def test_a_file_may_be_looked_at_as_it_was_earlier() -> None:
    """After an incident one wants to see what one would have been told."""
    processed, _ = make(Traffic(3, 10), Change(Kind.ZERO, 10 * 1440 - 100))
    name = write("p.csv", processed)

    assert 0 == watch("--processed", name, "--until", stamp(processed.end - 100)).exit_code
    assert FOUND == watch("--processed", name, "--until", stamp(processed.end - 60)).exit_code
    assert 1 == watch("--processed", name, "--until", stamp(processed.start - 60)).exit_code


def test_minutes_that_cloudwatch_may_not_have_yet_are_left_out_and_that_is_said() -> None:
    """The last minutes are always empty, and each look would find a drop to zero."""
    now = FakeClock().now_us() // 60_000_000
    options = dict.fromkeys(Options.__struct_fields__) | {
        "days": 15, "recent": "3h", "late": 7, "sensitivity": "normal", "as_json": True, "region": "", "sns_topic": "",
        "load_balancer": NAME, "endpoint": f"http://127.0.0.1:{started_moto().port}", "ratio": 1.0, "install": False,
        "uninstall": False, "dry_run": False,
    }  # fmt: skip
    result = CliRunner().invoke(_as_command(options), [])
    told = json.loads(result.stdout)

    assert stamp(now - 7) == told["judged_until"]
    assert any("The last 7 minutes" in one for one in told["notes"])
    # moto has nothing of it: no data at all, and no zeros.
    assert [("silent", "processed")] == found(result)


def _as_command(options: dict[str, object]) -> click.Command:
    def run() -> None:
        look(Options(**options), FakeClock())  # type: ignore[arg-type]

    return click.Command("look", callback=run)


def test_cloudwatch_and_its_metric_of_what_was_sent_are_compared() -> None:
    """The way of a schedule, from the command line to a server and back."""
    cloudwatch = client("cloudwatch", started_moto().port)
    until = parse_minute("2026-01-20T12:00Z")
    processed, sent = make(Traffic(5, 2, start=until - 2 * 1440), Change(Kind.LEAK, 2 * 1440 - 400, 0.03))
    for namespace, name, series, dimension in (
        ("AWS/ApplicationELB", "ProcessedBytes", processed, ("LoadBalancer", NAME)),
        ("Own", "Sent", sent, ("Service", "a")),
    ):  # fmt: skip
        rows = [
            {"MetricName": name, "Value": value, "Timestamp": moment_of(series.start + n),
             "Dimensions": [{"Name": dimension[0], "Value": dimension[1]}]}
            for n, value in enumerate(series.values)
        ]  # fmt: skip
        for first in range(0, len(rows), 1000):
            cloudwatch.put_metric_data(Namespace=namespace, MetricData=rows[first : first + 1000])
    result = watch(
        "--load-balancer", NAME, "--sent-metric", "Own/Sent,Service=a", "--until", stamp(until), "--late", "0",
        "--days", "9", "--endpoint", f"http://127.0.0.1:{started_moto().port}", "--json",
    )  # fmt: skip

    # What was before its first report is not taken for a week of zeros.
    assert stamp(processed.start) == json.loads(result.stdout)["history_from"]
    assert [("widening gap", "processed ÷ sent")] == found(result), result.output
    assert FOUND == result.exit_code


def test_what_prometheus_tells_is_compared(url: str) -> None:
    """Its windows have to be those of the file, or the ratio is noise."""
    end = minute_of(moment_of(29_500_000))
    processed = Series(end - 3 * 1440, [(end - (end - m) // 5 * 5) * 60 // 300 / 5 for m in range(end - 3 * 1440, end)])
    result = watch("--processed", write("p.csv", processed), "--prometheus", url, "--json", "--recent", "1h")

    assert 1.0 == pytest.approx(json.loads(result.stdout)["usual_ratio"], abs=1e-4)
    assert 0 == result.exit_code, result.output
    assert Prometheus.asked


def test_a_dry_run_prints_the_calls_and_reaches_nobody() -> None:
    """It is what goes into a ticket, before anybody has any rights."""
    result = watch(
        "--load-balancer",
        NAME,
        "--install",
        "--dry-run",
        "--sent-metric",
        "Own/Sent",
        "--endpoint",
        "http://127.0.0.1:9",
    )
    told = json.loads(result.stdout)

    assert 0 == result.exit_code
    assert ["cloudwatch:put_anomaly_detector", *["cloudwatch:put_metric_alarm"] * 3] == [
        one["operation"] for one in told
    ]
    assert "app.hec.50dc6c495c0c9188" in told[1]["arguments"]["AlarmName"]


def test_what_moto_does_not_know_is_told_in_words() -> None:
    """A server that answers in HTML is no traceback."""
    result = watch("--load-balancer", NAME, "--install", "--endpoint", f"http://127.0.0.1:{started_moto().port}")

    assert 1 == result.exit_code
    assert result.stderr.startswith("cloudwatch: describe_anomaly_detectors")
    assert "batch" not in result.stderr


def test_the_picture_in_the_documentation_is_the_one_that_is_drawn() -> None:
    """It shows what the command shows today."""
    watch("--demo", "leak", "--plot", "leak.svg")

    assert (ROOT / "docs" / "watch.svg").read_text() == Path("leak.svg").read_text()


def test_a_start_of_the_server_loads_nothing_of_it() -> None:
    """Each module that a start does not need is a moment without an answer."""
    said = subprocess.run(
        [sys.executable, "-c", "import collector.cli, sys; print([n for n in sys.modules if '.control' in n])"],
        capture_output=True, text=True, check=True, cwd=ROOT,
    )  # fmt: skip

    assert "[]" == said.stdout.strip()
