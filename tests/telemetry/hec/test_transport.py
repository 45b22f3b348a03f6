"""Requests over real sockets: each byte counted, nothing followed, nothing from the environment, and no secret told."""

from __future__ import annotations

import gzip
import shutil
import socket
import ssl
import struct
import subprocess
import threading
import traceback
import uuid
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest
import requests

from collector.clock import SystemClock
from collector.control.hec.simulated import SimulatedHec
from collector.errors import HecUnanswered, HecUnsent
from collector.telemetry.hec import transport as module
from collector.telemetry.hec.options import HecOptions
from collector.telemetry.hec.transport import RequestsTransport, base_of
from collector.telemetry.hec.wire import Wire
from tests.fakes import FakeClock

TOKEN = "11112222-3333-4444-5555-666677778888"
LINES = b'{"event":{"a":1}}' * 50
SUCCESS = b'{"text":"Success","code":0}'

Act = Callable[[socket.socket], bool]


def answer(body: bytes = SUCCESS, status: str = "200 OK", *headers: str, length: int | None = None) -> Act:
    """Answer, and keep the connection."""
    lines = [f"HTTP/1.1 {status}", f"Content-Length: {len(body) if length is None else length}", *headers, "", ""]

    def act(link: socket.socket) -> bool:
        link.sendall("\r\n".join(lines).encode() + body)
        return True

    return act


def end(link: socket.socket) -> bool:
    return False


def reset(link: socket.socket) -> bool:
    link.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, struct.pack("ii", 1, 0))
    return False


class RawServer:
    """Reads requests as bytes, keeps them, and does what it is told for each."""

    def __init__(self, *acts: Act, certificate: ssl.SSLContext | None = None) -> None:
        self.requests: list[bytes] = []
        self.connections = 0
        self._acts = list(acts)
        self._certificate = certificate
        self._listener = socket.create_server(("127.0.0.1", 0))
        self.port = self._listener.getsockname()[1]
        self.released = threading.Event()
        self._thread = threading.Thread(target=self._run, daemon=True)
        self._thread.start()

    def hold(self, link: socket.socket) -> bool:
        """Say nothing until the test is over."""
        self.released.wait(60)
        return False

    def _run(self) -> None:
        while self._acts:
            try:
                link, _ = self._listener.accept()
            except OSError:
                return
            self.connections += 1
            try:
                if self._certificate is not None:
                    link = self._certificate.wrap_socket(link, server_side=True)
                with link:
                    while self._acts and self._read(link) and self._acts.pop(0)(link):
                        pass
            except OSError:
                continue

    def _read(self, link: socket.socket) -> bool:
        data = b""
        while b"\r\n\r\n" not in data:
            part = link.recv(65536)
            if not part:
                return False
            data += part
        head, _, body = data.partition(b"\r\n\r\n")
        length = next(
            (int(line[15:]) for line in head.split(b"\r\n") if line.lower().startswith(b"content-length:")), 0
        )
        while len(body) < length:
            body += link.recv(65536)
        self.requests.append(head + b"\r\n\r\n" + body)
        return True

    def close(self) -> None:
        self.released.set()
        self._acts.clear()
        # Not close alone: whoever waits in accept() would stay there.
        self._listener.shutdown(socket.SHUT_RDWR)
        self._listener.close()
        self._thread.join(20)


@pytest.fixture(name="serve")
def _serve() -> Iterator[Callable[..., RawServer]]:
    servers: list[RawServer] = []

    def serve(*acts: Act, certificate: ssl.SSLContext | None = None) -> RawServer:
        servers.append(RawServer(*acts, certificate=certificate))
        return servers[-1]

    yield serve
    for server in servers:
        server.close()


Reach = Callable[..., RequestsTransport]


