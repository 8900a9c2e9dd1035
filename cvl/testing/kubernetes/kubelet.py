"""The nodes' agent: a worker for each pod, and the way to containers for logs and commands."""

from __future__ import annotations

import json
import threading
from collections.abc import Mapping
from pathlib import Path

from cvl.testing.docker_engine import Engine
from cvl.testing.kubernetes.containers import POD, Container
from cvl.testing.kubernetes.engine_api import EngineApi
from cvl.testing.kubernetes.images import BACK_OFF, PULL
from cvl.testing.kubernetes.logs import Log
from cvl.testing.kubernetes.network import PodNetwork
from cvl.testing.kubernetes.nodes import ADDRESS
from cvl.testing.kubernetes.objects import Obj, at, meta, name_of
from cvl.testing.kubernetes.pods import PodWorker
from cvl.testing.kubernetes.resources import PODS
from cvl.testing.kubernetes.statuses import ApiError
from cvl.testing.kubernetes.world import LogWish, World

WAITS: Mapping[str, str] = {
    PULL: "image can't be pulled",
    BACK_OFF: "trying and failing to pull image",
}
"""What is said of a log that is not there yet; of any other reason, the reason itself."""

STARTS = 4
"""So many containers are started at once: more would only be slower, and all else with them."""

LOOK = 0.1
"""Seconds between two looks at whether a silent node speaks again."""


class Kubelet:
    """Runs the pods of all nodes, as containers of one engine. A controller."""

    def __init__(self, world: World, engine: Engine, folder: Path) -> None:
        """Raises `EngineError`, `OSError` when the engine cannot have a network for pods."""
        self.world, self.folder, self.image = world, folder, engine.image
        self.engine = EngineApi(engine.url)
        self.address = ADDRESS
        self.network = PodNetwork(self.engine, world.store)
        self.closing = threading.Event()
        self.starts = threading.BoundedSemaphore(STARTS)
        self._workers: dict[str, PodWorker] = {}
        self._seen: dict[str, str] = {}
        self._events, self._rest = self.engine.open("GET", "/events", filters=_DEATHS)
        threading.Thread(target=self._listen, daemon=True, name="engine-events").start()

    def step(self) -> None:
        """Begin with pods that are new here; ring for those to which something happened."""
        pods = self.world.store.listed(PODS)
        for pod in pods:
            uid = meta(pod)["uid"]
            if not at(pod, "spec", "nodeName"):
                continue
            worker = self._workers.get(uid)
            if worker is None:
                self._begin(pod)
            elif self._seen[uid] != meta(pod)["resourceVersion"]:
                self._seen[uid] = meta(pod)["resourceVersion"]
                worker.ring()
        here = {meta(pod)["uid"] for pod in pods}
        for uid, worker in list(self._workers.items()):
            if uid not in here:
                worker.ring()
                if worker.over.is_set():
                    del self._workers[uid]
                    del self._seen[uid]

    def close(self) -> None:
        """End every container. Idempotent."""
        if self.closing.is_set():
            return
        self.closing.set()
        for worker in self._workers.values():
            for container in worker.state.containers:
                if container.running:
                    self.engine.call("POST", f"/containers/{container.id}/kill")
            worker.ring()
        for worker in self._workers.values():
            worker.join()
        self._events.close()
        self.network.close()

    def answering(self, pod: Obj) -> None:
        """Wait while the pod's node is silent: nothing of what it does is heard then."""
        while at(pod, "spec", "nodeName") in self.world.silent and not self.closing.is_set():
            self.closing.wait(LOOK)

    def log(self, pod: Obj, wish: LogWish) -> Log:
        """Return the log of the container that is wished. Raises `ApiError` 400."""
        found = self._container(pod, wish.container)
        reason = at(found.state, "waiting", "reason") if found else "ContainerCreating"
        if found is None or (not found.ran and reason):
            named = f'container "{wish.container}" in pod "{name_of(pod)}"'
            raise ApiError(400, f"{named} is waiting to start: {WAITS.get(reason, reason)}")
        return Log(self.engine, found.id, wish)

    def connect(self, pod: Obj, container: str) -> str:
        """Return the engine's id of a container that runs. Raises `ApiError` 400."""
        found = self._container(pod, container)
        if found is None or not found.running:
            raise ApiError(400, f"container {container} is not running in pod {name_of(pod)}")
        return found.id

    def _container(self, pod: Obj, name: str) -> Container | None:
        worker = self._workers.get(meta(pod)["uid"])
        return worker.container(name) if worker else None

    def _begin(self, pod: Obj) -> None:
        if at(pod, "status", "phase") in ("Succeeded", "Failed"):
            return
        worker = PodWorker(self, pod)
        self._workers[worker.uid] = worker
        self._seen[worker.uid] = meta(pod)["resourceVersion"]
        worker.start()

    def _listen(self) -> None:
        """Ring for a pod whose container has ended."""
        data = self._rest
        while not self.closing.is_set():
            *lines, data = data.split(b"\n")
            for line in filter(None, lines):
                uid = at(json.loads(line), "Actor", "Attributes", POD)
                if worker := self._workers.get(str(uid)):
                    worker.ring()
            try:
                more = self._events.recv(2**16)
            except OSError:
                return
            if not more:
                return
            data += more


_DEATHS = json.dumps({"type": ["container"], "event": ["die"]})
