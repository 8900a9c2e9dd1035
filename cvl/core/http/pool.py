"""Connections of urllib3, dialled as `line.py` does."""

from __future__ import annotations

import socket
import ssl
from contextlib import suppress
from typing import TYPE_CHECKING, Any

from cvl.core.extras import Extra
from cvl.core.http.connection import line
from cvl.core.http.proxies import PORTS, Proxy, joined, proxy_for
from cvl.core.http.tls import context

if TYPE_CHECKING:
    from urllib3 import PoolManager

CONNECT_LIMIT = 10.0
"""Seconds to a connection, through a proxy or not."""
LIMITS = (CONNECT_LIMIT, 30.0)


def pool(
    extra: Extra,
    tls: ssl.SSLContext | None = None,
    proxy: Proxy | None = None,
    limits: tuple[float, float] = LIMITS,
    **options: Any,
) -> PoolManager:
    """Return connections; `options` are `urllib3.PoolManager`'s.

    `limits` are seconds: to connect, and between two pieces of an answer. `tls` None: servers are
    verified by what is trusted here. `proxy` leads to all; None: as the environment says. `extra`
    is what brings urllib3. Raises `MissingExtra`, and `UsageError` as `context` does.
    """
    extra.needed("urllib3")
    from urllib3 import HTTPConnectionPool, HTTPSConnectionPool, PoolManager, Timeout
    from urllib3.connection import HTTPConnection, HTTPSConnection

    class PlainConnection(HTTPConnection):
        def _new_conn(self) -> socket.socket:
            return _dialled(self, "http", proxy)

    class SecuredConnection(HTTPSConnection):
        def _new_conn(self) -> socket.socket:
            return _dialled(self, "https", proxy)

    class PlainPool(HTTPConnectionPool):
        ConnectionCls = PlainConnection

    class SecuredPool(HTTPSConnectionPool):
        ConnectionCls = SecuredConnection

        def _validate_conn(self, conn: Any) -> None:
            """Connect, and warn of nothing: whoever wants no verification was told once."""
            if conn.is_closed:
                conn.connect()

    timeout = Timeout(connect=limits[0], read=limits[1])
    manager = PoolManager(ssl_context=tls or context(), timeout=timeout, **options)
    manager.pool_classes_by_scheme = {"http": PlainPool, "https": SecuredPool}
    return manager


def dialled(url: str, proxy: Proxy | None, seconds: float) -> socket.socket:
    """Return a connection to where a URL leads; `proxy` None: as the environment says.

    Raises `OSError` as `line` does, and `UsageError`.
    """
    from urllib.parse import urlsplit

    there = urlsplit(url)
    port = PORTS[there.scheme] if there.port is None else there.port
    connection = line(there.hostname or "", port, proxy or proxy_for(url), seconds)
    with suppress(OSError):  # a pair of sockets has no such thing
        connection.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
    return connection


def _dialled(connection: Any, scheme: str, proxy: Proxy | None) -> socket.socket:
    """Return a connection for one of urllib3's. Raises as those do."""
    from urllib3.exceptions import ConnectTimeoutError, NameResolutionError, NewConnectionError

    url = f"{scheme}://{joined(connection.host.strip('[]'), connection.port)}"
    limit = connection.timeout
    try:
        return dialled(url, proxy, limit if isinstance(limit, (int, float)) else CONNECT_LIMIT)
    except socket.gaierror as error:
        raise NameResolutionError(connection.host, connection, error) from error
    except TimeoutError as error:
        raise ConnectTimeoutError(connection, str(error.strerror or "no connection")) from error
    except OSError as error:
        raise NewConnectionError(connection, str(error.strerror or error)) from error
