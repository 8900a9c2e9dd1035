"""The options of a training."""

from __future__ import annotations

from argparse import ArgumentDefaultsHelpFormatter, ArgumentParser, ArgumentTypeError, Namespace
from pathlib import Path

from text import ALICE

OUTPUTS = Path(__file__).resolve().parent / "outputs"
LATEST = Path()
"""What a bare `--resume` means: the checkpoint in `--output_dir`."""


def parse_options() -> Namespace:
    parser = ArgumentParser(
        description="Train a small GPT to write text, character by character.",
        formatter_class=ArgumentDefaultsHelpFormatter,
    )
    add_work(parser)
    add_model(parser)
    add_learning(parser)
    options = parser.parse_args()
    if options.n_embd % options.n_head:
        parser.error("--n_embd must be a multiple of --n_head")
    if options.resume == LATEST:
        options.resume = options.output_dir / "checkpoint.pt"
    return options


def add_work(parser: ArgumentParser) -> None:
    add = parser.add_argument_group("the work").add_argument
    add("--data", type=existing, default=ALICE, help="text to learn from, UTF-8")
    add("--output_dir", type=Path, default=OUTPUTS, help="where results go")
    add(
        "--resume",
        type=existing,
        nargs="?",
        const=LATEST,
        metavar="CHECKPOINT",
        help="go on from this one; without a name, from that in --output_dir if there is one",
    )
    add("--device", default="auto", help="cpu, cuda, ..., or auto: a GPU if there is one")
    add("--dtype", choices=("float32", "bfloat16"), default="float32", help="arithmetic")
    add("--log_interval", type=positive, default=10, help="iterations between two progress lines")
    add("--eval_interval", type=positive, default=100, help="... between two checkpoints")
    add("--eval_iters", type=positive, default=10, help="batches that an evaluation looks at")


def add_model(parser: ArgumentParser) -> None:
    add = parser.add_argument_group("the model").add_argument
    add("--n_layer", type=positive, default=4, help="blocks")
    add("--n_head", type=positive, default=4, help="attention heads")
    add("--n_embd", type=positive, default=128, help="width")
    add("--block_size", type=positive, default=128, help="characters it sees at a time")
    add("--dropout", type=float, default=0.0, help="share of values left out in training")


def add_learning(parser: ArgumentParser) -> None:
    add = parser.add_argument_group("the learning").add_argument
    add("--max_iters", type=positive, default=1000, help="steps")
    add("--batch_size", type=positive, default=32, help="pieces of text a step, by all processes")
    add("--lr", type=float, default=1e-3, help="highest learning rate")
    add("--warmup_iters", type=int, default=100, help="steps that the rate takes to rise")
    add("--weight_decay", type=float, default=0.1, help="of matrices")
    add("--grad_clip", type=float, default=1.0, help="longest gradient")
    add("--seed", type=int, default=0, help="same seed, same model")


def positive(text: str) -> int:
    number = int(text)
    if number < 1:
        raise ArgumentTypeError(f"{number} is not 1 or more")
    return number


def existing(text: str) -> Path:
    if not Path(text).is_file():
        raise ArgumentTypeError(f"there is no file {text}")
    return Path(text)
