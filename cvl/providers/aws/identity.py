"""Which account and region are asked, and by whom: AWS itself, or what stands for it."""

from __future__ import annotations

from cvl.core import identity
from cvl.core.errors import Rejected, Unreachable
from cvl.providers.aws.api_errors import LOGIN
from cvl.providers.aws.session import Account

SERVICE = "sagemaker"


def identity_of(account: Account, number: str) -> str:
    """Return what tells an account in a region from all others. Raises `CvlError`."""
    return identity.written(
        account=number, region=account.region, endpoint=account.endpoint(SERVICE)
    )


def confirm(account: Account, noted: str) -> None:
    """Raise `Elsewhere` unless these credentials are of the account that was noted, "" is any.

    Raises `CvlError` where that cannot be known now.
    """
    if not noted:
        return
    try:
        now = identity_of(account, account.number())
    except Rejected as error:
        raise Unreachable(
            f"AWS does not say whose credentials these are: {error}", LOGIN
        ) from error
    if now != noted:
        raise identity.elsewhere(shown(noted), f"these credentials are of {shown(now)}")


def shown(noted: str) -> str:
    """Return an identity for a person."""
    was = identity.parts(noted)
    at = f" at {was['endpoint']}" if "endpoint" in was else ""
    return f"AWS account {was.get('account', '?')} in {was.get('region', '?')}{at}"
