"""Who we are to AWS: a session of botocore's, with credentials that are found within a limit.

Its configuration is the user's: a profile that names itself, a program that prints no JSON, a
server that does not answer. Whatever the libraries raise about it is one sentence here.
"""

from __future__ import annotations

import os
import sys
from collections.abc import Callable
from importlib import import_module
from typing import Any, TypeVar

from cvl.core.api_key import checked
from cvl.core.errors import AuthError
from cvl.core.parallel import bounded
from cvl.core.scope import DeadlineExceeded, Scope
from cvl.providers.aws import http
from cvl.providers.aws.api_errors import boundary
from cvl.providers.aws.credential_process import CredentialProcess

T = TypeVar("T")

LIMIT = 75.0
"""Seconds in which credentials are there: a program has 60 of them, or AWS is asked for a role."""


def open_session(boto3: Any, profile: str | None) -> Any:
    """Return a session. Raises `AuthError`."""
    with boundary("", "AWS credentials"):
        core = import_module("botocore.session").Session(profile=profile)
        _bind(core)
        http.prepare(core)
        return boto3.session.Session(botocore_session=core)


def credentials(session: Any) -> Any:
    """Return the credentials that there are, None for none. Raises `AuthError`, `Unreachable`.

    They are fetched, where that is how they come, so that no request has to wait for it.
    """
    return _within(lambda: _fetch(session))


def refresh(login: Any) -> None:
    """See that credentials which expire can be used now. Raises as `credentials`."""
    if hasattr(login, "refresh_needed") and login.refresh_needed():
        _within(login.get_frozen_credentials)


def fingerprint(login: Any) -> object:
    """Return what requests are signed with: equal for two logins that are the same, None for none.

    Asks nobody: what has expired stays as it is.
    """
    if login is None:
        return None
    secret = login.get_frozen_credentials()
    return (secret.access_key, secret.secret_key, secret.token)


def _fetch(session: Any) -> Any:
    login = session.get_credentials()
    if hasattr(login, "refresh_needed"):
        login.get_frozen_credentials()
    elif login is not None:
        _check(login)
    return login


def _check(login: Any) -> None:
    """Check what was written down by hand; what AWS itself gives out is left alone.

    Raises `UsageError`: the libraries would show a whole header that cannot be sent.
    """
    login.access_key = checked(login.access_key, "AWS_ACCESS_KEY_ID")
    login.secret_key = checked(login.secret_key, "AWS_SECRET_ACCESS_KEY")
    if login.token:
        login.token = checked(login.token, "AWS_SESSION_TOKEN")


def _within(call: Callable[[], T]) -> T:
    try:
        with boundary("", "AWS credentials"):
            return bounded(call, Scope(seconds=LIMIT))
    except DeadlineExceeded:
        profile = os.environ.get("AWS_PROFILE") or "default"
        raise AuthError(
            f"AWS credentials: none within {LIMIT:g} s (profile {profile})",
            "`aws sts get-caller-identity` shows what is waited for",
        ) from None


def _code(prompt: str) -> str:
    """Ask for the code of a second factor. Raises `AuthError` where nobody is there."""
    from getpass import getpass

    if not (sys.stdin and sys.stdin.isatty()):
        raise AuthError(
            "the AWS profile wants the code of a second factor, and nobody is there to ask",
            "`aws sts get-caller-identity` on a terminal, or a profile without mfa_serial",
        )
    return getpass(prompt)


def _bind(core: Any) -> None:
    """Have every `credential_process` run by ours, also that of a role's source profile.

    botocore lets a caller choose by constructor only, of objects that it makes itself.
    """
    providers = import_module("botocore.credentials")

    def provider(profile_name: str) -> Any:
        return providers.ProcessProvider(
            profile_name=profile_name, load_config=lambda: core.full_config, popen=CredentialProcess
        )

    for each in core.get_component("credential_provider").providers:
        if isinstance(each, providers.ProcessProvider):
            each._popen = CredentialProcess  # noqa: SLF001
        builder = getattr(each, "_profile_provider_builder", None)
        if builder is not None:
            each._prompter = _code  # noqa: SLF001
            builder._create_process_provider = provider  # noqa: SLF001
