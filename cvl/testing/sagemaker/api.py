"""SageMaker's operations on training jobs, as the wire has them."""

from __future__ import annotations

import itertools
import tempfile
import threading
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any

from cvl.testing.sagemaker.jobs import OVER, Delays, Job, Runner, Storage
from cvl.testing.sagemaker.model import faults_of_request
from cvl.testing.sagemaker.quotas import Quotas

Body = Mapping[str, Any]
PAGE = 10
TAG_LIMIT = 50


class Refused(Exception):
    """An answer that is an error: its code and its message."""

    def __init__(self, code: str, message: str) -> None:
        super().__init__(f"{code}: {message}")
        self.code, self.message = code, message


class TrainingJobs:
    """One account's jobs."""

    def __init__(
        self, region: str, storage: Storage, delays: Delays, env: Mapping[str, str] | None
    ) -> None:
        """`env` reaches the Docker engine that stands for the instances; None: there is none."""
        self.jobs: dict[str, Job] = {}
        self.quotas = Quotas()
        self._region, self._storage, self._delays, self._env = region, storage, delays, env
        self._lock = threading.Lock()
        self._runners: list[Runner] = []
        self._operations: Mapping[str, Callable[[Body], dict[str, Any]]] = {
            "CreateTrainingJob": self._create,
            "DescribeTrainingJob": lambda body: self._job(body).described(),
            "StopTrainingJob": self._stop,
            "ListTrainingJobs": self._list,
            "ListTags": self._list_tags,
            "AddTags": self._add_tags,
        }

    def answer(self, operation: str, body: Body) -> dict[str, Any]:
        """Carry out one operation. Raises `Refused`."""
        if operation not in self._operations:
            raise Refused("UnknownOperationException", operation)
        if wrong := faults_of_request("sagemaker", operation, body):
            raise Refused("ValidationException", f"{len(wrong)} errors: {'; '.join(wrong)}")
        return self._operations[operation](body)

    def going_on(self) -> list[Job]:
        """Return the jobs that have not ended."""
        return [job for job in self.jobs.values() if job.status not in OVER]

    def close(self) -> None:
        """End everything at once."""
        self._delays.stop = 0.0
        for job in self.jobs.values():
            job.stop.set()
        for runner in self._runners:
            runner.thread.join(60.0)

    def _create(self, body: Body) -> dict[str, Any]:
        name = body["TrainingJobName"]
        self._judge(body)
        with self._lock:
            if name in self.jobs:
                raise Refused("ResourceInUse", f"Training job names must be unique: {name}")
            self._count(body)
            job = Job(
                arn=f"arn:aws:sagemaker:{self._region}:123456789012:training-job/{name}",
                asked=dict(body),
                tags={tag["Key"]: tag["Value"] for tag in body.get("Tags", ())},
            )
            self.jobs[name] = job
        root = Path(tempfile.mkdtemp(prefix="cvl-sagemaker-"))
        runner = Runner(job, root, self._storage, self._delays, self._env)
        self._runners.append(runner)
        runner.thread.start()
        return {"TrainingJobArn": job.arn}

    def _count(self, body: Body) -> None:
        """Refuse more instances at once than the quota allows."""
        kind, spot = body["ResourceConfig"]["InstanceType"], is_spot(body)
        there = [job.asked for job in self.going_on()]
        same = [a for a in there if a["ResourceConfig"]["InstanceType"] == kind]
        used = sum(a["ResourceConfig"]["InstanceCount"] for a in same if is_spot(a) == spot)
        wanted, most = body["ResourceConfig"]["InstanceCount"], self.quotas.of(kind, spot=spot)
        if used + wanted > most:
            use = f"{kind} for {'spot ' if spot else ''}training job usage"
            raise Refused(
                "ResourceLimitExceeded",
                f"The account-level service limit '{use}' is {most:g} Instances, with current "
                f"utilization of {used} Instances and a request delta of {wanted} Instances.",
            )

    def _judge(self, body: Body) -> None:
        """Refuse what botocore's model does not say."""
        stopping = body.get("StoppingCondition", {})
        if body.get("EnableManagedSpotTraining"):
            if stopping.get("MaxWaitTimeInSeconds", 0) < stopping.get("MaxRuntimeInSeconds", 86400):
                raise Refused(
                    "ValidationException", "MaxWaitTimeInSeconds is less than MaxRuntimeInSeconds"
                )
        elif "MaxWaitTimeInSeconds" in stopping:
            raise Refused("ValidationException", "MaxWaitTimeInSeconds goes with spot training")
        if stopping.get("MaxRuntimeInSeconds", 1) > 28 * 86400:
            raise Refused("ValidationException", "MaxRuntimeInSeconds is more than 28 days")
        for argument in body["AlgorithmSpecification"].get("ContainerArguments", ()):
            if "\n" in argument:
                raise Refused("ValidationException", "an argument holds a newline")

    def _job(self, body: Body) -> Job:
        try:
            return self.jobs[body["TrainingJobName"]]
        except KeyError:
            raise Refused("ValidationException", "Requested resource not found.") from None

    def _stop(self, body: Body) -> dict[str, Any]:
        job = self._job(body)
        if job.status in OVER:
            raise Refused(
                "ValidationException",
                f"The request was rejected because the training job is in status {job.status}.",
            )
        if job.status == "InProgress":
            job.move("Stopping", "Stopping", "Stopping the training job")
        job.stop.set()
        return {}

    def _list(self, body: Body) -> dict[str, Any]:
        """Cut pages first and filter then, as AWS does: a page may be empty."""
        newest = sorted(self.jobs.values(), key=lambda job: job.created, reverse=True)
        start = int(body.get("NextToken", "0"))
        size = min(body.get("MaxResults", PAGE), PAGE)
        page = itertools.islice(newest, start, start + size)
        wanted = [
            job
            for job in page
            if body.get("NameContains", "") in job.name
            and job.created >= body.get("CreationTimeAfter", 0)
            and body.get("StatusEquals", job.status) == job.status
        ]
        found: dict[str, Any] = {
            "TrainingJobSummaries": [
                {
                    "TrainingJobName": job.name,
                    "TrainingJobArn": job.arn,
                    "CreationTime": job.created,
                    "TrainingJobStatus": job.status,
                }
                for job in wanted
            ]
        }
        if start + size < len(newest):
            found["NextToken"] = str(start + size)
        return found

    def _list_tags(self, body: Body) -> dict[str, Any]:
        tags = self._by_arn(body).tags
        return {"Tags": [{"Key": key, "Value": value} for key, value in tags.items()]}

    def _add_tags(self, body: Body) -> dict[str, Any]:
        tags = self._by_arn(body).tags
        tags |= {tag["Key"]: tag["Value"] for tag in body["Tags"]}
        if len(tags) > TAG_LIMIT:
            raise Refused("ValidationException", "too many tags")
        return {"Tags": [{"Key": key, "Value": value} for key, value in tags.items()]}

    def _by_arn(self, body: Body) -> Job:
        for job in self.jobs.values():
            if job.arn == body["ResourceArn"]:
                return job
        raise Refused("ValidationException", "Requested resource not found.")


def is_spot(body: Body) -> bool:
    """Return whether a request is for managed spot training."""
    return bool(body.get("EnableManagedSpotTraining"))
