"""Looks at a run's Job and pods, says what they wait for, and remembers how they ended."""

from __future__ import annotations

import time
from collections.abc import Iterable, Mapping
from typing import Any

from cvl.errors import CvlError
from cvl.kube import paths, pods
from cvl.kube.client import Client, Object
from cvl.kube.ending import Ending
from cvl.kube.manifest import CAUSE, RUN_LABEL
from cvl.kube.pods import Fate
from cvl.kube.refusals import Denied, Missing
from cvl.scope import Tell
from cvl.spec import Cause
from cvl.units import elapsed
from cvl.values import dataclass

UNSEEN = 3
"""Looks in a row that must find neither Job nor pods before they are gone."""
ASK_EVENTS = 2.0
"""Seconds between two questions for events, while something waits."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Look:
    """What is known of a run after a look.

    `known`: its Job was there at some time. `gone`: it surely is no more, nor are its pods.
    `ran`: a container of it was started. `late`: one was to have been by now. `words` say why
    none will be.
    """

    nodes: int
    job: Object | None
    pods: Mapping[int, Object]
    fates: Mapping[int, Fate]
    known: bool
    gone: bool = False
    ran: bool = False
    cause: Cause | None = None
    late: bool = False
    words: str = ""

    @property
    def ending(self) -> bool:
        """Whether the Job is gone or going."""
        return self.job is None or bool(self.job["metadata"].get("deletionTimestamp"))

    @property
    def failed(self) -> Fate | None:
        """The node that failed first, None while none has."""
        bad = [each for each in self.fates.values() if each.code or each.cause is not Cause.EXITED]
        return min(bad, key=lambda each: each.rank) if bad else None

    @property
    def settled(self) -> bool:
        """Whether nothing of it runs any more, nor will."""
        if self.gone or len(self.fates) >= self.nodes:
            return True
        over = self.job is not None and finished(self.job) is not None
        return over and not self.pods.keys() - self.fates.keys()


class Watch:
    """One run, looked at again and again. May be used by several threads."""

    def __init__(self, client: Client, handle: Mapping[str, str], tell: Tell) -> None:
        self.namespace, self.run_id = handle["namespace"], handle["run"]
        self._client, self._job, self._tell = client, handle["job"], tell
        self._nodes = int(handle.get("nodes") or 1)
        self._start_limit = float(handle.get("start_limit") or 0)
        self._fates: dict[int, Fate] = {}
        self._known = self._late = self._ran = False
        self._cause: Cause | None = None
        self._words = self._told = ""
        self._unseen = 0
        self._asked = 0.0

    def look(self, endings: Mapping[int, Ending]) -> Look:
        """Look once. Raises `CvlError` as the client does."""
        job = self._found()
        there = self._listed()
        self._unseen = 0 if job is not None or there else self._unseen + 1
        self._ran = self._ran or any(map(pods.started, there.values()))
        for node, pod in there.items():
            fate = pods.fate(pod, endings.get(node), self._client.now())
            if fate and (node not in self._fates or self._fates[node].cause is Cause.STOPPED):
                self._fates[node] = fate
        if job is not None:
            self._remember(job)
            self._explain(job, there)
        return Look(
            nodes=self._nodes,
            job=job,
            pods=there,
            fates=dict(self._fates),
            known=self._known,
            gone=self._unseen >= UNSEEN,
            ran=self._ran,
            cause=self._cause,
            late=self._late,
            words=self._words,
        )

    def pods(self) -> Mapping[int, Object]:
        """Return the pods that are there now, by node."""
        return self._listed()

    def fate(self, node: int) -> Fate | None:
        """Return how a node ended, as far as was seen."""
        return self._fates.get(node)

    def _found(self) -> Object | None:
        try:
            return self._client.get(f"{paths.jobs(self.namespace)}/{self._job}")
        except Missing:
            return None

    def _listed(self) -> dict[int, Object]:
        """Return each node's pod, of several the newest."""
        label = f"{RUN_LABEL}={self.run_id}"
        listed = self._client.items(paths.core("pods", self.namespace), labelSelector=label)
        ordered = sorted(listed, key=lambda each: str(each["metadata"].get("creationTimestamp")))
        return {pods.node_of(each): each for each in ordered}

    def _remember(self, job: Object) -> None:
        self._known = True
        noted = (job["metadata"].get("annotations") or {}).get(CAUSE)
        if noted and noted in {each.value for each in Cause}:
            self._cause = Cause(noted)

    def _explain(self, job: Object, there: Mapping[int, Object]) -> None:
        """Say what is waited for, when that is news, and whether it takes too long."""
        waiting = [pod for node, pod in there.items() if node not in self._fates]
        waiting = [pod for pod in waiting if not pods.started(pod)]
        if len(there) < self._nodes or waiting:
            self._wait(job, waiting)
        for pod in there.values():
            if pods.not_ready(pod):
                self._news(self._node_words(pod))

    def _wait(self, job: Object, waiting: list[Object]) -> None:
        words = pods.said(finished(job) or {}, "")
        if words:
            self._words = words
            return
        if time.monotonic() - self._asked > ASK_EVENTS or not waiting:
            self._asked = time.monotonic()
            self._news(self._reason(job, waiting))
        began = job["metadata"].get("creationTimestamp")
        waited = self._client.now() - pods.epoch(str(began)) if began else 0.0
        if self._start_limit and waited > self._start_limit and not self._fates:
            self._late = True
            self._words = f"it did not start within {elapsed(self._start_limit)}: {self._told}"

    def _reason(self, job: Object, waiting: list[Object]) -> str:
        if waiting:
            pod = waiting[0]
            return pods.waits_for(pod, self._events(pod))
        if job["spec"].get("suspend"):
            return "the Job is suspended: whatever queues it lets it start"
        return pods.latest(self._events(job)) or "the Job has no pod yet"

    def _events(self, what: Object) -> Iterable[Object]:
        path = paths.core("events", self.namespace)
        field = f"involvedObject.uid={what['metadata']['uid']}"
        try:
            return list(self._client.items(path, fieldSelector=field))
        except (Denied, Missing):
            return []  # only the reasons are less clear then

    def _node_words(self, pod: Object) -> str:
        """Return what is known of the node of a pod that is not ready."""
        name = str(pod["spec"].get("nodeName") or "")
        lost = f"node {name} is not ready"
        try:
            node = self._client.get(paths.node(name))
        except Missing:
            lost = f"node {name} is gone"
            self._lose(pod, lost)
            return lost
        except CvlError:
            return f"{lost}; the job may still run there"
        ready = [each for each in node["status"].get("conditions") or () if each["type"] == "Ready"]
        if any(each["status"] == "True" for each in ready):
            return ""
        words = f"{lost} ({pods.said(ready[0], '')})" if ready else lost
        if pod["metadata"].get("deletionTimestamp"):
            self._lose(pod, words)
        return f"{words}; the job may still run there"

    def _lose(self, pod: Object, words: str) -> None:
        """Take a pod for lost whose node will not tell how it ended."""
        node = pods.node_of(pod)
        lost = Fate(node=node, code=pods.KILLED, cause=Cause.LOST, detail=words)
        self._fates.setdefault(node, lost)

    def _news(self, words: str) -> None:
        if words and words != self._told:
            self._told = words
            self._tell("waiting", words)


def finished(job: Object) -> Mapping[str, Any] | None:
    """Return the condition by which a Job is over, None while it is not."""
    for each in job.get("status", {}).get("conditions") or ():
        if each["type"] in {"Complete", "Failed"} and each["status"] == "True":
            return dict(each)
    return None
