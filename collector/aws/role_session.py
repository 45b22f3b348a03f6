"""
The credentials of a role's session, which end: taken on when they are needed, and again ahead of their end.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from datetime import UTC, datetime, timedelta
from math import inf
from typing import Any

from collector.clock import Clock
from collector.errors import TransientSinkError

#: When a role is asked for again that was not to be had, in seconds: whose credentials still last, and which has none.
#: An attempt may take as long as an answer may, and whoever needs it waits. Guesses.
RENEW_AGAIN_S, ASK_AGAIN_S = 60.0, 1.0

_KEYS = {"access_key": "AccessKeyId", "secret_key": "SecretAccessKey", "token": "SessionToken"}


class RoleSession:
    """
    A role that somebody has taken on.

    botocore has it renewed: from 15 minutes before the end by one caller, which alone waits for it, and from 10 minutes
    before while all wait. A renewal that fails costs no more than its time while the credentials there are still last.
    `ask` answers as STS's AssumeRole does, or raises `TransientSinkError`.
    """

    def __init__(self, ask: Callable[[], Mapping[str, Any]], clock: Clock) -> None:
        self._ask = ask
        self._clock = clock
        self._given: dict[str, str] = {}
        self._ends: datetime | None = None
        self._refusal = ""
        self._refused_at = -inf

    def now(self) -> datetime:
        """Return the time, as botocore asks for it: after all ends where there is nothing that may still be used."""
        if self._ends is None:
            return datetime.max.replace(tzinfo=UTC)
        return datetime.fromtimestamp(0, UTC) + timedelta(microseconds=self._clock.now_us())

    def end(self) -> None:
        """Use these credentials no more: AWS may hold that a session is over before its time."""
        self._ends = None

    def take_on(self) -> dict[str, str]:
        """Return credentials, as botocore wants them; raises `TransientSinkError` when there are none."""
        lasts = self._ends is not None and self.now() < self._ends
        if self._clock.monotonic() >= self._refused_at + (RENEW_AGAIN_S if lasts else ASK_AGAIN_S):
            try:
                self._keep(self._ask())
            except TransientSinkError as error:
                self._refusal, self._refused_at = str(error), self._clock.monotonic()
        if self._refusal and not lasts:
            raise TransientSinkError(self._refusal)
        return self._given

    def _keep(self, answer: Mapping[str, Any]) -> None:
        told = answer.get("Credentials", {})
        if not told.get("Expiration"):
            raise TransientSinkError("sts: assume_role: the answer has no credentials")
        self._given = {ours: told[theirs] for ours, theirs in _KEYS.items()}
        self._given["expiry_time"] = told["Expiration"].isoformat()
        self._ends, self._refusal = told["Expiration"], ""
