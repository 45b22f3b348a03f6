"""docs/guarantees.md names the test that shows each promise; a name that leads nowhere shows nothing."""

from __future__ import annotations

import re
from pathlib import Path

from tests.system.chaos.faults import FAULTS

ROOT = Path(__file__).resolve().parent.parent
TEXT = (ROOT / "docs" / "guarantees.md").read_text()
TESTS = "\n".join(file.read_text() for file in (ROOT / "tests").rglob("test_*.py"))


def test_every_test_that_the_guarantees_name_is_there() -> None:
    """Tests are renamed more often than documents."""
    named = re.findall(r"`(test_\w+)`", TEXT)

    assert len(named) > 10
    assert [] == [name for name in named if f"def {name}(" not in TESTS]


def test_every_file_that_the_guarantees_name_is_there() -> None:
    """As for tests."""
    named = re.findall(r"`(tests/[\w/]+(?:\.py)?)`", TEXT)

    assert len(named) > 3
    assert [] == [name for name in named if not (ROOT / name).exists()]


def test_the_guarantees_name_every_fault_of_chaos_and_no_other() -> None:
    """A fault that is tried and not told of is half a promise."""
    lists = re.findall(r"`chaos` ([a-z][a-z, -]*)", TEXT.partition("What survives what")[2])
    named = {fault for faults in lists for fault in faults.strip(", ").split(", ")}

    assert FAULTS.keys() == named
