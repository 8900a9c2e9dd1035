"""Which cluster, as which user: kubeconfig files, a context in them, or the pod that we are in.

Rules of https://kubernetes.io/docs/concepts/configuration/organize-cluster-access-kubeconfig/:
`KUBECONFIG` may name several files, the first to name something wins, and relative paths are
relative to the file they stand in. Scalars keep the text that stands there: a name of digits is a
name. https://kubernetes.io/docs/reference/config-api/kubeconfig.v1/
"""

from __future__ import annotations

import base64
import binascii
import os
from collections.abc import Iterable, Iterator, Mapping
from dataclasses import field
from pathlib import Path
from typing import Any

from cvl.core.errors import UsageError
from cvl.core.frozen import dataclass
from cvl.core.http import secure_url
from cvl.core.paths import absolute
from cvl.core.yaml_file import SWITCH, YES, Form, content, without_nulls, wrong

DEFAULT_FILE = "~/.kube/config"
INSIDE = Path("/var/run/secrets/kubernetes.io/serviceaccount")
"""What a pod is given to speak to its own cluster."""
IN_CLUSTER = "in-cluster"
LIMIT = 8 << 20
"""Bytes of a kubeconfig, and of a certificate, a key or a token that it names."""
VALUES = 100_000
SHOWN = 80
"""Characters of a name that are shown."""
PATHS = ("certificate-authority", "client-certificate", "client-key", "tokenFile")
"""What names a file, in a cluster or a user."""
TEXT = "text"
CLUSTER: Mapping[str, Form] = {
    **dict.fromkeys(("server", "tls-server-name", "proxy-url"), TEXT),
    **dict.fromkeys(("certificate-authority", "certificate-authority-data"), TEXT),
    **dict.fromkeys(("insecure-skip-tls-verify", "disable-compression"), SWITCH),
    "extensions": [{"name": TEXT}],
}
PLUGIN: Form = {
    **dict.fromkeys(("apiVersion", "command", "installHint", "interactiveMode"), TEXT),
    "args": [TEXT],
    "env": [{"name": TEXT, "value": TEXT}],
    "provideClusterInfo": SWITCH,
}
USER: Mapping[str, Form] = {
    **dict.fromkeys(("token", "tokenFile", "username", "password", "as", "as-uid"), TEXT),
    **dict.fromkeys(("client-certificate", "client-certificate-data"), TEXT),
    **dict.fromkeys(("client-key", "client-key-data"), TEXT),
    "as-groups": [TEXT],
    "as-user-extra": {"*": [TEXT]},
    "auth-provider": {"config": {"*": TEXT}},
    "exec": PLUGIN,
}
CONTEXT: Mapping[str, Form] = dict.fromkeys(("cluster", "user", "namespace"), TEXT)
KINDS: Mapping[str, Mapping[str, Form]] = {
    "clusters": CLUSTER,
    "users": USER,
    "contexts": CONTEXT,
}
FORM: Form = {
    "current-context": TEXT,
    **{kind: [{"name": TEXT, kind[:-1]: entry}] for kind, entry in KINDS.items()},
}
"""A kubeconfig; what is not named here is not looked at."""
Entry = Mapping[str, Any]


@dataclass(frozen=True, slots=True, kw_only=True)
class Access:
    """One cluster and one user, as the configuration has them. `context` is its name there.

    `sources` are the files that it was read from; `namespace` is the context's own, "" for none.
    """

    context: str
    server: str
    cluster: Entry
    user: Entry = field(repr=False)
    sources: tuple[Path, ...] = ()
    namespace: str = ""

    @property
    def files(self) -> Iterator[Path]:
        """All files that this rests on: when one changes, so may it."""
        yield from self.sources
        for part in (self.cluster, self.user):
            yield from (Path(part[name]) for name in PATHS if part.get(name))

    def data(self, part: Entry, name: str) -> bytes | None:
        """Return what `NAME-data` holds, or the file that `NAME` names. Raises `UsageError`."""
        if text := part.get(f"{name}-data"):
            try:
                return base64.b64decode(text, validate=False)
            except (binascii.Error, ValueError):
                raise UsageError(f"{name}-data in the kubeconfig is no base64") from None
        path = part.get(name)
        return content(Path(path), LIMIT) if path else None


def on(entry: Entry, name: str) -> bool:
    """Return whether a switch is on."""
    return str(entry.get(name, "")).lower() in YES


def configured() -> bool:
    """Return whether anything on this machine speaks of a cluster; loads nothing."""
    return any(map(_there_is, files())) or inside()


def inside() -> bool:
    """Return whether this is a pod that was given access to its own cluster."""
    return "KUBERNETES_SERVICE_HOST" in os.environ and _there_is(INSIDE / "token")


