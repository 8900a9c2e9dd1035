"""Training jobs that walk through SageMaker's states, with delays, and are metered."""

from __future__ import annotations

import shutil
import threading
import time
from collections.abc import Mapping
from contextlib import closing, suppress
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, Protocol

from cvl.testing.sagemaker.containers import Attempt

OVER = frozenset({"Completed", "Failed", "Stopped"})
TICK = 0.03


class Storage(Protocol):
    """What SageMaker itself does with S3 and CloudWatch."""

    def download(self, uri: str, into: Path) -> None: ...
    def upload(self, file: Path, uri: str) -> None: ...
    def write(self, stream: str, messages: Any) -> None: ...


@dataclass(slots=True, kw_only=True)
class Delays:
    """Seconds. `start` is from the request to the download, `late` until streams are listed."""

    start: float = 0.1
    upload: float = 0.05
    stop: float = 120.0


@dataclass(slots=True, kw_only=True)
class Job:
    """One training job: what was asked, where it is, what is billed."""

    arn: str
    asked: Mapping[str, Any]
    tags: dict[str, str]
    created: float = field(default_factory=time.time)
    status: str = "InProgress"
    secondary: str = "Starting"
    changes: list[dict[str, Any]] = field(default_factory=list)
    reason: str = ""
    began: float | None = None
    ended: float | None = None
    stop: threading.Event = field(default_factory=threading.Event)
    interrupted: threading.Event = field(default_factory=threading.Event)

    @property
    def name(self) -> str:
        """Its name, unique in the account."""
        return str(self.asked["TrainingJobName"])

    def move(self, status: str, secondary: str, message: str = "") -> None:
        """Enter a state."""
        now = time.time()
        if self.changes:
            self.changes[-1].setdefault("EndTime", now)
        self.changes.append({"Status": secondary, "StartTime": now, "StatusMessage": message})
        if status in OVER:
            self.changes[-1]["EndTime"] = self.ended = now
        self.status, self.secondary = status, secondary

    def billable(self) -> int:
        """Return the seconds that are billed, for each instance."""
        until = time.time() if self.ended is None else self.ended
        return 0 if self.began is None else max(1, round(until - self.began))

    def described(self) -> dict[str, Any]:
        """Return the answer of DescribeTrainingJob."""
        found = {k: v for k, v in self.asked.items() if k != "Tags"} | {
            "TrainingJobArn": self.arn,
            "TrainingJobStatus": self.status,
            "SecondaryStatus": self.secondary,
            "CreationTime": self.created,
            "LastModifiedTime": self.changes[-1]["StartTime"] if self.changes else self.created,
            "SecondaryStatusTransitions": list(self.changes),
            "ModelArtifacts": {"S3ModelArtifacts": f"{self.output()}/model.tar.gz"},
        }
        if self.reason:
            found["FailureReason"] = self.reason[:1024]
        if self.began is not None:
            found["TrainingStartTime"] = self.began
        if self.began is not None and self.ended is not None:
            found |= {
                "TrainingEndTime": self.ended,
                "TrainingTimeInSeconds": self.billable(),
                "BillableTimeInSeconds": self.billable(),
            }
        return found

    def output(self) -> str:
        """Return where its artifacts go."""
        return f"{self.asked['OutputDataConfig']['S3OutputPath'].rstrip('/')}/{self.name}/output"


