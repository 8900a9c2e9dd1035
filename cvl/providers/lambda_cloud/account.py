"""Which Lambda account a key is of: told by the account's own log, else by the key alone.

No operation of the API says it, but each event of `GET /audit-events` names the account that owns
what it is about. Where the log is closed to a key, or empty, a salted digest of the key stands
for the account: it tells that the key is still the same, and nothing about the key.
"""

from __future__ import annotations

import os

from cvl.core import identity, replies
from cvl.core.digest import blake2b
from cvl.core.errors import Rejected
from cvl.providers.lambda_cloud.api import Forbidden, LambdaAPI

EVENTS = "/audit-events"
OWNER = "lrn:cloud:account:"
"""How the name of an account begins (`resource_owner_lrn`)."""


def identity_of(api: LambdaAPI, account: str) -> str:
    """Return what tells an account from all others: asks nobody. `account` "" is not known."""
    salt = os.urandom(8).hex()
    return identity.written(
        key=f"{salt}:{digest(api.key, salt)}", account=account.removeprefix(OWNER), at=api.base
    )


def account(api: LambdaAPI) -> str:
    """Return the account's name by its log, "" where that tells none. Raises `CvlError`.

    One request; it counts for the rate limit.
    """
    for each in replies.entries(api.once_asked(EVENTS)):
        owner = replies.text(replies.entry(each).get("resource_owner_lrn"))
        if owner.startswith(OWNER):
            return owner
    return ""


def confirm(api: LambdaAPI, noted: str) -> None:
    """Raise `Elsewhere` unless this key is of the account that was noted, "" is any.

    Asks only if it is another key. Raises `CvlError` where that cannot be known now.
    """
    was = identity.parts(noted)
    salt, _, fingerprint = was.get("key", "").partition(":")
    if not fingerprint or (digest(api.key, salt) == fingerprint and was.get("at") == api.base):
        return
    try:
        now = account(api).removeprefix(OWNER)
    except (Rejected, Forbidden):
        now = ""
    before = was.get("account", "")
    if now and now == before:
        return
    may_be = "the LAMBDA_API_KEY of now may be of another account"
    raise identity.elsewhere(
        f"Lambda account {before}" if before else "Lambda, by another API key",
        f"LAMBDA_API_KEY is a key of account {now}" if now and before else may_be,
    )


def digest(key: str, salt: str) -> str:
    """Return what a key is known by."""
    return blake2b(key.encode(), salt=salt.encode()[:16], digest_size=8).hexdigest()
