"""The two listeners' routes and answers, through the WSGI callables, and the reading of bodies."""

from __future__ import annotations

import json
import random
from collections.abc import Callable, Iterator
from hashlib import sha256
from pathlib import Path
from typing import Any

import pytest
from flask import Response
from flask.testing import FlaskClient
from hypothesis import given
from hypothesis import strategies as st
from prometheus_client.parser import text_string_to_metric_families
from werkzeug.datastructures import Headers
from werkzeug.test import EnvironBuilder, run_wsgi_app

from collector.admission.dedupe import Dedupe
from collector.admission.gate import Gate
from collector.admission.memory import Memory
from collector.admission.quota import Quota
from collector.admission.tenants import TenantBook
from collector.buffer.room import Bounds
from collector.buffer.spool import Spool
from collector.errors import BadUpload, LedgerError
from collector.outcome import Reason
from collector.receiver.admin import Admin
from collector.receiver.app import LISTENER, BodyLimits, Doors, admin_app, device_app
from collector.receiver.body import BodyRoom, Place, read_body
from collector.receiver.intake import Intake, UploadLimits
from collector.telemetry import page
from collector.telemetry.metrics import Metrics
from collector.tenant import Tenant
from collector.uuid7 import Uuid7
from tests.fakes import FakeClock, RecordingSignals

TENANT = Tenant(id="dev", keys=(sha256(b"dev-key").hexdigest(),))
KEY = {"Authorization": "Bearer dev-key"}
TOKEN = {"Authorization": "Bearer sesame"}
MAX_UPLOAD = 128 * 1024
UPLOADS = ["/v1/events", "/1/upload"]


class World:
    """Both applications over one spool."""

    def __init__(self, root: Path, *, token: str | None = None) -> None:
        clock, self.signals = FakeClock(), RecordingSignals()
        self.spool = Spool(root, "w1", Bounds(1 << 20, 1 << 20, 1 << 20), clock=clock, signals=self.signals)
        self.spool.start()
        tenants = TenantBook(
            None, root / "tenants", initial=(TENANT,), routes=("default",), clock=clock, signals=self.signals
        )
        tenants.start()
        quota = Quota(root / "quota", clock)
        self.memory = Memory(held=int, workers=1, clock=clock, signals=self.signals)
        self.gate = Gate(
            self.spool,
            quota,
            memory=self.memory,
            slot_of=tenants.slot,
            is_sole=lambda: True,
            max_lag_s=0.25,
            clock=clock,
            rng=random.Random(1),
        )
        intake = Intake(
            tenants=lambda: tenants.table,
            gate=self.gate,
            dedupe=Dedupe(self.spool, size_bytes=1 << 16, clock=clock, signals=self.signals),
            spool=self.spool,
            wake_flusher=lambda: None,
            new_id=Uuid7(clock),
            limits=UploadLimits(max_inflated_bytes=1 << 20, max_events=100, ack_timeout_s=1.0),
            clock=clock,
            signals=self.signals,
            metrics=Metrics(),
            offload=lambda run: run(),
        )
        counts = Metrics(worker="w1")
        counts.inc("collector_batches_delivered_total", ("default",), 3)
        #: What was made off the hub, by its content type.
        self.offloaded: list[str] = []
        admin = Admin(
            gate=self.gate,
            spool=self.spool,
            tenants=tenants,
            snapshot=counts.snapshot,
            token=token,
            offload=self.offload,
        )
        limits = BodyLimits(max_upload_bytes=MAX_UPLOAD, trusted_hops=0)
        self.device_app, self.admin_app = (
            device_app(intake, admin, limits, BodyRoom(4 * MAX_UPLOAD)),
            admin_app(admin, self.signals),
        )
        self.device, self.admin = self.device_app.test_client(), self.admin_app.test_client()
        self._closing = (self.spool, quota, tenants)

    def offload(self, run: Callable[[], Response]) -> Response:
        answer = run()
        self.offloaded.append(str(answer.content_type))
        return answer

    def close(self) -> None:
        for one in self._closing:
            one.close()


