"""
Who is served next: requests take turns, the one that waited longest first.

gevent runs whatever is ready, as often as it is ready, before it looks at the sockets again. A connection that always
has a request waiting is then served many times while others wait, and a health check waits for all of them. Here a
request that finds others waiting, or a slice that is used up, waits for its turn, and between two slices the loop looks
at its sockets.
"""

from __future__ import annotations

import time
from collections import deque
from collections.abc import Callable, Sequence
from typing import Any, Protocol

from gevent import get_hub, getcurrent

#: How long turns follow each other before the loop looks at its sockets, in seconds: at least so long, and as long as
#: the loop was busy with other things since, so that about half of the time goes to those whose turn it is; but not
#: longer than a health check may be kept waiting, which needs some looks. Choices; a turn takes 0.1 to 2 ms (measured).
_LEAST_SLICE_S, _MOST_SLICE_S = 0.002, 0.01
#: Of such a slice, how long a slice of refusals is at most. They take 0.1 to 0.3 ms each; with a half, a storm on 1,500
#: connections left 0.42 of the sustainable rate, with a quarter 0.76 (measured).
_REFUSING_PART = 0.25
#: What a turn takes until that was measured, in seconds; and the part of a new slice in the mean. Guesses.
_TURN_S, _TURN_WEIGHT = 0.001, 0.1

#: How many arrivals are served together at the most, and of how many bytes: enough for what is gained by it (8 gain 5 %
#: less than 32, measured with 5 events each), and a fraction of a slice.
_GROUP, _GROUP_BYTES = 32, 64 * 1024
#: How many are refused together at the most: a fraction of a slice of refusals. A choice.
_REFUSED_GROUP = 8


class Arrival(Protocol):
    """A request that came whole, and that whoever `attend`s can serve together with others."""

    data: bytes


#: A greenlet or an arrival, since when it waits, in seconds of the monotonic clock, and whether it is an arrival.
Waiter = tuple[Any, float, bool]


