"""The whole cluster in one object: server, state, controllers, nodes, faults and log."""

from __future__ import annotations

import base64
import json
import shutil
import tempfile
import time
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path
from types import TracebackType
from typing import Self

from cvl.core.scope import SystemClock
from cvl.testing import kube
from cvl.testing.clock import Clock
from cvl.testing.docker_engine import Engine
from cvl.testing.kubernetes import quota
from cvl.testing.kubernetes.access import ADMIN, MASTERS, ROLES_AT_START, User, account
from cvl.testing.kubernetes.admission import place
from cvl.testing.kubernetes.api import Answer, Api, Entry, Hook, Moment
from cvl.testing.kubernetes.certificates import authority
from cvl.testing.kubernetes.faults import Fault, What
from cvl.testing.kubernetes.garbage import Garbage
from cvl.testing.kubernetes.idle import Idle
from cvl.testing.kubernetes.jobs import Jobs
from cvl.testing.kubernetes.kubelet import Kubelet
from cvl.testing.kubernetes.manager import Controller, Manager
from cvl.testing.kubernetes.nodes import NodeLife
from cvl.testing.kubernetes.objects import holds
from cvl.testing.kubernetes.requests import Request
from cvl.testing.kubernetes.resources import CLUSTER_ROLES, NAMESPACES, NODES, SERVICES
from cvl.testing.kubernetes.scheduler import Scheduler
from cvl.testing.kubernetes.schema import find
from cvl.testing.kubernetes.server import serve
from cvl.testing.kubernetes.world import Settings, World

SPACES = ("default", "kube-system", "kube-public", "kube-node-lease")
LIMIT = 30.0
"""Seconds."""


class _Quotas:
    """Counts what is used of each quota."""

    def __init__(self, world: World) -> None:
        self._world = world

    def step(self) -> None:
        quota.publish(self._world.store)


