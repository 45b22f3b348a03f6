"""
The probe of a `file:` sink: it finds the file, and leaves the directory as it was.
"""

from __future__ import annotations

import os
from contextlib import suppress
from pathlib import Path

from collector.errors import SinkError
from collector.event import Batch
from collector.sinks.local import read_place
from collector.sinks.local_reading import LocalDelivered
from collector.sinks.objects import place_of
from collector.sinks.probing import Result, Told, held_frame
from collector.sinks.url import SinkUrl


def probe(url: SinkUrl, batch: Batch) -> LocalProbe:
    """Make it for a batch; raises `ValueError`."""
    options = read_place(url)
    return LocalProbe(Path(url.path).absolute(), "/".join(place_of(batch, options.by, options.key)), batch)


class LocalProbe:
    """Looks for a batch under its name below a directory."""

    stays = ""

    def __init__(self, root: Path, name: str, batch: Batch) -> None:
        self._root = root
        self._name = name
        self._path = root / name
        self._batch = batch
        #: Folders that were not there, the deepest first.
        self._made: list[Path] = []

    def mark(self) -> None:
        """Note which folders are not there yet."""
        self._made = [folder for folder in self._path.parents if not os.path.exists(folder)]

    def read_back(self) -> Told:
        """Read the file."""
        return held_frame(str(self._root), self._name, LocalDelivered(self._root).read(self._name), self._batch.payload)

    def take_away(self) -> Told:
        """Remove the file, and the folders that were made for it and hold nothing else."""
        try:
            self._path.unlink(missing_ok=True)
        except OSError as exc:
            raise SinkError(f"file: {self._path} can't be removed: {exc.strerror}") from exc
        left = self._remove_folders()
        return Told(Result.OK, f"as before, but for {left}, which another uses by now" if left else "all is as before")

    def close(self) -> None:
        """Remove what a write has left that failed, or that somebody broke off."""
        with suppress(SinkError):
            self.take_away()

    def _remove_folders(self) -> Path | None:
        """Return the first that is not empty."""
        for folder in self._made:
            try:
                folder.rmdir()
            except FileNotFoundError:
                continue
            except OSError:
                return folder
        return None
