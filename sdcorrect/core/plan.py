"""What the sampler is told to do, as plain values (imports no torch)."""

from collections.abc import Collection, Sequence
from dataclasses import dataclass
from itertools import product
from typing import Literal

from sdcorrect.errors import UsageError

#: What can be taken from the source. self-attention: post-softmax `A_k`, which is what copying Q and K
#: comes to; query: Q of self-attention; key-value: its K and V; cross-attention: its post-softmax
#: probabilities, read through the alignment of the two prompts; skip: `S_k`; resnet: the hidden states
#: after a block's last convolution, before its shortcut is added.
TensorName = Literal["self-attention", "query", "key-value", "cross-attention", "skip", "resnet"]
#: Tensors that are features, a channel for each picture and an image in each channel.
FEATURES: tuple[TensorName, ...] = ("skip", "resnet")

#: Whose mean and standard deviation a channel of features has when it is put back: the source's, which
#: is the tensor as it is, or those of the tensor that it replaces (AdaIN).
Statistics = Literal["source", "own"]

#: The paper's one evaluation on the clean latents is at the cleanest timestep but the first.
ONE_STEP = 1

#: A decoder block by its number, or an attention block elsewhere by its name: "encoder.4", "mid".
Block = int | str
MID = "mid"

#: DDIM, DPM-Solver++ 2M, UniPC, the multistep sampling of latent consistency models, and the stochastic
#: DPM-Solver++ 2M, which goes along noise maps alone.
SchedulerName = Literal["ddim", "dpm++", "unipc", "lcm", "sde-dpm++"]

#: How the words of two prompts are told to be the same. replace: word for word, so both prompts have as
#: many; refine: the words that both have, the others are new; reweight: as refine, some weighing more.
Words = Literal["replace", "refine", "reweight"]

#: How the source is found before the target is denoised, if at all. one-step: one evaluation on the
#: clean latents; full: DDIM inversion; ddpm: x0 noised for each timestep by itself, and the noise maps
#: that lead from each to the next (edit-friendly DDPM inversion).
Inversion = Literal["none", "one-step", "full", "ddpm"]

#: The source's branch: the inversion's own latents, denoised anew, or x0 noised anew at each step.
SourceBranch = Literal["inverted", "sampled", "noised"]

#: What a branch is told.
Told = Literal["empty", "source", "target"]

#: Where the source is while the target is denoised: captured before, or in a branch of its own.
Beside = Literal["captured", "inverted", "sampled", "noised"]

#: The first and the last as fractions of the steps taken, half-open.
Window = tuple[float, float]
ALWAYS: Window = (0.0, 1.0)


@dataclass(frozen=True)
class Injection:
    """A tensor of the source put back at `blocks`, over a part of the steps taken.

    That part is a `window` of the steps or, where `timesteps` are given, all steps between those two,
    both included. `weight` 1 replaces the tensor, less blends it with the U-Net's own.
    """

    tensor: TensorName
    blocks: tuple[Block, ...]
    window: Window = ALWAYS
    timesteps: tuple[int, int] | None = None
    weight: float = 1.0
    #: of attention: only where the picture has at most so many tokens at the block
    max_tokens: int | None = None
    #: "cond" leaves the branch of the negative prompt as it is
    branches: Literal["both", "cond"] = "both"
    #: of features
    statistics: Statistics = "source"

    @property
    def sites(self) -> tuple[str, ...]:
        """The parts of a block that are changed: self-attention is all that its Q, K and V come to."""
        return ("query", "key-value") if self.tensor == "self-attention" else (self.tensor,)

    def active(self, step: int, timesteps: Sequence[int]) -> bool:
        """Whether the tensor is put back at `step` of a run over `timesteps`."""
        if self.timesteps is not None:
            return min(self.timesteps) <= timesteps[step] <= max(self.timesteps)
        return in_window(step, len(timesteps), self.window)


@dataclass(frozen=True)
class Reuse:
    """Deep U-Net features computed at every `every`-th step and kept in between."""

    every: int


