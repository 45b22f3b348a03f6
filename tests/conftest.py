"""What every test stands on; each part's own fixtures lie in its own folder."""

from __future__ import annotations

import os
import sys
import tempfile
from collections.abc import Iterator
from pathlib import Path
from typing import TYPE_CHECKING

import pytest
from hypothesis import settings

from tests.fakes import FakeClock, RecordingSignals

if TYPE_CHECKING:
    from tests.standins.seaweed import Seaweed

# A slow machine is no failure: examples are bounded by their number, not by a clock.
settings.register_profile("collector", deadline=None, derandomize=bool(os.environ.get("CI")), print_blob=True)
settings.load_profile("collector")


@pytest.fixture(autouse=True)
def _clean_environment(monkeypatch: pytest.MonkeyPatch) -> None:
    """The developer's own COLLECTOR_* variables would be settings of every test."""
    for name in [name for name in os.environ if name.startswith("COLLECTOR_")]:
        monkeypatch.delenv(name)


@pytest.fixture(scope="session", autouse=True)
def _servers() -> Iterator[None]:
    """What stands in for AWS is started by the first test that needs it."""
    yield
    if shared := sys.modules.get("tests.standins.shared"):
        shared.end_servers()


@pytest.fixture(scope="session", name="weed")
def _weed() -> Seaweed:
    from tests.standins.shared import started_seaweed

    return started_seaweed()


@pytest.fixture(name="root")
def _root() -> Iterator[Path]:
    """Give a folder on the real tmpfs, where a spool belongs."""
    with tempfile.TemporaryDirectory(prefix="collector-test-", dir="/dev/shm") as folder:
        yield Path(folder)


@pytest.fixture(name="clock")
def _clock() -> FakeClock:
    return FakeClock()


@pytest.fixture(name="signals")
def _signals() -> RecordingSignals:
    return RecordingSignals()
