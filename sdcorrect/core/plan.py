"""The sampler's instructions as plain values (imports no torch)."""

from collections.abc import Collection, Sequence
from dataclasses import dataclass
from itertools import product
from typing import Literal

from sdcorrect.errors import UsageError

#: The tensors that can be taken from the source. self-attention: post-softmax `A_k`, equivalent to
#: copying Q and K; query: Q of self-attention; key-value: its K and V; cross-attention: its post-softmax
#: probabilities, mapped through the alignment of the two prompts; skip: `S_k`; resnet: the hidden states
#: after a block's last convolution, before its shortcut is added.
TensorName = Literal["self-attention", "query", "key-value", "cross-attention", "skip", "resnet"]
#: The tensors that are features: (pictures, channels, height, width).
FEATURES: tuple[TensorName, ...] = ("skip", "resnet")

#: The mean and standard deviation of each channel of features that are put back: the source's, which
#: leaves them unchanged, or those of the tensor that they replace (AdaIN).
Statistics = Literal["source", "own"]

#: The timestep of the paper's one evaluation on the clean latents: the second cleanest.
ONE_STEP = 1

#: A decoder block by its number, or an attention block elsewhere by its name: "encoder.4", "mid".
Block = int | str
MID = "mid"

#: DDIM, DPM-Solver++ 2M, UniPC, multistep sampling of latent consistency models, and the stochastic
#: DPM-Solver++ 2M, which works only with noise maps.
SchedulerName = Literal["ddim", "dpm++", "unipc", "lcm", "sde-dpm++"]

#: How the words of two prompts are aligned. replace: word for word, so both must have as many; refine:
#: by the words they share, the others are new; reweight: as refine, with weights for some words.
Words = Literal["replace", "refine", "reweight"]

#: How the source is inverted before the target is denoised. one-step: one evaluation on the clean
#: latents; full: DDIM inversion; ddpm: x0 noised independently for each timestep, and the noise maps
#: that lead from each timestep to the next (edit-friendly DDPM inversion).
Inversion = Literal["none", "one-step", "full", "ddpm"]

#: The latents of the source's branch: those of the inversion, those denoised again from its end, the
#: same led back to the inversion after each step, or x0 noised anew at each step.
SourceBranch = Literal["inverted", "sampled", "corrected", "noised"]

#: The prompt of a branch.
Told = Literal["empty", "source", "target"]

#: The source while the target is denoised: captured before, or in a branch of its own.
Beside = Literal["captured", "inverted", "sampled", "noised"]

#: Part of the steps that are run: first and last as fractions, half-open.
Window = tuple[float, float]
ALWAYS: Window = (0.0, 1.0)


@dataclass(frozen=True)
class Injection:
    """A tensor of the source that is put back at `blocks`, in a part of the steps.

    That part is a `window` of the steps or, if `timesteps` are given, all steps between those two,
    inclusive. `weight` 1 replaces the U-Net's own tensor, less blends the two.
    """

    tensor: TensorName
    blocks: tuple[Block, ...]
    window: Window = ALWAYS
    timesteps: tuple[int, int] | None = None
    weight: float = 1.0
    #: for attention: skip layers with more tokens than this
    max_tokens: int | None = None
    #: "cond" leaves the branch of the negative prompt unchanged
    branches: Literal["both", "cond"] = "both"
    #: for features
    statistics: Statistics = "source"

    @property
    def constant(self) -> bool:
        """Whether it puts the same features of a captured source back in all rows, at every step."""
        return self.branches == "both" and self.weight == 1 and self.statistics == "source"

    @property
    def sites(self) -> tuple[str, ...]:
        """The parts of a block that are changed; self-attention involves its Q, K and V."""
        return ("query", "key-value") if self.tensor == "self-attention" else (self.tensor,)

    def active(self, step: int, timesteps: Sequence[int]) -> bool:
        """Whether the tensor is put back at `step` of a run over `timesteps`."""
        if self.timesteps is not None:
            return min(self.timesteps) <= timesteps[step] <= max(self.timesteps)
        return in_window(step, len(timesteps), self.window)


@dataclass(frozen=True)
class Reuse:
    """Deep U-Net features are computed every `every` steps, and reused in between."""

    every: int


