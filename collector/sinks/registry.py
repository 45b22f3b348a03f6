"""
Which sink a URL opens. A new sink is one module and one line here.
"""

from __future__ import annotations

from collections.abc import Callable

from collector.clock import Clock, SystemClock
from collector.sinks import local, stdout, url
from collector.sinks.base import Sink

#: Makes a sink from its URL, the id of the worker that writes, and the clock. It opens nothing yet.
Factory = Callable[[url.SinkUrl, str, Clock], Sink]

SINKS: dict[str, Factory] = {
    "file": local.from_url,
    "stdout": stdout.from_url,
}

SCHEMES: tuple[str, ...] = tuple(SINKS)


def open_sink(text: str, *, writer_id: str, clock: Clock | None = None) -> Sink:
    """
    Make the sink that a URL names, without touching its destination; the sink's `start` does that.

    Raises `ValueError` with one sentence that says what is wrong with the URL and what to write instead.
    """
    parsed = url.parse(text)
    factory = SINKS.get(parsed.scheme)
    if factory is None:
        raise ValueError(f"sink {text!r}: there is no sink {parsed.scheme!r}; the schemes are {', '.join(SCHEMES)}")
    return factory(parsed, writer_id, clock or SystemClock())
