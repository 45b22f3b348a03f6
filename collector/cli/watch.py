"""
`collector watch processed-bytes`: whether what a load balancer passes on to Splunk is what it was, and what was sent.
"""

from __future__ import annotations

import sys
from pathlib import Path
from typing import Any, NoReturn

import click

from collector.cli.screen import fail
from collector.clock import SystemClock
from collector.errors import CannotLook

#: How it ends: nothing found, could not look (as every command), found something.
FOUND = 2
_DEMOS = ("clean", "zero", "step-down", "step-up", "leak", "flat", "moved", "lumps")


def _with_1(error: click.UsageError) -> click.UsageError:
    error.exit_code = 1  # type: ignore[misc]  # click declares it of the class, and reads it of the error
    return error


class _Command(click.Command):
    """A command whose misuse ends with 1, for 2 is a finding."""

    def make_context(self, *arguments: Any, **more: Any) -> click.Context:  # noqa: ANN401 -- click's own shape
        try:
            return super().make_context(*arguments, **more)
        except click.UsageError as error:
            raise _with_1(error) from None


class _Group(click.Group):
    """A group of such commands."""

    command_class = _Command

    def make_context(self, *arguments: Any, **more: Any) -> click.Context:  # noqa: ANN401 -- click's own shape
        try:
            return super().make_context(*arguments, **more)
        except click.UsageError as error:
            raise _with_1(error) from None

    def resolve_command(self, ctx: click.Context, args: list[str]) -> Any:  # noqa: ANN401 -- as above
        """Find a command by its name; a name that is none ends with 1."""
        try:
            return super().resolve_command(ctx, args)
        except click.UsageError as error:
            raise _with_1(error) from None


@click.group("watch", cls=_Group)
def watch() -> None:
    """Watch what goes from Collector to Splunk."""


@watch.command("processed-bytes")
@click.option("--load-balancer", metavar="NAME", help="Its ARN, or the end of it: app/NAME/ID or net/NAME/ID.")
@click.option("--processed", type=click.Path(path_type=Path), help="A file in the place of CloudWatch: minute,bytes.")
@click.option("--demo", type=click.Choice(_DEMOS), help="Weeks that never were, with such a change in the last hours.")
@click.option("--sent-metric", metavar="METRIC", help="What the tasks sent: NAMESPACE/NAME[,Dimension=Value…].")
@click.option("--prometheus", metavar="URL", help="What the tasks sent: a Prometheus server that reads their metrics.")
@click.option("--query", metavar="PROMQL", help="What to ask it instead of the sum over all tasks, for five minutes.")
@click.option("--sent", type=click.Path(path_type=Path), help="What the tasks sent: a file, minute,bytes.")
@click.option("--days", type=click.IntRange(1, 63), default=15, show_default=True, help="History to judge by.")
@click.option("--recent", default="3h", show_default=True, help="What to judge: the last 30m, 3h or 1d of it.")
@click.option("--until", metavar="TIME", help="Look as if it were then, such as 2026-01-02T03:04Z.")
@click.option(
    "--late", type=click.IntRange(0, 60), default=5, show_default=True,
    help="Minutes that are left out at the end, for CloudWatch is late. Of files none is.",
)  # fmt: skip
@click.option("--timezone", metavar="ZONE", help="Whose days the users have, such as Europe/Berlin. Without it, UTC.")
@click.option(
    "--sensitivity", type=click.Choice(["low", "normal", "high"]), default="normal", show_default=True,
    help="How much of a change is told.",
)  # fmt: skip
@click.option("--plot", type=click.Path(path_type=Path), help="Write a picture (SVG) there.")
@click.option("--json", "as_json", is_flag=True, help="Print what was found as one line of JSON.")
@click.option("--region", default="", help="Of the load balancer, where boto3's own chain finds another or none.")
@click.option("--endpoint", default="", help="A URL in the place of CloudWatch's own.")
@click.option("--install", is_flag=True, help="Put the alarms and the anomaly detector of the load balancer.")
@click.option("--uninstall", is_flag=True, help="Take away what --install has put.")
@click.option("--dry-run", is_flag=True, help="With --install or --uninstall: print the calls as JSON, make none.")
@click.option("--sns-topic", default="", help="With --install: the ARN of the topic that alarms go to.")
@click.option(
    "--ratio", type=click.FloatRange(0.01, 100), default=1.03, show_default=True,
    help="With --install and --sent-metric: what is usually processed of a byte that is sent.",
)  # fmt: skip
def processed_bytes(**options: Any) -> NoReturn:  # noqa: ANN401 -- click's: each is typed above
    """
    Compare what a load balancer in front of Splunk has processed with what it used to, and with what the tasks sent.

    Ends with 0 when nothing was found, with 1 when it could not look, and with 2 when something was found: a drop to
    zero, a step, a changed pattern, a widening gap to what was sent, or no data at all.

    Try it: collector watch processed-bytes --demo leak --plot leak.svg
    """
    # What it takes to judge is not loaded by a start of the server.
    from collector.cli.watching import Options, install, look, uninstall  # noqa: PLC0415 -- as above

    asked = Options(**options)
    try:
        asked.check()
        if asked.install:
            install(asked)
        elif asked.uninstall:
            uninstall(asked)
        else:
            sys.exit(FOUND if look(asked, SystemClock()) else 0)
    except CannotLook as error:
        fail([str(error)])
    sys.exit(0)
