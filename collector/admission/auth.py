"""
Whose upload this is: ingest keys and CleverTap accounts to tenants.
"""

from __future__ import annotations

import hmac
from hashlib import sha256

from collector.outcome import Reason, Verdict
from collector.tenant import Tenant

#: Stands in for a digest when there is none to compare with: the SHA-256 of no key at all.
_NO_DIGEST = sha256(b"\0").hexdigest()

_NO_KEY = Verdict.refused(
    Reason.UNKNOWN_KEY,
    "the upload carries no ingest key: send it as `Authorization: Bearer KEY`, as the user name of Basic, "
    "in X-Collector-Key, or as ?key=",
)
_UNKNOWN_KEY = Verdict.refused(
    Reason.UNKNOWN_KEY,
    "the ingest key is not known: send the one that `collector key` printed, as `Authorization: Bearer KEY`, as the "
    "user name of Basic, in X-Collector-Key, or as ?key=",
)
_UNKNOWN_ACCOUNT = Verdict.refused(
    Reason.UNKNOWN_KEY,
    "the account and its passcode are not known together: send the tenant's account in X-CleverTap-Account-Id and "
    "one of its ingest keys in X-CleverTap-Passcode",
)
_DISABLED = Verdict.refused(
    Reason.TENANT_DISABLED, "the tenant of this key is disabled: its operator must enable it before it may upload"
)


class TenantTable:
    """
    The tenants of one moment, found by key or by account. Never changes; a reload makes another.

    No two tenants share a key or an account: the settings hold that.
    """

    __slots__ = ("_by_account", "_by_digest", "_by_id", "tenants")

    def __init__(self, tenants: tuple[Tenant, ...]) -> None:
        self.tenants = tenants
        self._by_id = {tenant.id: tenant for tenant in tenants}
        self._by_account = {tenant.clevertap_account or tenant.id: tenant for tenant in tenants}
        self._by_digest = {digest: (digest, tenant) for tenant in tenants for digest in tenant.keys}

    def __len__(self) -> int:
        return len(self.tenants)

    def get(self, tenant_id: str) -> Tenant | None:
        """Return the tenant of an id."""
        return self._by_id.get(tenant_id)

    def authenticate(self, key: str | None, account: str | None = None) -> Tenant | Verdict:
        """
        Return the enabled tenant of an ingest key, or the verdict that refuses the upload.

        With an `account`, the key must be one of that account's tenant; which of the two was wrong is not told.

        The key is hashed each time (1.2 us), so that no plain key stays in memory. The look-up goes by its digest,
        which tells a stranger nothing of a key when it is timed; the comparison after it takes the same time for a
        hit, a near miss and a miss.
        """
        if key is None or key == "":
            return _NO_KEY if account is None else _UNKNOWN_ACCOUNT
        digest = sha256(key.encode("utf-8", "surrogatepass")).hexdigest()
        stored, tenant = self._by_digest.get(digest, (_NO_DIGEST, None))
        if not hmac.compare_digest(stored, digest) or tenant is None:
            return _UNKNOWN_KEY if account is None else _UNKNOWN_ACCOUNT
        if account is not None and self._by_account.get(account) is not tenant:
            return _UNKNOWN_ACCOUNT
        return tenant if tenant.enabled else _DISABLED
