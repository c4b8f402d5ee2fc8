"""Warn of settings that a recipe does not follow, and of strengths that make the same pictures."""

import logging
from collections.abc import Hashable, Mapping, Sequence
from typing import Any

from sdcorrect.models import Model
from sdcorrect.recipes import Recipe
from sdcorrect.translate.method import Method, own_settings

logger = logging.getLogger(__name__)


def warn_of_unheeded(recipes: Sequence[Recipe], job: Mapping[str, Any], seed: object) -> None:
    """Warn of settings of the job that a recipe overrides, or that sweep without changing a picture."""
    for recipe in recipes:
        own = own_settings(recipe, job)
        differing = [
            f"{key} {value!r} (the job's: {job[key]!r})"
            for key, value in own.items()
            if job[key] != value
        ]
        if recipe.negative_prompt is not None:
            differing.append(f"negative_prompt {recipe.negative_prompt!r}")
        if differing:
            logger.warning("%s keeps its own %s", recipe.name, ", ".join(differing))
        swept = {"strength": (job["strength"], recipe.heeds_strength), "seed": (seed, recipe.heeds_seed)}
        for key, (values, heeds) in swept.items():
            if isinstance(values, tuple) and not heeds and key not in own:
                logger.warning("%s: no %s changes its pictures, so they are made once", recipe.name, key)


def warn_of_same_steps(methods: Mapping[str, Method], model: Model, seed: int) -> None:
    """Warn of strengths so close to each other that they take the same steps, with the same `seed`."""
    seen: dict[Hashable, str] = {}
    for name, method in methods.items():
        if method.seed != seed:
            continue
        _, timesteps = method.solver(model.scheduler)
        key = method.recipe.name, tuple(timesteps.tolist())
        if name != (first := seen.setdefault(key, name)):
            logger.warning("%s takes the same steps as %s: their pictures are the same", name, first)
