"""Which cluster, as which user: kubeconfig files, a context in them, or the pod that we are in.

Rules of https://kubernetes.io/docs/concepts/configuration/organize-cluster-access-kubeconfig/:
`KUBECONFIG` may name several files, the first to name something wins, and relative paths are
relative to the file they stand in.
"""

from __future__ import annotations

import base64
import binascii
import os
from collections.abc import Iterable, Iterator, Mapping
from dataclasses import field
from pathlib import Path
from typing import Any

from cvl.core import replies
from cvl.core.errors import UsageError
from cvl.core.frozen import dataclass
from cvl.core.http import secure_url
from cvl.core.paths import absolute
from cvl.providers.kubernetes import kubeconfig_file

DEFAULT_FILE = "~/.kube/config"
INSIDE = Path("/var/run/secrets/kubernetes.io/serviceaccount")
"""What a pod is given to speak to its own cluster."""
IN_CLUSTER = "in-cluster"
PATHS = {
    "clusters": ("certificate-authority",),
    "users": ("client-certificate", "client-key", "tokenFile"),
}
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
    folder: Path
    sources: tuple[Path, ...] = ()
    namespace: str = ""

    @property
    def files(self) -> Iterator[Path]:
        """All files that this rests on: when one changes, so may it."""
        yield from self.sources
        for kind, part in (("clusters", self.cluster), ("users", self.user)):
            yield from (Path(part[name]) for name in PATHS[kind] if part.get(name))

    def data(self, part: Entry, name: str) -> bytes | None:
        """Return what `NAME-data` holds, or the file that `NAME` names. Raises `UsageError`."""
        if text := part.get(f"{name}-data"):
            try:
                return base64.b64decode(text, validate=False)
            except (binascii.Error, ValueError):
                raise UsageError(f"{name}-data in the kubeconfig is no base64") from None
        path = part.get(name)
        return kubeconfig_file.content(Path(path)) if path else None


def configured() -> bool:
    """Return whether anything on this machine speaks of a cluster; loads nothing."""
    return any(map(kubeconfig_file.there_is, files())) or inside()


def inside() -> bool:
    """Return whether this is a pod that was given access to its own cluster."""
    return "KUBERNETES_SERVICE_HOST" in os.environ and kubeconfig_file.there_is(INSIDE / "token")


def files(named: str | None = None) -> list[Path]:
    """Return the files that are read: those named, else `KUBECONFIG`'s, else the usual one."""
    names = named or os.environ.get("KUBECONFIG") or DEFAULT_FILE
    return [absolute(name) for name in names.split(os.pathsep) if name]


def access(context: str | None = None, named: str | None = None) -> Access:
    """Return the way to a cluster. Raises `UsageError`.

    A pod's own cluster is taken only where no file is there and no context was asked for.
    """
    existing = [file for file in files(named) if kubeconfig_file.there_is(file)]
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
    if not chosen:
        raise UsageError("the kubeconfig has no current context", _contexts(merged))
    if chosen not in merged["contexts"]:
        raise UsageError(f"the kubeconfig has no context {chosen!r}", _contexts(merged))
    entry = kubeconfig_file.checked(
        merged["contexts"][chosen], kubeconfig_file.CONTEXT, f"context {chosen!r}"
    )
    cluster, user = _entry(merged, entry, "cluster"), _entry(merged, entry, "user")
    if not cluster.get("server"):
        raise UsageError(f"the kubeconfig's context {chosen!r} names no cluster that is there")
    return Access(
        context=chosen,
        server=_plain(cluster["server"], f"the server of context {chosen!r} in the kubeconfig"),
        cluster=cluster,
        user=user,
        folder=existing[0].parent,
        sources=tuple(existing),
        namespace=entry.get("namespace", ""),
    )


def _entry(merged: Entry, context: Entry, kind: str) -> Entry:
    """Return the cluster, or the user, of a context, an empty one for none. Raises `UsageError`."""
    forms = kubeconfig_file.CLUSTER if kind == "cluster" else kubeconfig_file.USER
    name = context.get(kind, "")
    return kubeconfig_file.checked(merged[f"{kind}s"].get(name, {}), forms, f"{kind} {name!r}")


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
        folder=INSIDE,
        namespace=os.environ.get("POD_NAMESPACE") or _own_namespace(),
    )


def _own_namespace() -> str:
    try:
        return kubeconfig_file.content(INSIDE / "namespace").decode("utf-8", "replace").strip()
    except UsageError:
        return ""


def _merged(sources: Iterable[Path]) -> dict[str, Any]:
    """Return all files as one, lists as mappings by name."""
    whole: dict[str, Any] = {"current-context": "", "clusters": {}, "users": {}, "contexts": {}}
    for file in sources:
        read = kubeconfig_file.read(file)
        whole["current-context"] = whole["current-context"] or read["current-context"]
        for kind in kubeconfig_file.KINDS:
            for name, entry in read[kind].items():
                whole[kind].setdefault(name, _anchored(entry, kind, file.parent))
    return whole


def _anchored(entry: Entry, kind: str, folder: Path) -> Entry:
    names = [name for name in PATHS.get(kind, ()) if entry.get(name)]
    paths: Entry = {
        each: str(folder / entry[each]) for each in names if isinstance(entry[each], str)
    }
    plugin = replies.entry(entry.get("exec")) if kind == "users" else {}
    if "/" in (command := replies.text(plugin.get("command"))):
        paths = {**paths, "exec": {**plugin, "command": str(folder / command)}}
    return {**entry, **paths}


def _contexts(merged: Entry) -> str:
    names = ", ".join(sorted(merged["contexts"])) or "none"
    return f"give --context NAME; there are: {names}"
