"""Translate a batch of pictures by one or more recipes: encode and invert once, denoise for each."""

import logging
from collections.abc import Hashable, Iterator, Mapping, Sequence
from copy import copy
from dataclasses import dataclass, replace
from functools import partial
from pathlib import Path
from typing import Any, Literal

import torch
from diffusers import DDIMScheduler, SchedulerMixin
from PIL import Image
from torch import Tensor

from sdcorrect.config import Job
from sdcorrect.core.alignment import Alignment
from sdcorrect.core.evaluations import evaluations_to_denoise, evaluations_to_invert
from sdcorrect.core.plan import Injection, Plan, SchedulerName, check_windows, effective_steps
from sdcorrect.core.sampler import Source, check_passes, denoise, invert, start
from sdcorrect.core.schedule import add_noise, inverse_of, solver_from, spaced
from sdcorrect.core.text import Text
from sdcorrect.core.trajectory import SpilledTrajectory
from sdcorrect.errors import UsageError, printable
from sdcorrect.masking import Masking, PictureMasks, masks_of_words, tokens_of_words
from sdcorrect.matching import check_matching, matched
from sdcorrect.models import Model
from sdcorrect.models.clock import Clock, Span
from sdcorrect.recipes import Recipe
from sdcorrect.recipes.fields import Posterior
from sdcorrect.settings import WORDS
from sdcorrect.sweep import Variant, several, variants_of

#: Steps to try when measuring the memory that recipes need.
FEW_STEPS = (4, 8, 16, 32)

logger = logging.getLogger(__name__)


@dataclass(frozen=True)
class Request:
    """A picture and how to translate it."""

    image: Image.Image  #: RGB, of a size that the model takes
    seed: int | Mapping[int, int]  #: the picture's own; in a sweep, by the seeds of the job
    prompt: str
    negative_prompt: str = ""
    source_prompt: str | None = None  #: what the picture shows, for recipes that need it
    hints: Sequence[Image.Image] = ()  #: one for each ControlNet
    mask: Image.Image | None = None  #: mode L, size of the image: 255 where to edit, else 0
    mask_words: str | None = None  #: words of the source prompt (or the prompt) that find the mask

    def seed_by(self, job_seed: int) -> int:
        """The picture's own seed."""
        return self.seed if isinstance(self.seed, int) else self.seed[job_seed]


@dataclass(frozen=True)
class Translation:
    """The results of one recipe on a batch."""

    pictures: list[Image.Image | None]  #: None where the result is not finite
    evaluations: int  #: U-Net evaluations per picture, including the inversion
    flagged: list[bool]  #: whether the safety checker considers a picture unsafe
    seconds: float  #: for the batch, by this recipe, including an inversion that it shares
    edited: list[float | None]  #: the share of each picture inside its mask; None without a mask


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
        """The job's seed, where another one finds another source."""
        drawn = self.recipe.posterior == "sample" or self.plan.inversion == "ddpm"
        return self.seed if drawn else None

    def negative_prompt_for(self, of_the_picture: str) -> str:
        own = self.recipe.negative_prompt
        return of_the_picture if own is None else own


class Translator:
    """Translates pictures by recipes on one model, and counts the seconds of each phase.

    A setting that a recipe holds itself is the recipe's, not the job's; where they differ, a warning
    says so. Several strengths or seeds are a sweep: `methods` are by the names of `sdcorrect.sweep`.
    `match_colors` gives each picture its source's colours. `spill` is a folder for the latents of full
    inversions, which otherwise stay in memory.

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
            "steps_offset": model.scheduler.config.steps_offset
            if steps_offset is None
            else steps_offset,
        }
        _tell_in_vain(recipes, job, seed)
        self.methods = {
            variant.name: _resolve(variant, model, job, self.seeds[0])
            for variant in variants_of(recipes, strength, seed)
        }
        if isinstance(strength, tuple):
            _tell_alike(self.methods, model, self.seeds[0])

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
        """A copy with the fewest steps that the recipes' windows allow, which needs the same memory.

        But for the latents of full inversions, which are few beside what a U-Net computes with. Of a
        sweep each recipe is there once.
        """
        brief = copy(self)
        brief.clock = Clock(self.model.device)
        for steps in FEW_STEPS:
            try:
                brief.methods = {
                    method.recipe.name: _in_steps(method, steps, self.model)
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
            UsageError: a source prompt is missing, the two prompts cannot be aligned, or a word of the
                mask is not in the prompt.
        """
        if mask_words is not None:
            tokens_of_words(self.model, mask_words, source_prompt or prompt)
        for method in self.methods.values():
            if method.recipe.words and self.model.prompt_syntax != "plain":
                raise UsageError(
                    f"recipe {method.recipe.name} aligns the words of two plain prompts; "
                    "set prompt_syntax: plain"
                )
            if method.recipe.needs_source_prompt and source_prompt is None:
                raise UsageError(f"recipe {method.recipe.name} needs a source prompt")
            self.alignment(method, [source_prompt], [prompt])

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
        batch = _Batch(self, requests)
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