@pytest.fixture
def world(root: Path) -> Iterator[World]:
    made = World(root)
    yield made
    made.close()


@pytest.fixture
def guarded(root: Path) -> Iterator[World]:
    made = World(root, token="sesame")
    yield made
    made.close()


# -- routes ------------------------------------------------------------------------------------------------


def routes(app: Any) -> set[tuple[str, str]]:
    return {(rule.rule, method) for rule in app.url_map.iter_rules() for method in rule.methods}


def test_devices_can_reach_uploads_and_health_and_nothing_else(world: World) -> None:
    """Whatever else answers strangers is a hole that nobody looks at."""
    uploads = {(path, method) for path in UPLOADS for method in ("POST", "OPTIONS")}
    health = {(path, method) for path in ("/healthz", "/readyz") for method in ("GET", "HEAD", "OPTIONS")}

    assert uploads | health == routes(world.device_app)


def test_operators_can_reach_health_and_the_books_and_no_uploads(world: World) -> None:
    """Uploads on the admin listener would pass the limits that protect it from them."""
    paths = ("/healthz", "/readyz", "/metrics", "/ledger")

    assert {(path, method) for path in paths for method in ("GET", "HEAD", "OPTIONS")} == routes(world.admin_app)


@pytest.mark.parametrize(("listener", "status"), [("device", 404), ("admin", 200), ("", 404)])
def test_a_request_is_served_where_it_came_in(world: World, listener: str, status: int) -> None:
    """The ledger must not answer devices because one callable serves both listeners."""
    environ = EnvironBuilder(path="/ledger").get_environ()
    if listener:
        environ[LISTENER] = listener
    doors = Doors(world.device_app, world.admin_app, runtime=None, shedder=None)  # type: ignore[arg-type]

    assert f"{status} " in run_wsgi_app(doors, environ)[1] + " "


def assert_refusal(answer: Any, status: int, reason: str) -> None:
    assert status == answer.status_code
    assert "application/json" == answer.content_type
    body = answer.get_json()
    assert {"status", "code", "error", "message", "detail"} == body.keys()
    assert ("error", status, reason) == (body["status"], body["code"], body["error"])
    assert body["message"]


@pytest.mark.parametrize(
    "path", ["/", "/v1/event", "/v1/events/", "/v1//events", "/V1/EVENTS", "/metrics", "/\x00é", "/../x"]
)
def test_a_path_that_is_not_there_is_a_404_in_json(world: World, path: str) -> None:
    """An SDK reads the answer's object; a page of HTML or a redirect breaks it."""
    answer = world.device.post(path, data=b"{}", headers=KEY)

    assert_refusal(answer, 404, "not_found")
    assert "/v1/events" in answer.get_json()["message"]


@pytest.mark.parametrize("path", UPLOADS)
@pytest.mark.parametrize("method", ["GET", "HEAD", "PUT", "PATCH", "DELETE", "TRACE", "BREW"])
def test_a_method_that_is_not_for_a_path_is_a_405_that_says_which_is(world: World, path: str, method: str) -> None:
    """RFC 9110 wants Allow; the person who wrote the client needs it."""
    answer = world.device.open(path, method=method)

    assert 405 == answer.status_code
    assert {"POST", "OPTIONS"} == set(answer.headers["Allow"].replace(" ", "").split(","))
    if method != "HEAD":
        assert_refusal(answer, 405, "method_not_allowed")


@pytest.mark.parametrize("path", ["/metrics", "/ledger", "/healthz"])
def test_the_admin_listener_takes_nothing(world: World, path: str) -> None:
    """It tells; a POST to it is a mistake of the caller's."""
    answer = world.admin.post(path)

    assert_refusal(answer, 405, "method_not_allowed")
    assert "GET" in answer.headers["Allow"]


