"""
The `file:` sink: one zstd-compressed object a batch, complete when it appears.

    DIR/tenant=<id>/date=YYYY-MM-DD/hour=HH/<batch>.ndjson.zst

An object is written under a temporary name beside its own, synced, renamed, and its directory synced. So a
process killed at any instant leaves the object whole or not at all, and a repeat of the batch writes over
both the object and whatever temporary file the dead one left.
"""

from __future__ import annotations

import errno
import fcntl
import os
import re
from contextlib import suppress
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Annotated

import msgspec
import zstandard

from collector.clock import Clock
from collector.errors import SinkError, TransientSinkError
from collector.event import Batch
from collector.outcome import Receipt
from collector.sinks.base import Limits
from collector.sinks.url import SinkUrl, read_options

#: 64 MiB keep one write (the batch, its frame, and zstd's own room) within what a small worker can spare.
#: A file has no limit of its own for events, so the bytes decide.
LIMITS = Limits(max_events=1_000_000, max_bytes=64 * 1024 * 1024, max_event_bytes=64 * 1024 * 1024, partitioned=True)

SUFFIX = ".ndjson.zst"
TENANT_ID = re.compile(r"[A-Za-z0-9_-]{1,64}")
#: 200 characters leave room for the suffix and the marks of a temporary file in the 255 of a file name.
BATCH_NAME = re.compile(r"[A-Za-z0-9_-][A-Za-z0-9._=-]{0,199}")

#: A temporary file this old has no living writer: one write takes seconds, and its retry writes over it.
STALE_US = 3600 * 1_000_000
#: How many directories of an hour `start` looks into for stale files, the newest first; about 0.2 s when cold.
SWEEP_DIRECTORIES = 10_000
#: How many directories are remembered as synced; a thousand tenants through four hours. Then it starts anew.
SYNCED_DIRECTORIES = 4096
#: How often a claim is tried again because the file it had opened was renamed under it.
CLAIM_ATTEMPTS = 8

#: What can be done about a refusal of the file system.
ADVICE = {
    errno.EACCES: "let the user that Collector runs as write there",
    errno.EAGAIN: "another write of this batch is under way, and this one is tried again",
    errno.EDQUOT: "raise the disk quota, or free space",
    errno.EIO: "look at the disk",
    errno.EMFILE: "raise the limit of open files (ulimit -n)",
    errno.ENOSPC: "free space, or inodes, on that file system",
    errno.ENOTDIR: "a file lies where a directory should be; move it away",
    errno.EPERM: "let the user that Collector runs as write there",
    errno.EROFS: "mount the directory writable, or name another one",
}


class Options(msgspec.Struct, frozen=True, forbid_unknown_fields=True):
    """`level` is zstd's; `fsync=0` gives up what a power cut would take, for speed."""

    level: Annotated[int, msgspec.Meta(ge=1, le=19)] = 1
    fsync: bool = True


def from_url(url: SinkUrl, writer_id: str, clock: Clock) -> LocalSink:  # noqa: ARG001 - a batch's name says all
    """Make the sink of a `file:` URL; raises `ValueError`."""
    options = read_place(url)
    return LocalSink(url.path, clock=clock, level=options.level, fsync=options.fsync)


def read_place(url: SinkUrl) -> Options:
    """Read the options of a `file:` URL that names a directory; raises `ValueError` for any other."""
    if url.host not in {"", "localhost"}:
        raise ValueError(
            f"sink {url.text!r}: {url.host!r} stands where a host would; write file:{url.host}{url.path} for a "
            f"relative directory, file:/{url.host}{url.path} for an absolute one"
        )
    if not url.path or url.path.startswith("~"):
        raise ValueError(f"sink {url.text!r} names no directory; write file:data or file:/var/lib/collector")
    return read_options(url, Options)


