"""One pod on its node: from its volumes to its end, in one thread."""

from __future__ import annotations

import threading
from typing import TYPE_CHECKING

from cvl.testing.kubernetes.containers import Container, waiting
from cvl.testing.kubernetes.engine_api import EngineError
from cvl.testing.kubernetes.faults import What
from cvl.testing.kubernetes.objects import Obj, meta, name_of
from cvl.testing.kubernetes.patience import Ending, Patience
from cvl.testing.kubernetes.pod_state import Report, pod_state
from cvl.testing.kubernetes.sandbox import Sandbox
from cvl.testing.kubernetes.starting import Starter
from cvl.testing.kubernetes.variables import ConfigError
from cvl.testing.kubernetes.volumes import Volumes

if TYPE_CHECKING:
    from cvl.testing.kubernetes.kubelet import Kubelet


class PodWorker:
    """Runs one pod. `ring` it when something may have happened to it."""

    def __init__(self, kubelet: Kubelet, pod: Obj) -> None:
        self._kubelet, self._world, self._engine = kubelet, kubelet.world, kubelet.engine
        self.uid = str(meta(pod)["uid"])
        self.over = threading.Event()
        self.state = pod_state(pod)
        self._report = Report(kubelet, self.state)
        self._patience = Patience(kubelet, self._report)
        folder = kubelet.folder / "pods" / self.uid
        self._volumes = Volumes(self._world, self._engine, folder)
        self._sandbox = Sandbox(kubelet, self.state, folder)
        self._starter = Starter(
            kubelet, self.state, self._report, self._patience, self._sandbox, self._volumes
        )
        self._thread = threading.Thread(target=self._run, daemon=True, name=name_of(pod))

    def start(self) -> None:
        self._thread.start()

    def join(self) -> None:
        if self._thread.is_alive():
            self._thread.join()

    def ring(self) -> None:
        """Let it look whether something has happened."""
        self._patience.bell.set()

    def container(self, name: str) -> Container | None:
        """Return the container of that name."""
        return next((each for each in self.state.containers if each.name == name), None)

    def _run(self) -> None:
        try:
            try:
                self._begin()
                self._live()
            except Ending as ending:
                self._end(ending)
            except (EngineError, OSError) as error:
                self._give_up(error)
            self._linger()
        finally:
            self._clean()
            self.over.set()

    def _begin(self) -> None:
        """Prepare all that its containers need, and let those for its beginning run."""
        self.state.begun_at = self._world.now()
        self._report.publish()
        self._patience.until(self._mounted)
        self._sandbox.open(self._volumes.memory())
        self._report.publish()
        for container in self.state.first:
            self._until_done(container)
        for container in self.state.main:
            self._starter.start(container)
        if fault := self._world.strikes("run", What.EVICTED):
            self._patience.evict_after(fault.delay)
        self.state.phase = "Running"
        self._report.publish()

    def _mounted(self) -> bool:
        try:
            self._volumes.prepare(self.state.pod)
        except ConfigError as error:
            told = f"MountVolume.SetUp failed for volume {error}"
            self._report.event("FailedMount", told, warning=True)
            return False
        return True

    def _until_done(self, container: Container) -> None:
        """Run a container of the beginning until it has succeeded. Raises `Ending`."""
        container.state = waiting("PodInitializing")
        self._starter.start(container)
        while True:
            self._starter.refresh(container)
            self._report.publish()
            if container.code == 0:
                return
            if container.code is not None:
                raise Ending
            self._patience.wait()

    def _live(self) -> None:
        """Follow the containers to their end."""
        while True:
            for container in self.state.main:
                self._starter.refresh(container)
            if all(each.code is not None for each in self.state.main):
                break
            self._report.publish()
            self._patience.wait()
        self.state.conclude()
        self._report.publish()

    def _end(self, ending: Ending) -> None:
        """Say why, as a kubelet does first; TERM, the grace, KILL; say what has become of it."""
        self.state.reason, self.state.message = ending.reason, ending.message
        if ending.reason:
            self.state.phase = "Failed"
            self._report.publish()
            unusual = ending.reason != "DeadlineExceeded"
            self._report.event(ending.reason, ending.message, warning=unusual)
        alive = [each for each in self.state.containers if each.running]
        for container in alive:
            self._report.event("Killing", f"Stopping container {container.name}")
            self._kill(container, "TERM")
        asked = self._world.clock.monotonic()
        while any(each.running for each in alive):
            self._report.publish()  # who has ended is told while others still end
            if self._world.clock.monotonic() >= asked + self._patience.grace():
                for container in alive:
                    self._kill(container, "KILL")
            self._patience.nap()
            for container in alive:
                self._starter.refresh(container)
        self.state.conclude()
        self._report.publish()

    def _kill(self, container: Container, signal: str) -> None:
        if container.running:
            self._engine.call("POST", f"/containers/{container.id}/kill", signal=signal)

    def _give_up(self, error: Exception) -> None:
        """Say that the engine failed us: nothing of that is the client's fault."""
        if self._kubelet.closing.is_set():
            return
        self._world.complain(f"pod {name_of(self.state.pod)}: {error!r}")
        self._end(Ending("UnexpectedAdmissionError", f"{error}"))

    def _linger(self) -> None:
        """Wait until it is deleted; then let its object go."""
        bell = self._patience.bell
        while (pod := self._report.current()) is not None and not self._kubelet.closing.is_set():
            if meta(pod).get("deletionTimestamp"):
                self._report.let_go()
            bell.wait()
            bell.clear()

    def _clean(self) -> None:
        for container in self.state.containers:
            if container.id:
                self._engine.remove(container.id)
        self._sandbox.close()
        self._volumes.close()
