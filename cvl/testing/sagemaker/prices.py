"""The AWS Price List, as far as training instances are in it."""

from __future__ import annotations

import json
from collections.abc import Mapping
from typing import Any

PRICES = {"ml.g5.xlarge": "1.4080000000", "ml.m5.large": "0.1150000000"}
COMPONENTS = {"Training": 1.0, "Hosting": 2.0, "Notebook": 3.0}
"""Each use of an instance is a product of its own; only the first has the price of `PRICES`."""


def products(body: Mapping[str, Any]) -> dict[str, Any]:
    """Return the answer of GetProducts."""
    wanted = {each["Field"]: each["Value"] for each in body.get("Filters", ())}
    found = []
    for name, price in PRICES.items():
        for component, factor in COMPONENTS.items():
            attributes = {
                "instanceName": name,
                "component": component,
                "regionCode": wanted.get("regionCode", ""),
            }
            if all(attributes.get(field, value) == value for field, value in wanted.items()):
                found.append(json.dumps(_product(attributes, f"{float(price) * factor:.10f}")))
    return {"FormatVersion": "aws_v1", "PriceList": found}


def _product(attributes: Mapping[str, str], price: str) -> dict[str, Any]:
    dimension = {"unit": "Hrs", "pricePerUnit": {"USD": price}}
    return {
        "product": {"productFamily": "ML Instance", "attributes": dict(attributes)},
        "terms": {"OnDemand": {"X": {"priceDimensions": {"X.Y": dimension}}}},
    }
