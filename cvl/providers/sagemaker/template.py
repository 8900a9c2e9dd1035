"""What a user's request template may add to CreateTrainingJob: `--request-template FILE`.

https://docs.aws.amazon.com/sagemaker/latest/APIReference/API_CreateTrainingJob.html
"""

from __future__ import annotations

from collections.abc import Mapping
from importlib import import_module
from types import MappingProxyType
from typing import Any

from cvl.core import request_template
from cvl.core.errors import UsageError
from cvl.core.request_template import Merged, Rules, Template
from cvl.core.yaml_file import Where
from cvl.providers.aws.session import Account

_DEADLINE = "--timeout sets it: it is the deadline that SageMaker itself keeps"
_FOUND = "what cvl makes is found again, and ended, by it"
_PRICE = "the price that is shown rests on --instance-type, --nodes and --volume-gb"
_ENTRY = "what runs is the preset's command, or --entry-command"
_UNSEEN = "it starts further jobs, which nobody would end"

KEPT: Mapping[Where, str] = {
    ("TrainingJobName",): _FOUND,
    ("Tags", "[cvl-*]"): _FOUND,
    ("StoppingCondition",): _DEADLINE,
    ("RetryStrategy",): "a job runs once",
    ("EnableManagedSpotTraining",): "--spot says so",
    ("ResourceConfig", "KeepAlivePeriodInSeconds"): "the machines would go on costing after it",
    ("ResourceConfig", "InstanceGroups"): _PRICE,
    ("ResourceConfig", "InstanceType"): _PRICE,
    ("ResourceConfig", "InstanceCount"): _PRICE,
    ("ResourceConfig", "VolumeSizeInGB"): _PRICE,
    ("AlgorithmSpecification", "AlgorithmName"): "--image-uri says what runs",
    ("AlgorithmSpecification", "ContainerEntrypoint"): _ENTRY,
    ("AlgorithmSpecification", "ContainerArguments"): _ENTRY,
    ("OutputDataConfig", "CompressionType"): "results are fetched as the one archive that they are",
    ("InputDataConfig", "[cvl]"): "it brings the example",
    ("Environment", "CVL_*"): "cvl sets these itself",
    ("DebugRuleConfigurations",): _UNSEEN,
    ("ProfilerRuleConfigurations",): _UNSEEN,
    ("ServerlessJobConfig",): _ENTRY,
}
RULES = Rules(
    kept=MappingProxyType(KEPT),
    keys=MappingProxyType({"Tags": "Key", "InputDataConfig": "ChannelName"}),
    whole=frozenset({"Tags", "InputDataConfig"}),
)


def under(request: Mapping[str, Any], template: Template | None, account: Account) -> Merged:
    """Return our request with the template below it, as AWS's own client would take it.

    Raises `UsageError`, and what `Account.client` raises.
    """
    merged = request_template.merged(request, template, RULES)
    if not template:
        return merged
    model: Any = account.client("sagemaker")  # the service's own description: nobody is asked
    shape = model.meta.service_model.operation_model("CreateTrainingJob").input_shape
    report = import_module("botocore.validate").ParamValidator().validate(merged.value, shape)
    if report.has_errors():
        words = " ".join(report.generate_report().split())
        raise UsageError(
            f"{template.origin}: this is no request to SageMaker: {words}",
            "it holds fields of CreateTrainingJob",
        )
    return merged
