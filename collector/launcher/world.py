"""
What the launcher may do to the world, and what it sees of it: contracts, which `machine` keeps, and tests fake.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Protocol

from collector.launcher.plan import Handoff
from collector.receiver.notice import Notice


class AnyGeneration(Protocol):
    """A master of gunicorn with its workers."""

    number: int
    handoff: Handoff

    @property
    def pid(self) -> int:
        """The master's."""

    @property
    def status(self) -> int | None:
        """The master's exit status, negative of a signal; None while it lives."""

    @property
    def is_ready(self) -> bool:
        """Tell whether all workers accept connections, as far as `look` knows."""

    @property
    def is_over(self) -> bool:
        """Tell whether nothing of it lives any more, as far as `look` knows."""

    def look(self) -> None:
        """See what became of the workers."""

    def terminate(self) -> None:
        """Let it drain and end."""

    def hurry(self) -> None:
        """Let it end soon."""

    def kill(self) -> None:
        """End all of it at one stroke."""


class AnyPreflight(Protocol):
    """A child that loads the settings and builds a worker from what is on the disk."""

    @property
    def is_over(self) -> bool:
        """Tell whether it has ended."""

    def abandon(self) -> None:
        """End it now; nobody wants its verdict."""

    def verdict(self) -> Handoff | str:
        """Return what a new generation is to be started with, or why there can be none; once, when it is over."""


class AnyChild(Protocol):
    """Another child; `status` is its exit status, None while it lives."""

    status: int | None

    def signal(self, number: int) -> None:
        """Send it a signal."""


class World(Protocol):
    """What the launcher acts on. Whatever starts something may raise OSError."""

    def listen(self, addresses: Sequence[str], backlog: int) -> None:
        """Listen on these too; BindError, and on no new one, if any can't be."""

    def keep_listeners(self, addresses: Sequence[str]) -> None:
        """Let go of all others."""

    def start_generation(self, number: int, handoff: Handoff) -> AnyGeneration:
        """Start gunicorn on the listeners that the handoff names."""

    def start_preflight(self) -> AnyPreflight:
        """Start the child that says whether a reload would do."""

    def start_farewell(self, handoff: Handoff) -> AnyChild:
        """Start a child that says what became of everything, with the code that is on the disk."""

    def say_farewell(self, handoff: Handoff) -> None:
        """Say it with our own code."""

    def post(self, notice: Notice) -> None:
        """Tell the workers."""
