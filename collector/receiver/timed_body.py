"""
A request's body with a deadline: gunicorn reads one for as long as it takes.
"""

from __future__ import annotations

import time
from collections.abc import Callable
from typing import Any

import gevent
from gunicorn.http import errors

from collector.errors import BadUpload
from collector.outcome import Reason


class TimedBody:
    """
    What the application reads a body from.

    `length` is its Content-Length, None for a chunked one; `deadline` is on the monotonic clock. `note_wait` is told
    when a read may begin to wait for the client and when it has ended; None says that the whole body is here.
    `is_finished` tells that nothing of it is left on the connection.
    """

    def __init__(
        self, body: Any, length: int | None, deadline: float, note_wait: Callable[[bool], None] | None
    ) -> None:
        self._body = body
        self._left = length
        self._deadline = deadline
        self._note_wait = note_wait
        self.is_finished = length == 0

    def read(self, size: int = -1) -> bytes:
        """Read up to `size` bytes, nothing at the end; raises BadUpload for a body that stalls or breaks off."""
        if self.is_finished:
            return b""
        try:
            data = self._read(size if size >= 0 else None)
        except _SlowBody:
            raise BadUpload(
                Reason.SLOW_BODY, "the body did not arrive in time: send again, or send fewer events at once"
            ) from None
        except (errors.ParseException, OSError) as error:
            raise BadUpload(
                Reason.MALFORMED, "the body broke off or is wrongly chunked: send it again, whole", str(error)[:200]
            ) from None
        if self._left is None:
            self.is_finished = not data
        else:
            self._left -= len(data)
            self.is_finished = self._left == 0
        return data

    def _read(self, size: int | None) -> bytes:
        if self._note_wait is None:
            here: bytes = self._body.read(size)
            return here
        self._note_wait(True)
        try:
            with gevent.Timeout(max(self._deadline - time.monotonic(), 0.001), _SlowBody):
                data: bytes = self._body.read(size)
                return data
        finally:
            self._note_wait(False)


class _SlowBody(Exception):
    """The body's deadline passed."""
