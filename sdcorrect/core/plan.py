"""What the sampler is told to do, as plain values (imports no torch)."""

from collections.abc import Collection
from dataclasses import dataclass
from typing import Literal, get_args

#: What can be taken from the source: post-softmax self-attention `A_k`, and skip tensors `S_k`.
TensorName = Literal["self-attention", "skip"]
TENSORS: tuple[TensorName, ...] = get_args(TensorName)

#: The first and the last as fractions of the steps taken, half-open.
Window = tuple[float, float]
ALWAYS: Window = (0.0, 1.0)


@dataclass(frozen=True)
class Injection:
    """A tensor of the source put back at decoder `blocks`, over a `window` of the steps taken."""

    tensor: TensorName
    blocks: tuple[int, ...]
    window: Window = ALWAYS


@dataclass(frozen=True)
class Plan:
    """A recipe resolved for one U-Net.

    `inversion` says where the source's tensors come from: from one evaluation on the clean latents
    ("one-step"), or from the source's own inverted latents, which run along while denoising ("full").
    """

    inversion: Literal["none", "one-step", "full"] = "none"
    inversion_steps: int | None = None
    start: Literal["noise", "inverted"] = "noise"
    injections: tuple[Injection, ...] = ()


def effective_steps(steps: int, strength: float) -> int:
    """How many of `steps` are computed when denoising starts at `strength`: N - i0.

    The small term absorbs floating point, so that 20 steps at 0.9 are 18 and never 17.
    """
    return int(steps * strength + 1e-6)


def in_window(step: int, total: int, window: Window) -> bool:
    """Whether `step`, 0 to `total` - 1, lies in the half-open `window`."""
    first, last = (int(total * fraction + 1e-6) for fraction in window)
    return first <= step < last


def blocks_of(injections: Collection[Injection], tensor: TensorName) -> tuple[int, ...]:
    """The blocks at which `injections` put `tensor` back, each once, in order."""
    return tuple(sorted({block for i in injections if i.tensor == tensor for block in i.blocks}))
