"""
What `file:` sinks have delivered, read back.
"""

from __future__ import annotations

import os
from collections.abc import Iterator
from pathlib import Path

from collector.errors import SinkError
from collector.sinks.local import read_place
from collector.sinks.objects import SUFFIX
from collector.sinks.url import SinkUrl


def from_url(url: SinkUrl) -> LocalDelivered:
    """Make it of a sink's URL; raises `ValueError`."""
    read_place(url)
    return LocalDelivered(url.path)


class LocalDelivered:
    """The directory of a sink; a relative one is under the working directory of this moment."""

    def __init__(self, directory: str | Path) -> None:
        self._root = Path(directory).absolute()

    def folders(self, place: str) -> Iterator[str]:
        """Name the directories in one, none if it is not there."""
        return (entry.name for entry in self._entries(place) if entry.is_dir())

    def files(self, place: str) -> Iterator[tuple[str, int]]:
        """Name the objects in a directory, each with the time at which it came to have its name."""
        for entry in self._entries(place):
            # What is not whole yet has another end.
            if entry.name.endswith(SUFFIX):
                try:
                    stat = entry.stat(follow_symlinks=False)
                except FileNotFoundError:
                    continue
                yield entry.name, stat.st_ctime_ns // 1000

    def read(self, name: str) -> bytes | None:
        """Read a file; raises `SinkError` for one that can't be read."""
        path = self._root / name
        try:
            with open(os.open(path, os.O_RDONLY | os.O_NOFOLLOW | os.O_CLOEXEC), "rb") as file:
                return file.read()
        except FileNotFoundError:
            return None
        except OSError as exc:
            raise SinkError(f"file: {path} can't be read: {exc.strerror}") from exc

    def close(self) -> None:
        """Do nothing: between two calls no file is open."""

    def _entries(self, place: str) -> list[os.DirEntry[str]]:
        directory = self._root / place
        try:
            with os.scandir(directory) as entries:
                return list(entries)
        except FileNotFoundError:
            if not self._root.is_dir():
                raise SinkError(f"file: there is no directory {self._root}") from None
            return []
        except OSError as exc:
            raise SinkError(f"file: {directory} can't be looked into: {exc.strerror}") from exc
