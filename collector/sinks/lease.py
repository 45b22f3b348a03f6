"""
A lease on what only one process at a time may do with a bucket: an object with its holder's name in it.

How old it is, the server says: its `Date` against the object's `Last-Modified`. No clock of ours, nor the difference of
two of them, takes part in that.
"""

from __future__ import annotations

from contextlib import suppress
from datetime import datetime
from typing import Any

import msgspec

from collector.clock import Clock
from collector.errors import SinkError
from collector.sinks.bucket import CHANGED, CONFLICT, GONE, Bucket

#: How long a lease lasts that nobody renews, in seconds. A choice: longer than any write of a sink that is well, and a
#: time that one can wait for after a death.
LASTS_S = 60.0
#: A holder renews it when so much of that is over.
_RENEWED_AFTER = 0.25
#: What a lease may have; ours has 60.
_MOST_BYTES = 4096


class _Holder(msgspec.Struct):
    """What is in the object; `count` makes each renewal another object than the one before."""

    holder: str
    count: int = 0


class Lease:
    """One lease, taken in the name of `holder`, which is like no other."""

    def __init__(self, bucket: Bucket, key: str, holder: str, *, clock: Clock) -> None:
        self._bucket = bucket
        self._key = key
        self._holder = _Holder(holder)
        self._clock = clock
        self._tag = ""
        self._renew_at = 0.0

    def take(self) -> bool:
        """Take it if nobody has it, or its time is over, or it is ours; raises `SinkError` without an answer."""
        if self._put(IfNoneMatch="*"):
            return True
        found = self._bucket.get(self._key, _MOST_BYTES)
        if found is None or not (_is_over(found) or self._is_mine(found)):
            return False
        return self._put(IfMatch=found["ETag"])

    def renew(self) -> bool:
        """Renew it if that is due; False when another has it. Raises `SinkError` without an answer."""
        return self._clock.monotonic() < self._renew_at or self._put(IfMatch=self._tag)

    def give_up(self) -> None:
        """Let others take it; what fails costs them the time for which it lasts."""
        with suppress(SinkError):
            self._bucket.change("delete_object", self._key, self._tag)

    def _put(self, **condition: object) -> bool:
        now = self._clock.monotonic()
        self._holder.count += 1
        body, unless = msgspec.json.encode(self._holder), GONE | CHANGED | CONFLICT
        told = self._bucket.ask("put_object", self._key, unless=unless, Body=body, **condition)
        if told is None:
            return False
        self._tag = str(told["ETag"])
        self._renew_at = now + LASTS_S * _RENEWED_AFTER
        return True

    def _is_mine(self, found: dict[str, Any]) -> bool:
        """Tell whether an answer was lost that would have given it to us."""
        with suppress(msgspec.DecodeError):
            return msgspec.json.decode(found["Body"], type=_Holder).holder == self._holder.holder
        return False


def _is_over(found: dict[str, Any]) -> bool:
    from email.utils import parsedate_to_datetime  # noqa: PLC0415 -- whoever leases nothing need not wait for it

    written: datetime = found["LastModified"]
    try:
        now = parsedate_to_datetime(found["ResponseMetadata"]["HTTPHeaders"]["date"])
    except (KeyError, ValueError):
        # It does not say what time it has: whoever holds it gives it up, or an operator removes it.
        return False
    return (now - written).total_seconds() > LASTS_S
