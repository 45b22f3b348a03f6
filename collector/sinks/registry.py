"""
Which sink a URL opens, and which can be read back. A new sink is one module and one line here.
"""

from __future__ import annotations

from collections.abc import Callable

from collector.clock import Clock, SystemClock
from collector.event import Batch
from collector.outcome import Reason
from collector.sinks import (
    aws_url,
    firehose,
    firehose_probe,
    kinesis,
    kinesis_probe,
    local,
    local_probe,
    local_reading,
    local_source,
    s3,
    s3_probe,
    s3_reading,
    s3_source,
    sqs,
    stdout,
    url,
)
from collector.sinks.base import ObjectSink, Offload, Sink, Source, at_once
from collector.sinks.objects import template_of
from collector.sinks.probing import Probe, Unread
from collector.sinks.reading import Delivered
from collector.sinks.stored import parked

#: Makes a sink from its URL, the id of the worker that writes, the clock, and what to compute elsewhere with. It opens
#: nothing yet.
Factory = Callable[[url.SinkUrl, str, Clock, Offload], Sink]

SINKS: dict[str, Factory] = {
    "file": local.from_url,
    "stdout": stdout.from_url,
    "s3": s3.from_url,
    "kinesis": kinesis.from_url,
    "firehose": firehose.from_url,
    "sqs": sqs.from_url,
}

#: The reading sides, of sinks that have one: a rescue sink can be replayed if it is here.
SOURCES: dict[str, Callable[[url.SinkUrl, Clock, Offload], Source]] = {
    "file": local_source.from_url,
    "s3": s3_source.from_url,
}

#: What people can look into: the sinks that have objects.
DELIVERED: dict[str, Callable[[url.SinkUrl], Delivered]] = {
    "file": local_reading.from_url,
    "s3": s3_reading.from_url,
}

#: What a probe can see of a batch, and may do to it.
PROBES: dict[str, Callable[[url.SinkUrl, Batch], Probe]] = {
    "file": local_probe.probe,
    "stdout": stdout.probe,
    "s3": s3_probe.probe,
    "kinesis": kinesis_probe.probe,
    "firehose": firehose_probe.probe,
    "sqs": sqs.probe,
}

SCHEMES: tuple[str, ...] = tuple(SINKS)
_AWS = frozenset({"s3", "kinesis", "firehose", "sqs"})


def open_sink(text: str, *, writer_id: str, clock: Clock | None = None, offload: Offload = at_once) -> Sink:
    """
    Make the sink that a URL names, without touching its destination; the sink's `start` does that.

    `offload` runs what a sink computes for long, where it holds up nobody. Raises `ValueError` with one sentence that
    says what is wrong with the URL and what to write instead.
    """
    return _open(url.parse(text), writer_id, clock, offload)


def open_rescue_sink(
    text: str, *, route: str, writer_id: str, clock: Clock | None = None, offload: Offload = at_once
) -> Sink:
    """
    Make the rescue sink as one route has it: below `route=<name>`, so that a replay knows where a batch belongs.

    One that can't be read back is the same for every route. Raises `ValueError`, as `open_sink` does.
    """
    parsed = url.parse(text)
    _refuse_template(parsed)
    if parsed.scheme not in SOURCES:
        return _open(parsed, writer_id, clock, offload)
    open_source(text, clock=clock)
    return _open(url.within(parsed, f"route={route}"), writer_id, clock, offload)


def open_claim_store(
    text: str, *, writer_id: str, clock: Clock | None = None, offload: Offload = at_once
) -> ObjectSink:
    """Make the store that events too large for their sinks lie in; raises `ValueError`, as `open_sink` does."""
    made = open_sink(text, writer_id=writer_id, clock=clock, offload=offload)
    if not isinstance(made, local.LocalSink | s3.S3Sink):
        raise ValueError(  # noqa: TRY004 -- it is the text that is wrong
            f"{text!r} holds no objects that a claim could point to; write file:DIR or s3://bucket/prefix"
        )
    return made


def open_parked(
    text: str, *, route: str, reason: Reason, writer_id: str, clock: Clock | None = None, offload: Offload = at_once
) -> Sink:
    """
    Make the sink for what the sink of a route refused for a reason: in the rescue sink, out of a replay's way.

    Raises `ValueError`, also for a rescue sink that can't be read back: what is parked would be gone there.
    """
    open_source(text, clock=clock)
    return _open(url.within(url.parse(text), f"{parked(reason)}/route={route}"), writer_id, clock, offload)


def open_parked_source(text: str, reason: str, *, clock: Clock | None = None, offload: Offload = at_once) -> Source:
    """Make the reading side of what is parked in a rescue sink for a reason, as `Source.reasons` names it."""
    return _source(url.within(url.parse(text), parked(reason)), clock, offload)


def open_source(text: str, *, clock: Clock | None = None, offload: Offload = at_once) -> Source:
    """Make the reading side of the rescue sink that a URL names; raises `ValueError` for one that has none."""
    return _source(url.parse(text), clock, offload)


def open_delivered(text: str) -> tuple[Delivered, str]:
    """
    Make what reads back the objects that the sink of a URL has delivered, and return it with their template.

    It looks at nothing yet. Raises `ValueError` for a sink that has no objects.
    """
    parsed = url.parse(text)
    make = DELIVERED.get(parsed.scheme)
    if make is None:
        which = " and ".join(f"{scheme}:" for scheme in DELIVERED)
        raise ValueError(f"{text!r} holds no objects that could be looked into; what can be is {which}")
    return make(parsed), template_of(parsed)


def open_probe(text: str, batch: Batch) -> Probe:
    """Make what looks for a batch in the place of a sink whose URL is in order. It looks at nothing yet."""
    parsed = url.parse(text)
    make = PROBES.get(parsed.scheme)
    if make is None:
        return Unread(f"Collector reads nothing back from {parsed.scheme}:", stays="it stays there")
    return make(parsed, batch)


def aws_options(text: str) -> aws_url.AwsOptions | None:
    """Return what the URL of an AWS sink says of region and role; None for any other sink."""
    parsed = url.parse(text)
    return aws_url.common_options(parsed) if parsed.scheme in _AWS else None


def can_be_read_back(text: str) -> bool:
    """Tell whether what a sink took can be sent on from there."""
    return url.parse(text).scheme in SOURCES


def _source(parsed: url.SinkUrl, clock: Clock | None, offload: Offload) -> Source:
    make = SOURCES.get(parsed.scheme)
    if make is None:
        if parsed.scheme not in SINKS:
            _open(parsed, "", clock, at_once)
        which = ", ".join(f"{scheme}:" for scheme in SOURCES)
        raise ValueError(
            f"{parsed.text!r} can't be read back, so nothing can be sent on from there; what can be is {which}"
        )
    _refuse_template(parsed)
    return make(parsed, clock or SystemClock(), offload)


def _refuse_template(parsed: url.SinkUrl) -> None:
    if "key" in parsed.options:
        raise ValueError(f"sink {parsed.text!r}: a rescue sink has its own places; leave out key=")


def _open(parsed: url.SinkUrl, writer_id: str, clock: Clock | None, offload: Offload) -> Sink:
    factory = SINKS.get(parsed.scheme)
    if factory is None:
        raise ValueError(
            f"sink {parsed.text!r}: there is no sink {parsed.scheme!r}; the schemes are {', '.join(SCHEMES)}"
        )
    return factory(parsed, writer_id, clock or SystemClock(), offload)
