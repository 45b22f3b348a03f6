"""What stands before a real HEC: the first look at it, and the relay that can be cut."""

from __future__ import annotations

import json
import socket
from collections.abc import Iterator

import pytest
import requests

from collector.clock import SystemClock
from collector.control.hec.endpoint import Rules
from collector.control.hec.faults import Answer, Line
from collector.control.hec.preflight import checked_url, look
from collector.control.hec.relay import Counted, Relay
from collector.control.hec.simulated import SimulatedHec
from collector.errors import TuneError

WAIT_S = 20
ENVELOPES = [json.dumps({"event": {"n": n}}).encode() for n in range(50)]


@pytest.fixture(name="hec")
def _hec() -> Iterator[SimulatedHec]:
    with SimulatedHec() as hec:
        yield hec


def post(relay: Relay, token: str, data: bytes = b'{"event":1}', **headers: str) -> requests.Response:
    with requests.Session() as session:
        session.trust_env = False
        sent = {"Authorization": f"Splunk {token}", **{k.replace("_", "-"): v for k, v in headers.items()}}
        return session.post(f"{relay.url}/services/collector/event?a=1", data=data, headers=sent, timeout=WAIT_S)


def test_a_relay_passes_on_what_comes_and_what_is_answered(hec: SimulatedHec) -> None:
    """The sender must not be able to tell."""
    hec.script(None, Answer(code=26, headers=(("Retry-After", "3"),)))
    with Relay(hec.url) as relay:
        taken = post(relay, hec.token, X_Splunk_Request_Channel="c")
        busy = post(relay, hec.token)
        wrong = post(relay, "wrong")

    assert (200, {"text": "Success", "code": 0}) == (taken.status_code, taken.json())
    assert (429, "3") == (busy.status_code, busy.headers["Retry-After"])
    assert (403, 4) == (wrong.status_code, wrong.json()["code"])
    assert [b"1"] == hec.lines
    assert "c" == hec.requests[0].headers["x-splunk-request-channel"]
    assert Counted() == relay.counted()
    assert relay.busy_s() is None


def test_a_relay_that_is_cut_refuses_and_hec_is_not_touched(hec: SimulatedHec) -> None:
    """It is the outage of a HEC that is not ours to stop."""
    with Relay(hec.url) as relay:
        assert 200 == post(relay, hec.token).status_code
        relay.fail()
        with pytest.raises(requests.ConnectionError):
            post(relay, hec.token)
        relay.recover()
        assert 200 == post(relay, hec.token).status_code
        relay.begin()
    assert 2 == len(hec.lines)
    assert 200 == requests.get(f"{hec.url}/services/collector/health", timeout=WAIT_S).status_code


def test_what_goes_wrong_behind_a_relay_ends_the_connection_before_it(hec: SimulatedHec) -> None:
    """An answer of the relay's own would be taken for HEC's."""
    with Relay(hec.url) as relay:
        hec.script(Line.LOSE_ANSWER)
        with pytest.raises(requests.ConnectionError):
            post(relay, hec.token)
        hec.refuse()
        with pytest.raises(requests.ConnectionError):
            post(relay, hec.token)
        with socket.create_connection(("127.0.0.1", int(relay.url.rsplit(":", 1)[1])), timeout=WAIT_S) as link:
            link.sendall(b"nonsense\r\n\r\n")
            assert b"" == link.recv(1)


def test_a_look_measures_and_counts_what_it_sent(hec: SimulatedHec) -> None:
    """Its lines are in HEC, and belong to those that were announced."""
    seen = look(hec.url, hec.token, ENVELOPES, clock=SystemClock())

    assert len(hec.lines) == seen.sent_lines == 251
    assert sum(map(len, ENVELOPES)) == seen.batch_bytes
    assert min(seen.round_trip_s, seen.answer_s, seen.gzip_s) > 0


