"""
Where an upload comes from, as far as that can be believed, and as much of it as may be kept.
"""

from __future__ import annotations

from ipaddress import ip_address, ip_network


def remote_ip(peer: str, forwarded_for: str, trusted_hops: int) -> str:
    """Return the device's address: what the outermost trusted proxy saw, never what a device claims of itself."""
    if not trusted_hops:
        return peer
    hops = [hop.strip() for hop in forwarded_for.split(",") if hop.strip()]
    if len(hops) < trusted_hops:
        return peer
    seen = hops[-trusted_hops]
    # Some proxies write the port, too: 192.0.2.1:4711, [2001:db8::1]:4711.
    bare = seen[1:].partition("]")[0] if seen.startswith("[") else seen
    try:
        return str(ip_address(bare.partition(":")[0] if bare.count(":") == 1 else bare))
    except ValueError:
        return peer


def anonymous(address: str) -> str:
    """Zero what tells a person: the last octet of IPv4, all but the first 48 bits of IPv6; keep no odd text."""
    try:
        ip = ip_address(address)
    except ValueError:
        return ""
    kept = 24 if ip.version == 4 else 48
    return str(ip_network(f"{ip}/{kept}", strict=False).network_address)
