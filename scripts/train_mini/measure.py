"""Print the results of measure.sh, for one model or for several side by side: measure.py OUT ..."""

import argparse
import json
from pathlib import Path
from typing import Any

import torch
from data import ROOT, say
from PIL import Image
from torch import Tensor, nn
from torchmetrics.image.fid import FrechetInceptionDistance

from sdcorrect.evaluate.clip import Clip

TRUTH = ROOT / "sdcorrect" / "assets" / "icons" / "3d"


class Given(nn.Module):
    """Pass given features to torchmetrics, which expects a network that computes them."""

    def __init__(self, width: int) -> None:
        super().__init__()
        self.num_features = width

    def forward(self, features: Tensor) -> Tensor:
        return features


def features(clip: Clip, folder: Path) -> Tensor:
    files = sorted(folder.glob("*.png"))
    pictures = [Image.open(file).convert("RGB") for file in files]
    return torch.cat([clip.images(pictures[i : i + 60]) for i in range(0, len(pictures), 60)])


def frechet(found: Tensor, truth: Tensor) -> float:
    """Fréchet distance between both (Heusel et al., NeurIPS 2017), in features of mini's CLIP.

    120 pictures are too few for an absolute value; use it to compare models on the same pictures.
    """
    distance = FrechetInceptionDistance(feature=Given(truth.shape[1]))
    distance.update(truth, real=True)
    distance.update(found, real=False)
    return float(distance.compute())


def told(out: Path, clip: Clip, truth: Tensor) -> dict[str, float]:
    """Metric -> value, for one output folder of measure.sh."""
    losses: dict[str, float] = json.loads((out / "loss.json").read_text())
    found = {f"held-out loss at {t}": error for t, error in losses.items()}
    variants: dict[str, Any] = json.loads((out / "3d" / "evaluation.json").read_text())["variants"]
    for name, variant in variants.items():
        found[f"{name}: SSIM to the truth"] = variant["metrics"]["ssim_truth"]["mean"]
        found[f"{name}: style accuracy"] = variant["metrics"]["style_accuracy"]["mean"]
        found[f"{name}: Fréchet distance"] = frechet(features(clip, out / "3d" / name), truth)
    return found


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("out", type=Path, nargs="+", help="as measure.sh leaves it")
    outs: list[Path] = parser.parse_args().out
    clip = Clip()
    truth = features(clip, TRUTH)
    columns = [told(out, clip, truth) for out in outs]
    say("| | " + " | ".join(out.name for out in outs) + " |")
    say("|---" * (len(outs) + 1) + "|")
    for figure in columns[0]:
        say(f"| {figure} | " + " | ".join(f"{column[figure]:.4f}" for column in columns) + " |")


if __name__ == "__main__":
    main()