@pytest.mark.parametrize(
    ("fault", "said"),
    [
        (Answer(code=18), r"is not well: it answered 503, code 18: HEC is unhealthy, queues are full"),
        (Answer(status=404, body=b"<html>"), r"answered 404 to /services/collector/health and not as a HEC does"),
        (Line.CLOSE_BEFORE, r"there is no HEC at http://127"),
        (Line.RESET, r"there is no HEC at http://127"),
    ],
)
def test_a_server_that_is_no_hec_is_told_from_one_that_is_not_well(
    hec: SimulatedHec, fault: Answer | Line, said: str
) -> None:
    """One is a wrong URL, the other somebody else's trouble."""
    hec.stand(fault)

    with pytest.raises(TuneError, match=said):
        look(hec.url, hec.token, ENVELOPES, clock=SystemClock())


@pytest.mark.parametrize(
    ("rules", "said"),
    [
        (Rules(token="other"), r"403, code 4: Invalid token\. Give a token of this HEC that is enabled"),
        (Rules(is_disabled=True), r"403, code 1: Token disabled\. Give a token"),
        (Rules(indexes=frozenset()), ""),
    ],
)
def test_a_token_that_is_refused_is_told_in_hecs_own_words(rules: Rules, said: str) -> None:
    """Its number is what Splunk's own troubleshooting page is sorted by."""
    with SimulatedHec(rules) as hec:
        if not said:
            assert 251 == look(hec.url, hec.token, ENVELOPES, clock=SystemClock()).sent_lines
            return
        with pytest.raises(TuneError, match=said):
            look(hec.url, "00000000-0000-4000-8000-000000000000", ENVELOPES, clock=SystemClock())
        assert [] == hec.lines


def test_a_refusal_of_events_is_told_too(hec: SimulatedHec) -> None:
    """HEC may be well and the token valid, and yet nothing gets in."""
    hec.script(Answer(code=7))
    with pytest.raises(TuneError, match=r"400, code 7: Incorrect index\. The token's default index"):
        look(hec.url, hec.token, ENVELOPES, clock=SystemClock())
    hec.script(Answer(status=200, code=8))
    with pytest.raises(TuneError, match="answered 200, code 8: Internal server error"):
        look(hec.url, hec.token, ENVELOPES, clock=SystemClock())
    hec.script(Answer(status=200, body=b"OK"))
    with pytest.raises(TuneError, match="answered 200 to /services/collector/event and not as a HEC does"):
        look(hec.url, hec.token, ENVELOPES, clock=SystemClock())


def test_nobody_there_and_no_certificate_are_told() -> None:
    """Before any load, and with what to do."""
    with socket.create_server(("127.0.0.1", 0)) as closed:
        port = closed.getsockname()[1]
    with pytest.raises(TuneError, match=rf"there is no HEC at http://127.0.0.1:{port}: .*refused"):
        look(f"http://127.0.0.1:{port}", "t", ENVELOPES, clock=SystemClock())
    with pytest.raises(TuneError, match=r"no/such\.pem holds no certificates"):
        look("https://127.0.0.1:1", "t", ENVELOPES, clock=SystemClock(), ca_file="no/such.pem")


@pytest.mark.parametrize(
    ("url", "checked"),
    [
        ("https://splunk:8088", "https://splunk:8088"),
        ("https://splunk:8088/services/collector/event", "https://splunk:8088"),
        ("http://splunk/hec/services/collector/", "http://splunk/hec"),
    ],
)
def test_the_usual_paths_may_stand_in_the_url(url: str, checked: str) -> None:
    """Splunk's own pages write it with them."""
    assert checked == checked_url(url)


@pytest.mark.parametrize(
    "url", ["splunk:8088", "ftp://splunk", "https://", "https://h:x", "https://h/?token=t", "https://u:p@h"]
)
def test_a_url_that_is_none_is_refused(url: str) -> None:
    """A token in it would be in every log on the way."""
    with pytest.raises(TuneError):
        checked_url(url)
