"""The page of signals is what the code says."""

from __future__ import annotations

from pathlib import Path

import pytest
from click.testing import CliRunner

from collector.telemetry.catalogue import METRICS, SIGNALS, Signal
from dashboards import catalogue
from dashboards.__main__ import main


def test_the_page_is_up_to_date() -> None:
    """`python -m dashboards catalogue` makes it so."""
    text = catalogue.PAGE.read_text()

    assert catalogue.renewed(text) == text


def test_every_signal_and_metric_has_one_row() -> None:
    """What is not there is found by nobody."""
    rows = [line.split("|")[1].strip() for line in catalogue.catalogue().splitlines() if line.startswith("| `")]

    assert sorted(f"`{name}`" for name in (*SIGNALS, *METRICS)) == sorted(rows)


def test_a_row_says_all_that_is_declared() -> None:
    """Its level, its fields, its metrics, and what it means."""
    (row,) = [line for line in catalogue.catalogue().splitlines() if line.startswith("| `hec.failing`")]
    signal = SIGNALS["hec.failing"]

    assert f"| `hec.failing` | warning | `cause`, `retry_in_s` | `collector_hec_failing` | {signal.help} |" == row


def test_what_stands_around_the_tables_stays(tmp_path: Path) -> None:
    """People write there."""
    page = tmp_path / "page.md"
    page.write_text(f"# Mine\n\n{catalogue.BEGIN}\nwas here\n{catalogue.END}\n\nand mine\n")

    catalogue.write(page)

    assert page.read_text().startswith(f"# Mine\n\n{catalogue.BEGIN}\n\n### Signals")
    assert page.read_text().endswith(f"{catalogue.END}\n\nand mine\n")
    assert "was here" not in page.read_text()


@pytest.mark.parametrize(
    "text",
    [
        "",
        catalogue.BEGIN,
        catalogue.END + catalogue.BEGIN,
        catalogue.BEGIN + catalogue.END + catalogue.BEGIN,
        catalogue.END + catalogue.BEGIN + catalogue.END,
    ],
)
def test_a_page_without_its_marks_is_left_alone(text: str) -> None:
    """Else what people wrote would be overwritten."""
    with pytest.raises(ValueError, match="these two lines, once each"):
        catalogue.renewed(text)


def test_a_signal_of_a_new_kind_asks_for_a_group(monkeypatch: pytest.MonkeyPatch) -> None:
    """It would be missing on the page otherwise."""
    monkeypatch.setitem(SIGNALS, "oven.hot", Signal("oven.hot", ("info",), (), (), "It is hot."))

    with pytest.raises(ValueError, match=r"oven\.hot: in no group"):
        catalogue.catalogue()


def test_the_verb_leaves_a_page_that_is_up_to_date_as_it_is() -> None:
    """It may be run at any time."""
    before = catalogue.PAGE.read_bytes()

    assert 0 == CliRunner().invoke(main, ["catalogue"]).exit_code
    assert before == catalogue.PAGE.read_bytes()
