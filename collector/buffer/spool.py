"""
A worker's bounded store on tmpfs: its own segments, and those that it adopted from the dead.
"""

from __future__ import annotations

import contextlib
from collections import Counter
from collections.abc import Callable, Iterator, Sequence
from pathlib import Path

from collector.buffer.holding import Holding, directories, sweep
from collector.buffer.room import Bounds, Room
from collector.buffer.segment import Segment, spool_error
from collector.clock import Clock
from collector.errors import SpoolBroken, SpoolError
from collector.event import Lines, Span
from collector.telemetry.books import Books
from collector.telemetry.signals import Signals

#: After a refusal by the file system the next append tries it again only after this time, in seconds.
_PROBE_S = 0.25
#: Uploads that do not fit are refused just below the limit: from here on that is what happens to most.
_FULL_PART = 0.99
_ADOPT_EVERY_S = 1.0
_AUDIT_EVERY_S = 5.0


class Spool:
    """
    The spool of one worker below a directory that all workers of the task share.

    Nothing is opened before `start`. A file system that refuses does not stop the worker: appends raise, and `tick`,
    called a few times a second, tries again. `breathe` lets other greenlets run in the middle of long work.
    """

    def __init__(
        self,
        root: Path,
        owner: str,
        bounds: Bounds,
        *,
        clock: Clock,
        signals: Signals,
        breathe: Callable[[], None] = lambda: None,
    ) -> None:
        self.root = root
        self.owner = owner
        self.bounds = bounds
        self.books = Books(root)
        self._owners = root / "owners"
        self._clock = clock
        self._signals = signals
        self._breathe = breathe
        self._own: Holding | None = None
        self._adopted: list[Holding] = []
        self._open: dict[str, Segment] = {}
        self._number = 0
        self._probe_at = 0.0
        #: Why the file system refuses, or nothing.
        self.trouble = ""
        self._room = Room(root, bounds)
        self._adopt_at = self._audit_at = 0.0
        #: Asked before the events of a dead owner, whose directory is locked, go on their way; False: not now.
        self.may_adopt: Callable[[Path], bool] = lambda _: True
        #: How much this worker may hold, and from where on it counts as full, as of the last tick.
        self.limit_bytes = 0
        self.full_at_bytes = 0.0
        #: Bytes held by this worker, in all and by tenant, and bytes that left since the start, by tenant.
        self.used_bytes = 0
        self.used_by: dict[str, int] = {}
        self.freed_by: dict[str, int] = {}

    # -- life ----------------------------------------------------------------------------------------------

    def start(self) -> None:
        """Take a directory of its own and adopt what the dead left, as far as the file system lets it."""
        self.tick()

    def tick(self) -> None:
        """Look after the directory: open it if that failed, adopt, retire, measure and audit."""
        now = self._clock.monotonic()
        if (self._own is None or self.trouble) and now >= self._probe_at:
            self._probe()
        if now >= self._adopt_at:
            self._adopt_at = now + _ADOPT_EVERY_S
            self.adopt()
        if now >= self._audit_at:
            self._audit_at = now + _AUDIT_EVERY_S
            self.audit()
        adopted = sum(holding.size for holding in self._adopted)
        mine = {holding.directory for holding in self._holdings()}
        self.limit_bytes = self._room.measure(mine, used_bytes=self.used_bytes, adopted_bytes=adopted)
        self.full_at_bytes = self.limit_bytes * _FULL_PART

    def _try_open(self) -> None:
        try:
            self._owners.mkdir(parents=True, exist_ok=True, mode=0o700)
            self._own = Holding.create(self._owners, self.owner, self._signals)
        except OSError as error:
            self._refuse(spool_error(error))
        else:
            self._recover()

    def _probe(self) -> None:
        """Try whether the file system takes data again: no upload is let in to find out."""
        if self._own is None:
            return self._try_open()
        try:
            self._own.probe()
        except OSError as error:
            self._refuse(spool_error(error))
        else:
            self._recover()

    def _refuse(self, error: SpoolError) -> None:
        self._probe_at = self._clock.monotonic() + _PROBE_S
        if not self.trouble:
            self.trouble = str(error)
            self._signals.spool_refusing(self.trouble)

    def _recover(self) -> None:
        if self.trouble:
            self.trouble = ""
            self._signals.spool_recovered()

    def close(self) -> None:
        """Seal and let go; an empty directory is folded into the books. Safe to call twice."""
        self.seal_all()
        for holding in self._holdings():
            for segment in list(holding.segments.values()):
                holding.discard_if_settled(segment)
            if not holding.segments:
                with contextlib.suppress(OSError):
                    self.books.retire(holding.directory)
            holding.close()
        self._own = None
        self._adopted = []

    def _holdings(self) -> Iterator[Holding]:
        return iter([self._own, *self._adopted] if self._own else self._adopted[:])

    # -- in ------------------------------------------------------------------------------------------------

    def append(
        self, route: str, tenant_id: str, payload: bytes, *, events: int, received_us: int, wanted: bool = False
    ) -> tuple[Segment, Span]:
        """
        Keep the finished lines of one upload, in one write; the answer may go out when this returns.

        `wanted` says that the answer waits for the sink. Raises SpoolFull or SpoolBroken; then nothing was kept.
        """
        segment, (span,) = self.append_all(route, (Lines(tenant_id, payload, events, received_us),), wanted=wanted)
        return segment, span

    def append_all(self, route: str, uploads: Sequence[Lines], *, wanted: bool = False) -> tuple[Segment, list[Span]]:
        """Keep the lines of several uploads, all or none; else as `append`. Returns a span for each."""
        own, segment = self._own, self._open.get(route)
        if own is None or segment is None or self.trouble:
            segment, own = self.open_segment(route), self.mine()
        try:
            spans, grown = own.append(segment, uploads)
        except BaseException as error:
            if not segment.is_open:
                self._open.pop(route, None)
            if isinstance(error, SpoolError):
                self._refuse(error)
            raise
        for tenant_id, size in grown.items():
            self.used_bytes += size
            self.used_by[tenant_id] = self.used_by.get(tenant_id, 0) + size
        if wanted:
            segment.wanted = True
        if self.trouble:
            self._recover()
        if segment.size >= self.bounds.segment_bytes:
            self.seal(route)
        return segment, spans

    def open_segment(self, route: str) -> Segment:
        """Return the segment that the next append to a route goes to; raises SpoolFull or SpoolBroken."""
        if self.trouble and self._clock.monotonic() < self._probe_at:
            raise SpoolBroken(self.trouble)
        try:
            own = self.mine()
            segment = self._open.get(route)
            if segment is None:
                self._number += 1
                segment = Segment.create(own.directory, route, self._number, opened_at=self._clock.monotonic())
                own.segments[segment.name] = self._open[route] = segment
        except SpoolError as error:
            self._refuse(error)
            raise
        return segment

    def mine(self) -> Holding:
        """Return the worker's own directory, opened if need be; raises SpoolBroken."""
        if self._own is None:
            self._try_open()
        if self._own is None:
            raise SpoolBroken(self.trouble)
        return self._own

    @property
    def is_full(self) -> bool:
        """Tell whether it is up to the high watermark, but for a little, or the file system refuses."""
        return bool(self.trouble) or self.used_bytes >= self.full_at_bytes

    # -- out -----------------------------------------------------------------------------------------------

    def seal(self, route: str) -> None:
        """Let the route's open segment leave."""
        segment = self._open.pop(route, None)
        if segment is not None:
            segment.seal()

    def seal_all(self) -> None:
        """Let every open segment leave."""
        for route in list(self._open):
            self.seal(route)

    def open_segments(self) -> list[Segment]:
        """List the segments that take appends."""
        return list(self._open.values())

    def sealed(self) -> Iterator[tuple[Holding, Segment]]:
        """List the segments that wait to be read, oldest first, adopted ones before its own."""
        for holding in [*self._adopted, *([self._own] if self._own else [])]:
            for segment in list(holding.segments.values()):
                if not segment.is_open and not segment.in_flight:
                    yield holding, segment

    def totals(self) -> Counter[str]:
        """Sum the books of all that it holds, as people are shown them."""
        # Not by `+`, which drops what is below 0: who sent on what others rescued has that.
        each = [holding.ledger.totals() for holding in self._holdings()]
        return Counter({name: sum(one[name] for one in each) for one in each[:1] for name in one})

    @property
    def is_empty(self) -> bool:
        """Tell whether nothing waits for a sink."""
        return not any(holding.segments for holding in self._holdings())

    def discard_if_settled(self, holding: Holding, segment: Segment) -> None:
        """Unlink a segment in which every event met its fate, and free its room."""
        if holding.discard_if_settled(segment):
            self.used_bytes -= segment.size
            for tenant_id, size in segment.sizes.items():
                left = self.used_by.get(tenant_id, 0) - size
                if left > 0:
                    self.used_by[tenant_id] = left
                else:
                    self.used_by.pop(tenant_id, None)
                self.freed_by[tenant_id] = self.freed_by.get(tenant_id, 0) + size

    # -- the dead ------------------------------------------------------------------------------------------

    def adopt(self) -> None:
        """Take over every directory whose owner is dead, and fold those that are settled into the books."""
        mine = {holding.directory.name for holding in self._holdings()}
        found: list[Path] = []
        with contextlib.suppress(OSError):
            found += directories(self._owners)
            sweep(self._owners)
        for directory in found:
            if directory.name in mine:
                continue
            try:
                holding = Holding.adopt(directory, self._signals, self._breathe)
                if holding is not None and not self.may_adopt(directory):
                    holding.close()
                    continue
            except Exception as error:  # noqa: BLE001 - one that can't be adopted must not keep the others from it
                self._signals.internal_error("spool.adopt", error)
                continue
            if holding is None:
                continue
            self._adopted.append(holding)
            with contextlib.suppress(OSError):
                self.books.bury(directory)
            self.used_bytes += holding.size
            for segment in holding.segments.values():
                for tenant_id, size in segment.sizes.items():
                    self.used_by[tenant_id] = self.used_by.get(tenant_id, 0) + size
            self._signals.segment_adopted(directory.name, len(holding.segments), sum(holding.pending.values()))
        for holding in [one for one in self._adopted if not one.segments]:
            with contextlib.suppress(OSError):
                if self.books.retire(holding.directory):
                    holding.close()
                    self._adopted.remove(holding)

    def audit(self) -> None:
        """Hold the books against the segments; a difference is an alarm."""
        for holding in self._holdings():
            holding.ledger.audit(holding.pending)

    @property
    def directory(self) -> Path | None:
        """Return the worker's own directory, or None while the file system refuses it."""
        return self._own.directory if self._own else None
