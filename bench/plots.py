"""Draws one SVG per topic from the results. Run by a Python that has matplotlib.

python bench/plots.py RESULTS.json FOLDER
"""

from __future__ import annotations

import json
import statistics
import sys
from pathlib import Path
from typing import Any

OURS, EARLIER, OTHERS = "#1f6f8b", "#99c1cf", "#b8b8b8"
MOST = 4
"""Tables of a topic that are drawn: the first ones that compare something."""
ROW, HEAD, WIDTH = 0.24, 0.75, 7.5
"""Inches."""


def main() -> int:
    results, folder = json.loads(Path(sys.argv[1]).read_text()), Path(sys.argv[2])
    import matplotlib as mpl  # type: ignore[import-not-found]

    mpl.use("svg")
    mpl.rcParams |= {"svg.fonttype": "none", "svg.hashsalt": "cvl", "font.size": 8}
    for topic in results["topics"]:
        tables = [table for table in topic["tables"] if len(table["samples"]) > 1][:MOST]
        if tables:
            draw(topic["title"], tables, folder / f"{topic['name']}.svg")
    return 0


def draw(title: str, tables: list[dict[str, Any]], file: Path) -> None:
    """Draw medians as bars, with the middle half of the samples as whiskers."""
    from matplotlib import pyplot as plt

    heights = [HEAD + ROW * len(table["samples"]) for table in tables]
    figure, axes = plt.subplots(
        len(tables),
        figsize=(WIDTH, sum(heights)),
        squeeze=False,
        gridspec_kw={"height_ratios": heights},
    )
    for axis, table in zip(axes[:, 0], tables, strict=True):
        bars(axis, table)
    figure.suptitle(title, x=0.01, ha="left", fontweight="bold")
    figure.tight_layout()
    figure.savefig(file, metadata={"Date": None, "Creator": None})
    plt.close(figure)


def bars(axis: Any, table: dict[str, Any]) -> None:
    """Draw one table."""
    names = list(table["samples"])[::-1]
    middle = [statistics.median(table["samples"][name]) for name in names]
    spread = [[], []]  # type: list[list[float]]
    for name, value in zip(names, middle, strict=True):
        low, high = quartiles(table["samples"][name])
        spread[0].append(value - low)
        spread[1].append(high - value)
    axis.barh(names, middle, xerr=spread, color=[colour(name) for name in names], height=0.7)
    axis.set_title(f"{table['title']}, {table['unit']}", loc="left", fontsize=8)
    axis.spines[["top", "right"]].set_visible(False)


def quartiles(samples: list[float]) -> tuple[float, float]:
    if len(samples) < 4:
        return min(samples), max(samples)
    low, _, high = statistics.quantiles(samples, n=4, method="inclusive")
    return low, high


def colour(name: str) -> str:
    if not name.startswith("cvl"):
        return OTHERS
    return EARLIER if "@" in name else OURS


if __name__ == "__main__":
    sys.exit(main())
