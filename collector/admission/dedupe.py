"""
Whether an event came before: an id that any worker of the task saw within its tenant's window is not appended again.

A claim, under the baton:

    look the ids up -> intent -> append the new events -> remember their ids -> strike the intent out

An append that fails remembers nothing, so its upload can be tried again. A worker that dies between the append and the
last step leaves its intent: whoever has the baton next, or adopts the dead worker's directory, reads from there what
was appended and remembers its ids first. No other greenlet runs within a claim.
"""

from __future__ import annotations

import math
import re
import threading
from collections.abc import Callable, Iterable, Sequence
from pathlib import Path
from typing import Generic, TypeVar

import msgspec
from xxhash import xxh3_64_intdigest

from collector.admission.baton import Baton, Intent
from collector.admission.seen import TICKS_PER_S, Place, SeenIds
from collector.buffer import frame
from collector.buffer.holding import directories
from collector.buffer.segment import Segment
from collector.buffer.spool import Spool
from collector.clock import Clock
from collector.event import Event
from collector.telemetry.signals import Signals

T = TypeVar("T")

#: How long a claim waits for a worker that has the baton and does not go on, in seconds. It has lost its core, or it is
#: stopped; then the upload is refused. Below the 2 s after which SDKs give up on an answer. A choice.
BATON_WAIT_S = 1.0
#: After a refusal by the file system the ids are tried again only after this time, in seconds.
_PROBE_S = 1.0
#: How often an answer looks whether a segment is gone, in seconds. A flush takes a second.
_LOOK_S = 0.05
#: How a line begins: with the id as a JSON string token.
_ID = re.compile(rb'^\{"id":("(?:[^"\\]|\\.)*")', re.MULTILINE)


class Claim(msgspec.Struct, Generic[T]):
    """
    What became of an upload's events: those that were `new` are appended, `appended` is what the append returned.

    `places` are where the first copies of the others lie, as far as they were not in this upload. Without new events
    `appended` is None.
    """

    new: list[Event]
    appended: T | None
    duplicates: int = 0
    places: frozenset[Place] = frozenset()


