"""Looks, before anything is made, whether all that a training job needs is there.

Each failure is one sentence and what to do about it. What these credentials may not look at is
left for AWS itself to refuse.
"""

from __future__ import annotations

import re
from concurrent.futures import ThreadPoolExecutor

from cvl.core.errors import CvlError, Denied, Missing, Rejected, UsageError
from cvl.core.scope import Scope
from cvl.providers.aws.session import Account
from cvl.providers.sagemaker.job_options import JobOptions

TRUSTED = re.compile(r"sagemaker\.|(?<![^'\"])\*(?![^'\"])")
"""What a trust policy holds that lets SageMaker in, or everybody."""
SERVICE = "sagemaker"


def check(account: Account, options: JobOptions, scope: Scope) -> None:
    """Ask for identity, bucket and role, all at once. Raises `CvlError`."""
    questions = (identity, bucket, role)
    scope.tell("checking", f"{options.role.name} and {options.output} in {account.region}")
    with ThreadPoolExecutor(len(questions)) as pool:
        answers = [pool.submit(question, account, options) for question in questions]
    for answer in answers:
        answer.result()


def identity(account: Account, options: JobOptions) -> None:
    """Raise `AuthError` without credentials, `UsageError` for those of another account."""
    if account.number() != options.role.account:
        raise UsageError(
            f"the role is of account {options.role.account}, the credentials of {account.number()}",
            "use the credentials or the role of the other account (AWS_PROFILE, --role-arn)",
        )


def bucket(account: Account, options: JobOptions) -> None:
    """Raise `UsageError` for a bucket that is not there, not ours, or in another region."""
    name = options.output.bucket
    try:
        head = account.call("s3", "head_bucket", Bucket=name)
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
        region = "another region"
    else:
        region = str(head.get("BucketRegion") or account.region)
    if region != account.region:
        raise UsageError(
            f"S3 bucket {name} is in {region}, and the job would run in {account.region}",
            "name a bucket of the same region, or give --region",
        )


def role(account: Account, options: JobOptions) -> None:
    """Raise `UsageError` for a role that is not there, or that SageMaker may not take."""
    try:
        reply = account.call("iam", "get_role", RoleName=options.role.name)
    except Missing:
        raise UsageError(
            f"role {options.role_arn} does not exist",
            "name one that SageMaker may assume; `aws iam list-roles` shows those there are",
        ) from None
    except Rejected:
        return  # many may pass a role and not look at it
    if not TRUSTED.search(str(reply["Role"].get("AssumeRolePolicyDocument", "*"))):
        raise UsageError(
            f"role {options.role_arn} does not let sagemaker.amazonaws.com assume it",
            "add that to its trust policy, or name another with --role-arn",
        )


def quota(account: Account, options: JobOptions, nodes: int, scope: Scope) -> None:
    """Raise `UsageError` where the quota of such instances is too small, as far as is known.

    Worth its seconds before a long build only: CreateTrainingJob itself says the same at once.
    """
    use = "spot training job usage" if options.spot else "training job usage"
    name = f"{options.instance_type} for {use}"
    more: dict[str, str] = {}
    try:
        while True:
            scope.checkpoint()
            page = account.once(
                "service-quotas",
                "list_service_quotas",
                ServiceCode=SERVICE,
                MaxResults=100,
                **more,
            )
            values = [float(each["Value"]) for each in page["Quotas"] if each["QuotaName"] == name]
            if values or not page.get("NextToken"):
                break
            more = {"NextToken": page["NextToken"]}
    except UsageError:
        raise
    except CvlError:
        return  # it cannot be read
    if values and values[0] < nodes:
        raise UsageError(
            f"the job needs {nodes} {name}, and your quota is {values[0]:g}",
            "ask for more under Service Quotas, SageMaker, in the AWS console",
        )
