"""Train a small classifier of handwritten digits by mini-batch gradient descent with momentum.

The model and metrics.json are renewed after every epoch: a run that is stopped leaves both.
"""

from __future__ import annotations

import argparse
from pathlib import Path

import images
import network
import numpy as np
import results
from evaluate import judge
from images import Images
from network import Weights

OUTPUTS = Path(__file__).resolve().parent / "outputs"


def main() -> None:
    options = parse_options()
    train, validation, test = images.load()
    print(f"{len(train.labels)} images to learn from, {len(validation.labels)} to watch")

    rng = np.random.default_rng(options.seed)
    weights = network.new(options.hidden, rng)
    velocity = {name: np.zeros_like(weight) for name, weight in weights.items()}
    metrics = {"seed": options.seed, "epochs": []}
    for epoch in range(1, options.epochs + 1):
        descend(weights, velocity, train, options, rng)
        measured = {"epoch": epoch, **measure(weights, train, validation)}
        print(as_line(measured, options.epochs), flush=True)
        metrics["epochs"].append(measured)
        network.save(weights, options.output_dir / "model.npz")
        results.save_json(metrics, options.output_dir / "metrics.json")

    metrics["test"] = judge(weights, test, options.output_dir)
    results.save_json(metrics, options.output_dir / "metrics.json")
    print(f"Results are in {options.output_dir}")


def descend(
    weights: Weights,
    velocity: Weights,
    train: Images,
    options: argparse.Namespace,
    rng: np.random.Generator,
) -> None:
    """Go once through the images in random order; change `weights` and `velocity` in place."""
    order = rng.permutation(len(train.labels))
    for start in range(0, len(order), options.batch_size):
        chosen = order[start : start + options.batch_size]
        batch = Images(train.pixels[chosen], train.labels[chosen])
        for name, slope in network.gradients(weights, batch).items():
            velocity[name] = options.momentum * velocity[name] - options.lr * slope
            weights[name] += velocity[name]


def measure(weights: Weights, train: Images, validation: Images) -> dict[str, float]:
    train_loss, train_accuracy = network.loss_and_accuracy(weights, train)
    validation_loss, validation_accuracy = network.loss_and_accuracy(weights, validation)
    return {
        "train_loss": train_loss,
        "train_accuracy": train_accuracy,
        "validation_loss": validation_loss,
        "validation_accuracy": validation_accuracy,
    }


def as_line(measured: dict[str, float], epochs: int) -> str:
    return (
        f"epoch {measured['epoch']:>{len(str(epochs))}}/{epochs}"
        f"  train loss {measured['train_loss']:.4f} accuracy {measured['train_accuracy']:.3f}"
        f"  validation loss {measured['validation_loss']:.4f}"
        f" accuracy {measured['validation_accuracy']:.3f}"
    )


def parse_options() -> argparse.Namespace:
    parser = argparse.ArgumentParser(
        description=__doc__.splitlines()[0],
        formatter_class=argparse.ArgumentDefaultsHelpFormatter,
    )
    parser.add_argument("--epochs", type=positive, default=30, help="how often to see each image")
    parser.add_argument("--batch-size", type=positive, default=32, help="images per step")
    parser.add_argument("--lr", type=float, default=0.05, help="learning rate")
    parser.add_argument("--momentum", type=float, default=0.9, help="share of the last step kept")
    parser.add_argument("--hidden", type=positive, default=64, help="width of the hidden layer")
    parser.add_argument("--seed", type=int, default=0, help="same seed, same model")
    parser.add_argument("--output-dir", type=Path, default=OUTPUTS, help="where results go")
    return parser.parse_args()


def positive(text: str) -> int:
    number = int(text)
    if number < 1:
        raise argparse.ArgumentTypeError(f"{number} is not 1 or more")
    return number


if __name__ == "__main__":
    main()
