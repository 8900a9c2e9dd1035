"""What a run leaves behind: files that are there whole or not at all, and the confusion matrix."""

from __future__ import annotations

import json
import os
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import BinaryIO

import numpy as np
from images import CLASSES
from numpy.typing import NDArray

Matrix = NDArray[np.int64]
CELL = 44
"""Pixels a side of one cell in the picture; the labels take one cell at the left and the top."""


@contextmanager
def written_whole(path: Path) -> Iterator[BinaryIO]:
    """Open a file that appears under `path` only when it has been written to its end."""
    path.parent.mkdir(parents=True, exist_ok=True)
    unfinished = path.with_name(f".{path.name}.unfinished")
    with unfinished.open("wb") as file:
        yield file
        file.flush()
        os.fsync(file.fileno())
    unfinished.replace(path)


def save_json(value: object, path: Path) -> None:
    with written_whole(path) as file:
        file.write(json.dumps(value, indent=2).encode() + b"\n")


def confusion_matrix(labels: NDArray[np.int64], guesses: NDArray[np.int64]) -> Matrix:
    """Return (10, 10): how often the digit of the row was taken for the digit of the column."""
    matrix = np.zeros((CLASSES, CLASSES), dtype=np.int64)
    np.add.at(matrix, (labels, guesses), 1)
    return matrix


def save_picture(matrix: Matrix, path: Path) -> None:
    """Draw the matrix: what was right in blue, what was wrong in red, the more the darker."""
    from PIL import Image, ImageDraw, ImageFont

    size = CELL * (CLASSES + 1)
    image = Image.new("RGB", (size, size), "white")
    draw, font = ImageDraw.Draw(image), ImageFont.load_default(size=16)

    def write(row: int, column: int, text: str, colour: str = "black") -> None:
        middle = ((column + 0.5) * CELL, (row + 0.5) * CELL)
        draw.text(middle, text, fill=colour, font=font, anchor="mm")

    for digit in range(CLASSES):
        write(digit + 1, 0, str(digit), "grey")
        write(0, digit + 1, str(digit), "grey")
    for (row, column), count in np.ndenumerate(matrix):
        if count:
            share = count / matrix[row].sum()
            corner = ((column + 1) * CELL, (row + 1) * CELL)
            opposite = (corner[0] + CELL - 2, corner[1] + CELL - 2)
            draw.rectangle((corner, opposite), fill=shade(share, right=row == column))
            write(row + 1, column + 1, str(count), "white" if share > 0.5 else "black")
    with written_whole(path) as file:
        image.save(file, format="PNG")


def shade(share: float, *, right: bool) -> tuple[int, int, int]:
    """Return the colour between white (0) and full (1) for this share of a row."""
    full = (30, 90, 160) if right else (200, 40, 40)
    strength = 0.15 + 0.85 * share
    red, green, blue = (round(255 + (c - 255) * strength) for c in full)
    return red, green, blue
