"""The model: one hidden layer, written out in NumPy, forwards and backwards."""

from __future__ import annotations

from pathlib import Path

import numpy as np
from images import CLASSES, PIXELS, Images
from numpy.typing import NDArray
from results import written_whole

Array = NDArray[np.float64]
Weights = dict[str, Array]


def new(hidden: int, rng: np.random.Generator) -> Weights:
    """Return fresh weights, scaled for the rectifier (He initialisation)."""
    return {
        "w1": rng.normal(0, np.sqrt(2 / PIXELS), (PIXELS, hidden)),
        "b1": np.zeros(hidden),
        "w2": rng.normal(0, np.sqrt(2 / hidden), (hidden, CLASSES)),
        "b2": np.zeros(CLASSES),
    }


def probabilities(weights: Weights, pixels: Array) -> Array:
    """Return (n, 10): how likely each image is each digit."""
    return softmax(logits(hidden_layer(weights, pixels), weights))


def loss_and_accuracy(weights: Weights, images: Images) -> tuple[float, float]:
    """Return the mean cross-entropy in nats, and the share of images told right."""
    p = probabilities(weights, images.pixels)
    right = p.argmax(axis=1) == images.labels
    return cross_entropy(p, images.labels), float(right.mean())


def gradients(weights: Weights, images: Images) -> Weights:
    """Return the derivative of the mean cross-entropy by each weight."""
    hidden = hidden_layer(weights, images.pixels)
    by_logits = softmax(logits(hidden, weights))
    by_logits[np.arange(len(images.labels)), images.labels] -= 1
    by_logits /= len(images.labels)
    by_hidden = (by_logits @ weights["w2"].T) * (hidden > 0)
    return {
        "w1": images.pixels.T @ by_hidden,
        "b1": by_hidden.sum(axis=0),
        "w2": hidden.T @ by_logits,
        "b2": by_logits.sum(axis=0),
    }


def save(weights: Weights, path: Path) -> None:
    with written_whole(path) as file:
        np.savez(file, **weights)


def load(path: Path) -> Weights:
    with np.load(path, allow_pickle=False) as file:
        return {name: file[name] for name in ("w1", "b1", "w2", "b2")}


def hidden_layer(weights: Weights, pixels: Array) -> Array:
    return np.maximum(pixels @ weights["w1"] + weights["b1"], 0)


def logits(hidden: Array, weights: Weights) -> Array:
    return hidden @ weights["w2"] + weights["b2"]


def softmax(logits: Array) -> Array:
    e = np.exp(logits - logits.max(axis=1, keepdims=True))
    return e / e.sum(axis=1, keepdims=True)


def cross_entropy(p: Array, labels: NDArray[np.int64]) -> float:
    return float(-np.log(p[np.arange(len(labels)), labels] + 1e-12).mean())
