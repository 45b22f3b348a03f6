"""
The reading side of the `file:` sink: rescued batches, found, read, and taken away once they have arrived.

    DIR/route=<name>/tenant=<id>/date=YYYY-MM-DD/hour=HH/<batch>.ndjson.zst
    DIR/parked/reason=<reason>/route=<name>/tenant=<id>/…     what a sink refused for good

Writers may be at work below DIR all the while.
"""

from __future__ import annotations

import fcntl
import os
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from pathlib import Path

from collector.clock import Clock
from collector.errors import SinkError
from collector.event import Batch
from collector.outcome import Reason
from collector.sinks.base import Offload
from collector.sinks.files import claim_file, folders, refused, sync_directory, write_all
from collector.sinks.local import LocalSink, Options, read_place
from collector.sinks.objects import SUFFIX, compress
from collector.sinks.stored import MOST_FRAME_BYTES, PARKED, REASON, parked, read_back
from collector.sinks.url import SinkUrl

_LOCK = ".replay.lock"

#: What tells a file from one that was written over it.
_Identity = tuple[int, int, int, int]


def from_url(url: SinkUrl, clock: Clock, offload: Offload) -> LocalSource:  # noqa: ARG001 - every source is made so
    """Make the reading side of a `file:` URL; raises `ValueError`."""
    options = read_place(url)
    if options.by != "tenant":
        raise ValueError(f"sink {url.text!r}: what is read back must lie by tenant; leave out by={options.by}")
    return LocalSource(url.path, clock=clock, options=options)


class LocalSource:
    """Reads what `LocalSink`s wrote below the routes of a directory."""

    blocking = True

    def __init__(self, directory: str | Path, *, clock: Clock, options: Options | None = None) -> None:
        self._root = Path(directory).absolute()
        self._clock = clock
        self._options = options or Options()

    def start(self) -> None:
        """Do nothing: it may not be there yet."""

    def close(self) -> None:
        """Do nothing: what is open is so inside of `exclusive` alone."""

    def routes(self) -> list[str]:
        """Name the routes below the directory; raises `SinkError` when that can't be looked into."""
        return _named(self._root, "route=")

    def reasons(self) -> list[str]:
        """Name the reasons for which something is parked; raises `SinkError` when that can't be looked into."""
        if PARKED not in _named(self._root, ""):
            return []
        return _named(self._root / PARKED, REASON)

    @contextmanager
    def exclusive(self, route: str) -> Iterator[bool]:
        """Lock a route's folder against other readers; a process that dies lets go of it."""
        lock = self._root / f"route={route}" / _LOCK
        try:
            fd = os.open(lock, os.O_RDWR | os.O_CREAT | os.O_NOFOLLOW | os.O_CLOEXEC, 0o644)
        except OSError as exc:
            raise refused(lock, exc) from exc
        try:
            try:
                fcntl.flock(fd, fcntl.LOCK_EX | fcntl.LOCK_NB)
            except BlockingIOError:
                yield False
            else:
                yield True
        finally:
            os.close(fd)

    def stored(self, route: str) -> Iterator[LocalStored]:
        """List the files of a route, by tenant and hour."""
        for tenant in sorted(folders(self._root / f"route={route}", "tenant=")):
            for date in sorted(folders(tenant, "date=")):
                for hour in sorted(folders(date, "hour=")):
                    for path in sorted(folders(hour, "")):
                        # What begins with a dot is not whole yet, or never will be.
                        if not path.name.startswith("."):
                            yield LocalStored(path, self._options)

    def put_aside(self, route: str, reason: Reason, batch: Batch) -> str:
        """Write a batch below `parked`."""
        root = self._root / parked(reason) / f"route={route}"
        sink = LocalSink(root, clock=self._clock, level=self._options.level, fsync=self._options.fsync)
        sink.write(batch)
        return str(root)


class LocalStored:
    """One file."""

    def __init__(self, path: Path, options: Options) -> None:
        self.place = str(path)
        self.name = path.name.removesuffix(SUFFIX)
        self._path = path
        self._options = options
        self._loaded: _Identity | None = None

    def load(self) -> Batch | None:
        """Read the file, and hold it to its checksum; raises `SinkError` saying what is wrong with it."""
        return read_back(self.place, self._read)

    def _read(self) -> bytes | None:
        try:
            fd = os.open(self._path, os.O_RDONLY | os.O_NOFOLLOW | os.O_CLOEXEC)
        except FileNotFoundError:
            return None
        with open(fd, "rb") as file:
            self._loaded = _identity(os.fstat(fd))
            if os.fstat(fd).st_size > MOST_FRAME_BYTES:
                raise ValueError(f"it has over {MOST_FRAME_BYTES} bytes")
            return file.read()

    def keep(self, rest: Batch | None) -> None:
        """
        Put the rest in the file's place, or remove it and the folders that this leaves empty.

        A writer may write the batch anew meanwhile: its claim on the temporary name and ours exclude each other.
        """
        temporary = self._path.with_name(f".{self._path.name}.tmp")
        try:
            claim = claim_file(temporary)
            is_moved = False
            try:
                is_moved = self._keep(claim, temporary, rest)
            finally:
                # Once it is moved, a file of this name is a writer's.
                if not is_moved:
                    with suppress(OSError):
                        temporary.unlink()
                os.close(claim)
            if self._options.fsync:
                sync_directory(self._path.parent)
        except FileNotFoundError:
            return
        except OSError as exc:
            raise refused(self._path, exc) from exc
        if rest is None:
            with suppress(OSError):
                for folder in list(self._path.parents)[:3]:
                    folder.rmdir()

    def _keep(self, claim: int, temporary: Path, rest: Batch | None) -> bool:
        """Do it, if the file is the one that was loaded; tell whether the temporary file is now in its place."""
        if _identity(self._path.stat(follow_symlinks=False)) != self._loaded:
            return False
        if rest is None:
            self._path.unlink()
            return False
        write_all(claim, compress(rest.pieces, self._options.level))
        if self._options.fsync:
            os.fsync(claim)
        temporary.rename(self._path)
        return True


def _named(folder: Path, prefix: str) -> list[str]:
    """List the folders in a folder whose names begin so, by the rest of their names; raises `SinkError`."""
    try:
        names = [entry.name for entry in os.scandir(folder) if entry.is_dir()]
    except OSError as exc:
        raise SinkError(f"file: {folder} can't be looked into: {exc.strerror}") from exc
    return sorted(name.removeprefix(prefix) for name in names if name.startswith(prefix))


def _identity(stat: os.stat_result) -> _Identity:
    return (stat.st_dev, stat.st_ino, stat.st_mtime_ns, stat.st_size)
