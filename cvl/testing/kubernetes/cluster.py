"""The whole cluster in one object: server, state, controllers, nodes, faults and log."""

from __future__ import annotations

import base64
import json
import secrets
import shutil
import tempfile
from collections.abc import Iterator, Mapping
from contextlib import AbstractContextManager, contextmanager
from pathlib import Path

from cvl.core.scope import SystemClock
from cvl.testing import kube
from cvl.testing.clock import Clock
from cvl.testing.docker_engine import Engine
from cvl.testing.kubernetes.access import EVERYBODY, MASTERS, User
from cvl.testing.kubernetes.admission import place
from cvl.testing.kubernetes.api import Api, Entry
from cvl.testing.kubernetes.certificates import authority
from cvl.testing.kubernetes.faults import Fault, What
from cvl.testing.kubernetes.garbage import Garbage
from cvl.testing.kubernetes.idle import Idle
from cvl.testing.kubernetes.jobs import Jobs
from cvl.testing.kubernetes.kubelet import Kubelet
from cvl.testing.kubernetes.manager import Controller, Manager
from cvl.testing.kubernetes.nodes import NodeLife
from cvl.testing.kubernetes.objects import Obj, holds
from cvl.testing.kubernetes.quota import Quotas
from cvl.testing.kubernetes.resources import NAMESPACES, NODES
from cvl.testing.kubernetes.scheduler import Scheduler
from cvl.testing.kubernetes.schema import find
from cvl.testing.kubernetes.server import serve
from cvl.testing.kubernetes.world import Settings, World

SPACES = ("default", "kube-system")


class KubernetesCluster(AbstractContextManager["KubernetesCluster"]):
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
            self._server = serve(self.api, tls, port, self.settings.hang_seconds)
        except BaseException:
            shutil.rmtree(self.folder, ignore_errors=True)
            raise
        self.port = self._server.port
        self.admin_token = self._token(_ADMIN)
        self._limited_token = self._token(User(name=kube.LIMITED))
        self._write_kubeconfig()
        life = NodeLife(self.world)
        self._furnish()
        life.begin()
        controllers: list[Controller] = [
            life,
            Garbage(self.world),
            Jobs(self.world),
            Scheduler(self.world),
            Quotas(self.world),
        ]
        self._kubelet = Kubelet(self.world, engine, self.folder) if engine is not None else None
        self.world.kubelet = self._kubelet
        controllers.append(self._kubelet or Idle(self.world))
        self._manager = Manager(self.world, controllers)
        self._manager.step()
        self._manager.start()

    def __exit__(self, *_: object) -> None:
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
    def capacity(self, name: str, count: int) -> Iterator[None]:
        """Let the node have `count` of a resource; none at the end."""
        self._set_capacity(name, str(count))
        try:
            yield
        finally:
            self._set_capacity(name, "")

    @contextmanager
    def lost_node(self) -> Iterator[None]:
        """Let the node be silent: NotReady when this returns, Ready after the end."""
        self.world.silent.add(self.node)
        try:
            self._wait_for_node(ready=False)
            yield
        finally:
            self.world.silent.discard(self.node)
            self._wait_for_node(ready=True)

    def inject(self, fault: Fault) -> None:
        """Let it go wrong, from now on."""
        if fault.what is What.OUTAGE:
            self._server.refuse(fault.delay)
        else:
            self.world.faults.inject(fault)

    def rotate_token(self) -> None:
        """Let the admin's token be good no more, and write a new one into the kubeconfig."""
        old, self.admin_token = self.admin_token, self._token(_ADMIN)
        self._write_kubeconfig()
        del self.world.tokens[old]

    def _token(self, user: User) -> str:
        token = secrets.token_urlsafe(32)
        self.world.tokens[token] = user
        return token

    def _furnish(self) -> None:
        """Make what every cluster has from the start."""
        for name in SPACES:
            space = {"kind": "Namespace", "apiVersion": "v1", "metadata": {"name": name}}
            place(self.world, NAMESPACES, space)

    def _set_capacity(self, name: str, count: str) -> None:
        def change(obj: Obj) -> None:
            for side in ("capacity", "allocatable"):
                obj["status"][side][name] = count
                if not count:
                    del obj["status"][side][name]

        self.world.store.update(NODES, "", self.node, change)

    def _wait_for_node(self, *, ready: bool) -> None:
        kube.wait_for(lambda: holds(self.world.store.get(NODES, "", self.node), "Ready") is ready)

    def _write_kubeconfig(self) -> None:
        new = self.folder / "kubeconfig.new"
        new.touch(0o600)
        new.write_text(json.dumps(self._kubeconfig(), indent=1))
        new.replace(self.kubeconfig)

    def _kubeconfig(self) -> Mapping[str, object]:
        authority = base64.b64encode(self._authority).decode()
        where = {
            "server": f"https://127.0.0.1:{self.port}",
            "certificate-authority-data": authority,
        }
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


_ADMIN = User(name="kubernetes-admin", groups=(MASTERS, EVERYBODY))
