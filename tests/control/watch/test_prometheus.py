"""What the tasks sent, as a Prometheus server tells it: over a socket, from a server that is sometimes none."""

from __future__ import annotations

import json
import threading
from collections.abc import Iterator
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from typing import Any
from urllib.parse import parse_qs

import pytest

from collector.control.watch.prometheus import QUERY, read
from collector.control.watch.series import DAY
from collector.errors import CannotLook

END = 29_500_007


class Prometheus(BaseHTTPRequestHandler):
    """A server with one series: each window of five minutes has as many bytes as its number."""

    asked: list[dict[str, str]]
    said: Any
    status: int

    def do_POST(self) -> None:
        """Answer as `query_range` does, or as it was told to."""
        kind = type(self)
        form = parse_qs(self.rfile.read(int(self.headers["Content-Length"])).decode())
        asked = {name: values[0] for name, values in form.items()}
        kind.asked.append({**asked, "path": self.path, "authorization": self.headers.get("Authorization", "")})
        said = kind.said
        if said is None:
            times = range(int(asked["start"]), int(asked["end"]) + 1, int(asked["step"]))
            series = [{"metric": {}, "values": [[one, str(one // 300)] for one in times]}]
            said = json.dumps({"status": "success", "data": {"resultType": "matrix", "result": series}}).encode()
        self.send_response(kind.status)
        self.send_header("Content-Length", str(len(said)))
        self.end_headers()
        self.wfile.write(said)

    def log_message(self, *_: object) -> None:
        """Say nothing."""


@pytest.fixture(name="url")
def _url() -> Iterator[str]:
    Prometheus.asked, Prometheus.said, Prometheus.status = [], None, 200
    server = ThreadingHTTPServer(("127.0.0.1", 0), Prometheus)
    thread = threading.Thread(target=server.serve_forever)
    thread.start()
    yield f"http://127.0.0.1:{server.server_address[1]}"
    server.shutdown()
    thread.join()
    server.server_close()


def test_each_window_is_asked_for_once_and_shared_among_its_minutes(url: str) -> None:
    """An increase that is asked for in windows that overlap counts bytes twice."""
    found = read(f"{url}/base/", QUERY, start=END - 12, end=END)

    assert (
        dict.fromkeys(range(END - 5, END), END * 60 // 300 / 5)
        | dict.fromkeys(range(END - 10, END - 5), (END - 5) * 60 // 300 / 5)
        == found
    )
    assert [("/base/api/v1/query_range", QUERY, "300", str(END * 60), "")] == [
        (one["path"], one["query"], one["step"], one["end"], one["authorization"]) for one in Prometheus.asked
    ]


def test_a_long_history_is_asked_for_in_parts_without_a_gap(url: str) -> None:
    """Prometheus refuses more than 11,000 points."""
    found = read(url, "up", start=END - 63 * DAY, end=END)

    assert len(found) == 63 * DAY
    assert 2 == len(Prometheus.asked)
    assert all((int(one["end"]) - int(one["start"])) // 300 < 11_000 for one in Prometheus.asked)


def test_a_name_and_a_password_go_into_a_header_and_never_into_a_message(url: str) -> None:
    """What is in the log of a cron job is read by many."""
    with_name = url.replace("http://", "http://me:hu%73h@")
    read(with_name, QUERY, start=END - 5, end=END)
    Prometheus.status, Prometheus.said = 401, b"no"

    assert "Basic bWU6aHVzaA==" == Prometheus.asked[0]["authorization"]
    with pytest.raises(CannotLook) as raised:
        read(with_name, QUERY, start=END - 5, end=END)
    assert "hush" not in str(raised.value)
    assert "hu%73h" not in str(raised.value)


@pytest.mark.parametrize(
    ("status", "body", "said"),
    [
        (200, b"<html>", "no JSON"),
        (200, b"[]", "no JSON"),
        (400, b'{"status":"error","error":"parse error: unexpected"}', "Prometheus says: parse error"),
        (200, b'{"status":"success"}', "nothing that is an answer"),
        (200, b'{"status":"success","data":{"result":[{"values":[[1]]}]}}', "no answer of a Prometheus"),
        (200, b'{"status":"success","data":{"result":[{"values":[[1,"x"]]}]}}', "no answer of a Prometheus"),
        (200, b'{"status":"success","data":{"result":[{"values":[]},{"values":[]}]}}', "2 series; sum them up"),
        (503, b'{"message":"later"}', "answered 503"),
    ],
)
def test_what_is_no_answer_is_told(url: str, status: int, body: bytes, said: str) -> None:
    """A proxy's page in the place of a number must not become a gap."""
    Prometheus.status, Prometheus.said = status, body

    with pytest.raises(CannotLook, match=said):
        read(url, QUERY, start=END - 5, end=END)


def test_what_is_not_a_number_is_not_known(url: str) -> None:
    """NaN is Prometheus's word for that."""
    values = json.dumps([[END * 60, "NaN"], [(END - 5) * 60, "10"]])
    Prometheus.said = f'{{"status":"success","data":{{"result":[{{"values":{values}}}]}}}}'.encode()

    assert dict.fromkeys(range(END - 10, END - 5), 2.0) == read(url, QUERY, start=END - 10, end=END)


@pytest.mark.parametrize("url", ["", "prometheus:9090", "ftp://a/", "http://", "http://a:b/", "http://a/?query=up"])
def test_what_is_no_server_is_told_with_an_example(url: str) -> None:
    """It is the first thing that somebody types wrong."""
    with pytest.raises(CannotLook, match="http://prometheus:9090"):
        read(url, QUERY, start=END - 5, end=END)


def test_a_server_that_is_not_there_is_told() -> None:
    """Port 9 of loopback has nobody."""
    with pytest.raises(CannotLook, match="does not answer"):
        read("http://127.0.0.1:9", QUERY, start=END - 5, end=END)
