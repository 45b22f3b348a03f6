"""
What `collector watch` does: brings the series together, has them judged, and says what came of it.
"""

from __future__ import annotations

import json
import re
from collections.abc import Sequence
from pathlib import Path

import click
import msgspec

from collector.aws import Client
from collector.cli.screen import print_table
from collector.clock import Clock
from collector.control.watch import alarms, asking, cloudwatch, files, installing, prometheus
from collector.control.watch.course import WINDOW, Calendar, course_of
from collector.control.watch.finding import Finding, value
from collector.control.watch.judge import Judgement, judge
from collector.control.watch.picture import draw
from collector.control.watch.series import DAY, EXAMPLE, Metric, Series, filled, parse_minute, stamp
from collector.control.watch.weeks import MONDAY, SIZES, Change, Kind, Traffic, make
from collector.errors import CannotLook

_MINUTE_US = 60 * 1_000_000
_RECENT = re.compile(r"(\d{1,4})([mhd])")
_UNITS = {"m": 1, "h": 60, "d": DAY}
#: Of a demonstration: its last weeks, and how long before its end a change is planted, a slow one earlier.
_DEMO_DAYS, _DEMO_AGO, _DEMO_LEAK_AGO = 16, 100, 360


class Options(msgspec.Struct, frozen=True, kw_only=True):
    """What was asked for; as of the command line."""

    load_balancer: str | None
    processed: Path | None
    demo: str | None
    sent_metric: str | None
    prometheus: str | None
    query: str | None
    sent: Path | None
    days: int
    recent: str
    until: str | None
    late: int
    timezone: str | None
    sensitivity: str
    plot: Path | None
    as_json: bool
    region: str
    endpoint: str
    install: bool
    uninstall: bool
    dry_run: bool
    sns_topic: str
    ratio: float

    def check(self) -> None:
        """Raise `CannotLook` for what contradicts itself, or says too little."""
        places = {"--load-balancer": self.load_balancer, "--processed": self.processed, "--demo": self.demo}
        if sum(place is not None for place in places.values()) != 1:
            raise CannotLook("name one thing to watch: --load-balancer NAME, --processed FILE, or --demo CHANGE")
        senders = (self.sent_metric, self.prometheus, self.sent)
        if sum(sender is not None for sender in senders) > 1:
            raise CannotLook("--sent-metric, --prometheus and --sent say the same thing; give one of them")
        if self.query is not None and self.prometheus is None:
            raise CannotLook("--query is asked of a Prometheus server: name it with --prometheus URL")
        if self.demo is not None and (any(senders) or self.until):
            raise CannotLook("--demo brings what was sent, and its own time, with it: leave the other options out")
        if self.install and self.uninstall:
            raise CannotLook("--install and --uninstall are opposites; give one of them")
        is_about_alarms = self.install or self.uninstall
        if is_about_alarms and self.load_balancer is None:
            raise CannotLook("alarms are a load balancer's: name it with --load-balancer")
        if is_about_alarms and (self.prometheus or self.sent):
            raise CannotLook("an alarm knows CloudWatch alone: give --sent-metric, or no word of what was sent")
        if not self.install and self.sns_topic:
            raise CannotLook("--sns-topic goes with --install")
        if not is_about_alarms and self.dry_run:
            raise CannotLook("--dry-run goes with --install or --uninstall; without them nothing is changed anyway")

    @property
    def minutes(self) -> int:
        """The minutes that are to be judged; raises `CannotLook`."""
        match = _RECENT.fullmatch(self.recent)
        minutes = int(match[1]) * _UNITS[match[2]] if match else 0
        if not WINDOW <= minutes <= self.days * DAY // 2:
            raise CannotLook(
                f"--recent {self.recent!r} is no such time: write 30m, 3h or 1d, from {WINDOW} minutes up to half "
                f"of the {self.days} days of history"
            )
        return minutes


