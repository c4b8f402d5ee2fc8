"""Measure what the mean and deviation of a skip's channels say about a picture, and what the rest says.

    python scripts/research/what_statistics_carry.py

The U-Net evaluates each of the icons for choosing, in three styles, clean at t = 1. From the two skips
that `correct` puts back, a linear model predicts the picture's mean colour (R^2) and style (accuracy):
once from only the means and deviations of the channels, and once from the channels without them. It is
tested on icons that it was not fitted to.
"""

import csv
import sys
from pathlib import Path

import numpy as np
import torch
from numpy.typing import NDArray
from PIL import Image
from sklearn.decomposition import PCA
from sklearn.linear_model import LogisticRegression, RidgeCV
from sklearn.model_selection import GroupKFold, cross_val_score
from sklearn.pipeline import make_pipeline
from sklearn.preprocessing import StandardScaler

from sdcorrect.core.plan import Plan
from sdcorrect.core.sampler import invert_one_step
from sdcorrect.models import Model, load, quiet_libraries
from sdcorrect.recipes import BUILT_IN
from sdcorrect.settings import ModelSettings

HERE = Path(__file__).parent
ICONS = HERE.parents[1] / "sdcorrect" / "assets" / "icons"
STYLES = ("flat", "3d", "ink")
COMPONENTS = 32  #: of what is left, as many as tell

Values = NDArray[np.float64]


@torch.inference_mode()
def seen_in(model: Model, plan: Plan, image: Image.Image) -> tuple[Values, Values]:
    """The means and deviations of the skips' channels, and the channels normalised by them."""
    x0 = model.encode([image], torch.zeros(1, 4, image.height // 4, image.width // 4))
    captured = invert_one_step(model.pipe.unet, x0, model.text([""], image.size), plan)
    statistics, rest = [], []
    for skip in captured.skip.values():
        deviation, mean = torch.std_mean(skip[0], dim=(-2, -1), keepdim=True, correction=0)
        statistics += [mean.flatten(), deviation.flatten()]
        rest.append(((skip[0] - mean) / (deviation + 1e-6)).flatten())
    return torch.cat(statistics).double().numpy(), torch.cat(rest).double().numpy()


def main() -> int:
    quiet_libraries()
    model = load(ModelSettings(device="cpu"))
    plan = BUILT_IN["correct-features"].plan(model.layout)
    with (HERE / "split.csv").open() as file:
        names = [row["icon"] for row in csv.DictReader(file) if row["part"] == "choose"]
    pictures = [
        Image.open(ICONS / style / f"{name}.png").convert("RGB").resize((64, 64))
        for name in names
        for style in STYLES
    ]
    seen = [seen_in(model, plan, picture) for picture in pictures]
    colours = np.array([np.asarray(picture).mean(axis=(0, 1)) for picture in pictures]) / 255
    styles, icons = np.tile(range(len(STYLES)), len(names)), np.repeat(range(len(names)), len(STYLES))
    ways = {
        "means and deviations": np.array([statistics for statistics, _ in seen]),
        "what is left": np.array([rest for _, rest in seen]),
    }
    for way, features in ways.items():
        reduced = (StandardScaler(), PCA(COMPONENTS, random_state=0))
        folds = {"groups": icons, "cv": GroupKFold(5)}
        colour = make_pipeline(*reduced, RidgeCV(np.logspace(-2, 4, 13)))
        style = make_pipeline(*reduced, LogisticRegression(max_iter=2000))
        r2 = cross_val_score(colour, features, colours, scoring="r2", **folds).mean()
        accuracy = cross_val_score(style, features, styles, **folds).mean()
        sys.stdout.write(f"{way}: mean colour R2 {r2:.2f}, style accuracy {accuracy:.2f}\n")
    return 0


if __name__ == "__main__":
    sys.exit(main())