def test_a_view_that_breaks_answers_in_json_and_tells_nothing(world: World, monkeypatch: pytest.MonkeyPatch) -> None:
    """An operator's script reads the object; a stranger must not read the traceback."""

    def broken() -> None:
        raise RuntimeError("secret-of-ours")

    monkeypatch.setattr(world.spool, "adopt", broken)
    answer = world.admin.get("/ledger")

    assert_refusal(answer, 500, "internal")
    assert "secret-of-ours" not in answer.text


# -- browsers ----------------------------------------------------------------------------------------------


@pytest.mark.parametrize("path", UPLOADS)
def test_a_browser_is_allowed_to_upload(world: World, path: str) -> None:
    """Without the preflight's answer no page of another origin can send anything."""
    asked = {
        "Origin": "https://shop.example",
        "Access-Control-Request-Method": "POST",
        "Access-Control-Request-Headers": "authorization, content-type, collector-ack",
    }
    answer = world.device.options(path, headers=asked)
    allowed = set(answer.headers["Access-Control-Allow-Headers"].replace(" ", "").split(","))

    assert 204 == answer.status_code
    assert b"" == answer.data
    assert "https://shop.example" == answer.headers["Access-Control-Allow-Origin"]
    assert "true" == answer.headers["Access-Control-Allow-Credentials"]
    assert "POST" in answer.headers["Access-Control-Allow-Methods"]
    assert allowed >= {"authorization", "content-type", "content-encoding", "collector-ack", "x-collector-key"}
    assert "*" not in allowed  # which browsers do not take for Authorization
    assert int(answer.headers["Access-Control-Max-Age"]) > 0


@pytest.mark.parametrize(
    ("path", "method", "headers", "status"),
    [
        ("/v1/events", "POST", KEY, 200),
        ("/v1/events", "POST", {}, 401),
        ("/v1/events", "POST", KEY | {"Collector-Ack": "no"}, 400),
        ("/v1/events", "PUT", KEY, 405),
        ("/nowhere", "POST", KEY, 404),
        ("/healthz", "GET", {}, 200),
    ],
)
def test_a_browser_may_read_every_answer(
    world: World, path: str, method: str, headers: dict[str, str], status: int
) -> None:
    """A refusal without these headers is, to a page, a network error without a word."""
    answer = world.device.open(
        path, method=method, data=b'{"id":"a"}', headers=headers | {"Origin": "https://a.example"}
    )

    assert status == answer.status_code
    assert "https://a.example" == answer.headers["Access-Control-Allow-Origin"]
    assert "Origin" in answer.headers["Vary"]
    assert "Retry-After" in answer.headers["Access-Control-Expose-Headers"]


def test_who_is_no_browser_gets_no_headers_for_one(world: World) -> None:
    """A phone pays for every byte of an answer."""
    answer = world.device.post("/v1/events", data=b'{"id":"a"}', headers=KEY)

    assert [] == [name for name, _ in answer.headers if name.lower().startswith("access-control-allow")]


def test_operators_pages_can_not_be_read_by_another_origin(world: World) -> None:
    """The ledger of a company is nobody's whose page an operator happens to have open."""
    answer = world.admin.get("/ledger", headers={"Origin": "https://evil.example"})

    assert "Access-Control-Allow-Origin" not in answer.headers


# -- uploads -----------------------------------------------------------------------------------------------


def test_an_upload_comes_through_the_door_as_it_was_sent(world: World) -> None:
    """Headers, query and body reach the protocol unchanged."""
    by_header = world.device.post("/v1/events", data=b'{"id":"a"}', headers=KEY)
    by_query = world.device.post("/v1/events?key=dev-key", data=b'[{"id":"b"},{"id":"c"}]')

    assert [1, 2] == [by_header.get_json()["accepted"], by_query.get_json()["accepted"]]
    assert "application/json" == by_header.content_type