@pytest.fixture(name="reach")
def _reach() -> Iterator[Reach]:
    wires: list[Wire] = []

    def reach(server: RawServer | int | str, clock: FakeClock | None = None, **more: str) -> RequestsTransport:
        wires.append(Wire())
        where = server if isinstance(server, str) else server.port if isinstance(server, RawServer) else server
        url = where if isinstance(where, str) else f"http://127.0.0.1:{where}"
        options = HecOptions(**{"url": url, "token": TOKEN, **more})  # type: ignore[arg-type]  # all of them are text
        return RequestsTransport(options, clock=clock or SystemClock(), wire=wires[-1])

    yield reach
    for wire in wires:
        wire.session.close()


@pytest.fixture(name="free_port")
def _free_port() -> Iterator[int]:
    """A port that is bound and does not listen: whoever comes is refused."""
    with socket.socket() as holder:
        holder.bind(("127.0.0.1", 0))
        yield holder.getsockname()[1]


def headers_of(request: bytes) -> dict[str, str]:
    lines = request.partition(b"\r\n\r\n")[0].decode().split("\r\n")[1:]
    return {name.lower(): value for name, _, value in (line.partition(": ") for line in lines)}


def test_every_byte_of_a_request_is_counted(serve: Callable[..., RawServer], reach: Reach) -> None:
    """A load balancer counts them too, and the two must agree, or loss can't be told from a miscount."""
    server = serve(answer(), answer(b'{"acks":{}}'), answer(b'{"code":17}'), answer())
    transport = reach(server)

    counts = [
        transport.post(LINES)[1], transport.ask_acks(b'{"acks":[0,1]}')[1], transport.ask_health()[1],
        transport.post(b"x")[1],
    ]  # fmt: skip

    assert [len(request) for request in server.requests] == counts
    assert 1 == server.connections


@pytest.mark.parametrize(
    ("path", "expected"),
    [
        ("", "/services/collector/event"),
        ("/", "/services/collector/event"),
        ("/services/collector", "/services/collector/event"),
        ("/services/collector/", "/services/collector/event"),
        ("/services/collector/event", "/services/collector/event"),
        ("/services/collector/event/1.0", "/services/collector/event"),
        ("/proxied/hec", "/proxied/hec/services/collector/event"),
        ("/proxied/services/collector/event?token=x#y", "/proxied/services/collector/event"),
    ],
)
def test_a_url_is_taken_as_people_write_it(
    serve: Callable[..., RawServer], reach: Reach, path: str, expected: str
) -> None:
    """Splunk's own pages show it with and without the path."""
    server = serve(answer(), answer(), answer())
    transport = reach(f"http://127.0.0.1:{server.port}{path}")

    count = transport.post(LINES)[1]
    transport.ask_health()

    assert f"POST {expected} HTTP/1.1".encode() == server.requests[0].split(b"\r\n")[0]
    assert f"GET {expected.removesuffix('event')}health HTTP/1.1".encode() == server.requests[1].split(b"\r\n")[0]
    assert len(server.requests[0]) == count


@pytest.mark.parametrize(
    ("url", "expected"),
    [
        ("http://splunk:80", "splunk"),
        ("http://splunk:8088", "splunk:8088"),
        ("https://splunk:443/x", "splunk"),
        ("https://splunk:80", "splunk:80"),
        ("http://splunk", "splunk"),
        ("http://[::1]:80", "[::1]"),
        ("http://[::1]:8088", "[::1]:8088"),
    ],
)
def test_the_host_is_counted_as_it_is_sent(url: str, expected: str) -> None:
    """http.client leaves the usual port out, and has the last word on this header."""
    prepared = requests.Request("GET", url + "/x").prepare()
    prepared.headers.clear()

    assert len(f"GET {prepared.path_url} HTTP/1.1\r\nHost: {expected}\r\n\r\n") == module._size(prepared, b"")


