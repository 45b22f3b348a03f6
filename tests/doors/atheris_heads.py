"""What atheris runs: heads, each judged in this process. `tests.doors.fuzz` starts it."""

from __future__ import annotations

import sys

import atheris

with atheris.instrument_imports(include=["collector.receiver.hot", "collector.receiver.addresses"]):
    from tests.doors.heads import Heads

_HEADS = Heads()


def judge(data: bytes) -> None:
    """Fail where the two readings part."""
    parted = _HEADS.differ(data)
    if parted is not None:
        raise AssertionError(parted)


atheris.Setup(sys.argv, judge)
atheris.Fuzz()
