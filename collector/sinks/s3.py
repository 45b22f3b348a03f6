"""
The `s3:` sink: one zstd-compressed object a batch, as the `file:` sink has files.

    s3://bucket/prefix/tenant=<id>/date=YYYY-MM-DD/hour=HH/<batch>.ndjson.zst
    s3://bucket/prefix/date=YYYY-MM-DD/hour=HH/<batch>.ndjson.zst                 with ?by=hour, of all tenants

An object is there whole or not at all, and is written once: a repeat of its batch is refused by the bucket
(`If-None-Match`), and so has arrived. Collector needs `s3:PutObject` and `s3:AbortMultipartUpload` there, and no more.
"""

from __future__ import annotations

import re
from collections.abc import Callable
from contextlib import suppress
from typing import Annotated, Any

import msgspec

from collector import aws
from collector.clock import Clock
from collector.errors import AmbiguousSinkError, TransientSinkError
from collector.event import Batch
from collector.outcome import Receipt
from collector.sinks.aws_url import AwsOptions, connector, read_aws_options
from collector.sinks.base import Offload
from collector.sinks.layout import By
from collector.sinks.objects import LIMITS, Packer, check_key, place_of
from collector.sinks.url import SinkUrl

#: Larger frames go in parts: each has an answer and a time of its own, and a lost connection costs one of them. S3
#: takes parts from 5 MiB on, and up to 10,000. A choice.
PART_BYTES = 8 * 1024 * 1024
#: What S3 says of an object that is there already.
_THERE = frozenset({"PreconditionFailed", "412"})
CONTENT_TYPE = "application/zstd"
_BUCKET = re.compile(r"[a-z0-9][a-z0-9.-]{1,61}[a-z0-9]")
#: A key has 1,024 bytes at the most; tenant, hour and batch take up to 330 of them.
_MOST_PREFIX_BYTES = 512


class Options(AwsOptions, frozen=True, forbid_unknown_fields=True):
    """
    `level` is zstd's.

    `by=hour` puts the events of all tenants into one object: S3 charges for each, and of thousands of tenants each
    would have its own every second. `key` says where objects lie below the prefix, as a template of `layout`.
    """

    level: Annotated[int, msgspec.Meta(ge=1, le=19)] = 1
    by: By = "tenant"
    key: str = ""


class Place(msgspec.Struct, frozen=True):
    """What an `s3:` URL names, and what makes a client for it; `prefix` has no slash at its ends."""

    bucket: str
    prefix: str
    options: Options
    connect: Callable[[], aws.Client]


def from_url(url: SinkUrl, writer_id: str, clock: Clock, offload: Offload) -> S3Sink:  # noqa: ARG001 - every sink is made so
    """Make the sink of an `s3:` URL; raises `ValueError`."""
    place = read_place(url, writer_id=writer_id)
    options = place.options
    return S3Sink(
        place.bucket,
        place.prefix,
        connect=place.connect,
        offload=offload,
        level=options.level,
        by=options.by,
        key=options.key,
    )


def read_place(url: SinkUrl, *, writer_id: str = "") -> Place:
    """Read an `s3:` URL; raises `ValueError` for one that names no place in a bucket."""
    options = read_aws_options(url, Options)
    prefix = url.path.strip("/")
    if not _BUCKET.fullmatch(url.host):
        raise ValueError(f"sink {url.text!r}: {url.host!r} is no name of a bucket; write s3://bucket/prefix")
    if not prefix.isprintable() or len(prefix.encode()) > _MOST_PREFIX_BYTES:
        raise ValueError(
            f"sink {url.text!r}: its prefix has over {_MOST_PREFIX_BYTES} bytes, or some that can't be printed"
        )
    check_key(url, options.by)
    return Place(url.host, prefix, options, connector("s3", url, options, writer_id=writer_id))