def test_a_request_says_who_sends_it_and_what_it_holds(serve: Callable[..., RawServer], reach: Reach) -> None:
    """The token, one channel for all requests of a process, and gzip that anybody can read."""
    server = serve(answer(), answer(), answer())
    transport, other = reach(server), reach(server)
    transport.post(LINES)
    transport.ask_acks(b'{"acks":[0]}')
    transport._session.close()
    other.post(LINES)
    first, acks, second = server.requests

    heads = [headers_of(request) for request in (first, acks, second)]
    channel = heads[0]["x-splunk-request-channel"]
    assert {f"Splunk {TOKEN}"} == {head["authorization"] for head in heads}
    assert "gzip" == heads[0]["content-encoding"]
    assert "content-encoding" not in heads[1]
    assert LINES == gzip.decompress(first.partition(b"\r\n\r\n")[2])
    assert len(first.partition(b"\r\n\r\n")[2]) < len(LINES) // 3
    assert str(uuid.UUID(channel)) == channel == heads[1]["x-splunk-request-channel"]
    assert channel != heads[2]["x-splunk-request-channel"]
    assert f"/ack?channel={channel} HTTP".encode() in acks
    assert b'{"acks":[0]}' == acks.partition(b"\r\n\r\n")[2]


def test_an_answer_comes_as_it_was(serve: Callable[..., RawServer], reach: Reach) -> None:
    """Status, body and what it asks for are HEC's; what they mean is not decided here."""
    server = serve(answer(b'{"code":9}', "503 Service Unavailable", "Retry-After: 7"))

    got, _ = reach(server).post(LINES)

    assert (503, b'{"code":9}', 7.0) == (got.status, got.body, got.retry_after_s)


@pytest.mark.parametrize(
    ("text", "expected"),
    [
        ("0", 0.0),
        ("120", 120.0),
        ("999999999", 999_999_999.0),
        ("1" * 10, None),
        ("-1", None),
        ("1.5", None),
        ("1e9", None),
        ("inf", None),
        ("", None),
        ("soon", None),
        ("Wed, 21 Oct 2026 07:28:00 GMT", None),
    ],
)
def test_seconds_to_wait_are_a_plain_number_or_none(
    serve: Callable[..., RawServer], reach: Reach, text: str, expected: float | None
) -> None:
    """All else is of a clock or a mind that is not ours, and backoff does without."""
    server = serve(answer(b"", "429 Too Many Requests", f"Retry-After: {text}"))

    assert expected == reach(server).post(LINES)[0].retry_after_s


@pytest.mark.parametrize("status", [301, 302, 303, 307, 308])
def test_a_redirection_is_not_followed(serve: Callable[..., RawServer], reach: Reach, status: int) -> None:
    """A POST that is followed becomes a GET without its lines, and the token goes to whoever was named."""
    other = serve(answer())
    server = serve(answer(b"", f"{status} Moved", f"Location: http://127.0.0.1:{other.port}/x"))

    assert status == reach(server).post(LINES)[0].status
    assert [] == other.requests


