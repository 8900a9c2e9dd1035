"""Who we are to a cluster: a certificate, a token, a file with one, or a program that gives one.

And as whom we act, where the kubeconfig says so (`as`):
https://kubernetes.io/docs/reference/access-authn-authz/authentication/#user-impersonation
"""

from __future__ import annotations

import base64
import ssl
import tempfile
import time
from collections.abc import Callable
from dataclasses import field
from datetime import UTC, datetime
from math import inf
from pathlib import Path
from urllib.parse import quote

from cvl.core.api_key import checked
from cvl.core.errors import AuthError, UsageError
from cvl.core.frozen import dataclass
from cvl.core.http.secure_url import address
from cvl.core.http.tls import context as verified
from cvl.core.octets import octets
from cvl.core.paths import replace_file
from cvl.core.secrets import learn
from cvl.core.yaml_file import content
from cvl.providers.kubernetes.exec_plugin import LOGIN, ask
from cvl.providers.kubernetes.kubeconfig import LIMIT, Access, Entry, on

EARLY = 30.0
"""Seconds before its expiry from which a credential is renewed."""
WHICH = "the token of the kubeconfig"
LEGACY = ("id-token", "access-token")
"""Where an auth-provider, which Kubernetes had before exec plugins, keeps its token."""
NAME = "!#$&'*+^`|"
"""What else the name of a header may hold."""
Headers = tuple[tuple[str, str], ...]
"""What goes into a request: a name may come more than once."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Granted:
    """What a program gave, and until when that is good: UTC epoch seconds."""

    status: Entry = field(default_factory=dict, repr=False)
    expires: float = inf

    def stale(self) -> bool:
        """Return whether a program has to be asked again."""
        return time.time() > self.expires - EARLY


def granted(access: Access, hear: Callable[[str], None]) -> Granted:
    """Ask the program that the kubeconfig names, if it does; `hear` gets what that says.

    Raises `AuthError`, `MissingTool` and `UsageError`.
    """
    if not access.user.get("exec"):
        return Granted()
    status = ask(access, hear)
    learn(status["token"])
    return Granted(status=status, expires=_epoch(status["expirationTimestamp"]))


def headers(access: Access, program: Granted) -> Headers:
    """Return what goes into every request.

    Raises `AuthError` and `UsageError`, that also where it would be sent unencrypted to another
    machine: kubectl sends nothing then either.
    """
    user, acting = access.user, _acting(access.user)
    token = _token(user, program)
    if not (token or user.get("username")):
        return acting
    if not access.server.startswith("https://"):
        address(access.server, f"the server of context {access.context}")
    if token:
        return (("Authorization", f"Bearer {checked(token, WHICH)}"), *acting)
    password = user.get("password", "")
    learn(password)
    login = base64.b64encode(octets(f"{user['username']}:{password}")).decode()
    return (("Authorization", f"Basic {login}"), *acting)


def pair(access: Access, program: Granted) -> tuple[bytes, bytes]:
    """Return certificate and key, each b"" for none: the kubeconfig's, else the program's.

    Raises `UsageError`.
    """
    user, status = access.user, program.status
    if not access.server.startswith("https://"):
        return b"", b""
    certificate, key = (access.data(user, f"client-{part}") for part in ("certificate", "key"))
    if status and not certificate:
        return status["clientCertificateData"].encode(), status["clientKeyData"].encode()
    return certificate or b"", key or b""


def tls(access: Access, certificate: bytes, key: bytes) -> ssl.SSLContext | None:
    """Return how the server is verified and we are, None for plain HTTP.

    Raises `AuthError` and `UsageError`.
    """
    if not access.server.startswith("https://"):
        return None
    authority = access.data(access.cluster, "certificate-authority")
    try:
        context = verified(authority.decode() if authority else None)
    except (OSError, ValueError, TypeError) as error:
        raise UsageError(f"the kubeconfig's certificate-authority is none: {error}") from error
    if on(access.cluster, "insecure-skip-tls-verify"):  # the user's own word, as for kubectl
        context.check_hostname = False
        context.verify_mode = ssl.CERT_NONE
    if certificate:
        _certify(context, certificate + b"\n" + key)
    return context


def _certify(context: ssl.SSLContext, pem: bytes) -> None:
    with tempfile.TemporaryDirectory() as folder:  # ssl takes files only; the folder is 0700
        file = Path(folder, "pair.pem")
        replace_file(file, pem)
        try:
            # with no passphrase at all ssl would ask for one on the terminal, and wait
            context.load_cert_chain(file, password=lambda: "")
        except (OSError, ValueError) as error:
            raise AuthError(f"the client certificate is of no use: {error}", LOGIN) from error


def _token(user: Entry, program: Granted) -> str:
    if user.get("exec"):
        return str(program.status["token"])
    if path := user.get("tokenFile"):
        try:
            return content(Path(path), LIMIT).decode().strip()
        except UsageError as error:
            raise AuthError(f"no token: {error}", LOGIN) from error
        except UnicodeDecodeError:
            raise AuthError(f"no token: {path}: it is no text", LOGIN) from None
    if user.get("auth-provider"):
        return _legacy(user["auth-provider"].get("config", {}))
    return str(user.get("token", ""))


def _legacy(config: Entry) -> str:
    """Return the token that an auth-provider keeps in the kubeconfig, while it is good."""
    token = next((str(config[name]) for name in LEGACY if config.get(name)), "")
    if not token:
        raise UsageError(
            "the kubeconfig uses an auth-provider, which Kubernetes has given up",
            "let your cluster's tool write it anew, with an exec plugin",
        )
    if time.time() > _epoch(config.get("expiry", "")):
        raise AuthError("the token that the kubeconfig's auth-provider keeps has expired", LOGIN)
    return token


def _epoch(text: str) -> float:
    """Return the UTC epoch seconds that an expiry tells, without end for none. `AuthError`."""
    if not text:
        return inf
    try:
        due = datetime.fromisoformat(text.strip())
        return (due if due.tzinfo else due.replace(tzinfo=UTC)).timestamp()
    except (ValueError, OverflowError):
        raise AuthError(f"the credential's expiry is no date: {text[:80]!r}", LOGIN) from None


def _acting(user: Entry) -> Headers:
    """Return whom we act as. Raises `UsageError` for what no header can hold."""
    every = [("Impersonate-User", user.get("as")), ("Impersonate-Uid", user.get("as-uid"))]
    every += [("Impersonate-Group", group) for group in user.get("as-groups", ())]
    every += [
        (f"Impersonate-Extra-{quote(name.lower(), safe=NAME)}", value)
        for name, values in user.get("as-user-extra", {}).items()
        for value in values
    ]
    told = tuple((name, _plain(value)) for name, value in every if value)
    if told and not user.get("as"):
        raise UsageError(
            "the kubeconfig names groups to act as, and no user",
            "give its user an `as:`, or take `as-groups`, `as-uid`, `as-user-extra` out",
        )
    return told


def _plain(text: str) -> str:
    """Return a value as a header holds it: its bytes are UTF-8, whatever a library makes of it."""
    if not text.isprintable():
        raise UsageError("the kubeconfig's `as` holds a line break or the like", "correct it there")
    return text.encode().decode("latin-1")
