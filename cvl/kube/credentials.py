"""Who we are to a cluster: a certificate, a token, a file with one, or a program that gives one.

The program's protocol is `client.authentication.k8s.io`, v1 and v1beta1:
https://kubernetes.io/docs/reference/access-authn-authz/authentication/#client-go-credential-plugins
"""

from __future__ import annotations

import base64
import json
import os
import shutil
import ssl
import subprocess
import tempfile
import time
from collections.abc import Mapping
from datetime import datetime
from pathlib import Path
from typing import Any

from cvl.encrypted import address
from cvl.errors import AuthError, MissingTool, UsageError
from cvl.hidden import key, learn
from cvl.kube.kubeconfig import Access
from cvl.paths import replace_file

PLUGIN_LIMIT = 60.0
"""Seconds that a credential program may take; it may ask somebody."""
EARLY = 30.0
"""Seconds before its expiry from which a credential is renewed."""
VERSIONS = ("v1", "v1beta1")
WHICH = "the token of the kubeconfig"
LOGIN = "log in to the cluster again, with the tool that wrote your kubeconfig"


class Credentials:
    """What proves who we are, renewed when it has expired. Not for two threads at once."""

    def __init__(self, access: Access) -> None:
        """Asks nobody yet."""
        self._access = access
        self._given: Mapping[str, Any] = {}
        self._expires = 0.0

    def header(self, *, renew: bool = False) -> Mapping[str, str]:
        """Return what goes into every request. `renew`: the last was not accepted.

        Raises `AuthError`, `MissingTool` and `UsageError`, that also where it would be sent
        unencrypted to another machine: kubectl sends nothing then either.
        """
        user = self._access.user
        if token := self._token(renew=renew):
            self._look_at_the_way()
            return {"Authorization": f"Bearer {key(token, WHICH)}"}
        if user.get("username"):
            self._look_at_the_way()
            learn(str(user.get("password", "")))
            pair = f"{user['username']}:{user.get('password', '')}".encode()
            return {"Authorization": f"Basic {base64.b64encode(pair).decode()}"}
        return {}

    def _look_at_the_way(self) -> None:
        if not self._access.server.startswith("https://"):
            address(self._access.server, f"the server of context {self._access.context}")

    def renewable(self) -> bool:
        """Return whether asking again may give another answer."""
        return bool(self._access.user.get("exec") or self._access.user.get("tokenFile"))

    def tls(self) -> ssl.SSLContext | None:
        """Return how the server is verified and we are, None for plain HTTP."""
        access = self._access
        if not access.server.startswith("https://"):
            return None
        authority = access.data(access.cluster, "certificate-authority")
        try:
            context = ssl.create_default_context(cadata=authority.decode() if authority else None)
        except (ssl.SSLError, UnicodeDecodeError) as error:
            raise UsageError(f"the kubeconfig's certificate-authority is none: {error}") from error
        if access.cluster.get("insecure-skip-tls-verify"):  # the user's own word, as for kubectl
            context.check_hostname = False
            context.verify_mode = ssl.CERT_NONE
        self._certify(context)
        return context

    def _certify(self, context: ssl.SSLContext) -> None:
        access = self._access
        certificate = access.data(access.user, "client-certificate")
        key = access.data(access.user, "client-key")
        if access.user.get("exec") and not certificate:
            given = self._plugin(renew=False)
            certificate = (given.get("clientCertificateData") or "").encode()
            key = (given.get("clientKeyData") or "").encode()
        if not certificate:
            return
        with tempfile.TemporaryDirectory() as folder:  # ssl takes files only; the folder is 0700
            pair = Path(folder, "pair.pem")
            replace_file(pair, certificate + b"\n" + (key or b""))
            try:
                context.load_cert_chain(pair)
            except (ssl.SSLError, OSError) as error:
                raise AuthError(f"the client certificate is of no use: {error}", LOGIN) from error

    def _token(self, *, renew: bool) -> str:
        user = self._access.user
        if user.get("exec"):
            return str(self._plugin(renew=renew).get("token") or "")
        if path := user.get("tokenFile"):
            try:
                return Path(path).read_text("utf-8").strip()
            except OSError as error:
                raise AuthError(f"no token: {path}: {error.strerror}", LOGIN) from error
        if user.get("auth-provider"):
            raise UsageError(
                "the kubeconfig uses an auth-provider, which Kubernetes has given up",
                "let your cluster's tool write it anew, with an exec plugin",
            )
        return str(user.get("token") or "")

    def _plugin(self, *, renew: bool) -> Mapping[str, Any]:
        if renew or not self._given or time.time() > self._expires - EARLY:
            self._given = _asked(self._access)
            due = self._given.get("expirationTimestamp")
            self._expires = datetime.fromisoformat(due).timestamp() if due else float("inf")
        return self._given


def _asked(access: Access) -> Mapping[str, Any]:
    """Run the credential program; return the `status` of what it prints."""
    plugin = access.user["exec"]
    words, version = _command(access), str(plugin.get("apiVersion", "")).rpartition("/")[2]
    if version not in VERSIONS:
        raise UsageError(f"the kubeconfig's exec plugin speaks {version!r}, not v1 or v1beta1")
    try:
        done = subprocess.run(
            words,
            env=_environment(access, version),
            stdin=subprocess.DEVNULL,
            capture_output=True,
            timeout=PLUGIN_LIMIT,
            check=False,
        )
    except OSError as error:
        why = error.strerror or type(error).__name__
        raise AuthError(f"{words[0]}, which gives the credentials, failed: {why}") from error
    except subprocess.TimeoutExpired:
        why = f"no answer within {PLUGIN_LIMIT:g} s"  # its own words would show all arguments
        raise AuthError(f"{words[0]}, which gives the credentials, failed: {why}") from None
    if done.returncode:
        said = done.stderr.decode(errors="replace").strip().splitlines()
        raise AuthError(
            f"{words[0]}, which gives the credentials, failed: {said[-1] if said else ''}", LOGIN
        )
    try:
        status: Mapping[str, Any] = json.loads(done.stdout)["status"]
    except (ValueError, KeyError, TypeError):
        raise AuthError(f"{words[0]} gave no credential", LOGIN) from None
    return status


def _command(access: Access) -> list[str]:
    plugin = access.user["exec"]
    name = str(plugin.get("command", ""))
    place = str(access.folder / name) if "/" in name else shutil.which(name)
    if place is None:
        raise MissingTool(
            f"{name} not installed, which your kubeconfig needs",
            str(plugin.get("installHint") or "install it, or take another context"),
        )
    return [place, *map(str, plugin.get("args") or ())]


def _environment(access: Access, version: str) -> Mapping[str, str]:
    plugin = access.user["exec"]
    spec: dict[str, Any] = {"interactive": False}
    if plugin.get("provideClusterInfo"):
        ca = access.data(access.cluster, "certificate-authority") or b""
        spec["cluster"] = {
            "server": access.server,
            "certificate-authority-data": base64.b64encode(ca).decode(),
            "config": None,
        }
    info = {
        "apiVersion": f"client.authentication.k8s.io/{version}",
        "kind": "ExecCredential",
        "spec": spec,
    }
    own = {str(each["name"]): str(each["value"]) for each in plugin.get("env") or ()}
    return {**os.environ, "KUBERNETES_EXEC_INFO": json.dumps(info), **own}
