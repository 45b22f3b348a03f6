"""
`collector hec size`: how many endpoints of HEC it takes, from what is expected or from what runs.
"""

from __future__ import annotations

import threading
from pathlib import Path
from typing import TYPE_CHECKING

import click
import msgspec

from collector.cli.screen import fail, print_table, size
from collector.clock import Clock, SystemClock
from collector.errors import ScrapeError

if TYPE_CHECKING:
    from collector.control.hec.scraping import Rates
    from collector.control.hec.sizing import Assumption, Load, Sizing

#: A line of Collector's, with its envelope: measured on lines of the real shape. What SC4S plans with is twice that.
_LINE_BYTES = 400.0
_BUFFER_BYTES = 16 << 20
_MB = 1e6


@click.command("size")
@click.option("--lines", type=float, help="Log lines a second of one worker, at its peak.")
@click.option(
    "--bytes", "line_bytes", type=float, help=f"Bytes of a line with its envelope; {_LINE_BYTES:g} without a word."
)
@click.option("--tasks", type=int, help="Tasks of the service.")
@click.option("--workers", type=int, help="Workers of a task.")
@click.option(
    "--scrape", "urls", multiple=True, metavar="URL",
    help="Ask a running task at http://host:8081/metrics instead; once for each task.",
)  # fmt: skip
@click.option(
    "--admin-token-file", type=click.Path(path_type=Path), metavar="FILE", help="A file with the tasks' admin token."
)
@click.option(
    "--interval", type=float, default=10.0, show_default=True, help="Seconds between the two looks of --scrape."
)
@click.option("--peak", type=float, default=1.0, show_default=True, help="A peak is so many times what was scraped.")
@click.option("--outage", type=float, default=30.0, show_default=True, help="Seconds of an outage to be outlived.")
@click.option("--buffer-bytes", type=int, help="COLLECTOR_HEC_BUFFER_BYTES; 16 MiB without a word.")
@click.option("--ceiling", type=float, default=5.0, show_default=True, help="MB a second that one connection carries.")
@click.option(
    "--per-node",
    type=float,
    nargs=2,
    default=(5.0, 10.0),
    show_default=True,
    help="MB a second that a node takes: at the least, at the most.",
)
@click.option("--ca-file", metavar="FILE", help="The certificate of whoever signed the tasks'.")
@click.option("--json", "as_json", is_flag=True, help="Print it as JSON.")
def size_command(
    lines: float | None, line_bytes: float | None, tasks: int | None, workers: int | None, urls: tuple[str, ...],
    admin_token_file: Path | None, interval: float, peak: float, outage: float, buffer_bytes: int | None,
    ceiling: float, per_node: tuple[float, float], ca_file: str | None, as_json: bool,
) -> None:  # fmt: skip
    """
    Say how many endpoints of HEC a service needs, with what head-room, and what binds first.

    Give --lines, --tasks and --workers, or --scrape for each running task. Everything that is taken for granted is
    printed with its source.
    """
    problems = _mistakes(
        lines, line_bytes, tasks, workers, urls, interval, peak, outage, buffer_bytes, ceiling, per_node
    )
    if problems:
        fail(problems)
    try:
        from collector.control.hec import sizing  # noqa: PLC0415 -- 0.1 s, with the sender's own pauses
    except ImportError as error:
        fail([f"the sender is not installed ({error.name}): pip install 'collector[splunk]'"])
    try:
        if urls:
            seen = scraped(list(urls), _token_of(admin_token_file), interval, SystemClock(), ca_file=ca_file)
            load, assumptions = _of_rates(seen, peak, ceiling * _MB, interval)
        else:
            load, assumptions = _of_words(
                lines or 0.0, line_bytes, tasks or 1, workers or 1, buffer_bytes, ceiling * _MB
            )
            seen = None
    except ScrapeError as error:
        fail([str(error)])
    plan = sizing.Plan(node_low=per_node[0] * _MB, node_high=per_node[1] * _MB, outage_s=outage)
    sized = sizing.size(load, plan, assumptions=assumptions)
    if as_json:
        click.echo(_json(sized, seen))
    else:
        _print(sized, seen)


def scraped(urls: list[str], token: str, interval_s: float, clock: Clock, *, ca_file: str | None = None) -> Rates:
    """Look at running tasks twice; raises `ScrapeError`."""
    from collector.control.hec.scraping import fetch, rates, read  # noqa: PLC0415 -- `serve` needs no client of HTTP

    started_s = clock.monotonic()
    before = {url: read(fetch(url, token=token, ca_file=ca_file), url=url) for url in urls}
    threading.Event().wait(interval_s)
    # From the middle of one look to the middle of the other; pages come in the same order.
    again_s = clock.monotonic()
    after = {url: read(fetch(url, token=token, ca_file=ca_file), url=url) for url in urls}
    return rates(before, after, seconds=again_s - started_s)


