"""Methods as data: which inversion, where denoising starts, which tensors go back where and when.

Imports no torch, so that a recipe is checked and listed without loading a model.
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
#: What stands beside the recipes' folders in an output folder.
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
            f"blocks are a number (4), a number and all later ones (4+), a level of the decoder "
            f"({FIRST}), one block of it ({FIRST}.0), encoder, encoder.4 or mid; not {spec!r}"
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


#: Decoder blocks by number or by level, so that one recipe serves every family of U-Nets.
BlockSpec = Annotated[
    str,
    BeforeValidator(lambda value: str(value) if type(value) is int else value),
    AfterValidator(_check_blocks),
]


#: A part of the steps taken, as fractions.
WindowField = Annotated[tuple[StrictFloat, StrictFloat], AfterValidator(_check_window)]
Timestep = Annotated[StrictInt, Field(ge=0, le=999)]
#: Which latents a picture is encoded as: a sample of the VAE's posterior, or its mean.
Posterior = Literal["sample", "mean"]


class Inject(_Frozen):
    """One tensor of the source, where it is put back, and when."""

    tensor: TensorName
    """which tensor of the source"""
    blocks: tuple[BlockSpec, ...] = Field(min_length=1)
    """where: a number (4, 4+), a level (first-attention, first-attention.0), encoder or mid"""
    window: WindowField = ALWAYS
    """over which part of the steps taken, as fractions"""
    timesteps: tuple[Timestep, Timestep] | None = None
    """or between which timesteps, instead of window"""
    weight: Annotated[StrictFloat, Field(gt=0, le=1)] = 1.0
    """1 replaces the U-Net's own, less blends with it"""
    max_tokens: Annotated[StrictInt, Field(ge=1)] | None = None
    """of attention: only where there are at most so many tokens"""
    branches: Literal["both", "cond"] = "both"
    """into both branches of guidance, or into that of the prompt alone"""
    statistics: Statistics = "source"
    """own: each channel gets the mean and deviation that the U-Net's own has there (AdaIN)"""

    @model_validator(mode="after")
    def _is_whole(self) -> Self:
        if self.timesteps and self.window != ALWAYS:
            raise ValueError("give a window of the steps or timesteps, not both")
        if self.max_tokens and self.tensor in FEATURES:
            raise ValueError(f"max_tokens is for attention, {self.tensor} has no tokens")
        if self.statistics == "own" and self.tensor not in FEATURES:
            raise ValueError(
                f"statistics: own is for {' and '.join(FEATURES)}, whose channels have a mean and a "
                f"deviation; leave it out of {self.tensor}"
            )
        return self

    def resolve(self, layout: UNetLayout) -> Injection:
        """The same on a U-Net of `layout`.

        Raises:
            UsageError: a block that the U-Net lacks, or that lacks the tensor.
        """
        having = layout.having(self.tensor)
        blocks = [block for spec in self.blocks for block in _resolve_blocks(spec, layout, having)]
        for block in blocks:
            if block not in having:
                raise UsageError(
                    f"{self.tensor} at block {block}: this U-Net has it "
                    f"at blocks {', '.join(map(str, having))}; choose among those"
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


#: The settings that mean something under one kind of inversion alone.
_OF_INVERSION = {
    "one-step": ("timestep", "scale_input"),
    "full": ("inversion_steps", "inversion_iterations", "inversion_average"),
    "ddpm": ("noise_shift", "last_map", "last_map_norm"),
}
_OF_NOISED = ("source_guidance", "eta", "noise", "step_to")


def _check_name(name: str) -> str:
    if name.casefold() in OTHERS_IN_OUT:
        raise ValueError(f"the output folder has another {name!r}; choose another name")
    return name


LONGEST_NAME = 200
#: It names the folder of the recipe's pictures.
RecipeName = Annotated[
    str,
    Field(pattern=r"^[A-Za-z0-9][A-Za-z0-9._-]*$", max_length=LONGEST_NAME),
    AfterValidator(_check_name),
]


class Recipe(_Frozen):
    """A translation method.

    With the one-step inversion the tensors are those of a single evaluation on the clean latents
    (the paper's correction). With a full inversion the source runs beside the target, and the tensors
    at each step are those of the source at that step: `source: inverted` is the inversion's own latents,
    `source: sampled` denoises them anew, with guidance, from where the inversion ended.
    `source_branch_prompt` is what that branch is told; without it, what the inversion was told. A full
    inversion may evaluate each step several times (`inversion_iterations`), which brings it nearer to
    a fixed point, and go by the mean of some of these evaluations (`inversion_average`, half-open).

    With `inversion: ddpm` the source is noised for each timestep by itself, and the target takes the
    noise maps that lead the source from each to the next; noise may be that of `noise_shift` steps
    later, and the last map be limited or left out. With `source: noised` there is no inversion: the
    source is noised anew beside the target at each step, and the target moves by what the two
    predictions differ in. There `eta` is DDIM's, `noise: posterior` draws by it, and `step_to: clean`
    goes to the clean picture at each step, which is then noised again.

    The single evaluation is at `timestep`, in the paper 1. At any timestep it reads the clean latents x0
    as they are; with `scale_input` it reads sqrt(a_t) x0, which is the noised latents of that timestep
    with their noise left out.

    `unconditional: source` tells the unconditional branch the source prompt instead of the negative one.
    `guidance_threshold` leaves guidance out where it is weakest, over that part of the picture.

    The settings from `steps` on are the job's where a recipe leaves them out; where it has its own, the
    method is not itself without them, and they hold whatever the job says. With `solver_steps`, `steps`
    and the strength say at which noise to start, and the solver goes from there in so many.
    """

    name: RecipeName
    """names the folder of its pictures"""
    summary: str = ""
    """a line for `sdcorrect recipes`"""
    inversion: Inversion = "none"
    """how the source is found: one evaluation of the clean latents, DDIM inversion, or noise maps"""
    timestep: Timestep = ONE_STEP
    """of the one evaluation"""
    scale_input: StrictBool = False
    """the one evaluation reads sqrt(a_t) times the clean latents"""
    inversion_steps: Annotated[StrictInt, Field(ge=1, le=999)] | None = None
    """steps of a full inversion; by default the job's steps"""
    inversion_prompt: Literal["empty", "source"] = "empty"
    """what a full inversion is told"""
    inversion_guidance: StrictFloat = 1.0
    """guidance of a full inversion towards the source prompt; 1 is none"""
    inversion_iterations: Annotated[StrictInt, Field(ge=1, le=100)] = 1
    """how often each step of an inversion is evaluated, nearer to a fixed point each time"""
    inversion_average: tuple[StrictInt, StrictInt] | None = None
    """of which of these evaluations the mean counts, [first, end)"""
    noise_shift: Annotated[StrictInt, Field(ge=0, le=10)] = 0
    """with ddpm: take the noise maps of so many steps later"""
    last_map: StrictBool = True
    """with ddpm: use the last noise map"""
    last_map_norm: Annotated[StrictFloat, Field(gt=0)] | None = None
    """with ddpm: limit the norm of the last noise map"""
    start: Literal["noise", "inverted"] = "noise"
    """where denoising starts: at noised or at inverted latents"""
    source: SourceBranch = "inverted"
    """the source beside the target: the latents of the inversion, denoised anew, or noised anew"""
    source_branch_prompt: Told | None = None
    """what the source beside the target is told; by default what the inversion was told"""
    source_guidance: Annotated[StrictFloat, Field(ge=0)] = 1.0
    """guidance of the source beside the target; 1 is none"""
    eta: Annotated[StrictFloat, Field(ge=0, le=1)] = 0.0
    """of DDIM: how much noise is drawn at each step, with source: noised"""
    noise: Literal["anew", "posterior"] = "anew"
    """with source: noised, noise drawn anew at each step or by the posterior"""
    step_to: Literal["next", "clean"] = "next"
    """with source: noised, a step leads to the next timestep, or to the clean picture"""
    inject: tuple[Inject, ...] = ()
    """which tensors of the source are put back, where and when"""
    words: Words | None = None
    """how Prompt-to-Prompt's cross-attention goes from the source prompt to the prompt"""
    posterior: Posterior = "sample"
    """latents drawn from the VAE's posterior, or its mean"""
    unconditional: Literal["negative", "source"] = "negative"
    """what the unconditional branch is told: the negative prompt or the source prompt"""
    guidance_window: WindowField = ALWAYS
    """classifier-free guidance in this part of the steps alone, as fractions"""
    guidance_threshold: Annotated[StrictFloat, Field(gt=0, lt=1)] | None = None
    """leave guidance out over this part of the picture, where it is weakest"""
    reuse_every: Annotated[StrictInt, Field(ge=2)] | None = None
    """keep the deep levels of the U-Net of every so many steps"""
    model: Literal["any", "turbo"] = "any"
    """the kind of model that the recipe is for"""
    steps: Annotated[StrictInt, Field(ge=1, le=999)] | None = None
    """its own instead of the job's"""
    strength: Annotated[StrictFloat, Field(gt=0, le=1)] | None = None
    """its own instead of the job's"""
    guidance_scale: Annotated[StrictFloat, Field(ge=0)] | None = None
    """its own instead of the job's"""
    negative_prompt: str | None = None
    """its own instead of the job's"""
    scheduler: SchedulerName | None = None
    """its own instead of the job's"""
    solver_steps: Annotated[StrictInt, Field(ge=1, le=999)] | None = None
    """steps that the solver takes from where steps and strength start it"""
    steps_offset: Annotated[StrictInt, Field(ge=0, le=1)] | None = None
    """its own instead of the model's"""

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
        # not whether it was set: a recipe that was written out whole is read back
        default = type(self).model_fields[setting].default
        return bool(getattr(self, setting) == default)

    def _about_inversion(self) -> Iterator[str]:
        if self.inject and self.inversion == "none" and self.source != "noised":
            yield (
                "what is injected comes from an inversion: set inversion: one-step or full, or "
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
            yield "inversion: ddpm leads from its own latents: set start: inverted"
        if self.inversion_guidance != 1 and self.inversion_prompt != "source":
            yield "inversion_guidance is towards a prompt: set inversion_prompt: source"
        if self.inversion_average is not None:
            first, last = self.inversion_average
            if not 0 <= first < last <= self.inversion_iterations:
                yield (
                    "inversion_average is two numbers of evaluations, "
                    f"0 <= first < last <= inversion_iterations ({self.inversion_iterations})"
                )

    def _about_source(self) -> Iterator[str]:
        if self.source == "sampled" and self.start != "inverted":
            yield "source: sampled needs start: inverted, where source and target part"
        if self.source == "sampled" and self.inversion == "ddpm":
            yield "inversion: ddpm has the source's latents at each step: leave source out"
        if self.source == "noised" and (self.inversion != "none" or self.start != "noise"):
            yield "source: noised takes the place of an inversion: leave inversion and start out"
        for setting in _OF_NOISED:
            if not self._is_default(setting) and self.source != "noised":
                yield f"{setting} needs source: noised"
        if self.noise == "posterior" and not self.eta:
            yield "noise: posterior draws by eta, which is 0: set eta"
        if self.step_to == "clean" and self.eta:
            yield "step_to: clean draws all noise anew: leave eta out"
        if any(i.tensor == "cross-attention" for i in self.inject) != (self.words is not None):
            yield "words (replace, refine, reweight) and a cross-attention need each other"
        if self.words and self._source_is_told != "source":
            yield (
                "cross-attention is that of the source prompt: set source: sampled, or "
                "source_branch_prompt: source"
            )
        if self.source_branch_prompt and not self._runs_along:
            yield "source_branch_prompt needs a branch: set inversion: full or ddpm, or source: noised"

    def _about_solver(self) -> Iterator[str]:
        if self.solver_steps and self.scheduler in (None, "ddim"):
            yield "solver_steps is for another solver than DDIM: set scheduler: dpm++, unipc or lcm"
        if self.inversion == "full" and self.scheduler not in (None, "ddim"):
            yield "inversion: full goes along the steps of DDIM: leave scheduler out"
        if self.inversion == "ddpm" and self.scheduler not in (None, "ddim", "sde-dpm++"):
            yield "inversion: ddpm goes along the steps of ddim or sde-dpm++"
        if self.scheduler == "sde-dpm++" and self.inversion != "ddpm":
            yield "sde-dpm++ goes along noise maps: set inversion: ddpm, or scheduler: dpm++"
        if (self.eta or self.noise == "posterior") and self.scheduler not in (None, "ddim"):
            yield "eta is DDIM's: leave scheduler out"

    @property
    def _runs_along(self) -> bool:
        return self.inversion in ("full", "ddpm") or self.source == "noised"

    @property
    def _source_is_told(self) -> Told | None:
        if not self._runs_along:
            return None
        if self.source_branch_prompt or self.source == "noised":
            return self.source_branch_prompt or "source"
        if self.words and self.source == "sampled":
            return "source"
        return self.inversion_prompt

    def source_is_told(self) -> Told:
        """What the source's branch is told; where it has none, what the inversion is."""
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
        """This recipe on a U-Net of `layout`.

        Raises:
            UsageError: it names a block that the U-Net lacks, or that lacks the tensor.
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
            raise UsageError(f"{spec}: the decoder of this U-Net has {len(levels)} attention levels")
        level = levels[number]
        index = int(match["index"] or 0)
        if index >= len(level):
            raise UsageError(f"{spec}: that level has {len(level)} blocks in this U-Net")
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
    """A correction, and the same by the solver and steps of `correct-fast`."""
    fast = {"scheduler": "dpm++", "solver_steps": 6}
    return (
        _one_step(name, summary, inject),
        _one_step(f"{name}-fast", f"{name} by DPM-Solver++ in 6 steps", inject, **fast),
    )


def _pnp(name: str, summary: str, inversion_steps: int, **settings: Any) -> Recipe:
    """Tumanyan et al., CVPR 2023, as the public diffusers version runs it.

    Q and K are what it copies; softmax(QK^T) of the source's Q and K is the source's self-attention.
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


#: From an inversion of 50 steps under the source prompt, in 50 steps.
_INVERTED: dict[str, Any] = {
    "inversion": "full",
    "inversion_steps": 50,
    "inversion_prompt": "source",
    "start": "inverted",
    "posterior": "mean",
    "steps": 50,
}


def _p2p(name: str, summary: str, words: Words, max_tokens: int = 16 * 16, **settings: Any) -> Recipe:
    """Hertz et al., ICLR 2023: the branch of the prompt alone is edited, all over the U-Net."""
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
    """Cao et al., ICCV 2023: from step 4 of 50 and layer 10 of the U-Net's 16 on, decoder block 6."""
    inject = (Inject(tensor="key-value", blocks=("second-attention+",), window=(0.08, 1)),)
    return Recipe(
        name=name,
        summary=summary,
        inject=inject,
        **{**_INVERTED, "inversion_prompt": "empty"},
        **settings,
    )


def _along_maps(name: str, summary: str, **settings: Any) -> Recipe:
    """Along the noise maps of the source (Huberman-Spiegelglas et al., CVPR 2024)."""
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
            "correct, its features with the mean and deviation of those that they replace",
            _ADAIN,
        ),
        *_with_fast(
            "correct-wide",
            "the clean picture's queries in all self-attention, and nothing of its features",
            _WIDE,
        ),
        _one_step(
            "correct-attention",
            "correlations alone, over the whole first attention level",
            (_attention(FIRST),),
        ),
        _one_step(
            "correct-features",
            "features alone (the paper's preset 'only spatial')",
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
            summary="DDIM inversion over as many steps, then sampling from the inverted latents",
            inversion="full",
            start="inverted",
        ),
        _pnp("pnp", "Plug-and-Play: features and attention of a 999-step inversion", 999),
        _pnp("pnp-50", "Plug-and-Play with a 50-step inversion", 50),
        _pnp(
            "pnp-direct",
            "Plug-and-Play along an inversion under the source prompt",
            50,
            inversion_prompt="source",
            source_branch_prompt="empty",
        ),
        _p2p("p2p", "Prompt-to-Prompt: word for word", "replace", source="sampled"),
        _p2p("p2p-refine", "Prompt-to-Prompt: a prompt with more words", "refine", source="sampled"),
        _p2p(
            "p2p-reweight",
            "Prompt-to-Prompt: words weigh more or less (needs equalizer)",
            "reweight",
            source="sampled",
        ),
        _p2p("p2p-direct", "p2p beside the inversion's own latents", "replace", 32 * 32, **_DIRECT),
        _p2p(
            "p2p-direct-refine",
            "p2p-refine beside the inversion's own latents",
            "refine",
            32 * 32,
            **_DIRECT,
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
            "MasaCtrl: the target asks, the source's keys and values answer",
            source="sampled",
        ),
        _masactrl("masactrl-direct", "masactrl beside the inversion's own latents", **_DIRECT),
        Recipe(
            name="npi",
            summary="negative-prompt inversion: guidance away from the source prompt",
            unconditional="source",
            **_INVERTED,
        ),
        Recipe(
            name="renoise",
            summary="DDIM inversion, each step iterated to a fixed point and averaged",
            inversion_iterations=10,
            inversion_average=(8, 10),
            **{**_INVERTED, "posterior": "sample"},
        ),
        Recipe(
            name="infedit",
            summary="InfEdit: virtual inversion, each step to the clean picture and noised again",
            source="noised",
            step_to="clean",
        ),
        Recipe(
            name="cyclediffusion",
            summary="CycleDiffusion: the noise that DDIM would draw to stay on the source",
            source="noised",
            eta=0.1,
            noise="posterior",
        ),
        Recipe(
            name="flowedit",
            summary="FlowEdit for noise-predicting models: the difference of two predictions",
            source="noised",
            source_guidance=3.5,
            posterior="mean",
            steps=50,
            strength=0.66,
            guidance_scale=13.5,
        ),
        _along_maps(
            "edit-friendly",
            "edit-friendly DDPM inversion: along the noise maps of the source",
            inversion_guidance=3.5,
            steps=100,
            strength=0.64,
            guidance_scale=15.0,
        ),
        _along_maps(
            "leditspp",
            "LEDITS++: noise maps of a faster solver, guidance where it is strongest",
            # 3.5, the two texts exchanged, as diffusers' pipeline has it: 1 - 3.5
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
    """The built-in recipe of that name.

    Raises:
        ValueError: there is none; the nearest name is told.
    """
    recipe = BUILT_IN.get(ALIASES.get(name, name))
    if recipe is None:
        hint = did_you_mean(name, [*BUILT_IN, *ALIASES], "see `sdcorrect recipes`")
        raise ValueError(f"there is no recipe {name!r}; {hint}")
    return recipe


def _by_name(value: Any) -> Any:
    return built_in(value) if isinstance(value, str) else value


#: In a job: a recipe's name, or a recipe written out.
RecipeField = Annotated[Recipe, BeforeValidator(_by_name)]