class KubernetesCluster:
    """The whole of it. Listens from the start; a context manager; `close` ends everything."""

    def __init__(
        self,
        settings: Settings | None = None,
        clock: Clock | None = None,
        engine: Engine | None = None,
        port: int = 0,
    ) -> None:
        """`engine` runs the pods; without one they stay Pending and tests write their status.

        Raises `OSError` when the port is taken.
        """
        self.settings = settings or Settings()
        self.clock = clock or SystemClock()
        document, self.unchecked = find()
        self.world = World(self.settings, self.clock, document)
        self.folder = Path(tempfile.mkdtemp(prefix="cvl-kube-"))
        self._engine = engine
        try:
            self._authority, tls = authority(self.folder)
            self.api = Api(self.world)
            self._server = serve(self, tls, port, self.settings.hang_seconds)
        except BaseException:
            shutil.rmtree(self.folder, ignore_errors=True)
            raise
        self.port = self._server.port
        self.api.address = f"127.0.0.1:{self.port}"
        self.admin_token = self.world.tokens.issue(_ADMIN)
        self._limited_token = self.world.tokens.issue(User(name=kube.LIMITED))
        self._write_kubeconfig()
        life = NodeLife(self.world)
        self._furnish()
        life.begin()
        controllers: list[Controller] = [
            life,
            Garbage(self.world, self._authority.decode()),
            Jobs(self.world),
            Scheduler(self.world),
            _Quotas(self.world),
        ]
        self._kubelet = Kubelet(self.world, engine, self.folder) if engine is not None else None
        self.world.nodes = self._kubelet
        self.world.engine = self._kubelet.engine if self._kubelet else None
        controllers.append(self._kubelet or Idle(self.world))
        self._manager = Manager(self.world, controllers)
        self._manager.step()
        self._manager.start()

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        self.close()

    def close(self) -> None:
        """End the server, the controllers and every container. Idempotent."""
        self._server.close()
        self._manager.close()
        if self._kubelet is not None:
            self._kubelet.close()
        shutil.rmtree(self.folder, ignore_errors=True)

    @property
    def kubeconfig(self) -> Path:
        return self.folder / "kubeconfig"

    @property
    def server(self) -> str:
        """The API server's URL."""
        return f"https://127.0.0.1:{self.port}"

    @property
    def authority(self) -> bytes:
        """The certificate of the cluster's authority, in PEM."""
        return self._authority

    @property
    def image(self) -> str:
        return self.engine.image

    @property
    def engine(self) -> Engine:
        if self._engine is None:
            raise RuntimeError("this cluster has no engine")
        return self._engine

    @property
    def node(self) -> str:
        return self.settings.nodes[0].name

    @property
    def indexed(self) -> bool:
        return True

    @property
    def env(self) -> dict[str, str]:
        """What points a client here."""
        return {"KUBECONFIG": str(self.kubeconfig)}

    @property
    def log(self) -> list[Entry]:
        """Every request so far."""
        return self.api.log

    @property
    def violations(self) -> list[str]:
        """What must not be: what the official document says was wrong, and our own stumbles."""
        return self.world.violations

    @contextmanager
    def cut(self) -> Iterator[None]:
        """Let the API server be away, all its connections broken; nodes do not notice."""
        self._server.refuse()
        try:
            yield
        finally:
            self._server.resume()

    @contextmanager
    def capacity(self, name: str, count: int, node: str = "") -> Iterator[None]:
        """Let a node have `count` of a resource; none at the end."""
        self._set_capacity(name, str(count), node or self.node)
        try:
            yield
        finally:
            self._set_capacity(name, "", node or self.node)

    @contextmanager
    def lost_node(self, node: str = "") -> Iterator[None]:
        """Let a node be silent: NotReady when this returns, Ready after the end."""
        name = node or self.node
        self.world.silent.add(name)
        try:
            self._wait_for_node(name, ready=False)
            yield
        finally:
            self.world.silent.discard(name)
            self._wait_for_node(name, ready=True)

    def inject(self, fault: Fault) -> None:
        """Let it go wrong, from now on."""
        if fault.what is What.OUTAGE:
            self._server.refuse(fault.delay)
        else:
            self.world.faults.inject(fault)

    def clear_faults(self) -> None:
        """Let nothing more go wrong; an outage is over."""
        self.world.faults.clear()
        self._server.resume()

    def compact(self) -> None:
        """Forget the history: whoever watches or lists on from an older version is told 410."""
        self.world.store.compact()

    def rotate_token(self) -> None:
        """Let the admin's token be good no more, and write a new one into the kubeconfig."""
        old, self.admin_token = self.admin_token, self.world.tokens.issue(_ADMIN)
        self._write_kubeconfig()
        self.world.tokens.revoke(old)

    def token(self, name: str, *groups: str) -> str:
        """Return a token of a user who may do what RBAC grants them."""
        return self.world.tokens.issue(User(name=name, groups=(*groups, "system:authenticated")))

    def account_token(self, namespace: str, name: str) -> str:
        """Return a token of a service account."""
        return self.world.tokens.issue(account(namespace, name))

    def on_request(self, hook: Hook) -> None:
        """Call `hook(entry, moment)` for every request, in the thread that serves it.

        It may kill the client, and may raise `Drop` to cut the connection there and then.
        """
        self.api.hooks.append(hook)

    def answer(self, request: Request) -> Answer:
        """Serve one request: what the server calls."""
        return self.api.answer(request)

    def answered(self, answer: Answer) -> None:
        """Hear that the answer was sent: what the server calls."""
        answer.entry.answered = self.clock.time()
        self.api.tell(answer.entry, Moment.ANSWERED)

    def _furnish(self) -> None:
        """Make what every cluster has from the start."""
        for name in SPACES:
            space = {"kind": "Namespace", "apiVersion": "v1", "metadata": {"name": name}}
            place(self.world, NAMESPACES, space)
        for name, rules in ROLES_AT_START.items():
            role = {"kind": "ClusterRole", "apiVersion": "rbac.authorization.k8s.io/v1"}
            place(self.world, CLUSTER_ROLES, {**role, "metadata": {"name": name}, "rules": rules})
        ports = [{"name": "https", "port": 443, "targetPort": self.port}]
        place(
            self.world,
            SERVICES,
            {
                "kind": "Service",
                "apiVersion": "v1",
                "metadata": {"name": "kubernetes", "namespace": "default"},
                "spec": {"clusterIP": "10.96.0.1", "ports": ports},
            },
        )

    def _set_capacity(self, name: str, count: str, node: str) -> None:
        def change(obj: dict[str, object]) -> None:
            status = obj["status"]
            assert isinstance(status, dict)
            for side in ("capacity", "allocatable"):
                if count:
                    status[side][name] = count
                else:
                    status[side].pop(name, None)

        self.world.store.update(NODES, "", node, change)

    def _wait_for_node(self, name: str, *, ready: bool) -> None:
        ends = time.monotonic() + LIMIT
        while holds(self.world.store.get(NODES, "", name), "Ready") is not ready:
            if time.monotonic() > ends:
                raise TimeoutError(f"node {name} does not become {'Not' * (not ready)}Ready")
            time.sleep(0.02)

    def _write_kubeconfig(self) -> None:
        new = self.folder / "kubeconfig.new"
        new.touch(0o600)
        new.write_text(json.dumps(self._kubeconfig(), indent=1))
        new.replace(self.kubeconfig)

    def _kubeconfig(self) -> Mapping[str, object]:
        authority = base64.b64encode(self._authority).decode()
        where = {"server": self.server, "certificate-authority-data": authority}
        tokens = {kube.ADMIN: self.admin_token, kube.LIMITED: self._limited_token}
        return {
            "apiVersion": "v1",
            "kind": "Config",
            "clusters": [{"name": "cvl-fake", "cluster": where}],
            "users": [{"name": name, "user": {"token": it}} for name, it in tokens.items()],
            "contexts": [
                {"name": name, "context": {"cluster": "cvl-fake", "user": name}} for name in tokens
            ],
            "current-context": kube.ADMIN,
        }


_ADMIN = User(name=ADMIN, groups=(MASTERS, "system:authenticated"))
