"""A batch of pictures through one or several recipes: encode and invert once, then denoise for each."""

import logging
from collections.abc import Hashable, Iterator, Mapping, Sequence
from dataclasses import dataclass, replace
from functools import partial
from pathlib import Path
from typing import Any

import torch
from diffusers import DDIMScheduler, SchedulerMixin
from PIL import Image
from torch import Tensor

from sdcorrect.config import Job
from sdcorrect.core.alignment import Alignment
from sdcorrect.core.plan import Plan, SchedulerName, check_windows, effective_steps
from sdcorrect.core.sampler import Source, check_passes, denoise, invert, start
from sdcorrect.core.schedule import inverse_of, solver_from
from sdcorrect.core.syntax import check_networks
from sdcorrect.core.text import Text
from sdcorrect.core.trajectory import SpilledTrajectory
from sdcorrect.errors import UsageError
from sdcorrect.models import Model
from sdcorrect.models.clock import Clock, Span
from sdcorrect.recipes import Recipe

logger = logging.getLogger(__name__)


@dataclass(frozen=True)
class Translation:
    """What one recipe made of a batch."""

    pictures: list[Image.Image | None]  #: None where the result was not finite
    evaluations: int  #: U-Net evaluations a picture, the inversion included
    flagged: list[bool]  #: what the safety checker holds to be unsafe
    seconds: float  #: of the batch: the recipe's own, an inversion that it shares included


@dataclass(frozen=True)
class Method:
    """A recipe on one model, with the job's settings where it has none of its own."""

    recipe: Recipe
    plan: Plan
    scheduler: SchedulerName
    steps: int
    strength: float
    guidance_scale: float

    @property
    def effective_steps(self) -> int:
        taken = effective_steps(self.steps, self.strength)
        return (self.recipe.solver_steps or taken) if taken else 0

    def solver(self, ddim: DDIMScheduler) -> tuple[SchedulerMixin, Tensor]:
        """The solver, ready to step, and the timesteps that it computes."""
        return solver_from(self.scheduler, ddim, self.steps, self.strength, self.recipe.solver_steps)

    @property
    def inversion(self) -> Hashable:
        """What two methods have in common that can share one inversion."""
        plan = self.plan
        kind = plan.inversion, plan.inversion_steps, plan.inversion_guidance
        read = plan.timestep, plan.scale_input, self.recipe.inversion_prompt, self.recipe.posterior
        return *kind, *read

    def negative_prompt_for(self, of_the_picture: str) -> str:
        own = self.recipe.negative_prompt
        return of_the_picture if own is None else own


