"""Which proxy leads to an address, as the environment says: the rules of curl and of Python.

`HTTPS_PROXY`, `HTTP_PROXY`, `ALL_PROXY` and `NO_PROXY`; the name in small letters wins, and one
that is set to nothing means none. What is on this very machine is asked through a proxy only if
that is here too: for any other, `localhost` is itself. A key that is not encrypted never is.
"""

from __future__ import annotations

import ipaddress
import os
import re
from collections.abc import Mapping
from dataclasses import field
from fnmatch import fnmatchcase
from urllib.parse import SplitResult, unquote_to_bytes, urlsplit

from cvl.core.errors import UsageError
from cvl.core.frozen import dataclass
from cvl.core.http.secure_url import is_here
from cvl.core.octets import octets
from cvl.core.secrets import learn

PORTS: Mapping[str, int] = {"http": 80, "https": 443}
PROXY_PORTS: Mapping[str, int] = {"http": 80, "https": 443, "socks5": 1080, "socks5h": 1080}
"""What a proxy may be, and where it listens unless it says otherwise. curl's 1080 is SOCKS'."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Proxy:
    """One proxy. `name` is where it was named: a variable, or a file."""

    scheme: str
    host: str
    port: int
    name: str
    user: str = field(default="", repr=False)
    password: str = field(default="", repr=False)

    def __str__(self) -> str:
        """Return it for a person: never with its password."""
        return f"the proxy {joined(self.host, self.port)} ({self.name})"

    @property
    def url(self) -> str:
        """Its address, password and all: for a library, never for a person."""
        from urllib.parse import quote

        login = ":".join(quote(octets(each), "") for each in (self.user, self.password))
        before = f"{login}@" if self.user else ""
        return f"{self.scheme}://{before}{joined(self.host, self.port)}"


def proxy_for(url: str, environment: Mapping[str, str] | None = None) -> Proxy | None:
    """Return the proxy that leads to an `http` or `https` address, None for none.

    Raises `UsageError` for a variable that names no proxy, without what stands in it.
    """
    variables = os.environ if environment is None else environment
    there = urlsplit(url)
    host = there.hostname or ""
    port = PORTS[there.scheme] if there.port is None else there.port
    name, value = _named(there.scheme, variables)
    if not value or spared(host, port, _value("no_proxy", variables)[1]):
        return None
    proxy = named(value, name)
    if is_here(host) and (there.scheme == "http" or not is_here(proxy.host)):
        return None
    return proxy


def named(value: str, name: str) -> Proxy:
    """Return the proxy that `name` holds. Raises `UsageError`, without it: it may hold a key."""
    address = value if "://" in value else f"http://{value}"
    try:
        parts = urlsplit(address)
        port = parts.port
    except ValueError:
        raise _none(name) from None
    scheme = parts.scheme.lower()
    if scheme not in PROXY_PORTS:
        raise UsageError(
            f"{name} names a kind of proxy that is not known: {scheme[:20]}",
            f"there are: {', '.join(PROXY_PORTS)}",
        )
    if not _plain(parts):
        raise _none(name)
    login = [_word(each or "") for each in (parts.username, parts.password)]
    learn(login[1])
    return Proxy(
        scheme=scheme,
        host=parts.hostname or "",
        port=PROXY_PORTS[scheme] if port is None else port,
        name=name,
        user=login[0],
        password=login[1],
    )


def spared(host: str, port: int, no_proxy: str) -> bool:
    """Return whether `NO_PROXY` names a host: itself, what is above it, its network, or `*`."""
    return any(_spares(word, host.lower(), port) for word in re.split(r"[\s,]+", no_proxy) if word)


def joined(host: str, port: int) -> str:
    """Return `HOST:PORT` as an address has it."""
    return f"[{host}]:{port}" if ":" in host else f"{host}:{port}"


def _spares(word: str, host: str, port: int) -> bool:
    name, own_port = _split(word.lower())
    if own_port and own_port != port:
        return False
    here, there = _number(host), _network(name)
    if here and there:
        return here in there
    name, host = name.strip(".").removeprefix("*."), host.rstrip(".")
    return bool(name) and (fnmatchcase(host, name) or host.endswith(f".{name}"))


def _split(word: str) -> tuple[str, int]:
    """Return the name and the port of one word, 0 for none; an IPv6 address has many colons."""
    match = re.fullmatch(r"\[(?P<six>[^]]+)\](?P<mask>/\d+)?(:(?P<port>\d+))?", word)
    if match:
        return match["six"] + (match["mask"] or ""), int(match["port"] or 0)
    name, colon, port = word.rpartition(":")
    if colon and ":" not in name and port.isdigit():
        return name, int(port)
    return word, 0


def _number(host: str) -> ipaddress.IPv4Address | ipaddress.IPv6Address | None:
    try:
        address = ipaddress.ip_address(host)
    except ValueError:
        return None
    return getattr(address, "ipv4_mapped", None) or address


def _network(name: str) -> ipaddress.IPv4Network | ipaddress.IPv6Network | None:
    try:
        return ipaddress.ip_network(name, strict=False)
    except ValueError:
        return None


def _named(scheme: str, known: Mapping[str, str]) -> tuple[str, str]:
    """Return the variable that names the proxy for a scheme, and what it holds, "" for none."""
    own = "" if scheme == "http" and "REQUEST_METHOD" in known else f"{scheme}_proxy"
    for name in (own, "all_proxy"):  # a CGI script's HTTP_PROXY comes from whoever asks it
        variable = _value(name, known) if name else None
        if variable and variable[0] in known:
            return variable
    return "", ""


def _value(name: str, known: Mapping[str, str]) -> tuple[str, str]:
    spelled = name if name in known else name.upper()
    return spelled, known.get(spelled, "").strip()


def _word(quoted: str) -> str:
    """Return a user or a password; it is bytes, given as such or as %XX."""
    return os.fsdecode(unquote_to_bytes(octets(quoted)))


def _plain(url: SplitResult) -> bool:
    """Return whether nothing follows the host: a path may be the rest of a password."""
    rest = (url.path.strip("/"), url.query, url.fragment)
    return bool(re.fullmatch(r"[a-z0-9._:%-]+", url.hostname or "")) and not any(rest)


def _none(name: str) -> UsageError:
    return UsageError(
        f"{name} is no address of a proxy",
        "write http://HOST:PORT or http://USER:PASSWORD@HOST:PORT, with %XX for what is special",
    )
