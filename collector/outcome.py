"""
What can become of an upload and of an event: closed lists, and the values that carry them.

Any "how can data be lost?" is answered by reading `Reason` and `FATES`, and nothing else.
"""

from __future__ import annotations

from enum import StrEnum

import msgspec


class Reason(StrEnum):
    """Why an upload is refused, an event rejected, or an accepted event lost."""

    # An upload is refused. The device keeps it.
    MALFORMED = "malformed"
    UNKNOWN_KEY = "unknown_key"
    TENANT_DISABLED = "tenant_disabled"
    NOT_FOUND = "not_found"
    METHOD_NOT_ALLOWED = "method_not_allowed"
    SLOW_BODY = "slow_body"
    TOO_LARGE = "too_large"
    UNSUPPORTED_ENCODING = "unsupported_encoding"
    OVER_QUOTA = "over_quota"
    BACKPRESSURE = "backpressure"
    DRAINING = "draining"
    INTERNAL = "internal"

    # One event of an accepted upload is rejected (with MALFORMED and TOO_LARGE above). The answer names it.
    NOT_AN_OBJECT = "not_an_object"

    # An accepted event is lost, or refused by its sink for good.
    SINK_TOO_LARGE = "sink_too_large"
    SINK_INVALID = "sink_invalid"
    CORRUPT_FRAME = "corrupt_frame"


#: The HTTP status of each reason for which an upload is refused.
STATUS: dict[Reason, int] = {
    Reason.MALFORMED: 400,
    Reason.UNKNOWN_KEY: 401,
    Reason.TENANT_DISABLED: 403,
    Reason.NOT_FOUND: 404,
    Reason.METHOD_NOT_ALLOWED: 405,
    Reason.SLOW_BODY: 408,
    Reason.TOO_LARGE: 413,
    Reason.UNSUPPORTED_ENCODING: 415,
    Reason.OVER_QUOTA: 429,
    Reason.INTERNAL: 500,
    Reason.BACKPRESSURE: 503,
    Reason.DRAINING: 503,
}


class Outcome(StrEnum):
    """The terminal fate of an accepted event: each one meets exactly one."""

    DELIVERED = "delivered"
    RESCUED = "rescued"
    REJECTED_BY_SINK = "rejected_by_sink"
    DROPPED = "dropped"


class Fate(msgspec.Struct, frozen=True, order=True):
    """An outcome and, unless the event arrived, its reason."""

    outcome: Outcome
    reason: Reason | None = None

    @property
    def name(self) -> str:
        """Name it for a column or a key: `delivered`, `dropped:corrupt_frame`."""
        return self.outcome.value if self.reason is None else f"{self.outcome.value}:{self.reason.value}"


DELIVERED = Fate(Outcome.DELIVERED)
RESCUED = Fate(Outcome.RESCUED)

#: Every way in which an accepted event can end. The ledger has a column for each.
FATES: tuple[Fate, ...] = (
    DELIVERED,
    RESCUED,
    Fate(Outcome.REJECTED_BY_SINK, Reason.SINK_TOO_LARGE),
    Fate(Outcome.REJECTED_BY_SINK, Reason.SINK_INVALID),
    Fate(Outcome.DROPPED, Reason.CORRUPT_FRAME),
)


class Verdict(msgspec.Struct, frozen=True):
    """What admission says of an upload: admitted (no reason), or refused with one."""

    reason: Reason | None = None
    message: str = ""
    detail: str = ""
    retry_after_s: int | None = None

    @property
    def admitted(self) -> bool:
        """Tell whether the upload goes on."""
        return self.reason is None

    @classmethod
    def refused(cls, reason: Reason, message: str, *, detail: str = "", retry_after_s: int | None = None) -> Verdict:
        """Refuse with a sentence that says what was wrong and what to do; `retry_after_s` in whole seconds."""
        return cls(reason=reason, message=message, detail=detail, retry_after_s=retry_after_s)


ADMITTED = Verdict()


class Rejection(msgspec.Struct, frozen=True):
    """One event of an upload that was not taken while others may have been; `index` counts from 0."""

    index: int
    code: Reason
    message: str


class Receipt(msgspec.Struct, frozen=True):
    """
    What a sink says of a batch: `delivered` + len(`retryable`) + len(`rejected`) is the batch's length.

    `retryable` holds indexes into the batch, in order; `rejected` holds (index, reason) pairs with a reason
    of `Outcome.REJECTED_BY_SINK` in `FATES`. `trouble` says for people what the destination said of those. It was
    `throttled` when it asked for a slower pace; `in_doubt` counts the retryable ones that may have arrived already.
    """

    delivered: int
    retryable: tuple[int, ...] = ()
    rejected: tuple[tuple[int, Reason], ...] = ()
    trouble: str = ""
    throttled: bool = False
    in_doubt: int = 0
