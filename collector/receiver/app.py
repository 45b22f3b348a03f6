"""
The Flask door: the whole route table, and what a view does before and after `receive`.

Two small applications, one a listener: devices see the first, operators both. `Doors` is the WSGI callable that
gunicorn serves; the worker says in the environ on which listener a request came.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping
from typing import TYPE_CHECKING, Any

import msgspec
from flask import Flask, Response, request
from werkzeug.exceptions import HTTPException, InternalServerError

from collector.errors import BadUpload
from collector.outcome import STATUS, Reason, Verdict
from collector.protocols.base import Protocol, Reply, Request
from collector.protocols.clevertap import Clevertap
from collector.protocols.native import Native
from collector.receiver.addresses import remote_ip
from collector.receiver.answers import STATUS_TEXTS, cors, fields_of
from collector.receiver.body import BodyRoom, read_body
from collector.receiver.intake import Intake, refuse
from collector.receiver.upload import take
from collector.telemetry.signals import Signals

if TYPE_CHECKING:
    from collector.receiver.admin import Admin
    from collector.receiver.hot import HotDoor
    from collector.receiver.runtime import Runtime
    from collector.receiver.shed import Shedder

#: What answers an upload, given its WSGI environ.
View = Callable[[dict[str, Any]], Reply]

#: The environ key under which the worker names the listener: "device" or "admin".
LISTENER = "collector.listener"

#: Where devices upload. Each row is a path and the protocol spoken there; the method is POST.
INGEST: tuple[tuple[str, Protocol], ...] = (
    ("/v1/events", Native()),
    ("/1/upload", Clevertap()),
)

#: What operators ask, and whether the answer needs the admin token. Rows of the first kind answer devices too.
HEALTH = (("/healthz", "health"), ("/readyz", "readiness"))
BOOKS = (("/metrics", "metrics"), ("/ledger", "ledger"))

_PREFLIGHT = (
    ("Access-Control-Allow-Methods", "POST, OPTIONS"),
    (
        "Access-Control-Allow-Headers",
        "authorization, content-type, content-encoding, collector-ack, x-collector-key, x-clevertap-account-id, "
        "x-clevertap-passcode",
    ),
    ("Access-Control-Max-Age", "600"),
)


class BodyLimits(msgspec.Struct, frozen=True):
    """
    What may come on the wire, in bytes: one upload as sent.

    `trusted_hops` proxies in front append to X-Forwarded-For; 0 takes the peer's address.
    """

    max_upload_bytes: int
    trusted_hops: int


class DeviceApp(Flask):
    """
    Flask, but for the uploads: these are answered before Flask makes its contexts, which take longer than they do.

    What is no upload (another method, another path) has all of Flask. An upload's view takes the WSGI environ.
    """

    uploads: Mapping[str, View]

    def wsgi_app(self, environ: dict[str, Any], start_response: Callable[..., Any]) -> Iterable[bytes]:
        """Answer an upload, or let Flask answer."""
        view = self.uploads.get(environ["PATH_INFO"]) if environ["REQUEST_METHOD"] == "POST" else None
        if view is None:
            answer: Iterable[bytes] = super().wsgi_app(environ, start_response)
            return answer
        reply = view(environ)
        fields = fields_of(reply, environ.get("HTTP_ORIGIN"))
        start_response(STATUS_TEXTS[reply.status], [*fields.items(), ("Content-Length", str(len(reply.body)))])
        return (reply.body,)


def device_app(intake: Intake, admin: Admin, limits: BodyLimits, room: BodyRoom) -> Flask:
    """Build what listens to devices."""
    app = DeviceApp(__name__ + ".device", static_folder=None)
    _prepare(app, intake.signals)
    app.uploads = {path: _upload(intake, protocol, limits, room) for path, protocol in INGEST}
    for path, protocol in INGEST:
        # Never reached: so that Flask knows what the path is for, when it is asked with another method.
        app.add_url_rule(path, protocol.name, _preflight, methods=["POST"], provide_automatic_options=False)
        app.add_url_rule(path, f"{protocol.name} preflight", _preflight, methods=["OPTIONS"])
    for path, name in HEALTH:
        app.add_url_rule(path, name, getattr(admin, name), methods=["GET"])
    app.after_request(_cors)
    return app


def admin_app(admin: Admin, signals: Signals) -> Flask:
    """Build what listens to operators."""
    app = Flask(__name__ + ".admin", static_folder=None)
    _prepare(app, signals)
    for path, name in HEALTH:
        app.add_url_rule(path, name, getattr(admin, name), methods=["GET"])
    for path, name in BOOKS:
        app.add_url_rule(path, name, admin.guarded(getattr(admin, name)), methods=["GET"])
    return app


class Doors:
    """The WSGI callable: each listener's application; and for the worker, the runtime and what stands before it."""

    def __init__(
        self, device: Flask, admin: Flask, runtime: Runtime, shedder: Shedder, hot: HotDoor | None = None
    ) -> None:
        self.device = device
        self.hot = hot
        self.admin = admin
        self.runtime = runtime
        self.shedder = shedder

    def __call__(self, environ: dict[str, Any], start_response: Callable[..., Any]) -> Iterable[bytes]:
        """Serve a request where it came in."""
        app = self.admin if environ.get(LISTENER) == "admin" else self.device
        return app(environ, start_response)


