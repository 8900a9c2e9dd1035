"""The image registry: one ECR repository for all our images, asked and filled."""

from __future__ import annotations

import base64
import json
import os
import shutil
import tempfile
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path

from cvl.core import replies
from cvl.core.errors import CvlError, Missing, Rejected, Taken, Unreachable
from cvl.core.paths import replace_file
from cvl.core.scope import Scope
from cvl.core.secrets import learn
from cvl.providers.aws.session import Account
from cvl.providers.sagemaker import docker

REPOSITORY = "cvl"
REFUSED = ("denied", "not authorized", "forbidden", "403", "no basic auth")
"""Words of a push that these credentials are not allowed."""
SHARED = ("contexts", "cli-plugins", "buildx")
"""What of the user's Docker configuration the commands that push still need."""
KEYS = ("currentContext", "cliPluginsExtraDirs", "proxies", "HttpHeaders")


def repository(account: Account) -> str:
    """Return our repository's URI, "" where there is none yet. Raises `CvlError`."""
    try:
        reply = account.call("ecr", "describe_repositories", repositoryNames=[REPOSITORY])
    except Missing:
        return ""
    return str(reply["repositories"][0]["repositoryUri"])


def has(account: Account, tag: str) -> bool:
    """Return whether our repository has an image of that tag; False also where we may not ask."""
    images = [{"imageTag": tag}]
    try:
        reply = account.call("ecr", "batch_get_image", repositoryName=REPOSITORY, imageIds=images)
    except Rejected:
        return False
    return bool(reply["images"])


def create(account: Account) -> str:
    """Make our repository, unless somebody else just did; return its URI. Raises `CvlError`."""
    try:
        reply = account.call("ecr", "create_repository", repositoryName=REPOSITORY)
        return str(reply["repository"]["repositoryUri"])
    except Taken:
        return repository(account)


def uri(account: str, region: str, partition: str) -> str:
    """Return what the repository's URI will be, without asking."""
    suffix = "amazonaws.com.cn" if partition == "aws-cn" else "amazonaws.com"
    return f"{account}.dkr.ecr.{region}.{suffix}/{REPOSITORY}"


def login(account: Account) -> str:
    """Return user and password for the next hours, as Docker's configuration has them.

    Raises `CvlError`.
    """
    reply = account.call("ecr", "get_authorization_token")
    try:
        token = str(reply["authorizationData"][0]["authorizationToken"])
        learn(token)
        learn(base64.b64decode(token).decode().partition(":")[2])
    except (LookupError, TypeError, ValueError):
        raise Unreachable("ecr: its answer holds no login") from None
    return token


def push(account: Account, image: str, scope: Scope) -> None:
    """Push a local image that bears our URI, with a login of now. Raises `CvlError`."""
    with _private_config(image.partition("/")[0], login(account)) as env:
        try:
            docker.run(("push", image), "pushing", scope, env=env)
        except CvlError as error:
            raise CvlError(f"ECR push failed: {error}", _remedy(str(error))) from error


def _remedy(refusal: str) -> str:
    """Return what to do now about a push that ECR, or Docker, has refused in these words."""
    words = refusal.lower()
    if "immutable" in words:
        return (
            f"the repository {REPOSITORY} has that tag and lets none be replaced: delete the image "
            "there, or make its tags mutable"
        )
    if any(each in words for each in REFUSED):
        return "these credentials need ecr:PutImage and the layer uploads"
    return "trying again sends only what is missing"


@contextmanager
def _private_config(host: str, login: str) -> Iterator[Mapping[str, str]]:
    """Keep the login out of the user's own Docker configuration, and from other users."""
    own = Path(os.environ.get("DOCKER_CONFIG") or os.path.expanduser("~/.docker"))  # noqa: PTH111
    folder = Path(tempfile.mkdtemp(prefix="cvl-docker-"))
    try:
        for name in SHARED:
            if os.path.lexists(own / name):
                (folder / name).symlink_to((own / name).absolute())
        settings = {**_settings(own / "config.json"), "auths": {host: {"auth": login}}}
        replace_file(folder / "config.json", json.dumps(settings).encode())
        yield {"DOCKER_CONFIG": str(folder)}
    finally:
        shutil.rmtree(folder, ignore_errors=True)


def _settings(file: Path) -> dict[str, object]:
    try:
        settings = replies.entry(replies.parsed(file.read_bytes()))
    except (OSError, ValueError):  # the docker here says what is wrong with it, or goes on too
        return {}
    return {key: settings[key] for key in KEYS if key in settings}
