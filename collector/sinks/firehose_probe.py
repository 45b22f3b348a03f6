"""
The probe of a `firehose:` sink. Nothing can be read back from Firehose; where it delivers it may tell.

That takes `firehose:DescribeDeliveryStream`, which the sink does not need.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

from collector import aws
from collector.aws.words import DENIED
from collector.errors import SinkError, TransientSinkError
from collector.event import Batch
from collector.sinks.aws_url import common_options, connector
from collector.sinks.probing import Result, Told
from collector.sinks.url import SinkUrl

#: How the kinds of destinations are called in the answer.
_KIND = "DestinationDescription"
_BUCKET_ARN = ":::"


def probe(url: SinkUrl, batch: Batch) -> FirehoseProbe:  # noqa: ARG001 - every probe is made so
    """Make it; raises `ValueError`."""
    return FirehoseProbe(url.host, connect=connector("firehose", url, common_options(url), writer_id="probe"))


class FirehoseProbe:
    """Asks a stream where it delivers; `connect` makes the client."""

    stays = "it is delivered with all else that goes there"

    def __init__(self, stream: str, *, connect: Callable[[], aws.Client]) -> None:
        self._stream = stream
        self._connect = connect

    def mark(self) -> None:
        """Do nothing."""

    def read_back(self) -> Told:
        """Say where it goes."""
        return Told(Result.SKIPPED, f"nothing can be read back from Firehose; {self._whereabouts()}")

    def take_away(self) -> Told:
        """Say that nobody can."""
        return Told(Result.SKIPPED, self.stays)

    def close(self) -> None:
        """Do nothing: the client is there for one question."""

    def _whereabouts(self) -> str:
        try:
            told = self._describe()
        except SinkError as error:
            if isinstance(error, TransientSinkError) and error.code in DENIED:
                return "where it delivers the role may not ask, and need not"
            return f"where it delivers could not be asked: {error}"
        places = [_place_of(one) for one in told.get("DeliveryStreamDescription", {}).get("Destinations", ())]
        return f"it delivers to {' and '.join(places) or 'no place that it tells of'}"

    def _describe(self) -> dict[str, Any]:
        client = self._connect()
        try:
            what = f"firehose: describe_delivery_stream {self._stream}"
            return aws.call(what, client.describe_delivery_stream, DeliveryStreamName=self._stream) or {}
        finally:
            client.close()


def _place_of(destination: dict[str, Any]) -> str:
    """Name a destination: a bucket with prefix and longest wait, or the kind of any other."""
    for name, told in destination.items():
        if name == "ExtendedS3DestinationDescription":
            bucket = told["BucketARN"].rpartition(_BUCKET_ARN)[2]
            wait_s = told.get("BufferingHints", {}).get("IntervalInSeconds")
            return f"s3://{bucket}/{told.get('Prefix', '')}{f' within {wait_s} s' if wait_s is not None else ''}"
    kinds = [name.removesuffix(_KIND) for name in destination if name.endswith(_KIND)]
    return kinds[0] if kinds else "an unnamed place"
