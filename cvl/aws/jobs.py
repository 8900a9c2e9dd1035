"""Training jobs, as things that must not outlive their run: made once, found by name and tag."""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Mapping
from dataclasses import replace
from datetime import UTC, datetime, timedelta
from typing import Any

from cvl.aws.inputs import FOLDER, PREFIX, remove
from cvl.aws.job import OVER, tags_of
from cvl.aws.place import Place
from cvl.aws.refusals import Missing, Taken
from cvl.aws.session import Account, Reply
from cvl.errors import AuthError, Rejected, Unreachable
from cvl.scope import DeadlineExceeded, Scope
from cvl.spec import RUN_ID, Resource

KIND = "training-job"
OLDEST = timedelta(days=31)
"""A job is never older: 28 days of running and some of waiting."""
PAUSES = (0.5, 1.0, 2.0, 4.0)
"""Seconds between the attempts to create a job whose reply was lost."""
CREATE_LIMIT = 60.0


def create(account: Account, body: Mapping[str, Any], scope: Scope) -> str:
    """Create a job, once, however often that takes; return its ARN. Its name is its token.

    After a lost reply a refusal proves nothing: the first request may have been the reason.
    Raises `Unreachable` when nobody can say.
    """
    doubt: Exception | None = None
    waiting = scope.shielded(CREATE_LIMIT)
    for pause in PAUSES:
        try:
            made = account.once("sagemaker", "create_training_job", **body)
            return str(made["TrainingJobArn"])
        except Taken:
            return _arn(account, str(body["TrainingJobName"]))
        except Unreachable as error:
            doubt = error
        except (Rejected, AuthError) as error:
            raise doubt or error from error
        scope.tell("waiting", f"{doubt}; asking again")
        try:
            waiting.sleep(pause)
        except DeadlineExceeded:
            break
    assert doubt is not None
    raise doubt


def found(account: Account) -> Iterator[Resource]:
    """Yield our jobs of the last weeks, the ended ones as not alive."""
    more: dict[str, str] = {}
    while True:
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
        yield from _ours(account, page["TrainingJobSummaries"])
        if not page.get("NextToken"):  # a page may be empty and not the last
            return
        more = {"NextToken": page["NextToken"]}


def drop_input(account: Account, name: str) -> None:
    """Remove what a job was given, by what its description says; only where that is ours."""
    told = account.call("sagemaker", "describe_training_job", TrainingJobName=name)
    for channel in told.get("InputDataConfig", ()):
        uri = str(channel["DataSource"].get("S3DataSource", {}).get("S3Uri", "")).rstrip("/")
        if uri.endswith(f"/{FOLDER}/{name}"):
            remove(account, Place.parse(uri))


def _arn(account: Account, name: str) -> str:
    found = account.call("sagemaker", "describe_training_job", TrainingJobName=name)
    return str(found["TrainingJobArn"])


def _ours(account: Account, summaries: Iterable[Reply]) -> Iterator[Resource]:
    """Yield those that bear a name of ours and, while they go on, our tag."""
    for each in summaries:
        name, arn = str(each["TrainingJobName"]), str(each["TrainingJobArn"])
        run_id = name.removeprefix(PREFIX)
        if not name.startswith(PREFIX) or not RUN_ID.match(run_id):
            continue
        state = str(each["TrainingJobStatus"])
        job = Resource(kind=KIND, name=name, id=arn, run_id=run_id, note=state)
        if state in OVER:
            yield replace(job, alive=False)
        elif (tags := _tags(account, arn)).get("cvl-run") == run_id:
            due = tags.get("cvl-deadline", "")
            yield replace(
                job,
                owner=tags.get("cvl-owner", ""),
                deadline=float(due) if due.isdigit() else None,
            )


def _tags(account: Account, arn: str) -> Mapping[str, str]:
    try:
        return tags_of(account, arn)
    except Missing:
        return {}
