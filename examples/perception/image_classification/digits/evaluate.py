"""Judge a trained classifier on the test images, which no training has seen."""

from __future__ import annotations

import argparse
import sys
from pathlib import Path

import images
import network
import results
from images import Images
from network import Weights

OUTPUTS = Path(__file__).resolve().parent / "outputs"


def main() -> None:
    options = parse_options()
    if not options.model.is_file():
        sys.exit(f"There is no model at {options.model}: train one first, or name it by --model.")
    _, _, test = images.load()
    judged = judge(network.load(options.model), test, options.output_dir)
    results.save_json(judged, options.output_dir / "evaluation.json")
    print(f"Results are in {options.output_dir}")


def judge(weights: Weights, test: Images, output_dir: Path) -> dict[str, object]:
    """Print and return how good the model is; draw its confusion matrix into `output_dir`."""
    loss, accuracy = network.loss_and_accuracy(weights, test)
    guesses = network.probabilities(weights, test.pixels).argmax(axis=1)
    matrix = results.confusion_matrix(test.labels, guesses)
    recall = (matrix.diagonal() / matrix.sum(axis=1)).round(4).tolist()
    print(f"test loss {loss:.4f} accuracy {accuracy:.3f} ({len(test.labels)} images)")
    print("by digit: " + "  ".join(f"{digit} {share:.2f}" for digit, share in enumerate(recall)))
    results.save_picture(matrix, output_dir / "confusion_matrix.png")
    return {
        "loss": loss,
        "accuracy": accuracy,
        "recall_by_digit": recall,
        "confusion_matrix": matrix.tolist(),
    }


def parse_options() -> argparse.Namespace:
    parser = argparse.ArgumentParser(
        description=__doc__.splitlines()[0],
        formatter_class=argparse.ArgumentDefaultsHelpFormatter,
    )
    parser.add_argument("--model", type=Path, default=OUTPUTS / "model.npz", help="what to judge")
    parser.add_argument("--output-dir", type=Path, default=OUTPUTS, help="where results go")
    return parser.parse_args()


if __name__ == "__main__":
    main()
