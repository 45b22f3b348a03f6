"""
A first look at a HEC, before any load: is there one, does it take the token, and how long does an answer take.
"""

from __future__ import annotations

import http.client
import math
import ssl
from collections.abc import Callable
from statistics import median
from urllib.parse import urlsplit

import msgspec
from isal import igzip

from collector.clock import Clock
from collector.control.hec.relay import connection_to
from collector.errors import TuneError

_TIMEOUT_S = 10.0
_ROUNDS = 5
_MOST_ANSWER_BYTES = 1 << 20
_EVENTS, _HEALTH = "/services/collector/event", "/services/collector/health"
#: The sender's own level.
_GZIP_LEVEL = 1


class Look(msgspec.Struct, frozen=True, kw_only=True):
    """
    What was seen, in seconds: the round trip of a small request, and of a whole batch with the server's work on it.

    `gzip_s` is what compressing that batch takes here; `sent_lines` are those that are in HEC now.
    """

    round_trip_s: float
    answer_s: float
    gzip_s: float
    batch_bytes: int
    sent_lines: int


class _Said(msgspec.Struct):
    text: str = ""
    code: int = -1


def checked_url(url: str) -> str:
    """Return the URL of a HEC without a path of HEC's own; raises `TuneError`."""
    to = urlsplit(url)
    try:
        port = to.port
    except ValueError:
        port = 0
    if to.scheme not in {"http", "https"} or not to.hostname or port == 0 or to.query or to.fragment:
        raise TuneError(f"{url!r} is no URL of a HEC; write https://host:8088")
    if to.username or to.password:
        raise TuneError("the URL holds a user name; give the token with --token-file instead")
    path = to.path.rstrip("/")
    for known in ("/services/collector/event/1.0", _EVENTS, "/services/collector"):
        path = path.removesuffix(known)
    return f"{to.scheme}://{to.netloc}{path}"


def look(url: str, token: str, envelopes: list[bytes], *, clock: Clock, ca_file: str | None = None) -> Look:
    """
    Ask HEC how it is, then send it a batch a few times; raises `TuneError` with what HEC said.

    `url` is as `checked_url` returns it; the batch is so many `envelopes`, which are in HEC afterwards.
    """
    to = urlsplit(url)
    try:
        context = ssl.create_default_context(cafile=ca_file) if to.scheme == "https" else None
    except (OSError, ssl.SSLError) as error:
        raise TuneError(f"{ca_file} holds no certificates that can be read: {error}") from error
    link = connection_to(to.scheme, to.netloc, context, timeout_s=_TIMEOUT_S)
    body = b"".join(envelopes)
    started_s = clock.monotonic()
    packed = igzip.compress(body, _GZIP_LEVEL, mtime=0)
    gzip_s = clock.monotonic() - started_s
    headers = {"Authorization": f"Splunk {token}", "X-Splunk-Request-Channel": _CHANNEL}

    def health() -> None:
        status, said = _ask(link, "GET", f"{to.path}{_HEALTH}", b"", {}, at=url)
        if status != 200 and said.code < 0:
            raise TuneError(
                f"{url} answered {status} to {_HEALTH} and not as a HEC does; is it the port of HEC (8088)?"
            )
        if status != 200:
            raise TuneError(f"HEC at {url} is not well: it answered {status}, code {said.code}: {said.text}")

    def post(data: bytes, more: dict[str, str]) -> None:
        status, said = _ask(link, "POST", f"{to.path}{_EVENTS}", data, {**headers, **more}, at=url)
        if said.code < 0:
            raise TuneError(
                f"{url} answered {status} to {_EVENTS} and not as a HEC does; is it the port of HEC (8088)?"
            )
        if status != 200 or said.code not in {0, 24, 25}:
            raise TuneError(f"HEC at {url} refuses: it answered {status}, code {said.code}: {said.text}{_advice(said)}")

    try:
        health()
        post(envelopes[0], {})
        trips = [_timed(health, clock) for _ in range(_ROUNDS)]
        answers = [_timed(lambda: post(packed, {"Content-Encoding": "gzip"}), clock) for _ in range(_ROUNDS)]
    finally:
        link.close()
    return Look(
        round_trip_s=median(trips), answer_s=median(answers), gzip_s=gzip_s, batch_bytes=len(body),
        sent_lines=1 + _ROUNDS * len(envelopes),
    )  # fmt: skip


#: A channel, for a token that uses acks asks for one; of no meaning to others.
_CHANNEL = "5f0c7a52-6f1b-4d0e-9a53-636f6c6c6563"


def _ask(
    link: http.client.HTTPConnection, method: str, path: str, body: bytes, headers: dict[str, str], *, at: str
) -> tuple[int, _Said]:
    try:
        link.request(method, path, body=body or None, headers=headers)
        answer = link.getresponse()
        data = answer.read(_MOST_ANSWER_BYTES)
    except ssl.SSLCertVerificationError as error:
        raise TuneError(
            f"{at} has a certificate that is not trusted: {error.verify_message}; name its CA with --ca-file"
        ) from error
    except (OSError, http.client.HTTPException) as error:
        raise TuneError(f"there is no HEC at {at}: {error or type(error).__name__}") from error
    try:
        said = msgspec.json.decode(data, type=_Said)
    except (msgspec.MsgspecError, UnicodeDecodeError):
        said = _Said()
    return answer.status, said


def _advice(said: _Said) -> str:
    if said.code in {1, 2, 3, 4, 21, 22}:
        return ". Give a token of this HEC that is enabled, with --token-file"
    if said.code == 7:
        return ". The token's default index is not among those it may write to"
    return ""


def _timed(do: Callable[[], None], clock: Clock) -> float:
    started_s = clock.monotonic()
    do()
    return max(clock.monotonic() - started_s, math.ulp(1.0))
