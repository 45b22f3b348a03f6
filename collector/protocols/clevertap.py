"""
CleverTap's Upload API: `POST /1/upload`, as its server-side libraries call it.

The account is in `X-CleverTap-Account-Id`, the key in `X-CleverTap-Passcode`; the body is `{"d": [record, …]}`
with at most 1,000 records. A record is kept as sent, and judged alone, by `clevertap_rules`. Rejected ones come
back in the answer with their code, and `processed` counts the others.

Records bring no id. That of a record with `ts` is a hash of the account, the record's bytes, and how often the same
bytes stood before it in the upload, in the form of a UUID of version 8: sent again, an upload has the same ids, and two
of its records that say the very same have two. A record without `ts` says nothing that tells it from the next one that
means the same: it gets an id of Collector's, like no other.
"""

from __future__ import annotations

import hashlib
from collections import Counter
from typing import Any

import msgspec
from msgspec import UNSET, Raw, UnsetType

from collector.errors import BadUpload
from collector.event import Event
from collector.outcome import Reason, Rejection, Verdict
from collector.protocols import clevertap_rules, split
from collector.protocols.base import (
    JSON_HEADERS,
    Credentials,
    Decoded,
    DecodeLimits,
    NewIds,
    Reply,
    Request,
    Result,
    refusal,
)

#: A limit of CleverTap's.
MAX_RECORDS = 1000

#: Whoever calls the API tries again when an answer is lost: at once, or by a queue of jobs that backs off for minutes.
#: Longer costs room for ids, and two records that say the very same within the second of their `ts` are one anyhow.
DEDUPE_WINDOW_S = 3600.0

#: How much of an answer may be records sent back. A small compressed upload must not buy a huge answer. Guess.
_MAX_ECHO_BYTES = 1 << 20
#: How much of a record that is no JSON is sent back, as text.
_EXCERPT_BYTES = 256


class _Upload(msgspec.Struct, gc=False):
    d: Raw | UnsetType = UNSET


_UPLOAD = msgspec.json.Decoder(_Upload)


class Unprocessed(msgspec.Struct, frozen=True):
    """A record that was not taken: whole if `sound`, that is valid JSON and small enough to be sent back."""

    code: int
    error: str
    record: bytes
    sound: bool


class ClevertapDecoded(Decoded):
    """Adds to each rejection, by its index, what CleverTap's answer says of it."""

    unprocessed: dict[int, Unprocessed]


class Clevertap:
    """The adapter of `POST /1/upload`."""

    name = "clevertap"
    key_in_body = False
    dedupe_window_s = DEDUPE_WINDOW_S

    def credentials(self, request: Request, body: bytes | None = None) -> Credentials:  # noqa: ARG002 -- the one shape
        """Read the two headers; both are needed."""
        return Credentials(
            key=request.headers.get("x-clevertap-passcode", "").strip() or None,
            account=request.headers.get("x-clevertap-account-id", "").strip() or None,
        )

    def decode(self, request: Request, body: bytes, limits: DecodeLimits, new_ids: NewIds) -> ClevertapDecoded:
        """Split the inflated body into records; see `base.Protocol`."""
        account = (self.credentials(request).account or "").encode(errors="backslashreplace")
        decoded = ClevertapDecoded([], [], {})
        room, times = _MAX_ECHO_BYTES, Counter[bytes]()
        for index, record in enumerate(_records(body, min(MAX_RECORDS, limits.max_events))):
            flaw = split.flaw(record, limits.max_event_bytes)
            fault = (512, flaw[1]) if flaw else clevertap_rules.fault(record)
            line = split.one_line(record)
            if fault is None:
                is_named = clevertap_rules.is_timed(record)
                name = stable_id(account, line, times[line]) if is_named else new_ids(1)[0]
                times[line] += 1
                decoded.events.append(Event(index, b'"%s"' % name.encode(), line, is_named))
            else:
                decoded.rejected.append(Rejection(index, flaw[0] if flaw else Reason.MALFORMED, fault[1]))
                room -= len(line)
                # An answer may have to wait for a sink: it must not hold more of the upload than it will say.
                sound = room >= 0 and (flaw is None or flaw[0] is Reason.NOT_AN_OBJECT)
                decoded.unprocessed[index] = Unprocessed(*fault, line if sound else line[:_EXCERPT_BYTES], sound)
        return decoded

    def render(self, result: Result, decoded: Decoded) -> Reply:
        """Answer 200 with the number of records taken and, with its code and as sent, each of the others."""
        known = decoded.unprocessed if isinstance(decoded, ClevertapDecoded) else {}
        unprocessed: list[dict[str, Any]] = []
        for rejection in result.rejected:
            answer: dict[str, Any] = {"status": "fail", "code": 555, "error": rejection.message}
            if found := known.get(rejection.index):
                answer["code"] = found.code
                if found.sound:
                    answer["record"] = Raw(found.record)
                else:
                    answer["record"] = found.record.decode(errors="replace")
            unprocessed.append(answer)
        status = "success" if not unprocessed else "partial" if result.accepted else "fail"
        body = {"status": status, "processed": result.accepted, "unprocessed": unprocessed}
        return Reply(status=200, headers=JSON_HEADERS, body=msgspec.json.encode(body))

    def refuse(self, verdict: Verdict, request: Request | None = None) -> Reply:  # noqa: ARG002 -- the one shape
        """Answer with the usual error object, and CleverTap's word for it: "fail"."""
        return refusal(verdict, status="fail")


def stable_id(account: bytes, record: bytes, before: int = 0) -> str:
    """
    Derive a UUID of version 8 (RFC 9562) from an account and a record on one line.

    `before` counts the same records before it in its upload.
    """
    digest = hashlib.blake2b(account + b"\0" + record, digest_size=16, salt=before.to_bytes(8)).hexdigest()
    variant = "89ab"[int(digest[16], 16) & 3]
    return f"{digest[:8]}-{digest[8:12]}-8{digest[13:16]}-{variant}{digest[17:20]}-{digest[20:]}"


def _records(body: bytes, most: int) -> list[bytes]:
    """Take the envelope off; the records are not checked."""
    text = body.removeprefix(b"\xef\xbb\xbf")
    if not text.strip(b" \t\r\n").startswith(b"{"):
        raise BadUpload(Reason.MALFORMED, "the upload is not a JSON object", 'send {"d": [record, ...]}')
    try:
        upload = _UPLOAD.decode(text)
        array = b"" if upload.d is UNSET else bytes(upload.d)
    except (msgspec.DecodeError, RecursionError):
        array = split.array_under("d", text)
    if not array.startswith(b"["):
        raise BadUpload(Reason.MALFORMED, 'the upload has no array under "d"', 'send {"d": [record, ...]}')
    try:
        records = split.array(array, most)
    except (msgspec.DecodeError, RecursionError):
        try:
            records = split.elements(array, most)
        except split.Unbalanced as error:
            raise BadUpload(Reason.MALFORMED, f"the upload is not valid JSON: {error}") from None
    if not records:
        raise BadUpload(Reason.MALFORMED, "the upload has no records", 'send {"d": [record, ...]}')
    return records
