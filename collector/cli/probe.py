"""
`collector check --sink`: writes one event to a sink, reads it back, and takes it away again where that can be.
"""

from __future__ import annotations

import sys
from collections.abc import Callable
from contextlib import closing
from typing import NoReturn

import click

from collector.aws.words import DENIED
from collector.cli.credentials import told_of
from collector.cli.loading import sink_of
from collector.cli.screen import fail, print_table
from collector.clock import Clock, SystemClock
from collector.errors import AmbiguousSinkError, SinkError, TransientSinkError
from collector.event import Batch, Envelope, Event, Span
from collector.receiver.lines import lines
from collector.settings.values import NAME
from collector.sinks.probing import Result, Told
from collector.sinks.registry import aws_options, open_probe, open_sink
from collector.uuid7 import Uuid7

PROBE_TENANT = "collector-probe"
#: What a line says of where its event came from, where others have `native`.
_PROTOCOL = "probe"
_BODY = b'{"event":"collector.probe"}'
#: Who writes, as far as a sink asks.
_WRITER = "probe"
_HOUR_US = 3600 * 1_000_000
#: What sinks say of batches, which are kept. An event of ours is not.
_WAITS = "; the batch is kept and tried again"


def probe(url: str | None, route: str | None, tenant_id: str) -> NoReturn:
    """Probe a sink, or that of a route, and end with 0 if nothing failed."""
    if url is not None and route is not None:
        fail(["a URL and a route are two places; name one of them"])
    if not NAME.fullmatch(tenant_id):
        fail([f"{tenant_id!r} can't be a tenant's id: it is 1 to 64 of A-Z, a-z, 0-9, _ and -"])
    clock = SystemClock()
    event_id, batch = _one_event(tenant_id, clock)
    try:
        text = sink_of(route or "") if url is None else url
        probed = _Probed(text, event_id, batch, clock)
    except ValueError as error:
        fail([str(error)])
    if probed.stays:
        click.secho(f"Note: this writes one event of the tenant {tenant_id}, and {probed.stays}.", fg="yellow")
    steps = _Steps(clock)
    with closing(probed):
        steps.take("the URL is read", lambda: Told(Result.OK, text))
        steps.take("credentials", lambda: told_of(probed.aws))
        steps.take("the sink starts", probed.start)
        written = steps.take("an event is written", probed.write)
        read = steps.take("it is read back", probed.read_back)
        steps.take("it is taken away", probed.take_away, anyway=written is Result.OK)
    print_table("Probe", ("step", "ms", "result", "what came of it"), steps.rows, numbers=1)
    for left in steps.left:
        click.secho(f"Note: {left} is left there", fg="yellow")
    if steps.troubles:
        fail(steps.troubles)
    seen = "and it was there as it was written" if read is Result.OK else "and whether it is there was not seen"
    click.secho(f"The sink took the event, {seen}.", fg="green")
    sys.exit(0)


def _one_event(tenant_id: str, clock: Clock) -> tuple[str, Batch]:
    """Make a batch of one event, and say its id."""
    event_id = Uuid7(clock)()
    now_us = clock.now_us()
    event = Event(index=0, id=f'"{event_id}"'.encode(), body=_BODY)
    line = lines(Envelope(tenant_id, _PROTOCOL, event_id, now_us, "", [event]))
    name = f"{_WRITER}-{event_id}"
    return event_id, Batch(name, name, (Span(tenant_id, now_us // _HOUR_US, 0, 1),), (line,))


class _Steps:
    """The steps as rows of a table. After one that has failed no other is taken."""

    def __init__(self, clock: Clock) -> None:
        self._clock = clock
        self.rows: list[tuple[str, str, str, str]] = []
        self.troubles: list[str] = []
        self.left: list[str] = []

    def take(self, name: str, do: Callable[[], Told], *, anyway: bool = False) -> Result:
        """Take a step, `anyway` also after a failure, and say what came of it."""
        if self.troubles and not anyway:
            self.rows.append((name, "", Result.SKIPPED.value, "it did not come to that"))
            return Result.SKIPPED
        started_s = self._clock.monotonic()
        try:
            told = do()
        except (SinkError, ValueError) as error:
            told = Told(Result.FAILED, str(error).removesuffix(_WAITS))
        took_ms = (self._clock.monotonic() - started_s) * 1000
        took = "" if told.result is Result.SKIPPED else f"{took_ms:,.0f}"
        self.rows.append((name, took, told.result.value, told.detail))
        if told.left:
            self.left.append(told.left)
        if told.result is Result.FAILED:
            self.troubles.append(told.detail)
        return told.result


class _Probed:
    """A sink and what looks into its place, as steps; raises `ValueError` for a URL that names none."""

    def __init__(self, text: str, event_id: str, batch: Batch, clock: Clock) -> None:
        self._sink = open_sink(text, writer_id=_WRITER, clock=clock)
        self._probe = open_probe(text, batch)
        self._event_id = event_id
        self._batch = batch
        self._unmarked: SinkError | None = None
        self.aws = aws_options(text)
        self.stays = self._probe.stays

    def start(self) -> Told:
        try:
            self._probe.mark()
        except SinkError as error:
            # It is about the reading, and told there: whether the sink takes the event is still to be seen.
            self._unmarked = error
        self._sink.start()
        return Told(Result.OK, "its client is made" if self.aws else "it can be written to")

    def write(self) -> Told:
        try:
            receipt = self._sink.write(self._batch)
        except TransientSinkError as error:
            # The s3: sink tells nobody of doubt, for there a repeat is no second object.
            in_doubt = isinstance(error, AmbiguousSinkError) or isinstance(error.__cause__, AmbiguousSinkError)
            more = self._of_another_tenant() if error.code in DENIED else self._in_doubt() if in_doubt else ""
            return Told(Result.FAILED, str(error).removesuffix(_WAITS) + more)
        if receipt.delivered != 1:
            more = self._in_doubt() if receipt.in_doubt else ""
            return Told(Result.FAILED, (receipt.trouble or "the sink did not take it") + more)
        span = self._batch.spans[0]
        return Told(Result.OK, f"tenant {span.tenant_id}, {self._batch.size} bytes, id {self._event_id}")

    def read_back(self) -> Told:
        try:
            if self._unmarked is not None:
                raise self._unmarked
            return self._probe.read_back()
        except TransientSinkError as error:
            if error.code not in DENIED:
                raise
            return Told(Result.UNTOLD, "the role may not read there, and need not")

    def take_away(self) -> Told:
        return self._probe.take_away()

    def close(self) -> None:
        self._sink.close()
        self._probe.close()

    def _in_doubt(self) -> str:
        return f"; the event {self._event_id} may be there all the same"

    def _of_another_tenant(self) -> str:
        tenant_id = self.aws.tenant if self.aws else ""
        if tenant_id in {"", self._batch.spans[0].tenant_id}:
            return ""
        return f"; if the role is only for its tenant, probe with --tenant {tenant_id}"
