"""
What the hot door makes of a head, held against what gunicorn's parser makes of it, in one process.

No sockets and no body: some thousand heads a second. It judges the hot door's own reading alone; that the answers are
the same, the two servers show.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

from gunicorn import http
from gunicorn.config import Config
from gunicorn.http import wsgi

from collector.outcome import ADMITTED
from collector.protocols.base import Protocol, Reply, Request
from collector.receiver import app as flask_door
from collector.receiver import hot as hot_door
from collector.receiver.body import BodyRoom
from collector.receiver.heads import has_odd_lines, is_smuggling
from collector.settings import Settings
from collector.settings.gunicorn import gunicorn_settings
from tests.doors.pair import MAX_HEAD, MAX_UPLOAD

_PEER = ("192.0.2.1", 4711)


class _Wire:
    """What gunicorn asks of a socket."""

    def getsockname(self) -> tuple[str, int]:
        return "127.0.0.1", 8080

    def sendall(self, data: bytes) -> None:
        raise AssertionError(f"it sent {data!r}")


class _Gate:
    def open(self) -> Any:
        return ADMITTED


class _Intake:
    gate = _Gate()


class Heads:
    """Both readers, as one worker has them."""

    def __init__(self, *, trusted_hops: int = 1) -> None:
        self._hops = trusted_hops
        self._protocols = dict(flask_door.INGEST)
        self._cfg = Config()
        for name, value in gunicorn_settings(Settings(max_header_bytes=MAX_HEAD)).items():
            self._cfg.set(name, value)
        self._limits = hot_door.head_limits(self._cfg)
        intake: Any = _Intake()
        self._hot = hot_door.HotDoor(
            intake,
            self._protocols,
            room=BodyRoom(MAX_UPLOAD),
            max_upload_bytes=MAX_UPLOAD,
            trusted_hops=trusted_hops,
        )
        # `serve` hands on what it read to `take`: there it is caught.
        self._taken: list[tuple[Protocol, Request]] = []
        vars(hot_door)["take"] = self._take

    def _take(self, _: object, protocol: Protocol, request: Request) -> Callable[[], Reply]:
        self._taken.append((protocol, request))
        return lambda: Reply(200, (), b"")

    def differ(self, data: bytes) -> str | None:
        """Say how the two readings of a head part; None if they do not, or if the hot door does not take it."""
        end = data.find(b"\r\n\r\n", 0, MAX_HEAD + 4)
        if end <= 0 or has_odd_lines(data, end):
            return None
        try:
            hot = self._hot.look(data, self._limits)
        except Exception as error:  # noqa: BLE001 - whatever it is, no answer comes of it
            return f"the hot door fails: {error!r}"
        if hot is None:
            return None
        if is_smuggling(data, end):
            return "the hot door takes what is refused before gunicorn's parser"
        self._taken.clear()
        self._hot.serve(hot, b"", _PEER[0])
        ((protocol, taken),) = self._taken
        try:
            request = next(http.get_parser(self._cfg, [data[: end + 4]], _PEER))
            response, environ = wsgi.create(request, _Wire(), _PEER, ("127.0.0.1", 8080), self._cfg)
        except Exception as error:  # noqa: BLE001 - whatever it is, the other door refuses here
            return f"the hot door takes what gunicorn refuses: {error!r}"
        response.start_response("200 OK", [])
        if environ["PATH_INFO"] not in self._protocols or environ["REQUEST_METHOD"] != "POST":
            return f"the hot door takes what is no upload: {environ['REQUEST_METHOD']} {environ['PATH_INFO']}"
        wanted = flask_door._request(environ, b"", self._hops)
        read = {
            "path": (taken.path, wanted.path),
            "method": (taken.method, wanted.method),
            "query": (taken.query, wanted.query),
            "remote_ip": (taken.remote_ip, wanted.remote_ip),
            "headers": (_without_blanks(taken.headers), _without_blanks(wanted.headers)),
            "protocol": (protocol, self._protocols[wanted.path]),
            "length": (hot.length, int(environ.get("CONTENT_LENGTH") or 0)),
            "closes": (hot.closes, response.should_close()),
            "origin": (hot.fields.get("origin", ""), environ.get("HTTP_ORIGIN", "")),
        }
        parted = [f"{name}: {one!r}, not {other!r}" for name, (one, other) in read.items() if one != other]
        return "; ".join(parted) or None


def _without_blanks(headers: Any) -> dict[str, str]:
    """Leave out what is there and says nothing: the environ has no place for two of these."""
    return {name: value for name, value in headers.items() if value}