def files(named: str | None = None) -> list[Path]:
    """Return the files that are read: those named, else `KUBECONFIG`'s, else the usual one."""
    names = named or os.environ.get("KUBECONFIG") or DEFAULT_FILE
    return [absolute(name) for name in names.split(os.pathsep) if name]


def access(context: str | None = None, named: str | None = None) -> Access:
    """Return the way to a cluster. Raises `UsageError`.

    A pod's own cluster is taken only where no file is there and no context was asked for.
    """
    existing = [file for file in files(named) if _there_is(file)]
    if not existing:
        if inside() and context in {None, IN_CLUSTER} and not named:
            return _own_cluster()
        looked = ", ".join(map(str, files(named)))
        raise UsageError(
            f"no kubeconfig found: {looked} is not there",
            "set KUBECONFIG, give --kubeconfig FILE, or log in with your cluster's own tool",
        )
    merged = _merged(existing)
    chosen = context or str(merged["current-context"])
    if chosen not in merged["contexts"]:
        missing = f"the kubeconfig has no context {chosen[:SHOWN]!r}"
        names = ", ".join(sorted(merged["contexts"])) or "none"
        raise UsageError(
            missing if chosen else "the kubeconfig has no current context",
            f"give --context NAME; there are: {names}",
        )
    entry = merged["contexts"][chosen]
    cluster = merged["clusters"].get(entry.get("cluster", ""), {})
    if not cluster.get("server"):
        raise UsageError(f"the kubeconfig's context {chosen!r} names no cluster that is there")
    return Access(
        context=chosen,
        server=_plain(cluster["server"], f"the server of context {chosen!r} in the kubeconfig"),
        cluster=cluster,
        user=merged["users"].get(entry.get("user", ""), {}),
        sources=tuple(existing),
        namespace=entry.get("namespace", ""),
    )


def _plain(server: str, name: str) -> str:
    """Return an address with its scheme in small letters and no slash at its end.

    Raises `UsageError` for what is none.
    """
    secure_url.server(server, name)
    scheme, mark, rest = server.rstrip("/").partition("://")
    return f"{scheme.lower()}{mark}{rest}"


def _own_cluster() -> Access:
    host = os.environ["KUBERNETES_SERVICE_HOST"]
    port = os.environ.get("KUBERNETES_SERVICE_PORT") or "443"
    server = f"https://{f'[{host}]' if ':' in host else host}:{port}"
    return Access(
        context=IN_CLUSTER,
        server=_plain(server, "KUBERNETES_SERVICE_HOST with KUBERNETES_SERVICE_PORT"),
        cluster={"certificate-authority": str(INSIDE / "ca.crt")},
        user={"tokenFile": str(INSIDE / "token")},
        namespace=os.environ.get("POD_NAMESPACE") or _own_namespace(),
    )


def _own_namespace() -> str:
    try:
        return content(INSIDE / "namespace", LIMIT).decode("utf-8", "replace").strip()
    except UsageError:
        return ""


def _there_is(path: Path) -> bool:
    """Return whether there is something of that name, whether or not it can be read."""
    try:
        os.stat(path)  # noqa: PTH116 - `exists` raises where a folder on the way is closed
    except (FileNotFoundError, NotADirectoryError, ValueError):
        return False
    except OSError:
        return True
    return True


def _merged(sources: Iterable[Path]) -> dict[str, Any]:
    """Return all files as one, lists as mappings by name. Raises `UsageError`."""
    whole: dict[str, Any] = {"current-context": "", **{kind: {} for kind in KINDS}}
    for file in sources:
        read = _read(file)
        whole["current-context"] = whole["current-context"] or read.get("current-context", "")
        for kind, known in KINDS.items():
            for each in read.get(kind, ()):
                said = each.get(kind[:-1], {})
                entry = {name: said[name] for name in known if name in said}
                whole[kind].setdefault(each.get("name", ""), _anchored(entry, file.parent))
    return whole


def _read(path: Path) -> Entry:
    """Return what stands in one file. Raises `UsageError`, with its path."""
    from cvl.core.yaml_document import EMPTY, parse

    document = parse(content(path, LIMIT), values=VALUES, text=LIMIT)
    if document.data is None and document.notes[0][1] != EMPTY:
        line, why = document.notes[0]
        raise UsageError(f"{path}, line {line}: no kubeconfig: {why}")
    data: Entry = without_nulls(document.data or {})
    for words in wrong(data, FORM):
        raise UsageError(f"{path}: no kubeconfig: {words}", "see `kubectl config view`")
    return data


def _anchored(entry: Entry, folder: Path) -> Entry:
    """Return an entry whose paths do not depend on where we are."""
    paths: dict[str, Any] = {name: str(folder / entry[name]) for name in PATHS if entry.get(name)}
    plugin = entry.get("exec", {})
    if "/" in plugin.get("command", ""):
        paths["exec"] = {**plugin, "command": str(folder / plugin["command"])}
    return {**entry, **paths}
