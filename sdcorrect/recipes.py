"""Methods as data: the inversion, the start of denoising, and which tensors are put back where and when.

Imports no torch, so that recipes can be checked and listed without loading a model.
"""

import re
from collections.abc import Iterator
from typing import Annotated, Any, Literal

from pydantic import (
    AfterValidator,
    BaseModel,
    BeforeValidator,
    ConfigDict,
    Field,
    StrictBool,
    StrictFloat,
    StrictInt,
    field_validator,
    model_validator,
)
from typing_extensions import Self

from sdcorrect.core.layout import UNetLayout
from sdcorrect.core.plan import (
    ALWAYS,
    FEATURES,
    MID,
    ONE_STEP,
    Block,
    Injection,
    Inversion,
    Maps,
    Noising,
    Plan,
    Reuse,
    SchedulerName,
    SourceBranch,
    Statistics,
    TensorName,
    Told,
    Window,
    Words,
)
from sdcorrect.errors import UsageError, did_you_mean

LEVELS = ("first-attention", "second-attention", "third-attention")
FIRST = LEVELS[0]
#: Other files and folders in an output folder, which no recipe may be named after.
OTHERS_IN_OUT = {
    *("records", "job.json", "report", "report.html", "evaluation.csv", "evaluation.json"),
    *("frontier.json", "frontier.png"),
}
_BLOCKS = re.compile(
    rf"(?:(?P<level>{'|'.join(LEVELS)})(?:\.(?P<index>\d+))?|(?P<number>\d+))(?P<onward>\+)?"
    rf"|(?P<elsewhere>encoder(?:\.\d+)?|{MID})"
)


def _check_blocks(spec: str) -> str:
    if not _BLOCKS.fullmatch(spec):
        raise ValueError(
            f"{spec!r} names no blocks; give a number (4), a number and all later ones (4+), a decoder "
            f"level ({FIRST}), one block of a level ({FIRST}.0), encoder, encoder.4 or mid"
        )
    return spec


def _check_window(window: Window) -> Window:
    if not 0 <= window[0] < window[1] <= 1:
        raise ValueError("a window is two fractions of the steps, 0 <= first < last <= 1")
    return window


class _Frozen(BaseModel):
    model_config = ConfigDict(
        frozen=True, extra="forbid", allow_inf_nan=False, use_attribute_docstrings=True
    )


#: Decoder blocks by number or by level; with levels, one recipe fits every family of U-Nets.
BlockSpec = Annotated[
    str,
    BeforeValidator(lambda value: str(value) if type(value) is int else value),
    AfterValidator(_check_blocks),
]


#: Part of the steps that are run, as two fractions.
WindowField = Annotated[tuple[StrictFloat, StrictFloat], AfterValidator(_check_window)]
Timestep = Annotated[StrictInt, Field(ge=0, le=999)]
#: How the VAE's posterior becomes latents: by sampling it, or by its mean.
Posterior = Literal["sample", "mean"]


