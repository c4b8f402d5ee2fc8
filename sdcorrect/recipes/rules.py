"""Which keys of a recipe go together."""

from collections.abc import Iterator
from typing import TYPE_CHECKING

from sdcorrect.core.plan import SchedulerName

if TYPE_CHECKING:
    from sdcorrect.recipes.recipe import Recipe

#: Keys that apply only to some kinds of inversion, by these kinds.
_OF_INVERSION = {
    ("one-step",): ("timestep", "scale_input"),
    ("full",): ("inversion_steps", "inversion_iterations", "inversion_average"),
    ("ddpm",): ("noise_shift", "last_map", "last_map_norm"),
    ("full", "ddpm"): ("inversion_prompt", "inversion_guidance"),
}
_OF_NOISED = ("source_guidance", "eta", "noise", "step_to")


def complaints(recipe: "Recipe") -> Iterator[str]:
    """What is wrong with `recipe`, if anything, and how to mend it."""
    yield from _about_inversion(recipe)
    yield from _about_source(recipe)
    if recipe.solver_steps and recipe.scheduler in (None, "ddim"):
        yield "solver_steps needs another solver than DDIM: set scheduler: dpm++, unipc or lcm"
    if recipe.scheduler:
        yield from about_solver(recipe, recipe.scheduler)


def _is_default(recipe: "Recipe", key: str) -> bool:
    # compares values, because a recipe that was written out in full sets every key
    default = type(recipe).model_fields[key].default
    return bool(getattr(recipe, key) == default)


def _about_inversion(recipe: "Recipe") -> Iterator[str]:
    if recipe.inject and recipe.inversion == "none" and recipe.source != "noised":
        yield (
            "inject needs a source to take tensors from: set inversion: one-step or full, or "
            "source: noised"
        )
    for kinds, keys in _OF_INVERSION.items():
        for key in keys:
            if recipe.inversion not in kinds and not _is_default(recipe, key):
                yield f"{key} needs inversion: {' or '.join(kinds)}"
    if recipe.start == "inverted" and recipe.inversion not in ("full", "ddpm"):
        yield "start: inverted needs inversion: full or ddpm"
    if recipe.inversion == "ddpm" and recipe.start != "inverted":
        yield "inversion: ddpm starts from its own latents: set start: inverted"
    if recipe.inversion_guidance != 1 and recipe.inversion_prompt != "source":
        yield "inversion_guidance needs a prompt to guide towards: set inversion_prompt: source"
    if recipe.inversion_average is not None:
        first, last = recipe.inversion_average
        if not 0 <= first < last <= recipe.inversion_iterations:
            yield (
                "inversion_average must be two numbers of evaluations, "
                f"0 <= first < end <= inversion_iterations ({recipe.inversion_iterations})"
            )


def _about_source(recipe: "Recipe") -> Iterator[str]:
    resampled = recipe.source in ("sampled", "corrected")
    if resampled and recipe.start != "inverted":
        yield f"source: {recipe.source} needs start: inverted, from which source and target both start"
    if resampled and recipe.inversion == "ddpm":
        yield "inversion: ddpm already has the source's latents at each step: remove source"
    if recipe.source == "noised" and (recipe.inversion != "none" or recipe.start != "noise"):
        yield "source: noised replaces an inversion: remove inversion and start"
    for key in _OF_NOISED:
        if recipe.source != "noised" and not _is_default(recipe, key):
            yield f"{key} needs source: noised"
    if recipe.noise == "posterior" and not recipe.eta:
        yield "noise: posterior needs eta above 0: set eta"
    if recipe.step_to == "clean" and recipe.eta:
        yield "step_to: clean draws all noise anew: remove eta"
    if any(i.tensor == "cross-attention" for i in recipe.inject) != (recipe.words is not None):
        yield "words (replace, refine, reweight) and an injection of cross-attention need each other"
    if recipe.words and recipe.source_is_told() != "source":
        yield (
            "cross-attention must come from a branch with the source prompt: set source: sampled, "
            "or source_branch_prompt: source"
        )
    if recipe.source_branch_prompt and not recipe.runs_along:
        yield "source_branch_prompt needs a branch: set inversion: full or ddpm, or source: noised"


def about_solver(recipe: "Recipe", scheduler: SchedulerName) -> Iterator[str]:
    """What is wrong with `recipe` under a solver, its own or that of the job."""
    if recipe.inversion == "full" and scheduler != "ddim":
        yield f"a full inversion works only with scheduler: ddim; {scheduler} cannot follow it"
    if recipe.inversion == "ddpm" and scheduler not in ("ddim", "sde-dpm++"):
        yield (f"noise maps work only with scheduler: ddim or sde-dpm++; {scheduler} cannot follow them")
    if recipe.inversion != "ddpm" and scheduler == "sde-dpm++":
        yield (
            "sde-dpm++ needs noise maps, which this recipe does not have; "
            "choose dpm++, or a recipe with inversion: ddpm, such as leditspp"
        )
    if recipe.eta and scheduler != "ddim":
        yield f"eta works only with scheduler: ddim; {scheduler} has none"


def about_prompts(recipe: "Recipe", *, has_source: bool, syntax: str) -> Iterator[str]:
    """What is wrong with `recipe` for prompts of this syntax, with a source prompt or without one."""
    if recipe.needs_source_prompt and not has_source:
        yield (
            f"recipe {recipe.name} needs source_prompt, which says what the pictures show, "
            f'such as source_prompt: "a photo of a cat"'
        )
    if recipe.words and syntax != "plain":
        yield f"recipe {recipe.name} aligns the words of two plain prompts; set prompt_syntax: plain"
