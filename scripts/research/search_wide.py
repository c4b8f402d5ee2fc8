"""Search for a correction that keeps more and gives up less style, by successive halving.

    python scripts/research/search_wide.py [--rungs 3]

Every setting (search_settings.py) is a recipe on mini, measured on the icons that split.csv keeps for
choosing: how near its pictures are to the truth, at the style that they have. A rung measures what is
left on more icons and at more strengths, and keeps the best and the package's own recipes.

A setting's score is half the mean and half the worst over the directions. In a direction it is how much
better the setting is than SDEdit can be at no less style, which is read from the line through SDEdit's
own strengths: SSIM to the truth in tenths, and the logarithm of the structure distances' ratio in 0.7
(half of the distance), averaged over both and over the strengths. From that goes off what style accuracy
it gives up to SDEdit at the same strength: without this, which the first rung was first sorted by,
settings won that had lost the style for two pictures of three.

Each measurement, the mean of some icons, goes to search.jsonl, from which a run that was stopped goes
on if the model is the same, and what the rungs kept to search.md, both beside this file.
"""

import argparse
import csv
import json
import math
import random
import sys
import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from itertools import pairwise
from pathlib import Path
from statistics import fmean
from typing import NamedTuple

import numpy as np
import torch
from PIL import Image
from search_settings import NAMED, settings

from sdcorrect.config import Input
from sdcorrect.evaluate.clip import Clip
from sdcorrect.evaluate.pixels import psnr, ssim, to_tensor
from sdcorrect.evaluate.structure import Structure, structure_distance
from sdcorrect.inputs.items import Item, seed_of
from sdcorrect.inputs.pictures import read_image
from sdcorrect.models import Model, load, quiet_libraries
from sdcorrect.recipes import BUILT_IN, Recipe
from sdcorrect.settings import ModelSettings
from sdcorrect.translate import Request, Translator

HERE = Path(__file__).parent
ICONS = HERE.parents[1] / "sdcorrect" / "assets" / "icons"
PROMPTS = {
    "flat": "in flat design style",
    "3d": "in 3d render style",
    "ink": "in black and white ink style",
}
DIRECTIONS = (("3d", "flat"), ("flat", "ink"), ("flat", "3d"), ("ink", "3d"))
#: SDEdit's, between which its line goes.
STRENGTHS = (0.3, 0.5, 0.65, 0.8, 0.95, 1.0)
GUIDANCE, BATCH = 5.0, 8
SSIM_UNIT, STRUCTURE_UNIT = 0.1, 0.7

Direction = tuple[str, str]
#: The mean of each metric.
Means = dict[str, float]


class Rung(NamedTuple):
    icons: int
    steps: int
    strengths: tuple[float, ...]
    keep: int


SETTINGS = 200
RUNGS = (
    Rung(6, 10, (0.8,), 16),
    Rung(12, 20, (0.65, 0.95), 4),
    Rung(24, 20, (0.65, 0.8, 1.0), 1),
)


# -- measuring -------------------------------------------------------------------------------------


@dataclass
class Bench:
    """Icons, the networks that measure, and what was measured before."""

    model: Model
    icons: Sequence[str]
    log: Path

    def __post_init__(self) -> None:
        self.clip, self.structure = Clip("mini"), Structure("mini", device=torch.device("cpu"))
        self.texts = self.clip.texts([*PROMPTS.values()])
        head, *lines = (self.log.read_text() if self.log.exists() else "").splitlines() or [""]
        of_model = json.dumps({"model": self.model.identity})
        if head != of_model:  # what was measured with another model
            lines = []
            self.log.write_text(f"{of_model}\n")
        self.known: dict[str, Means] = {e.pop("of"): e for e in map(json.loads, lines)}

    def means(self, recipe: Recipe, direction: Direction, strength: float, rung: Rung) -> Means:
        """What `recipe` reaches on the icons of `rung`, of which earlier rungs measured some."""
        ends = [0, *(r.icons for r in RUNGS if r.icons <= rung.icons and r.steps == rung.steps)]
        of = recipe, direction, strength, rung.steps
        parts = [self._part(*of, first, end) for first, end in pairwise(ends)]
        sizes = [end - first for first, end in pairwise(ends)]
        return {
            name: float(np.average([part[name] for part in parts], weights=sizes)) for name in parts[0]
        }

    def _part(
        self,
        recipe: Recipe,
        direction: Direction,
        strength: float,
        steps: int,
        first: int,
        end: int,
    ) -> Means:
        key = f"{recipe.name} {'-to-'.join(direction)} {strength:g} {steps} {first}-{end}"
        if key not in self.known:
            found = [
                of_icon
                for i in range(first, end, BATCH)
                for of_icon in self._measure(
                    recipe, direction, strength, steps, self.icons[i:end][:BATCH]
                )
            ]
            self.known[key] = {name: round(fmean(o[name] for o in found), 5) for name in found[0]}
            with self.log.open("a") as log:
                log.write(json.dumps({"of": key, **self.known[key]}) + "\n")
        return self.known[key]

    @torch.inference_mode()
    def _measure(
        self,
        recipe: Recipe,
        direction: Direction,
        strength: float,
        steps: int,
        names: Sequence[str],
    ) -> Iterator[dict[str, float]]:
        source, target = direction
        translator = Translator(
            self.model, [recipe], steps=steps, strength=strength, guidance_scale=GUIDANCE
        )
        files = [ICONS / source / f"{name}.png" for name in names]
        read = [read_image(file, Input(path=file)) for file in files]
        items = [Item(file, file.name, Path(file.name), PROMPTS[target], "") for file in files]
        requests = [
            Request(image, seed_of(item, sha256, 0), PROMPTS[target])
            for item, (image, sha256) in zip(items, read, strict=True)
        ]
        made = translator(requests, variants=[recipe.name])[recipe.name].pictures
        for name, picture in zip(names, made, strict=True):
            truth = Image.open(ICONS / target / f"{name}.png").convert("RGB")
            assert picture, f"{recipe.name} makes {name} not finite"
            yield self._compare(picture, truth, target)

    def _compare(self, picture: Image.Image, truth: Image.Image, target: str) -> dict[str, float]:
        of_picture, of_truth = (to_tensor(image, torch.device("cpu")) for image in (picture, truth))
        styles = self.clip.images([picture])[0] @ self.texts.T
        nearest = [*PROMPTS][int(styles.argmax())]
        return {
            "style": float(styles[[*PROMPTS].index(target)]),
            "accuracy": float(nearest == target),
            "ssim": ssim(of_picture, of_truth),
            "psnr": psnr(of_picture, of_truth),
            "structure": structure_distance(*self.structure.similarities([picture, truth])),
        }


