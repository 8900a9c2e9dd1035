"""Addresses that a key may be sent to: encrypted, or on this very machine."""

from __future__ import annotations

import ipaddress
import re

from cvl.core.errors import UsageError

ADDRESS = re.compile(
    r"(?P<scheme>https?)://(?P<host>\[[0-9a-f:.]+\]|[a-z0-9._-]+)(:(?P<port>[0-9]{1,5}))?(/[!-~]*)?",
    re.IGNORECASE,
)
"""No user, no password: what stands before an `@` is no host. One reading, for every library."""
AMBIGUOUS = re.compile(r"[?#@\\]")
MOST_PORT, LONGEST_LABEL = 65535, 63


def address(url: str, name: str) -> str:
    """Return an address that `name` holds. Raises `UsageError`, without it: it may hold a key."""
    parts = server(url, name)
    if parts["scheme"].lower() == "http" and not is_here(parts["host"]):
        raise UsageError(
            f"{name} is not encrypted: whoever is on the way could read the key",
            "write https://; http:// is for a server on this machine alone (127.0.0.1)",
        )
    return url


def server(url: str, name: str) -> re.Match[str]:
    """Return the parts of an address that can be called at all. Raises `UsageError` as `address`.

    What no library could make sense of ends here, and not in each by another exception.
    """
    parts = ADDRESS.fullmatch(url)
    if not parts or AMBIGUOUS.search(url) or not _callable(parts["host"], parts["port"]):
        raise UsageError(f"{name} is no address of a server", "write it as https://HOST/PATH")
    return parts


def _callable(host: str, port: str | None) -> bool:
    if port and not 0 < int(port) <= MOST_PORT:
        return False
    if not host.startswith("["):
        return all(0 < len(label) <= LONGEST_LABEL for label in host.removesuffix(".").split("."))
    try:
        return bool(ipaddress.IPv6Address(host.strip("[]")))
    except ValueError:
        return False


def is_here(host: str) -> bool:
    """Return whether a host is this machine by its very name: no other machine is asked."""
    if host.lower() == "localhost":
        return True
    try:
        return ipaddress.ip_address(host.strip("[]")).is_loopback
    except ValueError:
        return False
