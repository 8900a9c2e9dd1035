"""Service Quotas: how many instances of a type an account may use at once."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

NAMES = ("training job usage", "spot training job usage", "endpoint usage")
PAGE = 2
"""Fewer than AWS's 100 in a page, so that nobody overlooks that there are several."""


class Quotas:
    """Every type has the quota 8, unless `limits` says otherwise."""

    def __init__(self) -> None:
        self.limits: dict[str, float] = {}

    def of(self, instance: str, *, spot: bool) -> float:
        """Return how many instances training jobs may use."""
        return self.limits.get(f"{instance} for {NAMES[1] if spot else NAMES[0]}", 8.0)

    def listed(self, body: Mapping[str, Any], instances: Mapping[str, str]) -> dict[str, Any]:
        """Return the answer of ListServiceQuotas."""
        names = [f"{instance} for {use}" for instance in instances for use in NAMES]
        start = int(body.get("NextToken", "0"))
        page = {
            "Quotas": [
                {"QuotaName": name, "Value": self.limits.get(name, 8.0), "ServiceCode": "sagemaker"}
                for name in names[start : start + PAGE]
            ]
        }
        more = {"NextToken": str(start + PAGE)} if start + PAGE < len(names) else {}
        return {**page, **more}
