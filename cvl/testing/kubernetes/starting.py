"""From a container's description to a container that runs, whatever stands in the way."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import TYPE_CHECKING

from cvl.testing.kubernetes.containers import Container, ended, not_started, waiting, wanted
from cvl.testing.kubernetes.containers import full_name as engine_name
from cvl.testing.kubernetes.engine_api import EngineError
from cvl.testing.kubernetes.faults import What
from cvl.testing.kubernetes.images import BACK_OFF, PULL, ImageError, ensure
from cvl.testing.kubernetes.objects import Obj
from cvl.testing.kubernetes.patience import Patience
from cvl.testing.kubernetes.pod_state import PodState, Report
from cvl.testing.kubernetes.sandbox import Sandbox
from cvl.testing.kubernetes.variables import ConfigError, environment
from cvl.testing.kubernetes.volumes import Volumes

if TYPE_CHECKING:
    from cvl.testing.kubernetes.kubelet import Kubelet

BACKOFF_LIMIT = 300.0
"""Seconds."""


class Starter:
    """Starts the containers of one pod, and starts them again."""

    def __init__(
        self,
        kubelet: Kubelet,
        state: PodState,
        report: Report,
        patience: Patience,
        sandbox: Sandbox,
        volumes: Volumes,
        folder: Path,
    ) -> None:
        self._engine, self._world, self._starts = kubelet.engine, kubelet.world, kubelet.starts
        self._state, self._report, self._patience = state, report, patience
        self._sandbox, self._volumes, self._folder = sandbox, volumes, folder

    def start(self, container: Container) -> None:
        """Create and start a container, whatever it takes. Raises `Ending`."""
        self._patience.check()
        self._until_imaged(container)
        env: dict[str, str] = {}
        self._patience.until(lambda: self._configured(container, env))
        self._patience.until(lambda: self._created(container, env))
        self._report.event("Created", f"Created container {container.name}")
        self._patience.check()
        try:
            with self._starts:
                self._engine.do("POST", f"/containers/{container.id}/start")
        except EngineError as error:
            container.state = not_started(container, error, self._world.clock.time())
            self._report.event("Failed", f"Error: {error.message}", warning=True)
            return
        container.ran = True
        container.state = {"running": {"startedAt": self._world.now()}}
        self._report.event("Started", f"Started container {container.name}")
        if container in self._state.main:
            self._state.phase = "Running"

    def again(self, container: Container) -> None:
        """Start a container that has ended once more. Raises `Ending`."""
        if container.previous:
            self._engine.remove(container.previous)
        if "terminated" in container.state:
            container.last = container.state
        container.previous, container.id = container.id, ""
        container.restarts += 1
        self.start(container)

    def refresh(self, container: Container) -> None:
        """See whether a container has ended."""
        if container.running:
            now = self._world.clock.time()
            if over := ended(self._engine, container, self._words(container), now):
                container.state = over

    def rest(self, container: Container) -> float:
        """Return how long to wait before the next start, in seconds; the first is at once."""
        if not container.restarts:
            return 0.0
        seconds = self._world.settings.restart_backoff * 2.0 ** (container.restarts - 1)
        rest = min(seconds, BACKOFF_LIMIT)
        told = f"Back-off restarting failed container {container.name}"
        self._report.event("BackOff", told, warning=True)
        container.last = container.state
        why = f"back-off {int(rest)}s restarting failed container={container.name}"
        container.state = waiting("CrashLoopBackOff", why)
        self._report.publish()
        return rest

    def _until_imaged(self, container: Container) -> None:
        wait = self._world.settings.pull_backoff
        while True:
            try:
                container.image_id = ensure(
                    self._engine,
                    str(container.spec["image"]),
                    str(container.spec["imagePullPolicy"]),
                    lambda: self._world.strikes("pull", What.NO_PULL) is not None,
                    self._report.event,
                )
                return
            except ImageError as error:
                self._report.event(error.event, error.message, warning=True)
                self._report.stuck(container, error.reason, error.message, event=error.reason)
                if error.reason == PULL:
                    self._patience.wait(1.0)
                    told = f'Back-off pulling image "{container.spec["image"]}"'
                    self._report.event("BackOff", told)
                    self._report.stuck(container, BACK_OFF, told, event=BACK_OFF)
                self._patience.pause(wait)
                wait = min(wait * 2, BACKOFF_LIMIT)

    def _configured(self, container: Container, env: dict[str, str]) -> bool:
        pod = self._report.current() or self._state.pod
        try:
            env.update(environment(self._world.store, pod, container.spec))
        except ConfigError as error:
            self._report.stuck(container, "CreateContainerConfigError", f"{error}")
            return False
        return True

    def _created(self, container: Container, env: Mapping[str, str]) -> bool:
        pod = self._state.pod
        try:
            mounts = self._volumes.mounts(container.spec, env) + self._furniture(container)
            body = wanted(pod, container, env, mounts, self._sandbox.place())
            name = engine_name(pod, container.name, container.restarts)
            with self._starts:
                container.id = self._engine.create(name, body)
        except (EngineError, ConfigError) as error:
            self._report.stuck(container, "CreateContainerError", f"{error}")
            return False
        return True

    def _furniture(self, container: Container) -> list[Obj]:
        """Return the mounts that every container has: its last words, its resolver, its hosts."""
        words = self._words(container)
        words.parent.mkdir(parents=True, exist_ok=True)
        words.write_bytes(b"")
        words.chmod(0o666)
        files = [(words, str(container.spec["terminationMessagePath"])), *self._sandbox.files()]
        taken = {each["mountPath"] for each in container.spec.get("volumeMounts") or []}
        return [
            {"Type": "bind", "Source": str(source), "Target": target}
            for source, target in files
            if target not in taken
        ]

    def _words(self, container: Container) -> Path:
        return self._folder / "words" / f"{container.name}-{container.restarts}"
