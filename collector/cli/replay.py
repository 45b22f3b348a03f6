"""
`collector replay`: sends rescued batches on to the sinks of their routes.
"""

from __future__ import annotations

import sys
from collections.abc import Iterator
from contextlib import contextmanager
from typing import TYPE_CHECKING

import click

from collector.cli.loading import load_or_exit
from collector.cli.screen import fail, print_table, size
from collector.errors import SinkError
from collector.settings import Settings
from collector.sinks.base import Sink, Source, at_once
from collector.sinks.registry import open_claim_store, open_sink, open_source

if TYPE_CHECKING:
    from collector.delivery.aside import Claims
    from collector.delivery.rescue import Replayed

#: Who writes, as far as a sink asks.
_WRITER = "replay"


@click.command("replay")
@click.argument("url", required=False)
@click.option("--dry-run", is_flag=True, help="Show what there is, and send nothing.")
def replay_command(url: str | None, dry_run: bool) -> None:
    """
    Send the batches in a rescue sink on to the sinks of their routes, once.

    URL is a rescue sink; without it, COLLECTOR_RESCUE_SINK. A batch is removed from there when its own sink has
    confirmed it. Ends with 1 if anything is left there.
    """
    settings, _ = load_or_exit()
    try:
        source = open_source(place_of(url, settings))
        routes = source.routes()
    except (ValueError, SinkError) as error:
        fail([str(error)])
    if dry_run:
        sys.exit(_show(source, routes))
    sums = Sums()
    for route in routes:
        replay_route(source, route, settings, sums)
    click.echo(f"found {sums.found}, delivered {sums.delivered}, rejected {sums.rejected}, left {sums.left}")
    sys.exit(1 if sums.left or sums.is_in_doubt else 0)


def place_of(url: str | None, settings: Settings) -> str:
    """Return the URL of the rescue sink, as given or as in the settings; end without one."""
    place = url or settings.rescue_sink
    if place is None:
        fail(["there is no rescue sink: name one, for example file:rescue, or set COLLECTOR_RESCUE_SINK"])
    return place


class Sums:
    """Events over all routes; in doubt is what could not be read, or was another's to send on."""

    def __init__(self) -> None:
        self.found = self.delivered = self.rejected = self.left = 0
        self.is_in_doubt = False

    def add(self, one: Replayed) -> None:
        """Count what became of a batch."""
        self.found += one.found
        self.delivered += one.delivered
        self.rejected += sum(count for _, count in one.rejected)
        self.left += one.left
        self.is_in_doubt |= not one.readable


def replay_route(source: Source, route: str, settings: Settings, sums: Sums, *, parks: bool = True) -> None:
    """Send on what is stored of a route, once, and say what a person has to know of it; `parks` as `replay` has it."""
    from collector.delivery.rescue import DEFAULT_ROUTE, replay  # noqa: PLC0415 -- no other command needs telemetry

    own = route
    if route not in settings.routes:
        own = DEFAULT_ROUTE
        click.echo(f"route {route}: the settings do not name it; its batches go by the route {own}", err=True)
    try:
        with source.exclusive(route) as is_mine:
            if not is_mine:
                sums.is_in_doubt = True
                click.echo(f"route {route}: another replay is at work on it, maybe a worker's; try later", err=True)
                return
            with _opened(route, settings.routes[own]) as sink, _claims(settings) as claims:
                last = ""
                for one in replay(source, route, sink, is_counted=True, parks=parks, claims=claims):
                    sums.add(one)
                    _tell(route, one, last)
                    last = one.trouble
    except SinkError as error:
        sums.is_in_doubt = True
        click.echo(f"route {route}: {error}", err=True)


@contextmanager
def _opened(route: str, url: str) -> Iterator[Sink | None]:
    """Open a sink, or say why it can't be had and yield none."""
    sink = open_sink(url, writer_id=_WRITER)
    try:
        try:
            sink.start()
        except SinkError as error:
            click.echo(f"route {route}: {error}", err=True)
            yield None
        else:
            yield sink
    finally:
        sink.close()


@contextmanager
def _claims(settings: Settings) -> Iterator[Claims | None]:
    """Open the store for events that are too large for their sink, if the settings name one."""
    from collector.delivery.aside import Claims  # noqa: PLC0415 -- as in `replay_route`

    if settings.claim_sink is None:
        yield None
        return
    store = open_claim_store(settings.claim_sink, writer_id=_WRITER)
    try:
        yield Claims(store, offload=at_once)
    finally:
        store.close()


def _tell(route: str, one: Replayed, last: str) -> None:
    """Say what a person has to know of a batch; the same trouble is said once in a row."""
    if not one.readable:
        click.echo(f"route {route}: {one.trouble}; it is left there", err=True)
    elif one.trouble and one.trouble != last:
        click.echo(f"route {route}: {one.name}: {one.trouble}", err=True)
    for n, (reason, count) in enumerate(one.rejected):
        where = f"they are now in {one.aside[n]}" if one.aside else "they stay where they are"
        click.echo(f"route {route}: {one.name}: its sink refuses {count} events for good ({reason}); {where}", err=True)


def _show(source: Source, routes: list[str]) -> int:
    """Print what there is, by route; return the exit code."""
    unreadable = 0
    rows = []
    for route in routes:
        batches = events = payload = 0
        for stored in source.stored(route):
            try:
                batch = stored.load()
            except SinkError as error:
                unreadable += 1
                click.echo(f"route {route}: {error}", err=True)
                continue
            if batch is not None:
                batches, events, payload = batches + 1, events + len(batch), payload + batch.size
        if batches:
            rows.append((route, f"{batches:,}", f"{events:,}", size(payload)))
    print_table("Rescued", ("route", "batches", "events", "size"), rows, numbers=3)
    return 1 if unreadable else 0
