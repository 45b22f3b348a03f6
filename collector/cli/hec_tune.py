"""
`collector hec tune`: the stress test that chooses the buffer, and what it finds.
"""

from __future__ import annotations

import random
import sys
import threading
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import TYPE_CHECKING

import click

from collector.cli.hec_words import Report, print_report, report_json
from collector.cli.screen import fail
from collector.clock import SystemClock
from collector.errors import CollectorError

if TYPE_CHECKING:
    from collector.control.hec.cells import Cell, Sender, Target
    from collector.control.hec.planning import Effort, Goal

#: What marks a line of ours at a real HEC, so that nobody takes it for the service's.
SOURCE, _HOST = "collector-tune", "collector-tune"
_MOST_LINES = 400_000
#: Envelopes of the batch that HEC is looked at with: what fills the sender's own batch, about.
_LOOK_LINES = 500
_MOST_OUTAGE_S = 86_400.0
_MB = 1e6


@click.command("tune")
@click.option("--url", metavar="URL", help="A real HEC, such as https://splunk:8088. Without it, a simulated one.")
@click.option("--token", metavar="TOKEN", help="Its token; better in a file, for other users see command lines.")
@click.option("--token-file", type=click.Path(path_type=Path), metavar="FILE", help="A file with its token.")
@click.option("--ca-file", metavar="FILE", help="The certificate of whoever signed HEC's.")
@click.option(
    "--rate", type=float, default=1000.0, show_default=True, help="Log lines a second of one worker, at its peak."
)
@click.option("--outage", type=float, default=30.0, show_default=True, help="Seconds of an outage to be outlived.")
@click.option("--workers", type=int, default=4, show_default=True, help="Workers of a task.")
@click.option(
    "--how", type=click.Choice(["refusing", "answering", "reset", "black-hole"]), default="refusing", show_default=True,
    help="The way of the outage; a real HEC's is always refusing.",
)  # fmt: skip
@click.option(
    "--latency", type=float, default=20.0, show_default=True, help="Milliseconds of the simulated HEC's answer."
)
@click.option(
    "--hec-rate", type=float, default=8.0, show_default=True, help="MB a second that the simulated HEC takes."
)
@click.option("--seconds", type=float, help="Search for about so long; 50 without a word.")
@click.option("--quick", is_flag=True, help="Search for 20 s: a first look.")
@click.option("--thorough", is_flag=True, help="Search for 8 minutes, with longer outages.")
@click.option("--unscaled", is_flag=True, help="Real buffers, and outages as long as --outage.")
@click.option(
    "--max-lines", type=int, default=_MOST_LINES, show_default=True, help="Lines that a real HEC gets, at the most."
)
@click.option("--yes", is_flag=True, help="Send to a real HEC without asking.")
@click.option("--plot", type=click.Path(path_type=Path), metavar="FILE", help="Draw loss against rate, as SVG.")
@click.option("--json", "as_json", is_flag=True, help="Print everything as JSON instead of tables.")
def tune_command(
    url: str | None, token: str | None, token_file: Path | None, ca_file: str | None, rate: float, outage: float,
    workers: int, how: str, latency: float, hec_rate: float, seconds: float | None, quick: bool, thorough: bool,
    unscaled: bool, max_lines: int, yes: bool, plot: Path | None, as_json: bool,
) -> None:  # fmt: skip
    """
    Find out how large the buffer of lines for Splunk has to be.

    Lines like the real ones are sent at rising rates and through outages, to a HEC that is simulated in a process
    beside this one, or to a real one. What is found: for each buffer the rate and the outage at which loss starts,
    beside what arithmetic predicts; and what to set for --rate, --outage and --workers, checked by a last run.

    A real HEC is not stopped: a relay on this machine is between, and is closed. Lines have the source collector-tune.
    """
    problems = _mistakes(url, token, token_file, rate, outage, workers, latency, hec_rate, max_lines, how)
    if plot is not None and plot.suffix != ".svg":
        problems.append(f"--plot {plot}: what is drawn is SVG; give it a name that ends in .svg")
    if (seconds is not None) + quick + thorough > 1:
        problems.append("--seconds, --quick and --thorough are three lengths; give one")
    if problems:
        fail(problems)
    try:
        from collector.control.hec import planning  # noqa: PLC0415 -- 0.2 s, with the sender
        from collector.control.hec.planning import Goal, effort_for, seconds_for  # noqa: PLC0415 -- same
    except ImportError as error:
        fail([f"the sender is not installed ({error.name}): pip install 'collector[splunk]'"])
    if seconds is None:
        seconds = planning.QUICK_S if quick else planning.THOROUGH_S if thorough else planning.USUAL_S
    goal = Goal(lines_per_s=rate, outage_s=outage, workers=workers)
    try:
        effort = effort_for(seconds, outage_s=outage)
        if unscaled:
            effort = _unscaled(effort, outage, seconds, seconds_for)
        secret = _token_of(token, token_file)
        with _target(url, secret, ca_file, how, latency / 1000, hec_rate * _MB) as (target, at, at_token):
            if url is not None:
                _ask_first(url, effort, max_lines, seconds_for(effort), is_told=yes)
            report = _tuned(
                goal, effort, target, at, at_token, how=how, embedded=url is None, real=url, ca_file=ca_file,
                limit=max_lines if url else None,
            )  # fmt: skip
    except CollectorError as error:
        fail([str(error)])
    except KeyboardInterrupt:
        fail(["interrupted: nothing is recommended on half of the runs"])
    if plot is not None:
        _draw(plot, report)
    if as_json:
        click.echo(report_json(report))
    else:
        print_report(report)
    if report.has_lost:
        fail(
            [
                "the recommended buffer lost lines in the run that was to confirm it; give it more "
                "--seconds, or look for what disturbed the machine"
            ]
        )