@pytest.mark.parametrize(
    "content_type", ["application/x-www-form-urlencoded", "multipart/form-data; boundary=x", "text/plain"]
)
def test_a_content_type_does_not_eat_the_body(world: World, content_type: str) -> None:
    """A beacon sends text, and some clients a form's type: Flask would parse it and leave nothing."""
    answer = world.device.post("/v1/events", data=b'{"id":"a"}', headers=KEY | {"Content-Type": content_type})

    assert (200, 1) == (answer.status_code, answer.get_json()["accepted"])


def test_an_upload_over_the_limit_is_refused_unread(world: World) -> None:
    """What is refused anyway must not be read into memory first."""

    class Untouched:
        def read(self, *_: object) -> bytes:
            raise AssertionError("the body was read")

    environ = EnvironBuilder(path="/v1/events", method="POST", headers=Headers(KEY)).get_environ()
    environ |= {"wsgi.input": Untouched(), "CONTENT_LENGTH": str(MAX_UPLOAD + 1)}
    body, status, _ = run_wsgi_app(world.device_app, environ)

    assert "413 REQUEST ENTITY TOO LARGE" == status
    assert "too_large" == json.loads(b"".join(body))["error"]


def test_a_draining_worker_refuses_before_it_reads(world: World) -> None:
    """The device learns at once that it must go elsewhere; four megabytes later is late."""
    world.gate.draining = True
    environ = EnvironBuilder(path="/v1/events", method="POST", headers=Headers(KEY)).get_environ()
    environ |= {"wsgi.input": None, "CONTENT_LENGTH": "10"}
    body, status, headers = run_wsgi_app(world.device_app, environ)

    assert "503 SERVICE UNAVAILABLE" == status
    assert "draining" == json.loads(b"".join(body))["error"]
    assert 1 <= int(headers["Retry-After"]) <= 5


# -- what operators ask ------------------------------------------------------------------------------------


@pytest.mark.parametrize("side", ["device", "admin"])
def test_health_is_told_on_both_listeners(world: World, side: str) -> None:
    """A load balancer knows the device port, an orchestrator the admin one."""
    client: FlaskClient = getattr(world, side)

    assert 200 == client.get("/healthz").status_code
    assert 200 == client.get("/readyz").status_code
    assert client.get("/readyz").get_json()["ready"] is True


@pytest.mark.parametrize("side", ["device", "admin"])
def test_a_worker_that_leaves_is_unready_and_healthy(world: World, side: str) -> None:
    """Unready takes it out of the traffic; unhealthy would have it killed in the middle of its drain."""
    client: FlaskClient = getattr(world, side)
    world.gate.leaving = True

    assert 200 == client.get("/healthz").status_code
    assert 503 == client.get("/readyz").status_code
    assert ["draining"] == client.get("/readyz").get_json()["reasons"]
    assert 200 == world.device.post("/v1/events", data=b'{"id":"a"}', headers=KEY).status_code


def test_a_worker_short_of_memory_is_unready_and_says_why(world: World) -> None:
    """Traffic goes elsewhere before the kernel kills, and whoever looks sees that it is the memory."""
    world.memory.is_short = True
    ready = world.admin.get("/readyz")

    assert 503 == ready.status_code
    assert [world.memory.trouble] == ready.get_json()["reasons"]
    assert {"used_bytes": 0, "limit_bytes": 0} == ready.get_json()["memory"]
    assert 503 == world.device.post("/v1/events", data=b'{"id":"a"}', headers=KEY).status_code


def test_a_worker_without_room_is_unready_and_says_why(world: World) -> None:
    """Traffic goes where there is room; the operator sees what is the matter."""
    world.spool.used_bytes = world.spool.limit_bytes
    answer = world.admin.get("/readyz")

    assert 503 == answer.status_code
    assert "watermark" in answer.get_json()["reasons"][0]
    assert 200 == world.admin.get("/healthz").status_code


