"""
The reading side of the `s3:` sink: rescued batches, found, read, and taken away once they have arrived.

    s3://bucket/prefix/route=<name>/tenant=<id>/date=YYYY-MM-DD/hour=HH/<batch>.ndjson.zst
    s3://bucket/prefix/route=<name>/.replay.lease     who sends the route on, see `lease`
    s3://bucket/prefix/parked/reason=<reason>/route=<name>/…     what a sink refused for good

An object is removed, or written over, only while it is the one that was read (`If-Match`). Collector needs
`s3:GetObject`, `s3:PutObject` and `s3:DeleteObject` on the prefix, and `s3:ListBucket` on the bucket.
"""

from __future__ import annotations

import os
from collections.abc import Callable, Iterator
from contextlib import contextmanager

from collector import aws
from collector.clock import Clock
from collector.errors import TransientSinkError
from collector.event import Batch
from collector.outcome import Reason
from collector.sinks.base import Offload
from collector.sinks.bucket import Bucket
from collector.sinks.lease import Lease
from collector.sinks.objects import SUFFIX, compress
from collector.sinks.s3 import CONTENT_TYPE, S3Sink, read_place
from collector.sinks.stored import MOST_FRAME_BYTES, PARKED, REASON, parked, read_back
from collector.sinks.url import SinkUrl

_LEASE = ".replay.lease"


def from_url(url: SinkUrl, clock: Clock, offload: Offload) -> S3Source:
    """Make the reading side of an `s3:` URL; raises `ValueError`."""
    place = read_place(url)
    if place.options.by != "tenant":
        raise ValueError(f"sink {url.text!r}: what is read back must lie by tenant; leave out by={place.options.by}")
    return S3Source(
        place.bucket, place.prefix, connect=place.connect, clock=clock, offload=offload, level=place.options.level
    )


class S3Source:
    """
    Reads what `S3Sink`s wrote below the routes of a prefix, over the loop's own sockets as they do.

    `offload` runs elsewhere what computes for long; `connect` makes the client.
    """

    blocking = False

    def __init__(
        self,
        bucket: str,
        prefix: str,
        *,
        connect: Callable[[], aws.Client],
        clock: Clock,
        offload: Offload,
        level: int = 1,
    ) -> None:
        self._bucket = Bucket(bucket, connect)
        self._below = f"{prefix}/" if prefix else ""
        self._clock = clock
        self._offload = offload
        self._level = level
        self._holder = os.urandom(16).hex()
        #: Those that are held here, by route.
        self._leases: dict[str, Lease] = {}

    def start(self) -> None:
        """Make the client; raises `SinkError` when that can't be done. It asks the bucket for nothing."""
        self._bucket.client()

    def close(self) -> None:
        """
        Let the client go, with its connections; safe to call twice and before `start`.

        What a stop has met in the middle of its work leaves no lease behind that others would have to wait for.
        """
        for route in list(self._leases):
            self._leases.pop(route).give_up()
        self._bucket.close()

    def routes(self) -> list[str]:
        """Name the routes below the prefix, none where nothing is; raises `SinkError` when it can't be listed."""
        return self._named("route=")

    def reasons(self) -> list[str]:
        """Name the reasons for which something is parked; raises `SinkError` when it can't be listed."""
        return self._named(f"{PARKED}/{REASON}")

    def _named(self, prefix: str) -> list[str]:
        before = f"{self._below}{prefix}"
        pages = self._bucket.pages(before, Delimiter="/")
        return sorted(row["Prefix"][len(before) : -1] for page in pages for row in page.get("CommonPrefixes", ()))

    @contextmanager
    def exclusive(self, route: str) -> Iterator[bool]:
        """
        Hold a route's lease against other readers; raises `SinkError` when the bucket can't be asked for it.

        It is renewed while `stored` lists the route, and runs out by itself when its holder dies. It is lost by a
        single batch that takes longer than it lasts: another reader may then send on the same batches. They arrive
        twice where their sink does not name what it writes by the batch, and none of them is lost.
        """
        lease = Lease(self._bucket, f"{self._below}route={route}/{_LEASE}", self._holder, clock=self._clock)
        if route in self._leases or not lease.take():
            yield False
            return
        self._leases[route] = lease
        try:
            yield True
        finally:
            if self._leases.pop(route, None) is not None:
                lease.give_up()

    def stored(self, route: str) -> Iterator[S3Stored]:
        """List the objects of a route, page by page, by tenant and hour; raises `SinkError`, for a lost lease too."""
        lease = self._leases.get(route)
        for page in self._bucket.pages(f"{self._below}route={route}/"):
            for row in page.get("Contents", ()):
                # What begins with a dot is no batch.
                if row["Key"].rpartition("/")[2].startswith("."):
                    continue
                if lease is not None and not lease.renew():
                    raise TransientSinkError(f"s3: the lease of the route {route} was lost; who has it now goes on")
                yield S3Stored(self._bucket, row["Key"], offload=self._offload, level=self._level)

    def put_aside(self, route: str, reason: Reason, batch: Batch) -> str:
        """Write a batch below `parked`."""
        prefix = f"{self._below}{parked(reason)}/route={route}"
        # It is not closed: the client stays ours.
        sink = S3Sink(
            self._bucket.name, prefix, connect=self._bucket.client, offload=self._offload, level=self._level
        )  # fmt: skip
        sink.write(batch)
        return f"s3://{self._bucket.name}/{prefix}"


class S3Stored:
    """One object."""

    def __init__(self, bucket: Bucket, key: str, *, offload: Offload, level: int) -> None:
        self.place = f"s3://{bucket.name}/{key}"
        self.name = key.rpartition("/")[2].removesuffix(SUFFIX)
        self._bucket = bucket
        self._key = key
        self._offload = offload
        self._level = level
        #: S3's mark of what was loaded: another of the same bytes has the same.
        self._tag = ""

    def load(self) -> Batch | None:
        """Read the object, and hold it to its checksum; raises `SinkError` saying what is wrong with it."""
        return read_back(self.place, self._fetch, offload=self._offload)

    def _fetch(self) -> bytes | None:
        found = self._bucket.get(self._key, MOST_FRAME_BYTES)
        if found is None:
            return None
        self._tag = str(found["ETag"])
        frame: bytes = found["Body"]
        return frame

    def keep(self, rest: Batch | None) -> None:
        """
        Put the rest in the object's place, or remove it, if it is still the one that was loaded.

        No sink of ours writes over an object, so that another can only be there after two replays at once, of which one
        has lost its lease. Where a server heeds no `If-Match`, what that one has left there is then lost to the other.
        """
        if not self._tag:
            # It was gone when it was to be loaded.
            return
        if rest is None:
            self._bucket.change("delete_object", self._key, self._tag)
            return
        frame = self._offload(lambda: compress(rest.pieces, self._level))
        self._bucket.change("put_object", self._key, self._tag, Body=frame, ContentType=CONTENT_TYPE)
