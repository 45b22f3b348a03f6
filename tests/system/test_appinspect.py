"""Splunk's own validator takes the package, and not one that is broken."""

from __future__ import annotations

import json
import shutil
import subprocess
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from dashboards.package import package
from dashboards.views import APP

ROOT = Path(__file__).resolve().parents[2]
INSPECT = ROOT / "build" / "appinspect" / "bin" / "splunk-appinspect"
#: Warnings that we know, and why they may stay.
ALLOWED: dict[str, str] = {}

pytestmark = [
    pytest.mark.system,
    pytest.mark.skipif(not INSPECT.exists(), reason="splunk-appinspect is not installed; tests/system/install does it"),
]


def inspected(file: Path, folder: Path) -> dict[str, Any]:
    report = folder / "report.json"
    run = subprocess.run(
        [str(INSPECT), "inspect", str(file), "--data-format", "json", "--output-file", str(report)],
        capture_output=True, text=True, check=False,
    )  # fmt: skip
    assert report.exists(), run.stdout + run.stderr
    return dict(json.loads(report.read_text()))


def found(report: dict[str, Any], *results: str) -> dict[str, list[str]]:
    """Return the messages of all checks that came to one of these results."""
    (one,) = report["reports"]
    return {
        check["name"]: [message["message"] for message in check["messages"]]
        for group in one["groups"]
        for check in group["checks"]
        if check["result"] in results
    }


def test_the_package_passes(tmp_path: Path) -> None:
    """Splunk Cloud takes no app that does not, and it looks where we would not."""
    report = inspected(package(APP, tmp_path), tmp_path)

    assert 80 < report["summary"]["success"]
    assert {} == found(report, "failure", "error", "future_failure")
    assert {} == {name: said for name, said in found(report, "warning").items() if name not in ALLOWED}


def _views(app: Path) -> Path:
    return app / "default" / "data" / "ui" / "views"


def _no_version(app: Path) -> None:
    file = _views(app) / "overview.xml"
    file.write_text(file.read_text().replace(' version="1.1"', ""))


def _no_xml(app: Path) -> None:
    file = _views(app) / "intake.xml"
    file.write_text(file.read_text().replace("</form>", ""))


def _no_schedule(app: Path) -> None:
    file = app / "default" / "savedsearches.conf"
    file.write_text(file.read_text().replace("cron_schedule = 17 * * * *", "cron_schedule = 17 * * *"))


def _no_json(app: Path) -> None:
    file = _views(app) / "overview_studio.xml"
    file.write_text(file.read_text().replace('"visualizations": {', '"visualizations": [', 1))


@pytest.mark.parametrize("broken", [_no_version, _no_xml, _no_schedule, _no_json])
def test_a_broken_package_fails(tmp_path: Path, broken: Callable[[Path], None]) -> None:
    """A validator that passes everything would have passed the app, too."""
    app = Path(shutil.copytree(APP, tmp_path / "collector"))
    before = {path: path.read_bytes() for path in app.rglob("*") if path.is_file()}
    broken(app)
    assert [path for path in before if path.read_bytes() != before[path]]

    report = inspected(package(app, tmp_path / "dist"), tmp_path)

    assert found(report, "failure", "error", "future_failure")