def look(asked: Options, clock: Clock) -> bool:
    """Look, say what was found, and tell whether that is anything; raises `CannotLook`."""
    recent, calendar = asked.minutes, Calendar(asked.timezone or "")
    seen, sent, notes = _read(asked, clock)
    judgement = judge(
        course_of(seen, sent, end=seen.end, recent=recent), calendar, sensitivity=asked.sensitivity,
        has_data=seen.has_data, has_sent=sent is None or sent.has_data,
    )  # fmt: skip
    notes = [*notes, *judgement.unseen]
    if asked.plot is not None:
        _write(asked.plot, draw(judgement, title=_title(asked)))
    if asked.as_json:
        click.echo(json.dumps(_as_json(asked, judgement, notes)))
    else:
        _tell(judgement, notes)
    return bool(judgement.findings)


def _read(asked: Options, clock: Clock) -> tuple[Series, Series | None, list[str]]:
    """Bring both series, of the same minutes, and what there is to say of them."""
    if asked.demo is not None:
        return _demo(Kind(asked.demo))
    now = clock.now_us() // _MINUTE_US
    points: dict[int, float] = {}
    if asked.processed is not None:
        points = files.read(asked.processed)
        end = _until(asked) or max(points) + 1
        late = 0
    else:
        end, late = min(_until(asked) or now, now) - asked.late, asked.late
    start = end - asked.days * DAY
    if asked.processed is not None:
        # What lies before the first line of a file is not known, and no zeros.
        start = max(start, min(points))
        if start >= end:
            raise CannotLook(
                f"{asked.processed} begins at {stamp(min(points))}, and nothing of it is before {stamp(end)}"
            )
    notes = (
        [f"The last {late} minutes before {stamp(end + late)} were left out: CloudWatch may be late."] if late else []
    )
    sent_points: dict[int, float] | None = None
    metrics = [cloudwatch.processed_bytes(asked.load_balancer)] if asked.load_balancer else []
    metrics += [Metric.parse(asked.sent_metric)] if asked.sent_metric else []
    if metrics:
        client = asking.client(region=asked.region, endpoint=asked.endpoint)
        try:
            read = cloudwatch.read(client, metrics, start=start, end=end, now=now)
        finally:
            client.close()
        if asked.load_balancer:
            points = read.points[0]
            # Before its first report a load balancer was not there, or not in use: days of zeros are no history of it.
            start = max(start, min(points, default=start))
        sent_points = read.points[-1] if asked.sent_metric else None
        notes += [f"CloudWatch says: {one}" for one in dict.fromkeys(read.messages)]
    if asked.prometheus is not None:
        sent_points = prometheus.read(asked.prometheus, asked.query or prometheus.QUERY, start=start, end=end)
    elif asked.sent is not None:
        sent_points = files.read(asked.sent)
    sent = None if sent_points is None else filled(sent_points, start=start, end=end, is_gap_zero=False)
    return filled(points, start=start, end=end, is_gap_zero=True), sent, notes


def _until(asked: Options) -> int | None:
    if asked.until is None:
        return None
    try:
        return parse_minute(asked.until)
    except (ValueError, OverflowError) as error:
        raise CannotLook(f"--until {asked.until!r} is no time with its zone, such as {EXAMPLE}") from error


def _demo(kind: Kind) -> tuple[Series, Series, list[str]]:
    # Until Wednesday noon: what a working day is like is known.
    end = _DEMO_DAYS * DAY + 12 * 60
    at = end - (_DEMO_LEAK_AGO if kind in {Kind.LEAK, Kind.MOVED, Kind.FLAT} else _DEMO_AGO)
    processed, sent = make(Traffic(7, _DEMO_DAYS + 1), Change(kind, at, SIZES.get(kind, 1.0)))
    start = end - 15 * DAY
    series = [Series(MONDAY + start, one.values[start:end]) for one in (processed, sent)]
    note = "This is a demonstration: the numbers are made up"
    return series[0], series[1], [f"{note}{'' if kind is Kind.CLEAN else f', and {kind} is planted in them'}."]


