"""
Requests to HEC, with `requests`: one connection, no retries of its own, no redirects, nothing from the environment.
"""

from __future__ import annotations

import uuid
from collections.abc import Iterator, Mapping
from urllib.parse import urlsplit, urlunsplit

import requests
import urllib3
from isal import igzip

from collector.clock import Clock
from collector.errors import HecUnanswered, HecUnsent
from collector.telemetry.hec.answers import MAX_ANSWER_BYTES, Answer
from collector.telemetry.hec.options import HecOptions
from collector.telemetry.hec.wire import Wire

#: Seconds until a connection is there, and until the next part of an answer. Guesses: a HEC that takes longer is as
#: good as away, and the next lines wait behind it.
_CONNECT_S, _READ_S = 3.0, 10.0
#: The whole of an answer's body has as long, in seconds: one that drips must not hold the only connection.
_BODY_S = 10.0
#: None of these is shorter than that, however near the end is, in seconds: 0 would mean something else. A choice.
_LEAST_WAIT_S = 0.01
#: A connection that was idle for so long is not used again: a busy Splunk closes it after 12 s, and a request that
#: meets the end of its connection can't tell whether it arrived.
_IDLE_S = 8.0
#: The lowest level that compresses. 250 KB of lines take 0.14 ms, to a fifteenth (measured).
_GZIP_LEVEL = 1
_USUAL_PORTS = {"http": ":80", "https": ":443"}
_EVENTS, _ACKS, _HEALTH = "services/collector/event", "services/collector/ack", "services/collector/health"
_PATHS = ("/services/collector/event/1.0", "/services/collector/event", "/services/collector")


def base_of(url: str) -> str:
    """Return a URL without the path that HEC's own requests have, if it came with one."""
    scheme, netloc, path, *_ = urlsplit(url)
    path = path.rstrip("/")
    for known in _PATHS:
        path = path.removesuffix(known)
    # A name and password in it would take the token's place.
    return urlunsplit((scheme, netloc.rpartition("@")[2], f"{path}/", "", ""))


class RequestsTransport:
    """One connection to HEC."""

    def __init__(self, options: HecOptions, *, clock: Clock, wire: Wire) -> None:
        self._clock = clock
        self._base = base_of(options.url)
        self._verify: bool | str = options.ca_file or True
        # Of each process its own: HEC counts confirmations by it, and a token without them does not look at it.
        self._channel = str(uuid.uuid4())
        self._wire = wire
        self._session = wire.session
        #: When all must be over, on the monotonic clock: nothing waits for longer than until then.
        self.end_s: float | None = None
        self._used_at_s = clock.monotonic()
        self._headers = {"Authorization": f"Splunk {options.token}", "X-Splunk-Request-Channel": self._channel}

    def post(self, lines: bytes) -> tuple[Answer, int]:
        """Send lines in their envelopes; return the answer, and how many bytes went."""
        body = igzip.compress(lines, _GZIP_LEVEL, mtime=0)
        return self._ask("POST", _EVENTS, body, {**self._headers, "Content-Encoding": "gzip"})

    def ask_acks(self, question: bytes) -> tuple[Answer, int]:
        """Ask what is confirmed; return the answer, and how many bytes went."""
        return self._ask("POST", f"{_ACKS}?channel={self._channel}", question, self._headers)

    def ask_health(self) -> tuple[Answer, int]:
        """Ask how HEC is; return the answer, and how many bytes went."""
        return self._ask("GET", _HEALTH, b"", self._headers)

    def _ask(self, method: str, path: str, body: bytes, headers: dict[str, str]) -> tuple[Answer, int]:
        if self._clock.monotonic() - self._used_at_s > _IDLE_S:
            self._session.close()
        self._wire.has_left = False
        wire_bytes = 0
        try:
            request = self._session.prepare_request(
                requests.Request(method, self._base + path, data=body or None, headers=headers)
            )
            wire_bytes = _size(request, body)
            response = self._session.send(
                request, stream=True, verify=self._verify, allow_redirects=False,
                timeout=(self._bounded(_CONNECT_S), self._bounded(_READ_S)),
            )  # fmt: skip
            try:
                return Answer(response.status_code, self._read(response), _seconds(response.headers)), wire_bytes
            finally:
                response.close()
        except Exception as error:  # noqa: BLE001 -- whatever it is, it is an end of this request and not of the sender
            cause = _cause(error)
        finally:
            self._used_at_s = self._clock.monotonic()
        # Out here, so that the error does not carry those of the libraries, which quote the URL and headers.
        if self._wire.has_left:
            raise HecUnanswered(cause, wire_bytes=wire_bytes)
        raise HecUnsent(cause)

    def _bounded(self, wait_s: float) -> float:
        if self.end_s is None:
            return wait_s
        return min(wait_s, max(_LEAST_WAIT_S, self.end_s - self._clock.monotonic()))

    def _read(self, response: requests.Response) -> bytes:
        body = b""
        until_s = self._clock.monotonic() + self._bounded(_BODY_S)
        while len(body) < MAX_ANSWER_BYTES and self._clock.monotonic() < until_s:
            part = response.raw.read1(MAX_ANSWER_BYTES, decode_content=True)
            if not part:
                break
            body += part
        return body


def _size(request: requests.PreparedRequest, body: bytes) -> int:
    """Count the bytes of a request: its first line, its head with the Host that http.client adds, its body."""
    url = urlsplit(request.url or "")
    # The port that a scheme has anyway is left out of Host.
    netloc = url.netloc.removesuffix(_USUAL_PORTS.get(url.scheme, ""))
    host = len(netloc) + len("Host: \r\n")
    first = len(request.method or "") + len(request.path_url) + len("  HTTP/1.1\r\n")
    head = sum(len(name) + len(value) + len(": \r\n") for name, value in request.headers.items())
    return first + host + head + len("\r\n") + len(body)


def _seconds(headers: Mapping[str, str]) -> float | None:
    """Read Retry-After if it is a number of seconds; a date is of a clock that may go otherwise than ours."""
    text = headers.get("Retry-After", "")
    return float(text) if text.isascii() and text.isdigit() and len(text) < 10 else None


def _chain(error: BaseException) -> Iterator[BaseException]:
    """Yield an error and what it was made of: urllib3 hides that in arguments and reasons."""
    seen: set[int] = set()
    open_ends = [error]
    while open_ends:
        one = open_ends.pop(0)
        if id(one) in seen:
            continue
        seen.add(id(one))
        yield one
        more = (one.__cause__, one.__context__, getattr(one, "reason", None), *getattr(one, "args", ()))
        open_ends += [part for part in more if isinstance(part, BaseException)]


_VAGUE = (requests.exceptions.RequestException, urllib3.exceptions.HTTPError)


def _cause(error: BaseException) -> str:
    """Say what went wrong, in the words of the system where it has some: those of the libraries hold the whole URL."""
    for one in _chain(error):
        if isinstance(one, OSError) and not isinstance(one, _VAGUE) and one.strerror:
            return one.strerror
    return type(error).__name__
