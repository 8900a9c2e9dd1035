"""A real Kubernetes: etcd, API server, controllers, scheduler, kubelet, and Docker for its pods.

One node, ready in some ten seconds, in namespaces of its own: any number can run at once, none
outlives the process that made it, and none leaves anything behind. Needs root and the programs
that `scripts/kube-build` builds once per machine; `missing()` says what is not there.
"""

from __future__ import annotations

import json
import os
import secrets
import shutil
import ssl
import sys
import tempfile
import time
import urllib.request
from collections.abc import Iterator, Mapping
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass
from pathlib import Path

from cvl.testing import docker_engine, kube
from cvl.testing.docker_engine import Engine
from cvl.testing.kube import ADMIN, LIMITED
from cvl.testing.lifeline import Lifeline
from cvl.testing.network import Network

HERE = Path(__file__).parent
SERVERS = ("kube-apiserver", "kube-controller-manager", "kube-scheduler", "kubelet")
TOOLS = ("unshare", "nsenter", "mount", "iptables", "runc", "ssh-keygen")
NODE = "node1"
IMAGE, PAUSE = "cvl-test/busybox:1", "cvl-test/pause:1"
PAUSE_COMMAND = ["sh", "-c", "trap 'exit 0' TERM INT; while :; do sleep 3600 & wait $!; done"]
READY_LIMIT = 120.0
"""Seconds, on a busy computer."""
SPACES = ("unshare", "--mount", "--net", "--propagation", "private")


def programs() -> Path:
    """Return the folder of what has been built."""
    cache = os.environ.get("XDG_CACHE_HOME") or Path.home() / ".cache"
    return Path(cache) / "cvl-kube" / "bin"


def missing() -> str:
    """Return why no cluster can be had here, "" if one can."""
    if why := docker_engine.missing():
        return why
    for program in TOOLS:
        if not shutil.which(program):
            return f"{program} is not installed"
    if not Path("/sys/fs/cgroup/memory").is_dir():
        return "Kubernetes 1.20 needs control groups of version 1"
    if not all((programs() / name).exists() for name in (*SERVERS, "etcd", "kubectl")):
        return "Kubernetes is not built yet: `make kube-build` does it, once per machine"
    return ""


@dataclass(frozen=True, slots=True, kw_only=True)
class RealCluster:
    """A running cluster. See `kube.Cluster` for what it offers."""

    folder: Path
    engine: Engine
    holder: Lifeline
    image: str = IMAGE
    node: str = NODE
    indexed: bool = False

    @property
    def kubeconfig(self) -> Path:
        return self.folder / "kubeconfig"

    def kubectl(self, *words: str, data: bytes = b"") -> str:
        return kube.kubectl(self.kubeconfig, *words, data=data, program=f"{programs()}/kubectl")

    @contextmanager
    def cut(self) -> Iterator[None]:
        self.holder.order("cut")
        try:
            yield
        finally:
            self.holder.order("restore")

    @contextmanager
    def capacity(self, name: str, count: int) -> Iterator[None]:
        self._capacity(name, str(count))
        try:
            yield
        finally:
            self._capacity(name, None)

    @contextmanager
    def lost_node(self) -> Iterator[None]:
        self.holder.order("lose")
        try:
            self.wait_until("False", "Unknown")
            yield
        finally:
            self.holder.order("return")
            self.wait_until("True")

    def _capacity(self, name: str, count: str | None) -> None:
        """What has no device plugin is announced in the node's status."""
        amount = {name: count}
        change = {"status": {"capacity": amount, "allocatable": amount}}
        _patch(self.kubeconfig, f"/api/v1/nodes/{self.node}/status", change)

    def wait_until(self, *wanted: str) -> None:
        """Wait for the node's Ready condition to be one of these. Raises `TimeoutError`."""
        path = 'jsonpath={.status.conditions[?(@.type=="Ready")].status}'
        ask = ("get", "node", self.node, "--ignore-not-found", "-o", path)
        ends = time.monotonic() + READY_LIMIT
        while self.kubectl(*ask) not in wanted:
            if time.monotonic() > ends:
                raise TimeoutError(f"the node does not get there; see {self.folder}/log")
            time.sleep(0.1)


@contextmanager
def cluster() -> Iterator[RealCluster]:
    """Start a cluster; end it and all that runs in it. Raises `OSError` with what went wrong.

    Its folder is made below the system's temporary one: a socket's path has to be short.
    """
    folder = Path(tempfile.mkdtemp(prefix="cvl-kube-"))
    with ExitStack() as stack:
        stack.callback(shutil.rmtree, folder, ignore_errors=True)
        network = stack.enter_context(Network())
        address = network.address()
        _credentials(folder, f"https://{address}:6443")
        holder = Lifeline(
            (*SPACES, "sh", str(HERE / "kube_cluster.sh"), "hold"),
            _settings(folder, address),
            deadline=READY_LIMIT,
        )
        stack.callback(holder.close)
        network.plug(holder.pid, address)
        holder.order("start")
        made = RealCluster(folder=folder, engine=Engine(folder=folder, image=IMAGE), holder=holder)
        _load_images(made.engine)
        holder.order("join")
        made.wait_until("True")
        yield made


def _settings(folder: Path, address: str) -> Mapping[str, str]:
    return {
        "FOLDER": str(folder),
        "BIN": str(programs()),
        "ADDRESS": address,
        "NODE": NODE,
        "PAUSE": PAUSE,
        "PYTHON": sys.executable,
        "RUNTIME": str(HERE / "lenient_runc.py"),
    }


def _credentials(folder: Path, server: str) -> None:
    """Write a token for each user, for the server and for whoever reads the kubeconfig."""
    tokens = {ADMIN: secrets.token_urlsafe(), LIMITED: secrets.token_urlsafe()}
    groups = {ADMIN: "system:masters", LIMITED: "limited"}
    lines = [f"{token},{user},{user},{groups[user]}\n" for user, token in tokens.items()]
    _write(folder / "tokens.csv", "".join(lines))
    cluster = {"server": server, "certificate-authority": f"{folder}/certs/apiserver.crt"}
    config = {
        "apiVersion": "v1",
        "kind": "Config",
        "clusters": [{"name": "real", "cluster": cluster}],
        "users": [{"name": user, "user": {"token": token}} for user, token in tokens.items()],
        "contexts": [{"name": u, "context": {"cluster": "real", "user": u}} for u in tokens],
        "current-context": ADMIN,
    }
    _write(folder / "kubeconfig", json.dumps(config, indent=2))


def _write(file: Path, text: str) -> None:
    file.touch(mode=0o600)
    file.write_text(text)


def _load_images(engine: Engine) -> None:
    files = docker_engine.busybox()
    engine.docker("import", "--change", 'CMD ["sh"]', "-", IMAGE, data=files)
    command = f"CMD {json.dumps(PAUSE_COMMAND)}"
    engine.docker("import", "--change", command, "-", PAUSE, data=files)


def _patch(kubeconfig: Path, path: str, change: object) -> None:
    """Send a merge patch: kubectl has no word for a status before 1.24."""
    config = json.loads(kubeconfig.read_text())
    cluster = config["clusters"][0]["cluster"]
    request = urllib.request.Request(
        cluster["server"] + path,
        data=json.dumps(change).encode(),
        headers={
            "Authorization": f"Bearer {config['users'][0]['user']['token']}",
            "Content-Type": "application/merge-patch+json",
        },
        method="PATCH",
    )
    trust = ssl.create_default_context(cafile=cluster["certificate-authority"])
    with urllib.request.urlopen(request, timeout=kube.CALL_LIMIT, context=trust):
        pass