class Inject(_Frozen):
    """A tensor of the source, where it is put back, and when."""

    tensor: TensorName
    """the tensor to take from the source"""
    blocks: tuple[BlockSpec, ...] = Field(min_length=1)
    """blocks: numbers (4, 4+), levels (first-attention, first-attention.0), encoder or mid"""
    window: WindowField = ALWAYS
    """the part of the steps in which it is put back, as two fractions"""
    timesteps: tuple[Timestep, Timestep] | None = None
    """instead of window: the first and last timestep at which it is put back"""
    weight: Annotated[StrictFloat, Field(gt=0, le=1)] = 1.0
    """1 replaces the U-Net's own tensor, less blends the two"""
    max_tokens: Annotated[StrictInt, Field(ge=1)] | None = None
    """for attention: skip layers with more tokens than this"""
    branches: Literal["both", "cond"] = "both"
    """put it into both branches of guidance, or only into the branch of the prompt"""
    statistics: Statistics = "source"
    """own: rescale each channel to the mean and deviation of the tensor that it replaces (AdaIN)"""

    @model_validator(mode="after")
    def _is_whole(self) -> Self:
        if self.timesteps and self.window != ALWAYS:
            raise ValueError("give either window or timesteps, not both")
        if self.max_tokens and self.tensor in FEATURES:
            raise ValueError(f"max_tokens is for attention; {self.tensor} has no tokens")
        if self.statistics == "own" and self.tensor not in FEATURES:
            raise ValueError(
                f"statistics: own is for {' and '.join(FEATURES)}, whose channels have a mean and a "
                f"deviation; remove it from {self.tensor}"
            )
        return self

    def resolve(self, layout: UNetLayout) -> Injection:
        """This injection with the block numbers of a U-Net of `layout`.

        Raises:
            UsageError: the U-Net lacks a block, or the block lacks the tensor.
        """
        having = layout.having(self.tensor)
        blocks = [block for spec in self.blocks for block in _resolve_blocks(spec, layout, having)]
        for block in blocks:
            if block not in having:
                raise UsageError(
                    f"block {block} of this U-Net has no {self.tensor}; "
                    f"choose from blocks {', '.join(map(str, having))}"
                )
        return Injection(
            self.tensor,
            tuple(dict.fromkeys(blocks)),
            self.window,
            self.timesteps,
            self.weight,
            self.max_tokens,
            self.branches,
            self.statistics,
        )


#: Settings that apply to a single kind of inversion.
_OF_INVERSION = {
    "one-step": ("timestep", "scale_input"),
    "full": ("inversion_steps", "inversion_iterations", "inversion_average"),
    "ddpm": ("noise_shift", "last_map", "last_map_norm"),
}
_OF_NOISED = ("source_guidance", "eta", "noise", "step_to")


def _check_name(name: str) -> str:
    if name.casefold() in OTHERS_IN_OUT:
        raise ValueError(f"the output folder uses the name {name!r} itself; choose another")
    return name


LONGEST_NAME = 200
#: It also names the folder of the recipe's pictures.
RecipeName = Annotated[
    str,
    Field(pattern=r"^[A-Za-z0-9][A-Za-z0-9._-]*$", max_length=LONGEST_NAME),
    AfterValidator(_check_name),
]