@pytest.mark.parametrize("path", ["/metrics", "/ledger"])
@pytest.mark.parametrize(
    ("headers", "status"),
    [
        ({}, 401),
        ({"Authorization": "Bearer wrong"}, 401),
        ({"Authorization": "sesame"}, 401),
        ({"Authorization": "Bearer sesame "}, 200),  # what surrounds a field's value is no part of it
        ({"Authorization": "Bearer sésame"}, 401),
        (TOKEN, 200),
    ],
)
def test_the_books_are_told_to_who_has_the_token(
    guarded: World, path: str, headers: dict[str, str], status: int
) -> None:
    """They name tenants and amounts, and the listener may be open to a whole network."""
    answer = guarded.admin.get(path, headers={name: value.strip() for name, value in headers.items()})

    assert status == answer.status_code
    if status == 401:
        assert "unauthorized" == answer.get_json()["error"]
        assert "sesame" not in answer.text


@pytest.mark.parametrize("path", ["/healthz", "/readyz"])
def test_health_is_told_without_a_token(guarded: World, path: str) -> None:
    """No load balancer sends one."""
    assert 200 == guarded.admin.get(path).status_code
    assert 200 == guarded.device.get(path).status_code


@pytest.mark.parametrize("path", ["/metrics", "/ledger"])
def test_without_a_token_the_books_are_open(world: World, path: str) -> None:
    """The settings allow that on loopback alone."""
    assert 200 == world.admin.get(path).status_code


def test_the_metrics_can_be_read_by_prometheus(world: World) -> None:
    """A page that it can't parse is no page at all."""
    world.device.post("/v1/events", data=b'[{"id":"a"},{"id":"b"}]', headers=KEY)
    answer = world.admin.get("/metrics")
    samples = {
        (sample.name, tuple(sorted(sample.labels.items()))): sample.value
        for family in text_string_to_metric_families(answer.text)
        for sample in family.samples
    }

    assert answer.content_type.startswith("text/plain")
    assert 3.0 == samples["collector_batches_delivered_total", (("route", "default"),)]
    assert 2.0 == samples["collector_ledger_events", (("reason", ""), ("state", "accepted"), ("tenant", "dev"))]
    assert 2.0 == samples["collector_ledger_events", (("reason", ""), ("state", "pending"), ("tenant", "dev"))]
    assert 1.0 == samples["collector_ledger_balanced", ()]


def test_pages_that_grow_with_the_tenants_are_made_off_the_hub(world: World) -> None:
    """With ten thousand tenants a scrape held every upload up for a quarter of a second, and came every few seconds."""
    world.admin.get("/metrics")
    world.admin.get("/ledger")

    assert [page.CONTENT_TYPE, "application/json"] == world.offloaded


def test_a_ledger_that_can_not_be_read_is_told_from_off_the_hub_too(
    world: World, monkeypatch: pytest.MonkeyPatch
) -> None:
    """And the next one who asks has his turn."""

    def refuse() -> None:
        raise LedgerError("it does not hold still")

    with monkeypatch.context() as patched:
        patched.setattr(world.spool.books, "totals", refuse)
        told = world.admin.get("/ledger")

    assert (503, b"ledger_unreadable") == (told.status_code, told.data.split(b'"')[9])
    assert 200 == world.admin.get("/ledger").status_code


def test_the_ledger_has_the_contracts_shape(world: World) -> None:
    """Acceptance checks and dashboards add these numbers up."""
    world.device.post("/v1/events", data=b'[{"id":"a"},{"id":"b"}]', headers=KEY)
    ledger = world.admin.get("/ledger").get_json()
    row = {
        "accepted": 2,
        "delivered": 0,
        "rescued": 0,
        "rejected_by_sink": 0,
        "deduplicated": 0,
        "dropped": 0,
        "pending": 2,
        "reasons": {},
    }

    assert {"balanced": True, **row, "tenants": {"dev": row}} == ledger


# -- bodies ------------------------------------------------------------------------------------------------


