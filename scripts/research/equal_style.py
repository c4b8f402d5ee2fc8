"""Compare recipes with SDEdit at equal style, from what benchmark_icons.sh measured at its strengths.

    python scripts/research/equal_style.py out/benchmark [--strength 0.8]

SDEdit's strength is the one at which the mean text similarity of its pictures equals that of the recipe.
It lies between two measured strengths, and each picture's values are interpolated linearly between
them. If several strengths qualify, the one with the best mean value counts; if SDEdit has less style at
all strengths, the one with the most. p is Wilcoxon's signed-rank test over the pictures.
"""

import argparse
import csv
import sys
from collections.abc import Callable, Sequence
from pathlib import Path

import numpy as np
from numpy.typing import NDArray
from scipy.stats import wilcoxon

from sdcorrect.evaluate.table import p_value

STYLE = "clip_text"
#: Metric -> its head, its decimals, and which of several means is best.
KEPT: dict[str, tuple[str, int, Callable[..., float]]] = {
    "ssim_truth": ("SSIM", 3, np.argmax),
    "structure_distance_truth": ("structure distance", 4, np.argmin),
}
BETWEEN = 100
DIRECTIONS = ("flat to 3D", "3D to flat", "flat to ink", "ink to 3D")

Row = dict[str, str]
Values = dict[str, NDArray[np.float64]]


def read(folder: Path) -> dict[str, dict[str, Row]]:
    """The rows of each recipe's pictures, by path."""
    found: dict[str, dict[str, Row]] = {}
    with (folder / "evaluation.csv").open() as file:
        for row in csv.DictReader(file):
            found.setdefault(row["variant"], {})[row["path"]] = row
    return found


def values_of(rows: dict[str, Row], pictures: Sequence[str]) -> Values:
    return {name: np.array([float(rows[path][name]) for path in pictures]) for name in (STYLE, *KEPT)}


def equal_in_style(line: Sequence[Values], own: Values, metric: str) -> NDArray[np.float64]:
    """SDEdit's values of `metric` at the mean style of `own`; `line` is ordered by strength."""
    share = np.linspace(0, 1, BETWEEN)[:, None]
    styles, values = (
        np.concatenate(
            [
                before[of] * (1 - share) + after[of] * share
                for before, after in zip(line[:-1], line[1:], strict=True)
            ]
        )
        for of in (STYLE, metric)
    )
    least = min(own[STYLE].mean(), styles.mean(axis=1).max())
    enough = values[styles.mean(axis=1) >= least]
    best = KEPT[metric][2]
    found: NDArray[np.float64] = enough[int(best(enough.mean(axis=1)))]
    return found


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("out", type=Path, help="the folder of benchmark_icons.sh")
    parser.add_argument("--strength", default="0.8", help="of the recipes")
    arguments = parser.parse_args()
    columns = [name for head, *_ in KEPT.values() for name in (head, "SDEdit's", "p")]
    lines = [f"| direction, icons | recipe | {' | '.join(columns)} |", "|---" * (2 + len(columns)) + "|"]
    for direction in DIRECTIONS:
        files = (arguments.out / direction.lower().replace(" ", "-")).glob("*/evaluation.csv")
        folders = {file.parent.name: read(file.parent) for file in files}
        inverted = folders.pop("inverted", {})
        line = [folders[strength]["sdedit"] for strength in sorted(folders, key=float)]
        for recipe, rows in (folders[arguments.strength] | inverted).items():
            if recipe == "sdedit":
                continue
            pictures = sorted(set.intersection(*(set(each) for each in (rows, *line))))
            own, curve = values_of(rows, pictures), [values_of(each, pictures) for each in line]
            cells = []
            for metric, (_, decimals, _) in KEPT.items():
                theirs = equal_in_style(curve, own, metric)
                p = float(wilcoxon(own[metric], theirs).pvalue)
                cells += [f"{of.mean():.{decimals}f}" for of in (own[metric], theirs)]
                cells.append(p_value(p))
            lines.append(f"| {direction}, {len(pictures)} | `{recipe}` | {' | '.join(cells)} |")
    sys.stdout.write("\n".join(lines) + "\n")


if __name__ == "__main__":
    main()
