"""The data: 1,797 scans of handwritten digits, 8 x 8 pixels each, that come with scikit-learn."""

from __future__ import annotations

from typing import NamedTuple

import numpy as np
from numpy.typing import NDArray

CLASSES = 10
PIXELS = 64
SPLIT_SEED = 0
"""Fixed, whatever seed a training has: a model is never judged on images that it has seen."""


class Images(NamedTuple):
    """`pixels` is (n, 64), between 0 and 1; `labels` is (n,), the digits 0 to 9."""

    pixels: NDArray[np.float64]
    labels: NDArray[np.int64]


def load() -> tuple[Images, Images, Images]:
    """Return the images for training (1,197), validation (300) and the final test (300)."""
    from sklearn.datasets import load_digits

    digits = load_digits()
    order = np.random.default_rng(SPLIT_SEED).permutation(len(digits.target))
    pixels, labels = digits.data[order] / 16.0, digits.target[order]
    train, validation, test = np.split(np.arange(len(labels)), [-600, -300])
    return (
        Images(pixels[train], labels[train]),
        Images(pixels[validation], labels[validation]),
        Images(pixels[test], labels[test]),
    )
