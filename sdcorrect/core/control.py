"""ControlNet (Zhang et al., ICCV 2023): the residuals added to skips and mid block at each step."""

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
    """ControlNets with the hints of a batch of pictures, and the residuals of the current step."""

    networks: MultiControlNetModel
    hints: Sequence[Tensor]  #: for each network, (batch, 3, height, width) in [0, 1]
    scales: Sequence[float]
    _down: Sequence[Tensor] = field(default=(), init=False)

    def evaluate(
        self, latents: Tensor, t: Tensor, text: Text, free: int, unprompted: int = 0
    ) -> dict[str, Any]:
        """The residuals for the rows `latents`, as arguments of the U-Net; zero for the first `free`.

        Networks that pool their residuals to one value per channel, such as ControlNet's shuffle, were
        trained to act only on the prompt's branch: theirs are zero for the next `unprompted` rows too.
        """
        each = []
        for network, hint, scale in zip(self.networks.nets, self.hints, self.scales, strict=True):
            spared = free + (unprompted if network.config.global_pool_conditions else 0)
            each.append(_residuals(network, latents, t, text, hint, scale, spared))
        # pooled residuals, (rows, channels, 1, 1), broadcast
        *self._down, mid = [reduce(add, residuals) for residuals in zip(*each, strict=True)]
        return {
            "down_block_additional_residuals": tuple(self._down),
            "mid_block_additional_residual": mid,
        }

    def residual(self, block: int) -> Tensor:
        """The residual added to the skip of decoder block `block`, (rows, channels, height, width)."""
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
    """One network's residuals for the rows `latents`, mid block last; zero for the first `spared`."""
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