class Turns:
    """The queue of one worker; made in its main greenlet, after gevent patched it."""

    def __init__(self) -> None:
        self._hub = get_hub()
        # Due at once, and that is after the loop has looked at its sockets; a callback would come before.
        self._timer = self._hub.loop.timer(0.0)
        self._serve: Callable[[Sequence[Any]], None] = lambda _: None
        self._refuse: Callable[[Sequence[Any]], None] = lambda _: None
        # Greenlets and arrivals in one, so that all have their turns in the order in which they came.
        self._waiting: deque[Waiter] = deque()
        self._refusing: deque[Waiter] = deque()
        self._is_due = False
        self._began_at = 0.0
        self._ended_at = time.monotonic()
        self._goes_on = False
        self._turn_s = _TURN_S
        self._late_s = self._late_before_s = 0.0
        self._worst_s = 0.0

    def wait(self, *, is_fresh: bool = False) -> None:
        """
        Return when it is the caller's turn: at once when nobody was served since the loop looked at its sockets.

        It is also at once for one who `is_fresh`, while nobody waits and the slice is not used up: he was waited for by
        the loop, which has served him nothing since.
        """
        if is_fresh and self._is_due and not self._waiting and time.monotonic() < self._began_at + _MOST_SLICE_S:
            return
        self._wait(self._waiting)

    def attend(self, serve: Callable[[Sequence[Any]], None], refuse: Callable[[Sequence[Any]], None]) -> None:
        """Let `serve` serve the arrivals whose turn it is, and `refuse` those that are to be refused; neither waits."""
        self._serve, self._refuse = serve, refuse

    def come(self, arrivals: Sequence[Arrival]) -> None:
        """Let arrivals take their turns, at once where one who is fresh would not `wait`; called by the hub."""
        now = time.monotonic()
        until = now if self._waiting else self._began_at + _MOST_SLICE_S
        if not self._is_due:
            self._began_at, until = now, now + _MOST_SLICE_S
            self._arm()
        self._waiting.extend((one, now, True) for one in arrivals)
        while self._waiting and now < until:
            self._take_turn(now)
            now = time.monotonic()

    def wait_to_refuse(self) -> None:
        """Return when the caller may refuse its request: those who are refused have turns of their own."""
        self._wait(self._refusing)

    def come_to_be_refused(self, denials: Sequence[Any]) -> None:
        """Let some that came whole have their turns as those who `wait_to_refuse`; called by the hub."""
        now = time.monotonic()
        self._refusing.extend((one, now, True) for one in denials)
        if not self._is_due:
            self._began_at = now
            self._arm()

    def _wait(self, queue: deque[Waiter]) -> None:
        if not self._is_due:
            self._began_at = time.monotonic()
            self._arm()
            return
        mine = (getcurrent(), time.monotonic(), False)
        queue.append(mine)
        try:
            self._hub.switch()
        except BaseException:
            if mine in queue:
                queue.remove(mine)
            raise

    def _arm(self) -> None:
        self._is_due = True
        self._timer.start(self._slice)

    def _slice(self) -> None:
        """Let those begin whose turn it is; called by the hub."""
        began = self._began_at = time.monotonic()
        length_s = min(max(_LEAST_SLICE_S, began - self._ended_at), _MOST_SLICE_S)
        now, turns = began, 0
        while self._waiting and now < began + length_s:
            turns += self._take_turn(now)
            now = time.monotonic()
        refuse_until = now + length_s * _REFUSING_PART
        while self._refusing and now < refuse_until:
            self._take_turn_to_refuse()
            now = time.monotonic()
        if turns:
            # What the loop does between two slices is waited for, too.
            since_s = now - (self._ended_at if self._goes_on else began)
            self._turn_s += _TURN_WEIGHT * (since_s / turns - self._turn_s)
        self._ended_at, self._goes_on = now, bool(self._waiting)
        if self._waiting or self._refusing:
            self._arm()
        else:
            self._is_due = False

    def _take_turn(self, now: float) -> int:
        """Let the first one begin, and with an arrival those that are right behind it; return how many began."""
        waiting = self._waiting
        who, since, is_arrival = waiting.popleft()
        self._worst_s = max(self._worst_s, now - since)
        if not is_arrival:
            who.switch()
            return 1
        group, size = [who], len(who.data)
        while waiting and waiting[0][2] and len(group) < _GROUP and size < _GROUP_BYTES:
            one = waiting.popleft()[0]
            group.append(one)
            size += len(one.data)
        self._serve(group)
        return len(group)

    def _take_turn_to_refuse(self) -> None:
        refusing = self._refusing
        who, _, is_denial = refusing.popleft()
        if not is_denial:
            who.switch()
            return
        group = [who]
        while refusing and refusing[0][2] and len(group) < _REFUSED_GROUP:
            group.append(refusing.popleft()[0])
        self._refuse(group)

    # -- lag -----------------------------------------------------------------------------------------------

    @property
    def lag_s(self) -> float:
        """
        Return how long a request that came now would wait, about.

        That is the time of all the turns before it, and not less than the oldest has waited, or than the loop lags.
        """
        return self.lag_s_behind(0)

    def lag_s_behind(self, others: int) -> float:
        """Return `lag_s` of a request with so many `others` before it that have come, and do not wait yet."""
        waited_s = time.monotonic() - self._waiting[0][1] if self._waiting else 0.0
        # One late look is a hiccup, or a process that was stopped; two in a row are a loop that does not keep up.
        return max(waited_s, (len(self._waiting) + others) * self._turn_s, min(self._late_s, self._late_before_s))

    def note_loop_lag(self, late_s: float) -> None:
        """Take note of how late the loop woke a sleeper."""
        self._late_before_s, self._late_s = self._late_s, late_s
        self._worst_s = max(self._worst_s, late_s)

    def take_worst_s(self) -> float:
        """Return the longest lag since the last call."""
        worst_s, self._worst_s = max(self._worst_s, self.lag_s), 0.0
        return worst_s
