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

from cvl.core import replies
from cvl.core.credential_program import Program, answer
from cvl.core.errors import AuthError, MissingTool, UsageError
from cvl.providers.kubernetes.kubeconfig import Access, Entry, on

SILENCE_LIMIT = 60.0
"""Seconds that it may take without a word."""
ASKING_LIMIT = 900.0
"""Seconds that it may take once it has said something: somebody may have to log in elsewhere."""
VERSIONS = ("v1", "v1beta1")
MODES = ("Never", "IfAvailable", "Always")
GROUP = "client.authentication.k8s.io"
LOGIN = "log in to the cluster again, with the tool that wrote your kubeconfig"


def ask(access: Access, hear: Callable[[str], None]) -> Entry:
    """Run the program; return the `status` of what it prints. `hear` gets its words, line by line.

    Raises `AuthError`, `MissingTool` and `UsageError`.
    """
    plugin = access.user["exec"]
    argv, version = _command(plugin), plugin.get("apiVersion", "")
    if version.rpartition("/")[2] not in VERSIONS:
        raise UsageError(f"the kubeconfig's exec plugin speaks {version[:80]!r}, not v1 or v1beta1")
    terminal = _terminal(plugin, argv[0])
    program = Program(
        argv=argv,
        failure=", which gives the credentials, failed",
        hint=LOGIN,
        silence=SILENCE_LIMIT,
        asking=ASKING_LIMIT,
        terminal=terminal,
        env=_environment(access, version, interactive=terminal),
    )
    name = PurePath(argv[0]).name
    return _status(answer(program, lambda line: hear(f"{name}: {line}")), version, argv[0])


def _terminal(plugin: Entry, name: str) -> bool:
    """Return whether it gets our terminal. Raises `AuthError` where it needs one that is none."""
    mode = plugin.get("interactiveMode") or "IfAvailable"
    if mode not in MODES:
        raise UsageError(
            f"the kubeconfig's interactiveMode {mode!r} is none", f"there are: {', '.join(MODES)}"
        )
    here = bool(sys.stdin and not sys.stdin.closed and sys.stdin.isatty())
    if mode == "Always" and not here:
        raise AuthError(f"{name}, which gives the credentials, needs a terminal to ask", LOGIN)
    return here and mode != "Never"


def _command(plugin: Entry) -> list[str]:
    name = plugin.get("command", "")
    path = name if "/" in name else shutil.which(name)
    if path is None:
        raise MissingTool(
            f"{name} not installed, which your kubeconfig needs",
            plugin.get("installHint") or "install it, or take another context",
        )
    return [path, *plugin.get("args", ())]


def _environment(access: Access, version: str, *, interactive: bool) -> Mapping[str, str]:
    plugin = access.user["exec"]
    spec: dict[str, Any] = {"interactive": interactive}
    if on(plugin, "provideClusterInfo"):
        spec["cluster"] = _cluster(access)
    info = {"apiVersion": version, "kind": "ExecCredential", "spec": spec}
    own = {each.get("name", ""): each.get("value", "") for each in plugin.get("env", ())}
    return {**os.environ, "KUBERNETES_EXEC_INFO": json.dumps(info), **own}


def _cluster(access: Access) -> Entry:
    """Return what the protocol tells of a cluster, with what the kubeconfig keeps for it."""
    cluster = access.cluster
    texts = {name: cluster[name] for name in ("tls-server-name", "proxy-url") if cluster.get(name)}
    switches = ("insecure-skip-tls-verify", "disable-compression")
    values = {**texts, **{name: True for name in switches if on(cluster, name)}}
    if authority := access.data(cluster, "certificate-authority"):
        values["certificate-authority-data"] = base64.b64encode(authority).decode()
    extensions = {each.get("name"): each.get("extension") for each in cluster.get("extensions", ())}
    return {"server": access.server, **values, "config": extensions.get(f"{GROUP}/exec")}


def _status(out: bytes, version: str, name: str) -> Entry:
    """Return the credential that was printed. Raises `AuthError` for what is none."""
    try:
        said = replies.entry(replies.parsed(out))
    except ValueError:
        said = {}
    status = replies.entry(said.get("status"))
    spoken = str(said.get("apiVersion") or version)
    if status and spoken != version:
        raise AuthError(f"{name} speaks {spoken[:80]}, the kubeconfig says {version}", LOGIN)
    names = ("token", "clientCertificateData", "clientKeyData", "expirationTimestamp")
    texts = {each: replies.text(status.get(each)) for each in names}
    pair = bool(texts["clientCertificateData"]) == bool(texts["clientKeyData"])
    odd = any(status.get(each) and not texts[each] for each in names)
    if odd or not pair or not (texts["token"] or texts["clientCertificateData"]):
        raise AuthError(f"{name} gave no credential", LOGIN)
    return texts