def _own(recipe: Recipe, job: Mapping[str, Any]) -> dict[str, Any]:
    return {key: getattr(recipe, key) for key in job if getattr(recipe, key) is not None}


def _tell_in_vain(recipes: Sequence[Recipe], job: Mapping[str, Any], seed: object) -> None:
    """Warn of what the job says and a recipe does not follow."""
    for recipe in recipes:
        own = _own(recipe, job)
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
                logger.warning("%s: no %s changes its pictures: made once", recipe.name, key)


def _tell_alike(methods: Mapping[str, Method], model: Model, seed: int) -> None:
    """Warn of strengths, by one seed, that lie so near each other that they take the same steps."""
    seen: dict[Hashable, str] = {}
    for name, method in methods.items():
        if method.seed != seed:
            continue
        _, timesteps = method.solver(model.scheduler)
        key = method.recipe.name, tuple(timesteps.tolist())
        if name != (first := seen.setdefault(key, name)):
            logger.warning("%s takes the same steps as %s: their pictures are the same", name, first)


def _resolve(variant: Variant, model: Model, job: Mapping[str, Any], seed: int) -> Method:
    """`variant` on `model`, its recipe's own settings over those of the job; `seed` is the job's first.

    Raises:
        UsageError: the U-Net lacks a block, a window covers no step, or the inversion misses a
            timestep of sampling.
    """
    recipe = variant.recipe
    settings = {**job, **_own(recipe, job)}
    if variant.strength is not None:
        settings["strength"] = variant.strength
    _check_solver(recipe, settings["scheduler"])
    if recipe.model == "turbo" and model.scheduler.config.timestep_spacing != "trailing":
        raise UsageError(
            f"recipe {recipe.name} is for Turbo models, which space their timesteps trailing; "
            f"{printable(model.name)} spaces them leading; choose edit-friendly"
        )
    plan = recipe.plan(model.layout)
    if plan.inversion == "full" and plan.inversion_steps is None:
        plan = replace(plan, inversion_steps=settings["steps"])
    method = Method(
        recipe,
        plan,
        settings["scheduler"],
        settings["steps"],
        1.0 if plan.inversion == "full" and plan.start == "inverted" else settings["strength"],
        settings["guidance_scale"],
        settings["steps_offset"],
        seed if variant.seed is None else variant.seed,
    )
    _check(method, model)
    return method


def _in_steps(method: Method, steps: int, model: Model) -> Method:
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


def _check_solver(recipe: Recipe, scheduler: SchedulerName) -> None:
    """Check that the recipe works with its scheduler, which may be the job's.

    Raises:
        UsageError: it does not.
    """
    name = recipe.name
    if recipe.inversion == "full" and scheduler != "ddim":
        raise UsageError(
            f"recipe {name}: a full inversion works only with scheduler: ddim; "
            f"{scheduler} cannot follow it"
        )
    if recipe.inversion == "ddpm" and scheduler not in ("ddim", "sde-dpm++"):
        raise UsageError(
            f"recipe {name}: noise maps work only with scheduler: ddim or sde-dpm++; "
            f"{scheduler} cannot follow them"
        )
    if recipe.inversion != "ddpm" and scheduler == "sde-dpm++":
        raise UsageError(
            f"recipe {name}: sde-dpm++ needs noise maps, which this recipe does not have; "
            "choose dpm++, or a recipe with inversion: ddpm, such as leditspp"
        )
    if recipe.eta and scheduler != "ddim":
        raise UsageError(f"recipe {name}: eta works only with scheduler: ddim; {scheduler} has none")


