"""What goes into a training job beside its image: one S3 folder, removed after the job.

The service itself brings it into every container, as the input channel `cvl`. So arguments have
no length limit, and secrets are in no description of the job. Secrets lie in an object of their
own, which is deleted with all its versions as soon as the job has it.
"""

from __future__ import annotations

import io
from collections.abc import Iterator, Mapping, Sequence
from typing import IO, Any

from cvl.core.errors import Denied, Missing, Unreachable, UsageError
from cvl.core.octets import octets
from cvl.core.spec import JobSpec, Resource
from cvl.core.tags import PREFIX, Marks, name_of
from cvl.providers.aws.session import Account
from cvl.providers.sagemaker.s3_location import S3Location

KIND = "s3-input"
FOLDER = "cvl-input"
SCRIPT, SECRETS, ENTRY, CODE, WORK = "job.sh", "secrets.sh", "entry.sh", "code.tar", "work"
MOST = 1000
"""Keys that one DeleteObjects takes."""


def location_of(output: S3Location, job: str) -> S3Location:
    """Return where the input of a job lies: beside the outputs, where the role may read."""
    return output / FOLDER / job


def script(spec: JobSpec) -> bytes:
    """Return `job.sh`: the preset's variables, then the argument list. Raises `UsageError`.

    It says whether there are secrets: without them the job must not run.
    """
    words = b" ".join(map(quoted, spec.argv))
    mark = b"_cvl_secrets=1\n" if spec.secrets else b""
    return exports(spec.env) + mark + b"set -- " + words + b"\n"


def exports(env: Mapping[str, str]) -> bytes:
    """Return lines that export variables, byte for byte. Raises `UsageError`, without a value."""
    lines = []
    for name, value in env.items():
        if not (name.isidentifier() and name.isascii()):
            raise UsageError(f"{name!r} is no name of a variable", "use letters, digits and _")
        lines.append(b"export " + name.encode() + b"=" + quoted(value) + b"\n")
    return b"".join(lines)


def quoted(word: str) -> bytes:
    """Return a word for a POSIX shell, byte for byte. Raises `UsageError` for a NUL."""
    data = octets(word)
    if b"\0" in data:
        raise UsageError("an argument holds a NUL byte", "no program can be given one")
    return b"'" + data.replace(b"'", b"'\\''") + b"'"


def upload(
    account: Account,
    location: S3Location,
    spec: JobSpec,
    marks: Mapping[str, str],
    code: Mapping[str, IO[bytes]],
) -> str:
    """Put everything there, the script last; return its URI.

    `marks` are the tags that every object bears; `code` what an image of others lacks, by name.
    """
    for path, file in spec.inputs.items():
        with file.open("rb") as body:
            _put(account, location, f"{WORK}/{path}", body, marks)
    for name, content in code.items():
        _put(account, location, name, content, marks)
    if spec.secrets:
        _put(account, location, SECRETS, io.BytesIO(exports(spec.secrets)), marks)
    _put(account, location, SCRIPT, io.BytesIO(script(spec)), marks)
    return str(location)


def inputs(account: Account, output: S3Location) -> Iterator[Resource]:
    """Yield every run's input that is still there."""
    keys: dict[str, str] = {}
    start = f"{output.prefix}/{FOLDER}/" if output.prefix else f"{FOLDER}/"
    try:
        for each in (output / FOLDER).objects(account):
            job = str(each["Key"]).removeprefix(start).partition("/")[0]
            if job.startswith(PREFIX):
                keys.setdefault(job, str(each["Key"]))
    except Missing:
        return
    for job, key in keys.items():
        if resource := _resource(account, output, job, key):
            yield resource


def remove(account: Account, location: S3Location) -> None:
    """Delete everything there with all its versions; nothing there is success.

    Raises `Denied` where old versions had to stay: what is current is gone then all the same.
    """
    _erase(account, location.bucket, f"{location.prefix}/")


def remove_secrets(account: Account, location: S3Location) -> None:
    """Delete the secrets alone, as `remove` does: the job has read them."""
    _erase(account, location.bucket, (location / SECRETS).prefix)


def _erase(account: Account, bucket: str, start: str) -> None:
    """Delete all versions of what begins with `start`; without that permission, what is current.

    What is current goes last: whoever is killed on the way leaves something that is found again.
    """
    try:
        every = sorted(_versions(account, bucket, start), key=lambda each: bool(each["IsLatest"]))
        _delete(account, bucket, [_exactly(each) for each in every])
    except Missing:
        return
    except Denied as error:
        current = S3Location(bucket=bucket).objects(account, start)
        deletions = _delete(account, bucket, [{"Key": each["Key"]} for each in current])
        if any(each.get("DeleteMarker") for each in deletions):
            raise Denied(
                f"old versions of s3://{bucket}/{start} stay, forwarded variables among them: "
                "these credentials may not delete versions",
                "allow s3:ListBucketVersions and s3:DeleteObjectVersion there, and delete them",
            ) from error


def _versions(account: Account, bucket: str, start: str) -> Iterator[Mapping[str, Any]]:
    more: dict[str, str] = {}
    while True:
        page = account.call("s3", "list_object_versions", Bucket=bucket, Prefix=start, **more)
        yield from page.get("Versions", ())
        yield from page.get("DeleteMarkers", ())
        if not page.get("IsTruncated"):
            return
        more = {"KeyMarker": page["NextKeyMarker"]}
        if version := page.get("NextVersionIdMarker"):
            more["VersionIdMarker"] = version


def _exactly(version: Mapping[str, Any]) -> dict[str, str]:
    """Return how DeleteObjects names a version; where none are kept, that needs no permission."""
    if version["VersionId"] == "null" and version["IsLatest"]:
        return {"Key": version["Key"]}
    return {"Key": version["Key"], "VersionId": version["VersionId"]}


def _delete(
    account: Account, bucket: str, objects: Sequence[Mapping[str, str]]
) -> list[Mapping[str, Any]]:
    """Delete objects; return what S3 says of each. Raises `Denied` where it may not be."""
    deletions: list[Mapping[str, Any]] = []
    for start in range(0, len(objects), MOST):
        some = {"Objects": objects[start : start + MOST]}
        reply = account.call("s3", "delete_objects", Bucket=bucket, Delete=some)
        for each in reply.get("Errors", ()):
            kind = Denied if each.get("Code") == "AccessDenied" else Unreachable
            raise kind(f"s3: {each.get('Code')}: {each.get('Message', '')}")
        deletions += reply.get("Deleted", ())
    return deletions


def _put(
    account: Account, location: S3Location, name: str, body: IO[bytes], marks: Mapping[str, str]
) -> None:
    key = (location / name).prefix
    account.call("s3", "put_object", Bucket=location.bucket, Key=key, Body=body, Metadata=marks)


def _resource(account: Account, output: S3Location, job: str, key: str) -> Resource | None:
    try:
        head = account.call("s3", "head_object", Bucket=output.bucket, Key=key)
    except Missing:
        return None
    marks = Marks.read(head.get("Metadata", {}))
    if not marks.run_id or job != name_of(marks.run_id):
        return None
    return marks.on(Resource(kind=KIND, name=job, id=str(location_of(output, job))))
