"""Sweeps: each recipe of a job at several strengths and seeds, each a variant with a folder of its own.

Imports no torch.
"""

from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Annotated, Any, TypeVar

from pydantic import AfterValidator, Discriminator, Tag

from sdcorrect.recipes import Recipe

T = TypeVar("T")
ONE, SEVERAL = "one", "several"  #: pydantic's names for the two ways to write a setting that sweeps


def _check_list(values: tuple[T, ...]) -> tuple[T, ...]:
    if not values:
        raise ValueError("is an empty list; give one number, or the numbers to sweep over")
    if twice := [value for value, times in Counter(values).items() if times > 1]:
        raise ValueError(f"{twice[0]} stands there twice; give each number once")
    return values


def _kind(value: Any) -> str:
    return SEVERAL if isinstance(value, list | tuple | range) else ONE


#: One value, or a list of them to sweep over.
Swept = Annotated[
    Annotated[T, Tag(ONE)] | Annotated[tuple[T, ...], AfterValidator(_check_list), Tag(SEVERAL)],
    Discriminator(_kind),
]


@dataclass(frozen=True)
class Variant:
    """A recipe at one strength and seed; its pictures have a folder of their own."""

    recipe: Recipe
    strength: float | None = None  #: None if the job has one strength for all
    seed: int | None = None  #: None if the job has one seed for all

    @property
    def name(self) -> str:
        """Names the folder: `correct`, and in a sweep `correct-strength-0.5-seed-1`."""
        strength = "" if self.strength is None else f"-strength-{float(self.strength)!r}"
        seed = "" if self.seed is None else f"-seed-{self.seed}"
        return f"{self.recipe.name}{strength.removesuffix('.0')}{seed}"

    @property
    def is_swept(self) -> bool:
        return self.strength is not None or self.seed is not None


def several(value: T | tuple[T, ...]) -> tuple[T, ...]:
    """The values that a setting sweeps over, or the one that it has."""
    return value if isinstance(value, tuple) else (value,)


def variants_of(
    recipes: Sequence[Recipe], strength: float | tuple[float, ...], seed: int | tuple[int, ...]
) -> tuple[Variant, ...]:
    """Each recipe at each strength and seed of a sweep; only once if these do not change its pictures.

    They are ordered by seed, so that what was drawn from one can be dropped before the next.
    """
    strengths = strength if isinstance(strength, tuple) else (None,)
    seeds = seed if isinstance(seed, tuple) else (None,)
    return tuple(
        Variant(
            recipe,
            of_strength if recipe.heeds_strength else None,
            of_seed if recipe.heeds_seed else None,
        )
        for of_seed in seeds
        for recipe in recipes
        for of_strength in strengths
        if (recipe.heeds_strength or of_strength == strengths[0])
        and (recipe.heeds_seed or of_seed == seeds[0])
    )
