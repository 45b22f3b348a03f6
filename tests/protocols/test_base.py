"""What every refusal carries, whoever renders it."""

from __future__ import annotations

import json

import pytest

from collector.outcome import ADMITTED, STATUS, Reason, Verdict
from collector.protocols.base import Protocol, Reply, Request, refusal
from collector.protocols.clevertap import Clevertap
from collector.protocols.native import Native

ADAPTERS: list[Protocol] = [Native(), Clevertap()]


def headers(reply: Reply) -> dict[str, str]:
    return dict(reply.headers)


@pytest.mark.parametrize("adapter", ADAPTERS, ids=lambda adapter: adapter.name)
@pytest.mark.parametrize("reason", STATUS, ids=str)
def test_every_refusal_has_the_fields_that_shipped_sdks_read(adapter: Protocol, reason: Reason) -> None:
    """rudder-sdk-python sends a 400 eleven times unless it finds `code` and `message`."""
    verdict = Verdict.refused(reason, "why", detail="what to do")

    reply = adapter.refuse(verdict)

    body = json.loads(reply.body)
    assert STATUS[reason] == reply.status
    assert STATUS[reason] == body["code"]
    assert (reason.value, "why", "what to do") == (body["error"], body["message"], body["detail"])
    assert "application/json" == headers(reply)["Content-Type"]


def test_a_refusal_says_when_to_come_back_and_lets_browsers_see_it() -> None:
    """Scripts read Retry-After of another origin only when it is exposed."""
    verdict = Verdict.refused(Reason.BACKPRESSURE, "later", retry_after_s=2)

    reply = refusal(verdict)

    assert "2" == headers(reply)["Retry-After"]
    assert "Retry-After" == headers(reply)["Access-Control-Expose-Headers"]


def test_a_refusal_without_a_time_has_no_retry_after() -> None:
    """A made-up time would have clients come back with what is refused for good."""
    reply = refusal(Verdict.refused(Reason.MALFORMED, "never"))

    assert "Retry-After" not in headers(reply)


def test_the_word_for_a_refusal_is_the_protocols_own() -> None:
    """CleverTap's clients know success, partial and fail."""
    verdict = Verdict.refused(Reason.UNKNOWN_KEY, "who?")
    request = Request("POST", "/", "", {}, b"", "192.0.2.1")

    words = {adapter.name: json.loads(adapter.refuse(verdict, request).body)["status"] for adapter in ADAPTERS}

    assert {"native": "error", "clevertap": "fail"} == words


def test_a_reason_without_a_status_of_its_own_is_our_error() -> None:
    """A reason that only concerns single events must not end in a KeyError instead of an answer."""
    assert 500 == refusal(Verdict.refused(Reason.NOT_AN_OBJECT, "defect")).status


def test_an_admission_can_not_be_refused() -> None:
    """An answer that says neither yes nor no would be a defect that nobody sees."""
    with pytest.raises(ValueError, match="admitted"):
        refusal(ADMITTED)
