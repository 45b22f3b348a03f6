"""
What operators and load balancers ask of a worker: is it alive, is it ready, what did it count, where is it all.
"""

from __future__ import annotations

import hmac
import threading
from collections.abc import Callable
from functools import wraps

import msgspec
from flask import Response, request

from collector.admission.gate import Gate
from collector.admission.tenants import TenantBook
from collector.buffer.spool import Spool
from collector.errors import LedgerError
from collector.receiver import notice
from collector.telemetry import metrics, page

View = Callable[[], Response]


class Admin:
    """The views of the admin listener; one a worker."""

    def __init__(
        self,
        *,
        gate: Gate,
        spool: Spool,
        tenants: TenantBook,
        snapshot: Callable[[], metrics.Snapshot],
        token: str | None,
        offload: Callable[[Callable[[], Response]], Response] = lambda run: run(),
    ) -> None:
        self._gate = gate
        self._spool = spool
        self._tenants = tenants
        self._snapshot = snapshot
        self._token = token
        self._offload = offload
        self._turn = threading.Lock()

    def guarded(self, view: View) -> View:
        """Let a view answer only those who bring the admin token, if there is one."""

        @wraps(view)
        def asked() -> Response:
            given = request.headers.get("Authorization", "").encode()
            if self._token and not hmac.compare_digest(given, b"Bearer " + self._token.encode()):
                message = "send the admin token: Authorization: Bearer <COLLECTOR_ADMIN_TOKEN>"
                return _json({"status": "error", "code": 401, "error": "unauthorized", "message": message}, 401)
            return view()

        return asked

    def health(self) -> Response:
        """Answer that the worker's loop turns: that there is an answer says it."""
        return _json({"status": "ok"})

    def readiness(self) -> Response:
        """Say whether this worker should get traffic, and if not, why; trouble that does not stop it is told too."""
        reasons = []
        told = notice.read()
        if self._gate.leaving or self._gate.draining or told.leaving:
            reasons.append("draining")
        if self._spool.is_full:
            reasons.append(self._spool.trouble or "the spool is above its high watermark")
        if trouble := self._gate.memory.trouble:
            reasons.append(trouble)
        body = {
            "ready": not reasons,
            "reasons": reasons,
            "worker": self._spool.owner,
            "spool": {"used_bytes": self._spool.used_bytes, "limit_bytes": self._spool.limit_bytes},
            "memory": {
                "used_bytes": self._gate.memory.use.used_bytes,
                "limit_bytes": self._gate.memory.use.limit_bytes,
            },
            "tenants": {"count": len(self._tenants.table), "problems": self._tenants.problems},
            "reload": told.reload,
        }
        return _json(body, 503 if reasons else 200)

    def ledger(self) -> Response:
        """Answer with the ledger of the whole task."""
        # A worker that died a moment ago is adopted first, so that its books are exact.
        self._spool.adopt()
        try:
            return self._at_leisure(lambda: _json(self._spool.books.totals().as_json()))
        except (LedgerError, OSError) as error:
            return _json({"status": "error", "code": 503, "error": "ledger_unreadable", "message": str(error)}, 503)

    def metrics(self) -> Response:
        """Answer with the metrics of the whole task, living workers and dead, for Prometheus."""
        self._spool.adopt()
        mine, launcher = self._snapshot(), metrics.Snapshot(counters=notice.read().counters)

        def render() -> Response:
            books = self._spool.books
            merged = metrics.merge([books.metrics(but=self._spool.owner), mine, launcher])
            text = page.render(merged, page.ledger(books.totals().tenants))
            return Response(text, content_type=page.CONTENT_TYPE)

        return self._at_leisure(render)

    def _at_leisure(self, make: Callable[[], Response]) -> Response:
        """
        Make a page that takes the longer the more tenants there are, off the hub: uploads do not wait for it.

        One at a time: whoever asks for many gets them late, and the threads of the pool are there for others.
        """
        with self._turn:
            return self._offload(make)


def _json(body: dict[str, object], status: int = 200) -> Response:
    return Response(msgspec.json.encode(body) + b"\n", status=status, content_type="application/json")
