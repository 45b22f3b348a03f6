"""A minute in the life of a server to which everything happens at once."""

from __future__ import annotations

import os
from pathlib import Path

import pytest

from tests.system.soak import problems, soak


@pytest.mark.system
def test_nothing_that_was_acknowledged_is_lost_through_kills_and_reloads(tmp_path: Path) -> None:
    """The promise of an answer, held against the worst minute we can make."""
    seconds = float(os.environ.get("SOAK_SECONDS", "60"))
    summary = soak(tmp_path, seconds=seconds, kill_every_s=5.0, hup_every_s=15.0)
    print(summary)  # noqa: T201 - pytest shows it with -s, and with a failure

    assert [] == problems(summary)
    assert summary["kills"] >= seconds // 5 - 2
    assert summary["HUPs"] >= seconds // 15 - 1