def test_nothing_comes_from_the_environment(
    serve: Callable[..., RawServer], reach: Reach, monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    """A .netrc would replace the token, and a proxy would read the lines."""
    proxy = serve(answer())
    server = serve(answer())
    (tmp_path / "netrc").write_text("machine 127.0.0.1 login a password b\n")
    (tmp_path / "netrc").chmod(0o600)
    monkeypatch.setenv("NETRC", str(tmp_path / "netrc"))
    for name in ("http_proxy", "HTTP_PROXY", "all_proxy", "ALL_PROXY"):
        monkeypatch.setenv(name, f"http://127.0.0.1:{proxy.port}")
    monkeypatch.delenv("no_proxy", raising=False)
    monkeypatch.delenv("NO_PROXY", raising=False)

    reach(server).post(LINES)

    assert f"Splunk {TOKEN}" == headers_of(server.requests[0])["authorization"]
    assert [] == proxy.requests


def test_a_name_and_password_in_the_url_do_not_take_the_tokens_place(
    serve: Callable[..., RawServer], reach: Reach
) -> None:
    """requests makes Basic of them, and HEC says that the token is wrong."""
    server = serve(answer())

    count = reach(f"http://user:pass@127.0.0.1:{server.port}").post(LINES)[1]

    assert f"Splunk {TOKEN}" == headers_of(server.requests[0])["authorization"]
    assert len(server.requests[0]) == count
    assert "http://h:1/" == base_of("http://user:pass@h:1")


# -- what goes wrong


def trouble(transport: RequestsTransport) -> HecUnsent | HecUnanswered:
    with pytest.raises((HecUnsent, HecUnanswered)) as caught:
        transport.post(LINES)
    assert isinstance(caught.value, HecUnsent | HecUnanswered)
    return caught.value


def test_a_refused_connection_has_sent_nothing(free_port: int, reach: Reach) -> None:
    """Sending again can't double anything, and the count of possible duplicates stays true."""
    error = trouble(reach(free_port))

    assert isinstance(error, HecUnsent)
    assert "Connection refused" == str(error)


def test_a_name_that_nobody_knows_has_sent_nothing(reach: Reach) -> None:
    """A label over 63 letters is refused before any question leaves the machine."""
    assert isinstance(trouble(reach(f"http://{'x' * 64}.invalid")), HecUnsent)


@pytest.mark.parametrize("token", ["two\nlines", "naïve\u20ac"])
def test_a_token_that_no_header_holds_has_sent_nothing_and_is_not_told(
    serve: Callable[..., RawServer], reach: Reach, token: str
) -> None:
    """The libraries quote it in their errors."""
    server = serve(answer())
    error = trouble(reach(server, token=token))

    assert isinstance(error, HecUnsent)
    assert token.strip() not in "".join(traceback.format_exception(error))
    assert error.__context__ is None
    assert [] == server.requests


@pytest.mark.parametrize("url", ["ftp://127.0.0.1/", "http://", "nonsense", "http://[::1", "http://127.0.0.1:99999"])
def test_a_url_that_leads_nowhere_has_sent_nothing(reach: Reach, url: str) -> None:
    """It is for the settings to refuse; here it must only be no end of the sender."""
    try:
        transport = reach(url)
    except ValueError:
        return  # it has no form of a URL at all
    assert isinstance(trouble(transport), HecUnsent)


@pytest.mark.parametrize("act", [end, reset])
def test_a_connection_that_ends_without_an_answer_leaves_a_doubt(
    serve: Callable[..., RawServer], reach: Reach, act: Act
) -> None:
    """Whether HEC has indexed what it read, nobody knows."""
    server = serve(act, answer())
    transport = reach(server)
    error = trouble(transport)

    assert isinstance(error, HecUnanswered)
    assert len(server.requests[0]) == error.wire_bytes
    # And the next request has a connection of its own.
    assert 200 == transport.post(LINES)[0].status
    assert 2 == server.connections


def test_an_answer_that_breaks_off_leaves_a_doubt(serve: Callable[..., RawServer], reach: Reach) -> None:
    """Half of a success is none."""

    def cut(link: socket.socket) -> bool:
        answer(SUCCESS[:-5], length=len(SUCCESS))(link)
        return False

    assert isinstance(trouble(reach(serve(cut))), HecUnanswered)


@pytest.mark.parametrize("junk", [b"\x16\x03\x01 what\r\n\r\n", b"HTTP/1.1 abc\r\n\r\n", b"SSH-2.0-x\r\n", b"\r\n\r\n"])
def test_an_answer_that_is_no_http_leaves_a_doubt(serve: Callable[..., RawServer], reach: Reach, junk: bytes) -> None:
    """The lines went to somebody."""

    def babble(link: socket.socket) -> bool:
        link.sendall(junk)
        return False

    assert isinstance(trouble(reach(serve(babble))), HecUnanswered)


def test_a_silent_hec_is_given_up(
    serve: Callable[..., RawServer], reach: Reach, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The next lines wait behind it."""
    monkeypatch.setattr(module, "_READ_S", 0.05)
    server = serve(answer(), answer())
    server._acts[0] = server.hold
    error = trouble(reach(server))

    assert isinstance(error, HecUnanswered)
    assert len(server.requests[0]) == error.wire_bytes


def test_a_host_that_takes_no_connection_has_sent_nothing(reach: Reach, monkeypatch: pytest.MonkeyPatch) -> None:
    """A black hole before the handshake: the kernel's queue is full, and nobody takes from it."""
    monkeypatch.setattr(module, "_CONNECT_S", 0.1)
    with socket.socket() as listener:
        listener.bind(("127.0.0.1", 0))
        listener.listen(0)
        where = listener.getsockname()
        waiting = [socket.socket() for _ in range(4)]
        for one in waiting:
            one.setblocking(False)
            one.connect_ex(where)
        error = trouble(reach(where[1]))
        for one in waiting:
            one.close()

    assert isinstance(error, HecUnsent)


def test_an_answer_that_drips_is_cut_short(serve: Callable[..., RawServer], reach: Reach) -> None:
    """One byte each few seconds would hold the only connection for ever; what came so far is no success."""

    class Passing(FakeClock):
        def monotonic(self) -> float:
            self.advance(6)
            return super().monotonic()

    server = serve(answer(), answer())

    def drip(link: socket.socket) -> bool:
        answer(b"{", length=1000)(link)
        return server.hold(link)

    server._acts[0] = drip
    got, _ = reach(server, Passing()).post(LINES)

    assert (200, b"{") == (got.status, got.body)


def test_a_large_answer_is_read_in_part(serve: Callable[..., RawServer], reach: Reach) -> None:
    """Whoever answers with a gigabyte is no HEC, and has no claim to our memory."""
    server = serve(answer(b"x" * 3_000_000), answer())
    transport = reach(server)

    assert 64 << 10 <= len(transport.post(LINES)[0].body) <= 128 << 10
    assert 200 == transport.post(LINES)[0].status


def test_when_the_end_is_near_nothing_waits_for_longer(
    serve: Callable[..., RawServer], reach: Reach, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A stop has its deadline, and a request that is sent within it must not outlive it."""
    waits: list[tuple[float, float]] = []
    send = requests.Session.send

    def watched(self: requests.Session, request: requests.PreparedRequest, **more: object) -> requests.Response:
        waits.append(more["timeout"])  # type: ignore[arg-type]  # it is a pair
        return send(self, request, **more)

    monkeypatch.setattr(requests.Session, "send", watched)
    clock = FakeClock()
    transport = reach(serve(answer(), answer(), answer()), clock)

    transport.post(LINES)
    transport.end_s = clock.monotonic() + 0.5
    transport.post(LINES)
    clock.advance(5)
    transport.post(LINES)

    assert [(3.0, 10.0), (0.5, 0.5), (0.01, 0.01)] == waits


def test_a_connection_that_was_idle_is_not_used_again(serve: Callable[..., RawServer], reach: Reach) -> None:
    """A busy Splunk closes it after twelve seconds, and who meets that can't tell whether the lines arrived."""
    clock = FakeClock()
    server = serve(answer(), answer(), answer())
    transport = reach(server, clock)

    transport.post(LINES)
    clock.advance(8)
    transport.post(LINES)
    assert 1 == server.connections

    clock.advance(8.5)
    transport.post(LINES)
    assert 2 == server.connections


def test_a_connection_that_hec_has_closed_is_replaced(reach: Reach) -> None:
    """When the end of it is already here, nobody needs to be in doubt."""
    with SimulatedHec() as hec:
        transport = reach(hec.url, token=hec.token)
        transport.post(LINES)
        hec.hang_up()

        assert SUCCESS == transport.post(LINES)[0].body.replace(b", ", b",").replace(b": ", b":")
        assert 100 == hec.books().indexed


def test_no_error_tells_the_token_or_the_url(serve: Callable[..., RawServer], reach: Reach, free_port: int) -> None:
    """Causes stand on log lines, and those go to whoever reads logs."""
    errors = [trouble(reach(free_port)), trouble(reach(serve(reset))), trouble(reach(serve(end)))]
    options = HecOptions(url="http://127.0.0.1:1", token=TOKEN)

    for error in errors:
        text = "".join(traceback.format_exception(error)) + repr(error)
        assert TOKEN not in text
        assert "services/collector" not in text
    assert TOKEN not in repr(options)
    assert TOKEN not in repr(reach(free_port)) + str(vars(reach(free_port))["_base"])


# -- TLS


@pytest.fixture(name="certificate", scope="module")
def _certificate(tmp_path_factory: pytest.TempPathFactory) -> tuple[Path, ssl.SSLContext]:
    if shutil.which("openssl") is None:
        pytest.skip("there is no openssl to make a certificate with; on Debian, install openssl")
    folder = tmp_path_factory.mktemp("certificate")
    subprocess.run(
        ["openssl", "req", "-x509", "-newkey", "rsa:2048", "-nodes", "-days", "2", "-subj", "/CN=127.0.0.1",
         "-addext", "subjectAltName=IP:127.0.0.1", "-keyout", folder / "key.pem", "-out", folder / "cert.pem"],
        check=True, capture_output=True,
    )  # fmt: skip
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
    context.load_cert_chain(folder / "cert.pem", folder / "key.pem")
    return folder / "cert.pem", context


def test_a_certificate_of_ones_own_is_believed_when_it_is_named(
    certificate: tuple[Path, ssl.SSLContext], serve: Callable[..., RawServer], reach: Reach
) -> None:
    """Most Splunks have one that nobody else has signed."""
    file, context = certificate
    server = serve(answer(), certificate=context)

    got, count = reach(f"https://127.0.0.1:{server.port}", ca_file=str(file)).post(LINES)

    assert (200, len(server.requests[0])) == (got.status, count)


def test_a_wrong_certificate_has_sent_nothing(
    certificate: tuple[Path, ssl.SSLContext], serve: Callable[..., RawServer], reach: Reach,
    monkeypatch: pytest.MonkeyPatch,
) -> None:  # fmt: skip
    """The token is for Splunk alone, and a bundle named by the environment is not ours to believe."""
    file, context = certificate
    monkeypatch.setenv("REQUESTS_CA_BUNDLE", str(file))
    server = serve(answer(), answer(), certificate=context)

    error = trouble(reach(f"https://127.0.0.1:{server.port}"))
    other_name = trouble(reach(f"https://localhost:{server.port}", ca_file=str(file)))

    assert isinstance(error, HecUnsent)
    assert isinstance(other_name, HecUnsent)
    # And not for whatever else may be wrong.
    assert ["certificate" in str(one).lower() for one in (error, other_name)] == [True, True], (error, other_name)
    assert [] == server.requests


def test_tls_to_one_who_speaks_none_has_sent_nothing(serve: Callable[..., RawServer], reach: Reach) -> None:
    """A handshake that fails, however, comes before the first line."""
    with socket.create_server(("127.0.0.1", 0)) as listener:

        def answer_plainly() -> None:
            link, _ = listener.accept()
            with link:
                link.recv(65536)
                link.sendall(b"HTTP/1.1 400 Bad Request\r\n\r\n")

        thread = threading.Thread(target=answer_plainly)
        thread.start()
        error = trouble(reach(f"https://127.0.0.1:{listener.getsockname()[1]}"))
        thread.join()

    assert isinstance(error, HecUnsent)


def test_a_ca_file_that_is_not_there_has_sent_nothing(reach: Reach, free_port: int, tmp_path: Path) -> None:
    """It may be mounted later; lines wait for it as for anything else."""
    assert isinstance(trouble(reach(f"https://127.0.0.1:{free_port}", ca_file=str(tmp_path / "none.pem"))), HecUnsent)
