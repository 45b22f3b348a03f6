"""
When the next request to HEC may leave: backoff with full jitter, a circuit breaker, and what a human has to mend.
"""

from __future__ import annotations

import random
from enum import StrEnum

from collector.clock import Clock

#: The pause after a first failure, in seconds, is up to twice this. A guess: the usual one of such senders.
_BASE_S = 0.1
#: The longest pause, in seconds. A choice: lines that come meanwhile wait in the buffer, and with the usual 30 s an
#: outage of half a minute took as much buffer again until it was noticed to be over (played through). A hundred tasks
#: of four workers ask a HEC that is away for its health 160 times a second.
MAX_PAUSE_S = 5.0
#: What HEC asks for is heeded up to so many seconds: one answer with six hours in it must not silence a task.
MAX_RETRY_AFTER_S = 60.0
#: Failures in a row that open the breaker; so many 404 are no longer a moment of maintenance. Guesses.
_OPEN_AFTER = 5
#: How long nothing is tried while HEC refuses for the token's or the URL's sake, in seconds. A choice: a mended token
#: is found within a minute, and a wrong one does not fill Splunk's own log.
HELD_S = 60.0
#: The pause after an answer that says that HEC is nearly full, in seconds. A choice.
_SLOW_S = 0.5


class State(StrEnum):
    """How HEC is held to be."""

    WELL = "well"
    FAILING = "failing"
    REFUSING = "refusing"


class Pace:
    """The pauses of one sender. Nothing here waits: `wait_s` says for how long there is nothing to do."""

    def __init__(self, *, clock: Clock, rng: random.Random) -> None:
        self._clock = clock
        self._rng = rng
        self._failures = 0
        self._not_before_s = clock.monotonic()
        self._since_s: float | None = None
        self.state = State.WELL

    def wait_s(self) -> float:
        """Return how long nothing may be sent; 0 when it may."""
        return max(0.0, self._not_before_s - self._clock.monotonic())

    @property
    def is_probing(self) -> bool:
        """Tell whether the next request is to find out whether HEC is back."""
        return self.state is not State.WELL

    def succeeded(self, *, is_near_capacity: bool = False) -> float | None:
        """Take note of an answer that took lines; return how long HEC had been away, None if it was not."""
        self._failures = 0
        self._not_before_s = self._clock.monotonic() + (_SLOW_S if is_near_capacity else 0.0)
        if self.state is State.WELL:
            return None
        self.state = State.WELL
        since_s, self._since_s = self._since_s, None
        return self._clock.monotonic() - (since_s or self._clock.monotonic())

    def failed(self, retry_after_s: float | None = None, *, is_missing: bool = False) -> bool:
        """
        Take note of a failure; return whether that is news: the breaker opens with it.

        `is_missing`: the URL is not there. That passes, or else it is for a human to mend.
        """
        self._failures += 1
        ceiling_s = min(MAX_PAUSE_S, _BASE_S * 2 ** min(self._failures, 16))
        # Full jitter, so that tasks which failed together do not come back together.
        pause_s = self._rng.uniform(0.0, ceiling_s)
        if retry_after_s is not None:
            pause_s += min(retry_after_s, MAX_RETRY_AFTER_S)
        self._not_before_s = self._clock.monotonic() + pause_s
        if self._failures < _OPEN_AFTER:
            return False
        return self._enter(State.REFUSING if is_missing else State.FAILING)

    def refused(self) -> bool:
        """Take note of a refusal that a human has to mend; return whether it is news."""
        self._failures += 1
        self._not_before_s = self._clock.monotonic() + HELD_S * self._rng.uniform(0.75, 1.25)
        return self._enter(State.REFUSING)

    def hurry(self) -> None:
        """Let the next request leave at once: there is not much time left."""
        self._not_before_s = min(self._not_before_s, self._clock.monotonic() + _BASE_S)

    def _enter(self, state: State) -> bool:
        if self.state is state:
            return False
        if self._since_s is None:
            self._since_s = self._clock.monotonic()
        self.state = state
        return True
