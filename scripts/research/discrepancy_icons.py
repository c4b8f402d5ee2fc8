"""Measure where in the decoder the discrepancy is, if strength increases it, and if it costs structure.

    python scripts/research/discrepancy_icons.py FOLDER [--limit 40] [--output out/discrepancy]

Dissects the pictures of FOLDER at several strengths and writes `discrepancy.png` and `.json`. They show
the mean divergence of self-attention from the inversion's, by block and strength, with standard errors,
for SDEdit and for the correction. They also show, at each strength, Spearman's rank correlation between
a picture's divergence under SDEdit and its loss of structure, 1 - SSIM to the source.
"""

import argparse
import json
import sys
from collections.abc import Sequence
from dataclasses import asdict, dataclass
from pathlib import Path
from statistics import fmean
from typing import Any

import torch
from matplotlib import colormaps
from matplotlib.axes import Axes
from matplotlib.figure import Figure
from PIL import Image
from scipy.stats import sem, spearmanr

from sdcorrect.config import load_job
from sdcorrect.core.plan import Block
from sdcorrect.dissect.about import means_of
from sdcorrect.dissect.dissection import CONDITIONS, Condition
from sdcorrect.dissect.draw import MARKERS
from sdcorrect.dissect.session import Session
from sdcorrect.errors import PictureError, SdcorrectError
from sdcorrect.evaluate.pixels import ssim, to_tensor
from sdcorrect.models import Model, load, quiet_libraries

STRENGTHS = (0.3, 0.45, 0.6, 0.75, 0.85, 0.95)
PLASMA_END = 0.88  #: the used part of the colour map; beyond it lines are too pale on white


@dataclass(frozen=True)
class Row:
    """One picture at one strength."""

    path: str
    strength: float
    divergence: dict[Condition, dict[Block, float]]  #: of self-attention, in bits, by block
    loss: dict[Condition, float]  #: 1 - SSIM of result and source


def say(text: str) -> None:
    sys.stdout.write(f"{text}\n")
    sys.stdout.flush()


def loss_of_structure(result: Image.Image, source: Image.Image) -> float:
    cpu = torch.device("cpu")
    return 1 - ssim(to_tensor(result, cpu), to_tensor(source, cpu))


def rows_at(settings: dict[str, Any], strength: float, model: Model) -> list[Row]:
    session = Session(load_job(None, {**settings, "strength": strength}), model, None)
    rows = []
    for item in session.items:
        try:
            _, dissection = session.dissect(session.read(item))
        except PictureError as error:
            raise SdcorrectError(f"{item.key}: {error}") from None
        means = means_of(dissection)
        rows.append(
            Row(
                item.key,
                strength,
                {c: {b: of["self-attention"][c] for b, of in means.items()} for c in CONDITIONS},
                {c: loss_of_structure(dissection.results[c], dissection.source) for c in CONDITIONS},
            )
        )
    return rows


def correlations(rows: Sequence[Row]) -> dict[str, dict[str, float]]:
    """Spearman's rho and p of SDEdit's divergence and loss: of all blocks together and of each."""
    loss = [row.loss["sdedit"] for row in rows]
    by_block = [row.divergence["sdedit"] for row in rows]
    against = {"all blocks": [fmean(of.values()) for of in by_block]}
    against |= {f"block {block}": [of[block] for of in by_block] for block in by_block[0]}
    found = {name: spearmanr(values, loss) for name, values in against.items()}
    return {name: {"rho": float(f.statistic), "p": float(f.pvalue)} for name, f in found.items()}


def draw(rows: Sequence[Row], names: dict[Condition, str], rho: dict[float, float]) -> Figure:
    figure = Figure(figsize=(11, 3.6), layout="constrained")
    left, middle, right = figure.subplots(1, 3)
    middle.sharey(left)
    for axes, condition in zip((left, middle), CONDITIONS, strict=True):
        draw_blocks(axes, rows, condition)
        axes.set_title(names[condition], fontsize=10)
        axes.set_xlabel("strength")
    left.set_ylabel("mean JSD of self-attention from\nthe inversion's, bits")
    left.set_ylim(bottom=0)
    middle.legend(fontsize=8, frameon=False, ncols=2)
    draw_scatter(right, rows, rho)
    for axes in (left, middle, right):
        axes.spines[["top", "right"]].set_visible(False)
        axes.grid(alpha=0.25, linewidth=0.6)
    return figure


