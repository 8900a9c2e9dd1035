"""Which pods are a run's own: the first of each node. A job runs once.

Where a pod was deleted, evicted or lost with its node, a Job makes another: up to Kubernetes 1.25
always, later when a queue suspends and resumes it. So whoever first sees a node's pod notes its
uid, with the Job for all clients, and in a Secret that pods mount: an entry script that finds
another pod than its own there ends at once.
"""

from __future__ import annotations

import base64
from collections.abc import Iterable, Mapping
from contextlib import suppress

from cvl.core.errors import CvlError, Rejected, Taken
from cvl.core.scope import Cancelled, Scope
from cvl.providers.kubernetes import pods
from cvl.providers.kubernetes.client import Client, Object, api_path
from cvl.providers.kubernetes.manifest import FIRST_KEY, FIRSTS, RUN_LABEL, file_secret

NOTE_LIMIT, LOOK = 5.0, 0.1
"""Seconds that a launch waits for the pods of its Job, and between two looks."""


Named = tuple[str, str]
"""A pod's uid and its name."""
NONE: Named = ("", "")


class Firsts:
    """The first pods of one run. `known` has their uids and names by node, as far as known."""

    def __init__(self, client: Client, handle: Mapping[str, str]) -> None:
        self._client = client
        self.job = api_path("jobs", handle["namespace"], handle["job"])
        secret = file_secret(handle["run"]) if handle.get("wrapped") else ""
        self._secret = secret and api_path("secrets", handle["namespace"], secret)
        self._nodes = int(handle.get("nodes") or 1)
        self.known: dict[int, Named] = {}
        self._in_secret: Mapping[int, Named] = {}
        self._noted = False

    @property
    def complete(self) -> bool:
        """Whether every node's is known, and noted."""
        return len(self.known) >= self._nodes and self._noted

    def learn(self, job: Object | None, every: Iterable[Object]) -> None:
        """Learn which pods came first, of all in the order of their creation, and note it.

        Raises `CvlError` as the client does.
        """
        noted = _read(job) if job else {}
        self._noted = bool(noted) and not self.known.keys() - noted.keys()
        oldest: dict[int, Named] = {}
        for pod in every:
            meta = pod["metadata"]
            oldest.setdefault(pods.node_of(pod), (str(meta["uid"]), str(meta["name"])))
        self.known = {**oldest, **self.known, **noted}
        unsaid = self.known != noted or bool(self._in_secret and self._in_secret != self.known)
        if job and unsaid and not job["metadata"].get("deletionTimestamp"):
            self._note(job)

    def own(self, every: Iterable[Object]) -> dict[int, Object]:
        """Return the first pods that are there, by node."""
        own = {pods.node_of(pod): pod for pod in every if self._is_first(pod)}
        return dict(sorted(own.items()))

    def others(self, every: Iterable[Object]) -> frozenset[int]:
        """Return the nodes that have another pod than their first."""
        return frozenset(pods.node_of(pod) for pod in every if not self._is_first(pod))

    def _is_first(self, pod: Object) -> bool:
        return self.known.get(pods.node_of(pod), NONE)[0] == str(pod["metadata"]["uid"])

    def _note(self, job: Object) -> None:
        """Write down what is known: for pods first, for what the Job says has been said there."""
        text = _written(self.known)
        with suppress(Rejected):
            if self._secret and self._in_secret != self.known:
                data = {FIRST_KEY: base64.b64encode(text.encode()).decode()}
                self._client.patch(self._secret, {"data": data})
                self._in_secret = dict(self.known)
            meta = {"resourceVersion": job["metadata"]["resourceVersion"]}
            try:
                self._client.patch(self.job, {"metadata": {**meta, "annotations": {FIRSTS: text}}})
                self._noted = True
            except Taken:
                return  # it has changed meanwhile: the next look tells


def note(client: Client, handle: Mapping[str, str], scope: Scope) -> bool:
    """Wait for the pods of a new Job, and note them: its client may leave at once.

    Where they do not come soon, for a quota or a queue, whoever follows the run notes them.
    Returns whether all are noted.
    """
    firsts = Firsts(client, handle)
    with suppress(CvlError, Cancelled):
        for _ in scope.attempts((LOOK,), limit=NOTE_LIMIT):
            job = client.get(firsts.job)
            firsts.learn(job, pods_of_run(client, handle["namespace"], handle["run"]))
            if firsts.complete or job["spec"].get("suspend"):
                break
    return firsts.complete


def pods_of_run(client: Client, namespace: str, run_id: str) -> list[Object]:
    """Return all pods of a run that are there, in the order of their creation."""
    label = f"{RUN_LABEL}={run_id}"
    every = client.items(api_path("pods", namespace), labelSelector=label)
    return sorted(every, key=_age)


def _age(pod: Object) -> tuple[str, bool]:
    """Return what sorts pods by age: of two of one second the one that is ending is older."""
    meta = pod["metadata"]
    return (str(meta.get("creationTimestamp")), "deletionTimestamp" not in meta)


def _read(job: Object) -> dict[int, Named]:
    text = str((job["metadata"].get("annotations") or {}).get(FIRSTS) or "")
    firsts = {}
    for line in text.splitlines():
        node, _, rest = line.partition(" ")
        uid, _, name = rest.partition(" ")
        if node.isdigit() and uid:
            firsts[int(node)] = (uid, name)
    return firsts


def _written(known: Mapping[int, Named]) -> str:
    return "".join(f"{node} {uid} {name}\n" for node, (uid, name) in sorted(known.items()))
