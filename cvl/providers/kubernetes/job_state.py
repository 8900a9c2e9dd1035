"""What is known of a run: of its Job, of what its pods wait for, and of how they ended."""

from __future__ import annotations

from collections.abc import Container, Iterable, Mapping
from dataclasses import replace

from cvl.core.errors import Missing
from cvl.core.frozen import dataclass
from cvl.core.scope import Tell
from cvl.core.spec import Cause
from cvl.core.units import elapsed
from cvl.providers.kubernetes import lost_pods, pods
from cvl.providers.kubernetes.client import Client, Object, api_path
from cvl.providers.kubernetes.exit_line import Ending
from cvl.providers.kubernetes.first_pods import NONE, Firsts, pods_of_run
from cvl.providers.kubernetes.lost_pods import UNKNOWN, UNSEEN, Losses
from cvl.providers.kubernetes.manifest import CAUSE
from cvl.run.nodes import NodeEnd, first_failed

ASK_EVENTS = 2.0
"""Seconds between two questions for events, while something waits."""


@dataclass(frozen=True, slots=True, kw_only=True)
class JobState:
    """What is known of a run after a look.

    `known`: its Job was there at some time. `gone`: it surely is no more, nor are its pods.
    `ran`: a container of it was started. `late`: one was to have been by now. `words` say why
    none will be.
    """

    nodes: int
    job: Object | None
    pods: Mapping[int, Object]
    fates: Mapping[int, NodeEnd]
    known: bool
    gone: bool = False
    ran: bool = False
    cause: Cause | None = None
    late: bool = False
    words: str = ""

    @property
    def ending(self) -> bool:
        """Whether the Job is gone or going."""
        return self.job is None or deleted(self.job)

    @property
    def failed(self) -> NodeEnd | None:
        """The node that failed first, None while none has."""
        return first_failed(self.fates.values())

    @property
    def over(self) -> bool:
        """Whether nothing of it runs any more, nor will."""
        if self.gone or len(self.fates) >= self.nodes:
            return True
        done = self.job is not None and bool(finished(self.job))
        return done and not self.pods.keys() - self.fates.keys()


