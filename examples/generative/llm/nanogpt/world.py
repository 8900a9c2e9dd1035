"""The processes that train together, often just one; told apart by what torchrun sets."""

from __future__ import annotations

import os
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from datetime import timedelta

import torch
from torch import Tensor, distributed, nn
from torch.nn.parallel import DistributedDataParallel

PATIENCE = timedelta(minutes=10)
"""How long one process waits for another before it gives up."""


@dataclass(frozen=True, slots=True, kw_only=True)
class World:
    """Who we are among `size` processes. Rank 0 speaks and writes for all."""

    rank: int
    size: int
    device: torch.device

    def share(self, *batch: Tensor) -> tuple[Tensor, ...]:
        """Return our part of a batch that every process has drawn alike, on our device."""
        return tuple(part[self.rank :: self.size].to(self.device) for part in batch)

    def mean(self, value: Tensor) -> float:
        """Return the mean over all processes."""
        if self.size > 1:
            distributed.all_reduce(value := value.detach().clone())
        return value.item() / self.size

    def any(self, flag: object) -> bool:
        """Whether `flag` is true in any process: all get the same answer."""
        if self.size == 1:
            return bool(flag)
        return self.mean(torch.tensor(float(bool(flag)), device=self.device)) > 0

    def wrap(self, model: nn.Module) -> nn.Module:
        """Return the model with its gradients averaged over all processes."""
        if self.size == 1:
            return model
        devices = [self.device] if self.device.type == "cuda" else None
        return DistributedDataParallel(model, device_ids=devices)


@contextmanager
def join(device: str) -> Iterator[World]:
    """Meet the others, if there are any. `device` is a name of PyTorch's, or `auto`."""
    rank, size = int(os.environ.get("RANK", "0")), int(os.environ.get("WORLD_SIZE", "1"))
    world = World(rank=rank, size=size, device=pick(device))
    if size == 1:
        yield world
        return
    backend = "nccl" if world.device.type == "cuda" else "gloo"
    distributed.init_process_group(backend, timeout=PATIENCE)
    try:
        yield world
    finally:
        distributed.destroy_process_group()


def pick(device: str) -> torch.device:
    if device == "auto":
        device = "cuda" if torch.cuda.is_available() else "cpu"
    if device == "cuda":
        device = f"cuda:{os.environ.get('LOCAL_RANK', '0')}"
        torch.cuda.set_device(device)
    return torch.device(device)
