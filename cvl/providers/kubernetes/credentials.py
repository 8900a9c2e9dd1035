"""Who we are to a cluster: a certificate, a token, a file with one, or a program that gives one.

And as whom we act, where the kubeconfig says so (`as`):
https://kubernetes.io/docs/reference/access-authn-authz/authentication/#user-impersonation
"""

from __future__ import annotations

import base64
import ssl
import tempfile
import time
from collections.abc import Callable, Mapping, Sequence
from dataclasses import field
from datetime import UTC, datetime
from math import inf
from pathlib import Path
from typing import Any
from urllib.parse import quote

from cvl.core import replies
from cvl.core.api_key import checked
from cvl.core.errors import AuthError, UsageError
from cvl.core.frozen import dataclass
from cvl.core.http.secure_url import address
from cvl.core.http.tls import context as verified
from cvl.core.octets import octets
from cvl.core.paths import replace_file
from cvl.core.secrets import learn
from cvl.providers.kubernetes import kubeconfig_file
from cvl.providers.kubernetes.exec_plugin import LOGIN, ask
from cvl.providers.kubernetes.kubeconfig import Access

EARLY = 30.0
"""Seconds before its expiry from which a credential is renewed."""
WHICH = "the token of the kubeconfig"
LEGACY = ("id-token", "access-token")
"""Where an auth-provider, which Kubernetes had before exec plugins, keeps its token."""
Headers = Sequence[tuple[str, str]]
"""What goes into a request: a name may come more than once."""


@dataclass(frozen=True, slots=True, kw_only=True)
class ExecCredential:
    """What a program gave, and until when that is good: UTC epoch seconds."""

    status: Mapping[str, Any] = field(repr=False)
    expires: float


