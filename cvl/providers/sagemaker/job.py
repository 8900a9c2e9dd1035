"""One training job: its output, its end, its exit code. Whatever fails on the way, it lives on."""

from __future__ import annotations

import re
from collections.abc import Callable, Iterator, Mapping
from contextlib import suppress
from decimal import Decimal
from pathlib import Path

from cvl.cleanup.leases import cost
from cvl.container.service_job import PASSING, ServiceJob
from cvl.core.errors import AuthError, CvlError, Denied, Missing, Rejected, Unreachable
from cvl.core.identity import noted
from cvl.core.scope import Cancelled, Scope, Tell, silent
from cvl.core.spec import Cause, ExitStatus, LogChunk, ended
from cvl.core.tags import CAUSE, listed
from cvl.core.units import priced, variable
from cvl.providers.aws import identity
from cvl.providers.aws.session import Account, Reply
from cvl.providers.sagemaker import inputs
from cvl.providers.sagemaker.job_requests import OVER, describe, stop, tags_of
from cvl.providers.sagemaker.logs import LogReader
from cvl.providers.sagemaker.s3_location import S3Location
from cvl.run.nodes import NodeEnd, first_failed

TIMED_OUT = frozenset({"MaxRuntimeExceeded", "MaxWaitTimeExceeded"})
BEFORE = frozenset({"Starting", "Pending", "LaunchingMLInstances", "PreparingTrainingStack"})
OWN_CODE = re.compile(r"cvl: exit code (\d+) on node")
EXIT_CODE = re.compile(r"exit code:? (\d+)")

LISTING_LAG = variable("SAGEMAKER_SETTLE", 60)
"""Seconds after a request in which what it made may not be found yet."""
LOOK = variable("SAGEMAKER_LOOK", 1)
PAUSES = tuple(LOOK * min(1.3**number, 5.0) for number in range(8))
"""Seconds between two looks at a job's output: longer when nothing happens."""
DRAIN = variable("SAGEMAKER_DRAIN", 20)
"""Seconds without news after the end after which the output is taken for complete, where a
stream lacks its last line: CloudWatch delivers late."""


