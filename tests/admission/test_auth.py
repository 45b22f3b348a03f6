"""Whose upload it is."""

from __future__ import annotations

import hmac
from hashlib import sha256

import pytest
from hypothesis import given
from hypothesis import strategies as st

from collector.admission.auth import TenantTable
from collector.outcome import Reason, Verdict
from collector.tenant import Tenant


def digest(key: str) -> str:
    return sha256(key.encode("utf-8", "surrogatepass")).hexdigest()


APP = Tenant(id="app", keys=(digest("app-key"), digest("app-key-2")), clevertap_account="W8W")
WEB = Tenant(id="web", keys=(digest("web-key"),))
OFF = Tenant(id="off", keys=(digest("off-key"),), enabled=False)
TABLE = TenantTable((APP, WEB, OFF))


def refusal(key: str | None, account: str | None = None) -> Verdict:
    verdict = TABLE.authenticate(key, account)

    assert isinstance(verdict, Verdict)
    return verdict


@pytest.mark.parametrize(("key", "tenant"), [("app-key", APP), ("app-key-2", APP), ("web-key", WEB)])
def test_each_key_of_a_tenant_finds_it(key: str, tenant: Tenant) -> None:
    """Two keys are in use while one is replaced by the other."""
    assert tenant is TABLE.authenticate(key)


@pytest.mark.parametrize(
    "key", [None, "", "no-key", "app-key ", "App-key", digest("app-key"), "\ud800", "ü", "k" * 100_000]
)
def test_any_other_key_is_unknown(key: str | None) -> None:
    """A digest is no key either: who reads the settings can't upload by them."""
    verdict = refusal(key)

    assert Reason.UNKNOWN_KEY == verdict.reason
    for place in ("Authorization: Bearer", "Basic", "X-Collector-Key", "?key="):
        assert place in verdict.message


def test_a_missing_key_and_a_wrong_one_are_told_apart() -> None:
    """The one is a mistake in the client's code, the other in its settings."""
    assert "carries no ingest key" in refusal(None).message
    assert "is not known" in refusal("x").message


def test_a_key_is_never_in_what_refuses_it() -> None:
    """Answers are logged by whoever sent the key."""
    assert "very-own-key" not in repr(refusal("very-own-key"))


def test_a_disabled_tenant_is_refused_by_its_own_reason() -> None:
    """Its operator looks for a wrong key otherwise."""
    assert Reason.TENANT_DISABLED == refusal("off-key").reason
    assert Reason.TENANT_DISABLED == refusal("off-key", "off").reason


@pytest.mark.parametrize(("key", "account", "tenant"), [("app-key", "W8W", APP), ("web-key", "web", WEB)])
def test_an_account_and_its_key_find_the_tenant(key: str, account: str, tenant: Tenant) -> None:
    """CleverTap's clients name both; without an account of its own, a tenant's id is its account."""
    assert tenant is TABLE.authenticate(key, account)


@pytest.mark.parametrize(
    ("key", "account"),
    [
        ("app-key", "web"),
        ("app-key", "app"),
        ("web-key", "W8W"),
        ("app-key", ""),
        ("x", "W8W"),
        (None, "W8W"),
        ("", "x"),
    ],
)
def test_an_account_with_anothers_key_is_unknown(key: str | None, account: str) -> None:
    """Which of the two was wrong is nobody's business; a disabled tenant's account is not told either."""
    verdict = refusal(key, account)

    assert Reason.UNKNOWN_KEY == verdict.reason
    assert "X-CleverTap-Passcode" in verdict.message
    assert verdict == refusal("off-key", "W8W")


def test_hit_and_miss_are_both_compared_in_constant_time(monkeypatch: pytest.MonkeyPatch) -> None:
    """A miss that returned early would be told from a hit by its time."""
    compared: list[tuple[str, str]] = []

    def compare(stored: str, given_: str) -> bool:
        compared.append((stored, given_))
        return stored == given_

    monkeypatch.setattr(hmac, "compare_digest", compare)

    TABLE.authenticate("web-key")
    TABLE.authenticate("nobodys-key")

    assert (WEB.keys[0], WEB.keys[0]) == compared[0]
    assert digest("nobodys-key") == compared[1][1]
    assert [64] * 4 == [len(side) for pair in compared for side in pair]


@given(st.text(st.characters(), max_size=40))
def test_no_key_a_stranger_can_send_gets_in_or_raises(key: str) -> None:
    """Headers carry any text; the stand-in for a missing digest must match none."""
    assert isinstance(TABLE.authenticate(key), Verdict)
    assert isinstance(TABLE.authenticate("\0"), Verdict)
    assert isinstance(TABLE.authenticate(key, key), Verdict)


def test_a_table_tells_its_tenants_by_id() -> None:
    """The runtime counts them, the gate asks for one."""
    assert 3 == len(TABLE)
    assert WEB is TABLE.get("web")
    assert None is TABLE.get("W8W")
