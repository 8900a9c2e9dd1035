"""What a pod's status says: what it waits for, how it ended. Pure: objects in, values out.

`state.terminated` of the container is the truth about an exit code; `status.reason` of the pod
says when it was not the program that ended it.
https://kubernetes.io/docs/concepts/workloads/pods/pod-lifecycle/
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from dataclasses import replace
from datetime import datetime
from types import MappingProxyType
from typing import Any

from cvl.core.spec import Cause
from cvl.providers.kubernetes.client import Object, api_path
from cvl.providers.kubernetes.exit_line import AGAIN, Ending
from cvl.providers.kubernetes.manifest import CONTAINER, RANK
from cvl.run.nodes import NodeEnd

DEFINITE = frozenset(
    {"InvalidImageName", "ErrImageNeverPull", "CreateContainerConfigError", "CreateContainerError"}
)
"""Reasons for waiting that no time mends."""
NEVER_RAN = frozenset({"ContainerCannotRun", "StartError"})
"""Reasons of a terminated container whose program was not even started."""
REASONS: Mapping[str, Cause] = MappingProxyType(
    {
        "DeadlineExceeded": Cause.TIMEOUT,
        **dict.fromkeys(("Evicted", "NodeLost", "Preempting", "Preempted"), Cause.LOST),
        **dict.fromkeys(("NodeShutdown", "Shutdown", "Terminated"), Cause.LOST),
    }
)
"""A pod's `status.reason` -> why it ended; one that is not here never let it start."""
KILLED = 128
TWICE = "its container was started a second time: a job runs once"
WORTH_A_WORD = frozenset({"Pulling", "TriggeredScaleUp", "NotTriggerScaleUp"})
"""Reasons of normal events that say what is waited for; the others say what has gone well."""
NO_MATTER = frozenset({"MissingClusterDNS"})
ITS_OWN = frozenset({"ContainersNotReady", "ReadinessGatesNotReady", "PodCompleted", "PodFailed"})
"""Reasons why a pod is not ready that are no fault of its node: a sidecar has failed."""


def node_of(pod: Object) -> int:
    """Return which node of its Job a pod is, from 0."""
    return int((pod["metadata"].get("annotations") or {}).get(RANK) or 0)


def path(pod: Object) -> str:
    """Return where the API has a pod."""
    return api_path("pods", pod["metadata"]["namespace"], pod["metadata"]["name"])


def container(pod: Object) -> Object:
    """Return the status of the job's container, {} while there is none."""
    statuses = pod.get("status", {}).get("containerStatuses") or ()
    return next((each for each in statuses if each["name"] == CONTAINER), {})


def started(pod: Object) -> bool:
    """Return whether the job's container has been started: it has a log then."""
    state = _state(pod)
    ran = state.get("terminated") or {}
    return "running" in state or bool(ran.get("startedAt") or ran.get("containerID"))


def _state(pod: Object) -> Object:
    return container(pod).get("state") or {}


def started_twice(node: int) -> NodeEnd:
    """Return the fate of a node whose job was started before."""
    return NodeEnd(node=node, code=KILLED, cause=Cause.LOST, detail=TWICE)


def over(pod: Object) -> bool:
    """Return whether the job's container runs no more, and will not."""
    state, at_end = _state(pod), phase(pod) in {"Failed", "Succeeded"}
    return "terminated" in state or (at_end and "running" not in state)


def phase(pod: Object) -> str:
    """Return a pod's phase."""
    return str(pod.get("status", {}).get("phase") or "Pending")


def fate(pod: Object, ending: Ending | None, now: float) -> NodeEnd | None:
    """Return how a pod's job ended, None while it has not. `now` is the cluster's, in seconds."""
    if ending and ending.why == AGAIN:
        return started_twice(node_of(pod))
    if ending and ending.why != "stopped":
        cause = Cause.OUT_OF_MEMORY if ending.why else Cause.EXITED
        return NodeEnd(node=node_of(pod), code=ending.code, cause=cause, time=ending.time)
    if by_status := _by_status(pod):
        return by_status
    if ending:
        return _stopped(pod, ending, now)
    return _terminated(pod) or _not_started(pod)