class TrainingJob(ServiceJob):
    """The `Execution` of one run on SageMaker. `tell` hears what is waited for."""

    service = "AWS"

    def __init__(
        self,
        account: Account,
        handle: Mapping[str, str],
        tell: Tell = silent,
        billed: Callable[[str, Decimal], None] = lambda _run_id, _cost: None,
        *,
        answered: bool = False,
    ) -> None:
        """`billed` hears, once, what the job has cost."""
        super().__init__(handle, account.clock, tell, answered=answered)
        self._account, self._billed, self._job = account, billed, handle["job"]
        self._endings: tuple[NodeEnd, ...] = ()
        self._end: Reply | None = None
        self._phase = ""
        self._secrets_there = bool(handle.get("secrets"))
        self._missed: float | None = None

    def chunks(self, after: str = "") -> Iterator[LogChunk]:
        with suppress(Cancelled):  # closed
            yield from self._follow(LogReader(self._account, self._job, self.run_id, after))

    def _follow(self, reader: LogReader) -> Iterator[LogChunk]:
        now = self._account.clock.monotonic
        news = now()
        for attempt in self._scope.attempts(PAUSES):
            try:
                over = self._over()  # asked first: all that was written by then is read below
                for chunk in reader.look():
                    news = now()
                    self._heard()
                    attempt.anew()
                    yield chunk
                self._endings = reader.endings
                self._forget_secrets(reader)
                self._heard()
                if over and (reader.complete(self._nodes) or self._is_drained(now() - news)):
                    return
            except Missing:
                return  # there is no such job: `poll` says so
            except Denied as error:
                self._tell("waiting", f"the output cannot be read: {error}")
                if self._end is not None:
                    return
            except PASSING as error:
                self._wait_on(error)
                news = now()
                attempt.asked(error.wait)

    def poll(self) -> ExitStatus | None:
        if self._status is None:
            try:
                with self._login_waited_for():
                    if self._over():
                        assert self._end is not None
                        self._status = self._verdict(self._end)
                        self._reckon(self._end)  # here, after all output
            except Missing:
                detail = "AWS knows no such training job"
                self._status = ended(Cause.LOST, run_id=self.run_id, detail=detail)
        return self._status

    def stop(self, grace: float, cause: Cause) -> None:
        """As the seam says, but SageMaker's own 120 s stand for `grace`."""
        del grace
        with suppress(Missing), self._login_waited_for():
            job = self._describe()
            if job["TrainingJobStatus"] not in OVER:
                self._note_cause(str(job["TrainingJobArn"]), cause)
                stop(self._account, self._job)

    def fetch(self, into: Path, scope: Scope) -> None:
        from cvl.providers.sagemaker.outputs import fetch

        with suppress(Unreachable, AuthError):  # then whoever is asked for them says so
            identity.confirm(self._account, noted(self._handle))
        fetch(self._account, self._output() / self._job / "output", into, scope)

    def discard(self) -> None:
        """The outputs stay where the user wanted them; the input goes with its lease."""

    def _output(self) -> S3Location:
        return S3Location.parse(self._handle["output"])

    def _over(self) -> bool:
        """Return whether the job has ended; what AWS said then stays."""
        if self._end is None:
            job = self._describe()
            if job["TrainingJobStatus"] in OVER:
                self._end = job
            else:
                self._show(job)
        return self._end is not None

    def _describe(self) -> Reply:
        """Ask for the job. One that is not there is missed for a while before it is `Missing`.

        Raises `Elsewhere` where it may be in another account.
        """
        try:
            job = describe(self._account, self._job)
        except Missing as error:
            identity.confirm(self._account, noted(self._handle))
            now = self._account.clock.monotonic()
            self._missed = now if self._missed is None else self._missed
            if now - self._missed < LISTING_LAG:
                raise Unreachable(f"{self._job} is not to be seen yet: {error}") from error
            raise
        self._missed, self._answered = None, True
        return job

    def _show(self, job: Reply) -> None:
        state = str(job.get("SecondaryStatus", ""))
        if state != self._phase:
            self._phase = state
            changes = job.get("SecondaryStatusTransitions") or [{}]
            text = str(changes[-1].get("StatusMessage") or "").strip()
            phase = "waiting" if state in BEFORE else "running"
            self._tell(phase, f"{state}: {text}" if text else state)

    def _forget_secrets(self, reader: LogReader) -> None:
        """Delete the secrets once the job has them: the input is there before it trains.

        One of many nodes has them for certain when it has written something.
        """
        begun = self._phase == "Training" and self._nodes == 1
        if self._secrets_there and (begun or reader.heard(self._nodes)):
            self._secrets_there = False
            location = inputs.location_of(self._output(), self._job)
            with suppress(CvlError):  # they go with the rest, in the end
                inputs.remove_secrets(self._account, location)

    def _is_drained(self, quiet: float) -> bool:
        """Return whether nothing more will come of a job that has ended."""
        assert self._end is not None
        changes = self._end.get("SecondaryStatusTransitions", ())
        began = any(change.get("Status") == "Training" for change in changes)
        return quiet > (DRAIN if began else LOOK)

    def _verdict(self, job: Reply) -> ExitStatus:
        state, reason = job["TrainingJobStatus"], str(job.get("FailureReason") or "")
        if state == "Completed":
            return self._exited(0)
        if job.get("SecondaryStatus") in TIMED_OUT:
            return ended(Cause.TIMEOUT, run_id=self.run_id, detail=str(job["SecondaryStatus"]))
        if state == "Stopped":
            return ended(self._noted_cause(job), run_id=self.run_id)
        first = first_failed(self._endings)
        code = first.code if first else code_in(reason)
        if code:
            return self._exited(code)
        cause = Cause.NOT_STARTED if job.get("TrainingStartTime") is None else Cause.LOST
        return ended(cause, run_id=self.run_id, detail=f"SageMaker training job failed: {reason}")

    def _exited(self, code: int) -> ExitStatus:
        return ExitStatus(code, cause=Cause.EXITED, run_id=self.run_id)

    def _note_cause(self, arn: str, cause: Cause) -> None:
        """Let every other process know why; without that permission it is just `stopped`."""
        with suppress(Rejected):
            tags = listed({CAUSE: cause.value})
            self._account.call("sagemaker", "add_tags", ResourceArn=arn, Tags=tags)

    def _noted_cause(self, job: Reply) -> Cause:
        try:
            return Cause(tags_of(self._account, str(job["TrainingJobArn"]))[CAUSE])
        except (Rejected, KeyError, ValueError):
            return Cause.STOPPED

    def _reckon(self, job: Reply) -> None:
        """Tell what was billed: AWS's seconds, on each instance."""
        seconds, price = job.get("BillableTimeInSeconds"), self._handle.get("price")
        if seconds is None:
            return
        words = f"{int(seconds) * self._nodes} s billed"
        if price:
            spent = cost(Decimal(price), int(seconds))
            self._billed(self.run_id, spent)
            unit = self._handle.get("currency", "USD")
            words = f"{priced(spent, unit)}: {words} at {priced(Decimal(price), unit)} an hour"
        self._tell("cost", words)


def code_in(reason: str) -> int:
    """Return the exit code that a FailureReason tells, 0 if it tells none."""
    match = OWN_CODE.search(reason) or EXIT_CODE.search(reason)
    return int(match[1]) if match else 0
