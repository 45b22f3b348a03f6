"""The two servers that all comparisons share."""

from __future__ import annotations

from collections.abc import Iterator

import pytest

from tests.doors.pair import Pair, pair


@pytest.fixture(scope="session", name="doors")
def _doors(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Pair]:
    with pair(tmp_path_factory.mktemp("doors")) as both:
        yield both
