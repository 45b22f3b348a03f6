"""
Collector for a comparison: time stands still between cases, chance has one face, and what was kept can be asked for.

gunicorn runs it as it runs `wsgi:app`; nothing on the way of an upload is another. Two of them that are asked the
same things in the same order must say the same, and write the same into their spools, to the byte.
"""

from __future__ import annotations

import random
import time
from collections import Counter
from collections.abc import Callable, Iterable, Sequence
from types import SimpleNamespace
from typing import Any

import gevent
import msgspec

from collector import bootstrap
from collector.admission.dedupe import Dedupe
from collector.admission.quota import Quota
from collector.buffer import frame
from collector.receiver import connection
from collector.receiver.runtime import Runtime
from collector.telemetry.metrics import Metrics
from collector.uuid7 import Uuid7
from tests.doors.seen import PATH, Kept, Seen

#: The moment of the first case: 2026-01-02T03:04:05.678901Z.
EPOCH_US = 1_767_323_045_678_901
#: Between two cases, on the wall: ids start anew, and as good as all cases fall into one hour of the sink. On the clock
#: of quotas and of dedupe: every quota is whole again, every window is over. In seconds.
BETWEEN_CASES_S, BETWEEN_QUOTAS_S = 0.01, 7200.0
#: A head that stalls is met in less time than the shipped ten seconds.
HEAD_DEADLINE_S = 3.0
#: What the flusher counts comes at its own time.
_UNTIMED = ("collector_batch", "collector_rescue", "collector_replayed", "collector_tenants")
_PATIENCE_S = 10.0


class _Now:
    """The moment of a case. It does not pass, but for those who wait by it."""

    def __init__(self) -> None:
        self._case = 0

    def next_case(self) -> None:
        self._case += 1

    def now_us(self) -> int:
        return EPOCH_US + self._case * round(BETWEEN_CASES_S * 1_000_000)

    def monotonic(self) -> float:
        return 1000.0 + self._case * BETWEEN_QUOTAS_S


class _Watch:
    """The wall clock of a case, and the machine's own for all that waits, ages and is swept."""

    def __init__(self, now: _Now) -> None:
        self.now_us = now.now_us
        self.monotonic = time.monotonic


class _NoChance(random.Random):
    def random(self) -> float:
        return 0.5


class _Admin:
    """The admin application, and beside it the question what a case left behind, which begins the next one."""

    def __init__(self, inner: Any, now: _Now, kept: list[Kept], counts: Metrics, runtime: Runtime) -> None:
        self._inner = inner
        self._now = now
        self._kept = kept
        self._counts = counts
        self._runtime = runtime
        self._counted: Counter[str] = Counter()
        self.by_flask = 0

    def __call__(self, environ: dict[str, Any], start_response: Callable[..., Any]) -> Iterable[bytes]:
        if environ["PATH_INFO"] != PATH:
            return list(self._inner(environ, start_response))
        answer = msgspec.json.encode(self._see())
        start_response("200 OK", [("Content-Type", "application/json")])
        return [answer]

    def _see(self) -> Seen:
        # The asker's own connection is one; a case whose connection is still served is not over.
        until = time.monotonic() + _PATIENCE_S
        while self._runtime._gauges()["collector_connections"] > 1 and time.monotonic() < until:
            gevent.sleep(0.001)
        counted = _counted(self._counts)
        seen = Seen(self._kept[:], dict(counted - self._counted), self.by_flask)
        self._counted, self.by_flask = counted, 0
        self._kept.clear()
        self._now.next_case()
        return seen


def _counted(counts: Metrics) -> Counter[str]:
    # Not by a snapshot, which copies the gauges, too: this is asked after each case.
    series = [(name, labels, n) for name, rows in counts._counters.items() for labels, n in rows.items()]
    series += [
        (name, labels, sum(row[:-1])) for name, rows in counts._histograms.items() for labels, row in rows.items()
    ]
    return Counter({f"{name}{labels}": n for name, labels, n in series if not name.startswith(_UNTIMED)})


def _build() -> Any:
    now, kept, counts = _Now(), list[Kept](), list[Metrics]()
    write = frame.parts

    def parts(tenant: bytes, payloads: Sequence[bytes], **fields: int) -> list[bytes]:
        kept.append(Kept(tenant, fields["events"], fields["received_us"], b"".join(payloads)))
        return write(tenant, payloads, **fields)

    def count(**fields: str) -> Metrics:
        counts.append(Metrics(**fields))
        return counts[-1]

    built: dict[str, object] = {
        "SystemClock": lambda: _Watch(now),
        "Uuid7": lambda clock: Uuid7(clock, bytes),
        "Quota": lambda path, _, **fields: Quota(path, now, **fields),
        "Dedupe": lambda spool, **fields: Dedupe(spool, **fields | {"clock": now}),
        "Metrics": count,
        "random": SimpleNamespace(Random=_NoChance),
    }
    for name, part in built.items():
        assert hasattr(bootstrap, name), f"bootstrap builds no {name} any more"
        setattr(bootstrap, name, part)
    frame.parts = parts
    vars(connection)["_HEAD_DEADLINE_S"] = HEAD_DEADLINE_S
    doors = bootstrap.create_app()
    admin = _Admin(doors.admin, now, kept, counts[0], doors.runtime)
    device = doors.device

    def by_flask(environ: dict[str, Any], start_response: Callable[..., Any]) -> Iterable[bytes]:
        admin.by_flask += 1
        return list(device(environ, start_response))

    vars(doors).update(admin=admin, device=by_flask)
    return doors


app = _build()
