"""ControlNet (Zhang et al., ICCV 2023): what it adds to the skips, and to the middle, of each step."""

from collections.abc import Sequence
from dataclasses import dataclass, field, replace
from functools import reduce
from operator import add
from typing import Any

from diffusers import ControlNetModel, MultiControlNetModel
from torch import Tensor
from torch.nn.functional import pad

from sdcorrect.core.text import Text


@dataclass
class Control:
    """ControlNets on the hints of a batch of pictures, and the residuals of the step in hand."""

    networks: MultiControlNetModel
    hints: Sequence[Tensor]  #: for each network (batch, 3, height, width) in 0 to 1
    scales: Sequence[float]
    _down: Sequence[Tensor] = field(default=(), init=False)

    def evaluate(
        self, latents: Tensor, t: Tensor, text: Text, free: int, unprompted: int = 0
    ) -> dict[str, Any]:
        """The residuals of the rows `latents`, as arguments of the U-Net; zero for the first `free`.

        Of networks whose residuals are pooled to one value a channel, zero for the next `unprompted`
        too: they were trained to act on the prompt's branch alone, as ControlNet's shuffle.
        """
        each = []
        for network, hint, scale in zip(self.networks.nets, self.hints, self.scales, strict=True):
            spared = free + (unprompted if network.config.global_pool_conditions else 0)
            each.append(_residuals(network, latents, t, text, hint, scale, spared))
        # pooled residuals, (rows, channels, 1, 1), are the same everywhere
        *self._down, mid = [reduce(add, residuals) for residuals in zip(*each, strict=True)]
        return {
            "down_block_additional_residuals": tuple(self._down),
            "mid_block_additional_residual": mid,
        }

    def residual(self, block: int) -> Tensor:
        """What decoder block `block` finds added to its skip, (rows, channels, height, width)."""
        return self._down[-(block + 1)]


def _residuals(
    network: ControlNetModel,
    latents: Tensor,
    t: Tensor,
    text: Text,
    hint: Tensor,
    scale: float,
    spared: int,
) -> list[Tensor]:
    """One network's residuals on the rows `latents`, the middle's last; zero for the first `spared`."""
    rows, text = latents[spared:], replace(text[spared:], guidance=None)
    down, mid = network(
        sample=rows,
        timestep=t,
        controlnet_cond=hint.repeat(len(rows) // len(hint), 1, 1, 1),
        conditioning_scale=scale,
        return_dict=False,
        **text.arguments,
    )
    return [pad(residual, (0, 0, 0, 0, 0, 0, spared, 0)) for residual in (*down, mid)]
