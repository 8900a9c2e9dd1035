"""Which cluster is asked: kube-system's uid, or, where that may not be read, server and authority.

A namespace's uid is made with its cluster and never changes; nobody can delete kube-system. A
name in a kubeconfig, an address and an authority can all be given to another cluster.
"""

from __future__ import annotations

from cvl.core import identity
from cvl.core.digest import blake2b
from cvl.core.errors import AuthError, Unreachable
from cvl.providers.kubernetes.client import Client
from cvl.providers.kubernetes.kubeconfig import Access


def identity_of(client: Client) -> str:
    """Return what tells a cluster from all others; without an answer, what the kubeconfig says.

    Raises `UsageError` for a kubeconfig that is none.
    """
    access = client.access
    try:
        uid = client.uid(patient=False)
    except (Unreachable, AuthError):
        uid = ""  # what follows asks again, and says so
    return identity.written(
        uid=uid, server=access.server, authority=fingerprint(access), context=access.context
    )


def confirm(client: Client, noted: str) -> None:
    """Raise `Elsewhere` unless it is the cluster that was noted, "" is any.

    Raises `CvlError` where that cannot be known now.
    """
    if not noted:
        return
    was, access = identity.parts(noted), client.access
    uid = client.uid()
    if was.get("uid") and uid:
        if was["uid"] == uid:
            return
        cause = "is another"
    else:
        here = {"server": access.server, "authority": fingerprint(access)}
        if all(was.get(name, "") == value for name, value in here.items()):
            return
        cause = "may be another (who may read the namespace kube-system could tell)"
    raise identity.elsewhere(
        f"the cluster of context {was.get('context', '')!r} ({was.get('server', '')})",
        f"this kubeconfig's context {access.context!r} {cause}, {access.server}",
    )


def fingerprint(access: Access) -> str:
    """Return a digest of the authority that vouches for the server, "" without one."""
    authority = access.data(access.cluster, "certificate-authority")
    return blake2b(authority.strip(), digest_size=8).hexdigest() if authority else ""
