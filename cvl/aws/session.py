"""One AWS account in one region: its services, and what their errors let one conclude.

botocore's own retries are off: here a request is repeated only where that is safe, and whoever
waits can say so. No error text ever holds a credential; botocore's do not either.
"""

from __future__ import annotations

import os
import threading
import time
from collections.abc import Callable, Mapping
from email.utils import parsedate_to_datetime
from importlib import import_module
from pathlib import Path
from typing import Any, Protocol

from cvl.errors import (
    AuthError,
    CvlError,
    MissingTool,
    Rejected,
    Unreachable,
    UsageError,
)
from cvl.scope import Bell, Clock, SystemClock

Reply = Mapping[str, Any]

PAUSES = (0.3, 1.0, 2.0)
"""Seconds between the attempts of a request that may be repeated."""
CONNECT_LIMIT, READ_LIMIT = 10.0, 60.0
BUSY = 429
SERVER = 500

PASSING = frozenset(
    [
        "Throttling",
        "ThrottlingException",
        "ThrottledException",
        "TooManyRequestsException",
        "SlowDown",
        "RequestLimitExceeded",
        "RequestThrottled",
        "RequestTimeout",
        "RequestTimeoutException",
        "InternalFailure",
        "InternalServerError",
        "InternalServerException",
        "InternalError",
        "ServiceUnavailable",
        "ServiceUnavailableException",
        "PriorRequestNotComplete",
        "BandwidthLimitExceeded",
    ]
)
CREDENTIALS = frozenset(
    [
        "ExpiredToken",
        "ExpiredTokenException",
        "RequestExpired",
        "InvalidClientTokenId",
        "InvalidAccessKeyId",
        "UnrecognizedClientException",
        "InvalidSignatureException",
        "SignatureDoesNotMatch",
        "AuthFailure",
        "MissingAuthenticationToken",
        "IncompleteSignature",
        "TokenRefreshRequired",
    ]
)
DENIED = frozenset(["AccessDenied", "AccessDeniedException", "UnauthorizedOperation", "403"])
MISSING = frozenset(
    [
        "ResourceNotFound",
        "ResourceNotFoundException",
        "NoSuchEntity",
        "NoSuchBucket",
        "NoSuchKey",
        "404",
        "RepositoryNotFoundException",
    ]
)
TAKEN = frozenset(["ResourceInUse", "RepositoryAlreadyExistsException"])
LOGIN = "log in again (`aws sso login`), or set AWS_PROFILE or AWS_ACCESS_KEY_ID"
GIVEN = ("AWS_ACCESS_KEY_ID", "AWS_PROFILE", "AWS_WEB_IDENTITY_TOKEN_FILE")


class Missing(Rejected):
    """AWS knows no such thing."""


class Taken(Rejected):
    """The name is in use."""


class Denied(Rejected):
    """These credentials may not do that."""


class Client(Protocol):
    """What of a boto3 client is used: its operations, by name."""

    def __getattr__(self, operation: str) -> Callable[..., Any]: ...


class Account:
    """AWS as one set of credentials sees it, in one region."""

    def __init__(
        self,
        region: str | None = None,
        profile: str | None = None,
        endpoint: str | None = None,
        *,
        clock: Clock | None = None,
    ) -> None:
        """Connects to nothing. `endpoint` stands for all services; None: the environment's."""
        self._given, self._profile = region, profile or os.environ.get("AWS_PROFILE") or None
        self._endpoint = endpoint or os.environ.get("AWS_ENDPOINT_URL") or None
        self._clock = clock or SystemClock()
        self._lock = threading.Lock()
        self._session: Any = None
        self._clients: dict[tuple[str, str], Client] = {}
        self._skew = 0.0

    @property
    def region(self) -> str:
        """The region: given, else the environment's, else the profile's. Raises `UsageError`."""
        found = self._given or os.environ.get("AWS_REGION") or self._opened().region_name
        if not found:
            raise UsageError(
                "no AWS region is set", "give --region, set AWS_REGION, or one in your profile"
            )
        return str(found)

    @property
    def address(self) -> Mapping[str, str]:
        """What finds this account again from another process; no secrets."""
        return {
            "region": self.region,
            "profile": self._profile or "",
            "endpoint": self._endpoint or "",
        }

    def now(self) -> float:
        """Return UTC epoch seconds by AWS's clock, as its latest answer said (`Date`)."""
        return self._clock.time() + self._skew

    def has_credentials(self) -> bool:
        """Return whether there are any, without asking anybody but this machine."""
        return self._opened().get_credentials() is not None

    def call(self, service: str, operation: str, /, **parameters: Any) -> Reply:
        """Make a request that may be repeated. Raises `CvlError` as `understood` says."""
        for pause in (*PAUSES, None):
            try:
                return self.once(service, operation, **parameters)
            except Unreachable:
                if pause is None:
                    raise
                self._clock.wait(Bell(), pause)
        raise AssertionError(operation)

    def once(
        self, service: str, operation: str, /, *, region: str = "", **parameters: Any
    ) -> Reply:
        """Make a request once: `Unreachable` then leaves open whether anything came of it."""
        client = self.client(service, region)
        boto = errors()
        try:
            reply: Reply = getattr(client, operation)(**parameters)
        except (boto.BotoCoreError, boto.ClientError) as error:
            raise understood(error, service) from error
        self._heard(reply)
        return reply

    def client(self, service: str, region: str = "") -> Client:
        """Return the client of a service. Raises `MissingTool`, `AuthError`, `UsageError`."""
        key = (service, region or self.region)
        with self._lock:
            if key not in self._clients:
                self._clients[key] = self._made(*key)
            return self._clients[key]

    def _made(self, service: str, region: str) -> Client:
        config = import_module("botocore.config").Config(
            retries={"total_max_attempts": 1},
            connect_timeout=CONNECT_LIMIT,
            read_timeout=READ_LIMIT,
            max_pool_connections=20,
        )
        made: Client = self._session.client(
            service, region_name=region, endpoint_url=self._endpoint, config=config
        )
        return made

    def _opened(self) -> Any:
        if self._session is None:
            boto3 = loaded()
            try:
                self._session = boto3.session.Session(profile_name=self._profile)
            except errors().BotoCoreError as error:
                raise understood(error, "") from error
        return self._session

    def _heard(self, reply: Reply) -> None:
        headers = reply.get("ResponseMetadata", {}).get("HTTPHeaders", {})
        if date := headers.get("date"):
            self._skew = parsedate_to_datetime(date).timestamp() - time.time()


