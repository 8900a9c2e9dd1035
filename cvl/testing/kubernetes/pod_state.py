"""What is known of one pod on its node, and what the API hears of it."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import TYPE_CHECKING

from cvl.testing.kubernetes.containers import NEVER, Container, waiting
from cvl.testing.kubernetes.objects import Obj, meta, with_condition
from cvl.testing.kubernetes.resources import PODS

if TYPE_CHECKING:
    from cvl.testing.kubernetes.kubelet import Kubelet


@dataclass(slots=True, kw_only=True)
class PodState:
    """A pod's containers, phase and address."""

    pod: Obj
    """As it was when its node first saw it."""
    first: list[Container]
    """Those for its beginning (`initContainers`)."""
    main: list[Container]
    phase: str = "Pending"
    reason: str = ""
    message: str = ""
    address: str = ""
    begun_at: str = ""

    @property
    def containers(self) -> list[Container]:
        return [*self.first, *self.main]

    @property
    def begun(self) -> bool:
        """Whether the containers for its beginning have all succeeded."""
        return all(each.code == 0 for each in self.first)

    @property
    def started(self) -> bool:
        """Whether any container ever ran."""
        return any(each.ran for each in self.containers)

    def conclude(self) -> None:
        """Set the phase that a pod has whose containers have ended."""
        codes = [each.code for each in self.containers]
        good = not self.reason and all(code == 0 for code in codes)
        if self.reason or any(code is not None for code in codes):
            self.phase = "Succeeded" if good else "Failed"
        for container in self.main if self.started and self.begun else ():
            if container.code is None:
                container.state = _unknown()

    def status(self, host: str) -> Obj:
        """Return the pod's status, but for its conditions."""
        ready = self.phase == "Running"
        made: Obj = {"phase": self.phase, "hostIP": host, "startTime": self.begun_at}
        if self.address:
            made["podIP"] = self.address
        if self.reason:
            made |= {"reason": self.reason, "message": self.message}
        made["containerStatuses"] = [
            each.status(ready=ready and each.running) for each in self.main
        ]
        if self.first:
            made["initContainerStatuses"] = [
                each.status(ready=each.code == 0) for each in self.first
            ]
        return made

    def ready(self) -> Obj:
        """Return the condition that its node writes."""
        if self.phase == "Running" and all(each.running for each in self.main):
            return {"type": "Ready", "status": "True"}
        words = {"Succeeded": "PodCompleted", "Failed": "PodFailed"}
        reason = words.get(self.phase, "ContainersNotReady")
        return {"type": "Ready", "status": "False", "reason": reason}


def pod_state(pod: Obj) -> PodState:
    """Return the state of a pod that is new to its node."""
    spec = pod["spec"]
    first = [Container(spec=each) for each in spec.get("initContainers") or []]
    main = [Container(spec=each) for each in spec["containers"]]
    for container in (*first, *main) if first else ():
        container.state = waiting("PodInitializing")
    return PodState(pod=pod, first=first, main=main)


class Report:
    """Tells the API of one pod: its status, and events. A node that is silent says nothing."""

    def __init__(self, kubelet: Kubelet, state: PodState) -> None:
        self._kubelet, self._state = kubelet, state
        self._about = meta(state.pod)

    def current(self) -> Obj | None:
        """Return the pod as the API has it now, None if it has it no more."""
        store = self._kubelet.world.store
        found = store.find(PODS, self._about["namespace"], self._about["name"])
        return found if found is not None and meta(found)["uid"] == self._about["uid"] else None

    def event(self, reason: str, message: str, *, warning: bool = False) -> None:
        self._kubelet.world.event(PODS, self._state.pod, reason, message, warning=warning)

    def stuck(self, container: Container, reason: str, message: str, *, event: str = "") -> None:
        """Tell that a container has to wait, and for what; `event` is told instead of it."""
        container.state = waiting(reason, message)
        self.event("Failed", f"Error: {event or message}", warning=True)
        self.publish()

    def publish(self) -> None:
        """Write the pod's status."""
        state, now = self._state, self._kubelet.world.now()

        def change(obj: Obj) -> None:
            status = obj.setdefault("status", {})
            status |= state.status(self._kubelet.address)
            found = status.get("conditions") or []
            status["conditions"] = with_condition(found, state.ready(), now)

        self._update(change)

    def let_go(self) -> None:
        """Tell that nothing of the pod is left on its node."""
        self._update(lambda obj: meta(obj).update(deletionGracePeriodSeconds=0))

    def _update(self, change: Callable[[Obj], object]) -> None:
        self._kubelet.answering(self._state.pod)
        self._kubelet.world.change(PODS, self._state.pod, change)


def _unknown() -> Obj:
    """Return the state of a container that had never begun when its pod ended."""
    return {
        "terminated": {
            "exitCode": 137,
            "reason": "ContainerStatusUnknown",
            "message": "The container could not be located when the pod was terminated",
            "startedAt": NEVER,
            "finishedAt": NEVER,
        }
    }
