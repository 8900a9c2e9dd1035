"""What goes into a training job beside its image: one S3 folder, removed after the job.

The service itself brings it into every container, as the input channel `cvl`. So arguments have
no length limit, and secrets are in no description of the job.
"""

from __future__ import annotations

import io
import os
from collections.abc import Iterator, Mapping
from typing import IO

from cvl import outside
from cvl.aws.place import Place
from cvl.aws.refusals import Missing
from cvl.aws.session import Account
from cvl.errors import UsageError
from cvl.spec import RUN_ID, JobSpec, Resource

KIND = "s3-input"
FOLDER = "cvl-input"
SCRIPT, ENTRY, CODE, WORK = "job.sh", "entry.sh", "code.tar", "work"
PREFIX = "cvl-"
MOST = 1000
"""Keys that one DeleteObjects takes."""


def place_of(output: Place, job: str) -> Place:
    """Return where the input of a job lies: beside the outputs, where the role may read."""
    return output / FOLDER / job


def script(spec: JobSpec) -> bytes:
    """Return `job.sh`: the variables, then the argument list. Raises `UsageError`."""
    lines = []
    for name, value in {**spec.env, **spec.secrets}.items():
        if not (name.isidentifier() and name.isascii()):
            raise UsageError(f"{name!r} is no name of a variable", "use letters, digits and _")
        lines.append(b"export " + name.encode() + b"=" + quoted(value) + b"\n")
    words = b" ".join(map(quoted, spec.argv))
    return b"".join(lines) + b"set -- " + words + b"\n"


def quoted(word: str) -> bytes:
    """Return a word for a POSIX shell, byte for byte. Raises `UsageError` for a NUL."""
    data = os.fsencode(word)
    if b"\0" in data:
        raise UsageError("an argument holds a NUL byte", "no program can be given one")
    return b"'" + data.replace(b"'", b"'\\''") + b"'"


def upload(
    account: Account,
    place: Place,
    spec: JobSpec,
    marks: Mapping[str, str],
    code: Mapping[str, IO[bytes]],
) -> str:
    """Put everything there, the script last; return the place's URI.

    `marks` are the tags that every object bears; `code` what an image of others lacks, by name.
    """
    for path, file in spec.inputs.items():
        with file.open("rb") as body:
            _put(account, place, f"{WORK}/{path}", body, marks)
    for name, content in code.items():
        _put(account, place, name, content, marks)
    _put(account, place, SCRIPT, io.BytesIO(script(spec)), marks)
    return str(place)


def found(account: Account, output: Place) -> Iterator[Resource]:
    """Yield every run's input that is still there."""
    seen: dict[str, str] = {}
    start = f"{output.prefix}/{FOLDER}/" if output.prefix else f"{FOLDER}/"
    try:
        for each in (output / FOLDER).objects(account):
            job = str(each["Key"]).removeprefix(start).partition("/")[0]
            if job.startswith(PREFIX):
                seen.setdefault(job, str(each["Key"]))
    except Missing:
        return
    for job, key in seen.items():
        if resource := _resource(account, output, job, key):
            yield resource


def remove(account: Account, place: Place) -> None:
    """Delete everything there; nothing there is success."""
    try:
        keys = [{"Key": each["Key"]} for each in place.objects(account)]
        for start in range(0, len(keys), MOST):
            some = {"Objects": keys[start : start + MOST], "Quiet": True}
            account.call("s3", "delete_objects", Bucket=place.bucket, Delete=some)
    except Missing:
        return


def _put(
    account: Account, place: Place, name: str, body: IO[bytes], marks: Mapping[str, str]
) -> None:
    key = (place / name).prefix
    account.call("s3", "put_object", Bucket=place.bucket, Key=key, Body=body, Metadata=marks)


def _resource(account: Account, output: Place, job: str, key: str) -> Resource | None:
    try:
        head = account.call("s3", "head_object", Bucket=output.bucket, Key=key)
    except Missing:
        return None
    marks = head.get("Metadata", {})
    run_id, deadline = marks.get("cvl-run", ""), marks.get("cvl-deadline", "")
    if not RUN_ID.match(run_id) or job != PREFIX + run_id:
        return None
    return Resource(
        kind=KIND,
        name=job,
        id=str(place_of(output, job)),
        run_id=run_id,
        owner=marks.get("cvl-owner", ""),
        deadline=outside.deadline(deadline),
    )
