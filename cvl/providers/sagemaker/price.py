"""What a training instance costs, by the AWS Price List; remembered for a day."""

from __future__ import annotations

import json
import time
from collections.abc import Iterator, Mapping
from contextlib import suppress
from decimal import Decimal, InvalidOperation

from cvl.core.digest import blake2b
from cvl.core.errors import CvlError
from cvl.core.octets import octets
from cvl.core.paths import private, replace_file, state_dir
from cvl.providers.aws.session import Account

SERVICE = "AmazonSageMaker"
PLACES = {"eu": "eu-central-1", "ap": "ap-south-1"}
"""Where the Price List answers in the commercial partition, by the first part of a region;
us-east-1 for all others."""
OTHERS: Mapping[str, str] = {
    "cn": "cn-northwest-1",
    "us-gov": "us-gov-west-1",
    "us-iso": "us-iso-east-1",
    "us-isob": "us-isob-east-1",
    "us-isof": "us-isof-south-1",
    "eu-isoe": "eu-isoe-west-1",
    "eusc": "eusc-de-east-1",
}
"""The same in the other partitions, by how their regions begin: credentials of one are none in
another. GovCloud has had no Price List of its own: then the plan says that there is no price."""
CURRENCIES: Mapping[str, str] = {"cn": "CNY", "eusc": "EUR"}
"""What is billed in, by the same; US dollars everywhere else."""
KEPT = 86400.0


def hourly(account: Account, instance_type: str) -> Decimal:
    """Return the on-demand price of one instance, an hour, in `currency`. Raises `CvlError`."""
    key = "\0".join((instance_type, *account.address.values()))
    note = state_dir() / "prices" / blake2b(octets(key), digest_size=8).hexdigest()
    with suppress(OSError, InvalidOperation):
        if time.time() - note.stat().st_mtime < KEPT:
            return Decimal(note.read_text())
    price = _ask(account, instance_type)
    private(note.parent)
    replace_file(note, str(price).encode())
    return price


def currency(region: str) -> str:
    """Return what a region's prices are in."""
    return CURRENCIES.get(partition(region), "USD")


def list_region(region: str) -> str:
    """Return the region whose Price List has a region's prices, of the same partition."""
    head = region.partition("-")[0]
    return OTHERS.get(partition(region)) or PLACES.get(head, "us-east-1")


def partition(region: str) -> str:
    """Return how the regions of an AWS partition begin, "" for the commercial one."""
    begins = [each for each in OTHERS if region.startswith(f"{each}-")]
    return max(begins, key=len, default="")


def _ask(account: Account, instance_type: str) -> Decimal:
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