class Runner:
    """Takes one job through its states, in a thread of its own."""

    def __init__(
        self, job: Job, root: Path, storage: Storage, delays: Delays, env: Mapping[str, str] | None
    ) -> None:
        """`env` reaches a Docker engine; None: the job's containers do nothing and exit 0."""
        self.job, self._root, self._storage = job, root, storage
        self._delays, self._env = delays, env
        self.thread = threading.Thread(target=self._safe, name=job.name, daemon=True)

    def _safe(self) -> None:
        try:
            while not self._attempt():
                pass
        except Exception as error:  # noqa: BLE001 - as the service does: it is the job that fails
            self.job.reason = f"InternalServerError: {error!r}"
            self.job.move("Failed", "Failed")
        finally:
            shutil.rmtree(self._root, ignore_errors=True)

    def _attempt(self) -> bool:
        """Run it once; return False when it was interrupted and starts anew."""
        job = self.job
        job.move("InProgress", "Starting", "Starting the training job")
        if self._stopped_within(self._delays.start):
            return self._end("Stopped", "Stopped")
        with closing(Attempt(self._root, job.asked, self._env or {})) as attempt:
            return self._tried(attempt)

    def _tried(self, attempt: Attempt) -> bool:
        job = self.job
        job.move("InProgress", "Downloading", "Downloading the training image")
        if self._env is not None and (why := attempt.pull()):
            job.reason = f"ClientError: Cannot pull the image: {why}"
            return self._end("Failed", "Failed", job.reason)
        self._lay_out(attempt)
        if job.began is None:
            job.began = time.time()
        job.move(
            "InProgress", "Training", "Training image download completed. Training in progress."
        )
        if self._env is not None:
            attempt.start(self._storage.write)
        else:
            self._pretend(attempt)
        why = self._watch(attempt)
        attempt.drain()
        self._save_checkpoints(attempt)
        if why == "Interrupted":
            job.interrupted.clear()
            job.move("InProgress", "Interrupted", "Interrupted")
            shutil.rmtree(self._root, ignore_errors=True)
            return False
        codes = [code for code in attempt.codes() if code not in {None, 0}]
        self._upload(attempt, failed=bool(codes) and not why)
        if why:
            return self._end("Stopped", why)
        if codes:
            job.reason = f"AlgorithmError: {attempt.failure()}, exit code: {codes[0]}"
            return self._end("Failed", "Failed", job.reason)
        return self._end("Completed", "Completed", "Training job completed")

    def _end(self, status: str, secondary: str, message: str = "") -> bool:
        self.job.move(status, secondary, message)
        return True

    def _stopped_within(self, seconds: float) -> bool:
        return self.job.stop.wait(seconds)

    def _lay_out(self, attempt: Attempt) -> None:
        attempt.prepare()
        for host in attempt.hosts:
            for channel in self.job.asked.get("InputDataConfig", ()):
                into = attempt.folder(host) / "input/data" / channel["ChannelName"]
                into.mkdir(parents=True, exist_ok=True)
                self._storage.download(channel["DataSource"]["S3DataSource"]["S3Uri"], into)
            if "CheckpointConfig" in self.job.asked:
                uri = self.job.asked["CheckpointConfig"]["S3Uri"]
                self._storage.download(uri, attempt.folder(host) / "checkpoints")

    def _pretend(self, attempt: Attempt) -> None:
        """Write what the entry script would write of a job that does nothing."""
        run_id = self.job.asked.get("Environment", {}).get("CVL_RUN_ID", "")
        for host in attempt.hosts:
            stream = f"{self.job.name}/{host}-{int(time.time())}"
            self._storage.write(stream, [f"[cvl] {run_id}: exit code 0"])

    def _watch(self, attempt: Attempt) -> str:
        """Wait for its end; return why it was ended, "" if it ended by itself."""
        attempt.await_start()  # an instance that boots slowly here takes nothing from the job
        limit = time.time() + self.job.asked["StoppingCondition"]["MaxRuntimeInSeconds"]
        while any(code is None for code in attempt.codes()):
            why = ""
            if self.job.stop.is_set():
                why = "Stopped"
                self.job.move("Stopping", "Stopping", "Stopping the training job")
            elif time.time() > limit:
                why = "MaxRuntimeExceeded"
                self.job.move("InProgress", "Stopping", "Training job runtime exceeded")
            elif self.job.interrupted.is_set():
                why = "Interrupted"
            if why:
                self._terminate(attempt)
                return why
            if any(attempt.codes()):
                self._terminate(attempt, 5.0)
                return ""
            time.sleep(TICK)
        return ""

    def _terminate(self, attempt: Attempt, seconds: float | None = None) -> None:
        until = time.time() + (self._delays.stop if seconds is None else seconds)
        attempt.signal("TERM")
        while any(code is None for code in attempt.codes()):
            if time.time() > until:
                attempt.signal("KILL")
                until = time.time() + 5
            time.sleep(TICK)

    def _save_checkpoints(self, attempt: Attempt) -> None:
        if "CheckpointConfig" not in self.job.asked:
            return
        uri = self.job.asked["CheckpointConfig"]["S3Uri"].rstrip("/")
        for host in attempt.hosts:
            base = attempt.folder(host) / "checkpoints"
            for file in base.rglob("*"):
                if file.is_file():
                    self._storage.upload(file, f"{uri}/{file.relative_to(base)}")

    def _upload(self, attempt: Attempt, *, failed: bool) -> None:
        status = "Stopping" if self.job.stop.is_set() else "InProgress"
        self.job.move(status, "Uploading", "Uploading generated training model")
        time.sleep(self._delays.upload)
        with suppress(FileNotFoundError):
            if not failed:
                self._storage.upload(attempt.archive("model"), f"{self.job.output()}/model.tar.gz")
            self._storage.upload(
                attempt.archive("output/data"), f"{self.job.output()}/output.tar.gz"
            )
