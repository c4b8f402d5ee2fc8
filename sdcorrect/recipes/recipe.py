"""A recipe: the keys that describe a translation method."""

from typing import Annotated, Any, Literal

from pydantic import Field, StrictBool, StrictFloat, StrictInt, field_validator, model_validator
from typing_extensions import Self

from sdcorrect.core.layout import UNetLayout
from sdcorrect.core.plan import (
    ALWAYS,
    ONE_STEP,
    Inversion,
    Maps,
    Noising,
    Plan,
    Reuse,
    SchedulerName,
    SourceBranch,
    Told,
    Words,
)
from sdcorrect.errors import UsageError
from sdcorrect.recipes.fields import Frozen, Posterior, RecipeName, Timestep, WindowField
from sdcorrect.recipes.inject import Inject
from sdcorrect.recipes.rules import complaints


class Recipe(Frozen):
    """A translation method.

    `inversion: one-step` takes the tensors from a single evaluation on the clean latents (the paper's
    correction), at `timestep`, which the paper sets to 1. The evaluation reads the clean latents x0
    unscaled; with `scale_input` it reads sqrt(a_t) x0, noised latents of that timestep without noise.

    `inversion: full` runs the source beside the target, and takes the tensors of each step from the
    source at that step. `source: inverted` uses the inversion's own latents; `source: sampled` denoises
    them again, with guidance, from the end of the inversion; `source: corrected` does that too, and
    after each step adds what leads the source back to its inversion, to the target as well.
    `source_branch_prompt` is the prompt of that branch; the default is the prompt of the inversion.
    `inversion_iterations` evaluates each step several times, which converges to a fixed point, and
    `inversion_average` uses the mean of some of these evaluations (a half-open range).

    `inversion: ddpm` noises the source independently for each timestep, and adds to the target the
    noise maps that lead the source from each timestep to the next. `noise_shift` takes the noise of
    some steps later; the last map can be limited or dropped. `source: noised` needs no inversion: it
    noises the source anew at each step, and moves the target by the difference of the two predictions.
    There `eta` is DDIM's, `noise: posterior` draws noise according to it, and `step_to: clean` goes to
    the clean picture at each step and noises that again.

    `unconditional: source` gives the unconditional branch the source prompt, not the negative prompt.
    `guidance_threshold` drops guidance over this fraction of the picture, where it is weakest.

    From `steps` on, a setting that a recipe leaves out is the job's; one that it has is part of the
    method, and overrides the job's. With `solver_steps`, `steps` and strength set the noise level at
    the start, and the solver takes that many steps from there.
    """

    name: RecipeName
    """the recipe's name, and that of the folder for its pictures"""
    summary: str = ""
    """one line for `sdcorrect recipes`"""
    inversion: Inversion = "none"
    """how to invert the source: by one evaluation on clean latents, DDIM (full), or noise maps (ddpm)"""
    timestep: Timestep = ONE_STEP
    """timestep of the one-step inversion"""
    scale_input: StrictBool = False
    """scale the clean latents by sqrt(a_t) for the one-step inversion"""
    inversion_steps: Annotated[StrictInt, Field(ge=1, le=999)] | None = None
    """steps of a full inversion; by default the job's steps"""
    inversion_prompt: Literal["empty", "source"] = "empty"
    """prompt of a full or ddpm inversion: empty, or the source prompt"""
    inversion_guidance: StrictFloat = 1.0
    """guidance scale of a full or ddpm inversion towards the source prompt; 1 is none"""
    inversion_iterations: Annotated[StrictInt, Field(ge=1, le=100)] = 1
    """evaluations per step of a full inversion, each closer to a fixed point"""
    inversion_average: tuple[StrictInt, StrictInt] | None = None
    """use the mean of these evaluations, [first, end)"""
    noise_shift: Annotated[StrictInt, Field(ge=0, le=10)] = 0
    """with ddpm: noise the source as this many steps later"""
    last_map: StrictBool = True
    """with ddpm: use the last noise map"""
    last_map_norm: Annotated[StrictFloat, Field(gt=0)] | None = None
    """with ddpm: limit the norm of the last noise map"""
    start: Literal["noise", "inverted"] = "noise"
    """the latents that denoising starts from: noised or inverted"""
    source: SourceBranch = "inverted"
    """latents of the source's branch: the inversion's, denoised again (and corrected), or noised anew"""
    source_branch_prompt: Told | None = None
    """prompt of the source's branch; by default that of the inversion"""
    source_guidance: Annotated[StrictFloat, Field(ge=0)] = 1.0
    """with source: noised, guidance scale of the source's branch; 1 is none"""
    eta: Annotated[StrictFloat, Field(ge=0, le=1)] = 0.0
    """with source: noised, DDIM's eta: how much noise is drawn at each step"""
    noise: Literal["anew", "posterior"] = "anew"
    """with source: noised, draw noise anew at each step, or from the posterior"""
    step_to: Literal["next", "clean"] = "next"
    """with source: noised, step to the next timestep, or to the clean picture and noise that"""
    inject: tuple[Inject, ...] = ()
    """tensors of the source to put back, where and when"""
    words: Words | None = None
    """how Prompt-to-Prompt aligns the words of the source prompt with those of the prompt"""
    posterior: Posterior = "sample"
    """encode by sampling the VAE's posterior, or by its mean"""
    unconditional: Literal["negative", "source"] = "negative"
    """prompt of the unconditional branch: the negative prompt or the source prompt"""
    guidance_window: WindowField = ALWAYS
    """the part of the steps that use classifier-free guidance, as two fractions"""
    guidance_threshold: Annotated[StrictFloat, Field(gt=0, lt=1)] | None = None
    """drop guidance over this fraction of the picture, where it is weakest"""
    reuse_every: Annotated[StrictInt, Field(ge=2)] | None = None
    """compute the deep levels of the U-Net only every N steps, and reuse them in between"""
    model: Literal["any", "turbo"] = "any"
    """the kind of model that the recipe is for"""
    steps: Annotated[StrictInt, Field(ge=1, le=999)] | None = None
    """replaces the job's"""
    strength: Annotated[StrictFloat, Field(gt=0, le=1)] | None = None
    """replaces the job's"""
    guidance_scale: Annotated[StrictFloat, Field(ge=0)] | None = None
    """replaces the job's"""
    negative_prompt: str | None = None
    """replaces the job's"""
    scheduler: SchedulerName | None = None
    """replaces the job's"""
    solver_steps: Annotated[StrictInt, Field(ge=1, le=999)] | None = None
    """steps that the solver takes from the noise level set by steps and strength"""
    steps_offset: Annotated[StrictInt, Field(ge=0, le=1)] | None = None
    """replaces the job's"""

    @field_validator("strength", mode="before")
    @classmethod
    def _is_one(cls, strength: Any) -> Any:
        if isinstance(strength, list | tuple):
            raise ValueError("a recipe has one strength of its own; to sweep, give the job a list")
        return strength

    @model_validator(mode="after")
    def _is_whole(self) -> Self:
        if complaint := next(complaints(self), None):
            raise ValueError(complaint)
        return self

    @property
    def runs_along(self) -> bool:
        """Whether the source has a branch of its own, which runs beside the target."""
        return self.inversion in ("full", "ddpm") or self.source == "noised"

    def source_is_told(self) -> Told:
        """The prompt of the source's branch; without such a branch, the empty prompt."""
        if not self.runs_along:
            return "empty"
        if self.source_branch_prompt or self.source == "noised":
            return self.source_branch_prompt or "source"
        if self.words and self.source in ("sampled", "corrected"):
            return "source"
        return self.inversion_prompt

    @property
    def needs_source_prompt(self) -> bool:
        told = "source" in (self.inversion_prompt, self.unconditional, self.source_is_told())
        return told or self.words is not None

    @property
    def heeds_strength(self) -> bool:
        """Whether the job's strength changes the pictures of this recipe."""
        return self.strength is None and not self.starts_from_full_noise

    @property
    def heeds_seed(self) -> bool:
        """Whether the job's seed changes the pictures of this recipe."""
        return self.posterior == "sample" or not self.starts_from_full_noise

    @property
    def starts_from_full_noise(self) -> bool:
        """Whether denoising starts from the end of a full inversion, whatever the strength."""
        return self.inversion == "full" and self.start == "inverted"

    def plan(self, layout: UNetLayout) -> Plan:
        """This recipe resolved for a U-Net of `layout`.

        Raises:
            UsageError: the U-Net lacks a block that the recipe names, or the block lacks the tensor.
        """
        try:
            injections = tuple(inject.resolve(layout) for inject in self.inject)
        except UsageError as error:
            raise UsageError(f"recipe {self.name}: {error}") from None
        maps = Maps(self.noise_shift, self.last_map, self.last_map_norm)
        noising = Noising(self.source_guidance, self.eta, self.noise, self.step_to == "clean")
        return Plan(
            inversion=self.inversion,
            inversion_steps=self.inversion_steps,
            inversion_guidance=self.inversion_guidance,
            start=self.start,
            source=self.source,
            injections=injections,
            guidance_window=self.guidance_window,
            reuse=Reuse(self.reuse_every) if self.reuse_every else None,
            timestep=self.timestep,
            scale_input=self.scale_input,
            inversion_iterations=self.inversion_iterations,
            inversion_average=self.inversion_average,
            maps=maps if self.inversion == "ddpm" else None,
            noised=noising if self.source == "noised" else None,
            guidance_threshold=self.guidance_threshold,
        )
