"""What this cloud has to rent: instance types, regions, images. Values only."""

from __future__ import annotations

import hashlib
from dataclasses import dataclass

Json = dict[str, object]


@dataclass(frozen=True, slots=True, kw_only=True)
class InstanceType:
    """One instance type; the price is for the whole machine, in US cents per hour."""

    name: str
    gpu: str
    gpus: int
    cents: int
    vcpus: int
    memory_gib: int
    storage_gib: int

    def json(self) -> Json:
        return {
            "name": self.name,
            "description": f"{self.gpus}x {self.gpu}",
            "gpu_description": self.gpu,
            "price_cents_per_hour": self.cents,
            "specs": {
                "vcpus": self.vcpus,
                "memory_gib": self.memory_gib,
                "storage_gib": self.storage_gib,
                "gpus": self.gpus,
            },
        }


def _type(name: str, gpu: str, cents: int, size: tuple[int, int, int]) -> InstanceType:
    return InstanceType(
        name=name,
        gpu=gpu,
        gpus=int(name.split("_")[1].removesuffix("x")),
        cents=cents,
        vcpus=size[0],
        memory_gib=size[1],
        storage_gib=size[2],
    )


TYPES = {
    each.name: each
    for each in (
        _type("gpu_1x_a10", "A10 (24 GB PCIe)", 75, (30, 200, 1400)),
        _type("gpu_1x_a6000", "A6000 (48 GB)", 80, (14, 100, 200)),
        _type("gpu_1x_a100_sxm4", "A100 (40 GB SXM4)", 129, (30, 200, 512)),
        _type("gpu_1x_gh200", "GH200 (96 GB)", 149, (64, 432, 4096)),
        _type("gpu_1x_h100_pcie", "H100 (80 GB PCIe)", 249, (26, 200, 1024)),
        _type("gpu_8x_a100_80gb_sxm4", "A100 (80 GB SXM4)", 1432, (240, 1800, 20480)),
        _type("gpu_8x_h100_sxm5", "H100 (80 GB SXM5)", 2392, (208, 1800, 22528)),
    )
}
REGIONS = {
    "us-west-1": "California, USA",
    "us-east-1": "Virginia, USA",
    "us-south-1": "Texas, USA",
    "europe-central-1": "Germany",
}
CAPACITY = {
    ("gpu_1x_a10", "us-west-1"): 10_000,
    ("gpu_1x_a10", "us-east-1"): 10_000,
    ("gpu_1x_a6000", "us-south-1"): 2,
    ("gpu_1x_a100_sxm4", "us-east-1"): 4,
    ("gpu_1x_h100_pcie", "europe-central-1"): 1,
    ("gpu_8x_h100_sxm5", "us-south-1"): 1,
}
"""How many can be launched of each type in each region at first; nothing of what is absent."""


def region(name: str) -> Json:
    """Return a region as the API shows it."""
    return {"name": name, "description": REGIONS[name]}


def images() -> list[Json]:
    """Return the images: one family in every region."""
    return [
        {
            "id": hashlib.md5(name.encode(), usedforsecurity=False).hexdigest(),
            "created_time": "2026-01-02T03:04:05Z",
            "updated_time": "2026-01-02T03:04:05Z",
            "name": "lambda-stack-24-04",
            "description": "Lambda Stack 24.04",
            "family": "lambda-stack-24-04",
            "version": "24.4.1",
            "architecture": "x86_64",
            "region": region(name),
        }
        for name in REGIONS
    ]
