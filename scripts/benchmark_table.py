"""The benchmark's means as a Markdown table and as curves: benchmark_table.py OUT

Reads all OUT/<direction>/<strength or inverted>/evaluation.json; writes table.md and curves.png to OUT.
"""

import json
import sys
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import matplotlib

matplotlib.use("Agg")
from matplotlib import pyplot as plt

from sdcorrect.evaluate.table import p_value

DIRECTIONS = ("flat-to-3d", "3d-to-flat", "flat-to-ink", "ink-to-3d")
#: Metric -> its table heading and its decimals.
METRICS = {
    "ssim_truth": ("SSIM to the truth", 3),
    "psnr_truth": ("PSNR, dB", 2),
    "structure_distance_truth": ("structure distance", 4),
    "clip_image_truth": ("CLIP image similarity", 3),
    "clip_text": ("CLIP similarity to the style", 3),
    "style_accuracy": ("style accuracy", 3),
    "ssim": ("SSIM to the source", 3),
}
#: The metrics whose paired test against SDEdit the table gives.
TESTED = ("ssim_truth", "structure_distance_truth")
#: The metrics that are plotted against style.
CURVES = {
    "ssim_truth": "SSIM to the true picture →",
    "structure_distance_truth": "← structure distance to the true picture",
}
#: Okabe and Ito's colours, which people with colour blindness can tell apart.
COLOURS = {
    "sdedit": "#999999",
    "correct": "#D55E00",
    "correct-fast": "#E69F00",
    "correct-adain": "#000000",
    "correct-wide": "#9467BD",
    "ddim": "#56B4E9",
    "pnp-50": "#009E73",
    "pnp": "#006D50",
    "p2p-refine": "#0072B2",
    "masactrl": "#CC79A7",
}


@dataclass(frozen=True)
class Result:
    direction: str
    strength: str  #: or "inverted"
    variant: str
    pictures: int
    metrics: dict[str, float]
    against_base: dict[str, Any]


def read(out: Path) -> Iterator[Result]:
    for direction in DIRECTIONS:
        for file in sorted((out / direction).glob("*/evaluation.json")):
            for variant, found in json.loads(file.read_text())["variants"].items():
                means = {name: mean["mean"] for name, mean in found["metrics"].items()}
                yield Result(
                    direction, file.parent.name, variant, found["pictures"], means, found["against_base"]
                )


def table(results: list[Result]) -> str:
    """A row for each direction, strength and variant, with p of the paired tests against SDEdit."""
    heads = ["direction", "icons", "strength", "recipe", *(head for head, _ in METRICS.values())]
    heads.append("p against `sdedit`: SSIM, structure distance")
    lines = ["| " + " | ".join(heads) + " |", "|---" * len(heads) + "|"]
    for r in results:
        inverted = r.strength == "inverted"
        told = [r.direction, str(r.pictures), "-" if inverted else r.strength, f"`{r.variant}`"]
        numbers = [f"{r.metrics[name]:.{decimals}f}" for name, (_, decimals) in METRICS.items()]
        tests = [] if inverted else [r.against_base[name]["p"] for name in TESTED if r.against_base]
        p = ", ".join(map(p_value, tests))
        lines.append("| " + " | ".join([*told, *numbers, p]) + " |")
    return "\n".join(lines) + "\n"


def draw(results: list[Result], file: Path) -> None:
    """Plot closeness to the truth over style, with a curve over the strengths for each variant."""
    directions = [direction for direction in DIRECTIONS if direction in {r.direction for r in results}]
    shape, size = (2, len(directions)), (1.5 + 4.5 * len(directions), 8)
    figure, panels = plt.subplots(*shape, figsize=size, layout="constrained", squeeze=False)
    for column, direction in enumerate(directions):
        for panel, metric in zip(panels[:, column], CURVES, strict=True):
            for variant, colour in COLOURS.items():
                own = [r for r in results if (r.direction, r.variant) == (direction, variant)]
                points = [(r.metrics["clip_text"], r.metrics[metric]) for r in own]
                if not points:
                    continue
                alone = own[0].strength == "inverted"
                panel.plot(
                    *zip(*points, strict=True),
                    "D" if alone else "o-",
                    color=colour,
                    label=variant,
                    linewidth=2.4 if variant == "correct" else 1.4,
                    markersize=7 if alone else 4,
                    zorder=3 if variant == "correct" else 2,
                )
            panel.grid(alpha=0.25)
            panel.set_xlabel("CLIP similarity to the target style →")
        panels[0, column].set_title(direction.replace("-", " "))
    for panel, name in zip(panels[:, 0], CURVES.values(), strict=True):
        panel.set_ylabel(name)
    handles, labels = panels[0, 0].get_legend_handles_labels()
    figure.legend(handles, labels, loc="outside lower center", ncols=4, frameon=False)
    figure.savefig(file, dpi=110)


def main() -> None:
    if len(sys.argv) != 2:
        sys.exit("usage: benchmark_table.py OUT")
    out = Path(sys.argv[1])
    results = list(read(out))
    if not results:
        sys.exit(f"{out}: found no evaluation.json; run scripts/benchmark_icons.sh first")
    (out / "table.md").write_text(table(results))
    draw(results, out / "curves.png")
    sys.stdout.write(f"{len(results)} rows: {out / 'table.md'}, {out / 'curves.png'}\n")


if __name__ == "__main__":
    main()