# -- scoring ---------------------------------------------------------------------------------------


def score(bench: Bench, recipe: Recipe, rung: Rung) -> float:
    gains = [
        fmean(gain(bench, recipe, direction, strength, rung) for strength in rung.strengths)
        for direction in DIRECTIONS
    ]
    return (fmean(gains) + min(gains)) / 2


def gain(bench: Bench, recipe: Recipe, direction: Direction, strength: float, rung: Rung) -> float:
    own = bench.means(recipe, direction, strength, rung)
    line = [bench.means(BUILT_IN["sdedit"], direction, s, rung) for s in STRENGTHS]
    more = own["ssim"] - best(line, "ssim", own["style"], max)
    nearer = math.log(best(line, "structure", own["style"], min) / own["structure"])
    lost = bench.means(BUILT_IN["sdedit"], direction, strength, rung)["accuracy"] - own["accuracy"]
    return (more / SSIM_UNIT + nearer / STRUCTURE_UNIT) / 2 - max(lost, 0.0)


def best(
    line: Sequence[Mapping[str, float]],
    metric: str,
    style: float,
    choose: Callable[..., float],
) -> float:
    """The best `metric` on the line through some points where there is no less style than `style`.

    Where there is as much nowhere, that of the point with the most.
    """
    along = np.linspace(0, len(line) - 1, 50 * (len(line) - 1) + 1)
    styles, values = (
        np.interp(along, range(len(line)), [point[of] for point in line]) for of in ("style", metric)
    )
    return float(choose(values[styles >= min(style, styles.max())]))


# -- halving ---------------------------------------------------------------------------------------


def choosing() -> list[str]:
    """The icons to choose on, in an order that has nothing to do with their names."""
    with (HERE / "split.csv").open() as file:
        names = [row["icon"] for row in csv.DictReader(file) if row["part"] == "choose"]
    random.Random(0).shuffle(names)
    return names


def table(bench: Bench, rung: Rung, scores: Mapping[str, float], recipes: Mapping[str, Recipe]) -> str:
    """A line for each setting: its score, and what it reaches at one of the strengths."""
    shown = 0.8 if 0.8 in rung.strengths else rung.strengths[-1]
    heads = [f"{' to '.join(d)}: SSIM / PSNR / structure / text / accuracy" for d in DIRECTIONS]
    lines = [
        f"{len(scores)} settings, {rung.icons} icons, {rung.steps} steps, strengths "
        f"{', '.join(map(str, rung.strengths))}; kept: the first {rung.keep}, {', '.join(NAMED)}. "
        f"Figures: at {shown:g}.",
        "",
        "| | setting | score | " + " | ".join(heads) + " |",
        "|---|---|---|" + "---|" * len(heads),
    ]
    for place, name in enumerate(["sdedit", *scores]):
        recipe = recipes.get(name, BUILT_IN["sdedit"])
        cells = [_cell(bench.means(recipe, d, shown, rung)) for d in DIRECTIONS]
        told = f"{scores[name]:+.3f}" if name in scores else ""
        lines.append(f"| {place or ''} | `{name}` | {told} | " + " | ".join(cells) + " |")
    return "\n".join(lines) + "\n"


def _cell(mean: Mapping[str, float]) -> str:
    return (
        f"{mean['ssim']:.3f} / {mean['psnr']:.2f} / {mean['structure']:.4f} / "
        f"{mean['style']:.3f} / {mean['accuracy']:.2f}"
    )


def say(words: str) -> None:
    sys.stdout.write(f"{time.strftime('%H:%M:%S')} {words}\n")
    sys.stdout.flush()


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--rungs", type=int, default=len(RUNGS), help="how many to climb")
    arguments = parser.parse_args()
    quiet_libraries()
    bench = Bench(load(ModelSettings(device="cpu")), choosing(), HERE / "search.jsonl")
    recipes = settings(SETTINGS)
    left, report = [*recipes], ["# The search\n"]
    for number, rung in enumerate(RUNGS[: arguments.rungs], start=1):
        scores: dict[str, float] = {}
        for name in left:
            scores[name] = score(bench, recipes[name], rung)
            say(f"rung {number}: {name} {scores[name]:+.3f}")
        scores = dict(sorted(scores.items(), key=lambda of: -of[1]))
        report.append(f"## Rung {number}\n\n{table(bench, rung, scores, recipes)}")
        (HERE / "search.md").write_text("\n".join(report))
        kept = [*scores][: rung.keep]
        left = [*kept, *(name for name in NAMED if name not in kept)]
    say(f"best: {left[0]}")
    return 0


if __name__ == "__main__":
    sys.exit(main())
