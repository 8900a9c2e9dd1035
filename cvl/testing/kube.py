"""What tests of Kubernetes ask of a cluster, be it the real one or the fake API server.

The same tests run on both: that is how the fake is kept honest. What only one of them has is a
flag (`indexed`), and whatever both can do by plain API objects is a function here, said once.
"""

from __future__ import annotations

import os
import secrets
import subprocess
import time
from collections.abc import Callable, Iterable, Iterator, Sequence
from contextlib import AbstractContextManager, contextmanager
from pathlib import Path
from typing import Any, Protocol

from cvl.core.errors import Taken
from cvl.providers.kubernetes import pod_exec
from cvl.providers.kubernetes.client import Client, api_path
from cvl.testing.docker_engine import Engine

ADMIN, LIMITED = "admin", "limited"
"""The kubeconfig's contexts: `admin`, the current one, may do everything; `limited` nothing."""

CALL_LIMIT, SETTLE_LIMIT = 60.0, 30.0
"""Seconds: for one request, and for what controllers do on their own."""

RBAC = "rbac.authorization.k8s.io"


class Cluster(Protocol):
    """A cluster of one node whose pods are real containers."""

    @property
    def kubeconfig(self) -> Path:
        """A file that is all a client needs."""

    @property
    def image(self) -> str:
        """A busybox that is there already: for the pull policies IfNotPresent and Never."""

    @property
    def engine(self) -> Engine:
        """The Docker engine that pods run on: images can be built and loaded there."""

    @property
    def node(self) -> str:
        """The node's name."""

    @property
    def indexed(self) -> bool:
        """Whether it has Indexed Jobs: Kubernetes 1.20 has not."""

    def cut(self) -> AbstractContextManager[None]:
        """Kill the API server at once, with all its connections; start it again at the end.

        What it knew is there again then; pods do not notice.
        """

    def capacity(self, name: str, count: int) -> AbstractContextManager[None]:
        """Let the node have `count` of a resource, as `nvidia.com/gpu`; none at the end."""

    def lost_node(self) -> AbstractContextManager[None]:
        """Let the node be silent: NotReady when this returns, Ready after the end.

        As in reality its pods go on showing Running for minutes.
        """


def kubectl(kubeconfig: Path, *words: str, data: bytes = b"", program: str) -> str:
    """Run kubectl with this kubeconfig only. Raises `CalledProcessError`, with its stderr."""
    done = subprocess.run(
        [program, *words],
        input=data,
        env={**os.environ, "KUBECONFIG": str(kubeconfig)},
        capture_output=True,
        timeout=CALL_LIMIT,
        check=False,
    )
    if done.returncode:
        error = subprocess.CalledProcessError(
            done.returncode, done.args, done.stdout, done.stderr.decode(errors="replace")
        )
        error.add_note(error.stderr)
        raise error
    return done.stdout.decode().strip()


def client(cluster: Cluster, context: str = ADMIN) -> Client:
    """Return what speaks to a cluster's API server as the runner does."""
    return Client(context, cluster.kubeconfig)


@contextmanager
def fresh_namespace(cluster: Cluster) -> Iterator[str]:
    """Make a namespace that pods can be started in; delete it, and end all that is in it."""
    name = f"cvl-test-{secrets.token_hex(4)}"
    made = {"apiVersion": "v1", "kind": "Namespace", "metadata": {"name": name}}
    api = client(cluster)
    api.create("/api/v1/namespaces", made)
    try:
        # Pods are refused until a controller has given the namespace its service account.
        wait_for(lambda: list(api.items(api_path("serviceaccounts", name))))
        yield name
    finally:
        client(cluster).delete(f"/api/v1/namespaces/{name}", propagation="Background")


def wait_for(true: Callable[[], object], seconds: float = SETTLE_LIMIT) -> None:
    """Wait until something holds of a cluster. Raises `TimeoutError`."""
    ends = time.monotonic() + seconds
    while not true():
        if time.monotonic() > ends:
            raise TimeoutError(f"it does not come within {seconds} s")
        time.sleep(0.05)


def apply(cluster: Cluster, *objects: Any, at: str) -> None:
    """Create these objects in a namespace, or change those that are there."""
    api = client(cluster)
    for each in objects:
        version = each["apiVersion"]
        group = f"/apis/{version}" if "/" in version else f"/api/{version}"
        place = f"{group}/namespaces/{at}/{each['kind'].lower()}s"
        try:
            api.create(place, each)
        except Taken:
            api.patch(f"{place}/{each['metadata']['name']}", each)


def grant(cluster: Cluster, namespace: str, verbs: Sequence[str], resources: Sequence[str]) -> None:
    """Let `limited` do `verbs` to `resources` (as `jobs.batch`, `pods/log`) in a namespace."""
    named = [each.partition(".") for each in resources]
    rules = [
        {"apiGroups": [group], "resources": [what], "verbs": list(verbs)}
        for what, _, group in named
    ]
    bind(cluster, namespace, f"grant-{secrets.token_hex(4)}", rules)


def bind(cluster: Cluster, namespace: str, name: str, rules: Sequence[object]) -> None:
    """Let `limited` do what these rules say, and no more what others of that name have said."""
    about = {"apiVersion": f"{RBAC}/v1", "metadata": {"name": name}}
    role = {"kind": "Role", "name": name, "apiGroup": RBAC}
    user = {"kind": "User", "name": LIMITED, "apiGroup": RBAC}
    bound = {**about, "kind": "RoleBinding", "subjects": [user], "roleRef": role}
    apply(cluster, {**about, "kind": "Role", "rules": rules}, bound, at=namespace)


def quota(cluster: Cluster, namespace: str, **hard: str) -> None:
    """Limit a namespace, as `pods="1"`; returns when the limit holds."""
    limit = {"apiVersion": "v1", "kind": "ResourceQuota", "metadata": {"name": "limit"}}
    apply(cluster, {**limit, "spec": {"hard": hard}}, at=namespace)
    api, place = client(cluster), api_path("resourcequotas", namespace)
    wait_for(lambda: api.get(f"{place}/limit").get("status", {}).get("hard"))


def log(cluster: Cluster, namespace: str, pod: str, **query: str) -> str:
    """Return what a pod's log has, as far as `query` wants it. Raises `CvlError`."""
    place = f"{api_path('pods', namespace)}/{pod}/log"
    with client(cluster).stream(place, CALL_LIMIT, **query) as stream:
        return b"".join(stream.blocks()).decode()


def execute(
    cluster: Cluster, namespace: str, pod: str, *argv: str, feed: Iterable[bytes] | None = None
) -> str:
    """Run a command in a pod's container; return what it prints. Raises `CvlError`."""
    place = f"{api_path('pods', namespace)}/{pod}"
    return b"".join(pod_exec.output(client(cluster), place, argv, feed)).decode()