@dataclass(frozen=True)
class _Drawn:
    """What is drawn for a batch by one seed of the job."""

    of: int  #: the job's seed
    seeds: list[int]  #: the pictures'
    noise: Tensor
    x0: dict[Posterior, Tensor]  #: the latents, by how they are taken from the posterior


@dataclass(frozen=True)
class _Found:
    """The inverted source of a batch, and what the inversion cost."""

    source: Source
    rows: int  #: U-Net evaluations, of all pictures together
    inverting: Span
    of: int | None  #: the job's seed, where another one finds another source


class _Batch:
    """Requests of one size, read and encoded once, and inverted once for the methods that share it.

    What is drawn and found by one seed of the job is kept until a method has another.
    """

    def __init__(self, translator: Translator, requests: Sequence[Request]) -> None:
        self._translator, self._requests = translator, requests
        self._size = requests[0].image.size
        self._found: dict[Hashable, _Found] = {}
        with translator.clock.span("text"):
            self._chunks = max(
                translator.count_chunks(r.prompt, r.negative_prompt, r.source_prompt) for r in requests
            )
            self._null = self._read([""] * len(requests))
            told = [r.source_prompt for r in requests if r.source_prompt is not None]
            self._source_text = self._read(told) if len(told) == len(requests) else None
        with translator.clock.span("encode"):
            self._posterior = translator.model.posterior([r.image for r in requests])
            self._drawn = self._draw(translator.seeds[0])
            self._control = translator.model.control([r.hints for r in requests])
        with translator.clock.span("mask") as self._finding_mask:
            self._mask = self._find_mask()

    def by(self, method: Method) -> Translation:
        """Translate the batch by `method`."""
        translator, model = self._translator, self._translator.model
        span = translator.clock.span
        self._take_up(method.seed)
        with span("text") as reading:
            cond = self._read([r.prompt for r in self._requests], guidance_scale=method.guidance_scale)
            uncond = self._uncond(method)
            alignment = translator.alignment(
                method, [r.source_prompt for r in self._requests], [r.prompt for r in self._requests]
            )
        found = self._source_of(method)
        before = model.evaluations
        with span("denoise") as denoising:
            source = replace(found.source, text=self._source_is_told(method, cond))
            latents = self._denoise(method, source, cond, uncond, alignment)
        rows = found.rows + self._mask.rows + model.evaluations - before
        with span("decode") as decoding:
            made = self._matched(model.decode(latents))
            pictures = self._mask.applied(made, [r.image for r in self._requests])
        own = (self._finding_mask, reading, found.inverting, denoising, decoding)
        return Translation(
            pictures,
            rows // len(self._requests),
            model.flagged(pictures),
            sum(part.seconds for part in own),
            self._mask.shares(len(pictures)),
        )

    def _matched(self, made: list[Image.Image | None]) -> list[Image.Image | None]:
        """`made` in the colours of the sources, where that is asked for: before masks, outside of which
        nothing is to change."""
        if not self._translator.match_colors:
            return made
        pairs = zip(made, self._requests, strict=True)
        return [picture and matched(picture, request.image) for picture, request in pairs]

    def _uncond(self, method: Method) -> Text:
        if method.recipe.unconditional == "source":
            return self._told("source")
        return self._read([method.negative_prompt_for(r.negative_prompt) for r in self._requests])

    def _source_is_told(self, method: Method, cond: Text) -> Text:
        told = method.recipe.source_is_told()
        return cond if told == "target" else self._told(told)

    def _told(self, told: Literal["empty", "source"]) -> Text:
        if told == "empty":
            return self._null
        assert self._source_text is not None, "recipes that need a source prompt have one"
        return self._source_text

    def _denoise(
        self, method: Method, source: Source, cond: Text, uncond: Text, alignment: Alignment | None
    ) -> Tensor:
        model, plan, drawn = self._translator.model, method.plan, self._drawn
        x0 = drawn.x0[method.recipe.posterior]
        scheduler, timesteps = method.solver(model.scheduler)
        return denoise(
            model.pipe.unet,
            scheduler,
            start(scheduler, x0, drawn.noise, source, plan, timesteps),
            timesteps,
            cond=cond,
            uncond=uncond,
            guidance_scale=self._translator.guidance_scale(method),
            source=source,
            plan=plan,
            null=self._null,
            alignment=alignment,
            control=self._control,
            mask=self._mask.over(x0, partial(self._source_at, source, x0)),
            generators=self._generators() if method.draws else (),
        )

    def _generators(self) -> list[torch.Generator]:
        return self._translator.model.generators_after_noise(self._drawn.seeds, self._size)

    def _source_at(self, source: Source, x0: Tensor, t: Tensor) -> Tensor:
        """The source's latents at timestep `t`: from its inversion, or else noised like the start."""
        if source.trajectory:
            return source.trajectory[int(t)]
        return add_noise(self._translator.model.scheduler, x0, self._drawn.noise, int(t))

    def _find_mask(self) -> PictureMasks:
        """Where to edit the pictures: by their masks, or by their words."""
        model, masking = self._translator.model, self._translator.masking
        if not self._listens:
            return PictureMasks.of(
                [r.mask for r in self._requests if r.mask is not None], masking, model.device
            )
        before = model.evaluations
        prompts = [r.source_prompt or r.prompt for r in self._requests]
        words = [r.mask_words or "" for r in self._requests]
        text = self._read(prompts)
        seen = masks_of_words(model, self._drawn.x0["mean"], text, prompts, words, masking.threshold)
        found = PictureMasks.of(seen, masking, model.device)
        return replace(found, rows=model.evaluations - before)

    @property
    def _listens(self) -> bool:
        """Whether the masks are found by words."""
        return self._requests[0].mask_words is not None

    def _read(self, prompts: Sequence[str], guidance_scale: float = 1.0) -> Text:
        return self._translator.model.text(
            prompts, self._size, chunks=self._chunks, guidance_scale=guidance_scale
        )

    def _take_up(self, seed: int) -> None:
        """Draw by `seed`, the job's, and let go what was found by another."""
        if seed != self._drawn.of:
            with self._translator.clock.span("encode"):
                self._drawn = self._draw(seed)
            self._found = {key: f for key, f in self._found.items() if f.of in (None, seed)}

    def _draw(self, seed: int) -> _Drawn:
        model = self._translator.model
        seeds = [request.seed_by(seed) for request in self._requests]
        posterior_noise, noise = model.noise(seeds, self._size)
        draws: dict[Posterior, Tensor] = {
            "sample": posterior_noise,
            "mean": torch.zeros_like(posterior_noise),
        }
        return _Drawn(
            seed, seeds, noise, {kind: model.latents(self._posterior, of) for kind, of in draws.items()}
        )

    def _source_of(self, method: Method) -> _Found:
        key = method.inversion
        if key not in self._found:
            model, spill = self._translator.model, self._translator.spill
            alike = [m for m in self._translator.methods.values() if m.inversion == key]
            by_maps, ddim = method.plan.inversion == "ddpm", method.spaced(model.scheduler)
            solvers = [m.solver(model.scheduler) for m in alike]
            before = model.evaluations
            with self._translator.clock.span("invert") as inverting:
                source = invert(
                    model.pipe.unet,
                    solvers[0][0] if by_maps else ddim,
                    self._drawn.x0[method.recipe.posterior],
                    self._null,
                    replace(method.plan, injections=_injections(alike)),
                    solvers[0][1] if by_maps else torch.unique(torch.cat([s[1] for s in solvers])),
                    prompt=self._told(method.recipe.inversion_prompt),
                    keep=partial(SpilledTrajectory, spill) if spill else dict,
                    generators=self._generators() if by_maps else (),
                )
            rows = model.evaluations - before
            self._found[key] = _Found(source, rows, inverting, method.source_seed)
        return self._found[key]


def _injections(methods: Sequence[Method]) -> tuple[Injection, ...]:
    """What any of `methods` puts back, each once."""
    return tuple(dict.fromkeys(i for method in methods for i in method.plan.injections))