class Dedupe:
    """One worker's part of it. Opens nothing before the first claim; `size_bytes` is what the table may take."""

    def __init__(self, spool: Spool, *, size_bytes: int, clock: Clock, signals: Signals) -> None:
        self._spool = spool
        self._owners = spool.root / "owners"
        self._clock = clock
        self._signals = signals
        self._baton = Baton(spool.root / "dedupe" / "baton", clock)
        self._ids = SeenIds(spool.root / "dedupe", size_bytes)
        self._probe_at = 0.0
        self._trouble = ""
        # Of the last segment of each route: paths are slow to take apart.
        self._known: dict[str, tuple[Path, str, Place]] = {}

    def claim(
        self, tenant_id: str, route: str, window_s: float, events: list[Event], append: Callable[[list[Event]], T]
    ) -> Claim[T] | None:
        """
        Append those of an upload's events whose ids did not come within the window; None is "not now".

        Ids that Collector made are like no others, and pass. While there is no room for the ids, or the file system
        refuses them, all events are appended: twice is better than never. Raises what `append` raises; then nothing was
        kept. `append` must not let another greenlet run.
        """
        named = [event for event in events if event.is_named]
        if not named:
            return Claim(events, append(events))
        if not self._is_open():
            self._signals.dedupe_unchecked(tenant_id, self._trouble, len(named))
            return Claim(events, append(events))
        if not self._baton.take(BATON_WAIT_S):
            return None
        try:
            self._catch_up()
            return self._claim(tenant_id, route, window_s, events, named, append)
        finally:
            self._baton.give_back()

    def _claim(
        self,
        tenant_id: str,
        route: str,
        window_s: float,
        events: list[Event],
        named: list[Event],
        append: Callable[[list[Event]], T],
    ) -> Claim[T]:
        ids, now = self._ids, self._now()
        window = math.ceil(window_s * TICKS_PER_S)
        keys = ids.keys(tenant_id, [event.id for event in named])
        rows = ids.find(keys, after=now - window, now=now)
        places: set[Place] = set()
        if any(rows) or len(set(keys)) < len(keys):
            # What is sent again is as late as its last copy, or a device that goes on sending would get through once.
            for row in rows:
                if row is not None:
                    ids.refresh(row, seen=now, until=now + window)
                    places.add(row.place)
            fresh = {key: event for key, event, row in _backwards(keys, named, rows) if row is None}
            firsts = {event.index for event in fresh.values()}
            keys = [key for key, event in zip(keys, named, strict=True) if event.index in firsts]
            events = [event for event in events if not event.is_named or event.index in firsts]
        duplicates = len(named) - len(keys)
        if not events:
            return Claim([], None, duplicates, frozenset(places))
        segment = self._spool.open_segment(route)
        file, place = self._written_down(segment)
        self._baton.intend(Intent(file, segment.size, now))
        try:
            appended = append(events)
            ids.remember(keys, seen=now, until=now + window, place=place)
        except BaseException:
            # What is in the segment in spite of it counts.
            self._catch_up()
            raise
        self._baton.strike_out()
        self._tell_forgotten()
        return Claim(events, appended, duplicates, frozenset(places))

    def _written_down(self, segment: Segment) -> tuple[str, Place]:
        """Say where a segment lies, as an intent has it and as a row has it."""
        known = self._known.get(segment.route)
        if known is None or known[0] is not segment.path:
            path = segment.path
            self._known[segment.route] = known = (path, f"{path.parent.name}/{path.name}", place_of(path))
        return known[1:]

    def wait_for(self, places: Iterable[Place], timeout_s: float) -> bool:
        """Wait until every event in these segments met its fate; return whether it did in time."""
        until = self._clock.monotonic() + timeout_s
        while any(map(self._is_pending, places)):
            if self._clock.monotonic() >= until:
                return False
            # Patched in a worker: the others have their turn meanwhile.
            threading.Event().wait(_LOOK_S)
        return True

    def _is_pending(self, place: Place) -> bool:
        number = f"{place.segment:08d}."
        return any(
            path.name.startswith(number)
            for directory in directories(self._owners)
            if _hash(directory.name) == place.owner
            for path in directory.glob("*.seg")
        )

    # -- the dead ------------------------------------------------------------------------------------------

    def may_adopt(self, directory: Path) -> bool:
        """
        Remember what a dead owner appended and did not live to remember; False is "not now".

        The caller holds the directory's lock and has delivered nothing of it yet: a segment that is gone tells no ids.
        """
        if not self._baton.path.exists() or not self._is_open():
            return True
        intent = self._baton.intent
        if intent is None or Path(intent.file).parent.name != directory.name:
            return True
        if not self._baton.take(0.0):
            return False
        try:
            self._catch_up()
        finally:
            self._baton.give_back()
        return True

    def _catch_up(self) -> None:
        """Remember the ids of an append that was intended and may have been made; with the baton."""
        intent = self._baton.intent
        if intent is None:
            return
        try:
            path = self._owners / intent.file
            with path.open("rb") as file:
                file.seek(intent.offset)
                found = list(frame.frames(file.read()))
        except OSError as error:
            found = []
            if not isinstance(error, FileNotFoundError):
                self._signals.internal_error("dedupe.catch_up", error)
        for one in found:
            if isinstance(one, frame.Frame) and one.sound:
                keys = self._ids.keys(one.tenant_id, _ID.findall(one.payload))
                rows = self._ids.find(keys, after=intent.seen, now=intent.seen)
                missing = [key for key, row in zip(keys, rows, strict=True) if row is None]
                self._ids.remember(missing, seen=intent.seen, until=intent.seen, place=place_of(path))
        self._baton.strike_out()

    # -- trouble -------------------------------------------------------------------------------------------

    def _is_open(self) -> bool:
        """Open the table if it is not, and tell whether it can be used."""
        if self._ids.is_open:
            return True
        now = self._clock.monotonic()
        if now < self._probe_at:
            return False
        try:
            self._baton.open()
            self._ids.open()
        except OSError as error:
            self._probe_at = now + _PROBE_S
            self._trouble = str(error.strerror)
            return False
        return True

    def _tell_forgotten(self) -> None:
        if forgotten := self._ids.forgotten:
            self._ids.forgotten = 0
            self._signals.dedupe_shortened(forgotten)

    def _now(self) -> int:
        return int(self._clock.monotonic() * TICKS_PER_S)

    def close(self) -> None:
        """Let the files go, which stay for the other workers; safe to call twice."""
        self._ids.close()
        self._baton.close()


def _backwards(keys: Sequence[bytes], events: Sequence[Event], rows: Sequence[T]) -> Iterable[tuple[bytes, Event, T]]:
    """Go from the last to the first, so that in a dictionary by key the first copy stays."""
    return zip(reversed(keys), reversed(events), reversed(rows), strict=True)


def place_of(path: Path) -> Place:
    """Say where events of a segment lie, in eight bytes."""
    return Place(_hash(path.parent.name), int(path.name.partition(".")[0]))


def _hash(owner: str) -> int:
    return xxh3_64_intdigest(owner.encode()) & 0xFFFFFFFF