def _prepare(app: Flask, signals: Signals) -> None:
    app.url_map.merge_slashes = False
    app.register_error_handler(HTTPException, _http_error)
    app.register_error_handler(Exception, _failure(signals))


def _upload(intake: Intake, protocol: Protocol, limits: BodyLimits, room: BodyRoom) -> View:
    def read_and_take(environ: dict[str, Any]) -> Callable[[], Reply]:
        chunked = "chunked" in environ.get("HTTP_TRANSFER_ENCODING", "").lower()
        length = None if chunked else int(environ.get("CONTENT_LENGTH") or 0)
        with room.hold() as place:
            body = read_body(environ["wsgi.input"], length, limits.max_upload_bytes, place)
            return take(intake, protocol, _request(environ, body, limits.trusted_hops))

    def view(environ: dict[str, Any]) -> Reply:
        verdict = intake.gate.open()
        if not verdict.admitted:
            return refuse(intake, protocol, verdict)
        try:
            # Two calls: the answer may have to wait for a sink, and by then the body and its place are let go of.
            return read_and_take(environ)()
        except BadUpload as bad:
            reason = Reason(bad.reason)
            is_short = STATUS[reason] == STATUS[Reason.BACKPRESSURE]
            verdict = Verdict.refused(reason, bad.message, detail=bad.detail, retry_after_s=2 if is_short else None)
            return refuse(intake, protocol, verdict)
        except Exception as error:  # noqa: BLE001 - the device must get an answer that it can read, whatever broke
            intake.signals.internal_error(f"POST {protocol.name}", error)
            verdict = Verdict.refused(Reason.INTERNAL, "Collector failed at this upload: send it again")
            return refuse(intake, protocol, verdict)

    return view


def _request(environ: dict[str, Any], body: bytes, trusted_hops: int) -> Request:
    # From the environ and not through Flask's request, whose every look at a header costs a µs or two.
    headers = {name[5:].replace("_", "-").lower(): value for name, value in environ.items() if name[:5] == "HTTP_"}
    for name in ("CONTENT_TYPE", "CONTENT_LENGTH"):
        if environ.get(name):
            headers[name.replace("_", "-").lower()] = environ[name]
    return Request(
        method=environ["REQUEST_METHOD"],
        path=environ["PATH_INFO"],
        query=environ.get("QUERY_STRING", ""),
        headers=headers,
        body=body,
        remote_ip=remote_ip(environ.get("REMOTE_ADDR", ""), headers.get("x-forwarded-for", ""), trusted_hops),
    )


def _http_error(error: HTTPException) -> Response:
    reasons = {404: Reason.NOT_FOUND, 405: Reason.METHOD_NOT_ALLOWED}
    status = error.code or 500
    reason = reasons.get(status, Reason.MALFORMED if status < 500 else Reason.INTERNAL)
    paths = ", ".join(f"POST {path}" for path, _ in INGEST)
    messages = {
        Reason.NOT_FOUND: f"there is nothing at {request.path[:200]!r}: uploads go to {paths}",
        Reason.METHOD_NOT_ALLOWED: f"{request.method} is not for this path: uploads go to {paths}",
    }
    body = {
        "status": "error",
        "code": status,
        "error": reason.value,
        "message": messages.get(reason, error.description or error.name),
        "detail": "",
    }
    response = Response(msgspec.json.encode(body), status=status, content_type="application/json")
    for name, value in error.get_headers():
        if name.lower() == "allow":
            response.headers[name] = value
    return response


def _failure(signals: Signals) -> Callable[[Exception], Response]:
    """Return what answers when a view fails at what nobody thought of."""

    def failed(error: Exception) -> Response:
        signals.internal_error(f"{request.method} {request.path[:100]}", error)
        return _http_error(InternalServerError("Collector failed at this request: send it again"))

    return failed


def _preflight() -> Response:
    return Response(status=204, headers=list(_PREFLIGHT))


def _cors(response: Response) -> Response:
    origin = request.headers.get("Origin")
    if origin:
        for name, value in cors(origin):
            response.headers[name] = value
    return response
