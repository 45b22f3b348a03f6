"""
What running tasks say of their lines for Splunk: two looks at their Prometheus pages, and the rates between them.
"""

from __future__ import annotations

import http.client
import math
import ssl
from collections.abc import Mapping
from urllib.parse import urlsplit

import msgspec

from collector.control.hec.relay import connection_to
from collector.errors import ScrapeError

_TIMEOUT_S = 10.0
_MOST_PAGE_BYTES = 64 << 20
_EMITTED = "collector_hec_emitted_lines_total"
_WANTED = (
    _EMITTED, "collector_hec_delivered_lines_total", "collector_hec_dropped_lines_total",
    "collector_hec_line_bytes_total", "collector_hec_wire_bytes_total", "collector_hec_requests_total",
    "collector_hec_held_bytes", "collector_hec_buffer_bytes", "collector_hec_high_water_bytes",
)  # fmt: skip
#: One series for each worker.
_WORKER = "collector_worker_start_time_seconds"


class Page(msgspec.Struct, frozen=True):
    """One task at one moment: sums over its workers by metric, and how many workers there are."""

    sums: Mapping[str, float]
    workers: int


class Rates(msgspec.Struct, frozen=True, kw_only=True):
    """
    What tasks did between two looks, all together, a second.

    `buffer_bytes` are of one worker, on average; `fullest` is how full the fullest buffer has ever been, from 0 to 1.
    """

    tasks: int
    workers: int
    lines_per_s: float
    bytes_per_s: float
    wire_per_s: float
    requests_per_s: float
    dropped_per_s: float
    buffer_bytes: int
    fullest: float


def fetch(url: str, *, token: str, ca_file: str | None = None) -> str:
    """Get the page at a URL; raises `ScrapeError`."""
    to = urlsplit(url)
    if to.scheme not in {"http", "https"} or not to.hostname:
        raise ScrapeError(f"{url!r} is no URL of metrics; write http://host:8081/metrics")
    try:
        context = ssl.create_default_context(cafile=ca_file) if to.scheme == "https" else None
        link = connection_to(to.scheme, to.netloc, context, timeout_s=_TIMEOUT_S)
    except (OSError, ValueError, http.client.HTTPException) as error:
        raise ScrapeError(f"{url} can't be asked: {error}") from error
    path = f"{to.path or '/metrics'}{'?' + to.query if to.query else ''}"
    try:
        link.request("GET", path, headers={"Authorization": f"Bearer {token}"} if token else {})
        answer = link.getresponse()
        data = answer.read(_MOST_PAGE_BYTES)
    except (OSError, http.client.HTTPException) as error:
        raise ScrapeError(f"{url} does not answer: {error or type(error).__name__}") from error
    finally:
        link.close()
    if answer.status in {401, 403}:
        raise ScrapeError(
            f"{url} wants a token: give --admin-token-file, with COLLECTOR_ADMIN_TOKEN of that task in it"
        )
    if answer.status != 200:
        raise ScrapeError(f"{url} answered {answer.status}; is it the admin listener's /metrics?")
    try:
        return data.decode()
    except UnicodeDecodeError as error:
        raise ScrapeError(f"{url} answered with something else than text") from error


def read(text: str, *, url: str) -> Page:
    """Read a page in Prometheus's text format; raises `ScrapeError`, in which it is called by its `url`."""
    from prometheus_client.parser import text_string_to_metric_families  # noqa: PLC0415 -- 40 ms

    sums: dict[str, float] = dict.fromkeys(_WANTED, 0.0)
    found: set[str] = set()
    workers = 0
    try:
        for family in text_string_to_metric_families(text):
            for sample in family.samples:
                if sample.name in sums and math.isfinite(sample.value):
                    sums[sample.name] += sample.value
                    found.add(sample.name)
                workers += sample.name == _WORKER
    except Exception as error:  # the parser raises whatever it stumbles over
        raise ScrapeError(f"{url} is no page of metrics: {type(error).__name__}") from error
    if _EMITTED not in found:
        raise ScrapeError(f"{url} says nothing of lines for Splunk: is it a Collector, with COLLECTOR_HEC_URL?")
    if not workers or sums["collector_hec_buffer_bytes"] <= 0:
        raise ScrapeError(f"{url} tells of no worker that sends lines to Splunk; ask again when the task is ready")
    return Page(sums, workers)


def rates(before: Mapping[str, Page], after: Mapping[str, Page], *, seconds: float) -> Rates:
    """Return what happened between two looks at the same tasks, by their URL; raises `ScrapeError`."""
    grown = dict.fromkeys(_WANTED, 0.0)
    for url, page in after.items():
        for name in _WANTED:
            more = page.sums[name] - before[url].sums[name]
            if name.endswith("_total") and more < 0:
                raise ScrapeError(f"{url} began to count anew between the two looks: a worker was replaced; ask again")
            grown[name] += more
    if grown[_EMITTED] <= 0:
        raise ScrapeError(
            f"no line was logged in the {seconds:.3g} s between the two looks: there is nothing to size by; look for "
            "longer with --interval, or say what you expect"
        )
    workers = sum(page.workers for page in after.values())
    buffers = [(page.sums["collector_hec_buffer_bytes"] / page.workers, page) for page in after.values()]
    return Rates(
        tasks=len(after),
        workers=workers,
        lines_per_s=grown[_EMITTED] / seconds,
        bytes_per_s=grown["collector_hec_line_bytes_total"] / seconds,
        wire_per_s=grown["collector_hec_wire_bytes_total"] / seconds,
        requests_per_s=grown["collector_hec_requests_total"] / seconds,
        dropped_per_s=grown["collector_hec_dropped_lines_total"] / seconds,
        buffer_bytes=round(sum(page.sums["collector_hec_buffer_bytes"] for page in after.values()) / workers),
        fullest=max(page.sums["collector_hec_high_water_bytes"] / each for each, page in buffers),
    )
