"""What a user's request template may add to Lambda's launch request: `--request-template FILE`.

https://docs.lambda.ai/api/cloud, `launchInstance`: file systems, image, firewall, tags.
"""

from __future__ import annotations

from collections.abc import Mapping
from types import MappingProxyType
from typing import Any

from cvl.core import request_template
from cvl.core.errors import UsageError
from cvl.core.request_template import Rules, Template
from cvl.core.yaml_file import Where

FREE = frozenset({"file_system_names", "file_system_mounts", "firewall_rulesets", "image", "tags"})
"""What may stand in one."""
_FOUND = "what cvl makes is found again, and ended, by it"
KEPT: Mapping[Where, str] = {
    ("name",): _FOUND,
    ("hostname",): _FOUND,
    ("tags", "[cvl-*]"): _FOUND,
    ("ssh_key_names",): "cvl gets in with a key that is made for this run alone",
    ("user_data",): "it carries the machine's host key, and its deadline",
    ("region_name",): "--region says where",
    ("instance_type_name",): "--gpu-type says which, and the price that is shown is its",
    ("quantity",): "a run has one machine",
}
RULES = Rules(
    kept=MappingProxyType(KEPT), keys=MappingProxyType({"tags": "key"}), whole=frozenset({"tags"})
)


def under(request: Mapping[str, Any], template: Template | None) -> Mapping[str, Any]:
    """Return our request with the template below it. Raises `UsageError`."""
    for key in template.data if template else ():
        if key not in FREE and (key,) not in KEPT:
            raise UsageError(
                f"{template and template.origin}: {key} is no field of Lambda's launch request",
                f"there are: {', '.join(sorted(FREE))}",
            )
    return request_template.merged(request, template, RULES).value
