"""
The probe of an `s3:` sink: it gets the object, and deletes it, if the role may. A role that only writes need not.
"""

from __future__ import annotations

from collector.aws.words import DENIED
from collector.errors import TransientSinkError
from collector.event import Batch
from collector.sinks.bucket import Bucket
from collector.sinks.objects import place_of
from collector.sinks.probing import Result, Told, held_frame
from collector.sinks.s3 import read_place
from collector.sinks.stored import MOST_FRAME_BYTES
from collector.sinks.url import SinkUrl


def probe(url: SinkUrl, batch: Batch) -> S3Probe:
    """Make it for a batch; raises `ValueError`."""
    place = read_place(url, writer_id="probe")
    name = "/".join(place_of(batch, place.options.by, place.options.key))
    return S3Probe(Bucket(place.bucket, place.connect), place.prefix, name, batch)


class S3Probe:
    """Looks for a batch under its name below a prefix of a bucket."""

    stays = ""

    def __init__(self, bucket: Bucket, prefix: str, name: str, batch: Batch) -> None:
        self._bucket = bucket
        self._place = f"s3://{bucket.name}/{prefix}".rstrip("/")
        self._name = name
        self._key = f"{prefix}/{name}" if prefix else name
        self._batch = batch

    def mark(self) -> None:
        """Do nothing: nobody else has an object of this name."""

    def read_back(self) -> Told:
        """Get the object."""
        found = self._bucket.get(self._key, MOST_FRAME_BYTES)
        return held_frame(self._place, self._name, None if found is None else found["Body"], self._batch.payload)

    def take_away(self) -> Told:
        """Delete the object; in a bucket that keeps versions, it stays as one."""
        try:
            told = self._bucket.ask("delete_object", self._key) or {}
        except TransientSinkError as error:
            if error.code not in DENIED:
                raise
            return Told(
                Result.SKIPPED, "the role may not delete there, and need not", left=f"{self._place}/{self._name}"
            )
        if told.get("DeleteMarker") or told.get("VersionId"):
            return Told(
                Result.OK,
                "it is deleted, and the bucket keeps versions: it stays as an old one until a rule of the bucket takes "
                "it away",
            )
        return Told(Result.OK, "it is deleted")

    def close(self) -> None:
        """Let the client go."""
        self._bucket.close()
