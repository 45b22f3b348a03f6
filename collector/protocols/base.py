"""
The one shape of a protocol adapter, and the values that cross it.

An adapter is pure: bytes and headers in, values out. It opens nothing, counts nothing and knows no tenant. The
receiver asks it in this order, and may stop at any step with `refuse`:

    credentials(request)         who says he is sending; before inflating, so that overload is shed cheaply
    decode(request, body, …)     the events as bytes, with their ids, and what is wrong with the others
    render(result, decoded)      the answer that this SDK takes for a success
    refuse(verdict, request)     the answer that makes this SDK keep, or drop, what it sent

Wire formats of this kind are often described in five steps: authenticate, decode, split, normalise, render.
Here decode and split are one, since for all of them the envelope is only there to be taken off. Normalise is
not here at all: an event is handed on byte for byte, and whoever reads it knows its protocol from the line.

How other protocols fit:
- The key is in the body (Segment, PostHog, Amplitude), or in the events (Mixpanel, Snowplow): `key_in_body` is
  true, and a request whose headers name no key is asked again with the inflated body.
- The answer repeats something of the request (a request number, a JSONP call, the request's own encoding, an
  account per event): `decode` returns a subclass of `Decoded` that carries it to `render`.
- Several paths or methods (`GET` with the events in the query): `Request` has both.
- A status has another meaning (413 is retried for ever by Snowplow's trackers): `refuse` chooses it.
"""

from __future__ import annotations

import typing
from collections.abc import Callable, Mapping

import msgspec

from collector.event import Event
from collector.outcome import STATUS, Reason, Rejection, Verdict
from collector.tenant import Ack

#: Makes n ids for events that bring none, such as `Uuid7.many`.
NewIds = Callable[[int], list[str]]

JSON_HEADERS: tuple[tuple[str, str], ...] = (("Content-Type", "application/json"),)


class Request(msgspec.Struct, frozen=True):
    """
    An upload as it came.

    `path` has no query; `query` is what follows the question mark, still encoded. Names of `headers` are in
    lower case, values of repeated headers joined by ", ". `body` is as sent, not inflated.
    """

    method: str
    path: str
    query: str
    headers: Mapping[str, str]
    body: bytes
    remote_ip: str


class Reply(msgspec.Struct, frozen=True):
    """An answer. `Content-Length` is the receiver's business."""

    status: int
    headers: tuple[tuple[str, str], ...]
    body: bytes


class Credentials(msgspec.Struct, frozen=True):
    """What a request says of its sender: an ingest key, and for some protocols an account; None is not said."""

    key: str | None = None
    account: str | None = None


class DecodeLimits(msgspec.Struct, frozen=True):
    """What one upload may hold; `max_event_bytes` is counted on the event as sent."""

    max_events: int
    max_event_bytes: int


class Decoded(msgspec.Struct):
    """
    The events of one upload that can be taken, in the order sent, and the rejections of the others.

    Each event of the upload is in exactly one of the two lists. An adapter may subclass it to carry more to
    its own `render`.
    """

    events: list[Event]
    rejected: list[Rejection]


class Result(msgspec.Struct, frozen=True):
    """What became of an upload: `accepted` events are as safe as `ack` says."""

    accepted: int
    rejected: list[Rejection]
    ack: Ack
    receipt: str


class Protocol(typing.Protocol):
    """One wire protocol."""

    name: str
    key_in_body: bool
    #: Seconds in which an event that comes again is not delivered again, for tenants that do not say; 0 delivers it.
    dedupe_window_s: float

    def credentials(self, request: Request, body: bytes | None = None) -> Credentials:
        """Find the key without raising; `body` is the inflated one, given only where `key_in_body`."""

    def decode(self, request: Request, body: bytes, limits: DecodeLimits, new_ids: NewIds) -> Decoded:
        """
        Split the inflated `body` into events.

        Raises `errors.BadUpload` with `MALFORMED` or `TOO_LARGE` when the upload as a whole can't be read, and
        nothing else, whatever the bytes.
        """

    def render(self, result: Result, decoded: Decoded) -> Reply:
        """Answer an upload of which at least the events in `decoded` were looked at."""

    def refuse(self, verdict: Verdict, request: Request | None = None) -> Reply:
        """Answer an upload of which nothing was taken."""


def refusal(verdict: Verdict, *, status: str = "error") -> Reply:
    """
    Render a refusal with all fields that any shipped SDK looks for.

    `code` repeats the HTTP status as a number (Amplitude, RudderStack), `error` is the reason, `message` and
    `detail` are for people (PostHog shows `detail`). `Retry-After` is exposed to scripts of browsers, which
    can't see it otherwise. An SDK that knows another word than "error" passes it as `status`.
    """
    reason = verdict.reason
    if reason is None:
        raise ValueError("an admitted upload has no refusal")
    code = STATUS.get(reason, STATUS[Reason.INTERNAL])
    headers = (*JSON_HEADERS, ("Access-Control-Expose-Headers", "Retry-After"))
    if verdict.retry_after_s is not None:
        headers += (("Retry-After", str(verdict.retry_after_s)),)
    body = {
        "status": status,
        "code": code,
        "error": reason.value,
        "message": verdict.message,
        "detail": verdict.detail,
    }
    return Reply(status=code, headers=headers, body=msgspec.json.encode(body))