class LocalSink:
    """
    Writes batches into a directory; a relative one is under the working directory of this moment.

    Any number of threads may write at once, and any number of processes into one directory.
    """

    limits = LIMITS
    blocking = True

    def __init__(self, directory: str | Path, *, clock: Clock, level: int = 1, fsync: bool = True) -> None:
        self._root = Path(directory).absolute()
        self._clock = clock
        self._level = level
        self._fsync = fsync
        # Directories whose entry in their parent is on the disk. Set operations are atomic, so it needs no lock.
        self._synced: set[Path] = set()

    def start(self) -> None:
        """Make the directory, see that it can be written to, and sweep what killed writers left an hour ago."""
        try:
            self._make(self._root)
            if not os.access(self._root, os.W_OK | os.X_OK):
                read_only = os.statvfs(self._root).f_flag & os.ST_RDONLY
                raise OSError(errno.EROFS, "it is read-only") if read_only else OSError(errno.EACCES, "not allowed")
        except OSError as exc:
            raise refused(self._root, exc) from exc
        self._sweep()

    def write(self, batch: Batch) -> Receipt:
        """
        Write one object; raises `TransientSinkError` for whatever the file system refuses, with nothing kept.

        Raises `SinkError` for a batch that is not one partition of a nameable tenant: a defect of the caller.
        """
        if not len(batch):
            return Receipt(delivered=0)
        target = self._target(batch)
        frame = compress(batch.payload, self._level)
        try:
            try:
                self._put(target, frame)
            except FileNotFoundError:
                # The directory was there and is gone: somebody tidies up while we write.
                self._synced.clear()
                self._put(target, frame)
        except OSError as exc:
            self._synced.clear()
            raise refused(target, exc) from exc
        return Receipt(delivered=len(batch))

    def close(self) -> None:
        """Do nothing: between writes no file is open."""

    def _target(self, batch: Batch) -> Path:
        """Say where the batch goes. Nothing but the two patterns lets a name into a path."""
        tenant_id, hour = batch.spans[0].tenant_id, batch.spans[0].hour
        if any((span.tenant_id, span.hour) != (tenant_id, hour) for span in batch.spans):
            raise SinkError(f"batch {batch.name!r} is not one tenant and hour, as a file must be")
        if not TENANT_ID.fullmatch(tenant_id):
            raise SinkError(f"tenant id {tenant_id!r} can't be a directory")
        if not BATCH_NAME.fullmatch(batch.name):
            raise SinkError(f"batch name {batch.name!r} can't be a file name")
        moment = datetime.fromtimestamp(0, UTC) + timedelta(hours=hour)
        hour_path = f"tenant={tenant_id}/date={moment:%Y-%m-%d}/hour={moment:%H}"
        return self._root / hour_path / f"{batch.name}{SUFFIX}"

    def _put(self, target: Path, frame: bytes) -> None:
        self._make(target.parent)
        temporary = target.with_name(f".{target.name}.tmp")
        claim = claim_file(temporary)
        try:
            write_all(claim, frame)
            if self._fsync:
                os.fsync(claim)
            temporary.rename(target)
        except BaseException:
            # While it is still claimed: a file of this name is then nobody else's.
            with suppress(OSError):
                temporary.unlink()
            raise
        finally:
            os.close(claim)
        self._sync_directory(target.parent)

    def _make(self, directory: Path) -> None:
        """
        Make a directory and those above it, each entry synced before anything is said to be in it.

        Below DIR the parent is synced even when the directory was there: whoever made it may not have come to
        that yet. Above DIR we may not be allowed to read, so there only what we made ourselves is synced.
        """
        if directory in self._synced:
            return
        if self._root in directory.parents or not directory.parent.is_dir():
            self._make(directory.parent)
        try:
            directory.mkdir()
        except FileExistsError:
            if not directory.is_dir():
                raise NotADirectoryError(errno.ENOTDIR, os.strerror(errno.ENOTDIR)) from None
            if self._root in directory.parents:
                self._sync_directory(directory.parent)
        else:
            self._sync_directory(directory.parent)
        if len(self._synced) >= SYNCED_DIRECTORIES:
            self._synced.clear()
        self._synced.add(directory)

    def _sync_directory(self, directory: Path) -> None:
        if self._fsync:
            sync_directory(directory)

    def _sweep(self) -> None:
        """Remove stale temporary files. What can't be seen or removed is left: it costs room, never an event."""
        with suppress(OSError):
            dates = [date for tenant in folders(self._root, "tenant=") for date in folders(tenant, "date=")]
            dates.sort(key=lambda date: date.name, reverse=True)
            hours = (hour for date in dates for hour in folders(date, "hour="))
            for hour, _ in zip(hours, range(SWEEP_DIRECTORIES), strict=False):
                for temporary in hour.glob(f".*{SUFFIX}.tmp"):
                    self._sweep_one(temporary)

    def _sweep_one(self, temporary: Path) -> None:
        with suppress(OSError):
            if temporary.stat().st_mtime_ns // 1000 > self._clock.now_us() - STALE_US:
                return
            claim = claim_file(temporary)
            try:
                temporary.unlink()
            finally:
                os.close(claim)