class Recipe(_Frozen):
    """A translation method.

    `inversion: one-step` takes the tensors from a single evaluation on the clean latents (the paper's
    correction), at `timestep`, which the paper sets to 1. The evaluation reads the clean latents x0
    unscaled; with `scale_input` it reads sqrt(a_t) x0, noised latents of that timestep without noise.

    `inversion: full` runs the source beside the target, and takes the tensors of each step from the
    source at that step. `source: inverted` uses the inversion's own latents; `source: sampled` denoises
    them again, with guidance, from the end of the inversion; `source: corrected` does that too, and
    after each step adds what leads the source back to its inversion, to the target as well.
    `source_branch_prompt` is the prompt of
    that branch; the default is the prompt of the inversion. `inversion_iterations` evaluates each step
    several times, which converges to a fixed point, and `inversion_average` uses the mean of some of
    these evaluations (a half-open range).

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
        for complaint in (*self._about_inversion(), *self._about_source(), *self._about_solver()):
            raise ValueError(complaint)
        return self

    def _is_default(self, setting: str) -> bool:
        # compares values, because a recipe that was written out in full sets every key
        default = type(self).model_fields[setting].default
        return bool(getattr(self, setting) == default)

    def _about_inversion(self) -> Iterator[str]:
        if self.inject and self.inversion == "none" and self.source != "noised":
            yield (
                "inject needs a source to take tensors from: set inversion: one-step or full, or "
                "source: noised"
            )
        for inversion, settings in _OF_INVERSION.items():
            for setting in settings:
                if not self._is_default(setting) and self.inversion != inversion:
                    yield f"{setting} needs inversion: {inversion}"
        for setting in ("inversion_prompt", "inversion_guidance"):
            if not self._is_default(setting) and self.inversion not in ("full", "ddpm"):
                yield f"{setting} needs inversion: full or ddpm"
        if self.start == "inverted" and self.inversion not in ("full", "ddpm"):
            yield "start: inverted needs inversion: full or ddpm"
        if self.inversion == "ddpm" and self.start != "inverted":
            yield "inversion: ddpm starts from its own latents: set start: inverted"
        if self.inversion_guidance != 1 and self.inversion_prompt != "source":
            yield "inversion_guidance needs a prompt to guide towards: set inversion_prompt: source"
        if self.inversion_average is not None:
            first, last = self.inversion_average
            if not 0 <= first < last <= self.inversion_iterations:
                yield (
                    "inversion_average must be two numbers of evaluations, "
                    f"0 <= first < end <= inversion_iterations ({self.inversion_iterations})"
                )

    def _about_source(self) -> Iterator[str]:
        resampled = self.source in ("sampled", "corrected")
        if resampled and self.start != "inverted":
            yield f"source: {self.source} needs start: inverted, from which source and target both start"
        if resampled and self.inversion == "ddpm":
            yield "inversion: ddpm already has the source's latents at each step: remove source"
        if self.source == "noised" and (self.inversion != "none" or self.start != "noise"):
            yield "source: noised replaces an inversion: remove inversion and start"
        for setting in _OF_NOISED:
            if not self._is_default(setting) and self.source != "noised":
                yield f"{setting} needs source: noised"
        if self.noise == "posterior" and not self.eta:
            yield "noise: posterior needs eta above 0: set eta"
        if self.step_to == "clean" and self.eta:
            yield "step_to: clean draws all noise anew: remove eta"
        if any(i.tensor == "cross-attention" for i in self.inject) != (self.words is not None):
            yield "words (replace, refine, reweight) and an injection of cross-attention need each other"
        if self.words and self._source_is_told != "source":
            yield (
                "cross-attention must come from a branch with the source prompt: set source: sampled, "
                "or source_branch_prompt: source"
            )
        if self.source_branch_prompt and not self._runs_along:
            yield "source_branch_prompt needs a branch: set inversion: full or ddpm, or source: noised"

    def _about_solver(self) -> Iterator[str]:
        if self.solver_steps and self.scheduler in (None, "ddim"):
            yield "solver_steps needs another solver than DDIM: set scheduler: dpm++, unipc or lcm"
        if self.inversion == "full" and self.scheduler not in (None, "ddim"):
            yield "inversion: full works only with DDIM: remove scheduler"
        if self.inversion == "ddpm" and self.scheduler not in (None, "ddim", "sde-dpm++"):
            yield "inversion: ddpm works only with scheduler: ddim or sde-dpm++"
        if self.scheduler == "sde-dpm++" and self.inversion != "ddpm":
            yield "sde-dpm++ needs noise maps: set inversion: ddpm, or scheduler: dpm++"
        if (self.eta or self.noise == "posterior") and self.scheduler not in (None, "ddim"):
            yield "eta works only with DDIM: remove scheduler"

    @property
    def _runs_along(self) -> bool:
        return self.inversion in ("full", "ddpm") or self.source == "noised"

    @property
    def _source_is_told(self) -> Told | None:
        if not self._runs_along:
            return None
        if self.source_branch_prompt or self.source == "noised":
            return self.source_branch_prompt or "source"
        if self.words and self.source in ("sampled", "corrected"):
            return "source"
        return self.inversion_prompt

    def source_is_told(self) -> Told:
        """The prompt of the source's branch; without such a branch, that of the inversion."""
        return self._source_is_told or "empty"

    @property
    def needs_source_prompt(self) -> bool:
        told = "source" in (self.inversion_prompt, self.unconditional, self._source_is_told)
        return told or self.words is not None

    @property
    def heeds_strength(self) -> bool:
        """Whether the job's strength changes its pictures."""
        return self.strength is None and not self._starts_where_all_noise_is

    @property
    def heeds_seed(self) -> bool:
        """Whether the job's seed changes its pictures."""
        return self.posterior == "sample" or not self._starts_where_all_noise_is

    @property
    def _starts_where_all_noise_is(self) -> bool:
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
        return Plan(
            self.inversion,
            self.inversion_steps,
            self.inversion_guidance,
            self.start,
            self.source,
            injections,
            self.guidance_window,
            Reuse(self.reuse_every) if self.reuse_every else None,
            self.timestep,
            self.scale_input,
            self.inversion_iterations,
            self.inversion_average,
            Maps(self.noise_shift, self.last_map, self.last_map_norm)
            if self.inversion == "ddpm"
            else None,
            Noising(self.source_guidance, self.eta, self.noise, self.step_to == "clean")
            if self.source == "noised"
            else None,
            self.guidance_threshold,
        )