def waits_for(pod: Object, events: Iterable[Object]) -> str:
    """Return what a pod waits for, in the cluster's own words; "" once its container runs."""
    if started(pod):
        return ""
    placed = condition(pod, "PodScheduled")
    if placed.get("status") == "False":
        return message(placed, latest(events) if placed.get("reason") is None else "")
    if before := _before(pod):
        return before
    waiting = _state(pod).get("waiting") or {}
    if waiting.get("reason") in {None, "ContainerCreating", "PodInitializing"}:
        return latest(events) or str(waiting.get("reason") or "waiting for a node")
    return message(waiting)


def latest(events: Iterable[Object], *, any_kind: bool = False) -> str:
    """Return the newest event's words, of those that say why something waits; or of any."""
    telling = [each for each in events if each.get("reason") not in NO_MATTER]
    if not any_kind:
        telling = [e for e in telling if e.get("type") == "Warning" or e["reason"] in WORTH_A_WORD]
    by_time = sorted(telling, key=_moment)
    return message(by_time[-1]) if by_time else ""


def message(what: Mapping[str, Any], otherwise: str = "") -> str:
    """Return reason and message of a condition, an event or a state, on one line."""
    parts = (str(what.get("reason") or ""), " ".join(str(what.get("message") or "").split()))
    return ": ".join(part for part in parts if part) or otherwise


def not_ready(pod: Object) -> bool:
    """Return whether a running pod is no longer reported ready: its node may be lost."""
    ready = condition(pod, "Ready")
    running = "running" in _state(pod)
    unready = ready.get("status") not in {"True", None} and ready.get("reason") not in ITS_OWN
    return phase(pod) == "Unknown" or (running and unready)


def condition(what: Object, kind: str) -> Mapping[str, Any]:
    """Return a condition of a pod or a node, {} where there is none."""
    conditions = what.get("status", {}).get("conditions") or ()
    return next((each for each in conditions if each["type"] == kind), {})


def epoch(text: str) -> float:
    """Return a time of the API in UTC epoch seconds."""
    return datetime.fromisoformat(text).timestamp()


def _by_status(pod: Object) -> NodeEnd | None:
    """Judge by what the pod itself says of its end."""
    status = pod.get("status", {})
    reason = status.get("reason")
    if phase(pod) != "Failed" or not reason or _had_ended(pod):
        return None
    cause = REASONS.get(reason, Cause.LOST if started(pod) else Cause.NOT_STARTED)
    if cause is Cause.TIMEOUT and not started(pod):
        detail = "its time was up before it had started: --timeout counts from when it has a node"
    else:
        detail = message(status)
    running = _state(pod).get("running")
    if running and cause is Cause.TIMEOUT:
        return None  # its results can still be collected; the last line tells when
    return NodeEnd(node=node_of(pod), code=KILLED, cause=cause, detail=detail, time=_ended(pod))


def _stopped(pod: Object, ending: Ending, now: float) -> NodeEnd:
    """Judge a job that ended after TERM by who sent that, as far as its pod knows."""
    cause, detail = Cause.STOPPED, ""
    disrupted, due = condition(pod, "DisruptionTarget"), _deadline(pod)
    timed_out = pod.get("status", {}).get("reason") == "DeadlineExceeded"
    if timed_out or (due is not None and now >= due - 1):
        cause = Cause.TIMEOUT
    elif disrupted.get("status") == "True":
        cause, detail = Cause.LOST, message(disrupted)
    return NodeEnd(
        node=node_of(pod), code=ending.code, cause=cause, detail=detail, time=ending.time
    )