class JobTracker:
    """One run, looked at again and again. May be used by several threads."""

    def __init__(self, client: Client, handle: Mapping[str, str], tell: Tell) -> None:
        self.namespace, self.run_id = handle["namespace"], handle["run"]
        self._client, self._tell = client, tell
        self._path = api_path("jobs", self.namespace, handle["job"])
        self._nodes = int(handle.get("nodes") or 1)
        self._start_limit = float(handle.get("start_limit") or 0)
        self._firsts = Firsts(client, handle)
        self._losses = Losses(client, handle["namespace"])
        self.fates: dict[int, NodeEnd] = {}
        """How nodes ended, as far as was seen."""
        self._silent: set[int] = set()
        self._known = self._late = self._ran = False
        self._cause: Cause | None = None
        self._words = self._last_news = ""
        self._unseen = 0
        self._asked = 0.0

    def look(self, endings: Mapping[int, Ending]) -> JobState:
        """Look once. Raises `CvlError` as the client does."""
        job = self._job()
        every = self._pods(job)
        own, twice = self._firsts.own(every), self._firsts.others(every)
        self._unseen = 0 if job is not None or every else self._unseen + 1
        self._ran = self._ran or any(map(pods.started, own.values()))
        if job is not None:
            self._remember(job)
        for node, pod in own.items():
            if self._losses.see(node, pod):
                self._record(node, pods.started_twice(node), twice)
            self._record(node, pods.fate(pod, endings.get(node), self._client.now()), twice)
        for node in self._firsts.known.keys() - own.keys():
            self._record(node, self._vanished(node, job, endings.get(node), twice), twice)
        if job is not None:
            self._explain(job, own)
        return JobState(
            nodes=self._nodes,
            job=job,
            pods=own,
            fates=dict(self.fates),
            known=self._known,
            gone=self._unseen >= UNSEEN,
            ran=self._ran,
            cause=self._cause,
            late=self._late,
            words=self._words,
        )

    def pods(self) -> Mapping[int, Object]:
        """Return the pods of the run's own that are there now, by node, but on silent nodes."""
        own = self._firsts.own(self._pods(None))
        return {node: pod for node, pod in own.items() if node not in self._silent}

    def _record(self, node: int, fate: NodeEnd | None, twice: Container[int]) -> None:
        """Remember how a node ended; what only says that its pod was deleted is looked into."""
        old = self.fates.get(node)
        if fate is None or (old and old.cause is not Cause.STOPPED):
            return
        if fate.cause is Cause.STOPPED:
            fate = self._why_stopped(node, fate, again=node in twice)
        elif fate.cause is Cause.NOT_STARTED:
            fate = self._losses.explained(node, fate)
        if fate:
            self.fates[node] = fate

    def _why_stopped(self, node: int, fate: NodeEnd, *, again: bool) -> NodeEnd | None:
        """Return the fate of a node whose pod was deleted; None while that may become clearer.

        Who deletes a Job deletes it before its pods: where it lives on nobody wanted its end.
        """
        job = self._job() or self._job()  # a first miss is not believed
        if self._cause:
            return fate
        if job is None or deleted(job):
            return replace(fate, detail="its Job was deleted")
        end = finished(job)
        over = end if end.get("type") == "Failed" else {}
        if over.get("reason") == "DeadlineExceeded":
            return replace(fate, cause=Cause.TIMEOUT, detail=pods.message(over))
        words = self._losses.words(node, self._firsts.known.get(node, NONE), job)
        if not (words or over or again or self._losses.doubt_is_over(node)):
            return None
        lost = self._losses.lost(node, words or pods.message(over), again=again)
        return replace(lost, time=fate.time)

    def _vanished(
        self, node: int, job: Object | None, ending: Ending | None, twice: Container[int]
    ) -> NodeEnd | None:
        """Return the fate of a node whose pod is not there, None where that is not sure."""
        if ending and ending.why == "":
            return NodeEnd(node=node, code=ending.code, time=ending.time)
        if job is None or deleted(job) or not (self._losses.missed(node) or node in twice):
            return None
        done = finished(job).get("type") == "Complete"
        if done and not self._losses.was_ending(node):
            return NodeEnd(node=node, code=0)
        return NodeEnd(node=node, code=pods.KILLED, cause=Cause.STOPPED)

    def _job(self) -> Object | None:
        try:
            return self._client.get(self._path)
        except Missing:
            return None

    def _pods(self, job: Object | None) -> list[Object]:
        """Return all pods of the run that are there; learn which are its own."""
        every = pods_of_run(self._client, self.namespace, self.run_id)
        self._firsts.learn(job, every)
        return every

    def _remember(self, job: Object) -> None:
        self._known = True
        noted = (job["metadata"].get("annotations") or {}).get(CAUSE)
        if noted and noted in {each.value for each in Cause}:
            self._cause = Cause(noted)

    def _explain(self, job: Object, own: Mapping[int, Object]) -> None:
        """Say what is waited for, when that is news, and whether it takes too long."""
        waiting = [pod for node, pod in own.items() if node not in self.fates]
        waiting = [pod for pod in waiting if not pods.started(pod)]
        if len(own.keys() | self.fates.keys()) < self._nodes or waiting:
            self._wait(job, waiting)
        for pod in own.values():
            if pods.not_ready(pod):
                self._news(self._node_words(pod))

    def _wait(self, job: Object, waiting: list[Object]) -> None:
        if words := pods.message(finished(job)):
            self._words = words
            return
        now = self._client.clock.monotonic()
        if now - self._asked > ASK_EVENTS or not waiting:
            self._asked = now
            self._news(self._reason(job, waiting))
        began = job["metadata"].get("creationTimestamp")
        waited = self._client.now() - pods.epoch(str(began)) if began else 0.0
        if 0 < self._start_limit < waited and not self.fates:
            self._late = True
            self._words = f"it did not start within {elapsed(self._start_limit)}: {self._last_news}"

    def _reason(self, job: Object, waiting: list[Object]) -> str:
        if waiting:
            pod = waiting[0]
            return pods.waits_for(pod, self._events(pod))
        if job["spec"].get("suspend"):
            return "the Job is suspended: whatever queues it lets it start"
        return pods.latest(self._events(job)) or "the Job has no pod yet"

    def _events(self, what: Object) -> Iterable[Object]:
        return self._losses.events(str(what["metadata"]["uid"]))

    def _node_words(self, pod: Object) -> str:
        """Return what is known of the node of a pod that is not ready."""
        name, leaving = str(pod["spec"].get("nodeName") or ""), deleted(pod)
        node = self._losses.node(name)
        if node is UNKNOWN:
            cause = lost_pods.cause(pod, self._events(pod))
            words = f"node {name} is not ready" + (f" ({cause})" if cause else "")
            sure = bool(cause) and leaving
        else:
            words = lost_pods.of_node(name, node)
            sure = node is None or leaving
            if not words.startswith(f"node {name} is not ready") and node is not None:
                return ""
        if sure:  # its node will not tell how it ended
            index = pods.node_of(pod)
            self._silent.add(index)
            lost = NodeEnd(node=index, code=pods.KILLED, cause=Cause.LOST, detail=words)
            self.fates.setdefault(index, lost)
        return words if node is None else f"{words}; the job may still run there"

    def _news(self, words: str) -> None:
        if words and words != self._last_news:
            self._last_news = words
            self._tell("waiting", words)


def deleted(what: Object) -> bool:
    """Return whether somebody has asked for the end of an object."""
    return bool(what["metadata"].get("deletionTimestamp"))


def finished(job: Object) -> Object:
    """Return the condition by which a Job is over, {} while it is not."""
    ends = (pods.condition(job, kind) for kind in ("Complete", "Failed"))
    return next((end for end in ends if end.get("status") == "True"), {})