def _mistakes(
    url: str | None, token: str | None, token_file: Path | None, rate: float, outage: float, workers: int,
    latency: float, hec_rate: float, max_lines: int, how: str,
) -> list[str]:  # fmt: skip
    problems = []
    if not 0 < rate < float("inf"):
        problems.append(f"--rate {rate:g}: write how many lines a second a worker logs at its peak, such as 1000")
    if not 0 < outage <= _MOST_OUTAGE_S:
        problems.append(
            f"--outage {outage:g}: write seconds, above 0 and up to a day; memory is no place for longer ones"
        )
    if workers < 1:
        problems.append(f"--workers {workers}: a task has one at least")
    if not 0 <= latency <= 9000:
        problems.append(f"--latency {latency:g}: write milliseconds, up to 9000; the sender gives up after 10 s")
    if not 0 < hec_rate < float("inf"):
        problems.append(f"--hec-rate {hec_rate:g}: write MB a second, such as 8")
    if max_lines < 1:
        problems.append(f"--max-lines {max_lines}: write how many lines a real HEC may get")
    if token is not None and token_file is not None:
        problems.append("a token and a file with one are two; give one of --token and --token-file")
    if url is not None and token is None and token_file is None:
        problems.append("--url needs the token of that HEC: give --token-file FILE, or --token")
    if url is None and (token is not None or token_file is not None):
        problems.append("a token is for a real HEC: give its --url, too")
    if url is not None and how != "refusing":
        problems.append(f"--how {how}: a real HEC is only made unreachable; leave it out, or leave --url out")
    return problems


def _token_of(token: str | None, file: Path | None) -> str:
    if file is None:
        return token or ""
    try:
        text = file.read_text().strip()
    except (OSError, UnicodeDecodeError) as error:
        fail([f"--token-file {file} can't be read: {error}"])
    if not text or any(character.isspace() for character in text):
        fail([f"--token-file {file} holds no token: it is one word"])
    return text


def _unscaled(effort: Effort, outage_s: float, seconds: float, seconds_for: Callable[[Effort], float]) -> Effort:
    import msgspec  # noqa: PLC0415 -- beside the rest of what is only needed here

    real = msgspec.structs.replace(effort, outage_s=outage_s, is_real=True)
    if seconds_for(real) > seconds:
        fail([
            f"an outage of {outage_s:g} s, as it is, does not fit into {seconds:g} s: the runs take about "
            f"{seconds_for(real):,.0f} s. Give --seconds that, or leave --unscaled out"
        ])  # fmt: skip
    return real


@contextmanager
def _target(
    url: str | None, token: str, ca_file: str | None, how: str, latency_s: float, bytes_per_s: float
) -> Iterator[tuple[Target, str, str]]:
    """Open where lines go: what can be made to be out, its URL, and its token."""
    from collector.control.hec.child import HecChild  # noqa: PLC0415 -- as above
    from collector.control.hec.preflight import checked_url  # noqa: PLC0415 -- same
    from collector.control.hec.relay import ChildTarget, Relay  # noqa: PLC0415 -- same

    if url is None:
        with HecChild(latency_s=latency_s, bytes_per_s=bytes_per_s) as child:
            yield ChildTarget(child, out=how), child.url, child.token
    else:
        with Relay(checked_url(url), ca_file=ca_file) as relay:
            yield relay, relay.url, token


def _ask_first(url: str, effort: Effort, max_lines: int, seconds: float, *, is_told: bool) -> None:
    """Say what a real HEC is about to get, and have it agreed to."""
    click.echo(
        f"This sends up to {max_lines:,} log lines (some {max_lines * 400 / _MB:,.0f} MB before "
        f"compression) to {url} for "
        f"about {seconds:,.0f} s, with the source {SOURCE} and the host {_HOST}, into the default index of the token. "
        f"Its own connections to HEC are cut for {effort.outage_s:.2g} s at a time; HEC itself is not touched.",
        err=True,
    )
    if is_told:
        return
    if not sys.stdin.isatty():
        fail(["nobody is there to agree to that; say so with --yes"])
    click.confirm("Go on?", abort=True, err=True)


