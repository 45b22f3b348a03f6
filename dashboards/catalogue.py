"""
Writes the catalogue of signals and metrics into docs/logging.md, between two marks.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from pathlib import Path

from collector.telemetry.catalogue import METRICS, SIGNALS, Metric, Signal

PAGE = Path(__file__).parent.parent / "docs" / "logging.md"
BEGIN = "<!-- catalogue: made by `python -m dashboards catalogue`; what is written here by hand is lost -->"
END = "<!-- end of the catalogue -->"

#: What signals are about, by the first word of their names.
_SIGNALS = {
    "What comes in": ("upload", "connection", "events", "dedupe"),
    "What goes on to sinks": ("batch", "event", "rescue", "replay"),
    "The spool, memory and the ledger": ("spool", "memory", "segment", "frame", "tail", "ledger"),
    "Starts, deploys, drains and tenants": ("worker", "drain", "generation", "reload", "master", "tenants"),
    "Log lines themselves": ("stdout", "hec"),
    "Errors that nobody expected": ("internal",),
}
_REPORTS = "Reports, once a minute"
_SILENT = "no line"


def write(page: Path = PAGE) -> None:
    """Put the catalogue between the marks of a page; ValueError if they are not there, once each and in this order."""
    page.write_text(renewed(page.read_text()))


def renewed(text: str) -> str:
    """Return the page's text with the catalogue as it is now."""
    before, begin, rest = text.partition(BEGIN)
    _, end, after = rest.partition(END)
    if not begin or not end or BEGIN in after or END in before:
        raise ValueError(f"the page needs these two lines, once each and in this order: {BEGIN} and {END}")
    return f"{before}{BEGIN}\n\n{catalogue()}\n{END}{after}"


def catalogue() -> str:
    """Return both tables as Markdown."""
    lines = ["### Signals", ""]
    for title, signals in _groups():
        lines += [f"#### {title}", "", "| signal | level | fields | metrics | what it says |", "|---|---|---|---|---|"]
        lines += [_signal(one) for one in signals]
        lines.append("")
    lines += ["### Metrics", "", "| metric | kind | labels | what it says |", "|---|---|---|---|"]
    lines += [_metric(one) for one in METRICS.values()]
    return "\n".join([*lines, ""])


def _groups() -> Iterator[tuple[str, list[Signal]]]:
    left = dict(SIGNALS)
    yield _REPORTS, [left.pop(name) for name in SIGNALS if SIGNALS[name].is_report]
    for title, words in _SIGNALS.items():
        yield title, [left.pop(name) for name in list(left) if name.partition(".")[0] in words]
    if left:
        raise ValueError(f"{', '.join(left)}: in no group; say in {Path(__file__).name} what they are about")


def _signal(one: Signal) -> str:
    return _row([f"`{one.name}`", ", ".join(one.levels) or _SILENT, _code(one.fields), _code(one.metrics), one.help])


def _metric(one: Metric) -> str:
    return _row([f"`{one.name}`", one.kind.value, _code(one.series_labels), one.help])


def _code(names: Iterable[str]) -> str:
    return ", ".join(f"`{name}`" for name in names) or "-"


def _row(cells: Iterable[str]) -> str:
    return "| " + " | ".join(cell.replace("|", "\\|") for cell in cells) + " |"
