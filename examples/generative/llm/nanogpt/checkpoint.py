"""All that a training is, in one file: there is always a whole one, whenever we are killed."""

from __future__ import annotations

import json
import os
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any, BinaryIO

import torch
from model import GPT, Shape


@dataclass(frozen=True, slots=True, kw_only=True)
class Checkpoint:
    """`iteration` steps are done. `history` has one entry for each evaluation so far."""

    shape: Shape
    characters: str
    iteration: int
    model: dict[str, Any]
    optimizer: dict[str, Any]
    history: list[dict[str, float]]

    def save(self, path: Path) -> None:
        with written_whole(path) as file:
            torch.save(
                {name: getattr(self, name) for name in self.__slots__}
                | {"shape": asdict(self.shape)},
                file,
            )

    def restore(self) -> GPT:
        """Return the model, ready to write text."""
        model = GPT(self.shape)
        model.load_state_dict(self.model)
        return model.eval()


def load(path: Path) -> Checkpoint:
    """Read a checkpoint; only plain values are unpickled, so a foreign file can run no code."""
    saved = torch.load(path, map_location="cpu", weights_only=True)
    return Checkpoint(**(saved | {"shape": Shape(**saved["shape"])}))


def save_json(value: object, path: Path) -> None:
    with written_whole(path) as file:
        file.write(json.dumps(value, indent=2).encode() + b"\n")


@contextmanager
def written_whole(path: Path) -> Iterator[BinaryIO]:
    """Open a file that appears under `path` only when it is on the disk to its last byte."""
    path.parent.mkdir(parents=True, exist_ok=True)
    unfinished = path.with_name(f".{path.name}.unfinished")
    with unfinished.open("wb") as file:
        yield file
        file.flush()
        os.fsync(file.fileno())
    unfinished.replace(path)
