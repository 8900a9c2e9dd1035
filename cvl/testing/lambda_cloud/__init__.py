"""A Lambda Cloud on loopback: stateful, checked against the official document, able to fail.

::

    with LambdaCloud(Settings(request_interval=0, launch_interval=0)) as cloud:
        os.environ |= cloud.env                      # LAMBDA_API_BASE, LAMBDA_API_KEY
        cloud.inject(FAULTS["launch-reset-after"])
        ...
        assert not cloud.bill().running and not cloud.violations

By hand: `python -m cvl.testing.lambda_cloud`.
"""

from __future__ import annotations

from cvl.testing.conversation import Drop
from cvl.testing.lambda_cloud.api import Entry, Moment
from cvl.testing.lambda_cloud.cloud import LambdaCloud
from cvl.testing.lambda_cloud.faults import FAULTS, Fault, What
from cvl.testing.lambda_cloud.instance import Instance, Status
from cvl.testing.lambda_cloud.meter import Bill, Line
from cvl.testing.lambda_cloud.state import Settings

__all__ = [
    "FAULTS",
    "Bill",
    "Drop",
    "Entry",
    "Fault",
    "Instance",
    "LambdaCloud",
    "Line",
    "Moment",
    "Settings",
    "Status",
    "What",
]
