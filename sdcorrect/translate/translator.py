"""The translator: recipes on one model."""

from collections.abc import Iterator, Mapping, Sequence
from copy import copy
from pathlib import Path

import torch

from sdcorrect.config import Job
from sdcorrect.core.alignment import Alignment
from sdcorrect.core.evaluations import evaluations_to_denoise, evaluations_to_invert
from sdcorrect.core.plan import SchedulerName
from sdcorrect.errors import UsageError
from sdcorrect.masking import Masking, tokens_of_words
from sdcorrect.matching import check_matching
from sdcorrect.models import Model
from sdcorrect.models.clock import Clock
from sdcorrect.recipes import Recipe
from sdcorrect.recipes.rules import about_prompts
from sdcorrect.settings import WORDS
from sdcorrect.sweep import several, variants_of
from sdcorrect.translate.batch import Batch
from sdcorrect.translate.method import Method, in_steps, resolve
from sdcorrect.translate.request import Request, Translation
from sdcorrect.translate.unheeded import warn_of_same_steps, warn_of_unheeded

#: Steps to try when measuring the memory that recipes need.
FEW_STEPS = (4, 8, 16, 32)


class Translator:
    """Translates pictures by recipes on one model, and counts the seconds of each phase.

    A recipe's own settings override the job's; a warning says where they differ. With several strengths
    or seeds, `methods` holds each variant of the sweep, by the name that `sdcorrect.sweep` gives it.
    With `match_colors`, each result gets the colours of its source. `spill` is a folder for the latents
    of full inversions, which otherwise stay in memory.

    Raises:
        UsageError: a recipe names blocks that the model's U-Net lacks, or windows that cover no step.
    """

    def __init__(
        self,
        model: Model,
        recipes: Sequence[Recipe],
        *,
        steps: int,
        strength: float | tuple[float, ...],
        guidance_scale: float,
        seed: int | tuple[int, ...] = 0,
        scheduler: SchedulerName = "ddim",
        steps_offset: int = 1,
        equalizer: Mapping[str, float] | None = None,
        masking: Masking = Masking(),  # noqa: B008 - frozen
        match_colors: bool = False,
        spill: Path | None = None,
    ) -> None:
        if match_colors:
            check_matching()
        self.model = model
        self.match_colors = match_colors
        self.spill = spill
        self.equalizer = equalizer or {}
        self.masking = masking
        self.clock = Clock(model.device)
        self.seeds = several(seed)
        job = {
            "steps": steps,
            "strength": strength,
            "guidance_scale": guidance_scale,
            "scheduler": scheduler,
            "steps_offset": steps_offset,
        }
        warn_of_unheeded(recipes, job, seed)
        self.methods = {
            variant.name: resolve(variant, model, job, self.seeds[0])
            for variant in variants_of(recipes, strength, seed)
        }
        if isinstance(strength, tuple):
            warn_of_same_steps(self.methods, model, self.seeds[0])

    @classmethod
    def of_job(cls, job: Job, model: Model, recipes: Sequence[Recipe]) -> "Translator":
        """A translator with the settings of `job`, for some of its recipes."""
        return cls(
            model,
            recipes,
            steps=job.steps,
            strength=job.strength,
            guidance_scale=job.guidance_scale,
            seed=job.seed,
            scheduler=job.scheduler,
            steps_offset=job.steps_offset,
            equalizer=job.equalizer,
            masking=Masking(job.mask_threshold, job.mask_feather, job.invert_mask, job.mask == WORDS),
            match_colors=job.match_colors is not None,
            spill=job.spill,
        )

    def brief(self) -> "Translator":
        """A copy with the fewest steps that the recipes' windows allow, to measure memory with.

        It needs as much memory, apart from the latents of full inversions, which are small beside what
        a U-Net computes with. It runs each recipe of a sweep only once.
        """
        brief = copy(self)
        brief.clock = Clock(self.model.device)
        for steps in FEW_STEPS:
            try:
                brief.methods = {
                    method.recipe.name: in_steps(method, steps, self.model)
                    for method in self.methods.values()
                }
                return brief
            except UsageError:
                continue
        return brief

    def check_prompts(
        self, prompt: str, source_prompt: str | None, mask_words: str | None = None
    ) -> None:
        """Check that the recipes can work with these prompts, and that the mask's words are in them.

        Raises:
            UsageError: one of `refusals`.
        """
        for complaint in self.refusals(prompt, source_prompt, mask_words).values():
            raise UsageError(complaint)

    def refusals(
        self, prompt: str, source_prompt: str | None, mask_words: str | None = None
    ) -> dict[str, str]:
        """Why recipes cannot work with these prompts, by recipe name.

        A source prompt is missing, the two prompts cannot be aligned, or a word of the mask is not in
        the prompt.
        """
        if mask_words is not None:
            try:
                tokens_of_words(self.model, mask_words, source_prompt or prompt)
            except UsageError as error:
                return dict.fromkeys(self.methods, str(error))
        refused = {}
        for name, method in self.methods.items():
            try:
                has_source, syntax = source_prompt is not None, self.model.prompt_syntax
                for complaint in about_prompts(method.recipe, has_source=has_source, syntax=syntax):
                    raise UsageError(complaint)
                self.alignment(method, [source_prompt], [prompt])
            except UsageError as error:
                refused[name] = str(error)
        return refused

    def __call__(
        self, requests: Sequence[Request], *, variants: Sequence[str]
    ) -> dict[str, Translation]:
        """The results of `translate` as a dict by recipe name."""
        return dict(self.translate(requests, variants=variants))

    @torch.inference_mode()
    def translate(
        self, requests: Sequence[Request], *, variants: Sequence[str]
    ) -> Iterator[tuple[str, Translation]]:
        """Translate a batch of pictures of one size; yields (recipe name, results) for each recipe."""
        batch = Batch(self, requests)
        for name in variants:
            yield name, batch.by(self.methods[name])

    def evaluations(self, variants: Sequence[str]) -> int:
        """U-Net evaluations per picture for all `variants`; a shared inversion counts once."""
        methods = [self.methods[name] for name in variants]
        inversions = {m.inversion: evaluations_to_invert(m.plan, m.effective_steps) for m in methods}
        shared = sum(inversions.values()) + (self.masking.by_words and bool(methods))
        return shared + sum(
            evaluations_to_denoise(m.plan, m.effective_steps, self.guidance_scale(m)) for m in methods
        )

    def guidance_scale(self, method: Method) -> float:
        """The scale of classifier-free guidance; 1 (none) for models with distilled guidance."""
        return 1.0 if self.model.follows_guidance else method.guidance_scale

    def count_chunks(self, prompt: str, negative_prompt: str, source_prompt: str | None) -> int:
        """How many chunks the text encoder needs for a picture's prompts; equal within a batch."""
        negative = [method.negative_prompt_for(negative_prompt) for method in self.methods.values()]
        return self.model.count_chunks(prompt, *negative, source_prompt or "")

    def alignment(
        self, method: Method, source_prompts: Sequence[str | None], prompts: Sequence[str]
    ) -> Alignment | None:
        """How the words of each prompt align with its source prompt; None if `method` does not need it.

        Raises:
            UsageError: they cannot be aligned.
        """
        words = method.recipe.words
        if words is None:
            return None
        model = self.model
        alignment = Alignment.of(
            [model.tokenize(prompt or "") for prompt in source_prompts],
            [model.tokenize(prompt) for prompt in prompts],
            words,
            self.equalizer,
            model.text_length,
        )
        return alignment.to(model.device, model.dtype)

    @property
    def seconds(self) -> dict[str, float]:
        """The seconds that each phase has taken so far."""
        return self.clock.seconds