def _resolve_blocks(spec: str, layout: UNetLayout, having: tuple[Block, ...]) -> tuple[Block, ...]:
    match = _BLOCKS.fullmatch(spec)
    assert match, spec
    if spec == "encoder":
        return tuple(block for block in layout.encoder_attention if block in having) or (spec,)
    if match["elsewhere"]:
        return (spec,)
    if match["number"]:
        chosen: tuple[int, ...] = (int(match["number"]),)
    else:
        levels, number = layout.attention_levels, LEVELS.index(match["level"])
        if number >= len(levels):
            raise UsageError(f"{spec}: this U-Net's decoder has only {len(levels)} attention levels")
        level = levels[number]
        index = int(match["index"] or 0)
        if index >= len(level):
            raise UsageError(f"{spec}: this level has only {len(level)} blocks in this U-Net")
        chosen = level[index : index + 1] if match["index"] else level
    if match["onward"]:
        later = tuple(b for b in having if isinstance(b, int) and b >= chosen[0])
        return later or chosen[:1]
    return chosen


def _attention(*blocks: str, window: Window = ALWAYS) -> Inject:
    return Inject(tensor="self-attention", blocks=blocks, window=window)


def _skip(*blocks: str, statistics: Statistics = "source") -> Inject:
    return Inject(tensor="skip", blocks=blocks, statistics=statistics)


_CORRECTION = (_attention(f"{FIRST}.0", f"{FIRST}.1"), _skip(f"{FIRST}.1", f"{FIRST}.2"))
_ADAIN = (
    _attention(f"{FIRST}.0", f"{FIRST}.1"),
    _skip(f"{FIRST}.1", f"{FIRST}.2", statistics="own"),
)


_EVERYWHERE = ("encoder", MID, "0+")
_WIDE = (Inject(tensor="query", blocks=_EVERYWHERE),)


def _one_step(name: str, summary: str, inject: tuple[Inject, ...], **settings: Any) -> Recipe:
    return Recipe(name=name, summary=summary, inversion="one-step", inject=inject, **settings)


def _with_fast(name: str, summary: str, inject: tuple[Inject, ...]) -> tuple[Recipe, Recipe]:
    """A correction, and its fast version: UniPC in 5 steps."""
    fast = {"scheduler": "unipc", "solver_steps": 5}
    return (
        _one_step(name, summary, inject),
        _one_step(f"{name}-fast", f"{name} by UniPC in 5 steps", inject, **fast),
    )


def _pnp(name: str, summary: str, inversion_steps: int, **settings: Any) -> Recipe:
    """Tumanyan et al., CVPR 2023, as in the public diffusers version.

    It copies Q and K; softmax(QK^T) of the source's Q and K is the source's self-attention.
    """
    return Recipe(
        name=name,
        summary=summary,
        inversion="full",
        inversion_steps=inversion_steps,
        start="inverted",
        inject=(
            Inject(tensor="resnet", blocks=(f"{FIRST}.1",), window=(0, 0.8)),
            _attention(f"{FIRST}.1+", window=(0, 0.5)),
        ),
        posterior="mean",
        steps=50,
        guidance_scale=7.5,
        negative_prompt="ugly, blurry, black, low res, unrealistic",
        **settings,
    )


