"""
CleverTap's Upload API: `POST /1/upload`, as its server-side libraries call it.

The account is in `X-CleverTap-Account-Id`, the key in `X-CleverTap-Passcode`; the body is `{"d": [record, …]}`
with at most 1,000 records. A record is kept as sent, and judged alone, by `clevertap_rules`. Rejected ones come
back in the answer with their code, and `processed` counts the others.

Records bring no id. Theirs is a hash of the account and the record's bytes, in the form of a UUID of version 8,
so a record that is sent again has the same id, and so have two that say the very same.
"""

from __future__ import annotations

import hashlib
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

#: How much of an answer may be records sent back. A small compressed upload must not buy a huge answer. Guess.
_MAX_ECHO_BYTES = 1 << 20
#: How much of a record that is no JSON is sent back, as text.
_EXCERPT_BYTES = 256


class _Upload(msgspec.Struct, gc=False):
    d: Raw | UnsetType = UNSET


_UPLOAD = msgspec.json.Decoder(_Upload)


class Unprocessed(msgspec.Struct, frozen=True):
    """A record that was not taken; `sound` says that its bytes are valid JSON."""

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

    def credentials(self, request: Request, body: bytes | None = None) -> Credentials:  # noqa: ARG002 -- the one shape
        """Read the two headers; both are needed."""
        return Credentials(
            key=request.headers.get("x-clevertap-passcode", "").strip() or None,
            account=request.headers.get("x-clevertap-account-id", "").strip() or None,
        )

    def decode(self, request: Request, body: bytes, limits: DecodeLimits, new_ids: NewIds) -> ClevertapDecoded:  # noqa: ARG002 -- the one shape
        """Split the inflated body into records; see `base.Protocol`. Needs no new ids."""
        account = (self.credentials(request).account or "").encode(errors="backslashreplace")
        decoded = ClevertapDecoded([], [], {})
        for index, record in enumerate(_records(body, min(MAX_RECORDS, limits.max_events))):
            flaw = split.flaw(record, limits.max_event_bytes)
            fault = (512, flaw[1]) if flaw else clevertap_rules.fault(record)
            line = split.one_line(record)
            if fault is None:
                decoded.events.append(Event(index, b'"%s"' % stable_id(account, line).encode(), line))
            else:
                decoded.rejected.append(Rejection(index, flaw[0] if flaw else Reason.MALFORMED, fault[1]))
                sound = flaw is None or flaw[0] is Reason.NOT_AN_OBJECT
                decoded.unprocessed[index] = Unprocessed(*fault, line, sound)
        return decoded

    def render(self, result: Result, decoded: Decoded) -> Reply:
        """Answer 200 with the number of records taken and, with its code and as sent, each of the others."""
        known = decoded.unprocessed if isinstance(decoded, ClevertapDecoded) else {}
        room = _MAX_ECHO_BYTES
        unprocessed: list[dict[str, Any]] = []
        for rejection in result.rejected:
            answer: dict[str, Any] = {"status": "fail", "code": 555, "error": rejection.message}
            if found := known.get(rejection.index):
                answer["code"] = found.code
                room -= len(found.record)
                if found.sound and room >= 0:
                    answer["record"] = Raw(found.record)
                else:
                    answer["record"] = found.record[:_EXCERPT_BYTES].decode(errors="replace")
            unprocessed.append(answer)
        status = "success" if not unprocessed else "partial" if result.accepted else "fail"
        body = {"status": status, "processed": result.accepted, "unprocessed": unprocessed}
        return Reply(status=200, headers=JSON_HEADERS, body=msgspec.json.encode(body))

    def refuse(self, verdict: Verdict, request: Request | None = None) -> Reply:  # noqa: ARG002 -- the one shape
        """Answer with the usual error object, and CleverTap's word for it: "fail"."""
        return refusal(verdict, status="fail")


def stable_id(account: bytes, record: bytes) -> str:
    """Derive a UUID of version 8 (RFC 9562) from an account and a record on one line."""
    digest = hashlib.blake2b(account + b"\0" + record, digest_size=16).hexdigest()
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