class Translator:
    """Recipes resolved for one model, and the seconds that each phase has taken.

    A setting that a recipe holds itself is the recipe's, not the job's; where they differ, a warning
    says so. `spill` is a folder for the latents of full inversions, which otherwise stay in memory.

    Raises:
        UsageError: a recipe names blocks that the model's U-Net lacks, or windows that cover no step.
    """

    def __init__(
        self,
        model: Model,
        recipes: Sequence[Recipe],
        *,
        steps: int,
        strength: float,
        guidance_scale: float,
        scheduler: SchedulerName = "ddim",
        equalizer: Mapping[str, float] | None = None,
        spill: Path | None = None,
    ) -> None:
        self.model = model
        self.spill = spill
        self.equalizer = equalizer or {}
        self.clock = Clock(model.device)
        job = {"steps": steps, "guidance_scale": guidance_scale, "scheduler": scheduler}
        self.methods = {recipe.name: _resolve(recipe, model, strength, job) for recipe in recipes}

    @classmethod
    def of_job(cls, job: Job, model: Model, recipes: Sequence[Recipe]) -> "Translator":
        """That of `job`'s settings, for some of its recipes."""
        return cls(
            model,
            recipes,
            steps=job.steps,
            strength=job.strength,
            guidance_scale=job.guidance_scale,
            scheduler=job.scheduler,
            equalizer=job.equalizer,
            spill=job.spill,
        )

    def check_prompts(self, prompt: str, source_prompt: str | None) -> None:
        """Refuse a pair of prompts that a recipe cannot work with.

        Raises:
            UsageError: a recipe needs a source prompt and there is none, the two cannot be aligned, or
                one names a LoRA.
        """
        for text in (prompt, source_prompt or ""):
            try:
                check_networks(text)
            except ValueError as error:
                raise UsageError(str(error)) from None
        for method in self.methods.values():
            if method.recipe.words and self.model.prompt_syntax != "plain":
                raise UsageError(
                    f"recipe {method.recipe.name} aligns the words of two plain prompts; "
                    "set prompt_syntax: plain"
                )
            if method.recipe.needs_source_prompt and source_prompt is None:
                raise UsageError(f"recipe {method.recipe.name} needs a source prompt")
            self._alignment(method, [source_prompt], [prompt])

    def __call__(
        self, images: Sequence[Image.Image], *, variants: Sequence[str], **asked: Any
    ) -> dict[str, Translation]:
        """All of `translate`, by recipe."""
        return dict(self.translate(images, variants=variants, **asked))

    @torch.inference_mode()
    def translate(
        self,
        images: Sequence[Image.Image],
        *,
        variants: Sequence[str],
        seeds: Sequence[int],
        prompts: Sequence[str],
        negative_prompts: Sequence[str],
        source_prompts: Sequence[str | None] = (),
        hints: Sequence[Sequence[Image.Image]] = (),
    ) -> Iterator[tuple[str, Translation]]:
        """Translate RGB images of one size, each with its own seed and prompts, by one recipe at a time.

        `source_prompts` may be left out where no recipe needs them; `hints`, of each picture one for
        each ControlNet, where the model has none.
        """
        model, size = self.model, images[0].size
        span = self.clock.span
        with span("text"):
            told = [prompt for prompt in source_prompts if prompt is not None]
            read = partial(model.text, size=size, chunks=self._chunks(prompts, negative_prompts, told))
            null = read([""] * len(images))
            source_text = read(told) if len(told) == len(images) else None
        with span("encode"):
            posterior_noise, noise = model.noise(seeds, size)
            x0 = {
                posterior: model.encode(images, draw)
                for posterior, draw in {
                    "sample": posterior_noise,
                    "mean": torch.zeros_like(posterior_noise),
                }.items()
                if any(m.recipe.posterior == posterior for m in self.methods.values())
            }
            control = model.control(hints)
        sources = _Sources(self, x0, null, source_text)
        for name in variants:
            method = self.methods[name]
            with span("text") as reading:
                cond = read(prompts, guidance_scale=method.guidance_scale)
                uncond = read([method.negative_prompt_for(p) for p in negative_prompts])
                alignment = self._alignment(method, source_prompts, prompts)
            found = sources.of(method)
            before = model.evaluations
            with span("denoise") as denoising:
                scheduler, timesteps = method.solver(model.scheduler)
                latents = denoise(
                    model.pipe.unet,
                    scheduler,
                    start(
                        scheduler,
                        x0[method.recipe.posterior],
                        noise,
                        found.source,
                        method.plan,
                        timesteps,
                    ),
                    timesteps,
                    cond=cond,
                    uncond=uncond,
                    guidance_scale=1.0 if model.follows_guidance else method.guidance_scale,
                    source=found.source,
                    plan=method.plan,
                    alignment=alignment,
                    control=control,
                    generators=model.generators_after_noise(seeds, size)
                    if method.scheduler == "lcm"
                    else (),
                )
            rows = found.rows + model.evaluations - before
            with span("decode") as decoding:
                pictures = model.decode(latents)
            own = (reading, found.inverting, denoising, decoding)
            seconds = sum(part.seconds for part in own)
            flagged = model.flagged(pictures)
            yield name, Translation(pictures, rows // len(images), flagged, seconds)

    def count_chunks(self, prompt: str, negative_prompt: str, source_prompt: str | None) -> int:
        """How many times the text encoder reads a picture's texts: a batch is of pictures alike."""
        return self._chunks([prompt], [negative_prompt], [source_prompt or ""])

    def _chunks(
        self, prompts: Sequence[str], negative_prompts: Sequence[str], source_prompts: Sequence[str]
    ) -> int:
        negative = [m.negative_prompt_for(p) for m in self.methods.values() for p in negative_prompts]
        return self.model.count_chunks(*prompts, *negative, *source_prompts)

    def _alignment(
        self, method: Method, source_prompts: Sequence[str | None], prompts: Sequence[str]
    ) -> Alignment | None:
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
        """What each phase has taken so far."""
        return self.clock.seconds


def _resolve(recipe: Recipe, model: Model, strength: float, job: Mapping[str, Any]) -> Method:
    """`recipe` on `model`, its own settings over those of the job.

    Raises:
        UsageError: a block that the U-Net lacks, a window that covers no step, or an inversion that
            does not pass the timesteps of sampling.
    """
    own = {key: getattr(recipe, key) for key in job if getattr(recipe, key) is not None}
    settings = {**job, **own}
    differing = [
        f"{key} {value!r} (the job's: {job[key]!r})" for key, value in own.items() if job[key] != value
    ]
    if recipe.negative_prompt is not None:
        differing.append(f"negative_prompt {recipe.negative_prompt!r}")
    if differing:
        logger.warning("%s keeps its own %s", recipe.name, ", ".join(differing))
    if recipe.inversion == "full" and settings["scheduler"] != "ddim":
        raise UsageError(
            f"recipe {recipe.name}: a full inversion goes along the steps of ddim; "
            f"scheduler {settings['scheduler']} cannot follow it"
        )
    plan = recipe.plan(model.layout)
    if plan.inversion == "full" and plan.inversion_steps is None:
        plan = replace(plan, inversion_steps=settings["steps"])
    method = Method(
        recipe,
        plan,
        settings["scheduler"],
        settings["steps"],
        1.0 if plan.start == "inverted" else strength,
        settings["guidance_scale"],
    )
    if method.effective_steps == 0:
        raise UsageError(
            f"recipe {recipe.name}: strength {strength:g} of {method.steps} steps is not one whole step"
        )
    try:
        _, timesteps = method.solver(model.scheduler)
        check_windows(plan, timesteps.tolist())
        if plan.inversion_steps is not None:
            check_passes(inverse_of(model.scheduler, plan.inversion_steps).timesteps, timesteps)
    except UsageError as error:
        raise UsageError(f"recipe {recipe.name}: {error}") from None
    return method


@dataclass(frozen=True)
class _Found:
    """The source of a batch, and what it took to find it."""

    source: Source
    rows: int  #: that the U-Net evaluated
    inverting: Span


class _Sources:
    """The sources of one batch, each inverted once, however many recipes share it."""

    def __init__(
        self, translator: Translator, x0: Mapping[str, Tensor], null: Text, text: Text | None
    ) -> None:
        self._translator = translator
        self._x0 = x0
        self._null = null
        self._text = text
        self._found: dict[Hashable, _Found] = {}

    def of(self, method: Method) -> _Found:
        """The source that `method` needs."""
        key = method.inversion
        if key not in self._found:
            model, spill = self._translator.model, self._translator.spill
            alike = [m for m in self._translator.methods.values() if m.inversion == key]
            before = model.evaluations
            with self._translator.clock.span("invert") as inverting:
                source = invert(
                    model.pipe.unet,
                    model.scheduler,
                    self._x0[method.recipe.posterior],
                    self._null,
                    replace(method.plan, injections=tuple(i for m in alike for i in m.plan.injections)),
                    torch.unique(torch.cat([m.solver(model.scheduler)[1] for m in alike])),
                    prompt=self._text if method.recipe.inversion_prompt == "source" else None,
                    trajectory=SpilledTrajectory(spill) if spill else None,
                )
            self._found[key] = _Found(source, model.evaluations - before, inverting)
        return self._found[key]