#: An inversion in 50 steps under the source prompt, then 50 sampling steps.
_INVERTED: dict[str, Any] = {
    "inversion": "full",
    "inversion_steps": 50,
    "inversion_prompt": "source",
    "start": "inverted",
    "posterior": "mean",
    "steps": 50,
}


def _p2p(name: str, summary: str, words: Words, max_tokens: int = 16 * 16, **settings: Any) -> Recipe:
    """Hertz et al., ICLR 2023: attention is edited in all blocks, in the prompt's branch only."""
    return Recipe(
        name=name,
        summary=summary,
        inject=(
            Inject(tensor="cross-attention", blocks=_EVERYWHERE, window=(0, 0.4), branches="cond"),
            Inject(
                tensor="self-attention",
                blocks=_EVERYWHERE,
                window=(0, 0.6),
                max_tokens=max_tokens,
                branches="cond",
            ),
        ),
        words=words,
        **_INVERTED,
        **settings,
    )


def _masactrl(name: str, summary: str, **settings: Any) -> Recipe:
    """Cao et al., ICCV 2023: from step 4 of 50, and from layer 10 of 16 on, which is decoder block 6."""
    inject = (Inject(tensor="key-value", blocks=("second-attention+",), window=(0.08, 1)),)
    return Recipe(
        name=name,
        summary=summary,
        inject=inject,
        **{**_INVERTED, "inversion_prompt": "empty"},
        **settings,
    )


def _along_maps(name: str, summary: str, **settings: Any) -> Recipe:
    """Sampling along the noise maps of the source (Huberman-Spiegelglas et al., CVPR 2024)."""
    return Recipe(
        name=name,
        summary=summary,
        inversion="ddpm",
        inversion_prompt="source",
        start="inverted",
        posterior="mean",
        **settings,
    )


#: Ju et al., ICLR 2024: the source's branch is the inversion's own latents.
_DIRECT: dict[str, Any] = {"source": "inverted", "steps_offset": 0}


