"""Training jobs, as things that must not outlive their run: made once, found by name and tag."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from dataclasses import replace
from datetime import UTC, datetime, timedelta
from functools import partial
from typing import Any

from cvl.core import replies
from cvl.core.errors import Missing, Rejected, Taken, Unreachable
from cvl.core.spec import Resource
from cvl.core.tags import PREFIX, Marks, run_of
from cvl.providers.aws.session import Account, Reply
from cvl.providers.sagemaker.inputs import FOLDER, remove
from cvl.providers.sagemaker.s3_location import S3Location

KIND = "training-job"
OVER = frozenset({"Completed", "Failed", "Stopped", "Deleted"})
"""The states after which nothing is billed; one that is not here is going on."""
OLDEST = timedelta(days=31)
"""A job is never older: 28 days of running and some of waiting."""
MOST_PAGES = 1000


def create(account: Account, body: Mapping[str, Any]) -> str:
    """Create a job, or find that it was created before; return its ARN. Its name is its token."""
    try:
        return str(account.once("sagemaker", "create_training_job", **body)["TrainingJobArn"])
    except Taken:
        name = str(body["TrainingJobName"])
    return str(describe(account, name)["TrainingJobArn"])


def describe(account: Account, job: str) -> Reply:
    """Return AWS's description of a job. Raises `Missing`."""
    return account.call("sagemaker", "describe_training_job", TrainingJobName=job)


def stop(account: Account, job: str) -> None:
    """Ask for a job's end. One that has ended, or is not there, is success."""
    try:
        account.call("sagemaker", "stop_training_job", TrainingJobName=job)
    except Missing:
        return
    except Rejected:
        if describe(account, job)["TrainingJobStatus"] not in OVER | {"Stopping"}:
            raise


def tags_of(account: Account, arn: str) -> dict[str, str]:
    """Return the tags of a job. Raises also `KeyError`: of one that shows none nothing is known."""
    tags: dict[str, str] = {}
    more: dict[str, str] = {}
    while True:
        page = account.call("sagemaker", "list_tags", ResourceArn=arn, **more)
        tags |= {str(tag["Key"]): str(tag["Value"]) for tag in dict(page)["Tags"]}
        if not page.get("NextToken"):
            return tags
        more = {"NextToken": page["NextToken"]}


def jobs(account: Account) -> Iterator[Resource]:
    """Yield our jobs of the last weeks, the ended ones as not alive."""
    more: dict[str, str] = {}
    for _ in range(MOST_PAGES):
        page = account.call(
            "sagemaker",
            "list_training_jobs",
            NameContains=PREFIX,
            CreationTimeAfter=datetime.fromtimestamp(account.now(), UTC) - OLDEST,
            SortBy="CreationTime",
            SortOrder="Descending",
            MaxResults=100,
            **more,
        )
        summaries = page.get("TrainingJobSummaries")
        if not isinstance(summaries, list):  # an empty object would pass for an empty list
            raise Unreachable("SageMaker's list of jobs makes no sense")
        yield from replies.read(KIND, summaries, partial(_ours, account))
        if not page.get("NextToken"):  # a page may be empty and not the last
            return
        more = {"NextToken": page["NextToken"]}
    raise Unreachable("SageMaker's list of jobs has no end")


def drop_input(account: Account, name: str) -> None:
    """Remove what a job was given, by what its description says; only where that is ours."""
    for channel in describe(account, name).get("InputDataConfig", ()):
        uri = str(channel["DataSource"].get("S3DataSource", {}).get("S3Uri", "")).rstrip("/")
        if uri.endswith(f"/{FOLDER}/{name}"):
            remove(account, S3Location.parse(uri))


def _ours(account: Account, each: replies.Entry) -> Resource | None:
    """Return a job that bears a name of ours and, while it goes on, our tag.

    What keeps its tags from us is only known by its name: enough to see it gone.
    """
    name, arn = replies.text(each.get("TrainingJobName")), replies.text(each.get("TrainingJobArn"))
    run_id = run_of(name)
    if not run_id:
        return None if name else replies.unreadable(KIND, arn)
    state = replies.text(each.get("TrainingJobStatus"))
    job = Resource(kind=KIND, name=name, id=arn, run_id=run_id, note=state)
    return replace(job, alive=False) if state in OVER else _tagged(account, job)


def _tagged(account: Account, job: Resource) -> Resource | None:
    try:
        tags = tags_of(account, job.id)
    except Missing:
        return None
    except (Rejected, KeyError, TypeError):
        return replace(job, proven=False)
    marks = Marks.read(tags)
    return marks.on(job) if marks.run_id == job.run_id else None
