"""The Job controller: pods for jobs, counting them, and the ends of jobs."""

from __future__ import annotations

from collections.abc import Callable, Iterable
from contextlib import suppress

from cvl.testing.kubernetes.admission import place
from cvl.testing.kubernetes.deleting import delete
from cvl.testing.kubernetes.job_pods import (
    active,
    count,
    going,
    missing,
    over,
    pod_for,
    succeeded,
)
from cvl.testing.kubernetes.objects import (
    Obj,
    at,
    condition,
    controller_of,
    holds,
    meta,
    name_of,
    seconds_of,
    with_condition,
    without_finalizer,
)
from cvl.testing.kubernetes.resources import JOBS, PODS
from cvl.testing.kubernetes.statuses import ApiError
from cvl.testing.kubernetes.world import World

TRACKING = "batch.kubernetes.io/job-tracking"
"""The finalizer of pods that are not counted yet."""

SOURCE = "job-controller"
REST = 2.0
"""Seconds before the server is asked again for a pod that it refused."""


class Jobs:
    """Looks after every job, again and again."""

    def __init__(self, world: World) -> None:
        self._world = world
        self._refused: dict[str, float] = {}

    def step(self) -> None:
        """Bring every job one step on."""
        pods: dict[str, list[Obj]] = {}
        for pod in self._world.store.listed(PODS):
            pods.setdefault(controller_of(pod), []).append(pod)
        for job in self._world.store.listed(JOBS):
            self._sync(job, pods.pop(meta(job)["uid"], []))
        self._release(pod for orphans in pods.values() for pod in orphans)

    def _sync(self, job: Obj, pods: list[Obj]) -> None:
        ended = condition(job, "Complete") or condition(job, "Failed")
        if ended or meta(job).get("deletionTimestamp"):
            self._release(pods)
            if ended:
                self._count(job, pods)
                self._expire(job, seconds_of(ended["lastTransitionTime"]))
            return
        job = self._started(job)
        end = self._end(job, pods)
        if end is not None:
            self._fail(job, pods, *end)
        elif succeeded(job, pods) >= job["spec"]["completions"]:
            self._complete(job, pods)
        elif job["spec"]["suspend"]:
            self._suspend(job, pods)
        else:
            self._fill(job, pods)
        ours = [
            pod
            for pod in self._world.store.listed(PODS, meta(job)["namespace"])
            if controller_of(pod) == meta(job)["uid"]
        ]
        self._count(job, ours)
        self._release(pod for pod in ours if over(pod))

    def _started(self, job: Obj) -> Obj:
        """Note when a job was first seen, or resumed: its deadline counts from there."""
        if at(job, "status", "startTime") or job["spec"]["suspend"]:
            return job

        def change(status: Obj) -> None:
            status["startTime"] = self._world.now()
            if holds(job, "Suspended"):
                self._condition(status, "Suspended", "JobResumed", "Job resumed", value="False")

        return self._status(job, change)

    def _end(self, job: Obj, pods: list[Obj]) -> tuple[str, str] | None:
        """Return reason and message where a job is to fail."""
        if holds(job, "FailureTarget"):
            told = condition(job, "FailureTarget") or {}
            return told["reason"], told["message"]
        deadline = job["spec"].get("activeDeadlineSeconds")
        started = at(job, "status", "startTime")
        counts = deadline is not None and started and not job["spec"]["suspend"]
        if counts and self._world.clock.time() >= seconds_of(started) + deadline:
            return "DeadlineExceeded", "Job was active longer than specified deadline"
        failed = sum(at(pod, "status", "phase") == "Failed" for pod in pods)
        if failed > job["spec"]["backoffLimit"]:
            return "BackoffLimitExceeded", "Job has reached the specified backoff limit"
        return None

    def _fail(self, job: Obj, pods: list[Obj], reason: str, message: str) -> None:
        """End a job: first its pods, then itself."""
        running = active(pods)
        self._delete(job, running)
        kind = "FailureTarget" if running else "Failed"
        self._status(job, lambda status: self._condition(status, kind, reason, message))
        if not running:
            self._event(job, reason, message, warning=True)

    def _complete(self, job: Obj, pods: list[Obj]) -> None:
        running = active(pods)
        self._delete(job, running)
        if running:
            return

        def complete(status: Obj) -> None:
            told = ("CompletionsReached", "Reached expected number of succeeded pods")
            self._condition(status, "Complete", *told)
            status["completionTime"] = self._world.now()

        self._status(job, complete)
        self._event(job, "Completed", "Job completed")

    def _suspend(self, job: Obj, pods: list[Obj]) -> None:
        self._delete(job, active(pods))
        if holds(job, "Suspended"):
            return

        def change(status: Obj) -> None:
            self._condition(status, "Suspended", "JobSuspended", "Job suspended")
            status.pop("startTime", None)

        self._status(job, change)
        self._event(job, "Suspended", "Job suspended")

    def _fill(self, job: Obj, pods: list[Obj]) -> None:
        """Make the pods that are missing."""
        replaces = job["spec"]["podReplacementPolicy"] != "Failed"
        living = len(active(pods)) - (len(going(pods)) if replaces else 0)
        room, uid = job["spec"]["parallelism"] - living, meta(job)["uid"]
        if self._world.clock.monotonic() < self._refused.get(uid, 0.0):
            return
        for index in missing(job, pods)[: max(room, 0)]:
            try:
                made = place(self._world, PODS, pod_for(job, index, TRACKING))
            except ApiError as error:
                self._event(job, "FailedCreate", f"Error creating: {error.message}", warning=True)
                self._refused[uid] = self._world.clock.monotonic() + REST
                return
            self._event(job, "SuccessfulCreate", f"Created pod: {name_of(made)}")

    def _delete(self, job: Obj, pods: Iterable[Obj]) -> None:
        for pod in pods:
            if not meta(pod).get("deletionTimestamp"):
                with suppress(ApiError):
                    delete(self._world.store, PODS, pod, {}, self._world.clock.time())
                    self._event(job, "SuccessfulDelete", f"Deleted pod: {name_of(pod)}")

    def _release(self, pods: Iterable[Obj]) -> None:
        """Take our finalizer off pods: they are counted, or nobody counts them any more."""
        for pod in pods:
            if TRACKING in (meta(pod).get("finalizers") or []):
                self._world.change(PODS, pod, without_finalizer(TRACKING))

    def _count(self, job: Obj, pods: list[Obj]) -> None:
        """Write the numbers of pods into the job. What was counted once stays counted."""
        self._status(job, lambda status: count({**job, "status": status}, pods, status))

    def _expire(self, job: Obj, ended: float) -> None:
        """Delete a job that ended long enough ago, its pods with it."""
        ttl = job["spec"].get("ttlSecondsAfterFinished")
        if ttl is None or meta(job).get("deletionTimestamp"):
            return
        if self._world.clock.time() >= ended + ttl:
            options = {"propagationPolicy": "Foreground"}
            delete(self._world.store, JOBS, job, options, self._world.clock.time())

    def _status(self, job: Obj, change: Callable[[Obj], object]) -> Obj:
        return self._world.change(JOBS, job, lambda obj: change(obj["status"]))

    def _condition(
        self, status: Obj, kind: str, reason: str, message: str, *, value: str = "True"
    ) -> None:
        now, found = self._world.now(), status.get("conditions") or []
        if not any(each["type"] == kind and each["status"] == value for each in found):
            new = {"type": kind, "status": value, "reason": reason, "message": message}
            status["conditions"] = with_condition(found, {**new, "lastProbeTime": now}, now)

    def _event(self, job: Obj, reason: str, message: str, *, warning: bool = False) -> None:
        self._world.event(JOBS, job, reason, message, warning=warning, source=SOURCE)
