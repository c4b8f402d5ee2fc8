"""Which settings of a job go together."""

from collections import Counter
from collections.abc import Iterator
from math import ceil
from typing import TYPE_CHECKING

from sdcorrect.core.plan import check_word_for_word, effective_steps
from sdcorrect.errors import UsageError
from sdcorrect.recipes import Recipe
from sdcorrect.recipes.fields import LONGEST_NAME
from sdcorrect.recipes.rules import about_prompts
from sdcorrect.settings import WORDS

if TYPE_CHECKING:
    from sdcorrect.config.job import Job

#: The formats that carry transparency.
WITH_ALPHA = ("png", "webp")


def complaints(job: "Job") -> Iterator[str]:
    """What is wrong with `job`, if anything, and how to mend it."""
    if effective_steps(job.steps, least := min(job.strengths)) == 0:
        yield (
            f"strength {least:g} of {job.steps} steps is less than one step; "
            f"raise strength to {ceil(1000 / job.steps) / 1000} or more, or raise steps"
        )
    yield from _about_names(job)
    for recipe in job.recipes:
        yield from _about_prompts(job, recipe)
    yield from _about_mask(job)
    if job.background == "transparent" and job.output.format not in WITH_ALPHA:
        yield (
            f"background: transparent takes a format that carries it, and {job.output.format} does "
            f"not; set output.format: {' or '.join(WITH_ALPHA)}"
        )
    if job.equalizer and not any(recipe.words for recipe in job.recipes):
        yield (
            "equalizer: no recipe of this job uses it, because none edits cross-attention; "
            "use p2p-reweight"
        )


def _about_names(job: "Job") -> Iterator[str]:
    names = [recipe.name for recipe in job.recipes]
    for name in sorted({name for name in names if names.count(name) > 1}):
        yield f"variants: {name!r} is listed twice; give each variant its own name"
    for name, times in Counter(variant.name for variant in job.expanded).items():
        if times > 1:
            yield (
                f"variants: the sweep names a variant {name}, and there is a recipe of that name; "
                "rename the recipe"
            )
        if len(name) > LONGEST_NAME:
            yield (
                f"variants: the sweep names a variant {name}, longer than {LONGEST_NAME} letters; "
                "give the recipe a shorter name"
            )


def _about_prompts(job: "Job", recipe: Recipe) -> Iterator[str]:
    # a list may give each picture its own
    has_source = bool(job.source_prompt) or job.input.is_list
    yield from about_prompts(recipe, has_source=has_source, syntax=job.prompt_syntax)
    if recipe.words == "replace" and not job.input.is_list and not job.has_placeholders:
        try:
            check_word_for_word(job.source_prompt or "", job.prompt)
        except UsageError as error:
            yield f"recipe {recipe.name}: {error}"
    if recipe.words == "reweight" and not job.equalizer:
        yield f"recipe {recipe.name} needs equalizer, such as {{snowy: 2}}"


def _about_mask(job: "Job") -> Iterator[str]:
    for key in ("mask_words", "mask_threshold", "mask_feather", "invert_mask"):
        of_words = key in ("mask_words", "mask_threshold")
        if getattr(job, key) == type(job).model_fields[key].default:
            continue
        if job.mask is None or (of_words and job.mask != WORDS):
            yield f"{key} needs mask{f': {WORDS}' if of_words else ''}"
    if job.mask == WORDS and job.prompt_syntax != "plain":
        yield "mask: words works only with plain prompts; set prompt_syntax: plain"
    if job.mask == WORDS and not job.mask_words and not job.input.is_list:
        yield 'mask: words needs mask_words, such as mask_words: "cat"'
