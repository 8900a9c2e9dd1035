"""Why a pod was ended that nobody of ours has ended: by its conditions, its events, its node.

Pure: objects in, words out. Conditions came with Kubernetes 1.26; before that events tell it, for
an hour. Who drains a node leaves no event: then the node tells, which is kept from new pods.
https://kubernetes.io/docs/concepts/workloads/pods/disruptions/
"""

from __future__ import annotations

import re
from collections.abc import Iterable, Sequence

from cvl.providers.kubernetes import pods
from cvl.providers.kubernetes.client import Object

TELLING = frozenset(
    {
        *("Preempted", "Preempting", "PreemptContainer", "Evicted", "Eviction", "EvictedByVPA"),
        *("TaintManagerEviction", "NodeControllerEviction", "NodeNotReady", "NodeShutdown"),
        *("Shutdown", "Terminated", "ScaleDown", "Disrupted", "Descheduled", "OutOfDisk"),
        *("ExceededGracePeriod", "Rebooted"),
    }
)
"""Reasons of a pod's events that say why it was ended."""
PLACE = re.compile(r" to (\S+)$")


def told(pod: Object | None, events: Iterable[Object]) -> str:
    """Return what a pod's condition says, or the newest event that tells; "" for neither."""
    disrupted = pods.condition(pod, "DisruptionTarget") if pod else {}
    if disrupted.get("status") == "True":
        return pods.said(disrupted, "")
    return pods.latest([each for each in events if each.get("reason") in TELLING], any_kind=True)


def suspended(job: Object, pod: Object | None) -> str:
    """Return that a Job was suspended while it had this pod, "" if nothing tells that."""
    if job["spec"].get("suspend"):
        return "its Job was suspended"
    resumed = pods.condition(job, "Suspended").get("lastTransitionTime")
    if pod and resumed:
        made = pods.epoch(str(pod["metadata"]["creationTimestamp"]))
        return "its Job was suspended and resumed" if made < pods.epoch(str(resumed)) else ""
    return ""


def node_of(pod: Object | None, events: Sequence[Object]) -> str:
    """Return the name of the node that a pod was on, "" if nothing tells."""
    if pod and pod["spec"].get("nodeName"):
        return str(pod["spec"]["nodeName"])
    for each in events:
        found = (
            PLACE.search(str(each.get("message"))) if each.get("reason") == "Scheduled" else None
        )
        if found:
            return found[1]
    return ""


def of_node(name: str, node: Object | None) -> str:
    """Return what is wrong with a node, "" for nothing; None is one that is no more."""
    if node is None:
        return f"node {name} is gone"
    ready = pods.condition(node, "Ready")
    if ready.get("status") != "True":
        return f"node {name} is not ready ({pods.said(ready, 'it says nothing')})"
    return f"node {name} is being drained" if node["spec"].get("unschedulable") else ""


def started(events: Iterable[Object]) -> bool:
    """Return whether a pod's events tell that its job was started."""
    return any(each.get("reason") == "Started" for each in events)