class Credentials:
    """What proves who we are, as one kubeconfig has it. Not for two threads at once."""

    def __init__(
        self,
        access: Access,
        hear: Callable[[str], None] = lambda _: None,
        credential: ExecCredential | None = None,
    ) -> None:
        """Asks nobody yet. `hear` gets what a credential program says.

        `credential` is what that program gave before, None for nothing.
        """
        self._access, self._hear = access, hear
        self.credential = credential

    def headers(self) -> Headers:
        """Return what goes into every request.

        Raises `AuthError`, `MissingTool` and `UsageError`, that also where it would be sent
        unencrypted to another machine: kubectl sends nothing then either.
        """
        user, acting = self._access.user, tuple(self._acting())
        if token := self._token():
            self._look_at_the_way()
            return (("Authorization", f"Bearer {checked(token, WHICH)}"), *acting)
        if user.get("username"):
            self._look_at_the_way()
            learn(str(user.get("password", "")))
            pair = octets(f"{user['username']}:{user.get('password', '')}")
            return (("Authorization", f"Basic {base64.b64encode(pair).decode()}"), *acting)
        return acting

    def stale(self) -> bool:
        """Return whether a program has to be asked again: what it gave has expired."""
        return self.credential is not None and time.time() > self.credential.expires - EARLY

    def tls(self) -> ssl.SSLContext | None:
        """Return how the server is verified and we are, None for plain HTTP."""
        access = self._access
        if not access.server.startswith("https://"):
            return None
        authority = access.data(access.cluster, "certificate-authority")
        try:
            context = verified(authority.decode() if authority else None)
        except (OSError, ValueError, TypeError) as error:
            raise UsageError(f"the kubeconfig's certificate-authority is none: {error}") from error
        if access.cluster.get("insecure-skip-tls-verify"):  # the user's own word, as for kubectl
            context.check_hostname = False
            context.verify_mode = ssl.CERT_NONE
        self._certify(context)
        return context

    def pair(self) -> tuple[bytes, bytes]:
        """Return certificate and key, each b"" for none: the kubeconfig's, else the program's.

        Raises as `headers`.
        """
        access = self._access
        if not access.server.startswith("https://"):
            return b"", b""
        certificate = access.data(access.user, "client-certificate")
        key = access.data(access.user, "client-key")
        if access.user.get("exec") and not certificate:
            credential = self._plugin()
            certificate = (credential.get("clientCertificateData") or "").encode()
            key = (credential.get("clientKeyData") or "").encode()
        return certificate or b"", key or b""

    def _look_at_the_way(self) -> None:
        if not self._access.server.startswith("https://"):
            address(self._access.server, f"the server of context {self._access.context}")

    def _certify(self, context: ssl.SSLContext) -> None:
        certificate, key = self.pair()
        if not certificate:
            return
        with tempfile.TemporaryDirectory() as folder:  # ssl takes files only; the folder is 0700
            pair = Path(folder, "pair.pem")
            replace_file(pair, certificate + b"\n" + key)
            try:
                # with no passphrase at all ssl would ask for one on the terminal, and wait
                context.load_cert_chain(pair, password=lambda: "")
            except (OSError, ValueError) as error:
                raise AuthError(f"the client certificate is of no use: {error}", LOGIN) from error

    def _token(self) -> str:
        user = self._access.user
        if user.get("exec"):
            return str(self._plugin().get("token") or "")
        if path := user.get("tokenFile"):
            try:
                return kubeconfig_file.content(Path(path)).decode().strip()
            except UsageError as error:
                raise AuthError(f"no token: {error}", LOGIN) from error
            except UnicodeDecodeError:
                raise AuthError(f"no token: {path}: it is no text", LOGIN) from None
        if user.get("auth-provider"):
            return _legacy(user["auth-provider"])
        return str(user.get("token") or "")

    def _plugin(self) -> Mapping[str, Any]:
        if self.credential is None:
            status = ask(self._access, self._hear)
            learn(str(status.get("token") or ""))
            due = _epoch(status.get("expirationTimestamp"))
            self.credential = ExecCredential(status=status, expires=due)
        return self.credential.status

    def _acting(self) -> Headers:
        """Return whom we act as. Raises `UsageError` for what no header can hold."""
        user = self._access.user
        groups, more = user.get("as-groups") or (), user.get("as-user-extra") or {}
        headers = [("Impersonate-Uid", user.get("as-uid"))]
        headers += [("Impersonate-Group", group) for group in groups]
        headers += [
            (f"Impersonate-Extra-{_escaped(name)}", value)
            for name, values in more.items()
            for value in values or ()
        ]
        headers = [(name, value) for name, value in headers if value]
        if not user.get("as"):
            if headers:
                raise UsageError(
                    "the kubeconfig names groups to act as, and no user",
                    "give its user an `as:`, or take `as-groups`, `as-uid`, `as-user-extra` out",
                )
            return ()
        headers.insert(0, ("Impersonate-User", user["as"]))
        return [(name, _plain(value)) for name, value in headers]


def _legacy(provider: object) -> str:
    """Return the token that an auth-provider keeps in the kubeconfig, while it is good."""
    config = replies.entry(replies.entry(provider).get("config"))
    token = next((str(config[name]) for name in LEGACY if config.get(name)), "")
    if not token:
        raise UsageError(
            "the kubeconfig uses an auth-provider, which Kubernetes has given up",
            "let your cluster's tool write it anew, with an exec plugin",
        )
    if time.time() > _epoch(config.get("expiry")):
        raise AuthError("the token that the kubeconfig's auth-provider keeps has expired", LOGIN)
    return token


def _epoch(text: object) -> float:
    """Return the UTC epoch seconds that an expiry tells, without end for none. `AuthError`."""
    if not text:
        return inf
    try:
        due = text if isinstance(text, datetime) else datetime.fromisoformat(str(text).strip())
        return (due if due.tzinfo else due.replace(tzinfo=UTC)).timestamp()
    except (ValueError, OverflowError):
        words = str(text)[:80]
        raise AuthError(f"the credential's expiry is no date: {words!r}", LOGIN) from None


def _escaped(name: object) -> str:
    """Return a name as a header's name can hold it."""
    return quote(str(name).lower(), safe="!#$&'*+^`|")


def _plain(value: object) -> str:
    """Return a value as a header holds it: its bytes are UTF-8, whatever a library makes of it."""
    text = str(value)
    if not text.isprintable():
        raise UsageError("the kubeconfig's `as` holds a line break or the like", "correct it there")
    return text.encode().decode("latin-1")