def loaded() -> Any:
    """Return boto3. Raises `MissingTool`."""
    try:
        return import_module("boto3")
    except ImportError:
        raise MissingTool("boto3 not installed", "pip install 'cvl[aws]'") from None


def errors() -> Any:
    """Return botocore's exceptions; to be asked for after `loaded`."""
    return import_module("botocore.exceptions")


def configured() -> bool:
    """Return whether anything on this machine speaks of AWS; loads nothing."""
    named = os.environ.get("AWS_SHARED_CREDENTIALS_FILE", "~/.aws/credentials")
    config = os.environ.get("AWS_CONFIG_FILE", "~/.aws/config")
    files = any(Path(name).expanduser().exists() for name in (named, config))
    return files or any(os.environ.get(name) for name in GIVEN)


def understood(error: Exception, service: str) -> CvlError:
    """Return what an error of botocore means to us.

    `Unreachable`: no answer, or one that may be another next time; `AuthError`: log in again;
    `Missing`, `Taken`, `Denied` and other `Rejected`: refused, and nothing has changed.
    """
    boto = errors()
    place = f"{service}: " if service else ""
    if isinstance(error, boto.ClientError):
        return _answered(error, place)
    text = f"{place}{_line(error)}"
    if isinstance(error, boto.ProfileNotFound):
        return AuthError(text, "`aws configure list-profiles` names those there are")
    if isinstance(error, boto.ParamValidationError):
        return Rejected(text)
    if isinstance(error, credential_errors(boto)):
        return AuthError(text, LOGIN)
    return Unreachable(text)


def credential_errors(boto: Any) -> tuple[type[Exception], ...]:
    """Return botocore's errors about credentials; ours for a missing region comes first."""
    return (
        boto.NoCredentialsError,
        boto.PartialCredentialsError,
        boto.CredentialRetrievalError,
        boto.TokenRetrievalError,
        boto.SSOError,
        boto.NoAuthTokenError,
        boto.UnauthorizedSSOTokenError,
    )


def _answered(error: Any, place: str) -> CvlError:
    details = error.response.get("Error", {})
    code, message = str(details.get("Code", "")), str(details.get("Message", "")).strip()
    status = error.response.get("ResponseMetadata", {}).get("HTTPStatusCode", 0)
    text = f"{place}{code}: {message}" if message else f"{place}{code}"
    if code in PASSING or status == BUSY or status >= SERVER:
        return Unreachable(text)
    if code in CREDENTIALS:
        return AuthError(text, LOGIN)
    if code in MISSING or "not found" in message.lower():
        return Missing(text)
    if code in TAKEN:
        return Taken(text)
    if code in DENIED:
        return Denied(text, "ask for that permission, or use other credentials")
    return Rejected(text, HINTS.get(code, ""))


HINTS: Mapping[str, str] = {
    "ResourceLimitExceeded": "ask for more under Service Quotas, SageMaker, in the AWS console; "
    "or take another --instance-type",
}
"""What to do now, by the code of a refusal."""


def _line(error: Exception) -> str:
    return " ".join(str(error).split())
