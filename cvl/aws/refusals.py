"""What AWS's errors let one conclude: ask again, log in again, or nothing was done.

No error text here holds a credential, and botocore's hold none either.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from cvl.errors import AuthError, CvlError, Rejected, Unreachable
from cvl.extras import needed

EXTRA = "aws"

BUSY, SERVER = 429, 500
PASSING = {
    *("Throttling", "Throttled", "TooManyRequests", "SlowDown", "RequestLimitExceeded"),
    *("RequestThrottled", "RequestTimeout", "InternalFailure", "InternalServerError"),
    *("InternalServer", "InternalError", "ServiceUnavailable", "PriorRequestNotComplete"),
}
CREDENTIALS = {
    *("ExpiredToken", "RequestExpired", "InvalidClientTokenId", "InvalidAccessKeyId"),
    *("UnrecognizedClient", "InvalidSignature", "SignatureDoesNotMatch", "AuthFailure"),
    *("MissingAuthenticationToken", "IncompleteSignature", "TokenRefreshRequired"),
}
DENIED = {"AccessDenied", "UnauthorizedOperation", "403"}
MISSING = {
    *("ResourceNotFound", "RepositoryNotFound", "NoSuchEntity", "NoSuchBucket", "NoSuchKey"),
    "404",
}
TAKEN = {"ResourceInUse", "RepositoryAlreadyExists"}
"""Codes, without the `Exception` that some services put behind them."""

LOGIN = "log in again (`aws sso login`), or set AWS_PROFILE or AWS_ACCESS_KEY_ID"
HINTS: Mapping[str, str] = {
    "ResourceLimitExceeded": "ask for more under Service Quotas, SageMaker, in the AWS console; "
    "or take another --instance-type",
}
"""What to do now, by the code of a refusal."""
NO_CREDENTIALS = (
    *("NoCredentialsError", "PartialCredentialsError", "CredentialRetrievalError"),
    *("TokenRetrievalError", "SSOError", "NoAuthTokenError"),
)
"""botocore's own errors about credentials, by name: it is not loaded yet."""


class Missing(Rejected):
    """AWS knows no such thing."""


class Taken(Rejected):
    """The name is in use."""


class Denied(Rejected):
    """These credentials may not do that."""


def boto_errors() -> Any:
    """Return botocore's exceptions. Raises `MissingExtra`."""
    return needed("botocore.exceptions", EXTRA)


def understood(error: Exception, service: str) -> CvlError:
    """Return what an error of botocore means to us.

    `Unreachable`: no answer, or one that may be another next time; `AuthError`: log in again;
    `Missing`, `Taken`, `Denied` and other `Rejected`: refused, and nothing has changed.
    """
    boto = boto_errors()
    place = f"{service}: " if service else ""
    if isinstance(error, boto.ClientError):
        return _answered(error, place)
    text = f"{place}{' '.join(str(error).split())}"
    if isinstance(error, boto.ProfileNotFound):
        return AuthError(text, "`aws configure list-profiles` names those there are")
    if isinstance(error, boto.ParamValidationError):
        return Rejected(text)
    if isinstance(error, tuple(getattr(boto, name) for name in NO_CREDENTIALS)):
        return AuthError(text, LOGIN)
    return Unreachable(text)


def _answered(error: Any, place: str) -> CvlError:
    details = error.response.get("Error", {})
    code, message = str(details.get("Code", "")), str(details.get("Message", "")).strip()
    status = error.response.get("ResponseMetadata", {}).get("HTTPStatusCode", 0)
    text = f"{place}{code}: {message}" if message else f"{place}{code}"
    stem = code.removesuffix("Exception")
    if stem in PASSING or status == BUSY or status >= SERVER:
        return Unreachable(text)
    if stem in CREDENTIALS:
        return AuthError(text, LOGIN)
    if stem in MISSING or "not found" in message.lower():
        return Missing(text)
    if stem in TAKEN:
        return Taken(text)
    if stem in DENIED:
        return Denied(text, "ask for that permission, or use other credentials")
    return Rejected(text, HINTS.get(code, ""))