@dataclass(frozen=True)
class Plan:
    """A recipe resolved for one U-Net.

    With `inversion` "one-step", the source's tensors come from one evaluation on the clean latents at
    `timestep`; otherwise they come from the source's own branch beside the target. The latents of that
    branch, `source`, are "inverted": those of the inversion at each timestep; "sampled": denoised again
    from the end of the inversion, with the same guidance; "corrected": the same, and after each step
    source and target are both moved by what leads the source back to its inversion; or "noised": x0
    noised anew at each step, without an inversion.

    The one evaluation reads the clean latents x0 unscaled; with `scale_input` it reads sqrt(a_t) x0:
    the noised latents of that timestep without the noise.
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
    #: U-Net evaluations per step of a full inversion, and which of them (half-open) are averaged
    inversion_iterations: int = 1
    inversion_average: tuple[int, int] | None = None
    #: for inversion: ddpm
    maps: "Maps | None" = None
    #: for source: noised
    noised: "Noising | None" = None
    #: the fraction of the picture that gets no guidance, where guidance is weakest
    guidance_threshold: float | None = None
    #: convolve only once the skips that are the same at every step; see convolving_once
    skips_once: bool = False

    @property
    def beside(self) -> Beside:
        if self.noised:
            return "noised"
        if self.source == "corrected":
            return "sampled"
        runs_along = self.inversion in ("full", "ddpm") and self.injections
        return self.source if runs_along else "captured"

    @property
    def source_guidance(self) -> float | None:
        """The guidance scale of the source's branch; None if it is the target's."""
        return self.noised.guidance if self.noised else None


@dataclass(frozen=True)
class Maps:
    """How to find the noise maps of an edit-friendly DDPM inversion (Huberman-Spiegelglas, 2024)."""

    shift: int = (
        0  #: latents are noised as this many steps later, but the U-Net gets the unshifted timestep
    )
    last: bool = True  #: keep the map of the last step, without which x0 is not reproduced exactly
    last_norm: float | None = None  #: the largest norm of a picture's last map


@dataclass(frozen=True)
class Noising:
    """How a source is noised anew beside the target."""

    guidance: float = 1.0
    eta: float = 0.0  #: DDIM's: how much noise is drawn per step, from 0 (none) to 1 (as DDPM)
    #: "anew": independent noise; "posterior": as DDIM with eta draws it
    noise: Literal["anew", "posterior"] = "anew"
    #: whether a step goes to the clean picture, which is noised again, not to the next timestep
    to_clean: bool = False


def check_windows(plan: Plan, timesteps: Sequence[int]) -> None:
    """Check that the injections of `plan` work on a run over `timesteps`.

    Raises:
        UsageError: an injection applies to no step, or two apply to one site in the same step.
    """
    for injection in plan.injections:
        if not any(injection.active(step, timesteps) for step in range(len(timesteps))):
            part = (
                f"timesteps {injection.timesteps[0]} to {injection.timesteps[1]}"
                if injection.timesteps
                else f"window {injection.window[0]:g} to {injection.window[1]:g}"
            )
            raise UsageError(
                f"{injection.tensor}: none of the {len(timesteps)} steps (timesteps "
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
                        f"list each block once, or use windows that do not overlap"
                    )
                taken[site, block] = injection.tensor


def _beside(first: TensorName, second: TensorName) -> str:
    return "" if first == second else f", because {second} changes it too"


def check_word_for_word(source: str, target: str) -> None:
    """Check that two prompts can be aligned word for word.

    Raises:
        UsageError: they have different numbers of words.
    """
    if len(source.split()) != len(target.split()):
        raise UsageError(
            f"prompts cannot be aligned word for word: {source!r} has {len(source.split())} words, "
            f"{target!r} has {len(target.split())}; use as many words in both, or p2p-refine"
        )


def effective_steps(steps: int, strength: float) -> int:
    """How many of `steps` are run when denoising starts at `strength`: N - i0.

    The small term absorbs floating-point error, so that 20 steps at 0.9 give 18, never 17.
    """
    return int(steps * strength + 1e-6)


def in_window(step: int, total: int, window: Window) -> bool:
    """Whether `step`, 0 to `total` - 1, lies in the half-open `window`."""
    first, last = (int(total * fraction + 1e-6) for fraction in window)
    return first <= step < last


def blocks_of(injections: Collection[Injection], *tensors: TensorName) -> tuple[Block, ...]:
    """The blocks at which `injections` put one of `tensors` back, each once."""
    return tuple(dict.fromkeys(block for i in injections if i.tensor in tensors for block in i.blocks))