@dataclass(frozen=True)
class Plan:
    """A recipe resolved for one U-Net.

    `inversion` says where the source's tensors come from: from one evaluation on the clean latents
    ("one-step") at `timestep`, or from the source itself, which runs beside the target. There its
    branch, `source`, is "inverted", the inversion's own latents at each timestep, or "sampled", denoised
    anew with the same guidance from where the inversion ended, or "noised", x0 noised anew at each step
    without an inversion.

    The one evaluation reads the clean latents x0 themselves; with `scale_input` it reads
    sqrt(a_t) x0, which is the noised latents of that timestep with their noise left out.
    """

    inversion: Inversion = "none"
    inversion_steps: int | None = None
    inversion_guidance: float = 1.0
    start: Literal["noise", "inverted"] = "noise"
    source: SourceBranch = "inverted"
    injections: tuple[Injection, ...] = ()
    guidance_window: Window = ALWAYS
    reuse: Reuse | None = None
    timestep: int = ONE_STEP
    scale_input: bool = False
    #: U-Net evaluations for each step of a full inversion, and which of them, half-open, are averaged
    inversion_iterations: int = 1
    inversion_average: tuple[int, int] | None = None
    #: of inversion: ddpm
    maps: "Maps | None" = None
    #: of source: noised
    noised: "Noising | None" = None
    #: the part of guidance that is left out, where it is smallest
    guidance_threshold: float | None = None

    @property
    def beside(self) -> Beside:
        if self.noised:
            return "noised"
        runs_along = self.inversion in ("full", "ddpm") and self.injections
        return self.source if runs_along else "captured"

    @property
    def source_guidance(self) -> float | None:
        """The guidance scale of the source's branch, where it is not the target's."""
        return self.noised.guidance if self.noised else None


@dataclass(frozen=True)
class Maps:
    """How the noise maps of an edit-friendly DDPM inversion are found (Huberman-Spiegelglas, 2024)."""

    shift: int = (
        0  #: latents are noised as so many steps later, while the U-Net is told their own timestep
    )
    last: bool = True  #: the map of the last step is kept, without which x0 is not met exactly
    last_norm: float | None = None  #: the largest norm of the last map of a picture


@dataclass(frozen=True)
class Noising:
    """How a source is noised anew beside the target."""

    guidance: float = 1.0
    eta: float = 0.0  #: of DDIM's steps, how much is drawn: 0 none, 1 as much as DDPM draws
    #: "anew": noise that has nothing to do with the last; "posterior": as DDIM with eta draws it
    noise: Literal["anew", "posterior"] = "anew"
    #: whether a step leads to the clean picture, which is noised again, or to the next timestep
    to_clean: bool = False


def check_windows(plan: Plan, timesteps: Sequence[int]) -> None:
    """Refuse what cannot be done on a run over `timesteps`.

    Raises:
        UsageError: an injection at no step at all, or two of them at one site in one step.
    """
    for injection in plan.injections:
        if not any(injection.active(step, timesteps) for step in range(len(timesteps))):
            part = (
                f"timesteps {injection.timesteps[0]} to {injection.timesteps[1]}"
                if injection.timesteps
                else f"window {injection.window[0]:g} to {injection.window[1]:g}"
            )
            raise UsageError(
                f"{injection.tensor}: none of the {len(timesteps)} steps taken (timesteps "
                f"{timesteps[0]} to {timesteps[-1]}) is in its {part}; widen it, or take more steps"
            )
    for step in range(len(timesteps)):
        taken: dict[tuple[str, Block], TensorName] = {}
        for injection in plan.injections:
            if not injection.active(step, timesteps):
                continue
            for site, block in product(injection.sites, injection.blocks):
                if (site, block) in taken:
                    raise UsageError(
                        f"{taken[site, block]} of block {block} is put back twice at step {step}"
                        f"{_beside(taken[site, block], injection.tensor)}; "
                        f"give each block once, or windows that do not overlap"
                    )
                taken[site, block] = injection.tensor


def _beside(first: TensorName, second: TensorName) -> str:
    return "" if first == second else f", there is {second} too"


def check_word_for_word(source: str, target: str) -> None:
    """Refuse two prompts that have no word for each word of the other.

    Raises:
        UsageError: they have different numbers of words.
    """
    if len(source.split()) != len(target.split()):
        raise UsageError(
            f"prompts cannot be aligned word for word: {source!r} has {len(source.split())} words, "
            f"{target!r} has {len(target.split())}; give as many, or use p2p-refine"
        )


def effective_steps(steps: int, strength: float) -> int:
    """How many of `steps` are computed when denoising starts at `strength`: N - i0.

    The small term absorbs floating point, so that 20 steps at 0.9 are 18 and never 17.
    """
    return int(steps * strength + 1e-6)


def in_window(step: int, total: int, window: Window) -> bool:
    """Whether `step`, 0 to `total` - 1, lies in the half-open `window`."""
    first, last = (int(total * fraction + 1e-6) for fraction in window)
    return first <= step < last


def blocks_of(injections: Collection[Injection], *tensors: TensorName) -> tuple[Block, ...]:
    """The blocks at which `injections` put one of `tensors` back, each once."""
    return tuple(dict.fromkeys(block for i in injections if i.tensor in tensors for block in i.blocks))