class Dribble:
    """A stream that gives at most so many bytes at a time, and says how much was asked for and given."""

    def __init__(self, body: bytes, step: int) -> None:
        self._body = body
        self._step = step
        self.given = 0

    def read(self, size: int, /) -> bytes:
        assert size > 0
        part = self._body[self.given : self.given + min(size, self._step)]
        self.given += len(part)
        return part


#: Room enough for every body of these tests.
PLACE = Place(BodyRoom(1 << 30))


@given(size=st.integers(0, 300), step=st.integers(1, 400), limit=st.integers(0, 300), chunked=st.booleans())
def test_a_body_is_read_whole_or_refused(size: int, step: int, limit: int, chunked: bool) -> None:
    """Half a body that passes for a whole one is an upload half lost, answered with 200."""
    body = bytes(n % 251 for n in range(size))
    stream = Dribble(body, step)
    length = None if chunked else size
    if size <= limit:
        assert body == read_body(stream, length, limit, PLACE)
        assert size == stream.given
        return
    with pytest.raises(BadUpload) as refused:
        read_body(stream, length, limit, PLACE)

    assert Reason.TOO_LARGE == refused.value.reason
    assert stream.given <= (limit + 1 if chunked else 0)


@given(size=st.integers(0, 100), missing=st.integers(1, 100), step=st.integers(1, 50))
def test_a_body_shorter_than_its_length_is_refused(size: int, missing: int, step: int) -> None:
    """gunicorn hands it over as if it were whole."""
    with pytest.raises(BadUpload) as refused:
        read_body(Dribble(b"x" * size, step), size + missing, 1000, PLACE)

    assert Reason.MALFORMED == refused.value.reason
    assert f"{size} of the {size + missing} bytes" in refused.value.message


def test_no_more_is_read_than_the_body_has() -> None:
    """What follows on the connection is the next request."""
    stream = Dribble(b"12345GET / HTTP/1.1", 100)

    assert b"12345" == read_body(stream, 5, 100, PLACE)
    assert 5 == stream.given


def test_room_for_bodies_is_given_back_however_the_reading_ends() -> None:
    """Room that is not given back is gone until the worker dies."""
    room = BodyRoom(100_000)
    with room.hold() as first:
        first.grow(100_000)
        held = room.held
        with pytest.raises(BadUpload) as refused, room.hold() as second:
            second.grow(100_000)
        assert held == room.held
        with pytest.raises(ValueError, match="broken"), room.hold() as third:
            third.grow(40_000)
            raise ValueError("broken")
        assert held == room.held

    assert Reason.BACKPRESSURE == refused.value.reason
    assert 0 == room.held


def test_large_bodies_that_stall_do_not_keep_small_uploads_out() -> None:
    """What is announced is not counted, only what arrived, and the first bytes of each body are free."""
    room = BodyRoom(100_000)
    with room.hold() as large:
        large.grow(130_000)
        with room.hold() as small:
            small.grow(30_000)

        assert 100_000 >= room.held


def test_bodies_together_are_bounded(world: World) -> None:
    """Each within its limit, many at once are still more than the memory."""
    answers: list[Any] = []

    class Nested:
        """While the second part of this body is awaited, the next upload comes."""

        def __init__(self, depth: int) -> None:
            self.depth = depth
            self.given = 0

        def read(self, size: int) -> bytes:
            if self.depth and self.given:
                answers.append(send(self.depth - 1))
            self.given += size
            return b"x" * size

    def send(depth: int) -> str:
        environ = EnvironBuilder(path="/v1/events", method="POST", headers=Headers(KEY)).get_environ()
        environ |= {"wsgi.input": Nested(depth), "CONTENT_LENGTH": str(MAX_UPLOAD)}
        return run_wsgi_app(world.device_app, environ)[1][:3]

    answers.append(send(17))

    assert {"400", "503"} == set(answers)
    assert answers.count("503") >= 1
    assert 200 == world.device.post("/v1/events", data=b'{"id":"a"}', headers=KEY).status_code
