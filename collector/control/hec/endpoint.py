"""
HEC without its sockets: what it holds of tokens, channels and events, and what it answers to a request.
"""

from __future__ import annotations

import re
import threading
from collections import Counter
from http import HTTPStatus

import msgspec

from collector.clock import Clock
from collector.control.hec.exchange import Head
from collector.control.hec.speech import CODES, Indexed, take

#: Splunk Enterprise's own `max_content_length`; it counts uncompressed bytes.
ENTERPRISE_BYTES = 838_860_800
#: What Splunk Cloud was seen to take (2026-09); over it, it answers 400 with code 6.
CLOUD_BYTES = 5_242_881
EVENT_PATHS = frozenset({"/services/collector", "/services/collector/event", "/services/collector/event/1.0"})
HEALTH_PATHS = frozenset({"/services/collector/health", "/services/collector/health/1.0"})
ACK_PATH = "/services/collector/ack"
#: Lines that are told apart from others: a number in a set for each, 70 bytes.
_MOST_REMEMBERED = 1_000_000
_CHANNEL = re.compile(r"[0-9a-fA-F]{8}(-[0-9a-fA-F]{4}){3}-[0-9a-fA-F]{12}")


class Rules(msgspec.Struct, frozen=True, kw_only=True):
    """
    What a HEC is set to.

    `indexes`: those the token may write to, None for any. A body over `max_content_length` uncompressed bytes is
    answered with `oversize_status`: 413, or 400 as Splunk Cloud does. An `ack` turns true `ack_after_s` after its
    request. `keep_lines` and `keep_requests` bound what is kept to be looked at; all is counted.
    """

    token: str = "00000000-0000-4000-8000-000000000000"  # noqa: S105 -- it opens nothing but this
    is_disabled: bool = False
    takes_query_token: bool = False
    indexes: frozenset[str] | None = None
    max_content_length: int = ENTERPRISE_BYTES
    oversize_status: int = 413
    ack: bool = False
    ack_after_s: float = 0.0
    keep_lines: int = 200_000
    keep_requests: int = 20_000


class Books(msgspec.Struct, frozen=True):
    """
    What was counted, in one consistent look.

    `indexed` lines, of which `repeated` were there before (None: there were too many to tell), with `line_bytes` of
    their events alone; `bodies` with lines, of `body_bytes` uncompressed and `wire_bytes` as they came; answers by
    `code`, as text.
    """

    indexed: int = 0
    repeated: int | None = 0
    line_bytes: int = 0
    bodies: int = 0
    body_bytes: int = 0
    wire_bytes: int = 0
    codes: dict[str, int] = {}


class Reply(msgspec.Struct, frozen=True):
    """An answer: its status, its body, and HEC's code in it (-1: it is none of HEC's)."""

    status: int
    body: bytes
    code: int


