"""
What the tasks say they sent, out of a Prometheus server that reads their metrics.

`increase` of five minutes, every five minutes, is each window once: counters that begin anew with a task are its own
business. Each minute is given a fifth.
"""

from __future__ import annotations

import base64
import http.client
import json
import math
from typing import Any
from urllib.parse import SplitResult, unquote, urlencode, urlsplit

from collector.control.watch.course import WINDOW
from collector.errors import CannotLook

QUERY = f"sum(increase(collector_hec_wire_bytes_total[{WINDOW}m]))"
#: What Prometheus gives of a series in one answer.
_MOST_POINTS = 11_000
_PATIENCE_S = 30.0
#: 11,000 points are half a MiB.
_MOST_BYTES = 16 << 20


def read(url: str, query: str, *, start: int, end: int) -> dict[int, float]:
    """Return bytes by the minute, of windows the last of which ends at `end`; raises `CannotLook`."""
    place = urlsplit(url)
    try:
        is_one = place.scheme in {"http", "https"} and place.hostname and (place.port or True)
    except ValueError:
        is_one = False
    if not is_one or place.query or place.fragment:
        raise CannotLook(f"--prometheus {_shown(place)!r} is no server: write its URL, such as http://prometheus:9090")
    points: dict[int, float] = {}
    first = end - (end - start) // WINDOW * WINDOW + WINDOW
    for since in range(first, end + 1, _MOST_POINTS * WINDOW):
        until = min(since + (_MOST_POINTS - 1) * WINDOW, end)
        asked = {"query": query, "start": since * 60, "end": until * 60, "step": WINDOW * 60}
        for at, amount in _points(_ask(place, urlencode(asked)), _shown(place)):
            points |= dict.fromkeys(range(at - WINDOW, at), amount / WINDOW)
    return points


def _points(answer: dict[str, Any], where: str) -> list[tuple[int, float]]:
    """Read the points of the one series in an answer: the minute at which a window ends, and its bytes."""
    series = answer.get("data", {}).get("result", []) if isinstance(answer.get("data"), dict) else None
    if answer.get("status") != "success" or not isinstance(series, list):
        raise CannotLook(f"{where}: Prometheus says: {answer.get('error') or 'nothing that is an answer'}")
    if len(series) > 1:
        raise CannotLook(f"{where}: the query gives {len(series)} series; sum them up, as {QUERY} does")
    try:
        values = [(int(float(at)) // 60, float(amount)) for one in series for at, amount in one["values"]]
    except (KeyError, TypeError, ValueError, OverflowError) as error:
        raise CannotLook(f"{where}: this is no answer of a Prometheus server: {error!r}") from error
    return [(at, max(amount, 0.0)) for at, amount in values if math.isfinite(amount)]


def _ask(place: SplitResult, form: str) -> dict[str, Any]:
    kind = http.client.HTTPSConnection if place.scheme == "https" else http.client.HTTPConnection
    connection = kind(place.hostname or "", place.port, timeout=_PATIENCE_S)
    headers = {"Content-Type": "application/x-www-form-urlencoded"}
    if place.username is not None:
        named = f"{unquote(place.username)}:{unquote(place.password or '')}"
        headers["Authorization"] = f"Basic {base64.b64encode(named.encode()).decode()}"
    where = _shown(place)
    try:
        connection.request("POST", f"{place.path.rstrip('/')}/api/v1/query_range", form, headers)
        response = connection.getresponse()
        status, body = response.status, response.read(_MOST_BYTES)
    except (OSError, http.client.HTTPException, ValueError) as error:
        raise CannotLook(f"{where} does not answer ({error}): is that where Prometheus listens?") from error
    finally:
        connection.close()
    try:
        answer = json.loads(body)
    except ValueError:
        answer = None
    if not isinstance(answer, dict):
        raise CannotLook(f"{where} answered {status}, and no JSON: is that a Prometheus server?")
    if status != 200 and answer.get("status") != "error":
        raise CannotLook(f"{where} answered {status}: is that a Prometheus server, and may this machine ask it?")
    return answer


def _shown(place: SplitResult) -> str:
    """Return a URL without what is secret in it."""
    return place._replace(netloc=place.netloc.rpartition("@")[2]).geturl()