def _tuned(
    goal: Goal, effort: Effort, target: Target, at: str, token: str, *, how: str, embedded: bool, real: str | None,
    ca_file: str | None, limit: int | None,
) -> Report:  # fmt: skip
    from collector.control.hec.child import used_cpu_s  # noqa: PLC0415 -- as above
    from collector.control.hec.driving import Bench  # noqa: PLC0415 -- same
    from collector.control.hec.lines import Lines  # noqa: PLC0415 -- same
    from collector.control.hec.planning import runs_of  # noqa: PLC0415 -- same
    from collector.control.hec.preflight import checked_url, look  # noqa: PLC0415 -- same
    from collector.control.hec.recommending import ATTEMPT_S, recommend  # noqa: PLC0415 -- same
    from collector.control.hec.tuning import Tuning  # noqa: PLC0415 -- same
    from collector.telemetry.hec.handler import HecHandler  # noqa: PLC0415 -- same
    from collector.telemetry.hec.options import SOURCETYPE, HecOptions  # noqa: PLC0415 -- same

    clock = SystemClock()

    def sender(cell: Cell) -> Sender:
        # At full speed the relay would be what is measured: nothing is cut then, so lines go straight there.
        is_straight = real is not None and not cell.lines_per_s
        options = HecOptions(
            url=real if real is not None and is_straight else at, ca_file=ca_file if is_straight else None,
            token=token, buffer_bytes=cell.buffer_bytes, batch_bytes=cell.batch_bytes,
            batch_lines=cell.batch_lines, linger_s=cell.linger_s, source=SOURCE, host=_HOST,
        )  # fmt: skip
        made: Sender = HecHandler(options, clock=clock, rng=random.Random(cell.seed))
        return made

    spare = Lines(now_us=clock.now_us(), seed=1)
    sample = spare.sample(_LOOK_LINES)
    head = (
        f'{{"host":"{_HOST}","source":"{SOURCE}","sourcetype":"{SOURCETYPE}","time":{clock.now_us() / 1e6:.6f},"event":'
    )
    envelopes = [head.encode() + line + b"}" for line in sample]
    seen = look(at if real is None else checked_url(real), token, envelopes, clock=clock, ca_file=ca_file)
    lines = Lines(now_us=clock.now_us(), limit=float("inf") if limit is None else limit - seen.sent_lines)
    bench = Bench(target, sender, lines, clock=clock, wait=threading.Event().wait, cpu_s=used_cpu_s)
    with _progress(runs_of(effort.halvings, effort.above) + 2) as tell:
        tuning = Tuning(bench, goal, effort, tell=tell, attempt_s=ATTEMPT_S[how])
        found = tuning.find(seen, spare)
        text_bytes = sum(map(len, sample)) / len(sample)
        recommended = recommend(found, goal, text_bytes=text_bytes, how=how)
        confirmed = tuning.confirm(recommended.buffer_bytes, recommended.silent_s, found.scale)
    return Report(
        goal=goal, found=found, recommended=recommended, confirmed=confirmed, embedded=embedded, how=how,
        sent_lines=lines.made + seen.sent_lines,
    )  # fmt: skip


@contextmanager
def _progress(runs: int) -> Iterator[Callable[[str, str], None]]:
    """Show how it goes, on standard error: a bar on a terminal, a line a run elsewhere."""
    from rich.console import Console  # noqa: PLC0415 -- 60 ms
    from rich.progress import BarColumn, Progress, SpinnerColumn, TextColumn, TimeElapsedColumn  # noqa: PLC0415 -- same

    if not sys.stderr.isatty():
        yield lambda what, came: click.echo(f"{what}: {came}", err=True) if came else None
        return
    columns = (SpinnerColumn(), BarColumn(bar_width=20), TimeElapsedColumn(), TextColumn("{task.description}"))
    # Four looks a second: its thread takes the interpreter from the sender that is measured.
    with Progress(*columns, console=Console(stderr=True), transient=True, refresh_per_second=4) as shown:
        task = shown.add_task("", total=runs)

        def tell(what: str, came: str) -> None:
            if came:
                shown.console.print(f"{what}: {came}", markup=False, highlight=False)
                shown.advance(task)
            else:
                shown.update(task, description=what)

        yield tell


def _draw(file: Path, report: Report) -> None:
    from collector.control.hec.plots import draw  # noqa: PLC0415 -- as above

    try:
        file.write_text(draw(report.found, embedded=report.embedded))
    except OSError as error:
        fail([f"--plot {file} can't be written: {error}"])
