"""
What all doors put around a reply: the status line, and the fields without which a browser hides an answer.
"""

from __future__ import annotations

from werkzeug.http import HTTP_STATUS_CODES

from collector.outcome import STATUS
from collector.protocols.base import Reply

#: The status of every reply, as Flask writes it.
STATUS_TEXTS = {status: f"{status} {HTTP_STATUS_CODES[status].upper()}" for status in {200, *STATUS.values()}}

_CORS = (
    ("Access-Control-Allow-Credentials", "true"),
    ("Access-Control-Expose-Headers", "Retry-After"),
    ("Vary", "Origin"),
)


def cors(origin: str) -> tuple[tuple[str, str], ...]:
    """Return the fields without which a browser hides an answer from a page of `origin`."""
    return (("Access-Control-Allow-Origin", origin), *_CORS)


def fields_of(reply: Reply, origin: str | None) -> dict[str, str]:
    """Return a reply's fields in order, and what a page of `origin` needs; all but Content-Length."""
    fields = dict(reply.headers)
    if origin:
        fields.update(cors(origin))
    return fields
