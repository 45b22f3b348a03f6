"""A spool on the real tmpfs."""

from __future__ import annotations

import tempfile
from collections.abc import Iterator
from pathlib import Path

import pytest

from tests.fakes import FakeClock, RecordingSignals


@pytest.fixture(name="root")
def _root() -> Iterator[Path]:
    with tempfile.TemporaryDirectory(dir="/dev/shm") as folder:
        yield Path(folder)


@pytest.fixture(name="clock")
def _clock() -> FakeClock:
    return FakeClock()


@pytest.fixture(name="signals")
def _signals() -> RecordingSignals:
    return RecordingSignals()
