"""One container of a pod: how the engine is told to run it, and what has become of it."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any

from cvl.testing.kubernetes.engine_api import EngineApi, EngineError
from cvl.testing.kubernetes.objects import Obj, at, meta, name_of, nanoseconds_of, quantity, rfc3339
from cvl.testing.kubernetes.variables import expand

POD = "io.kubernetes.pod.uid"
LOG = {"Type": "local", "Config": {"max-size": "1g", "max-file": "1", "compress": "false"}}
"""This driver of the engine's keeps bytes as they are, as containerd does; json-file does not."""

NEVER = "0001-01-01T00:00:00Z"


@dataclass(slots=True, kw_only=True)
class Container:
    """A container's state as the API shows it, and the engine's ids behind it."""

    spec: Mapping[str, Any]
    id: str = ""
    state: Obj = field(default_factory=lambda: waiting("ContainerCreating"))
    ran: bool = False

    @property
    def name(self) -> str:
        return str(self.spec["name"])

    @property
    def running(self) -> bool:
        return "running" in self.state

    @property
    def code(self) -> int | None:
        """The exit code, None while there is none."""
        found: int | None = at(self.state, "terminated", "exitCode")
        return found

    def status(self, *, ready: bool) -> Obj:
        """Return the `ContainerStatus`."""
        return {
            "name": self.name,
            "state": self.state,
            "ready": ready,
            "restartCount": 0,
            "image": self.spec["image"],
            "imageID": "",
            **({"containerID": f"docker://{self.id}"} if self.id else {}),
        }


def waiting(reason: str, message: str = "") -> Obj:
    """Return the state of a container that waits."""
    return {"waiting": {"reason": reason, **({"message": message} if message else {})}}


def wanted(
    pod: Obj,
    container: Container,
    env: Mapping[str, str],
    mounts: list[Obj],
    place: Mapping[str, Any],
) -> Obj:
    """Return what the engine is told. `place` is where it runs: its network and host name."""
    spec = container.spec
    entry, arguments = (
        [expand(word, env) for word in spec.get(part) or []] for part in ("command", "args")
    )
    context = {**(pod["spec"].get("securityContext") or {}), **(spec.get("securityContext") or {})}
    body: Obj = {
        "Image": spec["image"],
        "Env": [f"{key}={value}" for key, value in env.items()],
        "Labels": {POD: meta(pod)["uid"]},
        "HostConfig": {
            "Mounts": mounts,
            "LogConfig": LOG,
            **_limits(spec),
            **place["HostConfig"],
        },
        **{key: value for key, value in place.items() if key != "HostConfig"},
    }
    if entry:
        body |= {"Entrypoint": entry, "Cmd": arguments}
    elif arguments:
        body["Cmd"] = arguments
    if spec.get("workingDir"):
        body["WorkingDir"] = spec["workingDir"]
    if context.get("runAsUser") is not None:
        body["User"] = str(context["runAsUser"])
    return body


def full_name(pod: Obj, container: str) -> str:
    """Return the engine's name for it, as the kubelet made them."""
    about = meta(pod)
    return f"k8s_{container}_{name_of(pod)}_{about['namespace']}_{about['uid']}_0"


def ended(engine: EngineApi, container: Container, now: float) -> Obj | None:
    """Return the `terminated` state of a container, None if it has not ended."""
    try:
        found = engine.inspect(container.id)
    except EngineError:
        return _state(137, "ContainerStatusUnknown", rfc3339(now), rfc3339(now), container.id)
    state = found["State"]
    if state["Status"] in ("running", "created", "paused", "restarting"):
        return None
    code = int(state["ExitCode"])
    reason = "OOMKilled" if state["OOMKilled"] else "Completed" if code == 0 else "Error"
    started, finished = _second(state["StartedAt"]), _second(state["FinishedAt"])
    return _state(code, reason, started, finished, container.id)


def not_started(container: Container, error: EngineError, now: float) -> Obj:
    """Return the `terminated` state of a container that could not even begin."""
    unknown = "not found" in error.message or "no such file" in error.message.lower()
    code = 127 if unknown else 126 if "permission denied" in error.message else 128
    made = _state(code, "ContainerCannotRun", rfc3339(now), rfc3339(now), container.id)
    made["terminated"]["message"] = error.message
    return made


def _state(code: int, reason: str, started: str, finished: str, identity: str) -> Obj:
    return {
        "terminated": {
            "exitCode": code,
            "reason": reason,
            "startedAt": started,
            "finishedAt": finished,
            "containerID": f"docker://{identity}",
        }
    }


def _second(time: str) -> str:
    return NEVER if time.startswith("0001") else rfc3339(nanoseconds_of(time) // 10**9)


def _limits(spec: Mapping[str, Any]) -> Obj:
    limits, made = at(spec, "resources", "limits") or {}, Obj()
    if memory := int(quantity(limits.get("memory", 0))):
        made |= {"Memory": memory, "MemorySwap": memory}
    if cpu := quantity(limits.get("cpu", 0)):
        made["NanoCpus"] = max(int(cpu * 10**9), 10**7)
    return made
