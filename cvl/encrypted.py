"""Addresses that a key may be sent to: encrypted, or on this very machine."""

from __future__ import annotations

import ipaddress
import re

from cvl.errors import UsageError

ADDRESS = re.compile(
    r"(?P<scheme>https?)://(?P<host>\[[0-9a-f:.]+\]|[a-z0-9._-]+)(:\d{1,5})?(/[!-~]*)?",
    re.IGNORECASE,
)
"""No user, no password: what stands before an `@` is no host. One reading, for every library."""
AMBIGUOUS = re.compile(r"[?#@\\]")


def address(url: str, name: str) -> str:
    """Return an address that `name` holds. Raises `UsageError`, without it: it may hold a key."""
    found = ADDRESS.fullmatch(url)
    if not found or AMBIGUOUS.search(url):
        raise UsageError(f"{name} is no address of a server", "write it as https://HOST/PATH")
    if found["scheme"].lower() == "http" and not is_here(found["host"]):
        raise UsageError(
            f"{name} is not encrypted: whoever is on the way could read the key",
            "write https://; http:// is for a server on this machine alone (127.0.0.1)",
        )
    return url


def is_here(host: str) -> bool:
    """Return whether a host is this machine by its very name: no other machine is asked."""
    if host.lower() == "localhost":
        return True
    try:
        return ipaddress.ip_address(host.strip("[]")).is_loopback
    except ValueError:
        return False
