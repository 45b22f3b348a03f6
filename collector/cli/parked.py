"""
`collector parked`: what sinks refused for good, kept whole in the rescue sink; listed, shown, and sent again.
"""

from __future__ import annotations

import re
import sys
from collections.abc import Iterator
from datetime import UTC, datetime

import click
import msgspec

from collector.cli.loading import load_or_exit
from collector.cli.replay import Sums, place_of, replay_route
from collector.cli.screen import fail, print_table, size
from collector.errors import SinkError
from collector.event import Batch
from collector.settings import Settings
from collector.sinks.base import Source, Stored
from collector.sinks.registry import open_parked_source, open_source

#: Where an object's hour stands in its place, and its name after it.
_HOUR = re.compile(r"date=[^/]*/hour=[^/]*/[^/]*\Z")
_LINES = 100

_url = click.argument("url", required=False)
_reason = click.option("--reason", metavar="R", help="Only what was refused for this reason.")


@click.group("parked")
def parked() -> None:
    """
    Look after events that a sink refused for good.

    URL is a rescue sink; without it, COLLECTOR_RESCUE_SINK.
    """


class _Lane(msgspec.Struct, frozen=True):
    """What is parked of one route for one reason."""

    reason: str
    route: str
    source: Source


class _Row(msgspec.Struct):
    """What is parked of one tenant in a lane."""

    batches: int = 0
    events: int = 0
    size: int = 0
    oldest: int = sys.maxsize

    def add(self, batch: Batch) -> None:
        self.batches += 1
        self.events += len(batch)
        self.size += batch.size
        self.oldest = min(self.oldest, batch.spans[0].hour)


@parked.command("list")
@_url
def list_command(url: str | None) -> None:
    """
    Show what is parked, by reason, route and tenant; oldest is the hour in which the first of it came.

    Ends with 1 if something there can't be read back.
    """
    lanes, _ = _lanes(url)
    sys.exit(_show(lanes))


@parked.command("show")
@_url
@click.option("--tenant", metavar="T", help="Only events of this tenant.")
@_reason
@click.option("--limit", type=click.IntRange(min=1), default=_LINES, show_default=True, help="Lines at the most.")
def show_command(url: str | None, tenant: str | None, reason: str | None, limit: int) -> None:
    """
    Print parked lines as they are, those of the oldest hour first.

    Ends with 1 if something there can't be read back.
    """
    lanes, _ = _lanes(url, reason=reason)
    reader = _Reader()
    left = limit
    found = [stored for lane in lanes for stored in reader.stored(lane)]
    for stored in sorted(found, key=_age):
        batch = reader.load(stored)
        if batch is None or tenant not in {None, batch.spans[0].tenant_id}:
            continue
        for line in batch.lines()[:left]:
            click.echo(line)
        left -= min(left, len(batch))
        if not left:
            break
    sys.exit(1 if reader.is_in_doubt else 0)


@parked.command("replay")
@_url
@click.option("--route", metavar="R", help="Only what was refused by the sink of this route.")
@_reason
@click.option("--dry-run", is_flag=True, help="Show what there is, and send nothing.")
def replay_command(url: str | None, route: str | None, reason: str | None, dry_run: bool) -> None:
    """
    Send what is parked to the sinks of its routes again, once.

    An event is removed when its sink has taken it. Ends with 1 if anything is left there, refused again or not.
    """
    lanes, settings = _lanes(url, route=route, reason=reason)
    if dry_run:
        sys.exit(_show(lanes))
    sums = Sums()
    for lane in lanes:
        replay_route(lane.source, lane.route, settings, sums, parks=False)
    click.echo(f"found {sums.found}, delivered {sums.delivered}, refused again {sums.rejected}, left {sums.left}")
    sys.exit(1 if sums.rejected or sums.left or sums.is_in_doubt else 0)


def _lanes(url: str | None, *, route: str | None = None, reason: str | None = None) -> tuple[list[_Lane], Settings]:
    """Find what is parked, of this route and for this reason if they are given; end with what is wrong."""
    settings, _ = load_or_exit()
    place = place_of(url, settings)
    lanes = []
    try:
        for why in open_source(place).reasons():
            if reason in {None, why}:
                source = open_parked_source(place, why)
                lanes += [_Lane(why, one, source) for one in source.routes() if route in {None, one}]
    except (ValueError, SinkError) as error:
        fail([str(error)])
    return lanes, settings


class _Reader:
    """Reads what is parked, and says what can't be; then it is in doubt whether that was all."""

    def __init__(self) -> None:
        self.is_in_doubt = False

    def stored(self, lane: _Lane) -> Iterator[Stored]:
        try:
            yield from lane.source.stored(lane.route)
        except SinkError as error:
            self._tell(error)

    def load(self, stored: Stored) -> Batch | None:
        try:
            return stored.load()
        except SinkError as error:
            self._tell(error)
        return None

    def _tell(self, error: SinkError) -> None:
        self.is_in_doubt = True
        click.echo(str(error), err=True)


def _age(stored: Stored) -> str:
    found = _HOUR.search(stored.place)
    return found[0] if found else ""


def _show(lanes: list[_Lane]) -> int:
    """Print the table; return the exit code."""
    reader = _Reader()
    rows: dict[tuple[str, str, str], _Row] = {}
    for lane in lanes:
        for stored in reader.stored(lane):
            batch = reader.load(stored)
            if batch is not None:
                rows.setdefault((lane.reason, lane.route, batch.spans[0].tenant_id), _Row()).add(batch)
    print_table(
        "Parked",
        ("reason", "route", "tenant", "batches", "events", "size", "oldest"),
        [
            (*key, f"{row.batches:,}", f"{row.events:,}", size(row.size), f"{_start(row.oldest):%Y-%m-%dT%HZ}")
            for key, row in sorted(rows.items())
        ],
    )
    return 1 if reader.is_in_doubt else 0


def _start(hour: int) -> datetime:
    return datetime.fromtimestamp(hour * 3600, UTC)
