"""From a container's description to a container that runs, whatever stands in the way."""

from __future__ import annotations

from collections.abc import Mapping
from typing import TYPE_CHECKING

from cvl.testing.kubernetes.containers import Container, ended, full_name, not_started, wanted
from cvl.testing.kubernetes.engine_api import EngineError
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
    """Starts the containers of one pod."""

    def __init__(
        self,
        kubelet: Kubelet,
        state: PodState,
        report: Report,
        patience: Patience,
        sandbox: Sandbox,
        volumes: Volumes,
    ) -> None:
        self._engine, self._world, self._starts = kubelet.engine, kubelet.world, kubelet.starts
        self._state, self._report, self._patience = state, report, patience
        self._sandbox, self._volumes = sandbox, volumes

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

    def refresh(self, container: Container) -> None:
        """See whether a container has ended."""
        if container.running:
            now = self._world.clock.time()
            container.state = ended(self._engine, container, now) or container.state

    def _until_imaged(self, container: Container) -> None:
        wait = self._world.settings.pull_backoff
        while True:
            try:
                ensure(
                    self._engine,
                    str(container.spec["image"]),
                    str(container.spec["imagePullPolicy"]),
                    self._report.event,
                )
                return
            except ImageError as error:
                self._report.event(error.event, error.message, warning=True)
                self._report.stuck(container, error.reason, error.message, event=error.reason)
                if error.reason == PULL:
                    self._patience.pause(1.0)
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
            mounts = self._volumes.mounts(container.spec) + self._furniture(container)
            body = wanted(pod, container, env, mounts, self._sandbox.place())
            with self._starts:
                container.id = self._engine.create(full_name(pod, container.name), body)
        except (EngineError, ConfigError) as error:
            self._report.stuck(container, "CreateContainerError", f"{error}")
            return False
        return True

    def _furniture(self, container: Container) -> list[Obj]:
        """Return the mounts that every container has: its resolver and its hosts."""
        taken = {each["mountPath"] for each in container.spec.get("volumeMounts") or []}
        return [
            {"Type": "bind", "Source": str(source), "Target": target}
            for source, target in self._sandbox.files()
            if target not in taken
        ]
