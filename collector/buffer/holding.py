"""
One writer's directory in the spool, and the lock that says whose it is.

    <spool>/owners/<owner>/            held by flock for as long as the owner lives
        counters  journal              the owner's books
        00000001.default.seg  …        its segments

The kernel frees the lock when the process dies, however it dies. Whoever locks a directory is its owner from
then on: an adopter goes on with the dead writer's segments in the dead writer's books, moves nothing, and if it
dies in turn the next one finds all as it was.
"""

from __future__ import annotations

import fcntl
import os
import shutil
from collections.abc import Callable, Iterator, Sequence
from contextlib import suppress
from pathlib import Path

from collector.buffer.segment import Contents, Segment, spool_error
from collector.event import Lines, Span
from collector.intervals import Intervals
from collector.outcome import DELIVERED, RESCUED, Fate
from collector.telemetry.ledger import Ledger, Verdicts
from collector.telemetry.signals import Signals

#: What the file system must take at least to be trusted again after a refusal: more than most uploads.
_PROBE_BYTES = 64 * 1024


class Holding:
    """A locked directory, its books and its segments."""

    def __init__(self, directory: Path, lock_fd: int, signals: Signals) -> None:
        self.directory = directory
        self.ledger = Ledger(directory, signals)
        self.segments: dict[str, Segment] = {}
        #: Events without a fate, by tenant, counted where segments grow and shrink; the books count for themselves.
        self.pending: dict[str, int] = {}
        self._lock_fd = lock_fd
        self._signals = signals

    @classmethod
    def create(cls, root: Path, owner: str, signals: Signals) -> Holding:
        """Make a directory that nobody can see before it is locked and has its books; raises OSError."""
        # A name that begins with a dot is not looked at by adopters.
        hidden = root / f".{owner}"
        hidden.mkdir(parents=True, mode=0o700)
        lock_fd = os.open(hidden, os.O_RDONLY | os.O_DIRECTORY | os.O_CLOEXEC)
        holding = cls(hidden, lock_fd, signals)
        try:
            fcntl.flock(lock_fd, fcntl.LOCK_EX | fcntl.LOCK_NB)
            holding.ledger.start()
            # Last: what others have seen they may fold into the books, and then the name can't be used again.
            hidden.rename(root / owner)
        except OSError:
            holding.close()
            shutil.rmtree(hidden, ignore_errors=True)
            raise
        holding.directory = root / owner
        holding.ledger.moved_to(holding.directory)
        return holding

    @classmethod
    def adopt(cls, directory: Path, signals: Signals, breathe: Callable[[], None]) -> Holding | None:
        """Take a directory whose owner is dead, with all it left; None while the owner lives. Raises OSError."""
        try:
            lock_fd = os.open(directory, os.O_RDONLY | os.O_DIRECTORY | os.O_CLOEXEC)
        except FileNotFoundError:
            return None
        try:
            fcntl.flock(lock_fd, fcntl.LOCK_EX | fcntl.LOCK_NB)
            # Between the open and the lock another may have emptied and removed it.
            if not directory.exists() or os.stat(directory).st_ino != os.fstat(lock_fd).st_ino:
                os.close(lock_fd)
                return None
        except BlockingIOError:
            os.close(lock_fd)
            return None
        except BaseException:
            os.close(lock_fd)
            raise
        holding = cls(directory, lock_fd, signals)
        try:
            holding.ledger.start()
            holding._take_stock(breathe)
        except BaseException:
            holding.close()
            raise
        return holding

    def _take_stock(self, breathe: Callable[[], None]) -> None:
        """Find what the dead writer left: cut torn tails, count what is corrupt, and set the books right."""
        seen: dict[str, int] = {}
        damaged = False
        for path in sorted(self.directory.glob("*.seg")):
            segment = Segment.found(path)
            for span in self.ledger.settled_spans(segment.name):
                segment.settle(span, {})
            segment.size = path.stat().st_size
            contents = segment.load(breathe)
            if contents.tail is not None:
                self._signals.tail_cut(segment.name, contents.tail.length)
                os.truncate(path, contents.tail.offset)
                segment.size = contents.tail.offset
            for tenant_id, accepted in contents.accepted.items():
                seen[tenant_id] = max(accepted, seen.get(tenant_id, 0))
            segment.take_stock(contents, segment.size)
            damaged |= bool(contents.corrupt) or contents.tail is not None
            self.segments[segment.name] = segment
            for tenant_id, count in segment.pending_by().items():
                self._count(tenant_id, count)
            self.lose_missing(segment, contents)
        self.ledger.keep_notes_on(self.segments)
        self.ledger.recount(seen=seen, pending=self.pending, damaged=damaged)
        for segment in list(self.segments.values()):
            self.discard_if_settled(segment)

    def read(self, segment: Segment, breathe: Callable[[], None]) -> Contents:
        """Read a sealed segment, and settle as lost what should be in it; raises what `Segment.load` does."""
        contents = segment.load(breathe)
        if contents.tail is not None:
            contents.corrupt.append(contents.tail.offset)
        self.lose_missing(segment, contents)
        return contents

    def lose_missing(self, segment: Segment, contents: Contents) -> None:
        """Settle as lost what should be in a segment and could not be read back."""
        for offset in contents.corrupt:
            self._signals.frame_corrupt(segment.name, offset)
        self._lose(segment, contents.missing(segment.counts))

    def lose_all(self, segment: Segment) -> None:
        """Settle as lost all that is pending in a segment whose file is gone."""
        self._lose(segment, [Span(*partition, 0, count) for partition, count in segment.counts.items()])

    def _lose(self, segment: Segment, spans: list[Span]) -> None:
        lost = []
        for span in spans:
            settled = segment.settled.get((span.tenant_id, span.hour), Intervals())
            gaps = settled.gaps(span.first, span.last)
            lost += [Span(span.tenant_id, span.hour, first, last) for first, last in gaps]
        if lost:
            self.ledger.lose(segment.name, lost)
            for span in lost:
                self._count(span.tenant_id, -segment.settle(span, {}))

    def append(self, segment: Segment, uploads: Sequence[Lines]) -> tuple[list[Span], dict[str, int]]:
        """
        Write uploads to a segment and count them, all or none; raises SpoolFull or SpoolBroken.

        Returns what `Segment.append` does.
        """
        ledger, pending = self.ledger, self.pending
        events: dict[str, int] = {}
        accepted = []
        for upload in uploads:
            tenant_id = upload.tenant_id
            events[tenant_id] = events.get(tenant_id, 0) + upload.events
            try:
                accepted.append(ledger.account(tenant_id).accepted + events[tenant_id])
            except OSError as error:
                raise spool_error(error) from error
        kept = segment.append(uploads, accepted)
        for tenant_id, count in events.items():
            ledger.accept(ledger.account(tenant_id), count)
            pending[tenant_id] = pending.get(tenant_id, 0) + count
        return kept

    def count_duplicates(self, tenant_id: str, events: int) -> None:
        """Count events of an answer that are here already; raises SpoolFull or SpoolBroken."""
        try:
            self.ledger.deduplicate(self.ledger.account(tenant_id), events)
        except OSError as error:
            raise spool_error(error) from error

    def settle(self, segment: Segment, verdicts: Sequence[Verdicts], *, arrived: Fate = DELIVERED) -> None:
        """
        Settle batches of a segment by what their sink said: the journal first, then the uploads that wait for them.

        `arrived` is the fate of what the sink took. Raises OSError; then nothing is settled.
        """
        self.ledger.settle(segment.name, verdicts, arrived=arrived)
        pending, settle = self.pending, segment.settle
        for one in verdicts:
            for span, rejected in one.settled:
                pending[span.tenant_id] = pending.get(span.tenant_id, 0) - settle(span, rejected)
        if arrived == RESCUED:
            # Last, for it may wait. What can't be noted stays rescued, and that is no reason to rescue it again.
            with suppress(OSError):
                self.ledger.follow(verdicts)

    def _count(self, tenant_id: str, events: int) -> None:
        self.pending[tenant_id] = self.pending.get(tenant_id, 0) + events

    def discard_if_settled(self, segment: Segment) -> bool:
        """Unlink a segment in which every event met its fate; return whether it did. What fails is tried again."""
        if segment.is_open or segment.pending:
            return False
        try:
            segment.unlink()
        except OSError:
            return False
        self.ledger.forget(segment.name)
        self.segments.pop(segment.name, None)
        return True

    def probe(self) -> None:
        """Write a file and remove it, to see whether the file system takes data again; raises OSError."""
        probe = self.directory / ".probe"
        try:
            probe.write_bytes(bytes(_PROBE_BYTES))
        finally:
            probe.unlink(missing_ok=True)

    @property
    def size(self) -> int:
        """Sum the bytes of the segments."""
        return sum(segment.size for segment in self.segments.values())

    def close(self) -> None:
        """Close all files and let the lock go; safe to call twice."""
        for segment in self.segments.values():
            segment.seal()
        self.ledger.close()
        if self._lock_fd >= 0:
            os.close(self._lock_fd)
            self._lock_fd = -1


def sweep(root: Path) -> None:
    """Remove what a writer left that died before its directory had a name; raises OSError."""
    for hidden in root.glob(".*"):
        fd = os.open(hidden, os.O_RDONLY | os.O_DIRECTORY | os.O_CLOEXEC)
        try:
            fcntl.flock(fd, fcntl.LOCK_EX | fcntl.LOCK_NB)
            # A writer that has not locked it yet finds it gone, and makes another.
            shutil.rmtree(hidden)
        except BlockingIOError:
            continue
        finally:
            os.close(fd)


def directories(root: Path) -> Iterator[Path]:
    """List the owners' directories, living and dead, oldest first."""
    if root.is_dir():
        yield from sorted(one for one in root.iterdir() if one.is_dir() and not one.name.startswith("."))
