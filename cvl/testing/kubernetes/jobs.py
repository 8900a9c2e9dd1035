"""The Job controller: pods for jobs, counting them, and the ends of jobs."""

from __future__ import annotations

from collections.abc import Iterable
from typing import Any

from cvl.testing.kubernetes.admission import place
from cvl.testing.kubernetes.deleting import delete
from cvl.testing.kubernetes.faults import What
from cvl.testing.kubernetes.indexes import pod_for
from cvl.testing.kubernetes.job_counts import (
    active,
    complete,
    count,
    ended_at,
    failure_target,
    finished,
    going,
    missing,
    over,
)
from cvl.testing.kubernetes.objects import (
    Obj,
    at,
    controller_of,
    holds,
    meta,
    name_of,
    seconds_of,
    with_condition,
)
from cvl.testing.kubernetes.paces import Paces
from cvl.testing.kubernetes.policies import End, Verdict, judge
from cvl.testing.kubernetes.resources import JOBS, PODS
from cvl.testing.kubernetes.statuses import ApiError
from cvl.testing.kubernetes.world import World

TRACKING = "batch.kubernetes.io/job-tracking"
"""The finalizer of pods that are not counted yet."""

SOURCE = "job-controller"


class Jobs:
    """Looks after every job, again and again."""

    def __init__(self, world: World) -> None:
        self._world = world
        self._paces = Paces(world.clock)

    def step(self) -> None:
        """Bring every job one step on."""
        pods: dict[str, list[Obj]] = {}
        for pod in self._world.store.listed(PODS):
            pods.setdefault(controller_of(pod) or "", []).append(pod)
        for job in self._world.store.listed(JOBS):
            self._sync(job, pods.pop(meta(job)["uid"], []))
        self._release(pod for orphans in pods.values() for pod in orphans)

    def _sync(self, job: Obj, pods: list[Obj]) -> None:
        if finished(job) or meta(job).get("deletionTimestamp"):
            self._release(pods)
            if finished(job):
                self._count(job, pods)
                self._expire(job)
            return
        job = self._started(job)
        verdict = self._judge(job, pods)
        if verdict.end is not None:
            self._fail(job, pods, verdict.end)
        elif complete(job, pods):
            self._complete(job, pods)
        elif job["spec"].get("suspend"):
            self._suspend(job, pods)
        else:
            self._fill(job, pods, verdict)
        self._count_again(job)

    def _count_again(self, job: Obj) -> None:
        about = meta(job)
        found = self._world.store.find(JOBS, about["namespace"], about["name"])
        if found is None or meta(found)["uid"] != about["uid"]:
            return
        ours = [
            pod
            for pod in self._world.store.listed(PODS, about["namespace"])
            if controller_of(pod) == about["uid"]
        ]
        self._count(found, ours)
        self._release(pod for pod in ours if over(pod))

    def _started(self, job: Obj) -> Obj:
        """Note when a job was first seen, or resumed: its deadline counts from there."""
        suspended = job["spec"].get("suspend")
        if at(job, "status", "startTime") or suspended:
            return job
        resumed = holds(job, "Suspended")

        def change(status: Obj) -> None:
            status["startTime"] = self._world.now()
            if resumed:
                self._condition(status, "Suspended", "JobResumed", "Job resumed", value="False")

        return self._status(job, change)

    def _judge(self, job: Obj, pods: list[Obj]) -> Verdict:
        spec, verdict = job["spec"], judge(job, pods)
        if target := failure_target(job):
            return Verdict(end=End(reason=target["reason"], message=target["message"]))
        deadline, started = spec.get("activeDeadlineSeconds"), at(job, "status", "startTime")
        counts = deadline is not None and started and not spec.get("suspend")
        if counts and self._world.clock.time() >= seconds_of(started) + deadline:
            message = "Job was active longer than specified deadline"
            return Verdict(end=End(reason="DeadlineExceeded", message=message))
        return verdict

    def _fail(self, job: Obj, pods: list[Obj], end: End) -> None:
        """End a job: first its pods, then itself."""
        running = active(pods)
        if not holds(job, "FailureTarget"):

            def aim(status: Obj) -> None:
                self._condition(status, "FailureTarget", end.reason, end.message)

            self._status(job, aim)
        self._delete(job, running)
        if running:
            return

        def fail(status: Obj) -> None:
            self._condition(status, "Failed", end.reason, end.message)
            status.pop("ready", None)

        self._status(job, fail)
        self._event(job, end.reason, end.message, warning=True)

    def _complete(self, job: Obj, pods: list[Obj]) -> None:
        running = active(pods)
        self._delete(job, running)
        reason, message = "CompletionsReached", "Reached expected number of succeeded pods"

        def aim(status: Obj) -> None:
            self._condition(status, "SuccessCriteriaMet", reason, message)

        job = self._status(job, aim)
        if running:
            return

        def complete(status: Obj) -> None:
            self._condition(status, "Complete", reason, message)
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

    def _fill(self, job: Obj, pods: list[Obj], verdict: Verdict) -> None:
        """Make the pods that are missing; delete those that are too many."""
        running, ending = active(pods), going(pods)
        failed = sum(at(pod, "status", "phase") == "Failed" for pod in pods)
        wanted = missing(job, pods, verdict)
        replaces = job["spec"]["podReplacementPolicy"] != "Failed"
        living = len(running) - (len(ending) if replaces else 0)
        room = job["spec"]["parallelism"] - living
        if room < 0:
            self._delete(job, [pod for pod in running if pod not in ending][room:])
        elif wanted and room > 0 and self._paces.ready(meta(job)["uid"], failed):
            for index in wanted[:room]:
                if not self._make(job, index):
                    return
            self._paces.taken(meta(job)["uid"])

    def _make(self, job: Obj, index: int | None) -> bool:
        pod = pod_for(job, index, TRACKING)
        try:
            made = place(self._world, PODS, pod)
        except ApiError as error:
            self._event(job, "FailedCreate", f"Error creating: {error.message}", warning=True)
            self._paces.refused(meta(job)["uid"])
            return False
        self._event(job, "SuccessfulCreate", f"Created pod: {name_of(made)}")
        return True

    def _delete(self, job: Obj, pods: Iterable[Obj]) -> None:
        for pod in pods:
            if meta(pod).get("deletionTimestamp"):
                continue
            try:
                delete(self._world.store, PODS, pod, {}, self._world.clock.time())
                self._event(job, "SuccessfulDelete", f"Deleted pod: {name_of(pod)}")
            except ApiError:
                continue

    def _release(self, pods: Iterable[Obj]) -> None:
        """Take our finalizer off pods: they are counted, or nobody counts them any more."""
        for pod in pods:
            if TRACKING in (meta(pod).get("finalizers") or []):

                def change(obj: Obj) -> None:
                    kept = [each for each in meta(obj).get("finalizers") or [] if each != TRACKING]
                    meta(obj)["finalizers"] = kept
                    if not kept:
                        del meta(obj)["finalizers"]

                self._try_update(pod, change)

    def _try_update(self, pod: Obj, change: Any) -> None:
        about = meta(pod)
        try:
            self._world.store.update(
                PODS, about["namespace"], about["name"], change, uid=about["uid"]
            )
        except ApiError:
            return  # it is gone

    def _count(self, job: Obj, pods: list[Obj]) -> None:
        """Write the numbers of pods into the job. What was counted once stays counted."""
        self._status(job, lambda status: count(job, pods, status))

    def _expire(self, job: Obj) -> None:
        """Delete a job that ended long enough ago, its pods with it."""
        ttl = job["spec"].get("ttlSecondsAfterFinished")
        if ttl is None or meta(job).get("deletionTimestamp"):
            return
        ended = ended_at(job)
        early = self._world.strikes("ttl", What.EARLY_TTL)
        if early or self._world.clock.time() >= ended + ttl:
            options = {"propagationPolicy": "Foreground"}
            delete(self._world.store, JOBS, job, options, self._world.clock.time())

    def _status(self, job: Obj, change: Any) -> Obj:
        about = meta(job)
        try:
            return self._world.store.update(
                JOBS,
                about["namespace"],
                about["name"],
                lambda obj: change(obj.setdefault("status", {})),
                uid=about["uid"],
            )
        except ApiError:
            return job  # it is gone

    def _condition(
        self, status: Obj, kind: str, reason: str, message: str, *, value: str = "True"
    ) -> None:
        now = self._world.now()
        new = {"type": kind, "status": value, "reason": reason, "message": message}
        new["lastProbeTime"] = now
        old = [each for each in status.get("conditions") or [] if each["type"] != kind]
        same = [each for each in status.get("conditions") or [] if each["type"] == kind]
        if same and same[0]["status"] == value:
            return
        status["conditions"] = with_condition([*old, *same], new, now)

    def _event(self, job: Obj, reason: str, message: str, *, warning: bool = False) -> None:
        self._world.event(JOBS, job, reason, message, warning=warning, source=SOURCE)
