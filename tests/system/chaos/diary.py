"""What the devices say of themselves: what they sent and were told, and what failed. Times are CLOCK_MONOTONIC."""

from __future__ import annotations

import msgspec

#: What an attempt at an upload came to. Only the last of an upload is `OK`; after any of the others it is sent again.
OK = "ok"
#: No whole answer came: whether it was kept nobody knows.
FAILED = "failed"
#: A 503 to an upload that waited for its sink: it may be in the spool.
UNCONFIRMED = "unconfirmed"
#: Any other answer than a 200: it was not kept.
REFUSED = "refused"

#: An upload whose attempt came to one of these may be stored.
MAY_BE_KEPT = frozenset({OK, FAILED, UNCONFIRMED})

#: The failure that means that nobody listens.
NOBODY_LISTENS = "refused connection"


class Failure(msgspec.Struct, frozen=True):
    """
    One request that did not get an answer a device can use.

    `port` is the device's end of the connection, which was opened at `opened_at`; `served` counts the answers that
    it had carried before.
    """

    device: str
    port: int
    opened_at: float
    asked_at: float
    failed_at: float
    served: int
    kind: str

    def __str__(self) -> str:
        place = "a fresh connection" if not self.served else f"a connection with {self.served} answers behind it"
        return (
            f"{self.kind} on {place} (port {self.port}) of {self.device}: opened {self.opened_at:.3f}, "
            f"asked {self.asked_at:.3f}, failed {self.failed_at:.3f}"
        )


class DeviceDiary(msgspec.Struct):
    """
    One device's uploads, numbered from 0.

    `receipts` has one for each acknowledged upload, in order; `again` has the attempts before the last one, of those
    uploads that took more than one. `begun` is one more than `receipts` has when the last never came to an end.
    """

    name: str
    tenant: str
    begun: int = 0
    receipts: list[str] = msgspec.field(default_factory=list)
    again: dict[int, list[str]] = msgspec.field(default_factory=dict)


class Diary(msgspec.Struct):
    """All of one load process. `refusals` counts the answers that send a device away, by tenant and reason."""

    devices: list[DeviceDiary] = msgspec.field(default_factory=list)
    failures: list[Failure] = msgspec.field(default_factory=list)
    refusals: dict[str, int] = msgspec.field(default_factory=dict)
    requests: int = 0
    connections: int = 0
    slowest_s: float = 0.0
