"""
`collector tail`: prints what was delivered, and goes on with what comes.
"""

from __future__ import annotations

import os
import re
import select
import sys
from collections.abc import Callable
from datetime import UTC, datetime, timedelta
from typing import BinaryIO

import click
import msgspec

from collector.cli.loading import sink_of
from collector.cli.screen import fail
from collector.cli.seen import Seen
from collector.clock import Clock, SystemClock
from collector.errors import SinkError, TransientSinkError
from collector.receiver.lines import timestamp
from collector.settings.values import NAME
from collector.sinks.reading import Delivered, Object, objects_in
from collector.sinks.registry import open_delivered
from collector.sinks.stored import unpack

_HOUR_US = 3600 * 1_000_000
#: How long it waits between two looks, at the least: a look that takes longer is followed by as long a pause. A choice.
_LOOK_S = 1.0
#: How often, and how many hours back, it looks for what an outage has held up. A choice: each hour is a request to S3,
#: and for each tenant one, where each has objects of its own.
_LATE_EVERY_S, _LATE_HOURS = 60.0, 24
_STDOUT = 1
_DURATION = re.compile(r"(\d{1,9})([smhd])")
_UNITS_US = {"s": 1_000_000, "m": 60 * 1_000_000, "h": _HOUR_US, "d": 24 * _HOUR_US}
#: Nothing was delivered before 2020, and each hour is looked for.
_FIRST_US = 1_577_836_800 * 1_000_000
_EXAMPLE = "2026-01-02T03:04:05Z"


@click.command()
@click.argument("url", required=False)
@click.option("--route", help="The sink of this route of the settings, in the place of a URL.")
@click.option("--tenant", help="The events of this tenant alone.")
@click.option(
    "--since", default="10m", show_default=True,
    help="Events received from then on: 90s, 10m, 2h or 3d ago, or at a time such as " f"{_EXAMPLE}.",
)  # fmt: skip
@click.option("--follow/--no-follow", default=True, show_default=True, help="Go on with what comes, until Ctrl-C.")
@click.option("--limit", type=click.IntRange(min=1), help="End after so many events.")
def tail(url: str | None, route: str | None, tenant: str | None, since: str, follow: bool, limit: int | None) -> None:
    """
    Print the events that a file: or s3: sink has delivered, each as its line of JSON.

    URL is the sink; without it, that of the route `default`. Events come by the hour of their arrival, and within one
    object by object, as these were written.

    Once a second it looks into this hour and the one before, and once a minute into the 24 hours before this one: what
    an outage holds up for longer is not shown as it comes, and is there for another --since. A bucket has to allow
    s3:ListBucket and s3:GetObject. What can't be read is told and left out; without --follow it then ends with 1.
    """
    clock = SystemClock()
    if tenant is not None and not NAME.fullmatch(tenant):
        fail([f"{tenant!r} can't be a tenant's id: it is 1 to 64 of A-Z, a-z, 0-9, _ and -"])
    if url is not None and route is not None:
        fail(["a URL and a route are two places; name one of them"])
    try:
        since_us = parse_since(since, now_us=clock.now_us())
        delivered, template = open_delivered(url or sink_of(route or "default"))
    except ValueError as error:
        fail([str(error)])
    out = sys.stdout.buffer
    shown = Tail(delivered, template, since_us=since_us, tenant_id=tenant or "", limit=limit, out=out)
    try:
        run(shown, clock, follow=follow, wait=_reader_leaves)
    except SinkError as error:
        fail([str(error)])
    except KeyboardInterrupt:
        return
    except BrokenPipeError:
        # Python would flush once more at its end, and complain.
        os.dup2(os.open(os.devnull, os.O_WRONLY), _STDOUT)
        return
    finally:
        delivered.close()
    sys.exit(1 if shown.is_in_doubt and not follow else 0)


