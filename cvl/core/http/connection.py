"""A connection to a host, directly or through a proxy: bytes, with no TLS of its own yet."""

from __future__ import annotations

import base64
import errno
import socket
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from http import HTTPStatus

from cvl.core.http.proxies import Proxy, joined
from cvl.core.http.relay import relayed
from cvl.core.http.tls import context
from cvl.core.octets import octets
from cvl.core.scope import Scope

HEAD = 1 << 14
"""Bytes of a proxy's answer."""
SOCKS, CONNECT, NAME = 5, 1, 3
"""Protocol version, command, kind of address: RFC 1928."""
ADDRESSES = {1: 4, 4: 16}
"""Kind of address -> its bytes; a name says itself how many it has."""
NO_LOGIN, LOGIN = 0, 2
SOCKS_WORDS = {
    1: "it failed",
    2: "its rules do not allow it",
    3: "no route to the network",
    4: "no route to the host",
    5: "connection refused",
    6: "it took too long",
    7: "it does not connect",
    8: "it knows no such address",
}


class NotDialled(ConnectionError):
    """A proxy did not lead there: nothing was sent to the host. The message never holds a key."""


def line(host: str, port: int, proxy: Proxy | None, seconds: float) -> socket.socket:
    """Return a connection that has `seconds` as its timeout.

    Raises `OSError`: `TimeoutError`, `socket.gaierror`, and `NotDialled` for what a proxy says.
    """
    if proxy is None:
        return socket.create_connection((host, port), seconds)
    limit = Scope(seconds=seconds)
    with _blaming(proxy, "cannot be reached"):
        connection = socket.create_connection((proxy.host, proxy.port), seconds)
    try:
        with _blaming(proxy, "broke off"):
            if proxy.scheme == "https":
                tls = context().wrap_socket(connection, server_hostname=proxy.host)
                connection = relayed(tls, seconds)
            _HANDSHAKES[proxy.scheme](_Talk(connection, proxy, limit), joined(host, port))
            connection.settimeout(seconds)
    except BaseException:
        connection.close()
        raise
    return connection


@contextmanager
def _blaming(proxy: Proxy, words: str) -> Iterator[None]:
    try:
        yield
    except NotDialled:
        raise
    except TimeoutError as error:
        raise TimeoutError(errno.ETIMEDOUT, f"{proxy} does not answer") from error
    except OSError as error:
        raise NotDialled(f"{proxy} {words}: {error.strerror or error}") from error


class _Talk:
    """A conversation with a proxy that has an end in time and in size."""

    def __init__(self, connection: socket.socket, proxy: Proxy, limit: Scope) -> None:
        self._line, self.proxy, self._limit = connection, proxy, limit

    def say(self, data: bytes) -> None:
        self._line.settimeout(self._left())
        self._line.sendall(data)

    def hear(self, count: int) -> bytes:
        """Return just so many bytes: what follows them is the host's."""
        heard = b""
        while len(heard) < count:
            self._line.settimeout(self._left())
            piece = self._line.recv(count - len(heard))
            if not piece:
                raise NotDialled(f"{self.proxy} closed the connection without an answer")
            heard += piece
        return heard

    def _left(self) -> float:
        left = self._limit.remaining()
        if left is None or left <= 0:
            raise TimeoutError
        return left


def _tunnel(talk: _Talk, place: str) -> None:
    """Ask for a tunnel by `CONNECT` (RFC 9110, 9.3.6)."""
    proxy = talk.proxy
    lines = [f"CONNECT {place} HTTP/1.1", f"Host: {place}", "User-Agent: cvl"]
    if proxy.user or proxy.password:
        login = base64.b64encode(octets(f"{proxy.user}:{proxy.password}")).decode()
        lines.append(f"Proxy-Authorization: Basic {login}")
    talk.say("\r\n".join([*lines, "", ""]).encode())
    head = b""
    while not head.endswith((b"\r\n\r\n", b"\n\n")) and len(head) < HEAD:
        head += talk.hear(1)
    _judge(proxy, place, head)


def _judge(proxy: Proxy, place: str, head: bytes) -> None:
    first = head.split(b"\r\n")[0].decode("latin-1")
    version, _, status = first.partition(" ")
    code = status[:3]
    if not (version.startswith("HTTP/") and code.isdigit()):
        raise NotDialled(f"{proxy} does not speak HTTP")
    if code == str(HTTPStatus.PROXY_AUTHENTICATION_REQUIRED.value):
        wrong = "does not accept the user and password" if proxy.user else "wants a login"
        raise NotDialled(f"{proxy} {wrong}: give http://USER:PASSWORD@HOST:PORT ({status[:80]})")
    if not code.startswith("2"):
        raise NotDialled(f"{proxy} does not lead to {place}: {status[:80]}")


def _socks(talk: _Talk, place: str) -> None:
    """Ask a SOCKS proxy (RFC 1928, 1929); it looks the name up itself."""
    proxy = talk.proxy
    ways = bytes([NO_LOGIN, LOGIN] if proxy.user else [NO_LOGIN])
    talk.say(bytes([SOCKS, len(ways)]) + ways)
    version, way = talk.hear(2)
    if version != SOCKS:
        raise NotDialled(f"{proxy} does not speak SOCKS 5")
    if way == LOGIN:
        talk.say(b"\1" + _counted(proxy.user) + _counted(proxy.password))
        if talk.hear(2)[1]:
            raise NotDialled(f"{proxy} does not accept the user and password")
    elif way != NO_LOGIN:
        raise NotDialled(f"{proxy} wants a login: give socks5://USER:PASSWORD@HOST:PORT")
    host, _, port = place.rpartition(":")
    name = _counted(host.strip("[]"))
    talk.say(bytes([SOCKS, CONNECT, 0, NAME]) + name + int(port).to_bytes(2, "big"))
    _, code, _, kind = talk.hear(4)
    if code:
        words = SOCKS_WORDS.get(code, f"code {code}")
        raise NotDialled(f"{proxy} does not lead to {place}: {words}")
    talk.hear(ADDRESSES[kind] if kind in ADDRESSES else talk.hear(1)[0])
    talk.hear(2)


def _counted(word: str) -> bytes:
    data = octets(word)[:255]
    return bytes([len(data)]) + data


_HANDSHAKES: dict[str, Callable[[_Talk, str], None]] = {
    "http": _tunnel,
    "https": _tunnel,
    "socks5": _socks,
    "socks5h": _socks,
}
