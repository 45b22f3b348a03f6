"""
What of AWS a role needs: STS, which hands out sessions, and a bucket that sees who writes. Both as a test has them.
"""

from __future__ import annotations

import re
import threading
from datetime import UTC, datetime, timedelta
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from urllib.parse import parse_qsl

#: The account of the default chain's credentials, and of every role.
OWN_ACCOUNT, ROLE_ACCOUNT = "123456789012", "210987654321"
_SIGNED_BY = re.compile(r"Credential=([^/]+)/")


class Sts:
    """
    One that runs on `port`. A context manager.

    `sessions` are the questions for a session, and `writers` the keys that objects were written with, in order; the
    n-th session has the key `SESSION-n`. A session lasts for `lasts_s`; `refusal` is a code and a message in the place
    of the next ones. A write with a key of `over` is told that it has expired. Questions wait while `gate` is closed.
    """

    def __init__(self) -> None:
        self.sessions: list[dict[str, str]] = []
        self.writers: list[str] = []
        self.lasts_s = 3600.0
        self.refusal: tuple[str, str] | None = None
        self.body: str | None = None
        self.over: set[str] = set()
        self.gate = threading.Event()
        self.gate.set()
        told = self

        class Handler(BaseHTTPRequestHandler):
            protocol_version = "HTTP/1.1"

            def do_POST(self) -> None:
                asked = dict(parse_qsl(self._read().decode()))
                if asked["Action"] == "GetCallerIdentity":
                    account = ROLE_ACCOUNT if self._key.startswith("SESSION") else OWN_ACCOUNT
                    told_of = f"<GetCallerIdentityResult><Account>{account}</Account></GetCallerIdentityResult>"
                    self._say(200, f"<R>{told_of}</R>")
                    return
                told.sessions.append(asked)
                number = len(told.sessions)
                told.gate.wait()
                if told.refusal:
                    code, message = told.refusal
                    self._say(403, f"<R><Error><Code>{code}</Code><Message>{message}</Message></Error></R>")
                else:
                    self._say(200, told.body if told.body is not None else told.session(number))

            def do_PUT(self) -> None:
                self._read()
                told.writers.append(self._key)
                if self._key in told.over:
                    self._say(400, "<Error><Code>ExpiredToken</Code><Message>It is over.</Message></Error>")
                else:
                    self._say(200, "")

            @property
            def _key(self) -> str:
                found = _SIGNED_BY.search(self.headers["Authorization"])
                return found[1] if found else ""

            def _read(self) -> bytes:
                return self.rfile.read(int(self.headers.get("Content-Length", 0)))

            def _say(self, status: int, text: str) -> None:
                self.send_response(status)
                self.send_header("Content-Length", str(len(text)))
                self.send_header("ETag", '"etag"')
                self.end_headers()
                self.wfile.write(text.encode())

            def log_message(self, *_: object) -> None:
                """Say nothing."""

        self._server = ThreadingHTTPServer(("127.0.0.1", 0), Handler)
        self._server.daemon_threads = True
        self.port = int(self._server.server_address[1])
        self._thread = threading.Thread(target=self._server.serve_forever, kwargs={"poll_interval": 0.01})

    def session(self, number: int) -> str:
        """Write the answer that gives a session."""
        ends = datetime.now(UTC) + timedelta(seconds=self.lasts_s)
        return (
            f"<R><AssumeRoleResult><Credentials><AccessKeyId>SESSION-{number}</AccessKeyId><SecretAccessKey>secret"
            f"</SecretAccessKey><SessionToken>token</SessionToken><Expiration>{ends:%Y-%m-%dT%H:%M:%SZ}</Expiration>"
            "</Credentials></AssumeRoleResult></R>"
        )

    def __enter__(self) -> Sts:
        self._thread.start()
        return self

    def __exit__(self, *exc: object) -> None:
        self.gate.set()
        self._server.shutdown()
        self._thread.join()
        self._server.server_close()