def claim_file(temporary: Path) -> int:
    """
    Open a temporary file for this writer alone, emptied; `BlockingIOError` while another has it.

    The lock goes when the descriptor is closed, so a killed writer holds nothing. A batch may be written twice
    at once: its first write is late, has been given up on, and its retry has begun.
    """
    for _ in range(CLAIM_ATTEMPTS):
        claim = os.open(temporary, os.O_RDWR | os.O_CREAT | os.O_NOFOLLOW | os.O_CLOEXEC, 0o644)
        try:
            fcntl.flock(claim, fcntl.LOCK_EX | fcntl.LOCK_NB)
            # Between open and lock the file may have become the finished object: emptying it would lose it.
            with suppress(FileNotFoundError):
                if os.path.samestat(os.fstat(claim), temporary.stat(follow_symlinks=False)):
                    os.ftruncate(claim, 0)
                    return claim
        except BaseException:
            os.close(claim)
            raise
        os.close(claim)
    raise BlockingIOError(errno.EAGAIN, os.strerror(errno.EAGAIN))


def compress(payload: bytes, level: int) -> bytes:
    """Make one zstd frame with its size and a checksum."""
    # A compressor serves one thread at a time, and making one costs nothing beside its work.
    compressor = zstandard.ZstdCompressor(level=level, write_checksum=True, write_content_size=True)
    return compressor.compress(payload)


def write_all(claim: int, frame: bytes) -> None:
    """Write to the end, however little a write takes."""
    rest = memoryview(frame)
    while rest:
        rest = rest[os.write(claim, rest) :]


def sync_directory(directory: Path) -> None:
    """Bring a directory's entries to the disk; raises OSError."""
    opened = os.open(directory, os.O_RDONLY | os.O_DIRECTORY | os.O_CLOEXEC)
    try:
        os.fsync(opened)
    except OSError as exc:
        # Some network file systems sync no directories; they answer EINVAL.
        if exc.errno != errno.EINVAL:
            raise
    finally:
        # In a worker os.close is gevent's, and may leave a directory open for ever in a thread of its pool.
        os.closerange(opened, opened + 1)


def folders(directory: Path, prefix: str) -> list[Path]:
    """List the entries of a directory whose names begin so; none when it can't be read."""
    with suppress(OSError):
        return [Path(entry.path) for entry in os.scandir(directory) if entry.name.startswith(prefix)]
    return []


def refused(path: Path, exc: OSError) -> TransientSinkError:
    """Say what the file system refused, and what can be done about it."""
    advice = ADVICE.get(exc.errno or 0, "the batch is kept and tried again")
    return TransientSinkError(f"file: can't write {path}: {exc.strerror or exc}; {advice}")
