"""
The lines that an upload becomes in the spool, and at last in a sink.
"""

from __future__ import annotations

from datetime import UTC, datetime
from functools import lru_cache

import msgspec

from collector.event import Envelope

#: What a line adds to an event, about: id, tenant, time, protocol, receipt and address. Measured on a real line.
LINE_OVERHEAD_BYTES = 230


def lines(envelope: Envelope) -> bytes:
    """Render the finished NDJSON lines of an upload, each ended by a newline; events go in byte for byte."""
    head = msgspec.json.encode(
        {
            "tenant": envelope.tenant_id,
            "received_at": timestamp(envelope.received_us),
            "protocol": envelope.protocol,
            "receipt": envelope.receipt,
            "remote_ip": envelope.remote_ip,
        }
    )
    between = b"," + head[1:-1] + b',"event":'
    return b"".join([b'{"id":' + event.id + between + event.body + b"}\n" for event in envelope.events])


def timestamp(epoch_us: int) -> str:
    """Return RFC 3339 in UTC with microseconds."""
    seconds, us = divmod(epoch_us, 1_000_000)
    return f"{_second(seconds)}.{us:06d}Z"


# Uploads of one second share it: strftime costs 10 µs.
@lru_cache(maxsize=4)
def _second(epoch_s: int) -> str:
    return f"{datetime.fromtimestamp(epoch_s, UTC):%Y-%m-%dT%H:%M:%S}"
