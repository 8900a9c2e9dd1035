"""What an answer of the API server lets one conclude: ask again, log in again, or nothing was done.

A failure is a `Status` object: `reason`, `message`, `code`.
https://github.com/kubernetes/community/blob/master/contributors/devel/sig-architecture/api-conventions.md
"""

from __future__ import annotations

import json
import re
from collections.abc import Iterable, Iterator, Mapping
from contextlib import contextmanager
from http import HTTPStatus
from typing import Any

from cvl.core.errors import (
    AuthError,
    CvlError,
    Denied,
    Missing,
    NotConnected,
    Rejected,
    Taken,
    Unreachable,
    UsageError,
    used_up,
)
from cvl.core.extras import Extra
from cvl.core.http.errors import Trouble, reason, trouble
from cvl.providers.kubernetes.exec_plugin import LOGIN

EXTRA = Extra(name="k8s", modules=("websockets", "urllib3"))
FORBIDDEN = re.compile(
    r"cannot (?P<verb>\S+) resource \"(?P<what>[^\"]+)\""
    r"(?: in API group \"(?P<group>[^\"]*)\")?(?P<where> in the namespace \"[^\"]+\")?"
)
QUOTA = "exceeded quota"
PASSING = {HTTPStatus.TOO_MANY_REQUESTS, HTTPStatus.REQUEST_TIMEOUT}
WRONG = "see `server`, `tls-server-name` and `proxy-url` in the kubeconfig, and HTTPS_PROXY"
UNTRUSTED = "see `certificate-authority` in the kubeconfig; " + LOGIN
REFUSED = re.compile(r"ALERT_\w{0,40}(CERTIFICATE|ACCESS_DENIED|UNKNOWN_CA|HANDSHAKE_FAILURE)")
Right = tuple[str, str, str]
"""API group, resource, verb."""
SHOWN = 300
"""Characters of an answer that is no Status."""


class NotYet(Rejected):
    """It makes no sense now and may later: the log of a container that has not started (400)."""


KINDS: Mapping[int, type[CvlError]] = {
    HTTPStatus.NOT_FOUND: Missing,
    HTTPStatus.CONFLICT: Taken,
    HTTPStatus.BAD_REQUEST: NotYet,
}


@contextmanager
def understandable(server: str) -> Iterator[None]:
    """Have whatever a library raises on the way to the API server say what follows from it.

    `NotConnected`, `Unreachable`: it may pass. `AuthError`: we do not trust its certificate.
    `UsageError`: it cannot be called as it stands in the kubeconfig, now or later.
    """
    try:
        yield
    except CvlError:
        raise
    except Exception as error:
        raise used_up(error) or _unanswered(server, error) from error


def _unanswered(server: str, error: Exception) -> CvlError:
    if (refused := certificate_refused(error)) is not None:
        return refused
    what, why = trouble(error), reason(error)
    if what is Trouble.WRONG:
        return UsageError(f"{server} cannot be called: {why}", WRONG)
    if what is Trouble.UNTRUSTED:
        return AuthError(f"the certificate of {server} is not trusted: {why}", UNTRUSTED)
    kind = NotConnected if what is Trouble.NEVER else Unreachable
    return kind(f"no answer from {server}: {why}")


def certificate_refused(error: Exception) -> AuthError | None:
    """Return what it means that the server does not take our certificate, None if it is not that.

    TLS says so in the middle of the first answer; of the request nothing was heeded then.
    """
    if not REFUSED.search(str(error)):
        return None
    return AuthError(f"the cluster does not accept our certificate: {reason(error)}", LOGIN)


def understood(code: int, body: bytes) -> CvlError:
    """Return what a refusal means to us. Raises nothing."""
    message = _message(body) or f"the API server answered {code}"
    if code == HTTPStatus.UNAUTHORIZED:
        return AuthError(f"the cluster does not accept who we are: {message}", LOGIN)
    if code in PASSING or code >= HTTPStatus.INTERNAL_SERVER_ERROR:
        busy = Unreachable(f"the API server is busy or failing ({code}): {message}")
        busy.answered = True
        return busy
    if code == HTTPStatus.FORBIDDEN:
        return Denied(message, permission(message))
    return KINDS.get(code, Rejected)(message)


def permission(message: str) -> str:
    """Return what to ask for, by the words of a refusal."""
    if QUOTA in message:
        return "ask for less, wait until others have ended, or ask for a larger quota"
    match = FORBIDDEN.search(message)
    if not match:
        return "ask for that permission, or take another context"
    kind = "Role" if match["where"] else "ClusterRole"
    return f"ask for a {kind} with {rules([(match['group'] or '', match['what'], match['verb'])])}"


def rules(rights: Iterable[Right]) -> str:
    """Return rights as the rules of a Role, for a person."""
    grouped: dict[tuple[str, str], list[str]] = {}
    for group, resource, verb in rights:
        grouped.setdefault((group, resource), []).append(verb)
    return "; ".join(
        f'apiGroups: ["{group}"], resources: ["{resource}"], verbs: {json.dumps(verbs)}'
        for (group, resource), verbs in grouped.items()
    )


def _message(body: bytes) -> str:
    try:
        status: Any = json.loads(body)
        return str(status["message"]).strip()
    except (ValueError, KeyError, TypeError, RecursionError):
        return " ".join(body[:SHOWN].decode(errors="replace").split())
