"""One run on a cluster: its output, its end, its exit code. Whatever fails on the way, it lives on.

Nothing here deletes anything but `stop`, and, where one of many nodes has failed, what is left of
the others.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from contextlib import suppress
from pathlib import Path

from cvl.container.service_job import PASSING, ServiceJob
from cvl.core.errors import CvlError, FetchError, Missing, Rejected, Taken, Unreachable
from cvl.core.identity import noted
from cvl.core.scope import Cancelled, Scope, Tell, silent
from cvl.core.spec import Cause, ExitStatus, LogChunk, ended
from cvl.core.units import variable
from cvl.providers.kubernetes import identity, objects, pods, results
from cvl.providers.kubernetes.client import Client, Object, api_path
from cvl.providers.kubernetes.job_state import JobState, JobTracker
from cvl.providers.kubernetes.log_reader import Logs
from cvl.providers.kubernetes.lost_pods import UNSEEN
from cvl.providers.kubernetes.manifest import CAUSE
from cvl.run.nodes import NodeEnd

LOOK = variable("CVL_KUBE_LOOK", 0.5)
"""Seconds between two looks at a run's pods; six times that when nothing happens."""
SLOWEST = 6
DRAIN = 20.0
"""Seconds without news after the end after which the output is taken for complete."""


class KubeJob(ServiceJob):
    """The `Execution` of one run on a cluster. `tell` hears what is waited for."""

    service = "the cluster"

    def __init__(
        self,
        client: Client,
        handle: Mapping[str, str],
        tell: Tell = silent,
        *,
        answered: bool = False,
    ) -> None:
        super().__init__(handle, client.clock, tell, answered=answered)
        self._client, self._namespace = client, handle["namespace"]
        self._path = api_path("jobs", self._namespace, handle["job"])
        self._tracker = JobTracker(client, handle, tell)
        self._logs: Logs | None = None
        self._cause: Cause | None = None

    def chunks(self, after: str = "") -> Iterator[LogChunk]:
        many = self._nodes > 1
        self._logs = logs = Logs(self._client, self.run_id, after, self._tell, many=many)
        try:
            yield from self._followed(logs)
        finally:
            logs.close()

    def poll(self) -> ExitStatus | None:
        if self._status is None:
            with self._login_waited_for():
                self._judge(self._tracker.look(self._logs.endings if self._logs else {}))
                self._answered = True
        return self._status

    def stop(self, grace: float, cause: Cause) -> None:
        """As the seam says, but the grace that the job was started with stands for `grace`."""
        del grace
        self._cause = cause
        if self._handle.get("wrapped"):
            results.claim(self._client, self._namespace, self.run_id)
        if not self._asked_to_end(cause):
            self._end(cause)

    def fetch(self, into: Path, scope: Scope) -> None:
        if not self._handle.get("wrapped"):
            return
        try:
            results.fetch(self._client, self._tracker, into, scope, self._status)
        except FetchError:
            with suppress(Unreachable):  # then the first word stands
                self._confirm()
            raise

    def discard(self) -> None:
        if self._handle.get("wrapped"):
            results.let_go(self._client, self._namespace, self.run_id)

    def close(self) -> None:
        super().close()
        if self._logs:
            self._logs.close()

    def _followed(self, logs: Logs) -> Iterator[LogChunk]:
        now = self._client.clock.monotonic
        news = now()
        pause, looked = LOOK, 0.0
        while self._scope.cause is None:
            for chunk in logs.take(pause):
                news, pause = now(), LOOK
                yield chunk
            if now() - looked < pause and not logs.endings:
                continue
            try:
                state = self._tracker.look(logs.endings)
                looked = now()
                self._heard()
            except PASSING as error:
                self._wait_on(error)
                with suppress(Cancelled):
                    self._scope.sleep(max(LOOK * 2, error.wait))
                news = now()
                continue
            logs.follow(state.pods, gone=state.gone)
            self._judge(state)
            drained = now() - news > DRAIN
            if self._status is not None and (drained or logs.complete()):
                yield from logs.take(0)
                return
            pause = min(pause * 1.3, LOOK * SLOWEST)

    def _judge(self, state: JobState) -> None:
        """Find out how the run ended, if it has; end what is left of it when one node failed."""
        failed = state.failed and state.failed.cause is not Cause.STOPPED
        if (failed or state.late) and not (state.over or state.ending or self._cause):
            failure = f"node {state.failed.node} has failed" if state.failed else state.words
            self._tell("stopping", failure)
            self._end(None)
        if state.over:
            if state.gone and len(state.fates) < state.nodes:
                self._confirm()
            self._status = self._verdict(state, self._cause or state.cause)

    def _confirm(self) -> None:
        """Raise `Elsewhere` if what was not found may be on another cluster."""
        with self._login_waited_for():
            identity.confirm(self._client, noted(self._handle))

    def _verdict(self, state: JobState, cause: Cause | None) -> ExitStatus:
        if state.failed and (state.failed.cause is not Cause.STOPPED or not cause):
            return self._exit_status(state.failed)
        if len(state.fates) >= state.nodes and not state.failed:
            return ExitStatus(0, run_id=self.run_id)
        if cause:
            return ended(cause, run_id=self.run_id)
        if state.words:
            why = Cause.LOST if state.ran else Cause.NOT_STARTED
            return ended(why, run_id=self.run_id, detail=state.words)
        if state.known:
            return ended(Cause.STOPPED, run_id=self.run_id, detail="its Job was deleted")
        detail = f"the cluster knows no Job {self._handle['job']} in {self._namespace}"
        return ended(Cause.LOST, run_id=self.run_id, detail=detail)

    def _exit_status(self, fate: NodeEnd) -> ExitStatus:
        detail = fate.detail
        if self._nodes > 1:
            detail = f"node {fate.node}" + (f": {detail}" if detail else "")
        if fate.cause in {Cause.EXITED, Cause.OUT_OF_MEMORY}:
            return ExitStatus(fate.code, cause=fate.cause, run_id=self.run_id, detail=detail)
        return ended(fate.cause, run_id=self.run_id, detail=detail)

    def _asked_to_end(self, cause: Cause) -> bool:
        """Ask the job alone to end where sidecars run beside it; return whether it was asked."""
        with suppress(CvlError):
            own = list(self._tracker.pods().values())
            alive = [each for each in own if pods.started(each) and not pods.over(each)]
            if self._handle.get("wrapped") and alive and all(map(objects.has_sidecars, own)):
                self._note(self._job(), cause)
                return results.ask_to_end(self._client, alive)
        return False

    def _note(self, job: Object, cause: Cause) -> None:
        if CAUSE not in (job["metadata"].get("annotations") or {}):
            with suppress(Rejected):
                note = {"metadata": {"annotations": {CAUSE: cause.value}}}
                self._client.patch(self._path, note)

    def _end(self, cause: Cause | None) -> None:
        """Delete the Job, this very one, and with it its pods; note why for everybody else.

        Raises `Elsewhere` if this cluster lacks it and is not the one that it was made on.
        """
        try:
            with self._login_waited_for():
                job = self._job()
                if cause:
                    self._note(job, cause)
                self._client.delete(self._path, str(job["metadata"]["uid"]))
        except (Missing, Taken):
            self._confirm()

    def _job(self) -> Object:
        """Return the Job; a first miss is not believed."""
        for _ in Scope(self._client.clock).attempts((LOOK,), most=UNSEEN):
            try:
                return self._client.get(self._path)
            except Missing as error:
                missing = error
        raise missing
