"""Looks, before anything is made, whether all that a training job needs is there.

Each failure is one sentence and what to do about it. What these credentials may not look at is
left for AWS itself to refuse.
"""

from __future__ import annotations

import re
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor

from cvl.core.errors import CvlError, Denied, Missing, Rejected, UsageError
from cvl.core.scope import Scope
from cvl.providers.aws.session import Account
from cvl.providers.sagemaker.order import Order

TRUSTED = re.compile(r"sagemaker\.|(?<![^'\"])\*(?![^'\"])")
"""What a trust policy holds that lets SageMaker in, or everybody."""
QUOTAS = "sagemaker"


def check(account: Account, order: Order, scope: Scope) -> None:
    """Ask for identity, bucket and role, all at once. Raises `CvlError`."""
    questions: tuple[Callable[[], None], ...] = (
        lambda: identity(account, order),
        lambda: bucket(account, order),
        lambda: role(account, order),
    )
    scope.tell("checking", f"{order.role_name} and {order.output} in {account.region}")
    with ThreadPoolExecutor(len(questions)) as pool:
        asked = [pool.submit(question) for question in questions]
    for answer in asked:
        answer.result()


def identity(account: Account, order: Order) -> None:
    """Raise `AuthError` without credentials, `UsageError` for those of another account."""
    if account.number() != order.account:
        raise UsageError(
            f"the role is of account {order.account}, the credentials of {account.number()}",
            "use the credentials or the role of the other account (AWS_PROFILE, --role-arn)",
        )


def bucket(account: Account, order: Order) -> None:
    """Raise `UsageError` for a bucket that is not there, not ours, or in another region."""
    name = order.output.bucket
    try:
        found = account.call("s3", "head_bucket", Bucket=name)
    except Missing:
        raise UsageError(
            f"S3 bucket {name} does not exist", f"make it: `aws s3 mb s3://{name}`"
        ) from None
    except Denied:
        raise UsageError(
            f"S3 bucket {name} is not accessible with these credentials",
            "name one of your own with --output-path, or ask for access",
        ) from None
    except Rejected as error:
        if "301" not in str(error) and "400" not in str(error):
            raise
        raise _elsewhere(name, "another region", account.region) from None
    region = found.get("BucketRegion") or account.region
    if region != account.region:
        raise _elsewhere(name, str(region), account.region)


def role(account: Account, order: Order) -> None:
    """Raise `UsageError` for a role that is not there, or that SageMaker may not take."""
    try:
        found = account.call("iam", "get_role", RoleName=order.role_name)
    except Missing:
        raise UsageError(
            f"role {order.role_arn} does not exist",
            "name one that SageMaker may assume; `aws iam list-roles` shows those there are",
        ) from None
    except Rejected:
        return  # many may pass a role and not look at it
    if not TRUSTED.search(str(found["Role"].get("AssumeRolePolicyDocument", "*"))):
        raise UsageError(
            f"role {order.role_arn} does not let sagemaker.amazonaws.com assume it",
            "add that to its trust policy, or name another with --role-arn",
        )


def quota(account: Account, order: Order, nodes: int, scope: Scope) -> None:
    """Raise `UsageError` where the quota of such instances is too small, as far as is known.

    Worth its seconds before a long build only: CreateTrainingJob itself says the same at once.
    """
    use = "spot training job usage" if order.spot else "training job usage"
    wanted = f"{order.instance_type} for {use}"
    more: dict[str, str] = {}
    try:
        while True:
            scope.checkpoint()
            page = account.once(
                "service-quotas", "list_service_quotas", ServiceCode=QUOTAS, MaxResults=100, **more
            )
            for each in page["Quotas"]:
                if each["QuotaName"] == wanted:
                    _enough(float(each["Value"]), nodes, wanted)
                    return
            if not page.get("NextToken"):
                return
            more = {"NextToken": page["NextToken"]}
    except UsageError:
        raise
    except CvlError:
        return  # it cannot be read


def _enough(value: float, nodes: int, wanted: str) -> None:
    if value < nodes:
        raise UsageError(
            f"the job needs {nodes} {wanted}, and your quota is {value:g}",
            "ask for more under Service Quotas, SageMaker, in the AWS console",
        )


def _elsewhere(bucket: str, region: str, ours: str) -> UsageError:
    return UsageError(
        f"S3 bucket {bucket} is in {region}, and the job would run in {ours}",
        "name a bucket of the same region, or give --region",
    )
