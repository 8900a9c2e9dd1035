"""Write text with a trained model."""

from __future__ import annotations

import argparse
import sys
from pathlib import Path

import checkpoint
import text
import torch
from world import pick

CHECKPOINT = Path(__file__).resolve().parent / "outputs" / "checkpoint.pt"


def main() -> None:
    options = parse_options()
    if not options.checkpoint.is_file():
        sys.exit(f"No checkpoint at {options.checkpoint}: train first, or name it by --checkpoint.")
    saved = checkpoint.load(options.checkpoint)
    device = pick(options.device)
    model = saved.restore().to(device)
    try:
        start = text.encode(options.start, saved.characters)[None].to(device)
    except ValueError as error:
        sys.exit(f"--start has {error}")
    torch.manual_seed(options.seed)
    written = model.generate(start, options.length, options.temperature, options.top_k)
    print(text.decode(written[0], saved.characters))


def parse_options() -> argparse.Namespace:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.ArgumentDefaultsHelpFormatter
    )
    add = parser.add_argument
    add("--checkpoint", type=Path, default=CHECKPOINT, help="the trained model")
    add("--start", type=some, default="\n", help="how the text begins")
    add("--length", type=int, default=500, help="characters to write")
    add("--temperature", type=above_zero, default=0.8, help="the lower, the more careful")
    add("--top_k", type=int, default=0, help="choose among the k likeliest; 0: among all")
    add("--seed", type=int, default=0, help="same seed, same text")
    add("--device", default="auto", help="cpu, cuda, ..., or auto: a GPU if there is one")
    return parser.parse_args()


def some(text: str) -> str:
    if not text:
        raise argparse.ArgumentTypeError("must not be empty")
    return text


def above_zero(text: str) -> float:
    number = float(text)
    if not number > 0:
        raise argparse.ArgumentTypeError(f"{number} is not above 0")
    return number


if __name__ == "__main__":
    main()
