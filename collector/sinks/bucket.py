"""
A bucket as the reading side of the `s3:` sink speaks to it: one client, listings page by page, bodies with a bound.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator
from typing import Any

from collector import aws

#: Keys asked for at once; S3 gives at most as many.
PAGE = 1000
#: What S3 says of an object that is not there, or is not the one that a condition names.
GONE = frozenset({"NoSuchKey", "404"})
CHANGED = frozenset({"PreconditionFailed", "412"})
#: What S3 says of two writes at once with conditions.
CONFLICT = frozenset({"ConditionalRequestConflict", "409"})
#: What a server says that knows no conditions.
_UNKNOWN = frozenset({"NotImplemented", "501"})


class Bucket:
    """One bucket; any number of greenlets may ask it at once. `connect` makes the client."""

    def __init__(self, name: str, connect: Callable[[], aws.Client]) -> None:
        self.name = name
        self._link = aws.Link(connect)

    def client(self) -> aws.Client:
        """Return the client, made if need be; raises `SinkError` when that can't be done."""
        return self._link.client()

    def close(self) -> None:
        """Let the client go, with its connections; safe to call twice."""
        self._link.close()

    def pages(self, prefix: str, **arguments: object) -> Iterator[dict[str, Any]]:
        """List what there is below a prefix, a page when it is asked for; raises `TransientSinkError`."""
        what = f"s3: list_objects_v2 {self.name}/{prefix}"
        while True:
            method = self.client().list_objects_v2
            page = aws.call(what, method, unless=(), Bucket=self.name, Prefix=prefix, MaxKeys=PAGE, **arguments)
            if page is None:
                return
            yield page
            if not page.get("NextContinuationToken"):
                return
            arguments["ContinuationToken"] = page["NextContinuationToken"]

    def ask(
        self, operation: str, key: str, *, unless: frozenset[str] = frozenset(), **arguments: object
    ) -> dict[str, Any] | None:
        """
        Ask for something about an object; None for a refusal with one of the codes of `unless`.

        Raises `TransientSinkError` for any other, and when there is no answer.
        """
        what = f"s3: {operation} {self.name}/{key}"
        method = getattr(self.client(), operation)
        return aws.call(what, method, unless=unless, Bucket=self.name, Key=key, **arguments)

    def change(self, operation: str, key: str, tag: str, **arguments: object) -> None:
        """
        Put an object, or delete it, if the one there still has this tag; raises `TransientSinkError`.

        A server that refuses conditions is asked before whether it has: what is written between the two is then lost.
        """
        if self.ask(operation, key, unless=GONE | CHANGED | _UNKNOWN, IfMatch=tag, **arguments) is not None:
            return
        found = self.ask("head_object", key, unless=GONE)
        if found is not None and found["ETag"] == tag:
            self.ask(operation, key, unless=frozenset(), **arguments)

    def get(self, key: str, most_bytes: int) -> dict[str, Any] | None:
        """
        Read an object, whose bytes are the `Body` of what is returned; None when there is none.

        Raises ValueError for one of more bytes, and `TransientSinkError` as `ask` does, also in the middle of the body.
        """
        method = self.client().get_object

        def fetch(**arguments: object) -> dict[str, Any]:
            told = method(**arguments)
            body = told["Body"]
            try:
                # One that is larger is left there, unread.
                told["Body"] = body.read() if told["ContentLength"] <= most_bytes else b""
            finally:
                body.close()
            return told

        found = aws.call(f"s3: get_object {self.name}/{key}", fetch, unless=GONE, Bucket=self.name, Key=key)
        if found is not None and found["ContentLength"] > most_bytes:
            raise ValueError(f"it has {found['ContentLength']} bytes, and {most_bytes} are the most")
        return found
