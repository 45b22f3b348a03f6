"""What several of these tests need."""

from __future__ import annotations

from collections.abc import Iterator

import pytest

from tests.standins.relay import Relay
from tests.standins.seaweed import Bucket, Seaweed


@pytest.fixture(name="bucket")
def _bucket(weed: Seaweed) -> Bucket:
    return weed.bucket()


@pytest.fixture(name="relay")
def _relay(weed: Seaweed) -> Iterator[Relay]:
    with Relay(weed.port) as running:
        yield running
