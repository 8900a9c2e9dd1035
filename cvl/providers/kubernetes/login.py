"""The way into a cluster, made anew when who we are has changed: a login, a file, a program's word.

Files are looked at every few seconds, so a run that is followed for days takes what was renewed
meanwhile; what is refused is read again at once, once.
"""

from __future__ import annotations

import sys
import threading
from collections.abc import Callable
from contextlib import suppress
from dataclasses import field, replace
from pathlib import Path
from typing import TYPE_CHECKING, Any, TypeVar

from cvl.core.errors import AuthError, CvlError
from cvl.core.frozen import dataclass
from cvl.core.http.pool import pool
from cvl.core.http.proxies import Proxy, named
from cvl.core.printable import one_line
from cvl.core.scope import Clock
from cvl.core.secrets import clean
from cvl.providers.kubernetes.api_errors import EXTRA
from cvl.providers.kubernetes.credentials import Granted, Headers, granted, headers, pair, tls
from cvl.providers.kubernetes.kubeconfig import Access, access

if TYPE_CHECKING:
    from ssl import SSLContext

    from urllib3 import PoolManager

T = TypeVar("T")

UNVERIFIED = (
    "insecure-skip-tls-verify: nobody checks that {} is your cluster; whoever is on the way may "
    "read all that is sent there, the login too"
)
AUTHORITY = "certificate-authority"
STREAMS = 300
"""Connections kept: one for each node's log, and some."""
LOOK = 2.0
"""Seconds between two looks at the files that the way in rests on."""
PATIENCE = 5.0
"""Seconds in which a credential program is not asked twice for what was refused."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Door:
    """One way in, and the connections through it. `tls` None: plain HTTP.

    `secured` is what the connections were made with, `headers` goes into every request, `stamps`
    are what the files looked like.
    """

    access: Access
    granted: Granted
    headers: Headers = field(repr=False)
    tls: SSLContext | None
    proxy: Proxy | None
    pool: PoolManager
    secured: tuple[object, ...] = field(repr=False)
    stamps: tuple[object, ...]


class Doors:
    """Finds the way in, and keeps it. May be shared by threads."""

    def __init__(self, context: str | None, kubeconfig: str | None, clock: Clock) -> None:
        self._context, self._file, self._clock = context, kubeconfig, clock
        self._lock = threading.RLock()
        self._access: Access | None = None
        self._door: Door | None = None
        self._looked = self._asked = float("-inf")
        self.hear: Callable[[str], None] = _on_stderr

    @property
    def access(self) -> Access:
        """Where this is, and as whom. Raises `UsageError`."""
        with self._lock:
            if self._access is None:
                self._access = access(self._context, self._file)
            return self._access

    def current(self) -> Door:
        """Return the way in as it is now. Raises `CvlError`."""
        with self._lock:
            door = self._door
            if door is None or self._changed(door) or door.granted.stale():
                door = self._door = self._made(door)
            return door

    def through(self, ask: Callable[[Door], T]) -> T:
        """Return what `ask` returns; a refusal of who we are is met with what is new, once."""
        door = self.current()
        try:
            return ask(door)
        except AuthError:
            if not self._renewed(door):
                raise
        return ask(self.current())

    def _renewed(self, refused: Door) -> bool:
        """Read everything again after a refusal; return whether there is anything new to show."""
        with self._lock:
            if self._door is not refused:
                return True  # another thread was faster
            now = self._clock.monotonic()
            if refused.access.user.get("exec") and now - self._asked < PATIENCE:
                return False
            self._asked = now
            door = self._door = self._made(refused, refused=True)
            return (door.secured, door.headers) != (refused.secured, refused.headers)

    def _made(self, before: Door | None, *, refused: bool = False) -> Door:
        """Return the way in, newly read; what a program gave is kept while it is good.

        Connections stay where only a token is new.
        """
        there = self._reread() if self._access else self.access
        stamps = tuple(map(_stamp, there.files))
        good = before and not refused and not before.granted.stale()
        if before and good and before.access.user.get("exec") == there.user.get("exec"):
            program = before.granted
        else:
            program = granted(there, self.hear)
        shown, certificate = headers(there, program), pair(there, program)
        secured = (there.cluster, there.data(there.cluster, AUTHORITY), *certificate)
        if before and secured == before.secured:
            door = replace(before, access=there, granted=program, headers=shown, stamps=stamps)
        else:
            verified, proxy, connections = _opened(there, certificate)
            if before is None and verified and not verified.check_hostname:
                self.hear(UNVERIFIED.format(there.server))
            door = Door(
                access=there,
                granted=program,
                headers=shown,
                tls=verified,
                proxy=proxy,
                pool=connections,
                secured=secured,
                stamps=stamps,
            )
        self._access = there
        return door

    def _changed(self, door: Door) -> bool:
        """Return whether a file has changed, asked every few seconds."""
        if self._clock.monotonic() - self._looked < LOOK:
            return False
        self._looked = self._clock.monotonic()
        return tuple(map(_stamp, door.access.files)) != door.stamps

    def _reread(self) -> Access:
        """Return the configuration as it stands now, of this very server; else as it was.

        One that is just being written, or names another cluster, is not taken: who we are there
        is nobody's business here.
        """
        current = self.access
        with suppress(CvlError):
            reread = access(self._context or current.context, self._file)
            if reread.server == current.server:
                return reread
        return current


def _opened(
    there: Access, certificate: tuple[bytes, bytes]
) -> tuple[SSLContext | None, Proxy | None, PoolManager]:
    options: dict[str, Any] = {}
    if name := there.cluster.get("tls-server-name"):
        options = {"server_hostname": name}  # with another option urllib3 would let ssl check none
    own = there.cluster.get("proxy-url")
    proxy = named(own, "the kubeconfig's proxy-url") if own else None
    verified = tls(there, *certificate)
    return verified, proxy, pool(EXTRA, verified, proxy, num_pools=2, maxsize=STREAMS, **options)


def _on_stderr(words: str) -> None:
    """Say it on stderr, where nobody else has said that he hears it."""
    with suppress(OSError):
        sys.stderr.write(one_line(clean(f"cvl: {words}")) + "\n")


def _stamp(file: Path) -> object:
    """Return what changes when a file does."""
    try:
        stat = file.stat()
    except (OSError, ValueError) as error:
        return str(error)
    return (stat.st_mtime_ns, stat.st_size, stat.st_ino)
