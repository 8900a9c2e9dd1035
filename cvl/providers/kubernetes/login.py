"""The way into a cluster, made anew when who we are has changed: a login, a file, a program's word.

Files are looked at every few seconds, so a run that is followed for days takes what was renewed
meanwhile; what is refused is read again at once, once.
"""

from __future__ import annotations

import sys
import threading
from collections.abc import Callable
from contextlib import suppress
from dataclasses import field
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
from cvl.providers.kubernetes.credentials import Credentials, Headers
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

    `secured` is what the connections were made with, `shown` what was shown in requests at first,
    `stamps` what the files looked like.
    """

    access: Access
    who: Credentials
    tls: SSLContext | None
    proxy: Proxy | None
    pool: PoolManager
    secured: tuple[object, ...] = field(repr=False)
    shown: tuple[object, ...] = field(repr=False)
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

    def current(self) -> tuple[Door, Headers]:
        """Return the way in as it is now, and what goes into a request. Raises `CvlError`."""
        with self._lock:
            if self._door is None:
                self._access = self._reread() if self._access else self.access
                self._door = self._new_door(self._access)
            elif self._changed(self._door):
                self._replace(self._reread(), keep=True)
            elif self._door.who.stale():
                self._replace(self._door.access, keep=False)
            return self._door, self._door.who.headers()

    def through(self, ask: Callable[[Door, Headers], T]) -> T:
        """Return what `ask` returns; a refusal of who we are is met with what is new, once."""
        door, headers = self.current()
        try:
            return ask(door, headers)
        except AuthError:
            if not self.renewed(door, headers):
                raise
        return ask(*self.current())

    def renewed(self, refused: Door, headers: Headers) -> bool:
        """Read everything again after a refusal; return whether there is anything new to show."""
        with self._lock:
            if self._door is not refused:
                return True  # another thread was faster
            if tuple(refused.who.headers()) != tuple(headers):
                return True
            program = refused.access.user.get("exec")
            if program and self._clock.monotonic() - self._asked < PATIENCE:
                return False
            self._asked = self._clock.monotonic()
            return self._replace(self._reread(), keep=False)

    def _replace(self, there: Access, *, keep: bool) -> bool:
        """Take a newly read way in; return whether it differs in what a server judges us by.

        `keep` what a program gave while it is good. Connections stay where only a token is new.
        """
        before = self._door
        assert before is not None
        door = self._new_door(there, before, keep=keep)
        self._access, self._door = there, door
        return (door.secured, door.shown) != (before.secured, before.shown)

    def _new_door(self, there: Access, before: Door | None = None, *, keep: bool = False) -> Door:
        stamps = tuple(map(_stamp, there.files))
        same = before and before.access.user.get("exec") == there.user.get("exec")
        credential = before.who.credential if before and same and keep else None
        who = Credentials(there, self._hear, credential)
        secured = (there.cluster, there.data(there.cluster, AUTHORITY), *who.pair())
        if before and secured == before.secured:
            connection = (before.tls, before.proxy, before.pool)
        else:
            connection = _opened(there, who, self._hear if before is None else lambda _: None)
        tls, proxy, connections = connection
        return Door(
            access=there,
            who=who,
            tls=tls,
            proxy=proxy,
            pool=connections,
            secured=secured,
            shown=tuple(who.headers()),
            stamps=stamps,
        )

    def _hear(self, words: str) -> None:
        self.hear(words)

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
    there: Access, who: Credentials, hear: Callable[[str], None]
) -> tuple[SSLContext | None, Proxy | None, PoolManager]:
    options: dict[str, Any] = {}
    if name := there.cluster.get("tls-server-name"):
        options = {"server_hostname": name}  # with another option urllib3 would let ssl check none
    own = there.cluster.get("proxy-url")
    proxy = named(str(own), "the kubeconfig's proxy-url") if own else None
    tls = who.tls()
    if tls and not tls.check_hostname:
        hear(UNVERIFIED.format(there.server))
    return tls, proxy, pool(EXTRA, tls, proxy, num_pools=2, maxsize=STREAMS, **options)


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