class S3Sink:
    """
    Writes batches below a prefix of a bucket; any number of greenlets may write at once.

    It talks over gevent's sockets, on the hub: in threads a put costs five times the CPU (measured). `offload` runs
    elsewhere what computes for long; `connect` makes the client.
    """

    blocking = False

    def __init__(
        self,
        bucket: str,
        prefix: str,
        *,
        connect: Callable[[], aws.Client],
        offload: Offload,
        level: int = 1,
        by: By = "tenant",
        key: str = "",
    ) -> None:
        self.limits = LIMITS[by]
        self._bucket = bucket
        self._below = f"{prefix}/" if prefix else ""
        self._by: By = by
        self._key = key
        self._link = aws.Link(connect)
        self._offload = offload
        self._packer = Packer(level)

    def start(self) -> None:
        """Make the client; raises `SinkError` when that can't be done. It asks the bucket for nothing."""
        self._link.client()

    def write(self, batch: Batch) -> Receipt:
        """
        Write one object; raises `TransientSinkError` for whatever S3 refuses, or does not answer to in time.

        Raises `SinkError` for a batch that the limits rule out, or of no nameable tenant: a defect of the caller.
        """
        if not len(batch):
            return Receipt(delivered=0)
        key = self._key_of(batch)
        frame = self._offload(lambda: self._packer.pack(batch))
        if len(frame) <= PART_BYTES:
            self._told("ETag", "put_object", key, unless=_THERE, Body=frame, ContentType=CONTENT_TYPE, IfNoneMatch="*")
        else:
            self._put_parts(key, memoryview(frame))
        return Receipt(delivered=len(batch))

    def url_of(self, batch: Batch) -> str:
        """Say where a batch is, once it is written."""
        return f"s3://{self._bucket}/{self._key_of(batch)}"

    def _key_of(self, batch: Batch) -> str:
        directory, name = place_of(batch, self._by, self._key)
        return f"{self._below}{directory}/{name}"

    def close(self) -> None:
        """Let the client go, with its connections; safe to call twice and before `start`."""
        self._link.close()

    def _put_parts(self, key: str, frame: memoryview) -> None:
        upload_id = self._told("UploadId", "create_multipart_upload", key, ContentType=CONTENT_TYPE)
        try:
            parts = []
            for number, at in enumerate(range(0, len(frame), PART_BYTES), 1):
                body = bytes(frame[at : at + PART_BYTES])
                tag = self._told("ETag", "upload_part", key, UploadId=upload_id, PartNumber=number, Body=body)
                parts.append({"PartNumber": number, "ETag": tag})
            done = self._told(
                "ETag", "complete_multipart_upload", key,
                unless=_THERE, UploadId=upload_id, MultipartUpload={"Parts": parts}, IfNoneMatch="*",
            )  # fmt: skip
        except BaseException:
            self._abort(key, upload_id)
            raise
        if not done:
            # It was there, and the parts are not needed.
            self._abort(key, upload_id)

    def _abort(self, key: str, upload_id: str) -> None:
        """Let go of parts that would be paid for. Those of a process that died here are the bucket's rules to sweep."""
        with suppress(TransientSinkError):
            self._ask("abort_multipart_upload", key, UploadId=upload_id)

    def _told(
        self, field: str, operation: str, key: str, *, unless: frozenset[str] = frozenset(), **arguments: object
    ) -> str:
        """
        Ask for something, and return a field of the answer; nothing for a refusal with one of the codes of `unless`.

        A 200 may break off before it has said a word, or be somebody's between here and there, and says nothing then.
        """
        answer = self._ask(operation, key, unless=unless, **arguments)
        if answer is None:
            return ""
        if not answer.get(field):
            raise TransientSinkError(f"s3: {operation} {self._bucket}/{key}: the answer has no {field}")
        return str(answer[field])

    def _ask(
        self, operation: str, key: str, *, unless: frozenset[str] = frozenset(), **arguments: object
    ) -> dict[str, Any] | None:
        what = f"s3: {operation} {self._bucket}/{key}"
        method = getattr(self._link.client(), operation)
        try:
            return aws.call(what, method, unless=unless, Bucket=self._bucket, Key=key, **arguments)
        except AmbiguousSinkError as error:
            # Whatever became of it: what is put again is no second object.
            raise TransientSinkError(str(error), code=error.code) from error
