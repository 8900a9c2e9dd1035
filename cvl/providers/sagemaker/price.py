"""What a training instance costs, by the AWS Price List."""

from __future__ import annotations

import json
from collections.abc import Iterator, Mapping
from decimal import Decimal

from cvl.core.errors import CvlError
from cvl.providers.aws.session import Account

SERVICE = "AmazonSageMaker"
LISTS: Mapping[str, str] = {
    "cn-": "cn-northwest-1",
    "us-gov-": "us-gov-west-1",
    "us-iso-": "us-iso-east-1",
    "us-isob-": "us-isob-east-1",
    "us-isof-": "us-isof-south-1",
    "eu-isoe-": "eu-isoe-west-1",
    "eusc-": "eusc-de-east-1",
    "eu-": "eu-central-1",
    "ap-": "ap-south-1",
    "": "us-east-1",
}
"""How regions begin -> where the Price List answers that has their prices, the first that fits.

Credentials of one partition are none in another. GovCloud has had no Price List of its own: then
the plan says that there is no price."""
CURRENCIES: Mapping[str, str] = {"cn-": "CNY", "eusc-": "EUR"}
"""What is billed in, by the same; US dollars everywhere else."""


def currency(region: str) -> str:
    """Return what a region's prices are in."""
    return next((unit for head, unit in CURRENCIES.items() if region.startswith(head)), "USD")


def list_region(region: str) -> str:
    """Return the region whose Price List has a region's prices, of the same partition."""
    return next(place for head, place in LISTS.items() if region.startswith(head))


def hourly(account: Account, instance_type: str) -> Decimal:
    """Return the on-demand price of one instance, an hour, in `currency`. Raises `CvlError`."""
    region = account.region
    # An instance has a product for each use of it: without the component, any of them is found.
    terms = {"regionCode": region, "instanceName": instance_type, "component": "Training"}
    filters = [{"Type": "TERM_MATCH", "Field": f, "Value": v} for f, v in terms.items()]
    parameters = {"ServiceCode": SERVICE, "Filters": filters}
    reply = account.answered("pricing", "get_products", region=list_region(region), **parameters)
    unit = currency(region)
    prices = {price for text in reply["PriceList"] for price in _prices(json.loads(text), unit)}
    if len(prices) != 1:
        many = "several prices" if prices else "no price"
        raise CvlError(f"the AWS Price List has {many} for {instance_type} in {region}")
    return prices.pop()


def _prices(product: dict[str, object], unit: str) -> Iterator[Decimal]:
    terms = product.get("terms")
    offers = terms.get("OnDemand", {}) if isinstance(terms, dict) else {}
    for offer in offers.values():
        for dimension in offer["priceDimensions"].values():
            price = Decimal(dimension["pricePerUnit"].get(unit, "0"))
            if price > 0:
                yield price
