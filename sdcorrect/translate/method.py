"""A recipe resolved for one model, and whether it can run there."""

from collections.abc import Hashable, Mapping
from dataclasses import dataclass, replace
from typing import Any

from diffusers import DDIMScheduler, SchedulerMixin
from torch import Tensor

from sdcorrect.core.plan import Plan, SchedulerName, check_windows, effective_steps
from sdcorrect.core.sampler import check_passes
from sdcorrect.core.schedule import inverse_of, solver_from, spaced
from sdcorrect.errors import UsageError, printable
from sdcorrect.models import Model
from sdcorrect.recipes import Recipe
from sdcorrect.recipes.rules import about_solver
from sdcorrect.sweep import Variant


@dataclass(frozen=True)
class Method:
    """A recipe resolved for one model; the job's settings fill in what the recipe does not set."""

    recipe: Recipe
    plan: Plan
    scheduler: SchedulerName
    steps: int
    strength: float
    guidance_scale: float
    steps_offset: int
    seed: int  #: of the job, not of a picture

    @property
    def effective_steps(self) -> int:
        taken = effective_steps(self.steps, self.strength)
        return (self.recipe.solver_steps or taken) if taken else 0

    def spaced(self, ddim: DDIMScheduler) -> DDIMScheduler:
        """The model's scheduler with the method's timestep spacing."""
        return spaced(ddim, self.steps_offset, trailing=self.recipe.model == "turbo")

    def solver(self, ddim: DDIMScheduler) -> tuple[SchedulerMixin, Tensor]:
        """The solver, ready to step, and the timesteps it runs at, noisiest first."""
        return solver_from(
            self.scheduler, self.spaced(ddim), self.steps, self.strength, self.recipe.solver_steps
        )

    @property
    def draws(self) -> bool:
        """Whether noise is drawn during denoising."""
        return self.scheduler == "lcm" or self.plan.beside == "noised"

    @property
    def inversion(self) -> Hashable:
        """A key that is equal for methods that can share one inversion."""
        plan = self.plan
        if plan.inversion == "none":
            return "none", self.recipe.posterior, self.source_seed
        kind = plan.inversion, plan.inversion_steps, plan.inversion_guidance
        iterated = plan.inversion_iterations, plan.inversion_average
        read = plan.timestep, plan.scale_input, self.recipe.inversion_prompt, self.recipe.posterior
        along: tuple[Hashable, ...] = (self.steps_offset, self.recipe.model)
        if plan.inversion == "ddpm":
            along += (plan.maps, self.scheduler, self.steps, self.strength)
        return *kind, *iterated, *read, *along, self.source_seed

    @property
    def source_seed(self) -> int | None:
        """The job's seed; None where every seed gives the same source."""
        drawn = self.recipe.posterior == "sample" or self.plan.inversion == "ddpm"
        return self.seed if drawn else None

    def negative_prompt_for(self, of_the_picture: str) -> str:
        own = self.recipe.negative_prompt
        return of_the_picture if own is None else own


def own_settings(recipe: Recipe, job: Mapping[str, Any]) -> dict[str, Any]:
    """The settings among the keys of `job` that `recipe` has itself."""
    return {key: getattr(recipe, key) for key in job if getattr(recipe, key) is not None}


def resolve(variant: Variant, model: Model, job: Mapping[str, Any], seed: int) -> Method:
    """`variant` on `model`, its recipe's own settings over those of the job; `seed` is the job's first.

    Raises:
        UsageError: the U-Net lacks a block, a window covers no step, or the inversion misses a
            timestep of sampling.
    """
    recipe = variant.recipe
    settings = {**job, **own_settings(recipe, job)}
    if recipe.starts_from_full_noise:
        settings["strength"] = 1.0
    elif variant.strength is not None:
        settings["strength"] = variant.strength
    for complaint in about_solver(recipe, settings["scheduler"]):
        raise UsageError(f"recipe {recipe.name}: {complaint}")
    if recipe.model == "turbo" and model.scheduler.config.timestep_spacing != "trailing":
        raise UsageError(
            f"recipe {recipe.name} is for Turbo models, which space their timesteps trailing; "
            f"{printable(model.name)} spaces them leading; choose edit-friendly"
        )
    plan = replace(recipe.plan(model.layout), skips_once=model.convolves_skips_once)
    if plan.inversion == "full" and plan.inversion_steps is None:
        plan = replace(plan, inversion_steps=settings["steps"])
    method = Method(recipe, plan, seed=seed if variant.seed is None else variant.seed, **settings)
    _check(method, model)
    return method


def in_steps(method: Method, steps: int, model: Model) -> Method:
    """`method` with this many steps, all of which are run.

    Raises:
        UsageError: the steps are too few for it.
    """
    plan = method.plan
    if plan.inversion_steps is not None:
        plan = replace(plan, inversion_steps=steps)
    brief = replace(method, plan=plan, steps=steps, strength=1.0)
    _check(brief, model)
    return brief


def _check(method: Method, model: Model) -> None:
    """Raises UsageError if no step is run, or a window or the inversion does not match the steps."""
    recipe, plan = method.recipe, method.plan
    if method.effective_steps == 0:
        raise UsageError(
            f"recipe {recipe.name}: strength {method.strength:g} of {method.steps} steps is less than "
            "one step; raise strength or steps"
        )
    try:
        _, timesteps = method.solver(model.scheduler)
        check_windows(plan, timesteps.tolist())
        if plan.inversion_steps is not None:
            ddim = method.spaced(model.scheduler)
            check_passes(inverse_of(ddim, plan.inversion_steps).timesteps, timesteps)
    except UsageError as error:
        raise UsageError(f"recipe {recipe.name}: {error}") from None
