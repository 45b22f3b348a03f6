"""
Refuses uploads before anybody has parsed them, while the service has no room or no time for them.

A refusal costs a small part of what an upload costs. It is the same answer that the upload would get behind the
parser, in its protocol's words.
"""

from __future__ import annotations

import re
from collections.abc import Callable
from http import HTTPStatus

import msgspec

from collector.outcome import Verdict
from collector.protocols.base import Protocol, Reply

#: A body up to so many bytes is read and thrown away, so that its connection can go on; above, it is closed. A guess.
_MAX_SKIPPED_BYTES = 64 * 1024

#: What no two parsers read in two ways; all else is for the parser to refuse.
_SOUND = re.compile(rb"POST [!-~]+ HTTP/1\.1(?:\r\n[!#$%&'*+.^_`|~0-9A-Za-z-]+:[\t -~\x80-\xff]*)+\r\n")
_HOST = re.compile(rb"\r\nhost:", re.IGNORECASE)
_TARGET = re.compile(rb"POST (/[^ ?\r\n]*)(?:\?[^ \r\n]*)? HTTP/1\.1\r\n")
_LENGTH = re.compile(rb"\r\ncontent-length:[ \t]*([0-9]{1,9})[ \t]*(?=\r\n)", re.IGNORECASE)
_ORIGIN = re.compile(rb"\r\norigin:[ \t]*([!-~]+)[ \t]*(?=\r\n)", re.IGNORECASE)
_UNUSUAL = re.compile(rb"\r\n(?:(?:transfer-encoding|expect|upgrade):|connection:[^\r\n]*close)", re.IGNORECASE)
_ANY_LENGTH = re.compile(rb"\r\ncontent-length", re.IGNORECASE)


class Shed(msgspec.Struct, frozen=True):
    """
    An upload that is to be refused, by its protocol and its head, and why.

    `skip_bytes` is how much body comes behind its head; None, when that is in doubt, ends its connection.
    """

    protocol: Protocol
    verdict: Verdict
    head: bytes
    skip_bytes: int | None


class Shedder:
    """
    Judges heads of requests: all lines of them, but for the empty one at the end.

    `verdict` says whether uploads may come in now, given the lag in seconds; `refuse` counts a refusal and renders
    it in a protocol's words; `cors` gives the fields that a browser needs to see an answer.
    """

    def __init__(
        self,
        protocols: dict[str, Protocol],
        *,
        verdict: Callable[[float], Verdict],
        refuse: Callable[[Protocol, Verdict], Reply],
        cors: Callable[[str], tuple[tuple[str, str], ...]],
    ) -> None:
        self._protocols = {path.encode(): protocol for path, protocol in protocols.items()}
        self._verdict = verdict
        self._refuse = refuse
        self._cors = cors

    def judge(self, data: bytes, end: int, lag_s: float) -> Shed | None:
        """
        Say whether an upload whose head ends at `end` is to be refused.

        None is for what goes on to a parser, as all that is unusual does.
        """
        verdict = self._verdict(lag_s)
        if verdict.admitted:
            return None
        head = data[: end + 2]
        if not _SOUND.fullmatch(head) or len(_HOST.findall(head)) != 1:
            return None
        target = _TARGET.match(head)
        protocol = self._protocols.get(target[1]) if target else None
        return None if protocol is None else Shed(protocol, verdict, head, _body_bytes(head))

    def refuse(self, shed: Shed) -> bytes:
        """Count the refusal of an upload, and return its answer."""
        reply = self._refuse(shed.protocol, shed.verdict)
        fields = [*reply.headers, ("Content-Length", str(len(reply.body)))]
        if origin := _ORIGIN.search(shed.head):
            fields += self._cors(origin[1].decode())
        if shed.skip_bytes is None:
            fields.append(("Connection", "close"))
        lines = "".join(f"{name}: {value}\r\n" for name, value in fields)
        line = f"HTTP/1.1 {reply.status} {HTTPStatus(reply.status).phrase}\r\n"
        return f"{line}{lines}\r\n".encode("latin-1") + reply.body


def _body_bytes(head: bytes) -> int | None:
    """Return the length of a body that is short and plain to see; None for any other."""
    lengths = _LENGTH.findall(head)
    if len(lengths) != 1 or len(_ANY_LENGTH.findall(head)) != 1 or _UNUSUAL.search(head):
        return None
    length = int(lengths[0])
    return length if length <= _MAX_SKIPPED_BYTES else None
