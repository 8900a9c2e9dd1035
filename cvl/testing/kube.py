"""What tests of Kubernetes ask of a cluster, be it the real one or the fake API server.

The same tests run on both: that is how the fake is kept honest. What only one of them has is a
flag (`indexed`), and whatever both can do by plain API objects is a function here, said once.
"""

from __future__ import annotations

import json
import os
import secrets
import shutil
import subprocess
import time
from collections.abc import Iterator, Sequence
from contextlib import AbstractContextManager, contextmanager
from pathlib import Path
from typing import Protocol

from cvl.testing.docker_engine import Engine

ADMIN, LIMITED = "admin", "limited"
"""The kubeconfig's contexts: `admin`, the current one, may do everything; `limited` nothing."""

CALL_LIMIT, SETTLE_LIMIT = 60.0, 30.0
"""Seconds: for one kubectl, and for what controllers do on their own."""


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

    def kubectl(self, *words: str, data: bytes = b"") -> str:
        """Run kubectl as `admin`; return what it prints. Raises `CalledProcessError`."""

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


def kubectl(kubeconfig: Path, *words: str, data: bytes = b"", program: str = "kubectl") -> str:
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


def missing_kubectl() -> str:
    """Return why there is no kubectl, "" if there is."""
    return "" if shutil.which("kubectl") else "kubectl is not installed"


@contextmanager
def fresh_namespace(cluster: Cluster) -> Iterator[str]:
    """Make a namespace that pods can be started in; delete it, and end all that is in it."""
    name = f"cvl-test-{secrets.token_hex(4)}"
    cluster.kubectl("create", "namespace", name)
    try:
        # Pods are refused until a controller has given the namespace its service account.
        wait_for(cluster, "serviceaccount", "default", "-n", name)
        yield name
    finally:
        cluster.kubectl("delete", "namespace", name, "--wait=false")


def wait_for(cluster: Cluster, *words: str, seconds: float = SETTLE_LIMIT) -> None:
    """Wait until `kubectl get` finds it. Raises `TimeoutError`."""
    ends = time.monotonic() + seconds
    while not cluster.kubectl("get", *words, "--ignore-not-found", "-o", "name"):
        if time.monotonic() > ends:
            raise TimeoutError(f"no {' '.join(words)} after {seconds} s")
        time.sleep(0.05)


def apply(cluster: Cluster, *objects: object, at: str) -> None:
    """Create or change these objects in a namespace: the server says what it takes."""
    items = {"apiVersion": "v1", "kind": "List", "items": objects}
    cluster.kubectl(
        "apply", "--validate=false", "-n", at, "-f", "-", data=json.dumps(items).encode()
    )


def grant(cluster: Cluster, namespace: str, verbs: Sequence[str], resources: Sequence[str]) -> None:
    """Let `limited` do `verbs` to `resources` (as `jobs.batch`, `pods/log`) in a namespace."""
    name = f"grant-{secrets.token_hex(4)}"
    at = ("-n", namespace)
    cluster.kubectl(
        "create",
        "role",
        name,
        *at,
        *(f"--verb={verb}" for verb in verbs),
        *(f"--resource={resource}" for resource in resources),
    )
    cluster.kubectl("create", "rolebinding", name, *at, f"--role={name}", f"--user={LIMITED}")


def quota(cluster: Cluster, namespace: str, **hard: str) -> None:
    """Limit a namespace, as `pods="1"`; returns when the limit holds."""
    words = ",".join(f"{name}={amount}" for name, amount in hard.items())
    at = ("-n", namespace)
    cluster.kubectl("create", "quota", "limit", *at, f"--hard={words}")
    ends = time.monotonic() + SETTLE_LIMIT
    while not cluster.kubectl("get", "quota", "limit", *at, "-o", "jsonpath={.status.hard}"):
        if time.monotonic() > ends:
            raise TimeoutError(f"the quota of {namespace} is not counted")
        time.sleep(0.05)
