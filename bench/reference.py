"""
What Collector is measured against: a WSGI application that reads the body and does nothing with it.

Its answer is empty, which is the cheapest one that stock gunicorn can give: an answer with a body takes it a second
send.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable
from typing import Any

_NO_BODY = [("Content-Length", "0")]


def app(environ: dict[str, Any], start_response: Callable[..., Any]) -> Iterable[bytes]:
    """Read the body and answer 200."""
    environ["wsgi.input"].read()
    start_response("200 OK", _NO_BODY)
    return ()
