"""
The `file:` sink: one zstd-compressed object a batch, complete when it appears.

    DIR/tenant=<id>/date=YYYY-MM-DD/hour=HH/<batch>.ndjson.zst
    DIR/date=YYYY-MM-DD/hour=HH/<batch>.ndjson.zst              with ?by=hour, of all tenants

An object is written under a temporary name beside its own, synced, renamed, and its directory synced. So a
process killed at any instant leaves the object whole or not at all, and a repeat of the batch writes over
both the object and whatever temporary file the dead one left.
"""

from __future__ import annotations

import errno
import os
from collections.abc import Iterator
from contextlib import suppress
from pathlib import Path
from typing import Annotated

import msgspec

from collector.clock import Clock
from collector.event import Batch
from collector.outcome import Receipt
from collector.sinks.base import Offload
from collector.sinks.files import claim_file, folders, refused, sync_directory, write_all
from collector.sinks.layout import By, anywhere
from collector.sinks.objects import LIMITS, SUFFIX, Packer, check_key, place_of
from collector.sinks.url import SinkUrl, read_options

#: A temporary file this old has no living writer: one write takes seconds, and its retry writes over it.
STALE_US = 3600 * 1_000_000
#: How many directories of an hour `start` looks into for stale files, the newest first; about 0.2 s when cold.
SWEEP_DIRECTORIES = 10_000
#: How many directories are remembered as synced, at 170 bytes each. A tenant needs three, and one more each hour: ten
#: thousand tenants through four hours. Then it starts anew; were they more at once, each write would make all again.
SYNCED_DIRECTORIES = 65_536


class Options(msgspec.Struct, frozen=True, forbid_unknown_fields=True):
    """
    `level` is zstd's; `fsync=0` gives up what a power cut would take, for speed.

    `by=hour` puts the events of all tenants into one object: an object costs 0.2 ms, and of thousands of tenants each
    would have its own every second. `key` says where objects lie below DIR, as a template of `layout`.
    """

    level: Annotated[int, msgspec.Meta(ge=1, le=19)] = 1
    fsync: bool = True
    by: By = "tenant"
    key: str = ""


def from_url(url: SinkUrl, writer_id: str, clock: Clock, offload: Offload) -> LocalSink:  # noqa: ARG001 - a batch's name says all
    """Make the sink of a `file:` URL; raises `ValueError`."""
    options = read_place(url)
    return LocalSink(url.path, clock=clock, level=options.level, fsync=options.fsync, by=options.by, key=options.key)


def read_place(url: SinkUrl) -> Options:
    """Read the options of a `file:` URL that names a directory; raises `ValueError` for any other."""
    if url.host not in {"", "localhost"}:
        raise ValueError(
            f"sink {url.text!r}: {url.host!r} stands where a host would; write file:{url.host}{url.path} for a "
            f"relative directory, file:/{url.host}{url.path} for an absolute one"
        )
    if not url.path or url.path.startswith("~"):
        raise ValueError(f"sink {url.text!r} names no directory; write file:data or file:/var/lib/collector")
    options = read_options(url, Options)
    check_key(url, options.by)
    return options


