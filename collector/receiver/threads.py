"""
Native threads for what blocks or computes for long, while the loop goes on.
"""

from __future__ import annotations

import os
from collections.abc import Callable
from contextlib import suppress
from typing import Generic, TypeVar

from gevent import get_hub
from gevent.threadpool import ThreadPool

T = TypeVar("T")

#: How far threads that nobody waits for step back: a tenth of a core is theirs where the loop wants all of it, and all
#: that it leaves. On one core at half of the peak, one upload in a hundred waited for 11 ms, and so for 5 (measured).
_STEP_BACK = 10
_MOST_NICE = 19


def off_hub(run: Callable[[], T]) -> T:
    """Run a function that blocks in one of gevent's native threads, and give the others their turn meanwhile."""
    outcome: _Outcome[T] = get_hub().threadpool.apply(_Outcome, (run,))
    return outcome.get()


class Backstage:
    """Up to `most` threads for work that nobody waits for; made in the main greenlet, after gevent patched it."""

    def __init__(self, most: int) -> None:
        self._pool = ThreadPool(most)
        self._nice = min(_MOST_NICE, os.getpriority(os.PRIO_PROCESS, 0) + _STEP_BACK)

    def run(self, run: Callable[[], T]) -> T:
        """Do as `off_hub`, and let others go first."""
        outcome: _Outcome[T] = self._pool.apply(_Outcome, (lambda: self._step_back(run),))
        return outcome.get()

    def _step_back(self, run: Callable[[], T]) -> T:
        # To Linux, process 0 is the thread that calls. It may not be allowed to come forward again, so it stays back.
        with suppress(OSError):
            os.setpriority(os.PRIO_PROCESS, 0, self._nice)
        return run()


class _Outcome(Generic[T]):
    """What a function returned or raised; gevent prints whatever a thread of its pool raises."""

    def __init__(self, run: Callable[[], T]) -> None:
        self._error: Exception | None = None
        try:
            self._value = run()
        except Exception as error:  # noqa: BLE001 - raised again by `get`
            self._error = error

    def get(self) -> T:
        if self._error is not None:
            raise self._error
        return self._value
