"""ControlNet (Zhang et al., ICCV 2023): what it adds to the skips, and to the middle, of each step."""

from collections.abc import Sequence
from dataclasses import dataclass, field, replace
from typing import Any

from diffusers import MultiControlNetModel
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

    def evaluate(self, latents: Tensor, t: Tensor, text: Text, free: int) -> dict[str, Any]:
        """The residuals of the rows `latents`, as arguments of the U-Net; zero for the first `free`."""
        rows, text = latents[free:], replace(text[free:], guidance=None)
        down, mid = self.networks(
            rows,
            t,
            controlnet_cond=[hint.repeat(len(rows) // len(hint), 1, 1, 1) for hint in self.hints],
            conditioning_scale=list(self.scales),
            return_dict=False,
            **text.arguments,
        )
        *self._down, mid = (pad(residual, (0, 0, 0, 0, 0, 0, free, 0)) for residual in (*down, mid))
        return {
            "down_block_additional_residuals": tuple(self._down),
            "mid_block_additional_residual": mid,
        }

    def residual(self, block: int) -> Tensor:
        """What decoder block `block` finds added to its skip, (rows, channels, height, width)."""
        return self._down[-(block + 1)]
