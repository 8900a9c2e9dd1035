"""What AWS's errors let one conclude: ask again, log in again, or nothing was done.

No error text here holds a credential, and botocore's hold none either.
"""

from __future__ import annotations

import re
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from typing import Any

from cvl.core import replies
from cvl.core.errors import (
    LONGEST,
    AuthError,
    CvlError,
    Denied,
    Missing,
    MissingTool,
    Rejected,
    Taken,
    Unreachable,
    UsageError,
    used_up,
)
from cvl.core.extras import Extra
from cvl.core.scope import Cancelled, DeadlineExceeded

EXTRA = Extra(name="aws", modules=("boto3", "boto3.s3.transfer", "botocore", "urllib3"))

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
WORDLESS = "400"
"""What a HEAD is refused with whose login has expired: its answer has no words."""
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
CONFIGURATION = "see ~/.aws/config, or the files that AWS_CONFIG_FILE names, and the AWS_ variables"
NO_CREDENTIALS = (
    *("NoCredentialsError", "PartialCredentialsError", "CredentialRetrievalError"),
    *("TokenRetrievalError", "SSOError", "NoAuthTokenError", "LoginError"),
    *("UnknownCredentialError", "UnknownTokenProviderError", "RefreshWithMFAUnsupportedError"),
    *("InvalidIMDSEndpointError", "InvalidIMDSEndpointModeError", "MetadataRetrievalError"),
)
"""botocore's own errors about credentials, by name: it is not loaded yet."""
BROKEN = (
    *("ConnectionError", "HTTPClientError", "IncompleteReadError", "ChecksumError"),
    *("FlexibleChecksumError", "AwsChunkedWrapperError"),
)
"""Those that say that no answer came, or none that is whole: the next may."""
UNREADABLE = ("ResponseParserError", "EventStreamError")
"""Its own errors about an answer that is no answer of AWS's: a proxy's page, perhaps."""
KINDS: tuple[tuple[tuple[str, ...], type[CvlError], str], ...] = (
    (("ProfileNotFound",), AuthError, "`aws configure list-profiles` names those there are"),
    (("ParamValidationError",), Rejected, ""),
    (("MissingDependencyException",), MissingTool, "pip install 'botocore[crt]'"),
    (NO_CREDENTIALS, AuthError, LOGIN),
)
UNTRUSTED = "CERTIFICATE_VERIFY_FAILED"
WRONG = re.compile(r"TLS CA certificate bundle|Failed to parse|\[X509|\[Errno (?:2|13|20|21)\]")
"""What some of them pass on that the next request would meet too."""


@contextmanager
def boundary(service: str, who: str = "") -> Iterator[None]:
    """Have whatever boto3 and what it stands on raise say what follows from it, as `understood`.

    They let through much that is none of theirs: a value of the wrong type in a file, a folder in
    place of a file, a number without end. `who`: what is asked for are credentials of that name,
    and whatever is wrong with them is an `AuthError`, but for a way that may be there next time.
    """
    try:
        yield
    except (CvlError, DeadlineExceeded, Cancelled):
        raise
    except Exception as error:
        ours = understood(error, service)
        if who and not isinstance(ours, Unreachable | AuthError | MissingTool):
            raise AuthError(f"{who}: {ours}", ours.hint or LOGIN) from error
        raise ours from error


def understood(error: Exception, service: str) -> CvlError:
    """Return what an error of botocore means to us.

    `Unreachable`: no answer, or one that may be another next time; `AuthError`: log in again;
    `Missing`, `Taken`, `Denied` and other `Rejected`: refused, and nothing has changed;
    `UsageError`: the configuration here is wrong, and asking again changes nothing.
    """
    boto = EXTRA.needed("botocore.exceptions")
    prefix = f"{service}: " if service else ""
    if isinstance(error, boto.ClientError):
        return _answered(error, prefix)
    text = f"{prefix}{_words(error)}"
    if isinstance(error, _named(boto, BROKEN)) or type(error).__name__ in UNREADABLE:
        if UNTRUSTED in text:
            return AuthError(
                text, "AWS_CA_BUNDLE names the authorities of your network, if it has any"
            )
        if _is_wrong(error):
            return UsageError(text, CONFIGURATION)
        return used_up(error) or Unreachable(text)
    for names, kind, hint in KINDS:
        if isinstance(error, _named(boto, names)):
            return kind(text, hint)
    return UsageError(text, CONFIGURATION)


def _named(boto: Any, names: tuple[str, ...]) -> tuple[type[Exception], ...]:
    """Return the exceptions of these names that this botocore has."""
    return tuple(getattr(boto, name) for name in names if getattr(boto, name, None) is not None)


def _is_wrong(error: Exception) -> bool:
    """Return whether an error of a request is one of what it was to be made with.

    botocore wraps what it does not know in an error of its own.
    """
    inner = getattr(error, "kwargs", {}).get("error")
    config = (ValueError, TypeError, LookupError, AttributeError, FileNotFoundError)
    files = (IsADirectoryError, NotADirectoryError, PermissionError)
    return isinstance(inner, config + files) or bool(WRONG.search(str(error)))


def _words(error: Exception) -> str:
    """Return what an error says in one line; its kind where it says nothing by itself."""
    text = " ".join(str(error).split())[:LONGEST]
    own = type(error).__module__.startswith("boto")
    if own and text:
        return text
    return f"it makes no sense to boto3 ({type(error).__name__}: {text}".rstrip(": ") + ")"


def _answered(error: Any, prefix: str) -> CvlError:
    details = replies.entry(error.response.get("Error"))
    code, message = str(details.get("Code", "")), str(details.get("Message", "")).strip()[:LONGEST]
    reply = replies.entry(error.response.get("ResponseMetadata"))
    headers, status = replies.entry(reply.get("HTTPHeaders")), reply.get("HTTPStatusCode")
    text = f"{prefix}{code}: {message}" if message else f"{prefix}{code}"
    stem = code.removesuffix("Exception")
    if stem in PASSING or (isinstance(status, int) and (status == BUSY or status >= SERVER)):
        busy = Unreachable(text)
        busy.answered = True
        busy.wait = replies.retry_after(headers.get("retry-after"), headers.get("date"))
        return busy
    if stem in CREDENTIALS or code == WORDLESS:
        return AuthError(text, LOGIN)
    if stem in MISSING or "not found" in message.lower():
        return Missing(text)
    if stem in TAKEN:
        return Taken(text)
    if stem in DENIED:
        return Denied(text, "ask for that permission, or use other credentials")
    return Rejected(text, HINTS.get(code, ""))