BUILT_IN: dict[str, Recipe] = {
    recipe.name: recipe
    for recipe in (
        Recipe(name="sdedit", summary="noise, then denoise under the new prompt (the baseline)"),
        *_with_fast(
            "correct",
            "the paper's correction of correlations and features (its preset 'all')",
            _CORRECTION,
        ),
        *_with_fast(
            "correct-adain",
            "correct, with features rescaled to the mean and deviation of those they replace",
            _ADAIN,
        ),
        *_with_fast(
            "correct-wide",
            "queries of the clean picture in all self-attention; no features",
            _WIDE,
        ),
        _one_step(
            "correct-attention",
            "correlations only, over the whole first attention level",
            (_attention(FIRST),),
        ),
        _one_step(
            "correct-features",
            "features only (the paper's preset 'only spatial')",
            (_skip(f"{FIRST}.1", f"{FIRST}.2"),),
        ),
        _one_step(
            "correct-attention-last-feature",
            "correlations of the whole level and the features of its last block",
            (_attention(FIRST), _skip(f"{FIRST}.2")),
        ),
        _one_step(
            "correct-attention-5-7",
            "ablation: correlations at blocks 5 to 7",
            (_attention("5", "6", "7"),),
        ),
        _one_step(
            "correct-attention-7-9",
            "ablation: correlations at blocks 7 to 9",
            (_attention("7", "8", "9"),),
        ),
        Recipe(
            name="ddim",
            summary="DDIM inversion, then sampling from the inverted latents in as many steps",
            inversion="full",
            start="inverted",
        ),
        _pnp("pnp", "Plug-and-Play: features and attention of a 999-step inversion", 999),
        _pnp("pnp-50", "Plug-and-Play with a 50-step inversion", 50),
        _pnp(
            "pnp-direct",
            "Plug-and-Play with an inversion under the source prompt",
            50,
            inversion_prompt="source",
            source_branch_prompt="empty",
        ),
        _p2p("p2p", "Prompt-to-Prompt: words replaced one for one", "replace", source="sampled"),
        _p2p("p2p-refine", "Prompt-to-Prompt: words added to the prompt", "refine", source="sampled"),
        _p2p(
            "p2p-reweight",
            "Prompt-to-Prompt: words given more or less weight (needs equalizer)",
            "reweight",
            source="sampled",
        ),
        _p2p("p2p-direct", "p2p with the inversion's latents as source", "replace", 32 * 32, **_DIRECT),
        _p2p(
            "p2p-direct-refine",
            "p2p-refine with the inversion's latents as source",
            "refine",
            32 * 32,
            **_DIRECT,
        ),
        _p2p(
            "p2p-direct-both",
            "p2p-direct with the target corrected like the source",
            "replace",
            32 * 32,
            **_DIRECT | {"source": "corrected"},
        ),
        _p2p(
            "p2p-npi",
            "p2p-refine from a negative-prompt inversion",
            "refine",
            32 * 32,
            source="sampled",
            steps_offset=0,
            unconditional="source",
        ),
        _masactrl(
            "masactrl",
            "MasaCtrl: the target's queries on the source's keys and values",
            source="sampled",
        ),
        _masactrl("masactrl-direct", "masactrl with the inversion's latents as source", **_DIRECT),
        Recipe(
            name="npi",
            summary="negative-prompt inversion: guidance away from the source prompt",
            unconditional="source",
            **_INVERTED,
        ),
        Recipe(
            name="renoise",
            summary="ReNoise: DDIM inversion, each step iterated to a fixed point and averaged",
            inversion_iterations=10,
            inversion_average=(8, 10),
            **{**_INVERTED, "posterior": "sample"},
        ),
        Recipe(
            name="infedit",
            summary="InfEdit: virtual inversion; each step goes to the clean picture, noised again",
            source="noised",
            step_to="clean",
        ),
        Recipe(
            name="cyclediffusion",
            summary="CycleDiffusion: the noise with which DDIM would reproduce the source",
            source="noised",
            eta=0.1,
            noise="posterior",
        ),
        Recipe(
            name="flowedit",
            summary="FlowEdit for noise-predicting models: steps by the difference of predictions",
            source="noised",
            source_guidance=3.5,
            posterior="mean",
            steps=50,
            strength=0.66,
            guidance_scale=13.5,
        ),
        _along_maps(
            "edit-friendly",
            "edit-friendly DDPM inversion: sampling with the source's noise maps",
            inversion_guidance=3.5,
            steps=100,
            strength=0.64,
            guidance_scale=15.0,
        ),
        _along_maps(
            "leditspp",
            "LEDITS++: noise maps of a faster solver, guidance only where it is strong",
            # diffusers' pipeline guides by 3.5 with the two texts exchanged: 1 - 3.5
            inversion_guidance=-2.5,
            last_map=False,
            guidance_threshold=0.9,
            scheduler="sde-dpm++",
            steps=34,
            strength=0.883,
            guidance_scale=5.0,
        ),
        _along_maps(
            "turboedit",
            "TurboEdit: shifted noise maps in 4 steps (Turbo models)",
            noise_shift=1,
            last_map_norm=15.5,
            unconditional="source",
            model="turbo",
            steps=5,
            strength=0.8,
            guidance_scale=1.5,
        ),
    )
}
#: The names that the authors' code gives to its presets.
ALIASES = {"all": "correct", "only-spatial": "correct-features"}


def built_in(name: str) -> Recipe:
    """The built-in recipe of that name or alias.

    Raises:
        ValueError: there is none; the message suggests the nearest name.
    """
    recipe = BUILT_IN.get(ALIASES.get(name, name))
    if recipe is None:
        hint = did_you_mean(name, [*BUILT_IN, *ALIASES], "see `sdcorrect recipes`")
        raise ValueError(f"there is no recipe {name!r}; {hint}")
    return recipe


def _by_name(value: Any) -> Any:
    return built_in(value) if isinstance(value, str) else value


#: In a job: a recipe's name, or a recipe in full.
RecipeField = Annotated[Recipe, BeforeValidator(_by_name)]