def _mistakes(
    lines: float | None, line_bytes: float | None, tasks: int | None, workers: int | None, urls: tuple[str, ...],
    interval: float, peak: float, outage: float, buffer_bytes: int | None, ceiling: float,
    per_node: tuple[float, float],
) -> list[str]:  # fmt: skip
    problems = []
    expected = {"--lines": lines, "--tasks": tasks, "--workers": workers}
    told = [
        name
        for name, value in (expected | {"--bytes": line_bytes, "--buffer-bytes": buffer_bytes}).items()
        if value is not None
    ]
    if urls and told:
        problems.append(f"--scrape asks the tasks themselves; leave {' and '.join(told)} out")
    if not urls and (missing := [name for name, value in expected.items() if value is None]):
        problems.append(f"say what is expected with {', '.join(missing)}, or ask running tasks with --scrape URL")
    if len(set(urls)) < len(urls):
        problems.append("a URL of --scrape is there twice: a task would be counted twice")
    for name, value in (expected | {"--bytes": line_bytes}).items():
        if value is not None and not 0 < value < float("inf"):
            problems.append(f"{name} {value:g}: write a number above 0")
    numbers = {"--interval": interval, "--peak": peak, "--outage": outage, "--ceiling": ceiling}
    problems += [
        f"{name} {value:g}: write a number above 0" for name, value in numbers.items() if not 0 < value < float("inf")
    ]
    if buffer_bytes is not None and buffer_bytes < 64 << 10:
        problems.append(f"--buffer-bytes {buffer_bytes}: a buffer has 65536 bytes at the least")
    if not 0 < per_node[0] <= per_node[1] < float("inf"):
        problems.append(f"--per-node {per_node[0]:g} {per_node[1]:g}: write MB a second, the lower first, such as 5 10")
    return problems


def _token_of(file: Path | None) -> str:
    if file is None:
        return ""
    try:
        text = file.read_text().strip()
    except (OSError, UnicodeDecodeError) as error:
        fail([f"--admin-token-file {file} can't be read: {error}"])
    if not text or any(character.isspace() for character in text):
        fail([f"--admin-token-file {file} holds no token: it is one word"])
    return text


def _of_words(
    lines: float, line_bytes: float | None, tasks: int, workers: int, buffer_bytes: int | None, ceiling: float
) -> tuple[Load, list[Assumption]]:
    from collector.control.hec.prediction import GZIP_RATIO  # noqa: PLC0415 -- as above
    from collector.control.hec.sizing import Assumption, Load  # noqa: PLC0415 -- same
    from collector.telemetry.hec.options import HecOptions  # noqa: PLC0415 -- same

    usual = HecOptions(url="", token="")
    bytes_each = line_bytes or _LINE_BYTES
    load = Load(
        lines_per_s=lines, line_bytes=bytes_each, tasks=tasks, workers=workers, wire_part=1 / GZIP_RATIO,
        batch_bytes=min(usual.batch_bytes, usual.batch_lines * bytes_each), linger_s=usual.linger_s, ceiling=ceiling,
        buffer_bytes=buffer_bytes or _BUFFER_BYTES,
    )  # fmt: skip
    assumptions = [
        Assumption("gzip", f"to 1/{GZIP_RATIO:g}", "measured at level 1 on lines of 368 bytes; lines that "
        "are alike shrink more"),
        Assumption("a request", f"{usual.batch_bytes} bytes, {usual.batch_lines} lines or "
        f"{usual.linger_s:g} s", "the sender's own"),
        _of_ceiling(ceiling),
    ]  # fmt: skip
    if line_bytes is None:
        assumptions.insert(
            0,
            Assumption(
                "a line", f"{_LINE_BYTES:g} bytes", "measured on Collector's own, with envelopes; SC4S plans 800"
            ),
        )
    if buffer_bytes is None:
        assumptions.append(
            Assumption("the buffer", size(_BUFFER_BYTES), "COLLECTOR_HEC_BUFFER_BYTES as it is without a word")
        )
    return load, assumptions


