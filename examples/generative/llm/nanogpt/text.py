"""The data: one text, cut into characters."""

from __future__ import annotations

from pathlib import Path
from typing import NamedTuple

import torch
from torch import Tensor

ALICE = Path(__file__).resolve().parent / "data" / "alice.txt"
VALIDATION_SHARE = 0.1
"""The end of the text, which training never sees."""


class Text(NamedTuple):
    """A text as numbers. `characters[i]` is what the number i stands for."""

    characters: str
    train: Tensor
    validation: Tensor


def load(path: Path) -> Text:
    text = path.read_text(encoding="utf-8")
    characters = "".join(sorted(set(text)))
    numbers = encode(text, characters)
    cut = len(numbers) - int(len(numbers) * VALIDATION_SHARE)
    return Text(characters, numbers[:cut], numbers[cut:])


def encode(text: str, characters: str) -> Tensor:
    """Return the number of each character; ValueError names one that the model does not know."""
    number = {character: i for i, character in enumerate(characters)}
    unknown = set(text) - set(number)
    if unknown:
        raise ValueError(f"characters that the model has never seen: {sorted(unknown)}")
    return torch.tensor([number[character] for character in text], dtype=torch.long)


def decode(numbers: Tensor, characters: str) -> str:
    return "".join(characters[number] for number in numbers.tolist())


def batch(source: Tensor, size: int, length: int, seed: int) -> tuple[Tensor, Tensor]:
    """Return `size` random pieces of `source`, and the same pieces one character further on.

    The choice depends on `seed` alone: every process, and every resumed run, draws the same.
    """
    dice = torch.Generator().manual_seed(seed)
    starts = torch.randint(len(source) - length, (size, 1), generator=dice)
    places = starts + torch.arange(length)
    return source[places], source[places + 1]