def _tell(judgement: Judgement, notes: Sequence[str]) -> None:
    course = judgement.course
    judged = f"{stamp(course.minute(course.judged))} to {stamp(course.minute(len(course.processed)))}"
    for note in notes:
        click.secho(f"Note: {note}", fg="yellow")
    if not judgement.findings:
        click.secho(f"Nothing was found from {judged}.", fg="green")
        return
    rows = [
        (
            one.what.value, one.of.value, stamp(one.began), stamp(one.told), stamp(one.over) if one.over else "goes on",
            value(one.of, one.expected), value(one.of, one.came), f"{one.score:.1f}",
        )
        for one in judgement.findings
    ]  # fmt: skip
    columns = ("found", "of", "since", "could be told", "until", "expected", "came", "score")
    print_table(f"Found from {judged}", columns, rows)
    for one in judgement.findings:
        click.secho(f"{one.what.value}, {one.of.value}: {one.says}.", bold=True)
        for advice in one.look:
            click.echo(f"  - {advice}")


def _as_json(asked: Options, judgement: Judgement, notes: Sequence[str]) -> dict[str, object]:
    course = judgement.course
    ratio = judgement.ratio
    return {
        "watched": asked.load_balancer or (str(asked.processed) if asked.processed else f"demo {asked.demo}"),
        "judged_from": stamp(course.minute(course.judged)),
        "judged_until": stamp(course.minute(len(course.processed))),
        "history_from": stamp(course.start),
        "usual_ratio": None if ratio is None else round(ratio.usual_ratio, 4),
        "notes": list(notes),
        "findings": [_finding(one) for one in judgement.findings],
    }


def _finding(one: Finding) -> dict[str, object]:
    return {
        "found": one.what.value, "of": one.of.value, "since": stamp(one.began), "could_be_told": stamp(one.told),
        "until": stamp(one.over) if one.over else None, "expected": one.expected, "came": one.came,
        "unit": "ratio" if one.of.value == "processed ÷ sent" else "bytes/min", "score": round(one.score, 3),
        "says": one.says, "look": list(one.look),
    }  # fmt: skip


def _title(asked: Options) -> str:
    if asked.demo:
        return f"ProcessedBytes: a demonstration, {asked.demo}"
    return f"ProcessedBytes of {asked.load_balancer or asked.processed}"


def _write(path: Path, drawn: str) -> None:
    try:
        path.write_text(drawn, encoding="utf-8")
    except OSError as error:
        raise CannotLook(f"--plot {path} can't be written: {error}") from error


# -- alarms ------------------------------------------------------------------------------------------------


def install(asked: Options) -> None:
    """Put the alarms and the anomaly detector, or print the calls; raises `CannotLook`."""
    sent = Metric.parse(asked.sent_metric) if asked.sent_metric else None
    processed = cloudwatch.processed_bytes(asked.load_balancer or "")
    wanted = alarms.Wanted(processed, asked.sns_topic, sent, asked.ratio)
    if asked.dry_run:
        _print_calls(installing.calls(wanted))
        return
    client = asking.client(region=asked.region, endpoint=asked.endpoint)
    try:
        _do(client, installing.plan(client, wanted))
    finally:
        client.close()
    if not asked.sns_topic:
        click.secho("Note: the alarms tell nobody; --sns-topic names where they go.", fg="yellow")


def uninstall(asked: Options) -> None:
    """Take away what was put, or print the calls; raises `CannotLook`."""
    processed = cloudwatch.processed_bytes(asked.load_balancer or "")
    client = asking.client(region=asked.region, endpoint=asked.endpoint)
    try:
        steps = installing.plan_away(client, processed)
        if asked.dry_run:
            _print_calls([step.call for step in steps if step.call])
        else:
            _do(client, steps)
    finally:
        client.close()


def _do(client: Client, steps: Sequence[installing.Step]) -> None:
    installing.carry_out(client, steps)
    print_table("Alarms", ("what", "before", "after"), [(one.name, one.before, one.after) for one in steps])


def _print_calls(calls: Sequence[alarms.Call]) -> None:
    told = [{"operation": f"cloudwatch:{one.operation}", "arguments": one.arguments} for one in calls]
    click.echo(json.dumps(told, indent=2))
