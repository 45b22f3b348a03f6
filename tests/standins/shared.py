"""
Servers for all tests of a process: each is started for the first that needs it, and ended after the last of all.
"""

from __future__ import annotations

from contextlib import ExitStack
from functools import cache

from tests.standins.moto import Moto, moto
from tests.standins.seaweed import Seaweed, seaweed

_SERVERS = ExitStack()


@cache
def started_seaweed() -> Seaweed:
    """Return SeaweedFS; a test makes a bucket of its own there."""
    return _SERVERS.enter_context(seaweed())


@cache
def started_moto() -> Moto:
    """Return moto's server; a test makes a stream or a queue of its own there."""
    return _SERVERS.enter_context(moto())


def end_servers() -> None:
    """End those that were started."""
    _SERVERS.close()