def _terminated(pod: Object) -> NodeEnd | None:
    ended = _state(pod).get("terminated")
    if not ended:
        return None
    reason, finished = str(ended.get("reason") or ""), str(ended.get("finishedAt") or "")
    fate = NodeEnd(node=node_of(pod), code=int(ended.get("exitCode") or 0), time=finished)
    if reason == "OOMKilled":
        return replace(fate, cause=Cause.OUT_OF_MEMORY, detail="OOMKilled: more than --memory")
    if reason in NEVER_RAN:
        return replace(fate, cause=Cause.NOT_STARTED, detail=message(ended))
    if reason == "ContainerStatusUnknown":
        return replace(fate, cause=Cause.LOST, detail=message(ended))
    if _was_deleted(pod, finished):
        return replace(fate, cause=Cause.STOPPED, detail="its pod was deleted")
    return fate


def _was_deleted(pod: Object, finished: str) -> bool:
    """Return whether a pod's deletion came before the end of its container."""
    meta = pod["metadata"]
    if not (due := meta.get("deletionTimestamp")):
        return False
    asked = epoch(str(due)) - float(meta.get("deletionGracePeriodSeconds") or 0)
    return not finished or epoch(finished) >= asked


def failed_init(pod: Object) -> Object:
    """Return the status of the init container that has failed, {} if none has."""
    for each in _inits(pod):
        if code := (each.get("state") or {}).get("terminated", {}).get("exitCode"):
            return {**each, "code": code}
        if (each.get("lastState") or {}).get("terminated") and "waiting" in each["state"]:
            return {**each, "code": each["lastState"]["terminated"].get("exitCode")}
    return {}


def _inits(pod: Object) -> list[Object]:
    return list(pod.get("status", {}).get("initContainerStatuses") or ())


def _before(pod: Object) -> str:
    """Return which init container is waited for, and what it waits for itself; "" for none."""
    for each in _inits(pod):
        state = each.get("state") or {}
        waiting = state.get("waiting") or {}
        if waiting.get("reason") not in {None, "PodInitializing", "ContainerCreating"}:
            return f"init container {each['name']}: {message(waiting)}"
        if "running" in state and not (each.get("started") and _is_sidecar(pod, each["name"])):
            return f"init container {each['name']} is running"
    return ""


def _is_sidecar(pod: Object, name: str) -> bool:
    """Return whether an init container goes on beside the others: Kubernetes 1.28."""
    every = pod["spec"].get("initContainers") or ()
    return any(each["name"] == name and each.get("restartPolicy") == "Always" for each in every)


def _not_started(pod: Object) -> NodeEnd | None:
    waits = [(each["name"], each.get("state") or {}) for each in _inits(pod)]
    waits = [("", _state(pod)), *waits]
    waits = [(name, state.get("waiting") or {}) for name, state in waits]
    stuck = [(name, waiting) for name, waiting in waits if waiting.get("reason") in DEFINITE]
    if stuck:
        name, waiting = stuck[0]
        detail = (f"init container {name}: " if name else "") + message(waiting)
    elif phase(pod) == "Failed" and not started(pod):
        detail = message(pod["status"]) or _init_words(pod) or "its pod failed"
    else:
        return None
    return NodeEnd(node=node_of(pod), code=KILLED, cause=Cause.NOT_STARTED, detail=detail)


def _init_words(pod: Object) -> str:
    if failed := failed_init(pod):
        return f"init container {failed['name']} ended with exit code {failed['code']}"
    return ""


def _deadline(pod: Object) -> float | None:
    """Return the UTC epoch second at which a pod's time is up, None where none tells."""
    limit = pod["spec"].get("activeDeadlineSeconds")
    began = pod.get("status", {}).get("startTime")
    return epoch(str(began)) + float(limit) if limit and began else None


def _had_ended(pod: Object) -> bool:
    """Return whether the job had ended before the deadline that its sidecars did not heed."""
    due, finished = _deadline(pod), _ended(pod)
    timed_out = pod["status"].get("reason") == "DeadlineExceeded"
    return timed_out and due is not None and bool(finished) and epoch(finished) < due


def _ended(pod: Object) -> str:
    return str((_state(pod).get("terminated") or {}).get("finishedAt") or "")


def _moment(event: Object) -> str:
    series = (event.get("series") or {}).get("lastObservedTime")
    return str(series or event.get("lastTimestamp") or event.get("eventTime") or "")