def parse_since(text: str, *, now_us: int) -> int:
    """Read a duration back from now, or a time, as microseconds since the epoch; raises `ValueError`."""
    try:
        if match := _DURATION.fullmatch(text):
            return max(now_us - int(match[1]) * _UNITS_US[match[2]], _FIRST_US)
        moment = datetime.fromisoformat(text)
    except ValueError:
        moment = None
    if moment is None or moment.tzinfo is None:
        raise ValueError(f"--since {text!r} is neither 90s, 10m, 2h or 3d nor a time with its zone, such as {_EXAMPLE}")
    return max((moment - datetime.fromtimestamp(0, UTC)) // timedelta(microseconds=1), _FIRST_US)


def run(shown: Tail, clock: Clock, *, follow: bool, wait: Callable[[float], bool]) -> None:
    """
    Look again and again, until there is enough, or `wait` says that nobody reads.

    Raises `SinkError` when not even the first look was possible: that is a mistake of whoever asks, and not an outage.
    """
    since_hour = missing_from = shown.since_us // _HOUR_US
    late_at = clock.monotonic() + _LATE_EVERY_S
    while True:
        this, started = clock.now_us() // _HOUR_US, clock.monotonic()
        if started >= late_at:
            missing_from, late_at = min(missing_from, this - _LATE_HOURS), started + _LATE_EVERY_S
        try:
            # The clock of whoever named the objects may be ahead of this one.
            shown.look(range(max(since_hour, missing_from), this + 2))
        except SinkError as error:
            if not shown.has_looked:
                raise
            shown.tell(str(error))
        else:
            shown.forget_before(this - _LATE_HOURS)
            missing_from = this - 1
            shown.told = ""
        if shown.is_enough or not follow or wait(max(_LOOK_S, clock.monotonic() - started)):
            return


def _reader_leaves(timeout_s: float) -> bool:
    """Wait, and tell whether whoever reads the standard output has gone meanwhile."""
    poll = select.poll()
    poll.register(_STDOUT, 0)
    return bool(poll.poll(timeout_s * 1000))


class _Head(msgspec.Struct):
    """What of a line says whether it is wanted."""

    tenant: str
    received_at: str


class Tail:
    """
    Shows the lines of each object once.

    `is_enough` when the limit is reached; `is_in_doubt` when something could not be read; `has_looked` when there was a
    listing at all; `told` is what was said last.
    """

    def __init__(
        self, delivered: Delivered, template: str, *, since_us: int, tenant_id: str, limit: int | None, out: BinaryIO
    ) -> None:
        self.since_us = since_us
        self.has_looked = self.is_in_doubt = self.is_enough = False
        self.told = ""
        self._delivered = delivered
        self._template = template
        self._since = timestamp(since_us)
        self._tenant_id = tenant_id
        self._is_mixed = bool(tenant_id) and "{tenant}" not in template
        self._left = limit
        self._out = out
        self._seen = Seen()
        self._head = msgspec.json.Decoder(_Head)

    def look(self, hours: range) -> None:
        """Show what is new in these hours; raises `SinkError` when that can't be known, and goes on there next time."""
        for _, objects in objects_in(self._delivered, self._template, hours, self._tenant_id):
            self.has_looked = True
            for one in list(filter(self._seen.is_new, objects)):
                self._show(one)
                self._seen.add(one)
                if self.is_enough:
                    return
        self.has_looked = True

    def forget_before(self, hour: int) -> None:
        """Remember nothing of the hours before this one, which nobody looks into any more."""
        self._seen.forget_before(hour)

    def tell(self, trouble: str) -> None:
        """Say to a person what stands in the way; the same is said once in a row."""
        if trouble != self.told:
            click.echo(trouble, err=True)
        self.told = trouble

    def _show(self, one: Object) -> None:
        try:
            frame = self._delivered.read(one.name)
            lines = [] if frame is None else self._wanted(one.hour, unpack(frame))
        except TransientSinkError:
            raise
        except (SinkError, ValueError) as error:
            self.is_in_doubt = True
            click.echo(f"{one.name} can't be read back, and is left out: {error}", err=True)
            return
        if self._left is not None:
            lines = lines[: self._left]
            self._left -= len(lines)
            self.is_enough = not self._left
        if lines:
            self._out.write(b"\n".join([*lines, b""]))
            self._out.flush()

    def _wanted(self, hour: int, payload: bytes) -> list[bytes]:
        lines = payload.split(b"\n")[:-1]
        if hour > self.since_us // _HOUR_US and not self._is_mixed:
            return lines
        return [line for line in lines if self._is_wanted(line)]

    def _is_wanted(self, line: bytes) -> bool:
        # The event is the last of a line, and may hold what not every parser takes.
        head = self._head.decode(line.partition(b',"event":')[0] + b"}")
        return head.received_at >= self._since and (not self._is_mixed or head.tenant == self._tenant_id)