class LocalSink:
    """
    Writes batches into a directory; a relative one is under the working directory of this moment.

    Any number of threads may write at once, and any number of processes into one directory.
    """

    blocking = True

    def __init__(
        self,
        directory: str | Path,
        *,
        clock: Clock,
        level: int = 1,
        fsync: bool = True,
        by: By = "tenant",
        key: str = "",
    ) -> None:
        self._by = by
        self._key = key
        self.limits = LIMITS[by]
        self._root = Path(directory).absolute()
        # Paths are text on the way of a batch: as `Path`, they took a third of its time.
        self._below = f"{self._root}/".replace("//", "/")
        self._clock = clock
        self._packer = Packer(level)
        self._fsync = fsync
        # Directories whose entry in their parent is on the disk. Set operations are atomic, so it needs no lock.
        self._synced: set[str] = set()

    def start(self) -> None:
        """Make the directory, see that it can be written to, and sweep what killed writers left an hour ago."""
        try:
            self._make(str(self._root))
            if not os.access(self._root, os.W_OK | os.X_OK):
                read_only = os.statvfs(self._root).f_flag & os.ST_RDONLY
                raise OSError(errno.EROFS, "it is read-only") if read_only else OSError(errno.EACCES, "not allowed")
        except OSError as exc:
            raise refused(self._root, exc) from exc
        self._sweep()

    def write(self, batch: Batch) -> Receipt:
        """
        Write one object; raises `TransientSinkError` for whatever the file system refuses, with nothing kept.

        Raises `SinkError` for a batch that the limits rule out, or of no nameable tenant: a defect of the caller.
        """
        if not len(batch):
            return Receipt(delivered=0)
        below, name = place_of(batch, self._by, self._key)
        directory = f"{self._below}{below}"
        frame = self._packer.pack(batch)
        try:
            try:
                self._put(directory, name, frame)
            except FileNotFoundError:
                # The directory was there and is gone: somebody tidies up while we write.
                self._synced.clear()
                self._put(directory, name, frame)
        except OSError as exc:
            self._synced.clear()
            raise refused(f"{directory}/{name}", exc) from exc
        return Receipt(delivered=len(batch))

    def url_of(self, batch: Batch) -> str:
        """Say where a batch is, once it is written."""
        directory, name = place_of(batch, self._by, self._key)
        return Path(f"{self._below}{directory}/{name}").as_uri()

    def close(self) -> None:
        """Do nothing: between writes no file is open."""

    def _put(self, directory: str, name: str, frame: bytes) -> None:
        self._make(directory)
        temporary = f"{directory}/.{name}.tmp"
        claim = claim_file(temporary)
        try:
            write_all(claim, frame)
            if self._fsync:
                os.fsync(claim)
            os.rename(temporary, f"{directory}/{name}")
        except BaseException:
            # While it is still claimed: a file of this name is then nobody else's.
            with suppress(OSError):
                os.unlink(temporary)
            raise
        finally:
            os.close(claim)
        self._sync_directory(directory)

    def _make(self, directory: str) -> None:
        """
        Make a directory and those above it, each entry synced before anything is said to be in it.

        Below DIR the parent is synced even when the directory was there: whoever made it may not have come to
        that yet. Above DIR we may not be allowed to read, so there only what we made ourselves is synced.
        """
        if directory in self._synced:
            return
        parent, is_below = os.path.dirname(directory), directory.startswith(self._below)
        if is_below or not os.path.isdir(parent):
            self._make(parent)
        try:
            os.mkdir(directory)
        except FileExistsError:
            if not os.path.isdir(directory):
                raise NotADirectoryError(errno.ENOTDIR, os.strerror(errno.ENOTDIR)) from None
            if is_below:
                self._sync_directory(parent)
        else:
            self._sync_directory(parent)
        if len(self._synced) >= SYNCED_DIRECTORIES:
            self._synced.clear()
        self._synced.add(directory)

    def _sync_directory(self, directory: str) -> None:
        if self._fsync:
            sync_directory(directory)

    def _sweep(self) -> None:
        """Remove stale temporary files. What can't be seen or removed is left: it costs room, never an event."""
        with suppress(OSError):
            for hour, _ in zip(self._hours(), range(SWEEP_DIRECTORIES), strict=False):
                for temporary in hour.glob(f".*{SUFFIX}.tmp"):
                    self._sweep_one(temporary)

    def _hours(self) -> Iterator[Path]:
        """List the directories of hours: the newest first, where the template of the places does not say otherwise."""
        if self._key:
            yield from self._root.glob(anywhere(self._key))
            return
        places = [self._root, *folders(self._root, "tenant=")]
        dates = [date for place in places for date in folders(place, "date=")]
        dates.sort(key=lambda date: date.name, reverse=True)
        yield from (hour for date in dates for hour in folders(date, "hour="))

    def _sweep_one(self, temporary: Path) -> None:
        with suppress(OSError):
            if temporary.stat().st_mtime_ns // 1000 > self._clock.now_us() - STALE_US:
                return
            claim = claim_file(temporary)
            try:
                temporary.unlink()
            finally:
                os.close(claim)