class Endpoint:
    """Answers requests; safe to call from several threads."""

    def __init__(self, rules: Rules, *, clock: Clock) -> None:
        self.rules = rules
        self._clock = clock
        self._lock = threading.Lock()
        self._channels: dict[str, dict[int, float]] = {}
        self._next_ack: Counter[str] = Counter()
        self.forget()

    def forget(self) -> None:
        """Start all counts and all that is kept anew; channels and their acks stay."""
        with self._lock:
            self._kept: list[Indexed] = []
            self._hashes: set[int] = set()
            self._codes: Counter[str] = Counter()
            self._indexed = self._repeated = self._line_bytes = 0
            self._bodies = self._body_bytes = self._wire_bytes = 0

    def kept(self) -> list[Indexed]:
        """Return the events that were indexed, in their order, up to the bound."""
        with self._lock:
            return list(self._kept)

    def books(self) -> Books:
        """Return the counts."""
        with self._lock:
            repeated = self._repeated if len(self._hashes) < _MOST_REMEMBERED else None
            return Books(
                self._indexed, repeated, self._line_bytes, self._bodies, self._body_bytes, self._wire_bytes,
                dict(self._codes),
            )  # fmt: skip

    def count(self, code: int) -> None:
        """Count an answer that was not made here."""
        with self._lock:
            self._codes[str(code)] += 1

    def answer(self, head: Head, body: bytes, *, wire_bytes: int) -> Reply:
        """Do what a request asks for and answer it; `wire_bytes` is what its body took on the wire."""
        reply = self._answer(head, body, wire_bytes)
        self.count(reply.code)
        return reply

    def too_large(self) -> Reply:
        """Answer to a body over `max_content_length`."""
        self.count(6)
        return _reply(6, status=self.rules.oversize_status, number=0 if self.rules.oversize_status == 400 else None)

    def _answer(self, head: Head, body: bytes, wire_bytes: int) -> Reply:
        if head.path not in EVENT_PATHS | HEALTH_PATHS | {ACK_PATH}:
            return plain(404, "Not Found")
        if head.method == "OPTIONS":
            # Docker's log driver asks so before it starts a container, and without a token.
            return Reply(200, b"", -1)
        if head.path in HEALTH_PATHS:
            return _reply(17) if head.method == "GET" else plain(405, "Method Not Allowed")
        if head.method != "POST":
            return plain(405, "Method Not Allowed")
        refused = self._refused(head)
        if refused is not None:
            return _reply(refused)
        channel = head.headers.get("x-splunk-request-channel", head.query.get("channel", ""))
        if head.path == ACK_PATH:
            return self._acks(channel, body)
        if self.rules.ack and not _CHANNEL.fullmatch(channel):
            return _reply(11 if channel else 10)
        return self._index(channel, body, wire_bytes)

    def _refused(self, head: Head) -> int | None:
        """Return the code that a request is refused with for its token, if it is."""
        token, is_odd = head.token()
        if token is None and not is_odd and "token" in head.query:
            if not self.rules.takes_query_token:
                return 16
            token = head.query["token"]
        if token is None:
            return 3 if is_odd else 2
        if token != self.rules.token:
            return 4
        return 1 if self.rules.is_disabled else None

    def _index(self, channel: str, body: bytes, wire_bytes: int) -> Reply:
        taken = take(body, self.rules.indexes)
        ack_id = None
        with self._lock:
            self._bodies += 1
            self._body_bytes += len(body)
            self._wire_bytes += wire_bytes
            for event in taken.events:
                self._indexed += 1
                self._line_bytes += len(event.line)
                mark = hash(event.line)
                self._repeated += mark in self._hashes
                if len(self._hashes) < _MOST_REMEMBERED:
                    self._hashes.add(mark)
            self._kept += taken.events[: self.rules.keep_lines - len(self._kept)]
            if self.rules.ack and not taken.code:
                ack_id = self._next_ack[channel]
                self._next_ack[channel] += 1
                self._channels.setdefault(channel, {})[ack_id] = self._clock.monotonic() + self.rules.ack_after_s
        return _reply(taken.code, number=taken.invalid_event_number, ack_id=ack_id)

    def _acks(self, channel: str, body: bytes) -> Reply:
        if not self.rules.ack:
            return _reply(14)
        if not _CHANNEL.fullmatch(channel):
            return _reply(11 if channel else 10)
        try:
            asked = msgspec.json.decode(body, type=_Asked).acks
        except (msgspec.MsgspecError, UnicodeDecodeError):
            return _reply(6)
        now = self._clock.monotonic()
        told = {}
        with self._lock:
            pending = self._channels.get(channel, {})
            for ack_id in asked:
                is_done = pending.get(ack_id, float("inf")) <= now
                told[str(ack_id)] = is_done
                if is_done:
                    # True once: who asks again is told false, as of an id that never was.
                    del pending[ack_id]
        return Reply(200, msgspec.json.encode({"acks": told}), 0)


class _Asked(msgspec.Struct):
    acks: list[int]


def plain(status: int, text: str, code: int = -1) -> Reply:
    """Make an answer that has no number of HEC's in its list, or its text."""
    return Reply(
        status, msgspec.json.encode({"text": text, "code": code if code >= 0 else int(HTTPStatus(status))}), code
    )


def _reply(code: int, *, status: int = 0, number: int | None = None, ack_id: int | None = None) -> Reply:
    usual, text = CODES[code]
    said: dict[str, object] = {"text": text, "code": code}
    if number is not None:
        said["invalid-event-number"] = number
    if ack_id is not None:
        said["ackId"] = ack_id
    return Reply(status or usual, msgspec.json.encode(said), code)
