"""
What goes wrong between a sender and HEC, each a small value: the simulated HEC does it to the requests it is told.
"""

from __future__ import annotations

from enum import StrEnum

import msgspec

from collector.control.hec.speech import CODES


class Line(StrEnum):
    """What becomes of the connection, in words that a child process is told, too."""

    BLACK_HOLE = "black-hole"  # the request is read, and no answer comes for as long as the client waits
    RESET = "reset"  # the request is read, nothing of it is indexed, and the connection is reset
    CLOSE_BEFORE = "close-before"  # the same, with an orderly end of the connection
    LOSE_ANSWER = "lose-answer"  # the request has its effect, and the connection ends without an answer
    CUT_ANSWER = "cut-answer"  # the request has its effect, and the answer's body breaks off
    CLOSE_AFTER = "close-after"  # all is well, and then the connection ends without having been announced


class Answer(msgspec.Struct, frozen=True, kw_only=True):
    """
    Something else is answered than HEC would.

    `code` is HEC's own and decides status and text where they are not given; `body` takes the place of the JSON.
    `takes`: the request has its effect all the same.
    """

    code: int = 9
    status: int = 0
    text: str = ""
    headers: tuple[tuple[str, str], ...] = ()
    body: bytes | None = None
    takes: bool = False

    def rendered(self) -> tuple[int, dict[str, str], bytes]:
        """Return the status, the headers beside the usual ones, and the body."""
        status, text = CODES.get(self.code, (500, "Unknown"))
        body = msgspec.json.encode({"text": self.text or text, "code": self.code}) if self.body is None else self.body
        return self.status or status, dict(self.headers), body


class Slow(msgspec.Struct, frozen=True):
    """The request has its effect, and is answered right, after so many seconds more than usual."""

    latency_s: float


Fault = Line | Answer | Slow


def redirect(to: str, *, status: int = 302) -> Answer:
    """Send the client elsewhere: a sender that follows with GET loses its batch and takes it for delivered."""
    return Answer(status=status, headers=(("Location", to),), body=b"")
