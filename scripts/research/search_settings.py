"""The settings that search_wide.py tries: some by name, the others drawn at random from a space."""

import random
from typing import Any

from sdcorrect.recipes import BUILT_IN, Recipe

Window = tuple[float, float]

#: Recipes that the search starts beside.
NAMED = ("correct", "correct-adain", "correct-wide")

#: Where attention is put back, level by level, each in a window of its own. A setting takes from each
#: list one, the first as often as all others together.
LEVELS = {"encoder": ["encoder", "mid"], "first": ["first-attention"], "second": ["second-attention"]}
WINDOWS: list[Window | None] = [(0.0, 1.0), (0.0, 0.6), (0.0, 0.3), None]
TENSORS = ["query", "self-attention"]
WEIGHTS = [1.0, 0.7, 0.5]
BRANCHES = ["both", "cond"]
GUIDED: list[Window] = [(0.0, 1.0), (0.2, 1.0), (0.4, 1.0)]
TIMESTEPS = [(1, False), (201, False), (401, False), (401, True)]
SKIPS: dict[str, dict[str, Any] | None] = {
    "none": None,
    "paper": {"blocks": ["first-attention.1", "first-attention.2"]},
    "first": {"blocks": ["first-attention"]},
    "first-half": {"blocks": ["first-attention"], "window": (0.0, 0.5)},
    "first-weak": {"blocks": ["first-attention"], "weight": 0.5},
    "last": {"blocks": ["first-attention.2"]},
}


def settings(number: int, seed: int = 0) -> dict[str, Recipe]:
    """`number` different settings by name, those of NAMED among them."""
    drawn = {name: BUILT_IN[name] for name in NAMED}
    chance = random.Random(seed)
    while len(drawn) < number:
        recipe = _draw(chance)
        if recipe.inject:
            drawn.setdefault(recipe.name, recipe)
    return drawn


def _draw(chance: random.Random) -> Recipe:
    def one(of: list[Any]) -> Any:
        return of[0] if chance.random() < 0.5 else chance.choice(of[1:])

    tensor, weight, branches = one(TENSORS), one(WEIGHTS), one(BRANCHES)
    windows = {level: one(WINDOWS) for level in LEVELS}
    skip, guided, (timestep, scaled) = one([*SKIPS]), one(GUIDED), one(TIMESTEPS)
    inject: list[dict[str, Any]] = [
        {"tensor": tensor, "blocks": LEVELS[level], "window": window}
        | {"weight": weight, "branches": branches}
        for level, window in windows.items()
        if window
    ]
    if skips := SKIPS[skip]:
        inject.append({"tensor": "skip", "statistics": "own", "branches": branches, **skips})
    ends = "-".join(f"{window[1]:g}" if window else "no" for window in windows.values())
    name = f"{tensor}-{ends}.{weight:g}.{branches}.skip-{skip}.from-{guided[0]:g}.t-{timestep}"
    return Recipe.model_validate(
        {
            "name": name + "-scaled" * scaled,
            "inversion": "one-step",
            "timestep": timestep,
            "scale_input": scaled,
            "guidance_window": guided,
            "inject": inject,
        }
    )
