"""
Bytes by the minute out of CloudWatch.

What `get_metric_data` takes: 500 queries and 100,800 points a call, an end that is not part of the time. What it keeps:
minutes for 15 days, five minutes for 63 days; of what is older than 15 days it is asked by five minutes, which is what
is judged by, and each minute is given a fifth.
"""

from __future__ import annotations

import math
import re
from collections.abc import Iterable, Iterator, Sequence
from datetime import datetime
from typing import Any

from collector import aws
from collector.control.watch.asking import ask
from collector.control.watch.series import DAY, Metric, minute_of, moment_of
from collector.errors import CannotLook

MOST_POINTS = 100_800
#: CloudWatch keeps minutes so long, less an hour in which it may already have put them together; and five minutes.
MINUTES_KEPT, MOST_DAYS = 15 * DAY - 60, 63
_COARSE = 5
#: A page has something in it; one thousand of them is no answer any more.
_MOST_PAGES = 1000
_LOAD_BALANCER = re.compile(r"(arn:[^ ]+:loadbalancer/)?(?P<name>(?P<kind>app|net)/[A-Za-z0-9-]{1,32}/[0-9a-f]{8,32})")
_NAMESPACES = {"app": "AWS/ApplicationELB", "net": "AWS/NetworkELB"}
_ADVICE = {
    "Forbidden": "the role may not read this metric: it needs cloudwatch:GetMetricData",
    "InternalError": "something went wrong at CloudWatch: look again in a minute",
    "PartialData": "CloudWatch gave a part of it, and what is missing is not to be taken for zeros: look again",
}


def processed_bytes(load_balancer: str) -> Metric:
    """Return the metric of a load balancer, named by its ARN or the end of that; raises `CannotLook`."""
    match = _LOAD_BALANCER.fullmatch(load_balancer)
    if match is None:
        raise CannotLook(
            f"--load-balancer {load_balancer!r} is none: write the ARN of an application or network load balancer, or "
            "what stands after `loadbalancer/` in it, such as app/hec/50dc6c495c0c9188"
        )
    return Metric(_NAMESPACES[match["kind"]], "ProcessedBytes", (("LoadBalancer", match["name"]),))


def named(metric: Metric) -> dict[str, Any]:
    """Return a metric, as CloudWatch's calls name it."""
    return {
        "Namespace": metric.namespace,
        "MetricName": metric.name,
        "Dimensions": [{"Name": name, "Value": value} for name, value in metric.dimensions],
    }


def stat_of(metric: Metric, period_s: int) -> dict[str, Any]:
    """Return a metric's sum, as CloudWatch's calls name it."""
    return {"Metric": named(metric), "Period": period_s, "Stat": "Sum"}


class Read:
    """What was read of some metrics: the points of each by minute, and what CloudWatch had to say besides."""

    def __init__(self, metrics: Sequence[Metric]) -> None:
        self.points: list[dict[int, float]] = [{} for _ in metrics]
        self.messages: list[str] = []


def read(client: aws.Client, metrics: Sequence[Metric], *, start: int, end: int, now: int) -> Read:
    """Read the sums of metrics from the minute `start` to before `end`; raises `CannotLook`."""
    found = Read(metrics)
    for first, last, minutes in chunks(start, end, kept_from=now - MINUTES_KEPT, queries=len(metrics)):
        queries = [
            {"Id": f"m{number}", "MetricStat": stat_of(metric, 60 * minutes), "ReturnData": True}
            for number, metric in enumerate(metrics)
        ]
        wanted = {
            "MetricDataQueries": queries, "StartTime": moment_of(first), "EndTime": moment_of(last),
            "ScanBy": "TimestampAscending", "MaxDatapoints": MOST_POINTS,
        }  # fmt: skip
        _take(found, metrics, _pages(client, wanted), minutes=minutes)
    return found


def chunks(start: int, end: int, *, kept_from: int, queries: int) -> Iterator[tuple[int, int, int]]:
    """Cut a time so that no call asks for too many points: from, to, and the minutes of a point."""
    # A point of five minutes lies on a round one.
    middle = min(math.ceil(kept_from / _COARSE) * _COARSE, end) if kept_from > start else start
    parts = [(start // _COARSE * _COARSE, middle, _COARSE)] if middle > start else []
    for first, last, minutes in (*parts, (middle, end, 1)):
        step = MOST_POINTS // max(queries, 1) * minutes
        for at in range(first, last, step):
            yield at, min(at + step, last), minutes


def _pages(client: aws.Client, wanted: dict[str, object]) -> Iterator[dict[str, Any]]:
    token = ""
    for _ in range(_MOST_PAGES):
        answer = ask("get_metric_data", client.get_metric_data, **wanted, **({"NextToken": token} if token else {}))
        yield answer
        before, token = token, answer.get("NextToken", "")
        if not token:
            return
        if token == before:
            break
    raise CannotLook("cloudwatch: get_metric_data: it goes on without an end; look again in a minute")


def _take(found: Read, metrics: Sequence[Metric], pages: Iterable[dict[str, Any]], *, minutes: int) -> None:
    """Put the points of all pages together. A page may have a part of a metric; what the last one says of it counts."""
    status: dict[str, str] = {}
    said: dict[str, list[str]] = {}
    for page in pages:
        found.messages += [_words(one) for one in page.get("Messages", ())]
        for result in page.get("MetricDataResults", ()):
            name = str(result.get("Id"))
            status[name] = result.get("StatusCode", "Complete")
            said[name] = [_words(one) for one in result.get("Messages", ())]
            if status[name] in {"Forbidden", "InternalError"}:
                break
            _put(found.points[int(name[1:])], result, minutes)
    for number, metric in enumerate(metrics):
        code = status.get(f"m{number}", "InternalError")
        words = said.get(f"m{number}", [])
        if code != "Complete":
            told = f" ({'; '.join(words)})" if words else ""
            raise CannotLook(f"cloudwatch: {metric}: {code}{told}: {_ADVICE.get(code, 'look again in a minute')}")
        found.messages += words


def _put(points: dict[int, float], result: dict[str, Any], minutes: int) -> None:
    times: Sequence[datetime] = result.get("Timestamps", ())
    for moment, amount in zip(times, result.get("Values", ()), strict=False):
        first = minute_of(moment)
        for minute in range(first, first + minutes):
            points[minute] = max(float(amount), 0.0) / minutes


def _words(message: dict[str, Any]) -> str:
    return f"{message.get('Code', '')}: {message.get('Value', '')}".strip(": ")
