"""
How a person, or a program, sees what the stress test found.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import click
import msgspec

from collector.cli.screen import print_table, size

if TYPE_CHECKING:
    from collector.control.hec.cells import Run
    from collector.control.hec.planning import Goal
    from collector.control.hec.recommending import Recommendation
    from collector.control.hec.tuning import Found


class Report:
    """All of it: what was asked, what was measured, what is recommended, and the run that was to confirm it."""

    def __init__(
        self, *, goal: Goal, found: Found, recommended: Recommendation, confirmed: Run, embedded: bool, how: str,
        sent_lines: int,
    ) -> None:  # fmt: skip
        self.goal = goal
        self.found = found
        self.recommended = recommended
        self.confirmed = confirmed
        self.embedded = embedded
        self.how = how
        self.sent_lines = sent_lines

    @property
    def has_lost(self) -> bool:
        """Tell whether the run that was to confirm the recommendation lost lines before its outage was over."""
        drop_s = self.confirmed.first_drop_s
        return drop_s is not None and drop_s < self.confirmed.cell.outage_s


def report_json(report: Report) -> str:
    """Write everything as one JSON object; sizes in bytes, times in seconds; what is infinite is null."""
    found: dict[str, Any] = msgspec.to_builtins(report.found)
    for built, point in zip(found["points"], report.found.points, strict=True):
        built["starts_per_s"] = point.starts_per_s
        for run, one in zip(built["runs"], point.runs, strict=True):
            run["loss_part"] = one.loss_part
    recommended = msgspec.to_builtins(report.recommended)
    recommended["silent_s"] = report.recommended.silent_s
    recommended["environment"] = report.recommended.environment
    recommended["log_driver_options"] = report.recommended.drivers.options
    whole = {
        "hec": "simulated" if report.embedded else "real",
        "how": report.how,
        "goal": report.goal,
        "measured": found,
        "recommended": recommended,
        "confirmed": report.confirmed,
        "confirmed_without_loss": not report.has_lost,
        "sent_lines": report.sent_lines,
    }
    return msgspec.json.format(msgspec.json.encode(whole), indent=2).decode()


def print_report(report: Report) -> None:
    """Print tables and sentences."""
    found, goal = report.found, report.goal
    scale = found.scale
    print_table("What was predicted, and what was measured", _COLUMNS, _measured(found), numbers=3)
    click.echo(
        f"A line has {found.flood.line_bytes:.0f} bytes with its envelope, {found.flood.wire_part:.1%} of "
        "that on the wire; "
        f"{found.severe_part:.0%} are of warnings and worse, which may use the buffer's reserve."
    )
    if (scale.shorter, scale.faster) != (1.0, 1.0):
        click.echo(
            f"Scaled: outages are {scale.shorter:.3g} times shorter than {goal.outage_s:g} s, rates are "
            f"{scale.faster:.3g} "
            f"times {goal.lines_per_s:g} lines/s, so a buffer here stands for one {1 / scale.of_buffer:.3g} "
            "times as large."
        )
    for limit in dict.fromkeys(found.limits):
        click.secho(f"Note: {limit}.", fg="yellow")
    print_table(
        f"Recommended for {goal.lines_per_s:,.0f} lines/s a worker, {goal.workers} workers, {goal.outage_s:g} s out",
        ("setting", "value", "why"),
        _recommended(report),
    )
    for caution in report.recommended.cautions:
        click.secho(f"Note: {caution}.", fg="yellow")
    click.echo(_confirmed(report))
    print_table(
        "The same by a log driver of ECS, in its stead", ("option", "value", "why"), _drivers(report.recommended)
    )


_COLUMNS = ("", "predicted", "measured", "difference", "")


def _measured(found: Found) -> list[tuple[str, str, str, str, str]]:
    flood = found.flood
    rows = [
        _row(
            "one connection, MB/s",
            found.predicted_rate / 1e6,
            flood.rate / 1e6,
            f"batches of {size(round(flood.batch_bytes))}",
        )
    ]
    for point in found.points:
        buffer = f"buffer {size(point.buffer_bytes)}"
        more = f"{point.outage_s:.2g} s out, silent for {point.silent_s:.2g} s"
        if point.starts_per_s is None:
            said = f"{more}; nothing lost at {point.clean_per_s:,.0f}, the most that could be driven"
            rows.append((f"{buffer}: loss from, lines/s", f"{point.predicted_per_s:,.0f}", "-", "-", said))
        else:
            said = f"{more}; none lost at {point.clean_per_s:,.0f}, some at {point.lossy_per_s:,.0f}"
            rows.append(_row(f"{buffer}: loss from, lines/s", point.predicted_per_s, point.starts_per_s, said))
        at = f"at {point.at_per_s:,.0f} lines/s, with {size(point.drop_held_bytes)} in it when the outage began"
        if point.first_drop_s is None:
            rows.append(
                (f"{buffer}: first drop after, s", f"{point.predicted_drop_s:,.3g}", "-", "-", f"{at}; none came")
            )
        else:
            rows.append(_row(f"{buffer}: first drop after, s", point.predicted_drop_s, point.first_drop_s, at))
    return rows


def _row(what: str, predicted: float, measured: float, more: str) -> tuple[str, str, str, str, str]:
    return what, _number(predicted), _number(measured), f"{measured / predicted - 1:+.0%}", more


def _number(value: float) -> str:
    return f"{value:,.0f}" if value >= 100 else f"{value:.3g}"


def _recommended(report: Report) -> list[tuple[str, str, str]]:
    one, goal = report.recommended, report.goal
    fills = f"full after {one.batch_fills_s:.2g} s at this rate, or with {one.batch_lines} lines"
    recovery = "never" if one.recovery_s == float("inf") else f"{one.recovery_s:.2g} s"
    return [
        (
            "COLLECTOR_HEC_BUFFER_BYTES", str(one.buffer_bytes),
            f"{size(one.buffer_bytes)}: {one.rate / 1e3:,.0f} KB/s for {one.outage_s:g} s, and for "
            f"{one.unnoticed_s:.2g} s "
            f"more until the sender tries again (99 of 100 outages); times {one.correction:.3g} for what was measured "
            "below the prediction, and 1.1; and two batches",
        ),
        ("COLLECTOR_HEC_BATCH_BYTES", str(one.batch_bytes), f"{fills}; one connection carries "
        f"{one.ceiling / 1e6:.2g} MB/s"),
        ("COLLECTOR_HEC_LINGER_S", f"{one.linger_s:g}", "until a batch that is not full leaves"),
        ("memory of the task", size(round(one.memory_bytes)), f"{goal.workers} workers with full buffers, at the most"),
        ("backlog gone in", recovery, "after the outage, while lines go on to come"),
    ]  # fmt: skip


def _confirmed(report: Report) -> str:
    run, scale = report.confirmed, report.found.scale
    how = (
        f"{size(run.cell.buffer_bytes)}, {run.cell.lines_per_s:,.0f} lines/s, nothing leaving for "
        f"{run.cell.outage_s:.3g} s"
        f" (1/{scale.shorter:.3g} of the time)"
    )
    if report.has_lost:
        return f"Not confirmed: a run with {how} lost its first line after {run.first_drop_s:.3g} s."
    fill = run.high_water_bytes / run.cell.buffer_bytes
    return f"Confirmed: a run with {how} lost nothing; the buffer was {fill:.0%} full."


def _drivers(one: Recommendation) -> list[tuple[str, str, str]]:
    drivers = one.drivers
    over = "more than" if drivers.is_over_default else "no more than"
    return [
        ("mode", drivers.options["mode"], "ECS's default since 2025-06-25; blocking stops the service when "
        "Splunk does"),
        (
            "max-buffer-size", drivers.options["max-buffer-size"],
            f"{drivers.rate / 1e6:.2g} MB/s of text from all workers for {one.silent_s:.3g} s; {over} ECS's "
            "default of 10m. "
            "What does not fit is dropped, and nothing counts it",
        ),
        ("what AWS saw", f"{drivers.rate / 1e6:.2g} MB/s", f"{drivers.seen.words} (awslogs, one Region, no outage)"),
    ]  # fmt: skip
