"""The program that a kubeconfig names for its credentials; it gets a terminal where it wants one.

Its protocol is `client.authentication.k8s.io`, v1 and v1beta1:
https://kubernetes.io/docs/reference/access-authn-authz/authentication/#client-go-credential-plugins
"""

from __future__ import annotations

import base64
import json
import os
import shutil
import sys
from collections.abc import Callable, Mapping
from pathlib import PurePath
from typing import Any

from cvl.core.credential_program import Program, answer
from cvl.core.errors import AuthError, MissingTool, UsageError
from cvl.providers.kubernetes.kubeconfig import Access

SILENCE_LIMIT = 60.0
"""Seconds that it may take without a word."""
ASKING_LIMIT = 900.0
"""Seconds that it may take once it has said something: somebody may have to log in elsewhere."""
VERSIONS = ("v1", "v1beta1")
MODES = ("Never", "IfAvailable", "Always")
GROUP = "client.authentication.k8s.io"
LOGIN = "log in to the cluster again, with the tool that wrote your kubeconfig"


def ask(access: Access, hear: Callable[[str], None]) -> Mapping[str, Any]:
    """Run the program; return the `status` of what it prints. `hear` gets its words, line by line.

    Raises `AuthError`, `MissingTool` and `UsageError`.
    """
    plugin = access.user["exec"]
    argv, version = _command(access), str(plugin.get("apiVersion", ""))
    if version.rpartition("/")[2] not in VERSIONS:
        raise UsageError(f"the kubeconfig's exec plugin speaks {version!r}, not v1 or v1beta1")
    terminal = _terminal(plugin, argv[0])
    program = Program(
        argv=argv,
        gives="the credentials",
        hint=LOGIN,
        silence=SILENCE_LIMIT,
        asking=ASKING_LIMIT,
        terminal=terminal,
        env=_environment(access, version, interactive=terminal),
    )
    name = PurePath(argv[0]).name
    return _status(answer(program, lambda line: hear(f"{name}: {line}")), version, argv[0])


def _terminal(plugin: Mapping[str, Any], name: str) -> bool:
    """Return whether it gets our terminal. Raises `AuthError` where it needs one that is none."""
    mode = str(plugin.get("interactiveMode") or "IfAvailable")
    if mode not in MODES:
        raise UsageError(
            f"the kubeconfig's interactiveMode {mode!r} is none", f"there are: {', '.join(MODES)}"
        )
    here = bool(sys.stdin and not sys.stdin.closed and sys.stdin.isatty())
    if mode == "Always" and not here:
        raise AuthError(f"{name}, which gives the credentials, needs a terminal to ask", LOGIN)
    return here and mode != "Never"


def _command(access: Access) -> list[str]:
    plugin = access.user["exec"]
    name = str(plugin.get("command", ""))
    path = str(access.folder / name) if "/" in name else shutil.which(name)
    if path is None:
        raise MissingTool(
            f"{name} not installed, which your kubeconfig needs",
            str(plugin.get("installHint") or "install it, or take another context"),
        )
    return [path, *map(str, plugin.get("args") or ())]


def _environment(access: Access, version: str, *, interactive: bool) -> Mapping[str, str]:
    plugin = access.user["exec"]
    spec: dict[str, Any] = {"interactive": interactive}
    if plugin.get("provideClusterInfo"):
        spec["cluster"] = _cluster(access)
    info = {"apiVersion": version, "kind": "ExecCredential", "spec": spec}
    own = {str(each["name"]): str(each.get("value", "")) for each in plugin.get("env") or ()}
    return {**os.environ, "KUBERNETES_EXEC_INFO": json.dumps(info), **own}


def _cluster(access: Access) -> Mapping[str, Any]:
    """Return what the protocol tells of a cluster, with what the kubeconfig keeps for it."""
    cluster = access.cluster
    names = ("tls-server-name", "insecure-skip-tls-verify", "proxy-url", "disable-compression")
    values = {name: cluster[name] for name in names if cluster.get(name)}
    if authority := access.data(cluster, "certificate-authority"):
        values["certificate-authority-data"] = base64.b64encode(authority).decode()
    extensions = {str(each.get("name")): each for each in cluster.get("extensions") or ()}
    own = extensions.get(f"{GROUP}/exec", {}).get("extension")
    return {"server": access.server, **values, "config": own}


def _status(out: bytes, version: str, name: str) -> Mapping[str, Any]:
    """Return the credential that was printed. Raises `AuthError` for what is none."""
    try:
        answer = json.loads(out)
        status: Mapping[str, Any] = answer["status"]
        spoken = str(answer.get("apiVersion") or version)
        texts = ("token", "clientCertificateData", "clientKeyData", "expirationTimestamp")
        good = all(isinstance(status.get(each), str | None) for each in texts)
        pair = bool(status.get("clientCertificateData")) == bool(status.get("clientKeyData"))
        some = status.get("token") or status.get("clientCertificateData")
    except (ValueError, KeyError, TypeError, AttributeError, RecursionError):
        raise AuthError(f"{name} gave no credential", LOGIN) from None
    if spoken != version:
        raise AuthError(f"{name} speaks {spoken[:80]}, the kubeconfig says {version}", LOGIN)
    if not (good and pair and some):
        raise AuthError(f"{name} gave no credential", LOGIN)
    return status
