"""
What `s3:` sinks have delivered, read back. It takes `s3:ListBucket` on the bucket and `s3:GetObject` on its objects.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator
from contextlib import contextmanager

from collector import aws
from collector.aws.words import DENIED
from collector.errors import SinkError, TransientSinkError
from collector.sinks.bucket import Bucket
from collector.sinks.objects import SUFFIX
from collector.sinks.s3 import read_place
from collector.sinks.stored import MOST_FRAME_BYTES
from collector.sinks.url import SinkUrl


def from_url(url: SinkUrl) -> S3Delivered:
    """Make it of a sink's URL; raises `ValueError`."""
    place = read_place(url, writer_id="reading")
    return S3Delivered(place.bucket, place.prefix, connect=place.connect)


class S3Delivered:
    """A prefix of a bucket; `connect` makes the client when it is first asked."""

    def __init__(self, bucket: str, prefix: str, *, connect: Callable[[], aws.Client]) -> None:
        self._bucket = Bucket(bucket, connect)
        self._below = f"{prefix}/" if prefix else ""

    def folders(self, place: str) -> Iterator[str]:
        """Name what lies between the next two slashes."""
        with _denied():
            for page in self._bucket.pages(self._prefix(place), Delimiter="/"):
                for row in page.get("CommonPrefixes", ()):
                    yield row["Prefix"].rstrip("/").rpartition("/")[2]

    def files(self, place: str) -> Iterator[tuple[str, int]]:
        """Name the objects below a prefix and the next slash, each with the bucket's time for it."""
        with _denied():
            for page in self._bucket.pages(self._prefix(place), Delimiter="/"):
                for row in page.get("Contents", ()):
                    if row["Key"].endswith(SUFFIX):
                        yield row["Key"].rpartition("/")[2], round(row["LastModified"].timestamp() * 1_000_000)

    def read(self, name: str) -> bytes | None:
        """Read an object to its end; raises `SinkError` for one that must not be read."""
        with _denied():
            try:
                found = self._bucket.get(f"{self._below}{name}", MOST_FRAME_BYTES)
            except ValueError as error:
                raise SinkError(f"{name} can't be read back: {error}") from error
        return None if found is None else bytes(found["Body"])

    def close(self) -> None:
        """Let the client go, with its connections; safe to call twice."""
        self._bucket.close()

    def _prefix(self, place: str) -> str:
        return f"{self._below}{place}/" if place else self._below


@contextmanager
def _denied() -> Iterator[None]:
    """Say what it takes, where that is not allowed."""
    try:
        yield
    except TransientSinkError as error:
        if error.code not in DENIED:
            raise
        raise SinkError(
            f"{error}. To read back takes s3:ListBucket on the bucket and s3:GetObject on its objects"
        ) from error
