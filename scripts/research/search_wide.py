"""Search for a correction that keeps more and gives up less style, by successive halving.

    python scripts/research/search_wide.py [--rungs 4]

Every setting is a recipe on mini, measured on the icons that split.csv keeps for choosing: how near its
pictures are to the truth, at the style that they have. A rung measures what is left on more icons, in
more directions and at more strengths, and keeps the best.

A setting's score is half the mean and half the worst over the directions. In a direction it is how much
better the setting is than SDEdit can be at no less style, which is read from the line through SDEdit's
own strengths: SSIM to the truth in tenths, and the logarithm of the structure distances' ratio in 0.7
(half of the distance), averaged over both and over the strengths. From that goes off what style accuracy
it gives up to SDEdit at the same strength: without this, which the first rung was first sorted by,
settings won that had lost the style for two pictures of three.

Each measurement goes to search.jsonl, from which a run that was stopped goes on, and what the rungs kept
to search.md, both beside this file.
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
from itertools import product
from pathlib import Path
from statistics import fmean
from typing import Any, NamedTuple

import numpy as np
import torch
from PIL import Image

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
STRENGTHS = (0.3, 0.5, 0.65, 0.8, 0.95)
STEPS, GUIDANCE, BATCH = 20, 5.0, 8
SSIM_UNIT, STRUCTURE_UNIT = 0.1, 0.7

Direction = tuple[str, str]
#: By metric, a value for each icon.
Values = dict[str, list[float]]


class Rung(NamedTuple):
    icons: int
    directions: int
    strengths: tuple[float, ...]
    keep: int


RUNGS = (
    # the two directions in which the paper's correction loses the style
    Rung(6, 2, (0.8,), 9),
    Rung(6, 4, (0.8,), 3),
    Rung(8, 4, (0.65, 0.8, 0.95), 1),
)


# -- the settings ----------------------------------------------------------------------------------

FIRST, SECOND, ALL = "first-attention", "second-attention", "first-attention+"


def attention(*blocks: str, **how: Any) -> dict[str, Any]:
    return {"tensor": "self-attention", "blocks": blocks, **how}


def skips(*blocks: str, **how: Any) -> dict[str, Any]:
    return {"tensor": "skip", "blocks": blocks, "statistics": "own", **how}


ATTENTION: dict[str, list[dict[str, Any]]] = {
    "none": [],
    "paper": [attention(f"{FIRST}.0", f"{FIRST}.1")],
    "first": [attention(FIRST)],
    "all": [attention(ALL)],
    "all-0.7": [attention(ALL, weight=0.7)],
    "second": [attention(SECOND)],
    "first+half-second": [attention(FIRST), attention(SECOND, window=(0, 0.5))],
    "first+0.7-second": [attention(FIRST), attention(SECOND, window=(0, 0.7))],
    "first+second-0.5": [attention(FIRST), attention(SECOND, weight=0.5)],
    "everywhere": [attention("encoder", "mid", ALL)],
    "query-first": [{"tensor": "query", "blocks": [FIRST]}],
    "query-all": [{"tensor": "query", "blocks": [ALL]}],
    "all-cond": [attention(ALL, branches="cond")],
    "everywhere-0.7": [attention("encoder", "mid", ALL, weight=0.7)],
    "everywhere-cond": [attention("encoder", "mid", ALL, branches="cond")],
    "query-everywhere": [{"tensor": "query", "blocks": ["encoder", "mid", ALL]}],
    "query-all-cond": [{"tensor": "query", "blocks": [ALL], "branches": "cond"}],
    "query-everywhere-cond": [
        {"tensor": "query", "blocks": ["encoder", "mid", ALL], "branches": "cond"}
    ],
    "query-everywhere-0.7": [{"tensor": "query", "blocks": ["encoder", "mid", ALL], "weight": 0.7}],
    "query-everywhere-to-0.7": [
        {"tensor": "query", "blocks": ["encoder", "mid", ALL], "window": (0, 0.7)}
    ],
    "query-encoder": [{"tensor": "query", "blocks": ["encoder", "mid"]}],
}
SKIPS: dict[str, list[dict[str, Any]]] = {
    "none": [],
    "paper": [skips(f"{FIRST}.1", f"{FIRST}.2")],
    "first": [skips(FIRST)],
    "half-first": [skips(FIRST, window=(0, 0.5))],
    "first-0.5": [skips(FIRST, weight=0.5)],
    "last": [skips(f"{FIRST}.2")],
    "to-first": [skips("0", "1", "2", FIRST)],
    "first-cond": [skips(FIRST, branches="cond")],
    "source": [skips(f"{FIRST}.1", f"{FIRST}.2", statistics="source")],
    "source-0.3": [skips(f"{FIRST}.1", f"{FIRST}.2", statistics="source", weight=0.3)],
    "resnet": [{"tensor": "resnet", "blocks": [f"{FIRST}.1"], "statistics": "own"}],
    "first+half-finer": [skips(FIRST), skips(f"{SECOND}.0", window=(0, 0.3))],
}
GUIDED = {"always": (0.0, 1.0), "from-0.2": (0.2, 1.0), "from-0.4": (0.4, 1.0)}
TIMESTEPS = {
    f"{t}{'-scaled' * scaled}": {"timestep": t, "scale_input": scaled}
    for t in (1, 201, 401, 601, 801)
    for scaled in (False, True)
    if t > 1 or not scaled
}


def setting(attended: str, skipped: str, guided: str = "always", read: str = "1") -> Recipe:
    inject = [*ATTENTION[attended], *SKIPS[skipped]]
    return Recipe.model_validate(
        {
            "name": f"{attended}.skip-{skipped}.guided-{guided}.t-{read}".replace("+", "-and-"),
            "inversion": "one-step" if inject else "none",
            "inject": inject,
            "guidance_window": GUIDED[guided],
            **(TIMESTEPS[read] if inject else {}),
        }
    )


def settings() -> dict[str, Recipe]:
    """A grid over what the prototype found good, one change at a time from there, and what that told."""
    chosen = [
        setting(*both)
        for both in product(
            ("paper", "first", "all", "all-0.7", "first+half-second"),
            ("none", "paper", "first", "half-first"),
        )
    ]
    chosen += [setting(a, "first") for a in ATTENTION]
    chosen += [setting("all", s) for s in SKIPS]
    chosen += [
        setting(*all_three)
        for all_three in product(("none", "all"), ("none", "first"), ("from-0.2", "from-0.4"))
    ]
    chosen += [setting("all", "first", read=read) for read in TIMESTEPS]
    chosen += [setting("query-all", "none", read=read) for read in ("1", "401")]
    # what the first 35 of those suggested: attention beyond the decoder, and queries alone
    chosen += [setting("everywhere", "none"), setting("query-all", "paper")]
    chosen += [setting("everywhere-cond", s) for s in ("none", "first")]
    chosen += [setting("query-everywhere", s) for s in ("none", "first", "to-first")]
    chosen += [setting("query-everywhere", "first", guided=g) for g in ("from-0.2", "from-0.4")]
    chosen += [setting(a, "first", read="401") for a in ("everywhere", "query-everywhere")]
    # and what the first 50 did: queries everywhere
    chosen += [setting("query-everywhere", s) for s in ("paper", "half-first")]
    chosen += [setting("query-everywhere-cond", s) for s in ("none", "first", "to-first")]
    chosen += [
        setting(f"query-{a}", "first") for a in ("everywhere-0.7", "everywhere-to-0.7", "encoder")
    ]
    chosen += [setting("query-everywhere", "none", guided="from-0.2")]
    chosen += [setting("query-everywhere", "first", read=t) for t in ("201", "601", "601-scaled")]
    # and what the first 61 did: the branch of the prompt alone, and a later timestep
    chosen += [
        setting("query-everywhere-cond", *how)
        for how in product(("none", "first"), ("always",), ("201", "401", "601", "401-scaled"))
    ]
    chosen += [setting("query-all-cond", "none", read=read) for read in ("1", "401")]
    named = {recipe.name: recipe for recipe in chosen}
    return {"correct": BUILT_IN["correct"], **named}


# -- measuring -------------------------------------------------------------------------------------


@dataclass
class Bench:
    """Icons, the networks that measure, and what was measured before."""

    model: Model
    icons: Sequence[str]
    log: Path

    def __post_init__(self) -> None:
        self.clip, self.structure = Clip("mini"), Structure("mini", device=torch.device("cpu"))
        self.known: dict[str, dict[str, float]] = {}
        if self.log.exists():
            for line in self.log.read_text().splitlines():
                entry = json.loads(line)
                self.known[entry.pop("of")] = entry

    def values(self, recipe: Recipe, direction: Direction, strength: float, icons: int) -> Values:
        """What `recipe` reaches on the first so many icons."""
        names = self.icons[:icons]
        keys = {name: _key(recipe, direction, strength, name) for name in names}
        missing = [name for name in names if keys[name] not in self.known]
        for i in range(0, len(missing), BATCH):
            part = missing[i : i + BATCH]
            for name, found in zip(part, self._measure(recipe, direction, strength, part), strict=True):
                self.known[keys[name]] = found
                with self.log.open("a") as log:
                    log.write(json.dumps({"of": keys[name], **found}) + "\n")
        rows = [self.known[keys[name]] for name in names]
        return {metric: [row[metric] for row in rows] for metric in rows[0]}

    @torch.inference_mode()
    def _measure(
        self, recipe: Recipe, direction: Direction, strength: float, names: Sequence[str]
    ) -> Iterator[dict[str, float]]:
        source, target = direction
        translator = Translator(
            self.model, [recipe], steps=STEPS, strength=strength, guidance_scale=GUIDANCE
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
        styles = self.clip.images([picture])[0] @ self.clip.texts([*PROMPTS.values()]).T
        nearest = [*PROMPTS][int(styles.argmax())]
        values = {
            "style": float(styles[[*PROMPTS].index(target)]),
            "accuracy": float(nearest == target),
            "ssim": ssim(of_picture, of_truth),
            "psnr": psnr(of_picture, of_truth),
            "structure": structure_distance(*self.structure.similarities([picture, truth])),
        }
        return {metric: round(value, 5) for metric, value in values.items()}


def _key(recipe: Recipe, direction: Direction, strength: float, name: str) -> str:
    return f"{recipe.name} {'-to-'.join(direction)} {strength:g} {name}"


# -- scoring ---------------------------------------------------------------------------------------


def score(bench: Bench, recipe: Recipe, rung: Rung) -> float:
    gains = [
        fmean(gain(bench, recipe, direction, strength, rung.icons) for strength in rung.strengths)
        for direction in DIRECTIONS[: rung.directions]
    ]
    return (fmean(gains) + min(gains)) / 2


def gain(bench: Bench, recipe: Recipe, direction: Direction, strength: float, icons: int) -> float:
    own = means(bench.values(recipe, direction, strength, icons))
    line = [means(bench.values(BUILT_IN["sdedit"], direction, s, icons)) for s in STRENGTHS]
    more = own["ssim"] - best(line, "ssim", own["style"], max)
    nearer = math.log(best(line, "structure", own["style"], min) / own["structure"])
    lost = (
        means(bench.values(BUILT_IN["sdedit"], direction, strength, icons))["accuracy"] - own["accuracy"]
    )
    return (more / SSIM_UNIT + nearer / STRUCTURE_UNIT) / 2 - max(lost, 0.0)


def means(values: Values) -> dict[str, float]:
    return {metric: fmean(of_icons) for metric, of_icons in values.items()}


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
    """A line for each setting: its score, and what it reaches at strength 0.8."""
    shown = DIRECTIONS[: rung.directions]
    heads = [f"{' to '.join(d)}: SSIM / PSNR / structure / text / accuracy" for d in shown]
    lines = [
        f"{len(scores)} settings, {rung.icons} icons, strengths {', '.join(map(str, rung.strengths))}; "
        f"the first {rung.keep} are kept.",
        "",
        "| | setting | score | " + " | ".join(heads) + " |",
        "|---|---|---|" + "---|" * len(heads),
    ]
    for place, name in enumerate(["sdedit", *scores]):
        recipe = recipes.get(name, BUILT_IN["sdedit"])
        cells = [_cell(means(bench.values(recipe, d, 0.8, rung.icons))) for d in shown]
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
    recipes = settings()
    left, report = [*recipes], ["# The search\n"]
    for number, rung in enumerate(RUNGS[: arguments.rungs], start=1):
        scores: dict[str, float] = {}
        for name in left:
            scores[name] = score(bench, recipes[name], rung)
            say(f"rung {number}: {name} {scores[name]:+.3f}")
        scores = dict(sorted(scores.items(), key=lambda of: -of[1]))
        report.append(f"## Rung {number}\n\n{table(bench, rung, scores, recipes)}")
        (HERE / "search.md").write_text("\n".join(report))
        left = [*scores][: rung.keep]
    say(f"best: {left[0]}")
    return 0


if __name__ == "__main__":
    sys.exit(main())
