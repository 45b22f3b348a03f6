"""
What a probe of a sink does beside the write: it reads one event back, and takes it away again where that can be.

What is safe differs: each sink has a probe of its own, which disturbs nobody who reads there.
"""

from __future__ import annotations

from enum import Enum
from typing import Protocol

import msgspec

from collector.sinks.stored import unpack


class Result(Enum):
    """What came of a step."""

    OK = "ok"
    FAILED = "failed"
    UNTOLD = "can't be told"
    SKIPPED = "skipped"


class Told(msgspec.Struct, frozen=True):
    """What came of a step and, in a person's words, where or why. `left` is what can be taken away by other hands."""

    result: Result
    detail: str
    left: str = ""


class Probe(Protocol):
    """
    What can be seen of one batch, of one event, in the place of a sink. All but `close` may raise `errors.SinkError`.

    `stays` says for people what becomes of the event in a place from which it can't be taken away; else it is empty.
    """

    stays: str

    def mark(self) -> None:
        """Note what there is, before the sink starts."""

    def read_back(self) -> Told:
        """Look for the batch, once it is written; what the role may not read is not told of here, but raised."""

    def take_away(self) -> Told:
        """Remove the batch."""

    def close(self) -> None:
        """Let go, and leave nothing of ours behind on this machine; safe to call twice and before `mark`."""


class Unread:
    """The probe of a place in which nobody looks: it says why."""

    def __init__(self, why: str, *, stays: str) -> None:
        self._why = why
        self.stays = stays

    def mark(self) -> None:
        """Do nothing."""

    def read_back(self) -> Told:
        """Say why not."""
        return Told(Result.SKIPPED, self._why)

    def take_away(self) -> Told:
        """Say where it stays."""
        return Told(Result.SKIPPED, self.stays)

    def close(self) -> None:
        """Do nothing."""


def held(place: str, found: bytes | None, written: bytes) -> Told:
    """Hold what was found at a place against what was written there, both as they are; None is that nothing was."""
    if found is None:
        return Told(Result.FAILED, f"it was taken, and it is not in {place}")
    if found != written:
        return Told(Result.FAILED, f"{place} holds {len(found)} other bytes than the {len(written)} that were written")
    return Told(Result.OK, f"byte for byte, in {place}")


def held_frame(place: str, name: str, frame: bytes | None, written: bytes) -> Told:
    """Hold the frame of the object of this name, below a place, against what was written."""
    place = f"{place}/{name}"
    try:
        told = held(place, None if frame is None else unpack(frame), written)
        # Of what is as it should be, the layout is of interest, and not the long name.
        return Told(told.result, f"byte for byte, in {name.rpartition('/')[0]}") if told.result is Result.OK else told
    except ValueError as error:
        return Told(Result.FAILED, f"{place} is no object of ours: {error}")
