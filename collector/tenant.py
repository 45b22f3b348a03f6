"""
A tenant: who may upload, how much, and where it goes.
"""

from __future__ import annotations

from enum import StrEnum

import msgspec


class Ack(StrEnum):
    """What an answer promises: `SPOOL` survives the worker, `SINK` survives the task."""

    SPOOL = "spool"
    SINK = "sink"


class Tenant(msgspec.Struct, frozen=True, forbid_unknown_fields=True):
    """
    One tenant as its table in the settings file says, with the id filled in.

    `keys` are SHA-256 hex digests of ingest keys. Rates are for the whole task; 0 is no limit. `burst_s`
    seconds of a rate may come at once. `share` weighs the tenant's part of the spool against others'.
    `max_event_bytes` is counted on the event as sent. An event whose id came within the last `dedupe_window_s`
    is not delivered again; None takes the protocol's own window, 0 delivers every one. `clevertap_account` is
    the account id that uploads to `/1/upload` name; without it the tenant's id serves.
    """

    id: str
    keys: tuple[str, ...]
    enabled: bool = True
    ack: Ack = Ack.SPOOL
    route: str = "default"
    events_per_s: float = 0.0
    bytes_per_s: float = 0.0
    burst_s: float = 5.0
    share: float = 1.0
    max_event_bytes: int = 256 * 1024
    anonymise_ip: bool = False
    dedupe_window_s: float | None = None
    clevertap_account: str = ""
