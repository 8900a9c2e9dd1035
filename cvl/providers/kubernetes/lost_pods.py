"""Why a run has lost a pod: by its conditions, its events, its node, a failed container's words.

Conditions came with Kubernetes 1.26; before that events tell it, for an hour. Who drains a node
leaves no event: then the node tells, which is kept from new pods.
https://kubernetes.io/docs/concepts/workloads/pods/disruptions/
"""

from __future__ import annotations

import re
from collections.abc import Iterable, Sequence
from contextlib import suppress
from dataclasses import replace

from cvl.core.errors import CvlError, Denied, Missing
from cvl.core.spec import Cause
from cvl.providers.kubernetes import pods
from cvl.providers.kubernetes.client import Client, Object, api_path
from cvl.providers.kubernetes.first_pods import Named
from cvl.run.nodes import NodeEnd

UNSEEN = 3
"""Looks in a row that must miss something before it is gone."""
DOUBT = 5.0
"""Seconds after which nobody says any more why a pod was deleted."""
WORDS, MOST = 5, 2000
"""Lines, and bytes, of a failed container's log that are shown."""
SILENCE = 10.0
TELLING = frozenset(
    {
        *("Preempted", "Preempting", "PreemptContainer", "Evicted", "Eviction", "EvictedByVPA"),
        *("TaintManagerEviction", "NodeControllerEviction", "NodeNotReady", "NodeShutdown"),
        *("Shutdown", "Terminated", "ScaleDown", "Disrupted", "Descheduled", "OutOfDisk"),
        *("ExceededGracePeriod", "Rebooted"),
    }
)
"""Reasons of a pod's events that say why it was ended."""
NODE = re.compile(r" to (\S+)$")
UNKNOWN: Object = {}
"""A node that we may not look at."""


class Losses:
    """What is known of the pods of one run, to tell why they were lost."""

    def __init__(self, client: Client, namespace: str) -> None:
        self._client, self._events_path = client, api_path("events", namespace)
        self._pods: dict[int, Object] = {}
        self._idents: dict[int, str] = {}
        self._misses: dict[int, int] = {}
        self._since: dict[int, float] = {}

    def see(self, node: int, pod: Object) -> bool:
        """Remember a node's pod as it is now; return whether its job was started a second time.

        A node that has forgotten the container of a pod starts another.
        """
        self._pods[node], self._misses[node] = pod, 0
        ident = str(pods.container(pod).get("containerID") or "")
        return bool(ident) and self._idents.setdefault(node, ident) != ident

    def missed(self, node: int) -> bool:
        """Hear that a node's pod was not there; return whether that is to be believed."""
        self._misses[node] = self._misses.get(node, 0) + 1
        return self._misses[node] >= UNSEEN

    def was_ending(self, node: int) -> bool:
        """Return whether a node's pod was being deleted before its job was over."""
        pod = self._pods.get(node)
        return bool(pod and pod["metadata"].get("deletionTimestamp") and not pods.over(pod))

    def doubt_is_over(self, node: int) -> bool:
        """Return whether a reason has been looked for long enough, first asked now."""
        now = self._client.clock.monotonic()
        return now - self._since.setdefault(node, now) > DOUBT

    def words(self, node: int, named: Named, job: Object) -> str:
        """Return why a node's pod was ended while its Job lives, "" while nothing tells."""
        pod, events = self._pods.get(node), self._of_pod(named)
        if reason := cause(pod, events) or suspended(job, pod):
            return reason
        name = node_of(pod, events)
        node_object = self.node(name) if name else UNKNOWN
        return "" if node_object is UNKNOWN else of_node(name, node_object)

    def lost(self, node: int, words: str, *, again: bool) -> NodeEnd:
        """Return the fate of a node whose pod was ended; `again`: a second one was started."""
        pod = self._pods.get(node)
        detail = words or "its pod was deleted, and nothing says why"
        return NodeEnd(
            node=node,
            code=pods.KILLED,
            cause=Cause.NOT_STARTED if pod and not pods.started(pod) else Cause.LOST,
            detail=f"{detail}; a job runs once: its second pod is ended" if again else detail,
        )

    def explained(self, node: int, fate: NodeEnd) -> NodeEnd:
        """Add the last words of the init container that has failed."""
        pod = self._pods.get(node)
        failed = pods.failed_init(pod) if pod else {}
        words = self._last_words(pod, failed["name"]) if pod and failed else ""
        return replace(fate, detail=f"{fate.detail}: {words}") if words else fate

    def events(self, uid: str) -> list[Object]:
        """Return an object's events, none where we may not see them."""
        return self._events(f"involvedObject.uid={uid}")

    def _of_pod(self, named: Named) -> list[Object]:
        """Return a pod's events: who evicts by a taint notes no uid."""
        uid, name = named
        if not name:
            return self.events(uid)
        events = self._events(f"involvedObject.kind=Pod,involvedObject.name={name}")
        return [each for each in events if each["involvedObject"].get("uid") in {None, "", uid}]

    def _events(self, query: str) -> list[Object]:
        try:
            return list(self._client.items(self._events_path, fieldSelector=query))
        except (Denied, Missing):
            return []  # only the reasons are less clear then

    def node(self, name: str) -> Object | None:
        """Return a node, None if there is none, `UNKNOWN` where nobody tells."""
        try:
            return self._client.get(api_path("nodes", name=name))
        except Missing:
            return None
        except CvlError:
            return UNKNOWN

    def _last_words(self, pod: Object, container: str) -> str:
        """Return the last lines of a container's log as one, "" where it has none."""
        path = f"{pods.path(pod)}/log"
        query = {"container": container, "tailLines": str(WORDS), "limitBytes": str(MOST)}
        with suppress(CvlError), self._client.stream(path, SILENCE, **query) as stream:
            lines = b"".join(stream.blocks()).decode(errors="replace").splitlines()
            return " | ".join(line.strip() for line in lines if line.strip())
        return ""


def cause(pod: Object | None, events: Iterable[Object]) -> str:
    """Return what a pod's condition says, or the newest event that tells; "" for neither."""
    disrupted = pods.condition(pod, "DisruptionTarget") if pod else {}
    if disrupted.get("status") == "True":
        return pods.message(disrupted)
    return pods.latest([each for each in events if each.get("reason") in TELLING], any_kind=True)


def suspended(job: Object, pod: Object | None) -> str:
    """Return that a Job was suspended while it had this pod, "" if nothing tells that."""
    if job["spec"].get("suspend"):
        return "its Job was suspended"
    resumed = pods.condition(job, "Suspended").get("lastTransitionTime")
    if pod and resumed:
        created = pods.epoch(str(pod["metadata"]["creationTimestamp"]))
        return "its Job was suspended and resumed" if created < pods.epoch(str(resumed)) else ""
    return ""


def node_of(pod: Object | None, events: Sequence[Object]) -> str:
    """Return the name of the node that a pod was on, "" if nothing tells."""
    if pod and pod["spec"].get("nodeName"):
        return str(pod["spec"]["nodeName"])
    scheduled = [str(each.get("message")) for each in events if each.get("reason") == "Scheduled"]
    return next((match[1] for match in map(NODE.search, scheduled) if match), "")


def of_node(name: str, node: Object | None) -> str:
    """Return what is wrong with a node, "" for nothing; None is one that is no more."""
    if node is None:
        return f"node {name} is gone"
    ready = pods.condition(node, "Ready")
    if ready.get("status") != "True":
        return f"node {name} is not ready ({pods.message(ready, 'it says nothing')})"
    return f"node {name} is being drained" if node["spec"].get("unschedulable") else ""
