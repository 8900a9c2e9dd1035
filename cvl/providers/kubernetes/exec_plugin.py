"""The program that a kubeconfig names for its credentials: asked, listened to, and bounded.

Its protocol is `client.authentication.k8s.io`, v1 and v1beta1:
https://kubernetes.io/docs/reference/access-authn-authz/authentication/#client-go-credential-plugins
What it says on stderr is for whoever sits here (a code to type into a browser), so it is passed on
at once; a terminal is handed to it where it wants one.
"""

from __future__ import annotations

import base64
import json
import os
import selectors
import shutil
import subprocess
import sys
from collections.abc import Callable, Iterator, Mapping
from contextlib import suppress
from pathlib import PurePath
from typing import IO, Any

from cvl.core import child_process
from cvl.core.errors import AuthError, MissingTool, UsageError
from cvl.core.scope import SystemClock
from cvl.providers.kubernetes.kubeconfig import Access

SILENCE_LIMIT = 60.0
"""Seconds that it may take without a word."""
ASKING_LIMIT = 900.0
"""Seconds that it may take once it has said something: somebody may have to log in elsewhere."""
PARTIAL = 0.3
"""Seconds after which words without a line's end are passed on: a question has none."""
LOOK = 0.2
MOST = 1 << 20
"""Bytes of an answer."""
VERSIONS = ("v1", "v1beta1")
MODES = ("Never", "IfAvailable", "Always")
GROUP = "client.authentication.k8s.io"
LOGIN = "log in to the cluster again, with the tool that wrote your kubeconfig"


def ask(access: Access, hear: Callable[[str], None]) -> Mapping[str, Any]:
    """Run the program; return the `status` of what it prints. `hear` gets its words, line by line.

    Raises `AuthError`, `MissingTool` and `UsageError`.
    """
    plugin = access.user["exec"]
    words, version = _command(access), str(plugin.get("apiVersion", ""))
    if version.rpartition("/")[2] not in VERSIONS:
        raise UsageError(f"the kubeconfig's exec plugin speaks {version!r}, not v1 or v1beta1")
    terminal = _terminal(plugin, words[0])
    try:
        env = _environment(access, version, interactive=terminal)
        process = child_process.asked(words, terminal=terminal, env=env)
    except (OSError, ValueError) as error:  # a word may hold what none can
        raise _failed(words[0], getattr(error, "strerror", None) or str(error)) from error
    name = PurePath(words[0]).name
    try:
        out, last_words = _output(process, words[0], lambda line: hear(f"{name}: {line}"))
    finally:
        child_process.dismissed(process)
    if process.returncode:
        raise _failed(words[0], last_words or f"it ended with {process.returncode}")
    return _status(out, version, words[0])


def _output(
    process: subprocess.Popen[bytes], name: str, hear: Callable[[str], None]
) -> tuple[bytes, str]:
    """Return what it printed, and the last line that it said. Ends it when it takes too long."""
    out, words, count = bytearray(), _Words(hear), 0
    try:
        for source, data in _read(process, words):
            count += len(data)
            if count > MOST:
                raise _failed(name, f"it printed more than {MOST >> 20} MB")
            if source is process.stderr:
                words.take(data)
            else:
                out += data
    except TimeoutError:
        why = f"no answer within {words.limit:g} s"  # its own words would show all arguments
        raise _failed(name, why) from None
    finally:
        words.end()
    return bytes(out), words.last


def _read(process: subprocess.Popen[bytes], words: _Words) -> Iterator[tuple[IO[bytes], bytes]]:
    """Yield what comes, until it has ended: a child of its may keep the pipes. `TimeoutError`."""
    began = words.clock.monotonic()
    with selectors.DefaultSelector() as selector:
        for each in (process.stdout, process.stderr):
            assert each is not None
            selector.register(each, selectors.EVENT_READ)
        while True:
            ended = process.poll() is not None
            ready = selector.select(0 if ended else LOOK) if selector.get_map() else []
            for key, _ in ready:
                data = os.read(key.fd, 1 << 16)
                if not data:
                    selector.unregister(key.fileobj)
                yield key.fileobj, data  # type: ignore[misc]
            words.rest()
            if ended and not ready:
                return
            if words.clock.monotonic() - began > words.limit:
                raise TimeoutError
            if not selector.get_map():
                with suppress(subprocess.TimeoutExpired):
                    process.wait(LOOK)


class _Words:
    """What it says on stderr: passed on as lines, and the last one kept."""

    def __init__(self, hear: Callable[[str], None]) -> None:
        self._hear, self._rest, self._since = hear, b"", 0.0
        self.clock = SystemClock()
        self.last = ""
        self.limit = SILENCE_LIMIT

    def take(self, data: bytes) -> None:
        if data:
            self.limit = ASKING_LIMIT
        *lines, self._rest = (self._rest + data).replace(b"\r", b"\n").split(b"\n")
        self._since = self.clock.monotonic()
        for line in lines:
            self._say(line)

    def rest(self) -> None:
        """Pass on half a line that nothing has followed for a while."""
        if self._rest and self.clock.monotonic() - self._since > PARTIAL:
            self.end()

    def end(self) -> None:
        rest, self._rest = self._rest, b""
        self._say(rest)

    def _say(self, line: bytes) -> None:
        if text := line.decode(errors="replace").strip():
            self.last = text
            self._hear(text)


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


def _failed(name: str, why: str) -> AuthError:
    return AuthError(f"{name}, which gives the credentials, failed: {why}", LOGIN)
