"""The image registry: one ECR repository for all our images, asked and filled."""

from __future__ import annotations

import base64
import json
import os
import shutil
import tempfile
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from dataclasses import field
from pathlib import Path
from typing import IO

from cvl.core import replies
from cvl.core.errors import CvlError, Missing, Taken, Unreachable
from cvl.core.frozen import dataclass
from cvl.core.http.secure_url import is_here
from cvl.core.paths import replace_file
from cvl.core.retry import repeated
from cvl.core.scope import Scope
from cvl.core.secrets import learn
from cvl.providers.aws.api_errors import EXTRA
from cvl.providers.aws.session import Account
from cvl.providers.sagemaker.docker import Docker

REPOSITORY = "cvl"
MANIFESTS = (
    "application/vnd.docker.distribution.manifest.v2+json, "
    "application/vnd.oci.image.manifest.v1+json, application/vnd.oci.image.index.v1+json, "
    "application/vnd.docker.distribution.manifest.list.v2+json"
)
REFUSED = ("denied", "not authorized", "forbidden", "403", "no basic auth")
"""Words of a push that these credentials are not allowed."""
ASK_LIMIT = 5.0
OK, BUSY = 200, frozenset({429, 503})
PAUSES = (0.5, 1.0)
"""Seconds between two questions to a registry that is busy."""
SHARED = ("contexts", "cli-plugins", "buildx")
"""What of the user's Docker configuration the commands that push still need."""
KEYS = ("currentContext", "cliPluginsExtraDirs", "proxies", "HttpHeaders")


@dataclass(frozen=True, slots=True, kw_only=True)
class Registry:
    """A repository that we may push to for the next hours."""

    uri: str
    password: str = field(repr=False)
    user: str = "AWS"

    def has(self, tag: str) -> bool:
        """Ask the registry itself, by its HTTP API v2; False also where it does not say."""
        host, _, name = self.uri.partition("/")
        basic = base64.b64encode(f"{self.user}:{self.password}".encode()).decode()
        urls = (f"{scheme}://{host}/v2/{name}/manifests/{tag}" for scheme in schemes(host))
        return any(_answers(url, basic) for url in urls)

    def push(self, image: str, scope: Scope) -> None:
        """Push a local image that bears our URI. Raises `CvlError`."""
        with _private_config() as env:
            docker, host = Docker(env), self.uri.partition("/")[0]
            login = ("login", "--username", self.user, "--password-stdin", host)
            try:
                docker.run(login, "login", scope, self._write_password)
                docker.run(("push", image), "pushing", scope)
            except CvlError as error:
                raise CvlError(f"ECR push failed: {error}", _remedy(str(error))) from error

    def _write_password(self, stdin: IO[bytes]) -> None:
        stdin.write(self.password.encode())


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


def repository(account: Account) -> Registry | None:
    """Return our repository, None where there is none yet. Raises `CvlError`."""
    try:
        reply = account.call("ecr", "describe_repositories", repositoryNames=[REPOSITORY])
    except Missing:
        return None
    return log_in(account, str(reply["repositories"][0]["repositoryUri"]))


def create(account: Account) -> Registry:
    """Make our repository, unless somebody else just did. Raises `CvlError`."""
    try:
        reply = account.call("ecr", "create_repository", repositoryName=REPOSITORY)
        return log_in(account, str(reply["repository"]["repositoryUri"]))
    except Taken:
        theirs = repository(account)
        assert theirs is not None
        return theirs


def uri(account: str, region: str, partition: str) -> str:
    """Return what the repository's URI will be, without asking."""
    suffix = "amazonaws.com.cn" if partition == "aws-cn" else "amazonaws.com"
    return f"{account}.dkr.ecr.{region}.{suffix}/{REPOSITORY}"


def schemes(host: str) -> tuple[str, ...]:
    """Return how a registry is spoken to: without TLS on this very machine only."""
    return ("https", "http") if is_here(host.rpartition(":")[0] or host) else ("https",)


def log_in(account: Account, uri: str) -> Registry:
    """Return the registry of a URI with a login of now. Raises `CvlError`."""
    reply = account.call("ecr", "get_authorization_token")
    try:
        token = reply["authorizationData"][0]["authorizationToken"]
        learn(token)
        user, _, password = base64.b64decode(token).decode().partition(":")
    except (LookupError, TypeError, ValueError):
        raise Unreachable("ecr: its answer holds no login") from None
    learn(password)
    return Registry(uri=uri, user=user, password=password)


def _answers(url: str, basic: str) -> bool:
    from cvl.core.http.pool import pool

    headers = {"Authorization": f"Basic {basic}", "Accept": MANIFESTS}
    connections = pool(EXTRA, limits=(ASK_LIMIT, ASK_LIMIT), retries=False)
    from urllib3.exceptions import HTTPError

    def step() -> int:
        reply = connections.request("HEAD", url, headers=headers, redirect=False)
        if reply.status in BUSY:
            busy = Unreachable(f"the registry answered {reply.status}")
            busy.wait = replies.asked_to_wait(reply.headers)
            raise busy
        return int(reply.status)

    try:
        with connections:
            return repeated(step, PAUSES) == OK
    except (HTTPError, Unreachable):
        return False


@contextmanager
def _private_config() -> Iterator[Mapping[str, str]]:
    """Keep the login out of the user's own Docker configuration, and from other users."""
    own = Path(os.environ.get("DOCKER_CONFIG") or os.path.expanduser("~/.docker"))  # noqa: PTH111
    folder = Path(tempfile.mkdtemp(prefix="cvl-docker-"))
    try:
        for name in SHARED:
            if os.path.lexists(own / name):
                (folder / name).symlink_to((own / name).absolute())
        replace_file(folder / "config.json", json.dumps(_settings(own / "config.json")).encode())
        yield {"DOCKER_CONFIG": str(folder)}
    finally:
        shutil.rmtree(folder, ignore_errors=True)


def _settings(file: Path) -> dict[str, object]:
    try:
        settings = replies.entry(replies.parsed(file.read_bytes()))
    except (OSError, ValueError):  # the docker here says what is wrong with it, or goes on too
        return {}
    return {key: settings[key] for key in KEYS if key in settings}