def _of_rates(seen: Rates, peak: float, ceiling: float, interval_s: float) -> tuple[Load, list[Assumption]]:
    from collector.control.hec.sizing import Assumption, Load  # noqa: PLC0415 -- as above
    from collector.telemetry.hec.options import HecOptions  # noqa: PLC0415 -- same

    usual = HecOptions(url="", token="")
    line_bytes = seen.bytes_per_s / seen.lines_per_s
    load = Load(
        lines_per_s=seen.lines_per_s / seen.workers * peak, line_bytes=line_bytes, tasks=1, workers=seen.workers,
        wire_part=seen.wire_per_s / seen.bytes_per_s if seen.bytes_per_s else 0.0,
        batch_bytes=min(usual.batch_bytes, usual.batch_lines * line_bytes), linger_s=usual.linger_s, ceiling=ceiling,
        buffer_bytes=seen.buffer_bytes,
    )  # fmt: skip
    return load, [
        Assumption("a peak", f"{peak:g} times what was seen", f"yours to say (--peak): {interval_s:g} s are no day"),
        Assumption("a request", f"{usual.batch_bytes} bytes, {usual.batch_lines} lines or "
        f"{usual.linger_s:g} s", "the sender's own"),
        _of_ceiling(ceiling),
    ]  # fmt: skip


def _of_ceiling(ceiling: float) -> Assumption:
    from collector.control.hec.sizing import Assumption  # noqa: PLC0415 -- as above

    return Assumption(
        "one connection", f"carries {ceiling / _MB:g} MB/s",
        "256 KiB in 50 ms of round trip, server and gzip; measure yours: collector hec tune --url",
    )  # fmt: skip


def _json(sized: Sizing, seen: Rates | None) -> str:
    whole = {
        **msgspec.to_builtins(sized),
        "rate": sized.load.rate,
        "connections": sized.load.connections,
        "binds": sized.binds.limit,
        "scraped": seen,
    }
    return msgspec.json.format(msgspec.json.encode(whole), indent=2).decode()


def _print(sized: Sizing, seen: Rates | None) -> None:
    load = sized.load
    if seen is not None:
        click.echo(
            f"Seen of {seen.tasks} tasks with {seen.workers} workers: {seen.lines_per_s:,.3g} lines/s, "
            f"{seen.bytes_per_s / _MB:.3g} MB/s, {seen.wire_per_s / _MB:.3g} on the wire, "
            f"{seen.requests_per_s:.3g} requests/s, "
            f"{seen.dropped_per_s:.3g} lines/s dropped; the fullest buffer was {seen.fullest:.0%} full."
        )
    print_table("Load at its peak", ("", "MB/s", "lines/s"), _load_rows(load, seen), numbers=2)
    never = sized.recovery_s == float("inf")
    print_table(
        "What it takes", ("", "", ""),
        [
            ("HEC nodes", _range(sized), f"with {sized.plan.spare} spare; begin with {sized.nodes}"),
            ("head-room", f"{sized.head_room:.2g}x", f"{sized.nodes} nodes of {sized.plan.node_low / _MB:g} "
            "MB/s to the load"),
            ("connections", f"{load.connections:,}", f"one a worker, {sized.connections_per_node:.3g} a node"),
            ("requests/s", f"{sized.requests_per_s:,.3g}", f"of {size(round(sized.request_bytes))} before compression"),
            ("on the wire, MB/s", f"{sized.wire_rate / _MB:.3g}", "what a load balancer counts, without heads"),
            ("a day at this rate, GB", f"{sized.bytes_a_day / 1e9:,.0f}", "what a licence counts, if the "
            "peak never ended"),
            (
                "backlog gone after", "never" if never else f"{sized.recovery_s:.2g} s",
                f"{size(round(sized.backlog_bytes))} after {sized.plan.outage_s:g} s out; "
                f"{sized.drain / _MB:.3g} MB/s leave each worker",
            ),
            ("lost in that outage", f"{sized.lost_part:.1%}", "of what comes while nothing leaves"),
        ],
    )  # fmt: skip
    print_table(
        "Limits, the one that binds first at the top",
        ("limit", "used", ""),
        [(use.limit, f"{use.part:.0%}", use.words) for use in sized.uses],
        numbers=1,
    )
    for use in sized.uses:
        if use.part > 1:
            click.secho(f"Note: {use.limit} does not hold: {use.words}.", fg="yellow")
    print_table(
        "Taken for granted", ("", "", "source"), [(one.name, one.value, one.source) for one in sized.assumptions]
    )


def _load_rows(load: Load, seen: Rates | None) -> list[tuple[str, str, str]]:
    tasks = load.tasks if seen is None else seen.tasks
    rows = [("worker", load.worker_rate, load.lines_per_s)]
    rows.append(
        (f"task ({load.connections / tasks:g} workers)", load.rate / tasks, load.lines_per_s * load.connections / tasks)
    )
    rows.append((f"total ({tasks} tasks)", load.rate, load.lines_per_s * load.connections))
    return [(name, f"{rate / _MB:,.3g}", f"{lines:,.0f}") for name, rate, lines in rows]


def _range(sized: Sizing) -> str:
    return str(sized.nodes) if sized.nodes == sized.nodes_few else f"{sized.nodes_few} to {sized.nodes}"