def draw_blocks(axes: Axes, rows: Sequence[Row], condition: Condition) -> None:
    """A line for each block: the mean over pictures, and its standard error."""
    blocks = list(rows[0].divergence[condition])
    strengths = sorted({row.strength for row in rows})
    for i, block in enumerate(blocks):
        values = [
            [row.divergence[condition][block] for row in rows if row.strength == strength]
            for strength in strengths
        ]
        axes.errorbar(
            strengths,
            [fmean(of_strength) for of_strength in values],
            yerr=[sem(of_strength) if len(of_strength) > 1 else 0 for of_strength in values],
            color=colormaps["plasma"](PLASMA_END * i / max(1, len(blocks) - 1)),
            marker=MARKERS[i % len(MARKERS)],
            markersize=5,
            linewidth=1.4,
            label=f"block {block}",
            clip_on=False,
        )


def draw_scatter(axes: Axes, rows: Sequence[Row], rho: dict[float, float]) -> None:
    """A point for each picture and strength under SDEdit."""
    for i, (strength, of_strength) in enumerate(rho.items()):
        some = [row for row in rows if row.strength == strength]
        axes.scatter(
            [fmean(row.divergence["sdedit"].values()) for row in some],
            [row.loss["sdedit"] for row in some],
            s=14,
            color=colormaps["viridis"](PLASMA_END * i / max(1, len(rho) - 1)),
            marker=MARKERS[i % len(MARKERS)],
            label=f"{strength:g}: {of_strength:+.2f}",
        )
    axes.set_title("Does it cost structure? (SDEdit)", fontsize=10)
    axes.set_xlabel("JSD, mean over blocks and steps, bits")
    axes.set_ylabel("1 - SSIM to the source")
    axes.legend(
        title="strength: Spearman's rho", fontsize=8, title_fontsize=8, frameon=False, markerscale=1.3
    )


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawTextHelpFormatter)
    parser.add_argument("folder", type=Path)
    parser.add_argument("--output", type=Path, default=Path("out/discrepancy"))
    parser.add_argument("--limit", type=int, default=40)
    parser.add_argument("--prompt", default="in 3d render style")
    parser.add_argument("--model", default="mini")
    parser.add_argument("--method", default="correct")
    parser.add_argument("--strengths", type=float, nargs="+", default=STRENGTHS)
    arguments = parser.parse_args()
    settings = {
        "input.path": str(arguments.folder),
        "output.path": str(arguments.output),
        "limit": arguments.limit,
        "prompt": arguments.prompt,
        "model": arguments.model,
        "method": arguments.method,
    }
    quiet_libraries()
    try:
        model = load(load_job(None, settings))
        rows, found = [], {}
        for strength in sorted(arguments.strengths):
            of_strength = rows_at(settings, strength, model)
            rows += of_strength
            found[strength] = correlations(of_strength)
            rho, p = found[strength]["all blocks"].values()
            of_all = f"{len(of_strength)} pictures, Spearman's rho {rho:+.2f} (p = {p:.2g})"
            say(f"strength {strength:g}: {of_all}")
    except SdcorrectError as error:
        sys.exit(f"error: {error}")
    names: dict[Condition, str] = {"sdedit": "SDEdit", "correction": arguments.method}
    arguments.output.mkdir(parents=True, exist_ok=True)
    draw(rows, names, {s: of["all blocks"]["rho"] for s, of in found.items()}).savefig(
        arguments.output / "discrepancy.png", dpi=160
    )
    content = {
        "settings": {key: settings[key] for key in ("prompt", "model", "method")},
        "spearman": [{"strength": strength, "of": of} for strength, of in found.items()],
        "pictures": [asdict(row) for row in rows],
    }
    (arguments.output / "discrepancy.json").write_text(json.dumps(content, indent=2) + "\n")
    say(f"{arguments.output}/: discrepancy.png discrepancy.json")


if __name__ == "__main__":
    main()
