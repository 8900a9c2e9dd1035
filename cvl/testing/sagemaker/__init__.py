"""A SageMaker on loopback for tests: real containers, real objects, real logs, nothing paid.

S3, IAM, STS, CloudWatch Logs and ECR's metadata are moto's; images lie in a real registry. What
moto lacks is here: jobs that walk through their states, run the pushed image under the /opt/ml
contract, write their logs and artifacts, are stopped, time out, are metered, and go wrong.
"""

from cvl.testing.sagemaker.cloud import AwsCloud, Settings
from cvl.testing.sagemaker.faults import FAULTS, Fault

__all__ = ["FAULTS", "AwsCloud", "Fault", "Settings"]
