"""
What a sender to HEC is told, and what its accounts say.
"""

from __future__ import annotations

import msgspec

#: What a request may hold uncompressed: projects that send to Splunk Cloud quote a limit of 1 MB, and Cloud was seen to
#: refuse 6 MB.
MAX_BATCH_BYTES = 1_000_000
SOURCE = "collector"
SOURCETYPE = "collector:log"


class HecOptions(msgspec.Struct, frozen=True, kw_only=True):
    """
    Where lines go, and how many may wait.

    `buffer_bytes` bounds what is queued and in flight, with envelopes, of one process. Python adds 97 bytes a line
    (measured), and the request under way is held joined and compressed as well. A request has up to `batch_bytes`
    before compression and `batch_lines`, and leaves when it is full or its first line is `linger_s` old. With `ack` a
    line counts as delivered when the indexers have confirmed it; the token must ask for that, too.
    `index` empty means: the token's. `ca_file` is of whoever signed HEC's certificate, None for the usual ones.
    """

    url: str
    token: str
    buffer_bytes: int = 16 << 20
    batch_bytes: int = 256 << 10
    batch_lines: int = 500
    linger_s: float = 1.0
    ack: bool = False
    index: str = ""
    host: str = ""
    source: str = SOURCE
    ca_file: str | None = None

    def __repr__(self) -> str:
        return f"HecOptions(url={self.url!r}, token='••••')"


class Account(msgspec.Struct, frozen=True, kw_only=True):
    """
    What became of all lines, as of one moment: emitted = delivered + all of dropped + queued + in_flight.

    `held_bytes` are those of lines queued and in flight, `high_water_bytes` the most there ever were, `bytes_in` all
    that were emitted; each with its envelope. `bytes_wire` are those of requests, compressed and with their heads.
    `requests` are those with lines, each under what came of it in `results`, and `retries` those whose lines had been
    sent before. `possible_duplicates`: how often a line arrived, or may have, although it may have arrived before.
    """

    emitted: int = 0
    delivered: int = 0
    dropped: dict[str, int] = msgspec.field(default_factory=dict)
    queued: int = 0
    in_flight: int = 0
    held_bytes: int = 0
    high_water_bytes: int = 0
    bytes_in: int = 0
    bytes_wire: int = 0
    requests: int = 0
    results: dict[str, int] = msgspec.field(default_factory=dict)
    retries: int = 0
    possible_duplicates: int = 0
    oldest_age_s: float = 0.0

    @property
    def lost(self) -> int:
        """Count what was dropped, for whatever reason."""
        return sum(self.dropped.values())

    @property
    def is_exact(self) -> bool:
        """Tell whether the lines add up."""
        return self.emitted == self.delivered + self.lost + self.queued + self.in_flight
